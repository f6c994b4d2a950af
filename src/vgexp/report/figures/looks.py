"""Chooses colours and dashes for the lines of a comparison, and what the legend says of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from vgexp.report.comparing.groups import Group
from vgexp.report.comparing.swept import NOT_SET
from vgexp.report.figures import style

_MOST_COLOURS, _MOST_DASHES = 7, 5
"""That `style.choose_line_look` tells apart."""

Look = Mapping[str, Any]
"""What `Axes.plot` takes."""


@dataclass(frozen=True)
class Looks:
    """The looks of lines, by series."""

    by_series: Mapping[str, Look]
    parts: Sequence[tuple[str, Look]] = ()
    """Where colours stand for one key and dashes for another: a legend of these alone."""


def looks_of(groups: Sequence[Group], names: Sequence[str]) -> Looks:
    """Chooses the look of each series.

    `names`: of the keys whose values are the groups' texts.

    One key of numbers: shades by order. Two keys: colours for one (names before numbers, many
    values before few), dashes for the other. Otherwise a colour, dashes and a marker a series.
    """
    texts = {group.series: group.texts for group in groups}
    plain = Looks({series: style.choose_line_look(place) for place, series in enumerate(texts)})
    if len({tuple(values) for values in texts.values()}) < len(texts) or not texts:
        return plain
    rows = zip(*texts.values(), strict=True)
    columns = [_Column(name, row) for name, row in zip(names, rows, strict=True)]
    if len(columns) == 1:
        return Looks({series: columns[0].colour(values[0]) for series, values in texts.items()})
    if len(columns) != 2:
        return plain
    colours, dashes = sorted(columns, key=lambda c: (c.is_numeric, -len(c.values)))
    is_told = colours.is_numeric or len(colours.values) <= _MOST_COLOURS
    if not is_told or len(dashes.values) > _MOST_DASHES:
        return plain
    first, second = columns.index(colours), columns.index(dashes)
    return Looks(
        {
            series: {**colours.colour(values[first]), **dashes.dashes(values[second])}
            for series, values in texts.items()
        },
        [
            *(
                (f"{colours.name}={text}", {**colours.colour(text), "linestyle": "-"})
                for text in colours.values
            ),
            *(
                (f"{dashes.name}={text}", {"color": style.INK, **dashes.dashes(text)})
                for text in dashes.values
            ),
        ],
    )


class _Column:
    """The values of a key in order."""

    def __init__(self, name: str, texts: Sequence[str]) -> None:
        numbers: dict[str, float] = {}
        for text in texts:
            with suppress(ValueError):
                numbers[text] = float(text)
        self.name = name
        self.is_numeric = bool(numbers) and all(text in {*numbers, NOT_SET} for text in texts)
        order = dict.fromkeys(texts)
        if self.is_numeric:
            order = dict.fromkeys(sorted(texts, key=lambda text: numbers.get(text, float("inf"))))
        self.values = list(order)

    def colour(self, text: str) -> dict[str, Any]:
        """Its colour and marker; dashes too unless shades tell the order."""
        place = self.values.index(text)
        look = style.choose_line_look(place)
        if not self.is_numeric:
            return look
        last = max(1, len(self.values) - 1)
        return {**look, "color": style.choose_shade(place / last), "linestyle": "-"}

    def dashes(self, text: str) -> dict[str, Any]:
        """Its dashes."""
        return {"linestyle": style.choose_line_look(self.values.index(text))["linestyle"]}
