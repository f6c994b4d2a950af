"""Rules about updates and units: optimizer, dead and saturated units, landscape."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from vgexp.diagnosis.depths import rows_at, values_of
from vgexp.diagnosis.evidence import Evidence
from vgexp.diagnosis.findings import Finding, Number, Remedy, cause_rule
from vgexp.diagnosis.landscape import FLAT_BELOW
from vgexp.diagnosis.learning import ENOUGH_STEPS
from vgexp.diagnosis.outcome import column_of, constant_loss
from vgexp.diagnosis.signal import SMALLEST_NORMAL, VANISHING_BELOW

_WHOLE_WEIGHT = 1.0
_UNMOVED = 0.1
_JUMP = 10.0
_NEARLY_ALL = 0.9
_MOSTLY = 0.9
_THROTTLED = 0.05
_SAME = 1e-6
"""Relative difference of float32 numbers that are the same but for rounding."""
_FEW_STEPS = 10
"""Steps after which a weight that began at 0 has a size to compare updates with."""
_MANY_STEPS = 50
_SMALLEST_HALF = 2.0**-24
_USUAL_EPSILON = 1e-8
_CHANCE = 1.5
"""Four standard errors above a tenth, of 600 examples."""
_SMALLER_RATE = "A step this long does not follow the gradient at its start any more."


@cause_rule(
    "rate_too_large",
    "layers.csv",
    limit=_WHOLE_WEIGHT,
    source="Cohen et al. 2021",
    reason="an update as large as the weight replaces it; usual ones are 1e-3 of it. Or the"
    " loss grows to ten times its first value, which no descent does",
)
def rate_too_large(evidence: Evidence) -> Finding | None:
    """Whether an update is as large as the weights, or the loss jumps up."""
    layers = evidence.tables["layers"]
    ratios = values_of(layers, "update_ratio")
    early = (ratios > _WHOLE_WEIGHT) & (values_of(layers, "weight_norm") > 0)
    early &= ~_begins_at_zero(layers)
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
        remedies=(_rate(evidence, 0.01 if early.any() else 0.1, _SMALLER_RATE), _CLIP),
    )


@cause_rule(
    "rate_too_small",
    "layers.csv",
    limit=_UNMOVED,
    reason="all updates together that are below a tenth of each weight leave the network"
    " close to where it began; usual runs make that many times over",
    source="Karpathy 2019 (update to weight ratio of 1e-3)",
)
def rate_too_small(evidence: Evidence) -> Finding | None:
    """Whether all updates together are small beside every weight."""
    total = _total_change(evidence)
    if total is None or not 0 < total < _UNMOVED or _num_steps(evidence) < ENOUGH_STEPS:
        return None
    return Finding(
        "rate_too_small",
        f"All updates together are at most {total:.2g} of a weight.",
        step=evidence.first_step,
        numbers={"total_update_ratio": Number(total, _UNMOVED)},
        remedies=(_rate(evidence, min(1 / total, 1000.0), "Longer steps change the weights."),),
    )


@cause_rule(
    "clip_throttles",
    "steps.csv",
    limit=_THROTTLED,
    source="Pascanu et al. 2013",
    reason="clipping is for rare, large gradients; where it takes nine of ten updates down"
    " to a twentieth it is a smaller learning rate by another name",
)
def clip_throttles(evidence: Evidence) -> Finding | None:
    """Whether clipping makes nearly every gradient many times smaller.

    A loop that clips before its step leaves no gradient from before. A norm that is the same at
    every step, or a largest entry that several weights share, shows the threshold itself.
    """
    before, after, clipped = (
        column_of(evidence, "steps", name) for name in ("grad_norm", "grad_norm_clipped", "clipped")
    )
    if before.size < _MANY_STEPS // 2 or after.size != before.size:
        return None
    with np.errstate(all="ignore"):
        ratios = after / before
    usable = ratios[np.isfinite(ratios)]
    if not usable.size:
        return None
    total = _total_change(evidence)
    if total is not None and total < _UNMOVED and (of_loop := _clipped_in_loop(evidence, before)):
        what, code = of_loop
        return Finding(
            "clip_throttles",
            f"{what}, and all updates together are {total:.2g} of a weight.",
            step=0,
            numbers={"total_update_ratio": Number(total, _UNMOVED)},
            remedies=(
                Remedy(
                    "Raise the threshold above the usual gradient.",
                    "Clipping is then for outliers alone.",
                    None,
                    code,
                    "Pascanu et al. 2013",
                ),
            ),
        )
    share = float((usable < 1 - 1e-6).mean())
    if np.isfinite(clipped).any():
        share = float(np.nanmean(clipped))
    factor = float(np.median(usable))
    if share < _MOSTLY or factor > _THROTTLED or (total is not None and total > 1):
        return None
    return Finding(
        "clip_throttles",
        f"Clipping changes {share:.0%} of the gradients, to {factor:.2g} of their size.",
        step=0,
        numbers={"clip_fraction": Number(share, _MOSTLY), "factor": Number(factor, _THROTTLED)},
        remedies=(
            Remedy(
                "Raise the threshold above the usual gradient.",
                "Clipping is then for outliers alone.",
                f"clip.threshold={float(np.nanmedian(before)):.2g}",
                f"nn.utils.clip_grad_norm_(model.parameters(), {np.nanmedian(before):.2g})",
                "Pascanu et al. 2013",
            ),
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
    """Whether epsilon is 0 in the weights' dtype, or larger than all gradients."""
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
    else:
        largest = values_of(layers, "grad_max")
        total = _total_change(evidence)
        usable = largest[np.isfinite(largest)]
        if not usable.size or not 0 < usable.max() <= eps / 10:
            return None
        if total is None or total >= _UNMOVED:
            return None
        if not usable.max() or (evidence.is_check and eps <= _USUAL_EPSILON):
            return None  # of a whole run that is so; in one update the gradients are too small
        sentence = f"eps = {eps:.2g} is larger than every gradient ({usable.max():.2g} at most)."
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
    )


