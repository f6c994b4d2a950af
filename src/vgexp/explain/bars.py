"""Numbers as bars of characters, for pages in a terminal and in docs alike.

A page has the bars of a run, or else of numbers that stand on it: of what was measured, or of a
factor a layer that is multiplied over the depth.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from vgexp.explain.sums import evaluate, show
from vgexp.explain.topic import Line, Topic

MOST_ROWS = 10
"""Bars of one drawing: of more layers or steps some are left out, evenly."""
_WIDTH = 40
"""Characters of the longest bar."""
_WIDEST_LABEL, _WIDEST_VALUE = 24, 14
_MARK = "#"
_DECADES = 1.5
"""Powers of ten from the smallest to the largest, from which on a scale is logarithmic."""
_POWER = re.compile(r"(.+)\^(\d+)")
_NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?(?:e-?\d+)?")
_FEWEST_TIMES = 9
_MOST_POWERS = 2
_MOST_OF_SEVERAL = 6


@dataclass(frozen=True)
class Bars:
    """What is drawn: a title, and rows of a label, a number, and how that is written."""

    title: str
    rows: tuple[tuple[str, float, str], ...]


def bars_of_numbers(title: str, values: Mapping[str, float]) -> Bars | None:
    """Bars of labelled numbers, some left out where they are many; None where there are none."""
    rows = [(label, value, show(value)) for label, value in values.items()]
    return Bars(title, tuple(_thin(rows))) if rows else None


def bars_of_page(topic: Topic) -> list[Bars]:
    """The bars of a page without a run: of what was measured, or else of its powers."""
    if topic.chart is not None:
        title, *rows = topic.chart
        return [Bars(title, tuple((label, _middle(text), text) for label, text in rows))]
    powers = [found for line in topic.lines if (found := _bars_of_power(line, topic)) is not None]
    most = MOST_ROWS if len(powers) == 1 else _MOST_OF_SEVERAL
    return [Bars(each.title, tuple(_thin(each.rows, most))) for each in powers[:_MOST_POWERS]]


def draw(bars: Bars) -> Iterator[str]:
    """Draws bars as lines of at most 80 characters, indented.

    The scale is logarithmic where numbers differ by powers of ten. A number of 0, one below 0 and
    one that is not finite have no bar there.
    """
    usable = [value for _, value, _ in bars.rows if math.isfinite(value) and value > 0]
    is_log = bool(usable) and math.log10(max(usable) / min(usable)) > _DECADES
    label_width = min(_WIDEST_LABEL, max(len(label) for label, _, _ in bars.rows))
    value_width = min(_WIDEST_VALUE, max(len(text) for _, _, text in bars.rows))
    yield f"  {bars.title}{', log scale' if is_log else ''}"
    for label, value, text in bars.rows:
        length = _length(value, usable, is_log=is_log)
        yield f"  {label:<{label_width}}  {text:>{value_width}}  {_MARK * length}".rstrip()


def _length(value: float, usable: Sequence[float], *, is_log: bool) -> int:
    if not (math.isfinite(value) and value > 0):
        return 0
    most, least = max(usable), min(usable)
    if not is_log:
        return max(1, round(_WIDTH * value / most))
    share = math.log10(value / least) / math.log10(most / least)
    return 1 + round((_WIDTH - 1) * share)


def _bars_of_power(line: Line, topic: Topic) -> Bars | None:
    """The factors of a power, one after the other: from the last layer, or the last time, back."""
    found = _POWER.fullmatch(line.formula)
    if found is None or line.value is None:
        return None
    base, times = evaluate(found[1]), int(found[2])
    if times < _FEWEST_TIMES or not base > 0 or base == 1:
        return None
    place = "step back" if topic.figure == "through_time" else "layer"
    is_time = place == "step back"
    rows = [
        (f"{place} {done if is_time else times + 1 - done}", base**done, show(base**done))
        for done in range(times + 1)
    ]
    ordered = rows if is_time else rows[::-1]
    a_place = "a step back" if is_time else "a layer"
    return Bars(f"{line.words or 'what is left'}, {show(base)} {a_place}", tuple(ordered))


def _thin(
    rows: Sequence[tuple[str, float, str]], most: int = MOST_ROWS
) -> list[tuple[str, float, str]]:
    if len(rows) <= most:
        return list(rows)
    step = (len(rows) - 1) / (most - 1)
    return [rows[round(place * step)] for place in range(most)]


def _middle(text: str) -> float:
    """The mean of the numbers in a text, `0.81 to 0.92`; nan where there is none."""
    found = [float(number.replace(",", "")) for number in _NUMBER.findall(text)]
    return sum(found) / len(found) if found else math.nan
