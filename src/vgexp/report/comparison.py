"""Runs side by side: what differs in the configuration, what came out of each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

from vgexp.diagnosis import FIGURES
from vgexp.errors import QuestionError, unknown
from vgexp.records import LAYERS
from vgexp.report.headings import (
    config_text,
    endings,
    headings,
    joined,
    row_names,
    row_paths,
    titles,
)
from vgexp.report.layout import NOT_FINITE
from vgexp.report.runs import UNREADABLE, PastRun, differing_keys, same_but_seed, short_names
from vgexp.report.sheet import Comparison, Shown, spread_legend
from vgexp.report.spread import counts_of, spread_of

RESULTS = (
    "loss_last_mean_20",
    "val_accuracy_last",
    "attenuation",
    "backward_factor_per_layer",
    "verdict",
)
"""The figures of every comparison, under their names in `summary.json`."""

DEFAULT_LAYER_METRIC = "delta_rms"
_ENDINGS = ("status", "reason")
# Figures that are null only where they are not finite, if the run diverged.
_LOSSES = ("loss_last", "loss_last_mean_20")
_PICKS: Mapping[str, Callable[[list[int]], int]] = {"first": min, "last": max}

Figure = Callable[[PastRun], Any]
"""A column of results: what it shows of a run."""


def compare_runs(
    runs: Sequence[PastRun],
    metric: str | None = None,
    step: str = "first",
    by_seed: bool = False,
) -> Comparison:
    """One row a run (`by_seed`: one row for runs equal but for the seed).

    Args:
        runs: what to compare.
        metric: a further column: a figure of the summaries, or a column of `layers.csv`, then
            two: its value at the first and at the last hidden layer measured.
        step: of a column of `layers.csv`: a number, or each run's `first` or `last` measured.
        by_seed: whether to fold seeds into a mean and a spread.

    Raises:
        QuestionError: no such metric or step.
    """
    results: dict[str, Figure] = {name: partial(_figure, name) for name in RESULTS}
    if metric is not None:
        results |= _metric_figures(runs, metric, step)
    rows = same_but_seed(runs) if by_seed else [[run] for run in runs]
    keys = differing_keys(runs, ignored=("seed",) if by_seed else ())
    names, spelled_out = row_names(runs)
    called, written = joined(rows, names), joined(rows, row_paths(runs))
    columns = [Shown("runs" if by_seed else "run", called, written=written)]
    if by_seed:
        columns.append(Shown("num_seeds", [len(row) for row in rows]))
    taken = ("run", *results, *_ENDINGS)
    for key, title in zip(keys, short_names(runs, keys, taken), strict=True):
        columns.append(Shown(title, [config_text(row[0], key) for row in rows]))
    for name, figure in results.items():
        columns.append(_result(name, figure, rows, by_seed))
    return Comparison(
        columns,
        spread_legend(columns),
        spelled_out,
        endings=endings(runs, names),
        csv_only=[column for column in _endings(rows, by_seed) if column.title not in results],
    )


def compare_layers(
    runs: Sequence[PastRun],
    metric: str = DEFAULT_LAYER_METRIC,
    step: str = "first",
    by_seed: bool = False,
) -> Comparison:
    """One row a main-path layer, read-out last; one column a run, called by what differs.

    Where what differs is too long for a heading, the run's name is, and the key says the rest.

    Raises:
        QuestionError: no such column of `layers.csv`, or not measured at that step.
    """
    allowed = layer_metrics(runs)
    if metric not in allowed:
        raise unknown("metric of layers.csv", metric, allowed)
    _require_step(runs, metric, step)
    rows = same_but_seed(runs) if by_seed else [[run] for run in runs]
    values = {run.folder: _layer_values(run, metric, step) for run in runs}
    numbers = {layer for table in values.values() for layer in table} - {"readout"}
    layers = sorted(numbers, key=int)
    if any("readout" in table for table in values.values()):
        layers.append("readout")
    columns = [Shown("layer", layers)]
    heads = headings(runs, rows, by_seed)
    for title, heading, row in zip(titles(runs, rows, by_seed), heads.texts, rows, strict=True):
        cells = [[values[run.folder].get(layer) for run in row] for layer in layers]
        columns.append(Shown(title, _folded(cells, metric, by_seed), heading))
    when = step if step in _PICKS else f"step {step}"
    legend = [f"{metric} at {when}{' measured step' if step in _PICKS else ''}"]
    whole_names = {run.folder: run.name for run in runs}
    return Comparison(
        columns,
        [*legend, *spread_legend(columns)],
        heads.names,
        heads.key,
        endings([run for run in runs if run.summary.get("status") == UNREADABLE], whole_names),
    )


def layer_metrics(runs: Sequence[PastRun]) -> list[str]:
    """The columns of numbers in the runs' `layers.csv`: the known ones and any further."""
    known = {column.name: column.kind for column in LAYERS}
    further = {
        name
        for run in runs
        for name in run.layer_columns
        if name not in known and run.is_numeric(name)
    }
    return [name for name, kind in known.items() if kind == "float"] + sorted(further)


