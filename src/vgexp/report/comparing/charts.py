"""The content of a figure of several runs: lines over steps or over depth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vgexp.errors import unknown
from vgexp.quantities import Quantity, column_of
from vgexp.report.comparing.bands import Band, Line, fold, running_mean, window_for
from vgexp.report.comparing.groups import Group, group_runs
from vgexp.report.comparing.histories import DEFAULT_METRIC, MetricHistory, histories
from vgexp.report.comparing.layer_values import PICKS, layer_metrics, layer_values, require_step
from vgexp.report.comparing.runs import ComparedRun
from vgexp.report.comparing.swept import columns_of

# More lines hide each other's raw ones.
_MOST_RAW = 4
_MOST_NAMED = 3
_LAYER = "layer"


@dataclass(frozen=True)
class Curve:
    """A line of a chart, with its band."""

    group: Group
    band: Band
    raw: Line | None = None
    """What the line is a running mean of."""
    ends: Sequence[tuple[float, float]] = ()
    """Place and value: the last finite ones of runs that ended before they were done."""
    readout: float | None = None
    """Where on an axis of layers the read-out stands."""

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to draw."""
        return not Line(self.band.x, self.band.centre).has_value


@dataclass(frozen=True)
class Panel:
    """Lines in one pair of axes."""

    title: str
    curves: Sequence[Curve]


@dataclass(frozen=True)
class Chart:
    """A figure: panels with the same scales, row by row."""

    title: str
    x_label: str
    y_label: str
    panels: Sequence[Panel]
    num_columns: int
    keys: Sequence[str]
    """In which lines differ."""
    is_log: bool
    remarks: Sequence[str]
    """Sentences below: what is folded, what is not drawn."""
    shows_raw: bool = False

    @property
    def is_over_depth(self) -> bool:
        """Whether x is the layer, and not the step."""
        return self.x_label == _LAYER

    @property
    def curves(self) -> list[Curve]:
        """The curves of every panel that have a value."""
        return [curve for panel in self.panels for curve in panel.curves if not curve.is_empty]


def over_steps(
    runs: Sequence[ComparedRun],
    metric: str | None = None,
    by_seed: bool = False,
    panels: str | None = None,
) -> Chart:
    """Makes the chart of a metric of each run over its steps; without a name, of the training loss.

    Args:
        metric: as `histories` takes it.
        by_seed: whether runs equal but for the seed become one line with a band.
        panels: a key: a panel for each of its values.

    Raises:
        QuestionError: no such metric or key.
    """
    found = histories(runs, metric or DEFAULT_METRIC)
    grouping = group_runs(runs, by_seed, panels)
    tables = [{run.folder: history.read(run) for run in runs} for history in found]
    longest = max(line.y.size for lines in tables for line in lines.values())
    window = window_for(longest) if found[0].quantity.varies_by_batch else 1
    drawn = [
        Panel(
            ", ".join(filter(None, (title, history.where))),
            [_curve(group, lines, history, window) for group in groups],
        )
        for title, groups in grouping.panels
        for history, lines in zip(found, tables, strict=True)
    ]
    label = found[0].label
    return Chart(
        title=f"{label.capitalize() if _is_words(label) else label} over steps",
        x_label="step",
        y_label=f"{label}, mean over {window} steps" if window > 1 else label,
        panels=drawn,
        num_columns=len(found) if len(found) > 1 else columns_of(len(drawn)),
        keys=grouping.keys,
        is_log=_is_log(drawn, found[0].quantity),
        remarks=[
            *_meaning(found[0]),
            *_remarks(drawn, found[0].quantity),
            *_on_short(tables, window),
        ],
        shows_raw=window > 1 and max(len(panel.curves) for panel in drawn) <= _MOST_RAW,
    )


def over_depth(
    runs: Sequence[ComparedRun],
    metric: str,
    step: str = "first",
    by_seed: bool = False,
    panels: str | None = None,
) -> Chart:
    """Makes the chart of a column of `layers.csv` at a step over depth, the read-out last.

    Args:
        step: a number, or each run's `first` or `last` measured.

    Raises:
        QuestionError: no such column or key, or not measured at that step.
    """
    allowed = layer_metrics(runs)
    if metric not in allowed:
        raise unknown("metric of layers.csv", metric, allowed)
    require_step(runs, metric, step)
    quantity = column_of("layers", metric)
    grouping = group_runs(runs, by_seed, panels)
    values = {run.folder: layer_values(run, metric, step) for run in runs}
    drawn = [
        Panel(title, [_profile(group, values, quantity) for group in groups])
        for title, groups in grouping.panels
    ]
    return Chart(
        title=f"{metric} at the {step} measured step"
        if step in PICKS
        else f"{metric}, step {step}",
        x_label=_LAYER,
        y_label=quantity.label,
        panels=drawn,
        num_columns=columns_of(len(drawn)),
        keys=grouping.keys,
        is_log=_is_log(drawn, quantity),
        remarks=[*_remarks(drawn, quantity), *_on_readouts(drawn)],
    )


