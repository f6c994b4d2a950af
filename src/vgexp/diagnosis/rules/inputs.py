"""Rules about the data: the scale of inputs, values that are not finite, labels."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from vgexp.diagnosis.depths import factors_of, rows_at, values_of
from vgexp.diagnosis.evidence import Evidence
from vgexp.diagnosis.findings import Finding, Number, Remedy, cause_rule
from vgexp.diagnosis.onset import ran_bad
from vgexp.diagnosis.outcome import column_of
from vgexp.diagnosis.rules.losses import sizes_of
from vgexp.diagnosis.rules.not_finite import first_bad, reads_finite, share_given

_FAR = 8.0
_BESIDE = 100.0
"""Times its norm by which weights make z larger than inputs where these are not all they read; the
root of n_in / n_out is below it."""
_WITH_Z = ("linear", "conv", "readout")
"""Kinds of layers whose z the probe measures wherever it measures any."""
_ENOUGH = 5
"""Updates that show what is usual."""
_SMALL = 0.5
"""Below the Frobenius norm of any weight of PyTorch's init, and the sigma_w of the usual ones."""
_KEYS_OF_OWN_DATA = frozenset({"data.path", "data.target"})
"""Keys that data of the user's own have."""
_USUAL = math.sqrt(2)
"""The largest sigma_w of a usual init: He's."""


@cause_rule(
    "inputs_unscaled",
    "layers.csv",
    limit=_FAR,
    reason="z of the first layer is sigma_w times the rms of the inputs, and sigma_w of the usual"
    " inits is 0.58 to 1.41: inputs of rms 1 give no z above 1.4; 8 is far from it",
    source="LeCun et al. 1998 (Efficient BackProp)",
)
def inputs_unscaled(evidence: Evidence) -> Finding | None:
    """Whether z of the first layer shows inputs far from 1, beside layers of usual weights."""
    rows = rows_at(evidence, evidence.first_step)
    if evidence.first_step != 0 or not len(rows) or rows["layer"].iloc[0] != 1:
        return None
    z = values_of(rows, "preact_std")[0]
    size = float(z)  # over units too, so that it holds what an offset of the inputs makes of them
    factors = factors_of(evidence)
    weights = factors.weights if factors is not None else 1.0
    inputs = size / max(weights, 0.5)
    measured = evidence.metrics.get("inputs_rms", _rms_of_inputs(evidence))
    if measured is not None:
        return _of_measured(evidence, str(rows["name"].iloc[0]), float(measured))
    if (beside := reads_beside(evidence)) is not None:
        return beside
    if _are_all_zero(evidence, rows):
        return _of_zeros(evidence, str(rows["name"].iloc[0]))
    if (bound := _bound_of_inputs(evidence, rows)) is not None and bound < 1 / (10 * _FAR):
        return _of_bound(evidence, str(rows["name"].iloc[0]), bound)
    norm = values_of(rows, "weight_norm")[0]
    if inputs < 1 and (weights < _SMALL or norm < _SMALL):  # weights as small may be why
        return None
    told = evidence.settings
    if "data" in told and not _KEYS_OF_OWN_DATA.intersection(told):  # those vgexp scales itself
        return None
    if not math.isfinite(inputs) or weights > 2 * _USUAL or 1 / (10 * _FAR) < inputs < _FAR:
        return None
    return Finding(
        "inputs_unscaled",
        f"z of the first layer is {size:.2g} in size, where weights multiply by about"
        f" {weights:.2g}: the inputs are about {inputs:.2g} in size, and not about 1.",
        step=evidence.first_step,
        layers=(str(rows["name"].iloc[0]),),
        numbers={"preact_std": Number(float(z), _FAR if inputs > 1 else 1 / (10 * _FAR))},
        remedies=(_STANDARDISE,),
    )


