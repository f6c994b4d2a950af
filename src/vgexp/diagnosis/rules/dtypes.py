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
from vgexp.diagnosis.rules.losses import sizes_of
from vgexp.diagnosis.rules.not_finite import first_bad, reads_finite, share_given
from vgexp.diagnosis.signal import SMALLEST_NORMAL, loss_scales
from vgexp.diagnosis.signal import underflow as num_below

_LARGEST_HALF = 65504.0
_SMALLEST_HALF = 2.0**-24
_HALF = "float16"
_FLAT = 0.9


@cause_rule(
    "underflow",
    "underflow",
    "dtype",
    limit=0,
    source="Micikevicius et al. 2018",
    reason="below the smallest normal number digits are lost, and soon the number itself",
)
def underflow(evidence: Evidence) -> Finding | None:
    """Whether the backward signal falls below what the dtype holds.

    Where the read-out too gets exactly 0, the loss says so: an example's share of it is below the
    smallest number of float16, and its derivative with it.
    """
    dtype = computes_in(evidence)
    if dtype not in SMALLEST_NORMAL:
        return None
    lost = _lost_from_the_start(evidence)
    number = len(lost) or _num_below(evidence, dtype)
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
    limit=_LARGEST_HALF,
    certain=True,
    reason="what is larger than the dtype's largest number is infinite; it is the dtype's"
    " fault where float32 would hold it",
    source="Micikevicius et al. 2018",
)
def overflow(evidence: Evidence) -> Finding | None:
    """Whether values grew beyond the range of float16.

    The largest that was seen is near its end, or two as large give a product beyond it in the
    forward pass, which then is not finite. Or the number of entries is beyond it, and a mean by
    hand, which divides by what is infinite, is exactly 0.
    """
    if (count := _infinite_count(evidence)) is not None:
        return count
    bad = [
        step for name in ("loss", "grad_norm") if (step := first_bad(evidence, name)) is not None
    ]
    made_at = evidence.metrics.get("nonfinite_step")
    if evidence.metrics.get("nonfinite_maker") == "forward" and made_at is not None:
        bad.append(int(made_at))  # a scaler counts it as skipped
    if computes_in(evidence) != "float16" or not bad:
        return None
    layers = evidence.tables.get("layers", pd.DataFrame())
    before = layers[layers["step"] <= min(bad)] if len(layers) else layers
    sizes = [values_of(before, name) for name in ("act_max", "grad_max", "preact_std")]
    finite = (each[np.isfinite(each)] for each in sizes)
    largest = max((float(np.max(each, initial=0)) for each in finite), default=0.0)
    enough = _LARGEST_HALF / 100
    is_forward = _is_made_in_forward_pass(evidence, min(bad))
    if is_forward:
        enough = math.sqrt(_LARGEST_HALF)  # the product of two as large is beyond
    given = _of_call(evidence, min(bad))
    if given >= math.sqrt(_LARGEST_HALF) > largest:
        largest, enough = given, math.sqrt(_LARGEST_HALF)  # as is the square in the loss
    if largest < enough and not (is_forward and reads_finite(evidence, min(bad))):
        return None
    what = f"Values reach {largest:.2g} by step {min(bad)}"
    if largest < enough:
        what = f"At step {min(bad)} inputs and weights are finite and the outputs are not"
    return Finding(
        "overflow",
        f"{what}, and float16 holds none above 65504.",
        step=min(bad),
        numbers={"largest": Number(largest, _LARGEST_HALF)},
        remedies=(_BFLOAT16,),
    )


# ---------------------------------------------------------------- what they share


def computes_in(evidence: Evidence) -> str:
    """The dtype of the passes: the weights', or float16 where autocast gives such outputs."""
    table = evidence.tables.get("loss")
    if evidence.dtype == "float32" and table is not None:
        outputs = table.loc[table["role"] == "output", "dtype"]
        if len(outputs) and outputs.eq(_HALF).all():
            return _HALF
    return str(evidence.dtype)


def _num_below(evidence: Evidence, dtype: str) -> int:
    """The number of layers whose signal the dtype does not hold."""
    if dtype == evidence.dtype or evidence.num_examples is None:
        return int(evidence.metrics["underflow"])
    steps = evidence.tables.get("steps", pd.DataFrame())
    layers = evidence.tables.get("layers")
    if layers is None:
        return 0
    return num_below(layers, evidence.num_examples, dtype, loss_scales(steps))


def _lost_from_the_start(evidence: Evidence) -> tuple[str, ...]:
    """The layers, if in float16 all of them get exactly 0 at the first measured step, by a loss of
    which each example's share is smaller than any number of the dtype."""
    layers, steps = evidence.tables.get("layers"), evidence.tables.get("steps")
    if computes_in(evidence) != _HALF or layers is None or steps is None:
        return ()
    rows = layers[(layers["step"] == evidence.first_step) & layers["delta_rms"].notna()]
    at = steps[steps["step"] == evidence.first_step]
    saturated = values_of(rows, "saturated_fraction")
    if not len(rows) or not len(at) or (values_of(rows, "delta_rms") != 0).any():
        return ()
    scale = float(np.nan_to_num(values_of(at, "loss_scale"), nan=1.0)[0])
    share = abs(float(values_of(at, "loss")[0])) * scale / _num_terms(evidence)
    if not 0 < share < _SMALLEST_HALF or (saturated >= _FLAT).any():
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
    share = abs(float(losses[0])) / terms
    what = "example" if terms == (evidence.num_examples or 1) else "entry"
    return Finding(
        "underflow",
        f"{name_layers(lost)} get exactly nothing from step {evidence.first_step} on: each"
        f" {what}'s share of the loss is {share:.2g}, and the smallest number of float16 is"
        f" {_SMALLEST_HALF:.2g}.",
        step=evidence.first_step,
        layers=lost,
        numbers={f"loss_per_{what}": Number(share, _SMALLEST_HALF)},
        remedies=(_more_range(_HALF),),
        is_fact=True,
    )


def _is_lost_for_good(evidence: Evidence) -> bool:
    """Whether layers get exactly nothing at the first two measured steps, of a network that is not
    known to have learned: what a number of the dtype cannot hold is missing as a fact."""
    layers = evidence.tables.get("layers")
    if layers is None or has_learned(evidence) or computes_in(evidence) != _HALF:
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
    at = at[at["dtype"].eq(_HALF)]
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
    if not results["dtype"].eq(_HALF).all() or count <= _LARGEST_HALF or not (differ and is_zero):
        return None
    return Finding(
        "overflow",
        f"The loss is exactly 0 although outputs and targets differ: they have {count} entries, and"
        " float16 holds no number above 65504, so that what is divided by their number is 0.",
        step=evidence.first_step,
        numbers={"entries": Number(float(count), _LARGEST_HALF)},
        remedies=(_BFLOAT16,),
    )


def _more_range(dtype: str) -> Remedy:
    return Remedy(
        "Use a dtype with more range.",
        "bfloat16 has the range of float32.",
        "dtype=bfloat16" if dtype == _HALF else "dtype=float64",
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
