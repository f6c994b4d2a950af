"""`plan.json`: all jobs of a sweep, with their numbers, folders and configurations.

A job is known by the values that decide its tables (`config.identity`). When a sweep is typed
again, or a larger one, its known jobs keep their numbers, and new ones are numbered after them.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from vgexp import config as configuration
from vgexp import files, folders
from vgexp.config import Config
from vgexp.errors import QuestionError

FILE = "plan.json"
FORMAT = 1
_MOST_JOBS = 10**9
_MOST_LETTERS = 255
"""The most bytes of a folder's name on most file systems."""


@dataclass(frozen=True)
class Wanted:
    """A job that a command asks for: its overrides and its configuration."""

    overrides: tuple[str, ...]
    config: Config | None
    """None: the overrides give no possible configuration."""
    reason: str = ""
    """Why the configuration is impossible."""

    @cached_property
    def identity(self) -> str:
        """The text by which the job is known."""
        if self.config is None:
            return " ".join(sorted(self.overrides))
        return configuration.identity(self.config)


@dataclass(frozen=True)
class Entry:
    """A job of the plan."""

    job: int
    folder: str
    """Relative to the sweep's."""
    overrides: tuple[str, ...]
    identity: str
    choices: Mapping[str, str] | None
    """Group -> choice; None, like `values`, for an impossible configuration."""
    values: Mapping[str, Any] | None
    reason: str = ""
    """Why the configuration is impossible."""

    @cached_property
    def config(self) -> Config:
        """The configuration of the job.

        Raises:
            QuestionError: it is impossible, or of another version.
        """
        if self.values is None or self.choices is None:
            raise QuestionError(self.reason or "an impossible configuration")
        try:
            config = configuration.from_dict(self.values, self.choices)
        except Exception as error:  # of many kinds, where somebody else wrote the values
            raise QuestionError(f"job {self.job} of {FILE}: {error}") from None
        if configuration.identity(config) != self.identity:
            raise QuestionError(f"job {self.job} of {FILE} has the configuration of another")
        return config


@dataclass(frozen=True)
class Plan:
    """All jobs of a sweep, and the commands that asked for them."""

    entries: tuple[Entry, ...] = ()
    commands: tuple[tuple[str, ...], ...] = ()
    """The words after `vgexp` of each command."""
    pending: tuple[tuple[str, ...], ...] = ()
    """The commands whose jobs are not all in the plan: killed ones, and searches that go on."""

    def entry_in(self, folder: str) -> Entry | None:
        """Finds the job of a folder."""
        return next((entry for entry in self.entries if entry.folder == folder), None)

    def add_command(self, command: tuple[str, ...]) -> Plan:
        """Returns the plan with a command whose jobs will be added."""
        commands, pending = dict.fromkeys(self.commands), dict.fromkeys(self.pending)
        return dataclasses.replace(
            self, commands=(*(commands | {command: None}),), pending=(*(pending | {command: None}),)
        )

    def remove_command(self, command: tuple[str, ...]) -> Plan:
        """Returns the plan without a command that added no jobs."""
        commands = tuple(words for words in self.commands if words != command)
        return dataclasses.replace(self.end_command(command), commands=commands)

    def end_command(self, command: tuple[str, ...]) -> Plan:
        """Returns the plan after a command has added all of its jobs."""
        pending = tuple(words for words in self.pending if words != command)
        return dataclasses.replace(self, pending=pending)


def read(sweep: Path) -> Plan | None:
    """Reads the plan of a sweep's folder; None where there is none.

    Raises:
        QuestionError: the file is damaged, or of another version.
    """
    path = sweep / FILE
    try:
        content = json.loads(files.read(path, folders.MOST_SWEEP_BYTES))
        written, digest = content.pop("format"), content.pop("digest")
        if written != FORMAT:
            raise QuestionError(
                f"{path} has format {written}\nallowed: {FORMAT}, which this version writes"
            )
        if digest != _digest(content):
            raise ValueError("its content was changed")
        entries = tuple(map(_entry_from, _list(content["jobs"])))
        numbers, names = {e.job for e in entries}, {e.folder for e in entries}
        if min(len(numbers), len(names)) < len(entries):
            raise ValueError("two jobs share a number or a folder")
        commands, pending = (_words(content[key]) for key in ("commands", "pending"))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise QuestionError(f"cannot read {path}: {error.strerror}") from None
    except QuestionError:
        raise
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        what = "it is not text" if isinstance(error, UnicodeDecodeError) else error
        raise QuestionError(
            f"{path} is damaged: {what}\nallowed: remove it, and type the sweep's command again:"
            " the jobs in its folders are found"
        ) from None
    return Plan(entries, commands, pending)


def write(sweep: Path, plan: Plan) -> None:
    """Writes the plan, one job a line."""
    content = _content(plan)
    head = {"format": FORMAT, "digest": _digest(content), **content}
    jobs = ",\n".join(json.dumps(job) for job in head.pop("jobs"))
    text = json.dumps(head)[:-1] + f', "jobs": [\n{jobs}\n]}}\n'
    with folders.replace_file(sweep / FILE) as temporary:
        temporary.write_text(text, encoding="utf-8")


def change(sweep: Path, make_changed: Callable[[Plan], Plan]) -> Plan:
    """Changes the plan of a folder, one process at a time. Returns the new plan."""
    with folders.lock_out_others(sweep):
        changed = make_changed(read(sweep) or Plan())
        write(sweep, changed)
    return changed


