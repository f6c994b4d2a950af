"""Writes the numbers along the axes of a character plot, and the legend below it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.text import Text

from vgexp.report.terminal.layout import number

LABEL_WIDTH = 8
"""Cells left of a drawing, for numbers such as `-1.2e-38`."""
_BETWEEN = 2
_SPACING = 8
_APART = "   "


def room(width: int) -> int:
    """Returns the number of cells right of the labels, at least a few."""
    return max(16, width - LABEL_WIDTH - 1)


def label_of(value: float) -> str:
    """Writes a number beside an axis: three digits where they fit."""
    text = number(value)
    return text if len(text) <= LABEL_WIDTH else number(value, 2)


def labels_of(values: Sequence[float]) -> list[str]:
    """Writes numbers beside an axis, with as many digits as tell them apart where these fit."""
    labels = [label_of(value) for value in values]
    for digits in range(4, LABEL_WIDTH):
        if len(set(labels)) == len(labels):
            break
        longer = [number(value, digits) for value in values]
        if max(map(len, longer)) > LABEL_WIDTH:
            break
        labels = longer
    return labels


def ticks(labels: Sequence[str], starts: Sequence[int], width: int) -> str:
    """Makes a line of the first and the last label, and those between that have room.

    Args:
        starts: the cell at which each label's column begins.
        width: of the line; a label that would reach beyond it is moved to the left.
    """
    line = [" "] * width
    if not labels:
        return ""
    places = [min(at, max(0, width - len(text))) for text, at in zip(labels, starts, strict=True)]
    last, start = len(labels) - 1, places[0]
    end = _put(line, labels[0], start)
    if last and places[last] >= end + _BETWEEN:
        _put(line, labels[last], places[last])
    for text, place in zip(labels[1:last], places[1:last], strict=True):
        is_free = place + len(text) + _BETWEEN <= places[last]
        if place >= max(end + _BETWEEN, start + _SPACING) and is_free:
            start, end = place, _put(line, text, place)
    return "".join(line).rstrip()


def show_parts(console: Console, parts: Iterable[Text]) -> None:
    """Prints parts of a legend one after another, in as many lines as they need."""
    line = Text()
    for part in parts:
        if line and line.cell_len + len(_APART) + part.cell_len > console.width:
            console.print(line, soft_wrap=True)
            line = Text()
        line.append(_APART if line else "").append_text(part)
    console.print(line, soft_wrap=True)


def _put(line: list[str], text: str, place: int) -> int:
    cut = text[: len(line) - place]
    line[place : place + len(cut)] = cut
    return place + len(cut)
