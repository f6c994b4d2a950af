"""Shows what happened in words and numbers: verdict, diagnosis, summary metrics, problems."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from rich.cells import cell_len
from rich.console import Console

from vgexp.diagnosis import partial_sentence, sentence
from vgexp.errors import one_line
from vgexp.past import UNFINISHED, PastRun
from vgexp.quantities import SUMMARY
from vgexp.report.selection import SHOWN
from vgexp.report.terminal.layout import (
    MOST_OF_REASON,
    MOST_OF_TEXT,
    number,
    printable,
    shorten,
    show_line,
    show_words,
)

RUNNING = "running"
"""The status of a run without a summary that another process writes."""
_OPEN = {
    RUNNING: "The run is being written by another process: this is how far it has come.",
    UNFINISHED: "The run is unfinished: it has no summary, so it was cut off, or never began.",
}
_GAP = 2
Pairs = Sequence[tuple[str, str]]
"""Names and what they are."""


def show_ending(
    console: Console, run: PastRun, summary: Mapping[str, Any], layers: pd.DataFrame | None
) -> None:
    """Prints the verdict and the text of the diagnosis.

    Args:
        run: not a strict one.
        summary: for a run without one its status.
        layers: with `delta_rms` and `grad_norm`, for a run whose summary has no metrics; None
            where there is no such table.
    """
    verdict, status = summary.get("verdict"), str(summary.get("status"))
    if verdict:
        show_line(console, f"Verdict: {shorten(str(verdict))}", "bold")
    elif status in _OPEN:
        show_words(console, _OPEN[status])
    show_words(console, _diagnose(run, summary, layers))


def show_numbers(console: Console, summary: Mapping[str, Any]) -> None:
    """Prints summary metrics, in two columns where the console has room for them."""
    pairs = [(name, _text(summary[name])) for name in SHOWN if _is_told(name, summary)]
    pairs = [(name, printable(text, console)) for name, text in pairs]
    columns = _columns(pairs, 2)
    if sum(_widths(columns)) > console.width:
        columns = _columns(pairs, 1)
    for row in range(len(columns[0])):
        line = ""
        for column, width in zip(columns, _widths(columns), strict=True):
            if row < len(column):
                name, text = column[row]
                label = name + " " * (_name_width(column) + _GAP - len(name))
                line += label + text + " " * (width - len(label) - cell_len(text))
        show_words(console, line.rstrip(), indent=" " * _GAP)


def show_notes(console: Console, problems: Sequence[str]) -> None:
    """Prints what is missing or damaged."""
    for problem in problems:
        show_words(console, f"Note: {problem}", indent="  ")


def _diagnose(run: PastRun, summary: Mapping[str, Any], layers: pd.DataFrame | None) -> str:
    """Makes the diagnosis from a summary, the run's tables and its configuration.

    Where it has no metrics, or somebody changed it, it is made from the layers and from how the run
    ended.
    """
    try:
        return shorten(sentence(summary, run.tables(), run.config), MOST_OF_TEXT)
    except (KeyError, TypeError, ValueError):
        told = {name: str(summary.get(name) or "") for name in ("status", "reason")}
        ending = {name: shorten(text, MOST_OF_REASON) for name, text in told.items() if text}
        return partial_sentence({} if told["status"] in _OPEN else ending, layers)


def _is_told(name: str, summary: Mapping[str, Any]) -> bool:
    value = summary.get(name)
    is_plain = isinstance(value, str | int | float)
    return is_plain and not (value == 0 and SUMMARY[name].silent_at_zero)


def _text(value: Any) -> str:
    return number(value) if isinstance(value, float) else one_line(shorten(str(value)))


def _columns(pairs: Pairs, num_columns: int) -> list[Pairs]:
    height = max(1, -(-len(pairs) // num_columns))
    return [pairs[start : start + height] for start in range(0, max(1, len(pairs)), height)]


def _name_width(column: Pairs) -> int:
    return max((len(name) for name, _ in column), default=0)


def _widths(columns: Sequence[Pairs]) -> list[int]:
    """Returns the width of each column; of all but the last with the gap to the next."""
    widths = [
        _name_width(column) + _GAP + max((cell_len(text) for _, text in column), default=0)
        for column in columns
    ]
    return [width + _GAP for width in widths[:-1]] + widths[-1:]