def reads_beside(evidence: Evidence) -> Finding | None:
    """Whether layer 2 reads, beside what layer 1 gives it, inputs that are far larger.

    Layer 1 has no activation, as an embedding: its z is what it gives. A weight of Frobenius norm
    N makes of inputs of rms r a z of at most N r sqrt(n_in / n_out).
    """
    rows = rows_at(evidence, evidence.first_step)
    if evidence.first_step != 0 or len(rows) < 2:
        return None
    sizes = np.hypot(values_of(rows, "preact_mean"), values_of(rows, "preact_std"))
    given, z, norm = float(sizes[0]), float(sizes[1]), float(values_of(rows, "weight_norm")[1])
    has_activation = math.isfinite(values_of(rows, "act_std")[0])
    if has_activation or not 0 < given < _FAR or not z > _BESIDE * given * max(norm, 1.0):
        return None
    name = str(rows["name"].iloc[1])
    return Finding(
        "inputs_unscaled",
        f"z of layer 2 is {z:.2g} in size, though its weights have a norm of {norm:.2g} and layer 1"
        f" gives {given:.2g}: it reads inputs beside these that are far above 1.",
        step=0,
        layers=(name,),
        numbers={"preact_over_inputs": Number(z / given, _BESIDE * max(norm, 1.0))},
        remedies=(_STANDARDISE,),
    )


def _rms_of_inputs(evidence: Evidence) -> float | None:
    """The root mean square of the one tensor that the model read as its loss was not finite; None
    where no such is known."""
    table = evidence.tables.get("loss")
    if table is None:
        return None
    rows = table[(table["role"] == "input") & table["dtype"].astype("str").str.contains("float")]
    sizes = np.hypot(values_of(rows, "mean"), values_of(rows, "std"))
    return float(sizes[0]) if len(sizes) == 1 and math.isfinite(sizes[0]) else None


def _are_all_zero(evidence: Evidence, rows: pd.DataFrame) -> bool:
    """Whether the first layer's weight gets a gradient of exactly 0 at every measured step up to
    one where its bias gets none either, and its bias gets one: it sums delta times inputs."""
    parameters, layers = evidence.tables.get("parameters"), evidence.tables.get("layers")
    if parameters is None or layers is None:
        return False
    name = str(rows["name"].iloc[0])
    of_bias = parameters[parameters["name"] == name.removesuffix(".weight") + ".bias"]
    both = layers[layers["name"] == name].merge(of_bias, on="step", suffixes=("", "_bias"))
    weight, bias = values_of(both, "grad_norm"), values_of(both, "grad_norm_bias")
    known = np.isfinite(weight) & (bias > 0)
    return bool(known.any() and (weight[known] == 0).all())


def _of_zeros(evidence: Evidence, name: str) -> Finding:
    return Finding(
        "inputs_unscaled",
        f"The gradient of {name} is exactly 0 while that of its bias is not: what the first layer"
        " reads is 0 for every example.",
        step=evidence.first_step,
        layers=(name,),
        numbers={"inputs_norm": Number(0.0, 1 / (10 * _FAR))},
        remedies=(
            Remedy(
                "Look at the inputs as the network gets them.",
                "A whole division of small numbers, or a cast to integers, gives 0.",
                code="print(x.min(), x.max(), x.dtype)  # x / 255, not x // 255",
            ),
        ),
    )


def _bound_of_inputs(evidence: Evidence, rows: pd.DataFrame) -> float | None:
    """At most how long an example's inputs are, as the first linear layer's gradients show.

    The gradient of a weight sums delta x^T over examples, that of its bias delta alone. N examples
    whose delta all agree while their x do not make the first shorter by 1/sqrt(N). The
    median of all measured steps.
    """
    parameters, layers = evidence.tables.get("parameters"), evidence.tables.get("layers")
    if parameters is None or layers is None or evidence.num_examples is None:
        return None
    name = str(rows["name"].iloc[0])
    if rows["kind"].iloc[0] != "linear":
        return None
    of_bias = parameters[parameters["name"] == name.removesuffix(".weight") + ".bias"]
    both = layers[layers["name"] == name].merge(of_bias, on="step", suffixes=("", "_bias"))
    weight, bias = values_of(both, "grad_norm"), values_of(both, "grad_norm_bias")
    usable = np.isfinite(weight) & np.isfinite(bias) & (weight > 0) & (bias > 0)
    if usable.sum() < 2:
        return None
    return float(np.median(weight[usable] / bias[usable]) * math.sqrt(evidence.num_examples))


