"""Rules about what the loss is given."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from vgexp.diagnosis.evidence import Evidence
from vgexp.diagnosis.findings import Finding, Number, Remedy, cause_rule
from vgexp.diagnosis.outcome import (
    column_of,
    constant_loss,
    first_call,
    has_labels,
    num_classes_of,
    plain_name,
)
from vgexp.diagnosis.readings import running_means

ROUNDING = 1e-3
"""Sums of probabilities differ from 1 by no more, in half precision too."""
_PAIRWISE = 1e-4
"""Relative difference up to which a loss is the mean square over all pairs: rounding of float32."""
_BROADCASTING = frozenset(
    {"mseloss", "l1loss", "smoothl1loss", "huberloss", "softmarginloss", "poissonnllloss"}
    | {"kldivloss", "kldiv"}
)
"""PyTorch's own losses that broadcast what they are given, by their plain names."""
_RANGES = ((0.0, 1.0, "a sigmoid"), (-1.0, 1.0, "tanh"), (0.0, math.inf, "ReLU"))
_MADE_BY = (
    ("Sigmoid", "Softmax"),
    ("Tanh", "MkldnnRnnLayer", "CudnnRnn", "MiopenRnn"),
    ("Relu", "Softplus"),
)
"""How autograd names functions of these ranges: states of LSTM and GRU are within those of tanh."""
_OF_ANY_RANGE = tuple(
    f"{name}Backward" for name in ("Stack", "Cat", "Mul", "Add", "IndexSelect", "Index", "Gather")
)
"""Functions of which the range is that of what they were given, as a cell by hand ends with."""
_NOISE_ON_SHARES = 0.5
"""How far noise may take a target of a binary cross-entropy beyond 0 and 1."""
_LEAST_APART = 0.05
"""Share of the mean square over all pairs that alikeness of output and target may take or add, from
which on it shows whether all pairs were compared."""


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
    if (found := _compares_all(evidence)) is not None:
        return found
    first = first_call(evidence)
    if first is None:
        return None
    output, target, _ = first
    shapes = [sizes_of(each["shape"]) for each in (output, target)]
    if not str(target["dtype"]).startswith(("float", "bfloat")) or not all(shapes):
        return None
    try:
        both = np.broadcast_shapes(*shapes)
    except ValueError:
        return None
    if math.prod(both) <= max(map(math.prod, shapes)):
        return None
    if plain_name(output["function"]) not in _BROADCASTING and not _is_over_pairs(evidence):
        return None
    return _of_shapes(evidence, output, target, both)


def _compares_all(evidence: Evidence) -> Finding | None:
    """Whether autograd's graph says that a difference compares each output with every entry of
    something else, where a target has as many: some loss functions bring one of both to another
    shape themselves."""
    table = evidence.tables["loss"]
    wide = table[table["broadcast_to"].notna()]
    for row in wide.itertuples():
        both = sizes_of(row.broadcast_to)
        at = table[table["step"] == row.step]
        entries = math.isqrt(math.prod(both))
        for output in at[at["role"] == "output"].to_dict("records"):
            for target in at[at["role"] == "target"].to_dict("records"):
                given, wanted = (math.prod(sizes_of(x["shape"])) for x in (output, target))
                is_float = str(target["dtype"]).startswith(("float", "bfloat"))
                if is_float and _along_batch(output, target, both):
                    return _of_shapes(evidence, output, target, both)
                # An output may have several parts, as a mean and a variance of each example.
                if wanted == entries and given % entries == 0 and is_float:
                    return _of_shapes(evidence, output, target, both)
    return None


def _along_batch(output: Any, target: Any, both: tuple[int, ...]) -> bool:
    """Whether an axis of 1 takes the batch of the other, so that each example is compared with all:
    as (N, 1, H, W) and (N, H, W) give (N, N, H, W). The axis has to be the output's own, or the
    target's as it was given: to compare all pairs, a loss function makes one itself."""
    given, wanted = sizes_of(output["shape"]), sizes_of(target["shape"])
    num = given[0] if given else 0
    if num < 2 or len(both) < 3 or both[:2] != (num, num):
        return False
    is_own = given == (num, 1, *both[2:]) and wanted in (given, (num, *both[2:]))
    return is_own or (given == (num, *both[2:]) and wanted == (num, 1, *both[2:]))


