"""Rules about numbers that the dtype of the computation does not hold."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from vgexp.diagnosis.depths import rows_at, values_of
from vgexp.diagnosis.evidence import Evidence
from vgexp.diagnosis.findings import Finding, Number, Remedy, cause_rule
from vgexp.diagnosis.outcome import column_of, first_call, has_learned
from vgexp.diagnosis.phrases import name_layers
from vgexp.diagnosis.rules.half import (
    HALF,
    LARGEST_HALF,
    SMALLEST_HALF,
    computes_in,
    is_scaled_beyond,
    weight_of_loss,
)
from vgexp.diagnosis.rules.losses import sizes_of
from vgexp.diagnosis.rules.not_finite import first_bad, reads_finite, share_given
from vgexp.diagnosis.signal import SMALLEST_NORMAL, loss_scales
from vgexp.diagnosis.signal import underflow as num_below

_FLAT = 0.9
_SQUARE_LOST = 2.0**-12
"""Size of numbers of which most have a square that is 0 in float16, or of one digit."""


@cause_rule(
    "underflow",
    "underflow or loss.csv",
    "dtype",
    limit=0,
    source="Micikevicius et al. 2018",
    reason="below the smallest normal number digits are lost, and soon the number itself",
)
def underflow(evidence: Evidence) -> Finding | None:
    """Whether the backward signal falls below what the dtype holds.

    Where the read-out too gets exactly 0, the loss says so: an example's share of it is below the
    smallest number of float16, and its derivative with it. Or what a layer gives is so small that
    its square is 0, and a forward pass that divides by a variance or a norm is not finite.
    """
    dtype = computes_in(evidence)
    if dtype not in SMALLEST_NORMAL:
        return None
    lost = _lost_from_the_start(evidence)
    number = len(lost) or _num_below(evidence, dtype)
    if (square := square_lost(evidence)) is not None:
        return square
    if not number:
        return None
    if lost:
        return _of_lost(evidence, lost)
    return Finding(
        "underflow",
        f"In {number} layers the backward signal is below the smallest normal number of {dtype},"
        f" {SMALLEST_NORMAL[dtype]:.2g}.",
        step=_first_underflow(evidence),
        numbers={"underflow": Number(float(number), 0.0)},
        remedies=(_more_range(dtype),),
        is_fact=_is_lost_for_good(evidence) or None,
    )


@cause_rule(
    "overflow",
    "steps.csv",
    "dtype",
    limit=LARGEST_HALF,
    certain=True,
    reason="what is larger than the dtype's largest number is infinite; it is the dtype's"
    " fault where float32 would hold it",
    source="Micikevicius et al. 2018",
)
def overflow(evidence: Evidence) -> Finding | None:
    """Whether values grew beyond the range of float16.

    The largest that was seen is near its end, or two as large give a product beyond it in the
    forward pass, which then is not finite. Or the number of entries is beyond it, and a mean by
    hand, which divides by what is infinite, is exactly 0. Or the loop multiplies the loss by so
    much that its derivative is.
    """
    if (count := _infinite_count(evidence)) is not None:
        return count
    bad = [
        step for name in ("loss", "grad_norm") if (step := first_bad(evidence, name)) is not None
    ]
    made_at = evidence.metrics.get("nonfinite_step")
    if evidence.metrics.get("nonfinite_maker") == "forward" and made_at is not None:
        bad.append(int(made_at))  # a scaler counts it as skipped
    if computes_in(evidence) != HALF or not bad or square_lost(evidence) is not None:
        return None
    if (scaled := _of_scale(evidence, min(bad))) is not None:
        return scaled
    layers = evidence.tables.get("layers", pd.DataFrame())
    before = layers[layers["step"] <= min(bad)] if len(layers) else layers
    sizes = [values_of(before, name) for name in ("act_max", "grad_max", "preact_std")]
    finite = (each[np.isfinite(each)] for each in sizes)
    largest = max((float(np.max(each, initial=0)) for each in finite), default=0.0)
    enough = LARGEST_HALF / 100
    is_forward = _is_made_in_forward_pass(evidence, min(bad))
    if is_forward:
        enough = math.sqrt(LARGEST_HALF)  # the product of two as large is beyond
    given = _of_call(evidence, min(bad))
    if given >= math.sqrt(LARGEST_HALF) > largest:
        largest, enough = given, math.sqrt(LARGEST_HALF)  # as is the square in the loss
    if largest < enough and not (is_forward and reads_finite(evidence, min(bad))):
        return None
    what = f"Values reach {largest:.2g} by step {min(bad)}, and float16 holds none above 65504"
    if largest < enough:
        what = (
            f"At step {min(bad)} inputs and weights are finite and the outputs are not: float16"
            " holds none above 65504"
        )
    elif largest < LARGEST_HALF:
        grown = (
            "the product of two such numbers"
            if enough > LARGEST_HALF / 100 or largest >= math.sqrt(LARGEST_HALF)
            else "a hundred times that"
        )
        what = (
            f"Measured values reach {largest:.2g} by step {min(bad)}, at which others are not"
            f" finite: {grown} is beyond 65504, the largest number of float16"
        )
    return Finding(
        "overflow",
        f"{what}.",
        step=min(bad),
        numbers={"largest": Number(largest, LARGEST_HALF)},
        remedies=(_BFLOAT16,),
    )


def _of_scale(evidence: Evidence, step: int) -> Finding | None:
    """That gradients are not finite since the loop multiplies a finite loss by too much."""
    weight = is_scaled_beyond(evidence, step)
    losses = evidence.tables["steps"].set_index("step")["loss"]
    is_of_backward = first_bad(evidence, "grad_norm") == step
    if weight is None or not is_of_backward or not math.isfinite(losses.get(step, math.nan)):
        return None
    return Finding(
        "overflow",
        f"At step {step} the loss is {losses[step]:.3g}, and the backward pass begins with"
        f" {weight:.3g} times its derivative: float16 holds no number above 65504.",
        step=step,
        numbers={"pass_weight": Number(weight, LARGEST_HALF)},
        remedies=(
            Remedy(
                "Use a smaller loss scale, or one that a scaler chooses.",
                "It leaves updates out that are not finite, and halves the scale.",
                code="scaler = torch.amp.GradScaler()  # scaler.scale(loss).backward()",
                source="Micikevicius et al. 2018",
            ),
            _BFLOAT16,
        ),
    )


def square_lost(evidence: Evidence) -> Finding | None:
    """That a forward pass in float16 of finite inputs and weights is not finite, and what a layer
    gives is so small that its square is 0: a variance or a norm that divides it is 0."""
    bad = first_bad(evidence, "loss")
    if bad is None or computes_in(evidence) != HALF or not _is_made_in_forward_pass(evidence, bad):
        return None
    layers = evidence.tables.get("layers")
    if layers is None or not reads_finite(evidence, bad):
        return None
    steps = layers.loc[layers["step"] <= bad, "step"]
    rows = layers[layers["step"] == steps.max()] if len(steps) else layers.head(0)
    if not len(rows):
        return None
    columns = ("preact_mean", "preact_std", "act_mean", "act_std")
    means = [np.abs(values_of(rows, name)) for name in columns]
    with np.errstate(all="ignore"):
        sizes = np.fmin(np.hypot(*means[:2]), np.hypot(*means[2:]))
    is_small = (sizes > 0) & (sizes < _SQUARE_LOST)
    largest = [values_of(rows, name) for name in ("act_max", "preact_std")]
    is_large = any((each > math.sqrt(LARGEST_HALF)).any() for each in largest)
    if not is_small.any() or is_large:
        return None
    place = int(np.flatnonzero(is_small)[0])
    name = str(rows["name"].iloc[place])
    return Finding(
        "underflow",
        f"At step {bad} inputs and weights are finite and the outputs are not. What {name} gives is"
        f" {sizes[place]:.2g}: its square is below {SMALLEST_HALF:.2g}, the smallest number of"
        " float16, so that a variance or a norm of it is 0, and what it divides is not finite.",
        step=bad,
        layers=(name,),
        numbers={"size": Number(float(sizes[place]), _SQUARE_LOST)},
        remedies=(
            Remedy(
                "Compute variances and norms in float32.",
                "The square of a number below 2e-4 is 0 in float16.",
                code="x.float().square().mean(-1, keepdim=True).add(1e-6).rsqrt().to(x.dtype)",
                source="Micikevicius et al. 2018",
            ),
            _more_range(HALF),
        ),
        is_fact=True,
    )


# ---------------------------------------------------------------- what they share


def _num_below(evidence: Evidence, dtype: str) -> int:
    """The number of layers whose signal the dtype does not hold."""
    if dtype == evidence.dtype or evidence.num_examples is None:
        return int(evidence.metrics.get("underflow") or 0)
    steps = evidence.tables.get("steps", pd.DataFrame())
    layers = evidence.tables.get("layers")
    if layers is None:
        return 0
    return num_below(layers, evidence.num_examples, dtype, loss_scales(steps))


def _lost_from_the_start(evidence: Evidence) -> tuple[str, ...]:
    """The layers, if in float16 all of them get exactly 0 at the first measured step, by a loss of
    which each example's share is smaller than any number of the dtype."""
    layers, steps = evidence.tables.get("layers"), evidence.tables.get("steps")
    if computes_in(evidence) != HALF or layers is None or steps is None:
        return ()
    rows = layers[(layers["step"] == evidence.first_step) & layers["delta_rms"].notna()]
    at = steps[steps["step"] == evidence.first_step]
    saturated = values_of(rows, "saturated_fraction")
    if not len(rows) or not len(at) or (values_of(rows, "delta_rms") != 0).any():
        return ()
    scale = weight_of_loss(evidence, evidence.first_step)
    if scale is None:
        scale = float(np.nan_to_num(values_of(at, "loss_scale"), nan=1.0)[0])
    share = abs(float(values_of(at, "loss")[0])) * scale / _num_terms(evidence)
    if not 0 < share < SMALLEST_HALF or (saturated >= _FLAT).any():
        return ()
    return tuple(str(name) for name in dict.fromkeys(rows["name"]))


