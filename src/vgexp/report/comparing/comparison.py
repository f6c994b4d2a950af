"""The table of a comparison: what differs in the runs' configurations, and their results."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vgexp.errors import unknown
from vgexp.quantities import SUMMARY, Quantity, column_of, metric_of
from vgexp.report.comparing.headings import (
    config_text,
    endings,
    gaps,
    headings,
    join_names,
    repetitions,
    row_names,
    row_paths,
    titles,
)
from vgexp.report.comparing.layer_values import PICKS, layer_metrics, layer_values, require_step
from vgexp.report.comparing.results import Result, named_results, summary_names, summary_result
from vgexp.report.comparing.runs import (
    UNREADABLE,
    ComparedRun,
    differing_keys,
    same_but_seed,
    short_names,
)
from vgexp.report.comparing.sheet import Comparison, Shown, spread_legend
from vgexp.report.comparing.spread import counts_of, spread_of
from vgexp.report.selection import COMPARED
from vgexp.report.terminal.layout import NOT_FINITE

DEFAULT_LAYER_METRIC = "delta_rms"
_ENDINGS = ("status", "reason")


def compare_runs(
    runs: Sequence[ComparedRun],
    metric: str | None = None,
    step: str = "first",
    by_seed: bool = False,
) -> Comparison:
    """Makes a table with a row for each run, or for runs that are equal but for the seed.

    Args:
        runs: what to compare.
        metric: a further column: a summary metric, or a column of `layers.csv`, then
            two: its value at the first and at the last hidden layer measured.
        step: of a column of `layers.csv`: a number, or each run's `first` or `last` measured.
        by_seed: whether to fold seeds into a mean and a spread.

    Raises:
        QuestionError: no such metric or step.
    """
    named = [] if metric is None else named_results(runs, metric, step)
    chosen = [*map(summary_result, _shown_by_default(runs)), *named]
    results = {result.title: result for result in chosen}
    rows = same_but_seed(runs) if by_seed else [[run] for run in runs]
    keys = differing_keys(runs, ignored=("seed",) if by_seed else ())
    names, spelled_out = row_names(runs)
    called, written = join_names(rows, names), join_names(rows, row_paths(runs))
    columns = [Shown("runs" if by_seed else "run", called, written=written)]
    if by_seed:
        columns.append(Shown("num_seeds", [len(row) for row in rows]))
    taken = ("run", *results, *_ENDINGS)
    for key, title in zip(keys, short_names(runs, keys, taken), strict=True):
        columns.append(Shown(title, [config_text(row[0], key) for row in rows]))
    columns += [_column(result, rows, by_seed) for result in results.values()]
    return Comparison(
        columns,
        spread_legend(columns),
        spelled_out,
        endings=[
            *endings(runs, names),
            *gaps(runs, names),
            *(repetitions(runs, names) if by_seed else ()),
            *_without_values(named, runs),
        ],
        csv_only=[column for column in _endings(rows, by_seed) if column.title not in results],
    )


def compare_layers(
    runs: Sequence[ComparedRun],
    metric: str = DEFAULT_LAYER_METRIC,
    step: str = "first",
    by_seed: bool = False,
) -> Comparison:
    """Makes a table with a row for each main-path layer and a column for each run.

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
    column = column_of("layers", metric)
    columns = [Shown("layer", layers)]
    heads = headings(runs, rows, by_seed)
    for title, heading, row in zip(titles(runs, rows, by_seed), heads.texts, rows, strict=True):
        cells = [[values[run.folder].get(layer) for run in row] for layer in layers]
        columns.append(Shown(title, _fold(cells, column, by_seed), heading))
    when = step if step in PICKS else f"step {step}"
    legend = [f"{metric} at {when}{' measured step' if step in PICKS else ''}"]
    names = {run.folder: run.name for run in runs}
    blank = [r for r in runs if r.summary.get("status") == UNREADABLE or not values[r.folder]]
    return Comparison(
        columns,
        [*legend, *spread_legend(columns)],
        heads.names,
        heads.key,
        [
            *endings(blank, names),
            *gaps(runs, names),
            *(repetitions(runs, names) if by_seed else ()),
        ],
    )


def is_metric(runs: Sequence[ComparedRun], metric: str) -> bool:
    """Whether `compare_runs` has a column for a metric."""
    return metric in {*layer_metrics(runs), *summary_names(runs)}


def _shown_by_default(runs: Sequence[ComparedRun]) -> list[str]:
    """Returns the names in `COMPARED` of which the runs have something.

    Runs that did not train have no loss. Of runs without any of them, nothing is left out but what
    a key has to ask for.
    """
    known = {name for run in runs for name in run.summary}
    has_value = {name for name in known if any(r.summary.get(name) is not None for r in runs)}
    lacks_all = known.isdisjoint(COMPARED)
    return [
        name
        for name in COMPARED
        if (name in has_value if SUMMARY[name].asked_by else name in known or lacks_all)
    ]


def _without_values(named: Sequence[Result], runs: Sequence[ComparedRun]) -> list[str]:
    """Says why the column of a metric that was named is empty."""
    empty = [r.quantity for r in named if all(r.read(run) is None for run in runs)]
    return [
        f"{quantity.name}: no run has a value; "
        + (f"{quantity.asked_by} has it measured" if quantity.asked_by else quantity.meaning)
        for quantity in empty
    ]


def _column(result: Result, rows: Sequence[Sequence[ComparedRun]], by_seed: bool) -> Shown:
    values = [[result.read(run) for run in row] for row in rows]
    written = _fold(values, result.quantity, by_seed)
    if result.title != "verdict" and by_seed:
        return Shown(result.title, written)
    words = [[_in_words(result, run) for run in row] for row in rows]
    return Shown(result.title, _fold(words, result.quantity, by_seed), written=written)


def _in_words(result: Result, run: ComparedRun) -> Any:
    """Returns a value as the terminal shows it: a verdict also names an incomplete run's status."""
    value, status = result.read(run), run.summary.get("status")
    if value is None and result.quantity.null_is_infinite and status == "diverged":
        return NOT_FINITE
    if result.title != "verdict" or status in (None, "completed", value):
        return value
    return status if value is None else f"{value} ({status})"


def _endings(rows: Sequence[Sequence[ComparedRun]], by_seed: bool) -> list[Shown]:
    """Makes columns of statuses and reasons; none where all runs completed."""
    statuses = [[run.summary.get("status") for run in row] for row in rows]
    if all(status == "completed" for row in statuses for status in row):
        return []
    columns = [Shown("status", _fold(statuses, metric_of("status"), by_seed))]
    reasons = [counts_of(run.reason or "" for run in row) or None for row in rows]
    return columns + ([Shown("reason", reasons)] if any(reasons) else [])


def _fold(values: Sequence[Sequence[Any]], quantity: Quantity, by_seed: bool) -> list[Any]:
    if not by_seed:
        return [row[0] for row in values]
    if any(isinstance(value, str) for row in values for value in row):
        return [counts_of(str(value) for value in row if value is not None) for row in values]
    return [spread_of(row, quantity) for row in values]
