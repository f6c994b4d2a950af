"""Rules about updates: the learning rate, and the epsilon of the optimizer."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pandas as pd

from vgexp.diagnosis.depths import once, values_of
from vgexp.diagnosis.evidence import Evidence
from vgexp.diagnosis.findings import Finding, Number, Remedy, cause_rule
from vgexp.diagnosis.landscape import FLAT_BELOW
from vgexp.diagnosis.learning import ENOUGH_STEPS, HALF
from vgexp.diagnosis.outcome import column_of, constant_loss, has_learned, has_learned_little
from vgexp.diagnosis.rules.flat_losses import saturated_loss
from vgexp.diagnosis.rules.multiplied import NEARLY_ALL
from vgexp.diagnosis.rules.not_finite import first_bad, nan_from_loss

WHOLE_WEIGHT = 1.0
UNMOVED = 0.1
"""Share of a weight that all updates together make, below which it is where it began."""
_JUMP = 10.0
"""Times the first loss that no descent reaches."""
_GONE = 0.01
"""Share of the largest rate below which a schedule has taken it away."""
_MOST_OF_RUN = 0.6
_FEW_STEPS = 10
"""Steps after which a weight that began at 0 has a size to compare updates with."""
_SMALLEST_HALF = 2.0**-24
_LARGEST_HALF, _LARGEST_SINGLE = 65504.0, 3.4e38
_USUAL_EPSILON = 1e-8
_SAME_NORM = 1e-3
"""Relative difference up to which norms are the same, as no gradient's are by themselves."""
_SMALLER_RATE = "A step this long does not follow the gradient at its start any more."


@cause_rule(
    "rate_too_large",
    "layers.csv",
    limit=WHOLE_WEIGHT,
    source="Cohen et al. 2021",
    reason="an update as large as the weight replaces it; usual ones are 1e-3 of it. Or the"
    " loss grows to ten times its first value, which no descent does",
)
def rate_too_large(evidence: Evidence) -> Finding | None:
    """Whether an update is as large as the weights, or the loss jumps up.

    Not where the loss falls at every update and none changes the gradient by a hundredth: a weight
    that happens to begin near 0 is replaced then, and nothing is destroyed.
    """
    if _descent(evidence) is not None:
        return None
    layers = evidence.tables["layers"]
    ratios = values_of(layers, "update_ratio")
    early = (ratios > WHOLE_WEIGHT) & (values_of(layers, "weight_norm") > 0)
    early &= ~_begins_at_zero(layers)
    if (bad := first_bad(evidence, "loss")) is not None:
        early &= values_of(layers, "step") < bad  # the update of a loss that is not finite
    if evidence.is_check and not _is_wholesale(ratios) and _jump_of_check(evidence) is None:
        return None
    over = evidence.metrics.get("sharpness_over_limit")
    found: tuple[int, tuple[str, ...], dict[str, Number]]
    if early.any():
        row = layers[early].iloc[0]
        largest = float(ratios[early & (layers["step"] == row["step"]).to_numpy()].max())
        sentence = f"At step {int(row['step'])} an update is {largest:.2g} times as large as the"
        sentence += f" weight that it changes ({row['name']})."
        found = int(row["step"]), (str(row["name"]),), {"update_ratio": Number(largest, 1.0)}
        at_step = ratios[(layers["step"] == row["step"]).to_numpy()]
        if _is_wholesale(at_step):
            found[2]["update_ratio_median"] = Number(float(np.nanmedian(at_step)), 1.0)
        if (jump := _jump(evidence)) is not None:
            found[2]["loss_over_first"] = Number(jump[1], _JUMP)
    elif (jump := _jump(evidence) or _jump_of_check(evidence)) is not None:
        step, times = jump
        sentence = f"At step {step} the loss is {times:.2g} times the first one."
        if evidence.is_check:
            sentence = f"The update makes the loss {times:.2g} times as large on the same batch."
        found = step, (), {"loss_over_first": Number(times, _JUMP)}
    elif isinstance(over, int | float) and over > 1.5:
        sentence = f"The sharpness is mostly {over:.2g} times what this learning rate bears."
        found = 0, (), {"sharpness_over_limit": Number(float(over), 1.0)}
    else:
        return None
    return Finding(
        "rate_too_large",
        sentence,
        step=found[0],
        layers=found[1],
        numbers=found[2],
        remedies=(rate_remedy(evidence, 0.01 if early.any() else 0.1, _SMALLER_RATE), _CLIP),
    )


