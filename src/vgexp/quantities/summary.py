"""The summary metrics: each number and word of `summary.json`, with what it means."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from vgexp.errors import unknown
from vgexp.quantities.quantity import Quantity, amount
from vgexp.quantities.signal_metrics import SIGNAL_METRICS
from vgexp.quantities.training_metrics import TRAINING_METRICS


def _by_name(quantities: Iterable[Quantity]) -> Mapping[str, Quantity]:
    found: dict[str, Quantity] = {}
    for quantity in quantities:
        assert quantity.name not in found, quantity.name
        found[quantity.name] = quantity
    return found


SUMMARY = _by_name((*SIGNAL_METRICS, *TRAINING_METRICS))
"""Name -> metric, in the order in which `vgexp list summary` names them; null where a metric is
undefined or not finite."""

NUMBERS = tuple(metric.name for metric in SUMMARY.values() if metric.kind != "text")
"""Those that a search can go by (`run.objective`)."""


def metric_of(name: str) -> Quantity:
    """A summary metric; of a name that is not declared, a plain amount."""
    return SUMMARY.get(name) or amount(name, "")


def require_number(name: str) -> None:
    """Checks that a name is that of a summary metric that is a number.

    Raises:
        QuestionError: it is not; with the nearest.
    """
    if name not in NUMBERS:
        raise unknown("summary metric that is a number", name, NUMBERS)