@cause_rule(
    "dead_units",
    "layers.csv",
    limit=_NEARLY_ALL,
    source="Lu et al. 2020",
    reason="usual networks have some dead units; a layer with nine of ten passes nothing",
)
def dead_units(evidence: Evidence) -> Finding | None:
    """Whether nearly all units of a layer died after the start."""
    return _units(
        evidence,
        "dead_units",
        "dead_fraction",
        "give 0 on every example",
        (
            Remedy(
                "Use leaky ReLU.",
                "Its slope below 0 is not 0, so that no unit is dead.",
                "model.activation=leaky_relu",
                "nn.LeakyReLU(0.01)",
                "Maas et al. 2013",
            ),
            _rate(evidence, 0.1, "Long steps push units below 0."),
        ),
    )


@cause_rule(
    "saturated_units",
    "layers.csv",
    limit=_NEARLY_ALL,
    source="Glorot & Bengio 2010",
    reason="a trained network uses flat ends; where nine of ten entries are there, a layer"
    " passes next to nothing",
)
def saturated_units(evidence: Evidence) -> Finding | None:
    """Whether nearly all units of a hidden layer are at the flat ends."""
    return _units(
        evidence,
        "saturated_units",
        "saturated_fraction",
        "are at the flat ends",
        (
            Remedy(
                "Use ReLU with He's init.",
                "It has no flat end above 0.",
                "model.activation=relu model.init=he_normal",
                "nn.ReLU()",
                "Glorot et al. 2011",
            ),
            _rate(evidence, 0.1, "Long steps push units to the flat ends."),
        ),
    )


@cause_rule(
    "flat_landscape",
    "curvature_over_limit_max",
    limit=FLAT_BELOW,
    source="Cohen et al. 2021",
    reason="a step a hundred times as large would be stable: nothing bends the loss",
)
def flat_landscape(evidence: Evidence) -> Finding | None:
    """Whether no eigenvalue of the Hessian is near the stability limit."""
    largest = evidence.metrics["curvature_over_limit_max"]
    if largest >= FLAT_BELOW:
        return None
    return Finding(
        "flat_landscape",
        f"No Hessian eigenvalue is above {largest:.2g} of what this learning rate bears.",
        step=evidence.first_step,
        numbers={"curvature_over_limit_max": Number(float(largest), FLAT_BELOW)},
        remedies=(
            *_usual_gain(evidence),
            Remedy(
                "Begin elsewhere: another init, or pretraining.",
                "A flat region has no direction that leads out of it.",
                "model.init=orthogonal",
                "nn.init.orthogonal_(layer.weight)",
                "Saxe et al. 2014",
            ),
        ),
    )


