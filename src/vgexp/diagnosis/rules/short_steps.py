"""A learning rate that is too small, or that a schedule has taken away."""

from __future__ import annotations

import numpy as np

from vgexp.diagnosis.depths import NEARLY_ALL, values_of
from vgexp.diagnosis.evidence import Evidence
from vgexp.diagnosis.findings import Finding, Number, Remedy, cause_rule
from vgexp.diagnosis.landscape import FLAT_BELOW
from vgexp.diagnosis.learning import ENOUGH_STEPS, HALF
from vgexp.diagnosis.outcome import column_of, has_learned, has_learned_little
from vgexp.diagnosis.rules.updates import (
    UNMOVED,
    descent,
    num_steps,
    rate_remedy,
    total_change,
)

_GONE = 0.01
"""Share of the largest rate below which a schedule has taken it away."""
_MOST_OF_RUN = 0.6
MOST_RAISED = 10.0
"""Times by which a remedy raises a rate at most: what is further is another experiment."""


@cause_rule(
    "rate_too_small",
    "layers.csv",
    limit=UNMOVED,
    reason="all updates together that are below a tenth of each weight leave the network"
    " close to where it began; usual runs make that many times over",
    source="Karpathy 2019 (update to weight ratio of 1e-3)",
    least_steps=ENOUGH_STEPS,
)
def rate_too_small(evidence: Evidence) -> Finding | None:
    """Whether all updates together are small beside every weight, or a schedule took the rate to a
    hundredth of its largest early in a run that learned little or nothing.

    Or the loss falls at every update, and neither one of them nor all together change the gradient
    by much: far longer ones would follow it as well.
    """
    if (gone := _rate_is_gone(evidence)) is not None:
        return gone
    if (short := _are_steps_short(evidence)) is not None:
        return short
    total = total_change(evidence)
    if total is None or not 0 < total < UNMOVED or num_steps(evidence) < ENOUGH_STEPS:
        return None
    longer = _longer(evidence, total)
    return Finding(
        "rate_too_small",
        f"All updates together are at most {total:.2g} of a weight.",
        step=evidence.first_step,
        numbers={"total_update_ratio": Number(total, UNMOVED)},
        remedies=(rate_remedy(evidence, min(longer, MOST_RAISED), _why_longer(longer)),),
    )


def _rate_is_gone(evidence: Evidence) -> Finding | None:
    """Since when the rate is at most a hundredth of its largest, where that is most of the run.

    Usual schedules end there, and spend less than half of the run so low: a schedule that is
    stepped at each batch instead of each epoch is at its end at once.
    """
    rates, steps = (column_of(evidence, "steps", name) for name in ("lr", "step"))
    if rates.size < ENOUGH_STEPS or not np.isfinite(rates).all() or not rates.max() > 0:
        return None
    is_low = rates <= _GONE * rates.max() * (1 + 1e-6)
    high = np.flatnonzero(~is_low)
    began = int(high[-1]) + 1 if high.size else 0
    rest = rates[began:]
    if rest.size < _MOST_OF_RUN * rates.size or rest[0] < rest[-1] or not rates[:began].any():
        return None  # a warm-up begins as low
    if (values_of(evidence.tables["layers"], "dead_fraction") >= NEARLY_ALL).any():
        return None  # what the large rate has destroyed no rate brings back
    if has_learned(evidence) and not has_learned_little(evidence):
        return None
    return Finding(
        "rate_too_small",
        f"From step {int(steps[began])} on the learning rate is at most {_GONE:g} of the"
        f" {rates.max():.2g} that it was: {rates[-1]:.2g} in the end.",
        step=int(steps[began]),
        numbers={"lr": Number(float(rates[-1]), float(_GONE * rates.max()))},
        remedies=(
            Remedy(
                "Step the schedule once an epoch, or give it the number of batches.",
                "A schedule that counts epochs is at its end after as many batches.",
                None,
                f"scheduler.step({_argument(evidence)})  # behind the loop over batches, not within"
                " it",
                "PyTorch, torch.optim.lr_scheduler",
            ),
        ),
        is_fact=True,
    )


def _argument(evidence: Evidence) -> str:
    """What the schedule's step takes: nothing, but for `ReduceLROnPlateau`, the one schedule of
    PyTorch that leaves the initial rate out of the optimizer. Others take a number as an epoch."""
    is_plateau = evidence.config is None and "optimizer.initial_lr" not in evidence.settings
    return "val_loss" if is_plateau else ""


def _are_steps_short(evidence: Evidence) -> Finding | None:
    """That steps are short, of a loss that falls at each and whose gradient is most of what it was:
    a minimum, where it would be gone, is far."""
    change, norms = descent(evidence), column_of(evidence, "steps", "grad_norm")
    if change is None or norms[-1] < HALF * norms[0]:
        return None
    return Finding(
        "rate_too_small",
        f"The loss falls at every update, and none changes the gradient by more than {change:.2g}"
        f" of it; at the end it is still {norms[-1] / norms[0]:.2g} of what it was.",
        step=evidence.first_step,
        numbers={"gradient_change": Number(change, FLAT_BELOW)},
        remedies=(rate_remedy(evidence, MOST_RAISED, "Longer steps follow the same gradient."),),
    )


def _longer(evidence: Evidence, total: float) -> float:
    """The factor on a rate that moved no weight by more than a share of it: up to the optimizer's
    own default, where that is known and larger; else so that they move by as much as they are."""
    factor = 1 / total
    if evidence.config is not None:
        usual, rate = type(evidence.config.optimizer)().lr, evidence.config.optimizer.lr
        if 0 < rate < usual:
            factor = usual / rate
    return factor


def _why_longer(factor: float) -> str:
    why = "Longer steps change the weights."
    return f"{why} Raise it again while updates stay small." if factor > MOST_RAISED else why


RULES = (rate_too_small,)
