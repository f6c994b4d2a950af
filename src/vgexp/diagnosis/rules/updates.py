"""How far updates move weights and gradients, and the remedy of another learning rate."""

from __future__ import annotations

import math
from functools import partial

import numpy as np

from vgexp.diagnosis.depths import once, values_of
from vgexp.diagnosis.evidence import Evidence
from vgexp.diagnosis.findings import Remedy
from vgexp.diagnosis.landscape import FLAT_BELOW
from vgexp.diagnosis.learning import ENOUGH_STEPS
from vgexp.diagnosis.outcome import column_of

WHOLE_WEIGHT = 1.0
UNMOVED = 0.1
"""Share of a weight that all updates together make, below which it is where it began."""
SHRUNK = 0.01
"""Share of its first norm below which a weight has shrunk to next to nothing."""
_USUAL_DECAY, _LEFT = 0.02, 0.3
"""A weight decay above what SGD has in usual recipes, and the share of a weight below which it took
most of it."""
_SAME_NORM = 1e-3
"""Relative difference up to which norms are the same, as no gradient's are by themselves."""


def total_change(evidence: Evidence, *, of_least: bool = False) -> float | None:
    """The sum of all updates of the weight that moved most, over its norm: the most that it moved.

    Between measured steps the update of the one before is taken, as large as the learning rate
    makes it.

    Args:
        of_least: whether that of the weight that moved least is wanted.
    """
    totals = once(evidence, ("total_changes", None), partial(_total_changes, evidence))
    if not totals or not math.isfinite(max(totals)):
        return None
    return min(totals) if of_least else max(totals)


def _total_changes(evidence: Evidence) -> list[float]:
    """`total_change` of each weight with updates."""
    layers = evidence.tables.get("layers")
    if layers is None or "update_ratio" not in layers:
        return []
    known = layers[layers["update_ratio"].notna()]
    end = num_steps(evidence)
    totals = []
    every, changes = values_of(known, "step"), values_of(known, "update_ratio")
    for places in known.groupby("name").indices.values():
        steps, ratios = every[places], changes[places]
        lengths = _lengths(evidence, np.append(steps, max(end, steps[-1] + 1)))
        totals.append(float((ratios * lengths).sum()))
    return totals


def _lengths(evidence: Evidence, edges: np.ndarray) -> np.ndarray:
    """The number of steps from each edge to the next, each counted as its learning rate over that
    at the edge; where that is 0 or not known, as 1."""
    rates, steps = (column_of(evidence, "steps", name) for name in ("lr", "step"))
    lengths = np.diff(edges)
    if not rates.size or not np.isfinite(rates).all():
        return lengths
    sums = np.append(0.0, np.cumsum(rates))
    begins, ends = np.searchsorted(steps, edges[:-1]), np.searchsorted(steps, edges[1:])
    at_edge = np.append(rates, np.nan)[np.minimum(begins, rates.size)]
    with np.errstate(all="ignore"):
        counted = (sums[ends] - sums[begins]) / at_edge
    return np.where(np.isfinite(counted) & (counted > 0), counted, lengths)


def left_by_decay(evidence: Evidence) -> float | None:
    """What is left of the median weight's norm where an optimizer's weight decay, of more than
    usual size, shrank weights to less than a third; None where it did not."""
    layers, decay = evidence.tables.get("layers"), evidence.settings.get("optimizer.weight_decay")
    if layers is None or not isinstance(decay, int | float) or decay < _USUAL_DECAY:
        return None
    norms = layers[values_of(layers, "weight_norm") > 0].groupby("name")["weight_norm"]
    left = norms.last() / norms.first()
    median = float(left.median()) if len(left) else math.nan
    return median if median < _LEFT else None


def num_steps(evidence: Evidence) -> int:
    """The number of updates, as far as the tables show."""
    layers = evidence.tables.get("layers")
    last = 0 if layers is None or not len(layers) else int(layers["step"].max()) + 1
    return len(column_of(evidence, "steps", "step")) or last


def descent(evidence: Evidence) -> float | None:
    """The most by which an update changes the gradient's norm, as a share of it, of a loss that
    falls at every update of a run that is long enough; None where it is above a hundredth.

    An update u changes the gradient g by H u, and descent is stable up to twice g: steps a hundred
    times as long would be. Where each update is of other examples the loss does not fall at all of
    them. A gradient that is the same throughout was made so, as by clipping.
    """
    losses, norms = (column_of(evidence, "steps", name) for name in ("loss", "grad_norm"))
    is_known = np.isfinite(losses).all() and np.isfinite(norms).all() and (norms > 0).all()
    if losses.size < ENOUGH_STEPS or not is_known or (np.diff(losses) >= 0).any():
        return None
    changes = np.abs(np.diff(norms)) / norms[:-1]
    is_made = np.ptp(norms) <= _SAME_NORM * float(np.median(norms))
    return None if is_made or changes.max() > FLAT_BELOW else float(changes.max())


def rate_remedy(evidence: Evidence, factor: float, why: str) -> Remedy:
    rate = evidence.settings.get("optimizer.lr")
    if not isinstance(rate, int | float):
        rates = column_of(evidence, "steps", "lr")
        rate = float(rates[0]) if rates.size and math.isfinite(rates[0]) else None
    if rate == 0:
        return Remedy(
            "Give every group of the optimizer a learning rate: that of the first is 0.",
            "A rate of 0 leaves weights as they are.",
            code="for group in optimizer.param_groups: group['lr'] = 1e-3",
            source="PyTorch, per-parameter options",
        )
    new = None if rate is None else f"{rate * factor:.2g}"
    verb = "Lower" if factor < 1 else "Raise"
    words = f"{verb} the learning rate" + (f" from {rate:.2g} to {new}." if new else ".")
    return Remedy(
        words,
        why,
        None if new is None else f"optimizer.lr={new}",
        None if new is None else f"optimizer.param_groups[0]['lr'] = {new}",
        "LeCun et al. 1998",
    )