@cause_rule(
    "labels_unlearnable",
    "layers.csv",
    "steps.csv",
    limit=_WHOLE_WEIGHT,
    reason="a network whose weights changed by their own size, with a steady signal, and"
    " whose loss is still what guessing gives, found nothing to learn",
    source="Zhang et al. 2017 (random labels)",
)
def labels_unlearnable(evidence: Evidence) -> Finding | None:
    """Whether weights moved far, the signal is sound, and the loss stays at guessing.

    A network that has begun to memorise its examples is below guessing on them, and only there: its
    answers to other examples are right no more often than a guess is.
    """
    guess, total = constant_loss(evidence), _total_change(evidence)
    losses = column_of(evidence, "steps", "loss")
    losses = losses[np.isfinite(losses)]
    is_steady = all(evidence.metrics.get(f"signal{end}") == "steady" for end in ("", "_last"))
    through_time = evidence.metrics.get("time_attenuation")
    is_steady &= not isinstance(through_time, int | float) or through_time >= VANISHING_BELOW
    bends = evidence.metrics.get("curvature_over_limit_max")
    if isinstance(bends, int | float) and bends < FLAT_BELOW:
        return None
    if guess is None or total is None or losses.size < 200 or not is_steady:
        return None
    last = float(losses[-50:].mean())
    is_at_guess = abs(last - guess) <= 0.05 * guess
    if total < _WHOLE_WEIGHT or total > 1e3 or not (is_at_guess or _memorises(evidence, guess)):
        return None
    return Finding(
        "labels_unlearnable",
        f"The signal is steady and the updates sum up to {total:.2g} of a weight, yet "
        + (
            f"the loss is {last:.3g}, what guessing gives ({guess:.3g})"
            if is_at_guess
            else f"new examples are answered as by a guess (on those seen the loss is {last:.3g})"
        )
        + ": nothing in the inputs tells the labels.",
        step=evidence.first_step,
        numbers={"loss_last": Number(last, guess), "total_update_ratio": Number(total, 1.0)},
        remedies=(
            Remedy(
                "Look at examples with their labels, as the network gets them.",
                "Shuffled or misread labels cannot be learned.",
                code="print(x[0], y[0])",
                source="Zhang et al. 2017",
            ),
        ),
    )


# ---------------------------------------------------------------- what they share


def _memorises(evidence: Evidence, guess: float) -> bool:
    """Whether a classifier is right on validation examples no more often than a guess is.

    Of K classes that are equally frequent exp(-guess) is 1/K.
    """
    loss, right = (evidence.metrics.get(f"val_{name}_last") for name in ("loss", "accuracy"))
    return (
        loss is not None
        and right is not None
        and loss > guess
        and right < _CHANCE * math.exp(-guess)
    )


def _units(
    evidence: Evidence, cause: str, column: str, do: str, remedies: tuple[Remedy, ...]
) -> Finding | None:
    layers = evidence.tables["layers"]
    is_bad = (values_of(layers, column) >= _NEARLY_ALL) & (values_of(layers, "step") > 0)
    for step in sorted(layers.loc[is_bad, "step"].unique()):
        rows = rows_at(evidence, int(step))
        bad = rows[values_of(rows, column) >= _NEARLY_ALL]
        if len(bad):
            share = float(values_of(bad, column)[0])
            return Finding(
                cause,
                f"At step {int(step)} {share:.0%} of the units of {bad['name'].iloc[0]} {do}.",
                step=int(step),
                layers=tuple(str(name) for name in bad["name"]),
                numbers={column: Number(share, _NEARLY_ALL)},
                remedies=remedies,
            )
    return None


def _total_change(evidence: Evidence) -> float | None:
    """The sum of all updates of the weight that moved most, over its norm; at most what it can have
    moved. Between measured steps the update of the one before is taken, as large as the learning
    rate makes it."""
    layers = evidence.tables.get("layers")
    if layers is None or "update_ratio" not in layers:
        return None
    known = layers[layers["update_ratio"].notna()]
    num_steps = _num_steps(evidence)
    totals = []
    every, changes = values_of(known, "step"), values_of(known, "update_ratio")
    for places in known.groupby("name").indices.values():
        steps, ratios = every[places], changes[places]
        lengths = _lengths(evidence, np.append(steps, max(num_steps, steps[-1] + 1)))
        totals.append(float((ratios * lengths).sum()))
    return max(totals) if totals and math.isfinite(max(totals)) else None


