"""Chooses the checkpoint that a run is resumed from: whole, its own, and fitting its tables."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vgexp import config as configuration
from vgexp import files, folders
from vgexp.config import Config
from vgexp.errors import QuestionError, one_line
from vgexp.folders import Prefix
from vgexp.quantities import COMMON, LATER_TABLES, TABLES, is_header, lacking_columns

_CLOCK = "timing"
"""The table of times, the only one that a resumed run does not repeat byte for byte."""
_MOST_FOR_EACH, _MOST_BESIDE = 16, 2**28
"""A checkpoint has at most this many bytes for each byte of the first state, and these on top."""
_MOST_TIMES = 2**26
"""Bytes of the table of times that are kept at most."""
STOPPED = "stopped"
"""The status of a run that a rule of `train.stop_on` ended."""
ENDED = ("completed", "diverged", STOPPED)
"""Statuses of runs that have ended and are not resumed."""
TRUST = "--trust"
"""The flag that allows recorded code to be executed."""
FAILED = "failed"
INTERRUPTED = "interrupted"


@dataclass(frozen=True)
class Start:
    """Where a resumed run starts."""

    state: dict[str, Any] | None
    """The trainer's state; None: the run starts from the beginning."""
    prefixes: dict[str, Prefix]
    """Table -> the part of its file to keep; other tables have no file yet."""
    story: str
    """Tells the user where that is, and what was wrong with later checkpoints."""
    useless: tuple[Path, ...] = ()
    """Later checkpoints that cannot be used, and that must not be taken the next time."""


def is_open(folder: Path) -> bool:
    """Whether a run has not ended: its summary is missing, torn, or says so."""
    return folders.summary_of(folder).get("status") not in ENDED


def require_trust(folder: Path, config: Config) -> None:
    """Refuses a recorded configuration that names code, since resuming would execute it.

    Raises:
        QuestionError: it names code; with every name, and how to allow that.
    """
    named = configuration.targets(config)
    if named:
        lines = [f"  {key}: {one_line(path)}" for key, path in named]
        raise QuestionError(
            f"{folder} names code, which going on would execute\n"
            + "\n".join(lines)
            + f"\nallowed, if you trust it: {shlex.join(['vgexp', 'resume', str(folder), TRUST])}"
            + "\nin Python: vgexp.resume(folder, trust=True)"
        )


def save(
    folder: Path,
    step: int,
    state: Mapping[str, Any],
    config: Config,
    versions: Mapping[str, str],
    settled: Mapping[str, Prefix],
) -> None:
    """Writes a checkpoint.

    Args:
        settled: table -> its file, which holds every row so far on the disk itself.

    Raises:
        OSError: it cannot be written; earlier checkpoints are unchanged.
    """
    from vgexp import checkpoints

    tables = {table: (prefix.num_bytes, prefix.crc32) for table, prefix in settled.items()}
    fields = configuration.deciding(config)
    checkpoints.save(folder, checkpoints.Checkpoint(step, state, tables, fields, dict(versions)))


def start_of(
    folder: Path,
    config: Config,
    versions: Mapping[str, str],
    tables: Sequence[str] = COMMON,
    own: Mapping[str, Any] | None = None,
) -> Start:
    """Finds the newest checkpoint that is whole and fits the tables; else the beginning.

    Args:
        tables: those that the run has.
        own: the run's state before its first step, which a checkpoint's state has to resemble;
            None: it is not known.

    Raises:
        QuestionError: it was made by another configuration or other versions.
    """
    from vgexp import checkpoints

    story, useless = [], []
    promised = [table for table in tables if table != _CLOCK]
    most_bytes = None if own is None else _most_bytes_of(own)
    for path in checkpoints.list_present(folder):
        try:
            found = checkpoints.load(path, most_bytes)
            require_equal(path, "configuration", found.config, configuration.deciding(config))
            require_equal(path, "version", found.versions, versions)
            _require_like(path, found.state, own, config)
        except checkpoints.UnusableError as error:
            story.append(f"{path.name} is of no use: {error}")
            useless.append(path)
            continue
        kept = {table: Prefix(*found.tables.get(table, (0, 0))) for table in tables}
        # Of a version that had no such table yet: it begins here.
        new = {
            table
            for table in LATER_TABLES
            if table not in found.tables and not files.exists(_path(folder, table))
        }
        written = [table for table in promised if table not in new]
        changed = [table for table in written if not _begins_with(folder, table, kept[table])]
        if not changed:
            story.append(f"going on from step {found.step}")
            prefixes = {table: kept[table] for table in written}
            prefixes |= _clock_lines(folder, kept[_CLOCK].num_bytes)
            return Start(dict(found.state), prefixes, "; ".join(story), tuple(useless))
        story.append(f"{path.name} does not fit {', '.join(changed)}")
        useless.append(path)
    _require_same_configuration(folder, config)
    prefixes = _headers(folder, tables)
    story.append("going on from the beginning")
    recorded = [
        table for table in tables if table not in prefixes and _path(folder, table).exists()
    ]
    if recorded:
        story.append(f"what was recorded is kept in {_set_aside(folder, recorded).name}")
    return Start(None, prefixes, "; ".join(story))


