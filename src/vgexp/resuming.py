"""From where a run goes on: which of its checkpoints is whole, is its own, and fits its tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vgexp import config as configuration
from vgexp import folders
from vgexp.config import Config
from vgexp.errors import QuestionError
from vgexp.records import TABLES

_CLOCK = "timing"
"""The table that no promise is made of."""
ENDED = ("completed", "diverged", "stopped")
"""Statuses of runs that nothing is to be added to."""


@dataclass(frozen=True)
class Start:
    """Where to go on."""

    state: dict[str, Any] | None
    """The trainer's; None: from the beginning."""
    sizes: dict[str, int]
    """Table -> bytes of its file to keep; a table that is not here has no file yet."""
    story: str
    """Where that is, and what was wrong with later checkpoints, for the user."""


def is_open(folder: Path) -> bool:
    """Whether a run's summary is missing, torn, or says that it did not come to its end."""
    return folders.summary_of(folder).get("status") not in ENDED


def save(
    folder: Path, step: int, state: Mapping[str, Any], config: Config, versions: Mapping[str, str]
) -> None:
    """Writes a checkpoint; every row handed on so far is on disk when it is."""
    from vgexp import checkpoints

    sizes = {}
    for table in TABLES:
        path = folder / f"{table}.csv"
        folders.synced(path)
        sizes[table] = path.stat().st_size
    fields = configuration.deciding(config)
    checkpoints.save(folder, checkpoints.Checkpoint(step, state, sizes, fields, dict(versions)))


def start_of(folder: Path, config: Config, versions: Mapping[str, str]) -> Start:
    """The newest checkpoint that is whole and fits the tables; else the beginning.

    Raises:
        QuestionError: it was made by another configuration or other versions.
    """
    from vgexp import checkpoints

    story = []
    for path in checkpoints.present(folder):
        try:
            found = checkpoints.load(path)
        except checkpoints.UnusableError as error:
            story.append(f"{path.name} is of no use: {error}")
            continue
        require_equal(path, "configuration", found.config, configuration.deciding(config))
        require_equal(path, "version", found.versions, versions)
        sizes = {**found.sizes, _CLOCK: min(found.sizes[_CLOCK], _size(folder, _CLOCK))}
        torn = [table for table, size in sizes.items() if not _has_lines(folder, table, size)]
        if not torn:
            story.append(f"going on from step {found.step}")
            return Start(dict(found.state), _there(folder, sizes), "; ".join(story))
        story.append(f"{path.name} does not fit {', '.join(torn)}")
    require_equal(
        folder / folders.SUMMARY,
        "configuration",
        {
            "config_hash": folders.summary_of(folder).get(
                "config_hash", configuration.identity(config)
            )
        },
        {"config_hash": configuration.identity(config)},
    )
    return Start(None, _headers(folder), "; ".join([*story, "going on from the beginning"]))


def require_equal(path: Path, what: str, then: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuses to go on with what was made by something else.

    Raises:
        QuestionError: with every difference.
    """
    differing = sorted(key for key in {*then, *now} if then.get(key) != now.get(key))
    if differing:
        lines = [f"  {key}: {then.get(key)} then, {now.get(key)} now" for key in differing]
        raise QuestionError(
            f"{path} is from another {what}\n"
            + "\n".join(lines)
            + "\nallowed: the same; or train again into a new folder"
        )


def _there(folder: Path, sizes: Mapping[str, int]) -> dict[str, int]:
    return {table: size for table, size in sizes.items() if _size(folder, table) > 0}


def _has_lines(folder: Path, table: str, size: int) -> bool:
    """Whether the first `size` bytes of a table are its header and whole lines."""
    if table == _CLOCK and size <= 0:
        return True
    if _size(folder, table) < size:
        return False
    with (folder / f"{table}.csv").open("rb") as file:
        if file.read(len(_header(table))) != _header(table):
            return False
        file.seek(size - 1)
        return file.read(1) == b"\n"


def _header(table: str) -> bytes:
    return (",".join(column.name for column in TABLES[table]) + "\n").encode()


def _headers(folder: Path) -> dict[str, int]:
    """The sizes of tables without rows.

    Raises:
        QuestionError: a file that is no such table.
    """
    sizes = {}
    for table in TABLES:
        header = _header(table)
        path = folder / f"{table}.csv"
        if not path.exists():
            continue
        with path.open("rb") as file:
            begins = file.read(len(header))
        if begins == header:
            sizes[table] = len(header)
        elif header.startswith(begins):
            path.unlink()  # torn as it was made
        else:
            raise QuestionError(
                f"{path} does not begin as this version's {table}.csv does\n"
                "allowed: a run of this version; or train again into a new folder"
            )
    return sizes


def _size(folder: Path, table: str) -> int:
    path = folder / f"{table}.csv"
    return path.stat().st_size if path.exists() else -1
