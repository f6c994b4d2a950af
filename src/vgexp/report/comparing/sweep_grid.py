"""The content of a map of a sweep: two keys as axes, a metric as colour, the rest as panels."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from vgexp.diagnosis.at_start import PREDICTED_METRICS
from vgexp.errors import QuestionError, impossible
from vgexp.quantities import PREDICTION, SUMMARY, Quantity
from vgexp.report.comparing.results import Result, one_result
from vgexp.report.comparing.runs import (
    UNREADABLE,
    ComparedRun,
    differing_keys,
    match_number_types,
    short_names,
)
from vgexp.report.comparing.spread import spread_of
from vgexp.report.comparing.swept import find_key, is_numeric, split_runs, text_of, texts_of

DEFAULT_COLOR = "attenuation"
"""How much of the backward signal is left at layer 1: what a sweep for a cure asks first."""

PREDICTED = tuple(f"{PREDICTION}{name}" for name in PREDICTED_METRICS)
"""Summary metrics of theory, of which boundaries are drawn."""

DIVERGED, FAILED, CUT_SHORT = "diverged", "failed", "cut short"
_STATES: Mapping[Any, str] = {
    "diverged": DIVERGED,
    "failed": FAILED,
    UNREADABLE: FAILED,
    "interrupted": CUT_SHORT,
    "stopped": CUT_SHORT,
    "unfinished": CUT_SHORT,
}
_FOLLOWERS_NAMED = 3
_LONGEST_MEANING = 100
_MOST_CELLS = 10_000
_ALLOWED = "allowed: --heatmap x=KEY y=KEY color=METRIC"


@dataclass(frozen=True)
class Cell:
    """A cell of a map: the runs of a pair of values, mostly several seeds."""

    value: float | str | None
    """Their mean, geometric where the metric spreads so; of words the most frequent.

    None where no run has a value; 0 and infinity where none has another.
    """
    num_counted: int
    """Runs behind the value."""
    num_runs: int
    state: str | None
    """`diverged`, `failed` or `cut short`, if a run was; the first of these."""
    theory: Mapping[str, float] = field(default_factory=dict)
    """Predicted metric -> its geometric mean over the runs, where theory has an answer."""
    tied: Sequence[str] = ()
    """Words that are as frequent as the value, if it is one."""


@dataclass(frozen=True)
class GridPanel:
    """A map; `cells` has the texts of x and y as keys, only where there is a run."""

    title: str
    cells: Mapping[tuple[str, str], Cell]


@dataclass(frozen=True)
class Axis:
    """A key as an axis of equal cells."""

    label: str
    texts: Sequence[str]
    """Numbers ascending, others as they appear."""
    is_numeric: bool


@dataclass(frozen=True)
class SweepGrid:
    """The maps of a sweep, with their axes and their colour."""

    x: Axis
    y: Axis
    color: Quantity
    panels: Sequence[GridPanel]

    @property
    def cells(self) -> list[Cell]:
        """The cells of every panel."""
        return [cell for panel in self.panels for cell in panel.cells.values()]

    @property
    def values(self) -> list[Any]:
        """The values of the cells that have one."""
        return [cell.value for cell in self.cells if cell.value is not None]

    @property
    def title(self) -> str:
        """The name of the colour, with its definition where that is short."""
        name, meaning = self.color.name, self.color.definition
        return f"{name}: {meaning}" if 0 < len(meaning) <= _LONGEST_MEANING else name

    @property
    def folded(self) -> str:
        """Says how the runs of a cell were averaged; empty where each cell has one run."""
        numbers = {cell.num_runs for cell in self.cells}
        if max(numbers) == 1:
            return ""
        of = f"{min(numbers)} to {max(numbers)}" if len(numbers) > 1 else f"{max(numbers)}"
        mean = "geometric mean" if self.color.is_geometric else "mean"
        is_words = any(isinstance(value, str) for value in self.values)
        return f"{'most frequent' if is_words else mean} of {of} runs equal but for the seed"


def sweep_grid(
    runs: Sequence[ComparedRun],
    x: str | None = None,
    y: str | None = None,
    color: str | None = None,
    step: str = "first",
) -> SweepGrid:
    """Makes the maps of a sweep.

    Args:
        x, y: keys, dotted or short; None: the only ones that vary, seeds left out.
        color: a summary metric; or a column of `layers.csv`, at the first hidden layer
            (`<column>_last_layer`: at the last). None: the attenuation.
        step: of a column of `layers.csv`: `first`, `last` or a number.

    Raises:
        QuestionError: no such key or metric; keys that are not clear, or too many that vary.
    """
    runs = match_number_types(runs)
    result = one_result(runs, color or DEFAULT_COLOR, step)
    across, up = _axes(runs, x, y)
    others = [key for key in differing_keys(runs, ("seed",)) if key not in (across, up)]
    followers = {
        axis: [key for key in others if _follows(runs, key, axis)] for axis in (across, up)
    }
    free = [key for key in others if not any(key in found for found in followers.values())]
    titles = short_names(runs, free, ())
    panels = []
    for texts, members in split_runs(runs, free).items():
        title = ", ".join(f"{key}={text}" for key, text in zip(titles, texts, strict=True))
        panels.append(GridPanel(title, _cells(members, (across, up), result)))
    axes = [_axis(runs, key, followers[key]) for key in (across, up)]
    if len(axes[0].texts) * len(axes[1].texts) > _MOST_CELLS:
        raise impossible("the number of cells", "more", f"at most {_MOST_CELLS}")
    return SweepGrid(axes[0], axes[1], result.quantity, panels)


def _axes(runs: Sequence[ComparedRun], x: str | None, y: str | None) -> tuple[str, str]:
    """Finds the keys of both axes."""
    varying = differing_keys(runs)
    asked = [find_key(runs, word, "--heatmap") if word else None for word in (x, y)]
    if asked[0] is not None and asked[0] == asked[1]:
        raise QuestionError(f"--heatmap: x and y are both {asked[0]}\n{_ALLOWED}")
    left = [key for key in varying if key != "seed" and key not in asked]
    # What goes with a given axis, as all that a preset sets, is no axis of its own.
    left = [key for key in left if not any(axis and _follows(runs, key, axis) for axis in asked)]
    if asked.count(None) and len(left) != asked.count(None):
        raise QuestionError(
            "--heatmap: which keys are x and y is not clear\n"
            f"vary: {', '.join(varying) or 'none'}\n{_ALLOWED}"
        )
    across, up = (key if key is not None else left.pop(0) for key in asked)
    return across, up


def _follows(runs: Sequence[ComparedRun], key: str, axis: str) -> bool:
    """Whether a key has one value for each value of the axis."""
    found: dict[str, str] = {}
    return all(found.setdefault(text_of(r, axis), text_of(r, key)) == text_of(r, key) for r in runs)


def _axis(runs: Sequence[ComparedRun], key: str, followers: Sequence[str]) -> Axis:
    label = short_names(runs, [key], ())[0]
    if followers:
        names = short_names(runs, followers[:_FOLLOWERS_NAMED], ())
        more = len(followers) - len(names)
        label += f" (with it {', '.join(names)}{f' and {more} more' if more else ''})"
    return Axis(label, texts_of(runs, key), is_numeric(runs, key))


def _cells(
    runs: Sequence[ComparedRun], keys: tuple[str, str], result: Result
) -> dict[tuple[str, str], Cell]:
    found: dict[tuple[str, str], list[ComparedRun]] = {}
    for run in runs:
        found.setdefault((text_of(run, keys[0]), text_of(run, keys[1])), []).append(run)
    return {
        place: replace(_cell(members, result), theory=_theory(members))
        for place, members in found.items()
    }


def _theory(runs: Sequence[ComparedRun]) -> dict[str, float]:
    means = {
        name: spread_of([run.summary.get(name) for run in runs], SUMMARY[name]).centre
        for name in PREDICTED
    }
    return {name: mean for name, mean in means.items() if mean is not None}


def _cell(runs: Sequence[ComparedRun], result: Result) -> Cell:
    values = [value for run in runs if (value := result.read(run)) is not None]
    states = {_STATES.get(run.summary.get("status")) for run in runs}
    state = next((word for word in (DIVERGED, FAILED, CUT_SHORT) if word in states), None)
    if any(isinstance(value, str) for value in values):
        (word, count), *others = Counter(map(str, values)).most_common()
        tied = [other for other, times in others if times == count]
        return Cell(word, count, len(runs), state, tied=tied)
    spread = spread_of(values, result.quantity)
    if spread.centre is not None:
        return Cell(spread.centre, spread.num_values, len(runs), state)
    # Nothing with a place on its scale.
    rest = [value for value in values if value == 0 or math.isinf(value)]
    return Cell(float(rest[0]) if rest else None, len(rest), len(runs), state)
