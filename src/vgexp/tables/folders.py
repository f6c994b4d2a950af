"""Finds run folders in and below other folders."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from pathlib import Path

from vgexp import files, folders
from vgexp.errors import QuestionError

# What, beside a configuration, makes a folder a run; a summary does so alone (a job that failed
# before it had a configuration).
_RUN_MARKS = ("layers.csv", "train.log")
_SWEEP_MARK = "plan.json"
_WHAT_IS_ALLOWED = "allowed: a run folder, a sweep folder, or a folder above such folders"


def find_runs(paths: Iterable[Path | str], allowed: str = _WHAT_IS_ALLOWED) -> list[Path]:
    """Finds the run folders that the paths name or hold, each once, in the order of jobs.

    A run folder has a summary, or a configuration and beside it a table of layers or a log. Folders
    whose names begin with a dot are left out, but for those of a sweep's jobs.

    Args:
        allowed: the line of an error that says what a path may be.

    Raises:
        QuestionError: a path that does not exist, is a file, or has no run in or under it.
    """
    found: dict[Path, Path] = {}
    for path in map(Path, paths):
        _require_folder(path, allowed)
        runs = list(_walk(path))
        if not runs:
            raise QuestionError(f"no run in or under {path}\n{allowed}")
        for run in runs:
            found.setdefault(run.resolve(), run)
    return list(found.values())


def _require_folder(path: Path, allowed: str) -> None:
    if path.is_dir():
        return
    lines = [f"{path} is {'a file' if path.exists() else 'not there'}", allowed]
    if path.exists():
        if path.parent != Path():  # of a file of the current folder "." says nothing
            lines.append(f"nearest: {path.parent}")
    elif path.parent.is_dir():
        siblings = [child.name for child in path.parent.iterdir() if child.is_dir()]
        near = difflib.get_close_matches(path.name, siblings, n=1, cutoff=0.5)
        lines += [f"nearest: {path.parent / name}" for name in near]
    raise QuestionError("\n".join(lines))


def _walk(folder: Path, *, is_of_sweep: bool = False) -> Iterator[Path]:
    if is_run(folder):
        yield folder
        return
    is_of_sweep = is_of_sweep or (folder / _SWEEP_MARK).is_file()
    try:
        children = [
            child
            for child in folder.iterdir()
            if child.is_dir()
            and not child.is_symlink()
            and (is_of_sweep or not child.name.startswith("."))
        ]
    except OSError as error:
        raise QuestionError(f"cannot read {folder}: {error.strerror}") from None
    for child in sorted(children, key=_job_order):
        yield from _walk(child, is_of_sweep=is_of_sweep)


def is_run(folder: Path) -> bool:
    """Whether a folder is that of a run, as `find_runs` finds it."""
    # Whatever it is that has the name: reading it says what is wrong with it.
    has_mark = any(files.exists(folder / mark) for mark in _RUN_MARKS)
    has_config = files.exists(folder / folders.CONFIG)
    return files.exists(folder / folders.SUMMARY) or (has_mark and has_config)


def _job_order(folder: Path) -> tuple[bool, int, str]:
    name = folder.name.lstrip(".")
    is_job = name.isdecimal()
    return (not is_job, int(name) if is_job else 0, folder.name)