def _of_bound(evidence: Evidence, name: str, bound: float) -> Finding:
    return Finding(
        "inputs_unscaled",
        f"The gradient of {name} is so small beside that of its bias that an example's inputs are"
        f" {bound:.2g} long at most: they are far below 1.",
        step=evidence.first_step,
        layers=(name,),
        numbers={"inputs_norm": Number(bound, 1 / (10 * _FAR))},
        remedies=(_STANDARDISE,),
    )


def _of_measured(evidence: Evidence, name: str, rms: float) -> Finding | None:
    """As the rule, where it is known what the first layer reads."""
    if not math.isfinite(rms) or rms == 0 or 1 / (10 * _FAR) < rms < _FAR:
        return None
    return Finding(
        "inputs_unscaled",
        f"What the first layer reads has a root mean square of {rms:.2g}, and not about 1.",
        step=evidence.first_step,
        layers=(name,),
        numbers={"inputs_rms": Number(rms, _FAR if rms > 1 else 1 / (10 * _FAR))},
        remedies=(_STANDARDISE,),
    )


@cause_rule(
    "inputs_not_finite",
    "layers.csv",
    "steps.csv",
    reason="z of the first layer is not finite where its weights are: the inputs are not",
    certain=True,
)
def inputs_not_finite(evidence: Evidence) -> Finding | None:
    """Whether the first layer's z is not finite while its weights are.

    A z that nobody measured is nan too: those of another layer, or the steps at which z is measured
    at all, tell the two apart.
    """
    step = first_bad(evidence, "loss")
    if step is not None and (given := share_given(evidence, step, "input")).size:
        if (given > 0).any():
            return _of_given(evidence, step, "input")
        outputs, targets = (share_given(evidence, step, role) for role in ("output", "target"))
        is_target = bool((targets > 0).any()) and not (outputs > 0).any()
        is_sound = reads_finite(evidence, step)
        return _of_given(evidence, step, "target") if is_target and is_sound else None
    if step is None and not _never_finite(evidence):
        return None
    step = evidence.tables["steps"]["step"].min() if step is None else step
    layers = evidence.tables["layers"]
    rows = layers[layers["step"] == step]
    first = rows[rows["layer"] == rows["layer"].min()]
    if _was_given_finite(evidence, int(step)):
        return None
    if len(first) and not math.isfinite(values_of(first, "weight_norm")[0]):
        return None
    if not (_has_bad_z(evidence, rows, first) or _came_suddenly(evidence, int(step))):
        return None
    name = str(layers["name"].iloc[0])
    since = "" if step == evidence.first_step else " although the update before was"
    return Finding(
        "inputs_not_finite",
        f"At step {step} the forward pass is not finite{since}: inputs are nan or infinite.",
        step=int(step),
        layers=(name,),
        numbers={"step": Number(float(step))},
        remedies=(_LEAVE_OUT,),
    )


def _of_given(evidence: Evidence, step: int, role: str) -> Finding:
    """What the model read, or the loss was given as a target, at a step, of which it is known that
    it is not finite."""
    table, layers = evidence.tables["loss"], evidence.tables["layers"]
    rows = table[(table["step"] == step) & (table["role"] == role) & (table["not_finite"] > 0)]
    row = rows.iloc[0]
    entries = math.prod(sizes_of(row["shape"]))
    number = max(1, round(float(row["not_finite"]) * entries))
    reader = "model read" if role == "input" else "loss was given"
    return Finding(
        "inputs_not_finite",
        f"At step {step} {number} of the {entries} entries of {row['name']}, of shape"
        f" {row['shape']}, which the {reader}, are nan or infinite.",
        step=step,
        layers=(str(layers["name"].iloc[0]),) if len(layers) else (),
        numbers={"not_finite": Number(float(row["not_finite"]), 0.0)},
        remedies=(_LEAVE_OUT,),
    )