@cause_rule(
    "rate_too_small",
    "layers.csv",
    limit=UNMOVED,
    reason="all updates together that are below a tenth of each weight leave the network"
    " close to where it began; usual runs make that many times over",
    source="Karpathy 2019 (update to weight ratio of 1e-3)",
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
    if total is None or not 0 < total < UNMOVED or _num_steps(evidence) < ENOUGH_STEPS:
        return None
    return Finding(
        "rate_too_small",
        f"All updates together are at most {total:.2g} of a weight.",
        step=evidence.first_step,
        numbers={"total_update_ratio": Number(total, UNMOVED)},
        remedies=(
            rate_remedy(evidence, _longer(evidence, total), "Longer steps change the weights."),
        ),
    )


@cause_rule(
    "optimizer_epsilon",
    "settings",
    source="Kingma & Ba 2015",
    certain=True,
    reason="Adam divides by sqrt(v) + eps: an eps that the dtype rounds to 0 divides by 0"
    " where a squared gradient underflows; one above the gradients decides the step",
)
def optimizer_epsilon(evidence: Evidence) -> Finding | None:
    """Whether epsilon is 0 in the weights' dtype, or larger than all gradients.

    One that somebody set above the largest entry of all gradients takes more than half of each
    step, and the size that Adam gives to steps with it: a sickness where the network did not learn.
    """
    eps = evidence.settings.get("optimizer.eps")
    layers = evidence.tables.get("layers")
    if not isinstance(eps, int | float) or layers is None:
        return None
    is_lost = evidence.dtype == "float16" and eps < _SMALLEST_HALF / 2
    first = layers[layers["step"] == layers["step"].min()]
    gradients, moved = values_of(first, "grad_norm"), values_of(first, "update_ratio")
    if is_lost and np.isfinite(gradients).any() and not np.isfinite(moved).any():
        sentence = (
            f"eps = {eps:.2g} is 0 in float16, and squared gradients underflow: the optimizer's"
            " first update divides 0 by 0."
        )
        step, limit, better = int(first["step"].iloc[0]), _SMALLEST_HALF, 1e-4
        is_fact = True
    else:
        largest = values_of(layers, "grad_max")
        total = total_change(evidence)
        usable = largest[np.isfinite(largest)]
        is_set = eps > _USUAL_EPSILON
        if not usable.size or not 0 < usable.max() <= eps / (1 if is_set else 10):
            return None
        if total is None or total >= (WHOLE_WEIGHT if is_set else UNMOVED) or _is_flat(evidence):
            return None  # of a loss that is flat any epsilon is larger than the gradients
        if not usable.max() or (evidence.is_check and eps <= _USUAL_EPSILON):
            return None  # of a whole run that is so; in one update the gradients are too small
        sentence = f"eps = {eps:.2g} is larger than every gradient ({usable.max():.2g} at most)."
        is_fact = total < UNMOVED and usable.max() <= eps / 10
        step, limit, better = evidence.first_step, float(usable.max()), 1e-8
    return Finding(
        "optimizer_epsilon",
        sentence,
        step=step,
        numbers={"eps": Number(float(eps), limit)},
        layers=(str(first["name"].iloc[0]),),
        remedies=(
            Remedy(
                f"Use eps={better:.0e}.",
                "Epsilon has to be a number of the dtype, and smaller than the gradients.",
                None,
                f"torch.optim.Adam(model.parameters(), eps={better:.0e}); or keep weights in"
                " float32 under autocast",
                "Kingma & Ba 2015",
            ),
        ),
        is_fact=is_fact,
    )


def _is_flat(evidence: Evidence) -> bool:
    """Whether the loss sends next to nothing back by itself."""
    return not evidence.lacks("layers.csv") and saturated_loss(evidence) is not None


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
                "scheduler.step(val_loss)  # behind the loop over batches, not within it",
                "PyTorch, torch.optim.lr_scheduler",
            ),
        ),
        is_fact=True,
    )


def _descent(evidence: Evidence) -> float | None:
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


def _are_steps_short(evidence: Evidence) -> Finding | None:
    """That steps are short, of a loss that falls at each and whose gradient is most of what it was:
    a minimum, where it would be gone, is far."""
    change, norms = _descent(evidence), column_of(evidence, "steps", "grad_norm")
    if change is None or norms[-1] < HALF * norms[0]:
        return None
    return Finding(
        "rate_too_small",
        f"The loss falls at every update, and none changes the gradient by more than {change:.2g}"
        f" of it; at the end it is still {norms[-1] / norms[0]:.2g} of what it was.",
        step=evidence.first_step,
        numbers={"gradient_change": Number(change, FLAT_BELOW)},
        remedies=(rate_remedy(evidence, 10.0, "Longer steps follow the same gradient."),),
    )


