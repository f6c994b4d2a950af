"""Rules about losses and gradients that are not finite."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from vgexp.diagnosis.depths import rows_at, values_of
from vgexp.diagnosis.evidence import Evidence
from vgexp.diagnosis.findings import Finding, Number, Remedy, cause_rule
from vgexp.diagnosis.outcome import column_of, has_lost_losses
from vgexp.diagnosis.rules.half import LARGEST_HALF, is_scaled_beyond
from vgexp.diagnosis.rules.losses import of_graph, readouts
from vgexp.diagnosis.signal import EXPLODING_ABOVE
from vgexp.diagnosis.through_time import growth_in_time, growth_until_not_finite


@cause_rule(
    "nan_from_loss",
    "steps.csv",
    reason="not finite is a fact; the loss made it where its inputs are finite",
    certain=True,
)
def nan_from_loss(evidence: Evidence) -> Finding | None:
    """Whether the loss is not finite at a step at which its inputs are."""
    step = first_bad(evidence, "loss")
    table = evidence.tables.get("loss")
    if step is None or table is None:
        return None
    bad = table[(table["role"] == "loss") & (table["not_finite"] > 0)]
    if not len(bad) or int(bad["step"].iloc[0]) != step:
        return None
    inputs = table[(table["step"] == step) & table["role"].isin(["output", "target"])]
    if not len(inputs) or (inputs["not_finite"] > 0).any():
        return None
    name = str(bad["function"].iloc[0])
    why, remedy = _why(evidence, step, inputs)
    return Finding(
        "nan_from_loss",
        f"The loss {name} is not finite at step {step} although all it was given is{why}.",
        step=step,
        numbers={"not_finite": Number(float(bad["not_finite"].iloc[0]), 0.0)},
        remedies=(remedy,),
    )


def _why(evidence: Evidence, step: int, inputs: pd.DataFrame) -> tuple[str, Remedy]:
    """What the loss and its arguments say of why it is not finite, and what to do about that."""
    at = {name: of_graph(evidence, "functions", name) for name in ("CtcLoss", "NllLoss")}
    is_ctc, is_of_labels = (bool((at[n]["step"] == step).any()) for n in ("CtcLoss", "NllLoss"))
    output, target = (inputs[inputs["role"] == role] for role in ("output", "target"))
    labels = target[target["dtype"].astype("str").str.startswith(("int", "uint"))]
    if is_ctc:
        return ": a target does not fit into as many outputs as it has", _CTC
    ignored = labels[labels["min"] == labels["max"]]
    if len(ignored) and (is_of_labels or (ignored["min"] == _IGNORE_INDEX).all()):
        only = f"{ignored['min'].iloc[0]:.0f}"
        return f": every label is {only}, and is ignored, so that the mean is over none", _IGNORED
    dtype = str(output["dtype"].iloc[0]) if len(output) else ""
    largest = _LARGEST.get(dtype)
    is_pair = len(output) == len(target) == 1 and not len(labels)
    if largest is not None and is_pair:
        ends = [float(each[end].iloc[0]) for each in (output, target) for end in ("min", "max")]
        apart = max(abs(ends[1] - ends[2]), abs(ends[3] - ends[0]))
        if apart > math.sqrt(largest):
            return (
                f": outputs are up to {apart:.3g} from targets, and the square of that is beyond"
                f" {largest:.3g}, the largest number of {dtype}"
            ), _SQUARED
    return "", _LOGARITHM


_IGNORE_INDEX = -100
"""What PyTorch's cross-entropy ignores where nothing else is said."""
_LARGEST = {"float16": LARGEST_HALF, "bfloat16": 3.3895e38, "float32": float(np.finfo("f4").max)}
_CTC = Remedy(
    "Leave out examples whose target is longer than its outputs, or set their loss to 0.",
    "No path of so few outputs says the target, with a blank between equal symbols: the loss is"
    " -log(0).",
    code="nn.CTCLoss(zero_infinity=True)",
    source="PyTorch, CTCLoss",
)
_IGNORED = Remedy(
    "Leave out batches without a label, or divide by at least 1.",
    "The mean over the labels that are not ignored is 0/0 where all are.",
    code="loss = F.cross_entropy(o, y, reduction='sum') / (y != -100).sum().clamp_min(1)",
    source="PyTorch, CrossEntropyLoss",
)
_SQUARED = Remedy(
    "Scale the targets to a standard deviation of 1, and lower the learning rate.",
    "Outputs do not grow so far from scaled targets by steps that are short enough.",
    code="y = (y - y_train.mean()) / y_train.std()",
)
_LOGARITHM = Remedy(
    "Keep logarithms and quotients of the loss away from 0.",
    "log(0) is -inf, and 0 times it is nan.",
    code="torch.log(p.clamp_min(1e-7)), or a loss that takes logits",
)


