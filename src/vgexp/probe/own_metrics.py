"""Columns of the user's own: functions of a weight, its gradient, z or h."""

from __future__ import annotations

import keyword
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple, final

import torch
from torch import Tensor

from vgexp.errors import QuestionError, unknown
from vgexp.probe.block import OWN
from vgexp.probe.moments import ColumnCells, GroupNumbers, Measured, StackMeasure
from vgexp.probe.weights import UPDATE_NORM
from vgexp.quantities import TABLES, Quantity
from vgexp.quantities.quantity import amount
from vgexp.watch import Slope

METRIC_OF = ("gradient", "weight", "preact", "act")
"""What a metric may be of; the first where it does not say."""
OwnMetric = Callable[[Tensor], Any]
_ROLES: Mapping[str, tuple[str, ...]] = {"preact": ("z",), "act": ("h", "hy")}
_ASKED_BY = {"preact": "probe.activations_every", "act": "probe.activations_every"}
_WORDS = {
    "gradient": "dL/dW before clipping",
    "weight": "W before the update",
    "preact": "z; mean over an update's calls, by their entries",
    "act": "h; mean over an update's calls, by their entries",
}


class _Metric(NamedTuple):
    name: str
    of: str
    function: OwnMetric


@final
class OwnMetrics:
    """The metrics of one probe.

    A function is given one tensor, of the shape that it has in the model, and returns a number or
    a tensor of one. An error in it leaves the cell empty, or nan of z and h, and is noted.

    Args:
        asked: name -> function, or (what it is of, function).
        note: is told whose error it is, and which.

    Raises:
        QuestionError: a name that no column may have, or what is no function.
    """

    def __init__(self, asked: Mapping[str, Any] | None, note: Callable[[str, str], object]) -> None:
        self._note = note
        if asked is not None and not isinstance(asked, Mapping):
            raise QuestionError(
                f"metrics is of type {type(asked).__name__}\n"
                "allowed: a dictionary of names and functions of a tensor, such as"
                ' {"kurtosis": kurtosis}'
            )
        self._metrics = [_metric(name, value) for name, value in (asked or {}).items()]

    @property
    def columns(self) -> tuple[Quantity, ...]:
        """Their declarations, in the order in which they were asked for."""
        return tuple(
            amount(
                metric.name,
                f"{getattr(metric.function, '__name__', metric.name)} of {_WORDS[metric.of]}",
                asked_by=_ASKED_BY.get(metric.of, "probe.every"),
            )
            for metric in self._metrics
        )

    def names_of(self, *kinds: str) -> list[str]:
        """The names of those of some kinds, as `unseen` has them."""
        return [f"metrics[{metric.name!r}]" for metric in self._metrics if metric.of in kinds]

    def of_tensors(self, of: str, tensors: Mapping[int, Tensor]) -> dict[str, ColumnCells]:
        """Measures the metrics of weights or of gradients; `tensors` by row."""
        cells = {}
        for metric in self._metrics:
            if metric.of == of:
                values = {row: self._call(metric, x) for row, x in tensors.items()}
                there = {row: value for row, value in values.items() if value is not None}
                if there:
                    cells[OWN + metric.name] = ColumnCells(
                        tuple(there), (_together(there.values()),)
                    )
        return cells

    @property
    def of_calls(self) -> Mapping[str, Sequence[StackMeasure]]:
        """Role of a tensor that the passes keep -> what measures stacks of it."""
        measures: dict[str, list[StackMeasure]] = {}
        for metric in self._metrics:
            for role in _ROLES.get(metric.of, ()):
                measures.setdefault(role, []).append(self._stack_measure(metric))
        return measures

    def columns_of(
        self, parts: Mapping[str, Sequence[GroupNumbers]], lost: Collection[tuple[str, int]]
    ) -> dict[str, ColumnCells]:
        """The cells of metrics of z and h, of what was measured of an update's calls.

        Args:
            parts: metric -> its numbers.
            lost: (`z` or `h`, row) of which a tensor was lost.
        """
        cells = {}
        for metric in self._metrics:
            if parts.get(metric.name):
                quantity = _ROLES[metric.of][0]
                missing = frozenset(row for each, row in lost if each == quantity)
                cells[OWN + metric.name] = _mean_over_calls(parts[metric.name], missing)
        return cells

    def _stack_measure(self, metric: _Metric) -> StackMeasure:
        def measure(stack: Tensor, _slope: Slope | None, _channels_first: bool) -> Measured:
            values = [self._call(metric, x) for x in stack]
            missing = torch.full((), torch.nan, dtype=torch.float64, device=stack.device)
            if all(value is None for value in values):
                return {}
            return {metric.name: (_together(missing if v is None else v for v in values),)}

        return measure

    def _call(self, metric: _Metric, x: Tensor) -> Tensor | None:
        """The metric of one tensor, a 0-d float64; None where its function failed."""
        try:
            value = metric.function(x.detach())
            if isinstance(value, Tensor):
                if value.numel() != 1:
                    raise ValueError(f"it returned a tensor of shape {list(value.shape)}")
                return value.detach().reshape(()).to(x.device, torch.float64)
            return torch.full((), float(value), dtype=torch.float64, device=x.device)
        except Exception as error:
            self._note(f"metrics[{metric.name!r}]", f"it raised {type(error).__name__}: {error}")
            return None


def _mean_over_calls(parts: Sequence[GroupNumbers], missing: frozenset[int]) -> ColumnCells:
    """The mean over the calls of each row, weighted by their numbers of entries."""
    sums: dict[int, tuple[Tensor, int]] = {}
    for part in parts:
        for row, value in zip(part.rows, part.values[0], strict=True):
            total, count = sums.get(row, (torch.zeros_like(value), 0))
            sums[row] = total + value * part.num_entries, count + part.num_entries
    return ColumnCells(tuple(sums), (_together(x / n for x, n in sums.values()),), missing)


def _together(values: Any) -> Tensor:
    return torch.stack(list(values))


def _metric(name: Any, value: Any) -> _Metric:
    if not isinstance(name, str) or not name.isidentifier() or keyword.iskeyword(name):
        raise QuestionError(
            f"metrics: {name!r} is no name of a column\nallowed: letters, digits and _, as names in"
            " Python have"
        )
    taken = {column.name for column in TABLES["layers"]} | {"seed", UPDATE_NORM}
    if name in taken:
        raise QuestionError(
            f"metrics: the table of layers has a column {name} already\nallowed: another name"
        )
    of, function = value if isinstance(value, tuple) and len(value) == 2 else (METRIC_OF[0], value)
    if of not in METRIC_OF:
        raise unknown(f"what metrics[{name!r}] is of", of, METRIC_OF)
    if not callable(function):
        raise QuestionError(
            f"metrics[{name!r}] is of type {type(function).__name__}\n"
            f"allowed: a function of a weight's gradient, or (what, function) with what one of"
            f" {', '.join(METRIC_OF)}"
        )
    return _Metric(name, of, function)
