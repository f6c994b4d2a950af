"""Formats a line for each job of a sweep, no wider than the terminal, and shows its planning.

What a line leaves out is in `sweep.csv`.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Collection, Sequence
from itertools import groupby
from typing import final

from rich.cells import cell_len

from vgexp.errors import one_line
from vgexp.report.terminal.layout import LEFT_OUT, cut_to_width
from vgexp.resuming import INTERRUPTED
from vgexp.sweep import JobRow

FEW_JOBS = 10
"""The planning of this many jobs takes at most about half a second, and is not shown."""
LINE_SECONDS = 2.0
"""The least time between two lines."""
_LINES = 10
"""The most lines after the first."""


@final
class Planning:
    """Prints on standard error how many jobs of a sweep are planned.

    The first line comes at once. For few jobs, none is printed.
    """

    def __init__(self, num_jobs: int, *, is_quiet: bool) -> None:
        self._num_jobs = num_jobs
        self._is_quiet = is_quiet or num_jobs <= FEW_JOBS
        self._next_time = -math.inf
        self._next_job = -math.inf

    def __call__(self, num_done: int) -> None:
        """Prints a line if one is due. Call it before each job with the number of planned ones."""
        if self._is_quiet or num_done < self._next_job or time.monotonic() < self._next_time:
            return
        is_first = self._next_job < 0
        words = f"planning {self._num_jobs} jobs" if is_first else self._words(num_done)
        self._next_time = time.monotonic() + LINE_SECONDS
        self._next_job = num_done + (1 if is_first else max(1, self._num_jobs // _LINES))
        try:
            print(words, file=sys.stderr, flush=True)
        except OSError:
            self._is_quiet = True

    def _words(self, num_done: int) -> str:
        return f"planned {num_done}/{self._num_jobs} jobs"


def format_line(row: JobRow, typed: Sequence[str], swept: Collection[str], width: int) -> str:
    """Formats the job's number, its overrides and how it ended.

    A line that is too wide first loses the overrides that all jobs share, then the groups of keys,
    then its middle and the end of the reason.

    Args:
        typed: the job's overrides.
        swept: keys that differ from job to job.
    """
    typed = [one_line(word) for word in typed]
    start, ending = f"#{row.job}  ", f"  {one_line(_ending(row))}"
    room = width - cell_len(start)
    forms = [" ".join(typed) or "(no overrides)"]
    if any(_key(word) in swept for word in typed):
        forms += [_without_constants(typed, swept, whole) for whole in (True, False)]
    for words in forms:
        if cell_len(words) + cell_len(ending) <= room:
            return f"{start}{words}{ending}"
    words = _cut(forms[-1], max(room - cell_len(ending), room // 2), middle=True)
    return f"{start}{words}{_cut(ending, room - cell_len(words))}"


def _ending(row: JobRow) -> str:
    verdict = row.metrics.get("verdict") or row.status
    if row.status == INTERRUPTED and verdict != row.status:
        return f"interrupted, until then {verdict}"
    return f"{row.status}: {row.reason}" if row.reason else verdict


def _without_constants(typed: Sequence[str], swept: Collection[str], whole_keys: bool) -> str:
    kept = [
        (word if whole_keys else _without_group(word)) if _key(word) in swept else LEFT_OUT
        for word in typed
    ]
    return " ".join(word for word, _ in groupby(kept))


def _key(word: str) -> str:
    return word.partition("=")[0].lstrip("+")


def _without_group(word: str) -> str:
    key, equals, value = word.partition("=")
    return f"{key.rpartition('.')[2]}{equals}{value}"


def _cut(text: str, room: int, middle: bool = False) -> str:
    """Shortens a text to its beginning, or to both ends, with dots for the rest."""
    if cell_len(text) <= room:
        return text
    kept = max(0, room - len(LEFT_OUT))
    tail = cut_to_width(text[::-1], kept // 2)[::-1] if middle else ""
    return f"{cut_to_width(text, kept - cell_len(tail))}{LEFT_OUT}{tail}"