@cause_rule(
    "nan_in_backward",
    "steps.csv",
    reason="not finite is a fact; the backward pass made it where the loss of the step is finite",
    source="PyTorch, torch.where and the gradient of sqrt at 0",
    certain=True,
)
def nan_in_backward(evidence: Evidence) -> Finding | None:
    """Whether gradients are not finite at a step whose loss is finite."""
    step = first_bad(evidence, "grad_norm")
    of_loss = first_bad(evidence, "loss")
    if step is None or (of_loss is not None and of_loss <= step) or _grew(evidence, step):
        return None
    if _grows_backward(evidence, step) or is_scaled_beyond(evidence, step) is not None:
        return None
    losses = evidence.tables["steps"].set_index("step")["loss"]
    if not math.isfinite(float(losses.get(step, math.nan))):
        return None
    return Finding(
        "nan_in_backward",
        f"At step {step} the loss is finite ({losses[step]:.3g}) and its gradient is not: a branch"
        " of the backward pass divides by 0 or multiplies 0 with infinity.",
        step=step,
        layers=readouts(evidence),
        numbers={"loss": Number(float(losses[step]))},
        remedies=(
            Remedy(
                "Add a small number under the root, and keep norms and quotients away from 0.",
                "The derivative of sqrt(x) at 0 is infinite, and infinity times 0 is nan.",
                code="(square + 1e-6).sqrt()  # torch.autograd.set_detect_anomaly(True) names the"
                " operation",
            ),
        ),
    )


def share_given(evidence: Evidence, step: int, *roles: str) -> np.ndarray:
    """The shares of entries that are not finite, of what is described in these roles at a step."""
    table = evidence.tables.get("loss")
    if table is None:
        return np.array([])
    return values_of(table[(table["step"] == step) & table["role"].isin(roles)], "not_finite")


def reads_finite(evidence: Evidence, step: int) -> bool:
    """Whether it is known that the model read finite numbers at a step, with finite weights."""
    given = [share_given(evidence, step, role) for role in ("input", "weight")]
    return all(each.size and (each == 0).all() for each in given)


def first_bad(evidence: Evidence, column: str) -> int | None:
    """The first step at which a measured column of steps.csv is not finite."""
    steps = evidence.tables.get("steps")
    if steps is None or column not in steps or not len(steps):
        return None
    values = column_of(evidence, "steps", column)
    if not np.isfinite(values).any() and not _is_known_bad(evidence, column):
        return None  # in a frame, what nobody measured looks the same
    if column == "loss" and has_lost_losses(evidence):
        values = np.where(np.isnan(values), 0.0, values)
    if "skipped" in steps:  # a scaler skips what is not finite, and goes on
        values = np.where(values_of(steps, "skipped") == 1, 0.0, values)
    bad = np.flatnonzero(~np.isfinite(values))
    return int(steps["step"].iloc[bad[0]]) if bad.size else None


def _is_known_bad(evidence: Evidence, column: str) -> bool:
    """Whether another table says that what is nan throughout was measured."""
    if column == "loss":
        at_start = evidence.metrics.get("loss_at_start")
        if isinstance(at_start, float) and not math.isfinite(at_start):
            return True
        table = evidence.tables.get("loss")
        return table is not None and bool((table["not_finite"] > 0).any())
    wiring, layers = evidence.tables.get("wiring"), evidence.tables.get("layers")
    if wiring is not None and wiring["gradient"].eq("not_finite").any():
        return True
    if layers is None or not {"grad_norm", "grad_zero_fraction"} <= {*layers}:
        return False
    return bool((layers["grad_zero_fraction"].notna() & layers["grad_norm"].isna()).any())


def _grows_backward(evidence: Evidence, step: int) -> bool:
    """Whether the signal of the step itself grew a thousand times, through time or from layer to
    layer, until it was not finite: it overflowed."""
    deltas = values_of(rows_at(evidence, step), "delta_rms")[::-1]
    over_layers = growth_until_not_finite(deltas)
    in_time = growth_in_time(evidence.tables.get("time"), step)
    return over_layers > EXPLODING_ABOVE or in_time > EXPLODING_ABOVE


def _grew(evidence: Evidence, step: int) -> bool:
    """Whether the gradient had grown by a thousand times before the step: it overflowed."""
    steps = evidence.tables["steps"]
    norms = values_of(steps[steps["step"] < step], "grad_norm")
    norms = norms[np.isfinite(norms) & (norms > 0)]
    return norms.size > 0 and float(norms[-1]) > 1e3 * float(norms[0])


RULES = (
    nan_from_loss,
    nan_in_backward,
)