def _curve(group: Group, lines: Mapping[Path, Line], history: MetricHistory, window: int) -> Curve:
    raw = [lines[run.folder] for run in group.runs]
    shown = [line if _is_short(line, window) else running_mean(line, window) for line in raw]
    ends = [
        (float(line.x[np.isfinite(line.y)][-1]), float(line.y[np.isfinite(line.y)][-1]))
        for run, line in zip(group.runs, shown, strict=True)
        if np.isfinite(line.y).any() and run.summary.get("status") not in ("completed", None)
    ]
    is_mean = len(raw) == 1 and not _is_short(raw[0], window)
    return Curve(group, fold(shown, history.quantity), raw[0] if is_mean else None, ends)


def _profile(
    group: Group, values: Mapping[Path, Mapping[str, float | None]], quantity: Quantity
) -> Curve:
    lines, readouts = [], set()
    for run in group.runs:
        table = values[run.folder]
        last = max((int(layer) for layer in table if layer != "readout"), default=0)
        layers = [last + 1 if layer == "readout" else int(layer) for layer in table]
        cells = [np.nan if value is None else value for value in table.values()]
        lines.append(Line(np.array(layers, dtype="float64"), np.array(cells, dtype="float64")))
        readouts |= {float(last + 1)} if "readout" in table else set()
    # Of nets whose depth their configuration does not tell none is told apart.
    readout = readouts.pop() if len(readouts) == 1 else None
    return Curve(group, fold(lines, quantity), readout=readout)


def _is_log(panels: Sequence[Panel], quantity: Quantity) -> bool:
    """Whether the axis is logarithmic: as declared, or where values are above 0 and span much."""
    curves = [curve.band.centre for panel in panels for curve in panel.curves]
    values = np.concatenate(curves)
    values = values[np.isfinite(values)]
    return quantity.is_logarithmic(
        float(values.min(initial=np.inf)), float(values.max(initial=-np.inf))
    )


def _remarks(panels: Sequence[Panel], quantity: Quantity) -> list[str]:
    curves = [curve for panel in panels for curve in panel.curves]
    remarks = []
    if any((curve.band.counts > 1).any() for curve in curves):
        geometric = "geometric mean, multiplied and divided by the geometric standard deviation"
        how = geometric if quantity.is_geometric else "mean ± standard deviation"
        remarks.append(f"over seeds: {how}")
    drawn = {curve.group.label for curve in curves if not curve.is_empty}
    blank = [curve.group.label for curve in curves if curve.group.label not in drawn]
    blank = list(dict.fromkeys(blank))
    if blank:
        more = f" and {len(blank) - _MOST_NAMED} more" if len(blank) > _MOST_NAMED else ""
        remarks.append(f"without a value: {'; '.join(blank[:_MOST_NAMED])}{more}")
    if any(curve.ends for curve in curves):
        remarks.append("×: a run ended there before it was done")
    return remarks


def _is_short(line: Line, window: int) -> bool:
    """Whether a line is so short that most of it would lie before its first mean."""
    return window == 1 or line.y.size < 3 * window


def _meaning(history: MetricHistory) -> list[str]:
    """Defines, below the figure, a column that its title names."""
    is_clear = _is_words(history.label) or not history.definition
    return [] if is_clear else [f"{history.label}: {history.definition}"]


def _is_words(label: str) -> bool:
    """Whether a metric is called by words, and not by a column's name."""
    return " " in label


def _on_short(tables: Sequence[Mapping[Path, Line]], window: int) -> list[str]:
    lines = [line for table in tables for line in table.values() if line.has_value]
    if window == 1 or not any(_is_short(line, window) for line in lines):
        return []
    return [f"of runs with fewer than {3 * window} steps each step is drawn"]


def _on_readouts(panels: Sequence[Panel]) -> list[str]:
    curves = [curve for panel in panels for curve in panel.curves]
    is_there = any(curve.readout is not None for curve in curves)
    return ["hollow: the read-out, which comes after the last layer"] if is_there else []