def _of_shapes(evidence: Evidence, output: Any, target: Any, both: tuple[int, ...]) -> Finding:
    shapes = f"The output is {output['shape']} and the target {target['shape']}"
    if output["shape"] == target["shape"]:
        shapes += ", and the loss function brings one of both to another shape"
    return Finding(
        "target_shape",
        f"{shapes}: they are broadcast to {'x'.join(map(str, both))}, so that each output is"
        " compared with every target.",
        step=int(output["step"]),
        layers=readouts(evidence),
        numbers={"compared": Number(math.prod(both), math.prod(sizes_of(output["shape"])))},
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
    vary = 2 * outputs["std"] * targets["std"] >= _LEAST_APART * pairs
    return bool(vary.any() and (differences[vary] <= _PAIRWISE).all())


@cause_rule(
    "output_range",
    "loss.csv",
    limit=0.1,
    reason="a tenth of the targets' range beyond what the activation reaches cannot be learned;"
    " less may be noise",
)
def output_range(evidence: Evidence) -> Finding | None:
    """Whether targets lie where the last activation never gets.

    Integers are compared with what a known activation gives for each of them. The loss may bring
    the output into their range itself: it is a fact where a cross-entropy falls below 0, as it does
    of no probability.
    """
    table, first = evidence.tables["loss"], first_call(evidence)
    if first is not None and (found := _logits_to_nll(first, evidence)) is not None:
        return found
    if (found := _scores_to_nll(evidence) or _targets_of_shares(evidence)) is not None:
        return found
    if (found := _softmax_of_one(evidence)) is not None:
        return found
    if first is None:
        return None
    if (found := _logits_above_zero(first, evidence)) is not None:
        return found
    is_float = str(first[1]["dtype"]).startswith(("float", "bfloat"))
    if first[0]["shape"] != first[1]["shape"] and not _is_of_each(first):
        return None
    if not is_float and not _is_known(first[0]):
        return None
    outputs, targets = (table[table["role"] == role] for role in ("output", "target"))
    low, high = outputs["min"].min(), outputs["max"].max()
    least, most = targets["min"].min(), targets["max"].max()
    for (bottom, top, name), makers in zip(_RANGES, _MADE_BY, strict=True):
        room = (top - bottom) if math.isfinite(top) else max(high, 1.0)
        is_bounded = low >= bottom and high <= top
        if _is_known(first[0]) and not is_made_by(first[0], makers):
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
                is_fact=_many_beyond(targets, bottom, top, beyond)
                and (is_float or bool((table.loc[table["role"] == "loss", "max"] < 0).any())),
            )
    return None


def _is_of_each(first: tuple[pd.Series, pd.Series, float]) -> bool:
    """Whether targets are given one output for each: the shapes differ by axes of one entry."""
    output, target = ([n for n in sizes_of(each["shape"]) if n != 1] for each in first[:2])
    return output == target


def _logits_to_nll(first: tuple[pd.Series, pd.Series, float], evidence: Evidence) -> Finding | None:
    """Whether a loss of log-probabilities, which are at most 0, is given larger numbers."""
    output, target, _ = first
    is_labels = has_labels(target)
    sums = [float(output["row_sum_min"]), float(output["row_sum_max"])]
    is_nll = plain_name(output["function"]) in ("nllloss", "nllloss2d")
    if not is_nll or not is_labels or not output["max"] > ROUNDING or np.allclose(sums, 1):
        return None
    return _of_nll(
        evidence,
        output,
        f" numbers up to {output['max']:.3g}",
        {"output_max": Number(float(output["max"]), 0.0)},
    )


def _scores_to_nll(evidence: Evidence) -> Finding | None:
    """Whether autograd's graph says that the loss of log-probabilities reads what weights give,
    whatever the loss function is called."""
    rows = of_graph(evidence, "reads_scores", "NllLoss")
    if not len(rows):
        return None
    return _of_nll(evidence, rows.iloc[0], " what weights give, with no log-softmax between", {})


def of_graph(evidence: Evidence, column: str, name: str) -> pd.DataFrame:
    """The rows of losses in whose column of autograd's names one begins with this."""
    table = evidence.tables["loss"]
    if column not in table:  # of a run by an earlier version
        return table[:0]
    known = table[column].notna()
    return table[known & table[column].astype("str").str.contains(rf"(?:^| ){name}")]


