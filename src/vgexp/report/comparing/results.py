"""The values that a comparison reads of each run: summary metrics, or columns at a step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from vgexp.errors import QuestionError, unknown
from vgexp.quantities import SUMMARY, Quantity, column_of, metric_of
from vgexp.report.comparing.layer_values import PICKS, at_layer, layer_metrics, require_step
from vgexp.report.comparing.runs import ComparedRun

_ENDS = {"first": 0, "last": -1}
_PLAIN = (str, int, float)


@dataclass(frozen=True)
class Result:
    """A value that a comparison reads of each run."""

    quantity: Quantity
    """Its name is the title."""
    read: Callable[[ComparedRun], Any]

    @property
    def title(self) -> str:
        """What a table or a map calls it."""
        return self.quantity.name


def summary_result(name: str) -> Result:
    """Makes the result for a metric of the runs' summaries, declared or not."""
    return Result(metric_of(name), partial(_in_summary, name))


def layer_result(metric: str, step: str, end: str) -> Result:
    """Makes the result for a column of `layers.csv` at the `first` or `last` hidden layer."""
    when = f"the {step} measured step" if step in PICKS else f"step {step}"
    meaning = f"of the {end} hidden layer, at {when}"
    column = column_of("layers", metric).like(f"{metric}_{end}_layer", meaning)
    return Result(column, partial(at_layer, metric, step, _ENDS[end]))


def named_results(runs: Sequence[ComparedRun], metric: str, step: str) -> list[Result]:
    """Finds what a name stands for: a column of `layers.csv`, which gives two, or a summary metric.

    Raises:
        QuestionError: neither, or a column that was not measured at that step.
    """
    of_layers = layer_metrics(runs)
    if metric in of_layers:
        require_step(runs, metric, step)
        return [layer_result(metric, step, end) for end in _ENDS]
    of_summaries = summary_names(runs)
    if metric not in of_summaries:
        raise _unknown_metric("metric", metric, {*of_layers, *of_summaries})
    return [summary_result(metric)]


def one_result(runs: Sequence[ComparedRun], name: str, step: str) -> Result:
    """Finds the one value of each run that a name stands for.

    It is a summary metric, else a column of `layers.csv` at the first hidden layer, or at the last
    (`<column>_last_layer`).

    Raises:
        QuestionError: neither, or a column that was not measured at that step.
    """
    of_layers, of_summaries = layer_metrics(runs), summary_names(runs)
    if name in of_summaries:
        return summary_result(name)
    named = {f"{metric}_{end}_layer": (metric, end) for metric in of_layers for end in _ENDS}
    named |= {metric: (metric, "first") for metric in of_layers}
    if name in named:
        metric, end = named[name]
        require_step(runs, metric, step)
        result = layer_result(metric, step, end)
        return Result(result.quantity.like(name, result.quantity.definition), result.read)
    raise _unknown_metric("metric of --heatmap color", name, {*of_summaries, *of_layers})


def summary_names(runs: Sequence[ComparedRun]) -> set[str]:
    """Lists the names of summary metrics: the declared ones, and other plain values of the runs."""
    found = {
        key
        for run in runs
        for key, value in run.summary.items()
        if value is None or isinstance(value, _PLAIN)
    }
    return found | SUMMARY.keys()


def _unknown_metric(what: str, name: str, allowed: set[str]) -> QuestionError:
    """Makes the error for a name that nothing measured has; says where names are listed."""
    error = unknown(what, name, allowed)
    return QuestionError(f"{error}\ndefinitions: vgexp list summary; vgexp list metrics")


def _in_summary(name: str, run: ComparedRun) -> Any:
    value = run.summary.get(name)
    # Of a file that somebody changed it may be a list or a mapping.
    return value if value is None or isinstance(value, _PLAIN) else str(value)
