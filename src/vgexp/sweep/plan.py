"""`plan.json`: every job that a sweep was asked for, under the number that it keeps.

Jobs are known by what decides their tables (`config.identity`). Asking for a sweep again, or for a
larger one, finds the jobs that are there and numbers the new ones after them.
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
"""Of a folder's name, in bytes, on most file systems."""


@dataclass(frozen=True)
class Wanted:
    """A job that is asked for: what was typed, and what it came to."""

    overrides: tuple[str, ...]
    config: Config | None
    """None: a configuration that cannot be."""
    reason: str = ""
    """Why it cannot be."""

    @cached_property
    def identity(self) -> str:
        """What the job is known by."""
        if self.config is None:
            return " ".join(sorted(self.overrides))
        return configuration.identity(self.config)


@dataclass(frozen=True)
class Entry:
    """A job of the plan."""

    job: int
    folder: str
    """Below the sweep's."""
    overrides: tuple[str, ...]
    identity: str
    choices: Mapping[str, str] | None
    """Group -> choice; None, like `values`, for a configuration that cannot be."""
    values: Mapping[str, Any] | None
    reason: str = ""
    """Why the configuration cannot be."""

    @cached_property
    def config(self) -> Config:
        """The configuration.

        Raises:
            QuestionError: it cannot be, or is not one of this version.
        """
        if self.values is None or self.choices is None:
            raise QuestionError(self.reason or "a configuration that cannot be")
        try:
            config = configuration.from_dict(self.values, self.choices)
        except Exception as error:  # of many kinds, where somebody else wrote the values
            raise QuestionError(f"job {self.job} of {FILE}: {error}") from None
        if configuration.identity(config) != self.identity:
            raise QuestionError(f"job {self.job} of {FILE} has the configuration of another")
        return config


@dataclass(frozen=True)
class Plan:
    """All jobs, and the commands that asked for them."""

    entries: tuple[Entry, ...] = ()
    commands: tuple[tuple[str, ...], ...] = ()
    """Words after `vgexp`."""
    pending: tuple[tuple[str, ...], ...] = ()
    """Those whose jobs are not all here yet: killed before, or a search that goes on."""

    def entry_in(self, folder: str) -> Entry | None:
        """The job whose folder that is."""
        return next((entry for entry in self.entries if entry.folder == folder), None)

    def begun(self, command: tuple[str, ...]) -> Plan:
        """With a command that will bring jobs."""
        commands, pending = dict.fromkeys(self.commands), dict.fromkeys(self.pending)
        return dataclasses.replace(
            self, commands=(*(commands | {command: None}),), pending=(*(pending | {command: None}),)
        )

    def without(self, command: tuple[str, ...]) -> Plan:
        """As if a command had not been typed that brought no jobs."""
        commands = tuple(words for words in self.commands if words != command)
        return dataclasses.replace(self.done_with(command), commands=commands)

    def done_with(self, command: tuple[str, ...]) -> Plan:
        """With no more jobs to come of a command."""
        pending = tuple(words for words in self.pending if words != command)
        return dataclasses.replace(self, pending=pending)


def read(sweep: Path) -> Plan | None:
    """The plan of a sweep's folder; None where there is none.

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
            raise ValueError("two jobs are one")
        commands, pending = (_words(content[key]) for key in ("commands", "pending"))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise QuestionError(f"cannot read {path}: {error.strerror}") from None
    except QuestionError:
        raise
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise QuestionError(
            f"{path} is damaged: {error}\nallowed: remove it, and type the sweep's command again:"
            " the jobs in its folders are found"
        ) from None
    return Plan(entries, commands, pending)


def write(sweep: Path, plan: Plan) -> None:
    """Replaces the plan, a job a line."""
    content = _content(plan)
    head = {"format": FORMAT, "digest": _digest(content), **content}
    jobs = ",\n".join(json.dumps(job) for job in head.pop("jobs"))
    text = json.dumps(head)[:-1] + f', "jobs": [\n{jobs}\n]}}\n'
    with folders.replace_file(sweep / FILE) as temporary:
        temporary.write_text(text, encoding="utf-8")


def change(sweep: Path, changed_from: Callable[[Plan], Plan]) -> Plan:
    """Replaces the plan by another, one process at a time."""
    with folders.lock_out_others(sweep):
        changed = changed_from(read(sweep) or Plan())
        write(sweep, changed)
    return changed


def extended(
    plan: Plan,
    wanted: Sequence[Wanted],
    met: Counter[str],
    folder_of: Callable[[Wanted, int], str],
    is_open: Callable[[Entry], bool] = lambda _: False,
) -> tuple[Plan, list[Entry]]:
    """The plan with what is wanted in it, and the entry of each.

    The second job of one identity is another job (`device=cpu,cuda`), so the n-th that is wanted is
    the n-th in the plan.

    Args:
        met: identity -> how many were wanted before, by the same command; counts on.
        folder_of: the folder of a new job, from its number.
        is_open: whether a job has not come to its end yet.

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


def found(sweep: Path) -> Plan:
    """A plan of the jobs whose folders are there: what is left where `plan.json` was lost."""
    from vgexp import tables

    entries = []
    for folder in sorted(sweep.iterdir()):
        if folder.name.isdecimal() and files.exists(folder / folders.CONFIG):
            job = Wanted(_typed(folder), tables.read_config(folder))
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
    """A job as it was written; the digest says that it is, but not by whom."""
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
    """Whether it names a folder below another one, in the one spelling that Hydra leaves as it is:
    `${...}` would become a value."""
    path = PurePosixPath(folder)
    is_below = bool(path.parts) and not path.is_absolute() and ".." not in path.parts
    is_plain = str(path) == folder and "\0" not in folder and "${" not in folder
    return is_below and is_plain and all(len(os.fsencode(x)) <= _MOST_LETTERS for x in path.parts)


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError(f"{str(value)[:40]!r} is no list")
    return value


def _typed(folder: Path) -> tuple[str, ...]:
    """A job's overrides, as Hydra noted them; none where that cannot be read.

    Raises:
        QuestionError: the file is a link or the like.
    """
    import yaml

    folders.require_own(folder)
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
    """Commands as they were written: each a list of words, the first a verb."""
    found = tuple(tuple(_list(words)) for words in _list(commands))
    if not all(words and all(isinstance(word, str) for word in words) for words in found):
        raise ValueError("a command is no list of words")
    return found


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
