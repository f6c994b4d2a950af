"""A learning rate that is too large."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from vgexp.diagnosis.depths import NEARLY_ALL, are_dead, rows_at, values_of
from vgexp.diagnosis.evidence import Evidence
from vgexp.diagnosis.findings import Finding, Number, Remedy, cause_rule
from vgexp.diagnosis.outcome import JUMP, column_of, constant_loss
from vgexp.diagnosis.rules.not_finite import first_bad, nan_from_loss
from vgexp.diagnosis.rules.updates import SHRUNK, UNMOVED, WHOLE_WEIGHT, descent, rate_remedy

_LONG = 0.1
"""Share of a weight that an update makes, a hundred times a usual one."""
_GROWN = 1.5
"""Times its first size, to which no usual updates bring a weight before its units die."""
_FEW_STEPS = 10
"""Steps after which a weight that began at 0 has a size to compare updates with."""
_LARGEST_HALF, _LARGEST_SINGLE = 65504.0, 3.4e38
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
    if descent(evidence) is not None:
        return None
    layers = evidence.tables["layers"]
    ratios = values_of(layers, "update_ratio")
    early = (ratios > WHOLE_WEIGHT) & (values_of(layers, "weight_norm") > 0)
    early &= ~_begins_at_zero(layers) & ~_has_shrunk(layers)
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
            found[2]["loss_over_first"] = Number(jump[1], JUMP)
    elif (jump := _jump(evidence) or _jump_of_check(evidence)) is not None:
        step, times = jump
        sentence = f"At step {step} the loss is {times:.2g} times the first one."
        if evidence.is_check:
            sentence = f"The update makes the loss {times:.2g} times as large on the same batch."
        found = step, (), {"loss_over_first": Number(times, JUMP)}
    elif isinstance(over, int | float) and over > 1.5:
        sentence = f"The sharpness is mostly {over:.2g} times what this learning rate bears."
        found = 0, (), {"sharpness_over_limit": Number(float(over), 1.0)}
    elif (killing := _grown_until_dead(evidence)) is not None:
        step, ratio, growth, name = killing
        sentence = f"At step {step} an update is {ratio:.2g} of the weights, which are by then"
        sentence += f" {growth:.2g} times as large as at first; then the units of {name} die."
        found = step, (), {"update_ratio": Number(ratio, _LONG)}
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


def _has_shrunk(layers: pd.DataFrame) -> np.ndarray:
    """Of each row, whether its weight is a hundredth of what it was at first: weight decay took the
    rest, and an update of any size is large beside it."""
    first = layers.groupby("name")["weight_norm"].transform("first")
    return np.asarray(layers["weight_norm"] < SHRUNK * first, dtype=bool)


def _grown_until_dead(evidence: Evidence) -> tuple[int, float, float, str] | None:
    """The last measured step before nearly all units of a layer are dead for the first time, the
    median update over weight there, how many times as large as at first the median weight is, and
    the layer's name; None where updates were not long, or made weights no larger."""
    layers = evidence.tables["layers"]
    dead = layers[(values_of(layers, "dead_fraction") >= NEARLY_ALL) & (layers["step"] > 0)]
    if not len(dead) or are_dead(rows_at(evidence, 0)).any():
        return None
    before = layers[layers["step"] < dead["step"].min()]
    last = before[before["step"] == before["step"].max()]
    ratio = float(np.nanmedian(values_of(last, "update_ratio"))) if len(last) else 0.0
    first = layers.groupby("name")["weight_norm"].first()
    growth = float((last.set_index("name")["weight_norm"] / first).median())
    if not (ratio >= _LONG and growth >= _GROWN):
        return None
    return int(last["step"].iloc[0]), ratio, growth, str(dead["name"].iloc[0])


def _jump(evidence: Evidence) -> tuple[int, float] | None:
    """The first step whose loss is ten times the first one, and how many times that.

    An infinite loss of outputs whose squares are finite is no jump: the loss itself made it.
    """
    losses = column_of(evidence, "steps", "loss")
    if losses.size < 2 or not math.isfinite(losses[0]) or losses[0] <= 0:
        return None
    high = np.flatnonzero((losses > JUMP * losses[0]) | np.isposinf(losses))
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
    if math.isnan(after) or after <= JUMP * max(first, guess or first):
        return None
    moved = values_of(evidence.tables["layers"], "update_ratio")
    moved = moved[np.isfinite(moved)]
    if guess is None and not (moved.size and float(np.median(moved)) >= UNMOVED):
        return None
    return 0, after / first


_CLIP = Remedy(
    "Or clip the gradient.",
    "A step then is never longer than the threshold.",
    "clip=norm clip.threshold=1",
    "nn.utils.clip_grad_norm_(model.parameters(), 1.0)",
    "Pascanu et al. 2013",
)

RULES = (rate_too_large,)