def _longer(evidence: Evidence, total: float) -> float:
    """The factor on a rate that moved no weight by more than a share of it: up to the optimizer's
    own default, where that is known and larger; else so that they move by as much as they are."""
    if evidence.config is not None:
        usual, rate = type(evidence.config.optimizer)().lr, evidence.config.optimizer.lr
        if 0 < rate < usual:
            return usual / rate
    return min(1 / total, 1000.0)


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
    num_steps = _num_steps(evidence)
    totals = []
    every, changes = values_of(known, "step"), values_of(known, "update_ratio")
    for places in known.groupby("name").indices.values():
        steps, ratios = every[places], changes[places]
        lengths = _lengths(evidence, np.append(steps, max(num_steps, steps[-1] + 1)))
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


def _num_steps(evidence: Evidence) -> int:
    layers = evidence.tables.get("layers")
    last = 0 if layers is None or not len(layers) else int(layers["step"].max()) + 1
    return len(column_of(evidence, "steps", "step")) or last


def _jump(evidence: Evidence) -> tuple[int, float] | None:
    """The first step whose loss is ten times the first one, and how many times that.

    An infinite loss of outputs whose squares are finite is no jump: the loss itself made it.
    """
    losses = column_of(evidence, "steps", "loss")
    if losses.size < 2 or not math.isfinite(losses[0]) or losses[0] <= 0:
        return None
    high = np.flatnonzero((losses > _JUMP * losses[0]) | np.isposinf(losses))
    if not high.size:
        return None
    step = int(evidence.tables["steps"]["step"].iloc[high[0]])
    if np.isposinf(losses[high[0]]) and _is_made_by_loss(evidence, step):
        return None
    return step, float(losses[high[0]] / losses[0])


def _is_made_by_loss(evidence: Evidence, step: int) -> bool:
    """Whether the loss is not finite at a step at which it was given numbers whose squares are."""
    if nan_from_loss(evidence) is None:
        return False
    table = evidence.tables["loss"]
    at = table[(table["step"] == step) & table["role"].isin(["output", "target"])]
    sizes = np.abs([*values_of(at, "min"), *values_of(at, "max")])
    largest = _LARGEST_HALF if at["dtype"].eq("float16").any() else _LARGEST_SINGLE
    return bool(sizes.size and np.isfinite(sizes).all() and sizes.max() < math.sqrt(largest))


def _begins_at_zero(layers: pd.DataFrame) -> np.ndarray:
    """The rows of the first steps of weights that begin at exactly 0: what the updates before have
    made of them is small, and under a warm-up smaller than the next update."""
    firsts = layers.drop_duplicates("name")
    names = firsts.loc[values_of(firsts, "weight_norm") == 0, "name"]
    is_new = values_of(layers, "step") < values_of(layers, "step").min() + _FEW_STEPS
    begins: np.ndarray = layers["name"].isin(set(names)).to_numpy(dtype=bool) & is_new
    return begins


def _is_wholesale(ratios: np.ndarray) -> bool:
    """Whether most weights change by more than themselves. Single small ones, as a scale that
    begins at 1e-6, may do so by design."""
    known = ratios[np.isfinite(ratios)]
    return known.size > 0 and float(np.median(known)) > WHOLE_WEIGHT


def _jump_of_check(evidence: Evidence) -> tuple[int, float] | None:
    """As `_jump`, of the loss on the same batch behind the update that a check made.

    A loss that begins near 0, as that of a trained network does, may rise far: it has to be above
    what guessing gives as well.
    """
    first, after = (evidence.metrics.get(f"loss_{when}") for when in ("at_start", "after_update"))
    if first is None or after is None or not math.isfinite(first) or first <= 0:
        return None
    guess = constant_loss(evidence)
    if math.isnan(after) or after <= _JUMP * max(first, guess or first):
        return None
    moved = values_of(evidence.tables["layers"], "update_ratio")
    moved = moved[np.isfinite(moved)]
    if guess is None and not (moved.size and float(np.median(moved)) >= UNMOVED):
        return None
    return 0, after / first


def rate_remedy(evidence: Evidence, factor: float, why: str) -> Remedy:
    rate = evidence.settings.get("optimizer.lr")
    if not isinstance(rate, int | float):
        rates = column_of(evidence, "steps", "lr")
        rate = float(rates[0]) if rates.size and math.isfinite(rates[0]) else None
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


_CLIP = Remedy(
    "Or clip the gradient.",
    "A step then is never longer than the threshold.",
    "clip=norm clip.threshold=1",
    "nn.utils.clip_grad_norm_(model.parameters(), 1.0)",
    "Pascanu et al. 2013",
)

RULES = (
    optimizer_epsilon,
    rate_too_large,
    rate_too_small,
)