# ---------------------------------------------------------------- metrics and steps


def _metric_figures(runs: Sequence[PastRun], metric: str, step: str) -> dict[str, Figure]:
    of_layers = layer_metrics(runs)
    if metric in of_layers:
        _require_step(runs, metric, step)
        return {
            f"{metric}_first_layer": partial(_at_layer, metric, step, 0),
            f"{metric}_last_layer": partial(_at_layer, metric, step, -1),
        }
    figures = {key for run in runs for key, value in run.summary.items() if _is_plain(value)}
    figures |= {figure.name for figure in FIGURES}
    if metric not in figures:
        error = unknown("metric", metric, {*of_layers, *figures})
        raise QuestionError(f"{error}\ndefinitions: vgexp list figures; vgexp list metrics")
    return {metric: partial(_figure, metric)}


def _require_step(runs: Sequence[PastRun], metric: str, step: str) -> None:
    if step not in _PICKS and not step.isdecimal():
        raise unknown("step", step, [*_PICKS, "or a number"])
    measured = sorted({number for run in runs for number in run.measured_steps(metric)})
    if not measured:
        raise QuestionError(f"{metric} was measured at no step of these runs")
    if step not in _PICKS and int(step) not in measured:
        nearest = min(measured, key=lambda number: abs(number - int(step)))
        raise QuestionError(
            f"{metric} was not measured at step {step}\n"
            f"allowed: first, last, {_listed(measured)}\nnearest: {nearest}"
        )


def _listed(steps: Sequence[int]) -> str:
    """Steps in words; evenly spaced ones by their spacing."""
    gaps = {after - before for before, after in pairwise(steps[:-1])}
    if len(steps) > 8 and len(gaps) == 1:
        return f"every {gaps.pop()}th from {steps[0]} to {steps[-2]}, {steps[-1]}"
    return ", ".join(map(str, steps))


def _layer_values(run: PastRun, metric: str, step: str) -> dict[str, float | None]:
    measured = run.measured_steps(metric)
    if step not in _PICKS:
        return run.values(metric, int(step))
    return run.values(metric, _PICKS[step](measured)) if measured else {}


def _figure(name: str, run: PastRun) -> Any:
    return run.summary.get(name)


def _at_layer(metric: str, step: str, position: int, run: PastRun) -> float | None:
    values = _layer_values(run, metric, step)
    hidden = [value for layer, value in values.items() if layer != "readout"]
    return hidden[position] if hidden else None


# ---------------------------------------------------------------- cells


def _result(name: str, figure: Figure, rows: Sequence[Sequence[PastRun]], by_seed: bool) -> Shown:
    values = [[figure(run) for run in row] for row in rows]
    written = _folded(values, name, by_seed)
    if name != "verdict" and by_seed:
        return Shown(name, written)
    words = [[_in_words(name, figure(run), run) for run in row] for row in rows]
    return Shown(name, _folded(words, name, by_seed), written=written)


def _in_words(name: str, value: Any, run: PastRun) -> Any:
    """A figure as the terminal says it: the verdict tells of runs that did not complete, too."""
    status = run.summary.get("status")
    if value is None and name in _LOSSES and status == "diverged":
        return NOT_FINITE
    if name != "verdict" or status in (None, "completed", value):
        return value
    return status if value is None else f"{value} ({status})"


def _endings(rows: Sequence[Sequence[PastRun]], by_seed: bool) -> list[Shown]:
    """How runs ended and why they failed or diverged, as columns; none where all ended well."""
    statuses = [[run.summary.get("status") for run in row] for row in rows]
    if all(status == "completed" for row in statuses for status in row):
        return []
    columns = [Shown("status", _folded(statuses, "status", by_seed))]
    reasons = [counts_of(run.reason or "" for run in row) or None for row in rows]
    return columns + ([Shown("reason", reasons)] if any(reasons) else [])


def _folded(values: Sequence[Sequence[Any]], metric: str, by_seed: bool) -> list[Any]:
    if not by_seed:
        return [row[0] for row in values]
    if any(isinstance(value, str) for row in values for value in row):
        return [counts_of(value for value in row if value is not None) for row in values]
    return [spread_of(row, metric) for row in values]


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, str | int | float)
