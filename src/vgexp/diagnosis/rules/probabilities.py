"""Rules about a softmax or a sigmoid that is applied twice, or where another function belongs."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from vgexp.diagnosis.depths import values_of
from vgexp.diagnosis.evidence import Evidence
from vgexp.diagnosis.findings import Finding, Number, Remedy, cause_rule
from vgexp.diagnosis.outcome import first_call, has_labels, plain_name
from vgexp.diagnosis.rules.losses import ROUNDING, is_made_by, of_graph, readouts, sizes_of

_HALF = 0.5
_ALIKE = 0.05
"""Relative difference up to which a loss is what the means of its arguments give."""


@cause_rule(
    "double_softmax",
    "loss.csv",
    limit=_HALF,
    reason="softmax on logits gives the read-out delta_rms sqrt(K-1)/K while all K classes are"
    " equally likely; a second softmax divides it by about K",
    source="PyTorch, CrossEntropyLoss (takes logits)",
    certain=True,
)
def double_softmax(evidence: Evidence) -> Finding | None:
    """Whether a loss that applies softmax, or a sigmoid, is given probabilities."""
    return _by_numbers(evidence) or _squashed_twice(evidence)


def _by_numbers(evidence: Evidence) -> Finding | None:
    """Whether the outputs of the first call are numbers that only probabilities are."""
    first = first_call(evidence)
    if first is None:
        return None
    output, target, _ = first
    if is_made_by(output, ("Sigmoid",)) and "withlogits" in plain_name(output["function"]):
        return _double_sigmoid(evidence, str(output["function"]), int(output["step"]))
    twice = _sigmoid_twice(evidence, first) or _log_softmax_of_probabilities(evidence, first)
    if twice is not None:
        return twice
    sums = [float(output["row_sum_min"]), float(output["row_sum_max"])]
    is_labels = has_labels(target)
    if not is_labels or not np.allclose(sums, 1, atol=ROUNDING) or float(output["min"]) < 0:
        return None
    num_classes = int(str(output["shape"]).split("x")[1])
    expected = math.sqrt(num_classes - 1) / num_classes
    delta = _of_readout(evidence, "delta_rms")
    if "nll" in plain_name(output["function"]):
        return _probabilities_to_nll(evidence, str(output["function"]), int(output["step"]))
    is_named = "crossentropy" in plain_name(output["function"])
    is_weak = delta is not None and delta < _HALF * expected
    if not (is_named or is_weak):
        return None
    numbers = {"row_sum": Number(sums[1], 1.0)}
    sends = ""
    if delta is not None:
        numbers["delta_rms"] = Number(delta, expected)
        sends = (
            f" The read-out's signal at the start is {delta:.2g}; softmax on logits gives"
            f" sqrt(K-1)/K = {expected:.2g}."
        )
    return Finding(
        "double_softmax",
        f"The loss {output['function']} is given probabilities, {num_classes} that sum to 1, and"
        f" applies softmax to them once more.{sends}",
        step=int(output["step"]),
        layers=readouts(evidence),
        numbers=numbers,
        remedies=(
            Remedy(
                "Give the loss logits: take the softmax out of the model.",
                "Softmax of numbers between 0 and 1 is nearly the same for all classes.",
                code="return logits  # without nn.Softmax",
                source="PyTorch, CrossEntropyLoss",
            ),
        ),
    )


def _squashed_twice(evidence: Evidence) -> Finding | None:
    """Whether autograd's graph says that a softmax or a sigmoid reads probabilities, in the model
    or in the loss function, whatever the axis of the classes."""
    table = evidence.tables["loss"]
    rows = table[table["squashed_twice"].notna()]
    if not len(rows):
        return None
    function, step = str(rows["function"].iloc[0]), int(rows["step"].iloc[0])
    inner, outer = (
        name.partition("Backward")[0] for name in str(rows["squashed_twice"].iloc[0]).split(" ")
    )
    if outer.startswith("NllLoss"):
        return _probabilities_to_nll(evidence, function, step)
    if inner == "Sigmoid" and outer != "LogSoftmax":
        return _double_sigmoid(evidence, function, step)
    return Finding(
        "double_softmax",
        f"The loss {function} applies {_FUNCTIONS.get(outer, outer)} to what"
        f" {_FUNCTIONS.get(inner, inner)} gives: to probabilities, where logits belong.",
        step=step,
        layers=readouts(evidence),
        remedies=(
            Remedy(
                f"Give the loss logits: take out {_FUNCTIONS.get(inner, inner)}.",
                "Softmax of numbers between 0 and 1 is nearly the same for all classes.",
                code="return logits  # without softmax or sigmoid",
                source="PyTorch, CrossEntropyLoss",
            ),
        ),
    )


_FUNCTIONS = {
    "Softmax": "a softmax",
    "Sigmoid": "a sigmoid",
    "LogSoftmax": "a softmax",
    "BinaryCrossEntropyWithLogits": "a sigmoid",
}


def _probabilities_to_nll(evidence: Evidence, function: str, step: int) -> Finding:
    return Finding(
        "double_softmax",
        f"The loss {function} takes log-probabilities, and is given probabilities: it is never"
        " below -1, and its gradient does not grow where the network is wrong.",
        step=step,
        layers=readouts(evidence),
        remedies=(
            Remedy(
                "Give the loss log-probabilities.",
                "The logarithm is not taken by this loss.",
                code="return logits.log_softmax(-1)  # in place of softmax",
                source="PyTorch, NLLLoss",
            ),
        ),
    )


def _double_sigmoid(evidence: Evidence, function: str, step: int) -> Finding:
    return Finding(
        "double_softmax",
        f"The loss {function} is given what a sigmoid gives, and applies a sigmoid once more: it"
        " sees probabilities between 0.5 and 0.73 alone.",
        step=step,
        layers=readouts(evidence),
        remedies=(
            Remedy(
                "Give the loss logits: take the sigmoid out of the model.",
                "The sigmoid of a number between 0 and 1 is nearly the same for all examples.",
                code="return logits  # without nn.Sigmoid",
                source="PyTorch, BCEWithLogitsLoss",
            ),
        ),
    )


def _sigmoid_twice(evidence: Evidence, first: tuple[pd.Series, pd.Series, float]) -> Finding | None:
    """Whether a loss that applies a sigmoid is given nothing but numbers from 0 to 1.

    They must not be the read-out's z as it is, but what a sigmoid makes of its mean. A function
    whose name does not say that it takes logits has to give what softplus(o) - y o gives.
    """
    output, target, value = first
    table = evidence.tables["loss"]
    outputs = table[table["role"] == "output"]
    is_binary = float(target["min"]) >= 0 and float(target["max"]) <= 1
    is_float = str(target["dtype"]).startswith(("float", "bfloat"))
    if output["shape"] != target["shape"] or not (is_binary and is_float):
        return None
    if outputs["min"].min() < 0 or outputs["max"].max() > 1:
        return None
    z, given = _of_readout(evidence, "preact_mean"), float(output["mean"])
    if z is None or abs(given - z) < _ALIKE or abs(given - _sigmoid(z)) > _ALIKE:
        return None
    if "withlogits" not in plain_name(output["function"]):
        middle, share = float(output["mean"]), float(target["mean"])
        usual = math.log1p(math.exp(middle)) - middle * share
        if not 0 < middle < 1 or abs(value - usual) > _ALIKE * usual:
            return None
        alone = -share * math.log(middle) - (1 - share) * math.log(1 - middle)
        if abs(value - alone) <= 3 * abs(value - usual):
            return None
    high = float(outputs["max"].max())
    return Finding(
        "double_softmax",
        f"The loss {output['function']} takes logits, and is given numbers between"
        f" {outputs['min'].min():.2g} and {high:.2g} alone: they are probabilities, to which it"
        " applies a sigmoid once more.",
        step=int(output["step"]),
        layers=readouts(evidence),
        numbers={"output_max": Number(high, 1.0)},
        remedies=(
            Remedy(
                "Give the loss logits: take the sigmoid out of the model.",
                "The sigmoid of a number from 0 to 1 is never below one half.",
                code="return logits  # without torch.sigmoid",
                source="PyTorch, BCEWithLogitsLoss",
            ),
        ),
    )


def _log_softmax_of_probabilities(
    evidence: Evidence, first: tuple[pd.Series, pd.Series, float]
) -> Finding | None:
    """Whether log-probabilities never differ by more than 1, as those of probabilities do not, and
    the read-out's signal is weak from the start."""
    output, target, _ = first
    table = evidence.tables["loss"]
    outputs = table[table["role"] == "output"]
    num_classes = sizes_of(output["shape"])[1] if len(sizes_of(output["shape"])) > 1 else 0
    is_labels = has_labels(target)
    delta = _of_readout(evidence, "delta_rms")
    if num_classes < 2 or not is_labels or delta is None or len(outputs) < 2:
        return None
    if len(of_graph(evidence, "reads_scores", "LogSoftmax")):
        return None  # the softmax reads what weights give
    expected = math.sqrt(num_classes - 1) / num_classes
    spread = float((outputs["max"] - outputs["min"]).max())
    is_log = float(outputs["max"].max()) < 0
    lowest = -math.log(num_classes - 1 + math.e)
    if not is_log or float(outputs["min"].min()) < lowest - ROUNDING or delta > _HALF * expected:
        return None
    return Finding(
        "double_softmax",
        f"The log-probabilities that the loss {output['function']} is given differ by {spread:.2g}"
        " at most, as those of a softmax of probabilities do. The read-out's signal at the start is"
        f" {delta:.2g}; softmax on logits gives sqrt(K-1)/K = {expected:.2g}.",
        step=int(output["step"]),
        layers=readouts(evidence),
        numbers={"delta_rms": Number(delta, expected)},
        remedies=(
            Remedy(
                "Apply log_softmax to logits, once.",
                "Softmax of numbers between 0 and 1 is nearly the same for all classes.",
                code="return logits.log_softmax(-1)",
                source="PyTorch, NLLLoss",
            ),
        ),
    )


def _of_readout(evidence: Evidence, column: str) -> float | None:
    layers = evidence.tables.get("layers")
    if layers is None:
        return None
    rows = layers[(layers["step"] == evidence.first_step) & (layers["kind"] == "readout")]
    values = values_of(rows, column)
    return float(values[0]) if len(values) == 1 and math.isfinite(values[0]) else None


def _sigmoid(z: float) -> float:
    """1 / (1 + exp(-z)), of any z: the exponential overflows below -709."""
    return 0.5 * (1 + math.tanh(z / 2))


RULES = (double_softmax,)