def _of_nll(evidence: Evidence, row: Any, given: str, numbers: dict[str, Number]) -> Finding:
    return Finding(
        "output_range",
        f"The loss {row['function']} takes log-probabilities, which are at most 0, and is given"
        f"{given}: it can fall without end.",
        step=int(row["step"]),
        layers=readouts(evidence),
        numbers=numbers,
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


def _targets_of_shares(evidence: Evidence) -> Finding | None:
    """Whether a binary cross-entropy has targets that are no shares. Noise on labels, as some
    discriminators get, stays near 0 and 1."""
    table = evidence.tables["loss"]
    if not {"share_min", "share_max"} <= {*table}:
        return None
    low, high = (pd.to_numeric(table[name], errors="coerce") for name in ("share_min", "share_max"))
    beyond = table[(low < -_NOISE_ON_SHARES) | (high > 1 + _NOISE_ON_SHARES)]
    if not len(beyond):
        return None
    least, most = float(low.min()), float(high.max())
    return Finding(
        "output_range",
        f"The loss {beyond['function'].iloc[0]} takes targets from 0 to 1, as a binary"
        f" cross-entropy does, and is given targets from {least:.3g} to {most:.3g}: it can fall"
        " without end.",
        step=int(beyond["step"].iloc[0]),
        layers=readouts(evidence),
        numbers={"target_min": Number(least, 0.0), "target_max": Number(most, 1.0)},
        remedies=(
            Remedy(
                "Give the loss targets from 0 to 1.",
                "Only then is the loss least where the probability is the target.",
                code="y = (y + 1) / 2  # of -1 and 1; of 1 and 2 it is y - 1",
                source="PyTorch, BCEWithLogitsLoss",
            ),
        ),
        is_fact=True,
    )


def _logits_above_zero(
    first: tuple[pd.Series, pd.Series, float], evidence: Evidence
) -> Finding | None:
    """Whether a ReLU gives the scores of classes, and some of them are 0 on every example: such a
    class gets no gradient back. A network that learned well has no need of it."""
    output, target, _ = first
    layers = evidence.tables.get("layers")
    is_labels = has_labels(target)
    if layers is None or not is_labels or not is_made_by(output, ("Relu",)):
        return None
    rows = layers[layers["kind"] == "readout"]
    dead = rows["dead_fraction"].dropna() if "dead_fraction" in rows else rows["step"][:0]
    if (
        not len(dead)
        or num_classes_of(output["shape"], target["shape"]) < 2
        or _is_learned(evidence)
    ):
        return None
    if not (last := float(dead.iloc[-1])) > 0:
        return None
    return Finding(
        "output_range",
        f"A ReLU gives the scores of the classes, and {last:.0%} of the read-out's units give 0 on"
        " every example: no gradient comes back by those classes.",
        step=int(output["step"]),
        layers=readouts(evidence),
        numbers={"dead_fraction": Number(last, 0.0)},
        remedies=(
            Remedy(
                "Take the ReLU behind the read-out out.",
                "A cross-entropy takes scores of both signs.",
                code="return self.readout(h)  # without an activation",
                source="PyTorch, CrossEntropyLoss",
            ),
        ),
        is_fact=True,
    )


def _is_learned(evidence: Evidence) -> bool:
    """Whether the last losses are below a tenth of what guessing costs."""
    losses, guess = column_of(evidence, "steps", "loss"), constant_loss(evidence)
    losses = losses[np.isfinite(losses)]
    if guess is None or not losses.size:
        return False
    return float(running_means(pd.Series(losses))[-1]) < guess / 10


def _softmax_of_one(evidence: Evidence) -> Finding | None:
    """Whether a softmax has a single class, and gives 1 whatever it reads."""
    table = evidence.tables["loss"]
    outputs = table[table["role"] == "output"]
    made = outputs["made_by"].astype("str").str.startswith("Softmax")
    ones = outputs[made & (outputs["min"] == 1) & (outputs["max"] == 1)]
    if not len(ones) or not made.any() or len(ones) < int(made.sum()):
        return None
    shape = str(ones["shape"].iloc[0])
    return Finding(
        "output_range",
        f"All outputs, of shape {shape}, are 1: a softmax over a single class gives 1 whatever it"
        " reads.",
        step=int(ones["step"].iloc[0]),
        layers=readouts(evidence),
        numbers={"output_max": Number(1.0)},
        remedies=(
            Remedy(
                "Use a sigmoid for a single output, or two outputs.",
                "A softmax divides by the sum over its classes.",
                code="nn.BCEWithLogitsLoss()(logits, y)  # of a single logit",
                source="PyTorch, BCEWithLogitsLoss",
            ),
        ),
        is_fact=True,
    )


def _many_beyond(targets: pd.DataFrame, bottom: float, top: float, beyond: float) -> bool:
    """Whether not only rare targets are out of reach: half a standard deviation from their mean,
    and as far from the range."""
    mean, std = float(targets["mean"].mean()), float(targets["std"].mean())
    return beyond > std / 2 and (mean - std / 2 < bottom or mean + std / 2 > top)


def readouts(evidence: Evidence) -> tuple[str, ...]:
    layers = evidence.tables.get("layers")
    if layers is None:
        return ()
    rows = layers[(layers["step"] == layers["step"].min()) & (layers["kind"] == "readout")]
    return tuple(str(name) for name in rows["name"])


def _is_known(output: pd.Series) -> bool:
    """Whether the table says which function made an output, and that has a range of its own."""
    made = output.get("made_by")
    return isinstance(made, str) and not made.startswith(_OF_ANY_RANGE)


def is_made_by(output: pd.Series, functions: tuple[str, ...]) -> bool:
    return str(output.get("made_by")).startswith(functions)


def sizes_of(shape: object) -> tuple[int, ...]:
    return tuple(int(size) for size in str(shape).split("x") if size.isdigit())


RULES = (
    target_shape,
    output_range,
)
