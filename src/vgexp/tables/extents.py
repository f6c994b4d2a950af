"""Finds out how far a table goes, by reading its two ends only."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

from vgexp import files
from vgexp.tables.files import MOST_LINE, broken, readable

_CHUNK = 2**16
_MOST_END = 2**28
"""Bytes of the rows of one step."""
_MOST_DIGITS = 18
"""Of a step; Python does not even read numbers of thousands of digits."""


@dataclass(frozen=True)
class Extent:
    """The first and the last step of a table and their rows, as far as these are whole lines."""

    last_step: int | None
    """None: no row."""
    num_first: int
    """Rows of the first step."""
    num_last: int
    """Rows of the last step."""
    is_torn: bool
    """Whether the last line was cut while being written."""


def extent_of(folder: Path | str, table: str) -> Extent | None:
    """Finds out how far a run's table goes; None where there is no such file, or no table in it.

    Raises:
        QuestionError: the file cannot be read.
    """
    path = Path(folder) / f"{table}.csv"
    if not files.exists(path):
        return None
    with readable(path):
        first, last, is_torn = _first_lines(path), *_last_lines(path)
    if not last:
        return Extent(None, 0, 0, is_torn)
    step = _step(last[-1])
    if not (step.isdecimal() and len(step) <= _MOST_DIGITS):
        return None
    return Extent(int(step), _num_of_one_step(first), _num_of_one_step(reversed(last)), is_torn)


def _first_lines(path: Path) -> list[bytes]:
    """Reads the whole lines of the first step, and one more."""
    lines: list[bytes] = []
    with files.open_to_read(path) as file:
        file.readline(MOST_LINE)
        while line := file.readline(MOST_LINE):
            if line.endswith(b"\n"):
                lines.append(line)
            if _step(line) != _step(lines[0] if lines else line):
                break
    return lines


def _last_lines(path: Path) -> tuple[list[bytes], bool]:
    """Reads at least the whole lines of the last step; and whether the last line is torn."""
    chunk = _CHUNK
    with files.open_to_read(path) as file:
        size = os.fstat(file.fileno()).st_size
        while True:
            if chunk > _MOST_END:
                raise broken(path, f"has no two steps in its last {_MOST_END:,} bytes")
            file.seek(max(0, size - chunk))
            *lines, torn = file.read().split(b"\n")
            # The first line is the header, or may have begun before the chunk.
            lines = lines[1:]
            if chunk >= size or (lines and _step(lines[0]) != _step(lines[-1])):
                return lines, bool(torn)
            chunk *= 4


def _num_of_one_step(lines: Iterable[bytes]) -> int:
    steps = list(map(_step, lines))
    return len(list(takewhile(lambda step: step == steps[0], steps)))


def _step(line: bytes) -> str:
    return line.split(b",", 1)[0].decode(errors="replace")