def _num_terms(evidence: Evidence) -> int:
    """The number of terms of the loss: of targets that have the outputs' shape their entries, of
    others the examples."""
    first, num_examples = first_call(evidence), evidence.num_examples or 1
    if first is None or first[0]["shape"] != first[1]["shape"]:
        return num_examples
    sizes = sizes_of(first[1]["shape"])
    return max(math.prod(sizes), num_examples) if sizes else num_examples


def _of_lost(evidence: Evidence, lost: tuple[str, ...]) -> Finding:
    losses = column_of(evidence, "steps", "loss")
    terms = _num_terms(evidence)
    scale = weight_of_loss(evidence, evidence.first_step)
    share = abs(float(losses[0])) * (1.0 if scale is None else scale) / terms
    what = "example" if terms == (evidence.num_examples or 1) else "entry"
    return Finding(
        "underflow",
        f"{name_layers(lost)} get exactly nothing from step {evidence.first_step} on: each"
        f" {what}'s share of the loss is {share:.2g}, and the smallest number of float16 is"
        f" {SMALLEST_HALF:.2g}.",
        step=evidence.first_step,
        layers=lost,
        numbers={f"loss_per_{what}": Number(share, SMALLEST_HALF)},
        remedies=(_more_range(HALF),),
        is_fact=True,
    )


