"""`plan.json`: the file of a sweep's plan, read with every entry checked and written whole."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from vgexp import files, folders
from vgexp.errors import QuestionError
from vgexp.sweep.plan import FILE, MOST_LETTERS, Entry, Plan, Wanted, is_below

FORMAT = 1
_MOST_JOBS = 10**9


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


def rebuild(sweep: Path) -> Plan:
    """Makes a plan of the jobs whose folders are there, for a sweep that lost its `plan.json`."""
    from vgexp import tables

    entries = []
    for folder in sorted(sweep.iterdir()):
        if folder.name.isdecimal() and files.exists(folder / folders.CONFIG):
            job = Wanted(_read_overrides(folder), tables.read_config(folder))
            entries.append(job.as_entry(int(folder.name), folder.name))
    return Plan(tuple(sorted(entries, key=lambda entry: entry.job)))


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
    if not is_below(entry.folder):
        raise ValueError(f"the folder {entry.folder[:MOST_LETTERS]!r} is not below the sweep's")
    return entry


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError(f"{str(value)[:40]!r} is no list")
    return value


def _read_overrides(folder: Path) -> tuple[str, ...]:
    """Reads a job's overrides from Hydra's file; none where it cannot be read.

    Raises:
        QuestionError: the file is a link or the like.
    """
    folders.require_regular_files(folder)
    path = folder / ".hydra" / "overrides.yaml"
    try:
        words = folders.parse_yaml(files.read(path, folders.MOST_CONFIG_BYTES))
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
