"""What happened, in words and numbers: verdict, sentence, key figures, what is missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from rich.cells import cell_len
from rich.console import Console

from vgexp.diagnosis import diagnose, sentence
from vgexp.errors import QuestionError, one_line
from vgexp.past import UNFINISHED
from vgexp.report.terminal.layout import (
    MOST_OF_REASON,
    number,
    printable,
    shortened,
    show_line,
    show_words,
)
from vgexp.resuming import ENDED

RUNNING = "running"
"""The status of a run without a summary that another process writes."""
SHOWN = (
    *("status", "signal", "signal_last", "attenuation", "attenuation_last"),
    *("backward_factor_per_layer", "backward_factor_per_layer_last", "layers_left_out"),
    *("underflow", "backward_factor_per_time_step", "time_attenuation"),
    *("sharpness_first", "sharpness_last", "sharpness_over_limit", "curvature_over_limit_max"),
    *("num_layers", "num_parameters", "steps", "constant_loss", "loss_first", "loss_last"),
    *("loss_best", "accuracy_last", "val_loss_last", "val_accuracy_last", "val_accuracy_best"),
    *("test_loss", "test_accuracy", "clip_fraction", "seconds", "probe_overhead", "dtype"),
    *("device", "seed"),
)
"""The figures of `summary.json` that are told; one that is null or says nothing is left out."""
_SILENT_AT_ZERO = ("layers_left_out", "underflow", "clip_fraction")
_OPEN = {
    RUNNING: "The run is being written by another process: this is how far it has come.",
    UNFINISHED: "The run is unfinished: it has no summary, so it was cut off, or never began.",
}
_GAP = 2
Pairs = Sequence[tuple[str, str]]
"""Names and what they are."""


def show_ending(console: Console, summary: Mapping[str, Any], layers: pd.DataFrame | None) -> None:
    """Prints the verdict and the sentence; of a run without a summary what its layers tell.

    Args:
        summary: of a run without one its status.
        layers: with `delta_rms`; None: there is no such table.
    """
    verdict, status = summary.get("verdict"), str(summary.get("status"))
    if verdict:
        show_line(console, f"Verdict: {shortened(str(verdict))}", "bold")
    elif status in _OPEN:
        show_words(console, _OPEN[status])
    told = shortened(_told(summary), MOST_OF_REASON)
    show_words(console, told or f"{_ending_words(status, summary)}{_so_far(layers)}")


def show_numbers(console: Console, summary: Mapping[str, Any]) -> None:
    """Prints the key figures, in two columns where the console has room for them."""
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


def _told(summary: Mapping[str, Any]) -> str:
    """The sentence of a summary; empty where it lacks something, or somebody changed it."""
    try:
        return sentence(summary)
    except (KeyError, TypeError, ValueError):
        return ""


def _ending_words(status: str, summary: Mapping[str, Any]) -> str:
    if status in (*_OPEN, *ENDED):
        return ""
    reason = one_line(shortened(str(summary.get("reason") or ""), MOST_OF_REASON))
    status = shortened(status)
    return f"The run did not reach its end: {status}{f': {reason}' if reason else ''}. "


def _so_far(layers: pd.DataFrame | None) -> str:
    """What the layers alone tell; empty where they tell nothing."""
    if layers is None:
        return ""
    try:
        return str(diagnose(layers))
    except QuestionError:
        return ""


def _is_told(name: str, summary: Mapping[str, Any]) -> bool:
    value = summary.get(name)
    is_plain = isinstance(value, str | int | float)
    return is_plain and not (value == 0 and name in _SILENT_AT_ZERO)


def _text(value: Any) -> str:
    return number(value) if isinstance(value, float) else one_line(shortened(str(value)))


def _columns(pairs: Pairs, num_columns: int) -> list[Pairs]:
    height = max(1, -(-len(pairs) // num_columns))
    return [pairs[start : start + height] for start in range(0, max(1, len(pairs)), height)]


def _name_width(column: Pairs) -> int:
    return max((len(name) for name, _ in column), default=0)


def _widths(columns: Sequence[Pairs]) -> list[int]:
    """Of each column; of all but the last with the gap to the next."""
    widths = [
        _name_width(column) + _GAP + max((cell_len(text) for _, text in column), default=0)
        for column in columns
    ]
    return [width + _GAP for width in widths[:-1]] + widths[-1:]