def extend(
    plan: Plan,
    wanted: Sequence[Wanted],
    met: Counter[str],
    folder_of: Callable[[Wanted, int], str],
    is_open: Callable[[Entry], bool] = lambda _: False,
) -> tuple[Plan, list[Entry]]:
    """Adds wanted jobs to a plan. Returns the plan, and the entry of each wanted job.

    Two jobs may have one identity (`device=cpu,cuda`), so the n-th wanted one is the n-th in the
    plan.

    Args:
        met: identity -> how many such jobs the command wanted before; it is updated.
        folder_of: a function that names the folder of a new job, from its number.
        is_open: whether a job has not ended.

    Raises:
        QuestionError: two jobs would share a folder.
    """
    known: dict[str, list[Entry]] = {}
    for entry in plan.entries:
        known.setdefault(entry.identity, []).append(entry)
    taken = {entry.folder: entry.job for entry in plan.entries}
    number = max((entry.job for entry in plan.entries), default=-1) + 1
    asked, added = [], []
    renewed: dict[int, Entry] = {}
    for job in wanted:
        same = known.setdefault(job.identity, [])
        if met[job.identity] == len(same):
            folder = PurePosixPath(folder_of(job, number)).as_posix()
            if not _is_inside(folder):
                raise QuestionError(
                    f"hydra.sweep.subdir is {folder!r}\n"
                    "allowed: a folder below the sweep's, "
                    f"each name of at most {_MOST_LETTERS} bytes"
                )
            if folder in taken:
                raise QuestionError(
                    f"jobs {taken[folder]} and {number} would share the folder {folder!r}\n"
                    "allowed: a hydra.sweep.subdir that differs from job to job"
                )
            same.append(_entry(job, number, folder))
            added.append(same[-1])
            taken[folder] = number
            number += 1
        known_one = same[met[job.identity]]
        if is_open(known_one):  # what changes no table may be typed anew: device, output
            known_one = same[met[job.identity]] = _entry(job, known_one.job, known_one.folder)
        renewed[known_one.job] = known_one
        asked.append(known_one)
        met[job.identity] += 1
    entries = tuple(renewed.get(entry.job, entry) for entry in (*plan.entries, *added))
    return dataclasses.replace(plan, entries=entries), asked


def rebuild(sweep: Path) -> Plan:
    """Makes a plan of the jobs whose folders are there, for a sweep that lost its `plan.json`."""
    from vgexp import tables

    entries = []
    for folder in sorted(sweep.iterdir()):
        if folder.name.isdecimal() and files.exists(folder / folders.CONFIG):
            job = Wanted(_read_overrides(folder), tables.read_config(folder))
            entries.append(_entry(job, int(folder.name), folder.name))
    return Plan(tuple(sorted(entries, key=lambda entry: entry.job)))


def _entry(job: Wanted, number: int, folder: str) -> Entry:
    config = job.config
    return Entry(
        number,
        folder,
        job.overrides,
        job.identity,
        None if config is None else configuration.choices(config),
        None if config is None else configuration.to_dict(config),
        job.reason,
    )


def _entry_from(job: Mapping[str, Any]) -> Entry:
    """Checks a job of the file. Its digest says that it is unchanged, but not who wrote it."""
    entry = Entry(**{**job, "overrides": tuple(_list(job["overrides"]))})
    texts = (entry.folder, entry.identity, entry.reason, *entry.overrides)
    is_number = type(entry.job) is int and 0 <= entry.job < _MOST_JOBS
    if not is_number or not all(isinstance(text, str) for text in texts):
        raise ValueError(f"{str(job.get('job'))[:40]!r} is no job")
    for part in (entry.choices, entry.values):
        if part is not None and not isinstance(part, Mapping):
            raise ValueError(f"job {entry.job} has no configuration")
    if not _is_inside(entry.folder):
        raise ValueError(f"the folder {entry.folder[:_MOST_LETTERS]!r} is not below the sweep's")
    return entry


def _is_inside(folder: str) -> bool:
    """Whether a name is that of a folder below another one, in a spelling that Hydra keeps:
    it would replace `${...}` by a value."""
    path = PurePosixPath(folder)
    is_below = bool(path.parts) and not path.is_absolute() and ".." not in path.parts
    is_plain = str(path) == folder and "\0" not in folder and "${" not in folder
    return is_below and is_plain and all(len(os.fsencode(x)) <= _MOST_LETTERS for x in path.parts)


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError(f"{str(value)[:40]!r} is no list")
    return value


def _read_overrides(folder: Path) -> tuple[str, ...]:
    """Reads a job's overrides from Hydra's file; none where it cannot be read.

    Raises:
        QuestionError: the file is a link or the like.
    """
    import yaml

    folders.require_regular_files(folder)
    path = folder / ".hydra" / "overrides.yaml"
    try:
        words = yaml.safe_load(files.read(path, folders.MOST_CONFIG_BYTES))
        return tuple(map(str, _list(words)))
    except Exception:  # YAML raises errors of many kinds
        return ()


def _content(plan: Plan) -> dict[str, Any]:
    jobs = [
        {field.name: getattr(entry, field.name) for field in dataclasses.fields(Entry)}
        for entry in plan.entries
    ]
    return {"commands": plan.commands, "pending": plan.pending, "jobs": jobs}


def _words(commands: Any) -> tuple[tuple[str, ...], ...]:
    """Checks the commands of the file: each is a list of words, the first a verb."""
    found = tuple(tuple(_list(words)) for words in _list(commands))
    if not all(words and all(isinstance(word, str) for word in words) for words in found):
        raise ValueError("a command is no list of words")
    return found


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
