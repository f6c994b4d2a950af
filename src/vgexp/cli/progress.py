"""A line for each job of a sweep, no wider than the terminal; sweep.csv has every word."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import groupby

from rich.cells import cell_len

from vgexp.errors import one_line
from vgexp.resuming import INTERRUPTED
from vgexp.sweep import Row

_LEFT_OUT = "..."


def line(row: Row, typed: Sequence[str], swept: Collection[str], width: int) -> str:
    """The job's number, what it overrode and how it ended.

    What is too wide loses first the overrides that every job has, then the groups of the keys,
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


def _ending(row: Row) -> str:
    verdict = row.figures.get("verdict") or row.status
    if row.status == INTERRUPTED and verdict != row.status:
        return f"interrupted, until then {verdict}"
    return f"{row.status}: {row.reason}" if row.reason else verdict


def _without_constants(typed: Sequence[str], swept: Collection[str], whole_keys: bool) -> str:
    kept = [
        (word if whole_keys else _without_group(word)) if _key(word) in swept else _LEFT_OUT
        for word in typed
    ]
    return " ".join(word for word, _ in groupby(kept))


def _key(word: str) -> str:
    return word.partition("=")[0].lstrip("+")


def _without_group(word: str) -> str:
    key, equals, value = word.partition("=")
    return f"{key.rpartition('.')[2]}{equals}{value}"


def _cut(text: str, room: int, middle: bool = False) -> str:
    """The text, or both ends (else its beginning) with dots for what was left out."""
    if cell_len(text) <= room:
        return text
    kept = max(0, room - len(_LEFT_OUT))
    tail = _end(text, kept // 2) if middle else ""
    return f"{_end(text[::-1], kept - cell_len(tail))[::-1]}{_LEFT_OUT}{tail}"


def _end(text: str, room: int) -> str:
    """As many of the last characters as fit."""
    while cell_len(text) > room:
        text = text[1:]
    return text
