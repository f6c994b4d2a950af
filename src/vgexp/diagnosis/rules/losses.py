"""Rules about what the loss is given."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from vgexp.diagnosis.depths import values_of
from vgexp.diagnosis.evidence import Evidence
from vgexp.diagnosis.findings import Finding, Number, Remedy, cause_rule
from vgexp.diagnosis.outcome import first_call

ROUNDING = 1e-3
"""Sums of probabilities differ from 1 by no more, in half precision too."""
_HALF = 0.5
_ALIKE = 0.05
"""Relative difference up to which a loss is what the means of its arguments give."""
_PAIRWISE = 1e-4
"""Relative difference up to which a loss is the mean square over all pairs: rounding of float32."""
_BROADCASTING = frozenset(
    {"mseloss", "l1loss", "smoothl1loss", "huberloss", "softmarginloss", "poissonnllloss"}
    | {"kldivloss", "kldiv"}
)
"""PyTorch's own losses that broadcast what they are given, by their plain names."""
_RANGES = ((0.0, 1.0, "a sigmoid"), (-1.0, 1.0, "tanh"), (0.0, math.inf, "ReLU"))
_MADE_BY = (("Sigmoid", "Softmax"), ("Tanh",), ("Relu", "Softplus"))
"""How autograd names functions of these ranges."""


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
    first = first_call(evidence)
    if first is None:
        return None
    output, target, _ = first
    if _is_made_by(output, ("Sigmoid",)) and "withlogits" in _plain(output["function"]):
        return _double_sigmoid(evidence, str(output["function"]), int(output["step"]))
    twice = _sigmoid_twice(evidence, first) or _log_softmax_of_probabilities(evidence, first)
    if twice is not None:
        return twice
    sums = [float(output["row_sum_min"]), float(output["row_sum_max"])]
    is_labels = str(target["dtype"]).startswith(("int", "uint"))
    if not is_labels or not np.allclose(sums, 1, atol=ROUNDING) or float(output["min"]) < 0:
        return None
    num_classes = int(str(output["shape"]).split("x")[1])
    expected = math.sqrt(num_classes - 1) / num_classes
    delta = _of_readout(evidence, "delta_rms")
    if "nll" in _plain(output["function"]):
        return _probabilities_to_nll(evidence, str(output["function"]), int(output["step"]))
    is_named = "crossentropy" in _plain(output["function"])
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


@cause_rule(
    "target_shape",
    "loss.csv",
    reason="two shapes that broadcast to a third, larger one compare each output with every target",
    source="PyTorch, broadcasting semantics",
    certain=True,
)
def target_shape(evidence: Evidence) -> Finding | None:
    """Whether output and target are broadcast against each other.

    A function of somebody's own may bring both to one shape itself: its value has to be the mean
    square over all pairs, which is var(o) + var(y) + (mean(o) - mean(y))^2.
    """
    first = first_call(evidence)
    if first is None:
        return None
    output, target, _ = first
    shapes = [_sizes(each["shape"]) for each in (output, target)]
    if not str(target["dtype"]).startswith(("float", "bfloat")) or not all(shapes):
        return None
    try:
        both = np.broadcast_shapes(*shapes)
    except ValueError:
        return None
    if math.prod(both) <= max(map(math.prod, shapes)):
        return None
    if _plain(output["function"]) not in _BROADCASTING and not _is_over_pairs(evidence):
        return None
    joined = "x".join(map(str, both))
    return Finding(
        "target_shape",
        f"The output is {output['shape']} and the target {target['shape']}: they are broadcast to"
        f" {joined}, so that each output is compared with every target.",
        step=int(output["step"]),
        layers=readouts(evidence),
        numbers={"compared": Number(math.prod(both), math.prod(shapes[0]))},
        remedies=(
            Remedy(
                "Give both the same shape.",
                "The mean over all pairs is least where every output is the targets' mean.",
                code="loss_fn(output.squeeze(1), target)",
                source="PyTorch, broadcasting semantics",
            ),
        ),
    )


def _is_over_pairs(evidence: Evidence) -> bool:
    """Whether every described call of the loss gives the mean square over all pairs."""
    table = evidence.tables["loss"]
    outputs, targets, results = (
        table[table["role"] == role].drop_duplicates("step").set_index("step")
        for role in ("output", "target", "loss")
    )
    apart = outputs["mean"] - targets["mean"]
    pairs = outputs["std"] ** 2 + targets["std"] ** 2 + apart**2
    differences = (results["mean"] - pairs).abs() / pairs
    vary = (outputs["std"] > 0) & (targets["std"] > 0)
    return bool(vary.any() and (differences[vary] <= _PAIRWISE).all())


