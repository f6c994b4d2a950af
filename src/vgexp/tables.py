"""Runs read back from disk: tables as DataFrames, summaries, configurations, and where runs are.

A cell of a table may hold a value that is not finite (`nan`, `inf`, `-inf`) or be empty (not
measured here). In a frame both `nan` and empty are NaN; `empty_cells` tells them apart.
"""

from __future__ import annotations

import csv
import difflib
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from vgexp import config
from vgexp.errors import QuestionError, unknown
from vgexp.records import TABLES

HALF_LINE = "half_line"
"""`read(...).attrs[HALF_LINE]` is the text of a cut last line that was dropped, else None."""

# Columns that identify a row and so are never empty.
_KEYS = ("step", "layer")
_PLAIN_TYPES: Mapping[str, str] = {
    "key": "int64",
    "int": "Int64",
    "float": "float64",
    "text": "object",
}
# Text to float64 and back is the identity; from pandas 3.1 on there is no other way to read.
_IS_EXACT = tuple(int(part) for part in pd.__version__.split(".")[:2]) >= (3, 1)
_EXACT: Any = {} if _IS_EXACT else {"float_precision": "round_trip"}
_CHUNK = 2**20
_CONFIG, _SUMMARY, _SWEEP = "config.yaml", "summary.json", "sweep.csv"
# What, beside a configuration, makes a folder a run; a summary does so alone (a job that failed
# before it had a configuration).
_RUN_MARKS = ("layers.csv", "train.log")
_WHAT_IS_ALLOWED = "allowed: a run folder, a sweep folder, or a folder above such folders"


def read(folder: Path | str, table: str) -> pd.DataFrame:
    """The table `table` of a run folder, in the order of its file.

    Floats are float64 (exact: the shortest form reads back to the same number), `step` and
    `layer` int64, other integers Int64 with <NA> where empty. Columns that `records` does not
    know are kept. A last line without its end was cut while being written: it is dropped, and
    its text is in `attrs[HALF_LINE]`.

    Raises:
        QuestionError: a file that is missing, empty, of an older version or broken.
    """
    path = _table_path(folder, table)
    frame = _read_plain(path, table)
    if frame is not None:
        return frame
    text = _cells(path, table)
    kinds = {column.name: column.kind for column in TABLES[table]}
    columns = {
        name: _typed(path, name, cells, kinds.get(name)) for name, cells in text.columns.items()
    }
    frame = pd.DataFrame(columns)
    frame.attrs[HALF_LINE] = text.half_line
    return frame


def empty_cells(folder: Path | str, table: str) -> pd.DataFrame:
    """Where `read` of the same table has a cell that is empty, as booleans of the same shape."""
    text = _cells(_table_path(folder, table), table)
    return pd.DataFrame(
        {name: pd.array([not c for c in cells], bool) for name, cells in text.columns.items()}
    )


def read_summary(folder: Path | str) -> dict[str, Any]:
    """A run's `summary.json`."""
    path = Path(folder) / _SUMMARY
    try:
        summary = json.loads(_text(path))
    except json.JSONDecodeError as error:
        raise _broken(path, f"is not JSON: {error}") from None
    if not isinstance(summary, dict):
        raise _broken(path, f"holds a {type(summary).__name__}, not a mapping")
    return summary


def read_config(folder: Path | str) -> config.Config:
    """A run's `config.yaml`, as the configuration it resolved to."""
    path = Path(folder) / _CONFIG
    try:
        values = yaml.safe_load(_text(path))
    except yaml.YAMLError as error:
        raise _broken(path, f"is not YAML: {error}") from None
    if not isinstance(values, dict):
        raise _broken(path, "holds no keys")
    chosen: dict[str, str] = {}
    for entry in values.pop("defaults", None) or ():
        if isinstance(entry, dict):
            chosen.update({str(group): str(name) for group, name in entry.items()})
    missing = [group for group in config.CHOICES if group in values and group not in chosen]
    if missing:
        raise _broken(path, f"names no choice of {', '.join(missing)} in its defaults list")
    values.pop("hydra", None)
    try:
        return config.from_dict(values, chosen)
    except (ValueError, TypeError) as error:
        raise _broken(path, str(error)) from None


def find_runs(paths: Iterable[Path | str]) -> list[Path]:
    """The run folders that the paths name or hold, each once, a sweep's in the order of its jobs.

    A run folder has a summary, or a configuration and beside it a table of layers or a log.

    Raises:
        QuestionError: a path that does not exist, is a file, or has no run in or under it.
    """
    found: dict[Path, Path] = {}
    for path in map(Path, paths):
        _require_folder(path)
        runs = list(_walk(path))
        if not runs:
            raise QuestionError(f"no run in or under {path}\n{_WHAT_IS_ALLOWED}")
        for run in runs:
            found.setdefault(run.resolve(), run)
    return list(found.values())


def sweep_statuses(sweep: Path | str) -> dict[str, str]:
    """Job -> status as a sweep's `sweep.csv` tells it; empty where there is no such file."""
    path = Path(sweep) / _SWEEP
    if not path.is_file():
        return {}
    rows = csv.DictReader(io.StringIO(_text(path), newline=""))
    return {row["job"]: row["status"] for row in rows if row.get("job") and row.get("status")}


# ---------------------------------------------------------------- the plain case