_LEAVE_OUT = Remedy(
    "Find the examples, and leave them out or fill them in.",
    "One nan in a batch makes every weight nan.",
    code="assert torch.isfinite(x).all()",
)


def _has_bad_z(evidence: Evidence, rows: pd.DataFrame, first: pd.DataFrame) -> bool:
    """Whether z was measured at a step, and that of the first layer is not finite.

    Of a recurrence z is not measured. That no other z is finite says as much, unless it is a plain
    one whose matrix makes states grow.
    """
    if not len(first) or evidence.dtype == "float16":
        return False
    step = int(first["step"].iloc[0])
    is_plain = first["kind"].iloc[0] in _WITH_Z
    if np.isfinite(values_of(rows, "preact_std")).any():
        layers = evidence.tables["layers"]
        ran = layers.index[ran_bad(layers)]  # a module that was not called has no z either
        is_first = bool(np.isin(first.index[:1], ran).all())
        return is_plain and is_first and not math.isfinite(values_of(first, "preact_std")[0])
    every = evidence.settings.get("probe.activations_every")
    is_due = isinstance(every, int) and every > 0 and step % every == 0
    if not is_due and not _was_given_bad(evidence, step):
        return False
    recurrence = evidence.tables.get("recurrence")
    if is_plain or recurrence is None:
        return True
    return not (values_of(recurrence, "spectral_radius") > 1).any()


def _never_finite(evidence: Evidence) -> bool:
    """Whether no loss and no gradient is finite. A loss that was not watched, and a gradient of
    what requires none, are nan as well: the table of wiring says whether any gradient came."""
    wiring = evidence.tables.get("wiring")
    if wiring is not None and len(wiring) and wiring["gradient"].eq("none").all():
        return False
    losses, norms = (column_of(evidence, "steps", name) for name in ("loss", "grad_norm"))
    return losses.size > 0 and not (np.isfinite(losses).any() or np.isfinite(norms).any())


def _was_given_finite(evidence: Evidence, step: int) -> bool:
    """Whether what the loss was given at the step is known to be finite."""
    given = _given(evidence, step)
    return len(given) > 0 and bool((given == 0).all())


def _was_given_bad(evidence: Evidence, step: int) -> bool:
    """Whether the loss was given something that is not finite at the step."""
    return bool((_given(evidence, step) > 0).any())


def _given(evidence: Evidence, step: int) -> np.ndarray:
    """The shares of entries that are not finite of what the loss was given at a step."""
    return share_given(evidence, step, "output", "target")


def _came_suddenly(evidence: Evidence, step: int) -> bool:
    """Whether loss and gradient were usual up to the step: nothing had grown towards it."""
    steps = evidence.tables["steps"]
    before = steps[steps["step"] < step]
    if len(before) < _ENOUGH or evidence.dtype == "float16":
        return False
    losses, norms = values_of(before, "loss"), values_of(before, "grad_norm")
    if not (np.isfinite(norms).any() and math.isfinite(float(norms[-1]))):
        return False
    usual = float(np.median(norms[np.isfinite(norms)]))
    return bool(norms[-1] <= 10 * usual and losses[-1] <= 3 * abs(float(losses[0])))


_STANDARDISE = Remedy(
    "Bring inputs to mean 0 and standard deviation 1.",
    "Gradients of the first layer, and the curvature, grow with the inputs' square.",
    code="x = (x - x_train.mean(0)) / x_train.std(0)",
    source="LeCun et al. 1998",
)

RULES = (inputs_not_finite, inputs_unscaled)