@cause_rule(
    "output_range",
    "loss.csv",
    limit=0.1,
    reason="a tenth of the targets' range beyond what the activation reaches cannot be learned;"
    " less may be noise",
)
def output_range(evidence: Evidence) -> Finding | None:
    """Whether targets lie where the last activation never gets."""
    table, first = evidence.tables["loss"], first_call(evidence)
    if first is not None and (found := _logits_to_nll(first, evidence)) is not None:
        return found
    if first is None or first[0]["shape"] != first[1]["shape"]:
        return None
    if not str(first[1]["dtype"]).startswith(("float", "bfloat")):
        return None
    outputs, targets = (table[table["role"] == role] for role in ("output", "target"))
    low, high = outputs["min"].min(), outputs["max"].max()
    least, most = targets["min"].min(), targets["max"].max()
    for (bottom, top, name), makers in zip(_RANGES, _MADE_BY, strict=True):
        room = (top - bottom) if math.isfinite(top) else max(high, 1.0)
        is_bounded = low >= bottom and high <= top
        if _is_known(first[0]) and not _is_made_by(first[0], makers):
            continue
        touches = (
            _is_known(first[0])
            or low - bottom < 0.05 * room
            or (math.isfinite(top) and top - high < 0.05 * room)
        )
        beyond = max(bottom - least, most - top if math.isfinite(top) else 0.0)
        if is_bounded and touches and beyond > 0.1 * (most - least) > 0:
            return Finding(
                "output_range",
                f"Targets go from {least:.3g} to {most:.3g}, outputs stay between {low:.3g} and"
                f" {high:.3g}, as those of {name} do.",
                step=int(first[0]["step"]),
                layers=readouts(evidence),
                numbers={
                    "output_max": Number(float(high), float(most)),
                    "output_min": Number(float(low), float(least)),
                },
                remedies=(
                    Remedy(
                        "Take the last activation out, or scale the targets into its range.",
                        "What an activation cannot give, no weights can.",
                        code="return self.readout(h)  # without an activation",
                    ),
                ),
                is_fact=_many_beyond(targets, bottom, top, beyond),
            )
    return None


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


def _logits_to_nll(first: tuple[pd.Series, pd.Series, float], evidence: Evidence) -> Finding | None:
    """Whether a loss of log-probabilities, which are at most 0, is given larger numbers."""
    output, target, _ = first
    is_labels = str(target["dtype"]).startswith(("int", "uint"))
    sums = [float(output["row_sum_min"]), float(output["row_sum_max"])]
    is_nll = _plain(output["function"]) in ("nllloss", "nllloss2d")
    if not is_nll or not is_labels or not output["max"] > ROUNDING or np.allclose(sums, 1):
        return None
    return Finding(
        "output_range",
        f"The loss {output['function']} takes log-probabilities, which are at most 0, and is given"
        f" numbers up to {output['max']:.3g}: it can fall without end.",
        step=int(output["step"]),
        layers=readouts(evidence),
        numbers={"output_max": Number(float(output["max"]), 0.0)},
        remedies=(
            Remedy(
                "Give the loss log-probabilities, or use the one that takes logits.",
                "Nothing makes the outputs of the classes sum to 1.",
                code="nn.CrossEntropyLoss()(logits, y)  # or nn.LogSoftmax(-1) in the model",
                source="PyTorch, NLLLoss",
            ),
        ),
        is_fact=True,
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
    if "withlogits" not in str(output["function"]).replace("_", "").lower():
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
    num_classes = _sizes(output["shape"])[1] if len(_sizes(output["shape"])) > 1 else 0
    is_labels = str(target["dtype"]).startswith(("int", "uint"))
    delta = _of_readout(evidence, "delta_rms")
    if num_classes < 2 or not is_labels or delta is None or len(outputs) < 2:
        return None
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


def _many_beyond(targets: pd.DataFrame, bottom: float, top: float, beyond: float) -> bool:
    """Whether not only rare targets are out of reach: half a standard deviation from their mean,
    and as far from the range."""
    mean, std = float(targets["mean"].mean()), float(targets["std"].mean())
    return beyond > std / 2 and (mean - std / 2 < bottom or mean + std / 2 > top)


def _of_readout(evidence: Evidence, column: str) -> float | None:
    layers = evidence.tables.get("layers")
    if layers is None:
        return None
    rows = layers[(layers["step"] == evidence.first_step) & (layers["kind"] == "readout")]
    values = values_of(rows, column)
    return float(values[0]) if len(values) == 1 and math.isfinite(values[0]) else None


def readouts(evidence: Evidence) -> tuple[str, ...]:
    layers = evidence.tables.get("layers")
    if layers is None:
        return ()
    rows = layers[(layers["step"] == layers["step"].min()) & (layers["kind"] == "readout")]
    return tuple(str(name) for name in rows["name"])


def _is_known(output: pd.Series) -> bool:
    """Whether the table says which function made an output."""
    return isinstance(output.get("made_by"), str)


def _is_made_by(output: pd.Series, functions: tuple[str, ...]) -> bool:
    return str(output.get("made_by")).startswith(functions)


def _sigmoid(z: float) -> float:
    """1 / (1 + exp(-z)), of any z: the exponential overflows below -709."""
    return 0.5 * (1 + math.tanh(z / 2))


def _plain(function: object) -> str:
    """A function's name without underscores and capitals, which its class has differently."""
    return str(function).replace("_", "").lower()


def _sizes(shape: object) -> tuple[int, ...]:
    return tuple(int(size) for size in str(shape).split("x") if size.isdigit())


RULES = (
    double_softmax,
    target_shape,
    output_range,
)