def _read_plain(path: Path, table: str) -> pd.DataFrame | None:
    """The table of a file just as a run writes it, by pandas' own reader: 30 times the speed.

    None for any other file, which is then read cell by cell and, if it is broken, named.
    """
    kinds = {column.name: column.kind for column in TABLES[table]}
    try:
        num_rows, half_line = _plain_rows(path, list(kinds))
        frame: pd.DataFrame = pd.read_csv(
            path,
            nrows=num_rows,
            dtype={name: _PLAIN_TYPES[_kind_of(name, kind)] for name, kind in kinds.items()},
            na_values={n: ["", "nan"] if kind == "float" else [""] for n, kind in kinds.items()},
            keep_default_na=False,
            **_EXACT,
            skip_blank_lines=False,
            encoding="utf-8",
        )
    except (ValueError, OSError):
        return None
    for name, kind in kinds.items():
        if kind == "text":
            frame[name] = frame[name].astype("object").where(frame[name].notna(), None)
    frame.attrs[HALF_LINE] = half_line
    return frame


def _plain_rows(path: Path, names: Sequence[str]) -> tuple[int, str | None]:
    """Rows below the header, and the cut last line.

    Raises:
        ValueError: quotes, other columns, other line ends, or rows that are too short. Rows that
            are too long pandas refuses itself.
    """
    header = ",".join(names).encode() + b"\n"
    num_lines = num_commas = 0
    half = b""
    with path.open("rb") as file:
        if file.readline() != header:
            raise ValueError("another header")
        while chunk := file.read(_CHUNK):
            if b'"' in chunk or b"\r" in chunk or b"\0" in chunk:
                raise ValueError("not plain")
            num_lines += chunk.count(b"\n")
            num_commas += chunk.count(b",")
            _, newline, rest = chunk.rpartition(b"\n")
            half = rest if newline else half + rest
    if num_commas - half.count(b",") != num_lines * (len(names) - 1):
        raise ValueError("a row of another length")
    return num_lines, half.decode() or None


def _kind_of(name: str, kind: str) -> str:
    return "key" if name in _KEYS else kind


# ---------------------------------------------------------------- cells


@dataclass(frozen=True)
class _Cells:
    columns: dict[str, list[str]]
    half_line: str | None


def _table_path(folder: Path | str, table: str) -> Path:
    if table not in TABLES:
        raise unknown("table", table, TABLES)
    return Path(folder) / f"{table}.csv"


def _cells(path: Path, table: str) -> _Cells:
    whole, newline, half = _text(path).rpartition("\n")
    if not newline:
        raise _broken(path, f"ends within its header: {half!r}" if half else "is empty")
    try:
        header, *rows = csv.reader(io.StringIO(whole, newline=""))
    except csv.Error as error:
        raise _broken(path, f"is not a table: {error}") from None
    missing = [column.name for column in TABLES[table] if column.name not in header]
    if missing:
        raise _broken(
            path,
            f"lacks the columns {', '.join(missing)}\n"
            "it was written by another version of vgexp, or is another table",
        )
    for number, row in enumerate(rows, start=2):
        if len(row) != len(header):
            raise _broken(path, f"has {len(row)} cells in line {number}, not {len(header)}")
    columns = zip(*rows, strict=True) if rows else [()] * len(header)
    return _Cells(
        {name: list(cells) for name, cells in zip(header, columns, strict=True)}, half or None
    )


def _typed(path: Path, name: str, cells: Sequence[str], kind: str | None) -> Any:
    if kind == "text":
        return pd.Series([cell or None for cell in cells], dtype="object")
    if kind is None:
        return _guessed(cells)
    try:
        if name in _KEYS:
            return pd.array([int(cell) for cell in cells], "int64")
        return _integers(cells) if kind == "int" else _floats(cells)
    except ValueError as error:
        raise _broken(path, f"has a cell in column {name} that is no number: {error}") from None


def _guessed(cells: Sequence[str]) -> Any:
    kinds: tuple[Callable[[Sequence[str]], Any], ...] = (_integers, _floats)
    for kind in kinds:
        try:
            return kind(cells)
        except ValueError:
            continue
    return pd.Series([cell or None for cell in cells], dtype="object")


def _integers(cells: Sequence[str]) -> Any:
    return pd.array([int(cell) if cell else None for cell in cells], "Int64")


def _floats(cells: Sequence[str]) -> Any:
    return pd.Series([float(cell or "nan") for cell in cells], dtype="float64")


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise _broken(path, "is not text") from None
    except OSError as error:
        raise QuestionError(f"cannot read {path}: {error.strerror}") from None


def _broken(path: Path, problem: str) -> QuestionError:
    return QuestionError(f"{path} {problem}")


# ---------------------------------------------------------------- folders


def _require_folder(path: Path) -> None:
    if path.is_dir():
        return
    lines = [f"{path} is {'a file' if path.exists() else 'not there'}", _WHAT_IS_ALLOWED]
    if path.exists():
        lines.append(f"nearest: {path.parent}")
    elif path.parent.is_dir():
        siblings = [child.name for child in path.parent.iterdir() if child.is_dir()]
        near = difflib.get_close_matches(path.name, siblings, n=1, cutoff=0.5)
        lines += [f"nearest: {path.parent / name}" for name in near]
    raise QuestionError("\n".join(lines))


def _walk(folder: Path) -> Iterator[Path]:
    if _is_run(folder):
        yield folder
        return
    try:
        children = [
            child
            for child in folder.iterdir()
            if child.is_dir() and not child.is_symlink() and not child.name.startswith(".")
        ]
    except OSError as error:
        raise QuestionError(f"cannot read {folder}: {error.strerror}") from None
    for child in sorted(children, key=_job_order):
        yield from _walk(child)


def _is_run(folder: Path) -> bool:
    has_mark = any((folder / mark).is_file() for mark in _RUN_MARKS)
    return (folder / _SUMMARY).is_file() or (has_mark and (folder / _CONFIG).is_file())


def _job_order(folder: Path) -> tuple[bool, int, str]:
    is_job = folder.name.isdecimal()
    return (not is_job, int(folder.name) if is_job else 0, folder.name)