def _is_lost_for_good(evidence: Evidence) -> bool:
    """Whether layers get exactly nothing at the first two measured steps, of a network that is not
    known to have learned: what a number of the dtype cannot hold is missing as a fact."""
    layers = evidence.tables.get("layers")
    if layers is None or has_learned(evidence) or computes_in(evidence) != HALF:
        return False
    steps = sorted(layers.loc[layers["delta_rms"].notna(), "step"].unique())[:2]
    zero = [
        set(rows.loc[values_of(rows, "delta_rms") == 0, "name"])
        for rows in (rows_at(evidence, int(step)) for step in steps)
    ]
    return len(zero) == 2 and bool(zero[0] & zero[1])


def _is_made_in_forward_pass(evidence: Evidence, step: int) -> bool:
    """Whether the loss was given outputs that are not finite at a step."""
    table = evidence.tables.get("loss")
    if table is None:
        return False
    given = table[(table["step"] == step) & (table["role"] == "output")]
    return len(given) > 0 and bool((given["not_finite"] > 0).any())


def _of_call(evidence: Evidence, step: int) -> float:
    """The size of the largest entry that the loss was given in float16, at a step at which it was
    given finite numbers alone."""
    given = share_given(evidence, step, "output", "target")
    if not given.size or (given != 0).any():
        return 0.0
    table = evidence.tables["loss"]
    at = table[(table["step"] == step) & table["role"].isin(["output", "target"])]
    at = at[at["dtype"].eq(HALF)]
    return float(np.fmax.reduce(np.abs([*values_of(at, "min"), *values_of(at, "max")]), initial=0))


def _infinite_count(evidence: Evidence) -> Finding | None:
    """That a loss in float16 of more entries than it can count is 0, where outputs and targets of
    one shape differ."""
    first = first_call(evidence)
    if first is None or first[0]["shape"] != first[1]["shape"] or first[2] != 0:
        return None
    results = evidence.tables["loss"]
    results = results[results["role"] == "loss"]
    count = math.prod(sizes_of(first[1]["shape"]))
    differ = any(first[0][name] != first[1][name] for name in ("mean", "std"))
    is_zero = (column_of(evidence, "steps", "loss") == 0).all()
    if not results["dtype"].eq(HALF).all() or count <= LARGEST_HALF or not (differ and is_zero):
        return None
    return Finding(
        "overflow",
        f"The loss is exactly 0 although outputs and targets differ: they have {count} entries, and"
        " float16 holds no number above 65504, so that what is divided by their number is 0.",
        step=evidence.first_step,
        numbers={"entries": Number(float(count), LARGEST_HALF)},
        remedies=(_BFLOAT16,),
    )


def _more_range(dtype: str) -> Remedy:
    return Remedy(
        "Use a dtype with more range.",
        "bfloat16 has the range of float32.",
        "dtype=bfloat16" if dtype == HALF else "dtype=float64",
        "torch.autocast(device, torch.bfloat16), or GradScaler with float16",
        "Micikevicius et al. 2018",
    )


def _first_underflow(evidence: Evidence) -> int:
    """The first step with a signal, not exactly 0, below the limit; else the first with one."""
    layers = evidence.tables.get("layers")
    if layers is None:
        return evidence.first_step
    limit = SMALLEST_NORMAL[computes_in(evidence)] * (evidence.num_examples or 1)
    deltas = values_of(layers, "delta_rms")
    below = layers.loc[(deltas > 0) & (deltas < limit), "step"]
    if not len(below):
        below = layers.loc[deltas == 0, "step"]
    return int(below.min()) if len(below) else evidence.first_step


_BFLOAT16 = Remedy(
    "Use bfloat16.",
    "It has the range of float32.",
    "dtype=bfloat16",
    "torch.autocast(device, torch.bfloat16)",
    "Kalamkar et al. 2019",
)

RULES = (underflow, overflow)