def require_equal(path: Path, what: str, then: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Requires that a file was made by the same configuration or versions.

    Raises:
        QuestionError: with every difference.
    """
    differing = sorted(key for key in {*then, *now} if then.get(key) != now.get(key))
    if differing:
        lines = [f"  {key}: {then.get(key)} then, {now.get(key)} now" for key in differing]
        raise folders.FolderError(
            f"{path} is from another {what}\n"
            + "\n".join(lines)
            + "\nallowed: the same; or train again into a new folder"
        )


def _require_like(
    path: Path, state: Mapping[str, Any], own: Mapping[str, Any] | None, config: Config
) -> None:
    """Requires that a state has the form of the run's own.

    Raises:
        UnusableError: it has another form, so vgexp did not write it.
        QuestionError: it has another form, perhaps because the user's own code has changed.
    """
    from vgexp import checkpoints

    try:
        checkpoints.require_like(state, own)
    except checkpoints.UnusableError as error:
        code = ", ".join(
            one_line(path)
            for key, path in configuration.targets(config)
            if not key.startswith("output.")
        )
        if not code:
            raise
        raise QuestionError(
            f"{path} holds the state of something else: {error}\n"
            f"allowed: the code that the run began with ({code}); or train again into a new folder"
        ) from None


def _most_bytes_of(own: Mapping[str, Any]) -> int:
    """The size of the largest checkpoint: optimizers hold a few numbers for each of the model's."""
    from vgexp import checkpoints

    return _MOST_FOR_EACH * checkpoints.size_of(own) + _MOST_BESIDE


def _begins_with(folder: Path, table: str, prefix: Prefix) -> bool:
    """Whether a table's file begins with these bytes, which hold at least a whole header."""
    path = _path(folder, table)
    if prefix.num_bytes <= 0 or folders.read_prefix(path, prefix.num_bytes) != prefix:
        return False
    return b"\n" in folders.read_beginning(path, min(prefix.num_bytes, folders.MOST_HEADER))


def _clock_lines(folder: Path, num_bytes: int) -> dict[str, Prefix]:
    """Finds the whole lines in the first bytes of the table of times; a torn file is removed."""
    path = _path(folder, _CLOCK)
    content = (
        folders.read_beginning(path, min(num_bytes, _MOST_TIMES)) if files.exists(path) else b""
    )
    whole = content[: content.rfind(b"\n") + 1]
    if _is_header(whole.partition(b"\n")[0], _CLOCK):
        return {_CLOCK: folders.read_prefix(path, len(whole))}
    path.unlink(missing_ok=True)
    return {}


def _require_same_configuration(folder: Path, config: Config) -> None:
    """Requires that `config.yaml` and the summary belong to the configuration."""
    now = {"config_hash": configuration.identity(config)}
    sealed = folders.sealed_identity(folder)
    if sealed is None:
        raise QuestionError(
            f"{folder / folders.CONFIG} is cut short: it lacks its last line, `# identity: ...`\n"
            "allowed: the file as vgexp wrote it; or train again into a new folder"
        )
    require_equal(folder / folders.CONFIG, "configuration", {"config_hash": sealed}, now)
    told = folders.summary_of(folder).get("config_hash", now["config_hash"])
    require_equal(folder / folders.SUMMARY, "configuration", {"config_hash": told}, now)


def _columns(table: str) -> list[str]:
    return [column.name for column in TABLES[table]]


def _is_header(line: bytes, table: str) -> bool:
    names = line.decode(errors="replace").split(",")
    return is_header(names, _columns(table)) and not lacking_columns(table, names)


def _headers(folder: Path, tables: Sequence[str]) -> dict[str, Prefix]:
    """Finds the tables that have no rows yet; those torn within their header are removed.

    A table may have been begun by an earlier version, with fewer columns.

    Raises:
        QuestionError: a file that is no such table.
    """
    prefixes = {}
    for table in tables:
        path = _path(folder, table)
        if not files.exists(path):
            continue
        begins = folders.read_beginning(path, folders.MOST_HEADER)
        line, end, rows = begins.partition(b"\n")
        if end and _is_header(line, table):
            if not rows:
                prefixes[table] = folders.read_prefix(path, len(begins))
        elif not end and ",".join(_columns(table)).encode().startswith(begins.rstrip(b"\0")):
            path.unlink()  # torn while it was created; a loss of power may leave zeros
        elif table != _CLOCK:
            raise QuestionError(
                f"{path} does not begin as {table}.csv does\n"
                "allowed: a run of this version or an earlier one; or train again into a new folder"
            )
    return prefixes


def _set_aside(folder: Path, recorded: Sequence[str]) -> Path:
    """Moves tables that have rows into a folder of their own."""
    number = 1
    while files.exists(folder / f"before_{number}"):
        number += 1
    place = folder / f"before_{number}"
    place.mkdir()
    for table in recorded:
        _path(folder, table).rename(_path(place, table))
    return place


def _path(folder: Path, table: str) -> Path:
    return folder / f"{table}.csv"
