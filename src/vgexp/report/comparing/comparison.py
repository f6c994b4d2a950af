"""Runs side by side: what differs in the configuration, what came out of each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from vgexp.diagnosis import FIGURES
from vgexp.errors import QuestionError, unknown
from vgexp.report.comparing.headings import (
    config_text,
    endings,
    gaps,
    headings,
    joined,
    row_names,
    row_paths,
    titles,
)
from vgexp.report.comparing.layer_figures import (
    PICKS,
    at_layer,
    layer_metrics,
    layer_values,
    require_step,
)
from vgexp.report.comparing.runs import (
    UNREADABLE,
    ComparedRun,
    differing_keys,
    same_but_seed,
    short_names,
)
from vgexp.report.comparing.sheet import Comparison, Shown, spread_legend
from vgexp.report.comparing.spread import counts_of, spread_of
from vgexp.report.terminal.layout import NOT_FINITE

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
MEASURED_RESULTS = ("sharpness_over_limit",)
"""Further ones, where some run has them."""
# Figures that are null only where they are not finite, if the run diverged.
_LOSSES = ("loss_last", "loss_last_mean_20")

Figure = Callable[[ComparedRun], Any]
"""A column of results: what it shows of a run."""


def compare_runs(
    runs: Sequence[ComparedRun],
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
    known = {name for run in runs for name in run.summary}
    # Runs that did not train have no loss; of runs that have nothing yet, nothing is left out.
    shown = [name for name in RESULTS if name in known or not known.intersection(RESULTS)]
    shown += [name for name in MEASURED_RESULTS
              if any(run.summary.get(name) is not None for run in runs)]  # fmt: skip
    results: dict[str, Figure] = {name: partial(_figure, name) for name in shown}
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
        endings=[*endings(runs, names), *gaps(runs, names)],
        csv_only=[column for column in _endings(rows, by_seed) if column.title not in results],
    )


def compare_layers(
    runs: Sequence[ComparedRun],
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
    require_step(runs, metric, step)
    rows = same_but_seed(runs) if by_seed else [[run] for run in runs]
    values = {run.folder: layer_values(run, metric, step) for run in runs}
    numbers = {layer for table in values.values() for layer in table} - {"readout"}
    layers = sorted(numbers, key=int)
    if any("readout" in table for table in values.values()):
        layers.append("readout")
    columns = [Shown("layer", layers)]
    heads = headings(runs, rows, by_seed)
    for title, heading, row in zip(titles(runs, rows, by_seed), heads.texts, rows, strict=True):
        cells = [[values[run.folder].get(layer) for run in row] for layer in layers]
        columns.append(Shown(title, _folded(cells, metric, by_seed), heading))
    when = step if step in PICKS else f"step {step}"
    legend = [f"{metric} at {when}{' measured step' if step in PICKS else ''}"]
    names = {run.folder: run.name for run in runs}
    blank = [r for r in runs if r.summary.get("status") == UNREADABLE or not values[r.folder]]
    return Comparison(
        columns,
        [*legend, *spread_legend(columns)],
        heads.names,
        heads.key,
        [*endings(blank, names), *gaps(runs, names)],
    )


def is_metric(runs: Sequence[ComparedRun], metric: str) -> bool:
    """Whether `compare_runs` has a column for a metric."""
    return metric in {*layer_metrics(runs), *_figures(runs)}


def _figures(runs: Sequence[ComparedRun]) -> set[str]:
    """The names of the summaries' figures."""
    found = {key for run in runs for key, value in run.summary.items() if _is_plain(value)}
    return found | {figure.name for figure in FIGURES}


def _metric_figures(runs: Sequence[ComparedRun], metric: str, step: str) -> dict[str, Figure]:
    of_layers = layer_metrics(runs)
    if metric in of_layers:
        require_step(runs, metric, step)
        return {
            f"{metric}_first_layer": partial(at_layer, metric, step, 0),
            f"{metric}_last_layer": partial(at_layer, metric, step, -1),
        }
    figures = _figures(runs)
    if metric not in figures:
        error = unknown("metric", metric, {*of_layers, *figures})
        raise QuestionError(f"{error}\ndefinitions: vgexp list figures; vgexp list metrics")
    return {metric: partial(_figure, metric)}


def _figure(name: str, run: ComparedRun) -> Any:
    return run.summary.get(name)


def _result(
    name: str, figure: Figure, rows: Sequence[Sequence[ComparedRun]], by_seed: bool
) -> Shown:
    values = [[figure(run) for run in row] for row in rows]
    written = _folded(values, name, by_seed)
    if name != "verdict" and by_seed:
        return Shown(name, written)
    words = [[_in_words(name, figure(run), run) for run in row] for row in rows]
    return Shown(name, _folded(words, name, by_seed), written=written)


def _in_words(name: str, value: Any, run: ComparedRun) -> Any:
    """A figure as the terminal says it: the verdict tells of runs that did not complete, too."""
    status = run.summary.get("status")
    if value is None and name in _LOSSES and status == "diverged":
        return NOT_FINITE
    if name != "verdict" or status in (None, "completed", value):
        return value
    return status if value is None else f"{value} ({status})"


def _endings(rows: Sequence[Sequence[ComparedRun]], by_seed: bool) -> list[Shown]:
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