def _usual_gain(evidence: Evidence) -> tuple[Remedy, ...]:
    """The gain of 1, of a run whose weights begin smaller than their init has them."""
    gain = evidence.settings.get("model.gain")
    if not isinstance(gain, int | float) or gain >= 1:
        return ()
    return (
        Remedy(
            "Draw the weights at the scale of their init.",
            "Where weights are near 0, products of them are flat.",
            "model.gain=1",
            source="Saxe et al. 2014",
        ),
    )


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


def _is_constant(norms: np.ndarray) -> bool:
    """Whether nine of ten norms are equal to a thousandth, as no gradient's are by themselves."""
    middle = float(np.median(norms))
    return middle > 0 and float((np.abs(norms - middle) <= 1e-3 * middle).mean()) >= _MOSTLY


def _clipped_in_loop(evidence: Evidence, norms: np.ndarray) -> tuple[str, str] | None:
    """What shows that the loop clips each gradient itself, and the line that it should have."""
    if _is_constant(norms):
        return (
            f"The gradient's norm is {float(np.median(norms)):.3g} at every step, as clipping by"
            " norm makes it",
            "nn.utils.clip_grad_norm_(model.parameters(), 1.0)",
        )
    threshold = _shared_peak(evidence)
    if threshold is None:
        return None
    return (
        f"The largest entry of the gradients of most weights is {threshold:.3g} at every step, as"
        " clipping by value makes it",
        "nn.utils.clip_grad_value_(model.parameters(), 1.0)",
    )


def _shared_peak(evidence: Evidence) -> float | None:
    """The number that most weights' gradients have as their largest entry, at all measured steps.

    Gradients of two weights have no largest entry in common by themselves. Numbers that a dtype
    holds with few digits are left out.
    """
    layers = evidence.tables.get("layers")
    if layers is None or "grad_max" not in layers:
        return None
    known = layers[np.isfinite(values_of(layers, "grad_max")) & (values_of(layers, "grad_max") > 0)]
    peaks = values_of(known, "grad_max")
    if known["name"].nunique() < 2 or known["step"].nunique() < 2:
        return None
    peak = float(np.median(peaks))
    alike = np.abs(peaks - peak) <= _SAME * peak
    if evidence.dtype == "float16" and peak < SMALLEST_NORMAL["float16"]:
        return None
    is_shared = float(alike.mean()) > 0.5 and len(set(known.loc[alike, "name"])) > 1
    return peak if is_shared else None


def _jump(evidence: Evidence) -> tuple[int, float] | None:
    """The first step whose loss is ten times the first one, and how many times that."""
    losses = column_of(evidence, "steps", "loss")
    if losses.size < 2 or not math.isfinite(losses[0]) or losses[0] <= 0:
        return None
    high = np.flatnonzero((losses > _JUMP * losses[0]) | np.isposinf(losses))
    if not high.size:
        return None
    return int(evidence.tables["steps"]["step"].iloc[high[0]]), float(losses[high[0]] / losses[0])


def _begins_at_zero(layers: pd.DataFrame) -> np.ndarray:
    """The rows of the first steps of weights that begin at exactly 0: what the updates before have
    made of them is small, and under a warm-up smaller than the next update."""
    firsts = layers.drop_duplicates("name")
    names = firsts.loc[values_of(firsts, "weight_norm") == 0, "name"]
    is_new = values_of(layers, "step") < values_of(layers, "step").min() + _FEW_STEPS
    return np.asarray(layers["name"].isin(set(names))) & is_new


def _is_wholesale(ratios: np.ndarray) -> bool:
    """Whether most weights change by more than themselves. Single small ones, as a scale that
    begins at 1e-6, may do so by design."""
    known = ratios[np.isfinite(ratios)]
    return known.size > 0 and float(np.median(known)) > _WHOLE_WEIGHT


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
    if guess is None and not (moved.size and float(np.median(moved)) >= _UNMOVED):
        return None
    return 0, after / first


def _rate(evidence: Evidence, factor: float, why: str) -> Remedy:
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
    clip_throttles,
    optimizer_epsilon,
    rate_too_large,
    rate_too_small,
    dead_units,
    saturated_units,
    flat_landscape,
    labels_unlearnable,
)
