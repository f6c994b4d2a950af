"""What became of the loss: whether the network learned, and whether the run was long enough."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pandas as pd

from vgexp.diagnosis.cells import is_plain
from vgexp.diagnosis.depths import once
from vgexp.diagnosis.evidence import Evidence
from vgexp.diagnosis.learning import (
    ENOUGH_STEPS,
    HALF,
    LEARNED_BELOW,
    falls_and_rises,
    is_below_guess,
    learned_below,
    still_falls,
)
from vgexp.diagnosis.readings import running_means

JUMP = 10.0
"""Times the first loss that no descent reaches."""
_ALIKE = 0.25
"""Relative difference up to which a measured loss is what a kind of loss gives."""
_SAME = 0.01
"""As `_ALIKE`, where nothing but the number of examples is compared."""


def column_of(evidence: Evidence, table: str, name: str) -> np.ndarray:
    """A column as float64, by row, to be read only; empty where there is none of such names."""
    return once(evidence, ("column_of", (table, name)), partial(_column_of, evidence, table, name))


def _column_of(evidence: Evidence, table: str, name: str) -> np.ndarray:
    frame = evidence.tables.get(table)
    if frame is None or name not in frame:
        return np.array([])
    values = frame[name]
    if not is_plain(values.dtype):
        values = pd.to_numeric(values, errors="coerce")
    return np.asarray(values, dtype="float64")


def has_learned(evidence: Evidence) -> bool | None:
    """Whether the network learned, and still knew it at the end; None: nobody can tell.

    One that ends by saying the same of every example did not, however far its loss fell.
    Of networks that train against each other a loss that does not fall says nothing: it is that of
    a balance, which both are to keep.
    """
    verdict = evidence.metrics.get("verdict")
    if verdict is not None:
        return bool(verdict == "healthy")
    losses = column_of(evidence, "steps", "loss")
    guess = constant_loss(evidence)
    if ends_not_finite(evidence) or loss_of_constant(evidence) is not None:
        return False
    if turned_guess(evidence) is not None:
        return False
    if is_below_its_range(evidence):
        return None
    is_lost = losses.size > 0 and np.isnan(losses[-1]) and has_lost_losses(evidence)
    losses = losses[np.isfinite(losses)]
    if is_lost or not losses.size:
        return None
    last = float(running_means(pd.Series(losses))[-1])
    has_learned = last < learned_below(_first(losses), guess)
    is_known = guess is not None and not evidence.metrics.get("takes_turns")
    return has_learned or (False if is_known else None)


def loss_of_constant(evidence: Evidence) -> float | None:
    """The last mean loss of a network that says one number for good: its whole gradient is exactly
    0, and all outputs are the same number, at targets that differ. None of any other network.

    The best constant guess costs no more than that, whatever the loss function is.
    """
    losses, norms = (column_of(evidence, "steps", name) for name in ("loss", "grad_norm"))
    table, late = evidence.tables.get("loss"), norms.size - norms.size // 4
    if table is None or losses.size < ENOUGH_STEPS or norms.size != losses.size:
        return None
    if not (norms[late:] == 0).all() or not np.isfinite(losses[late:]).all():
        return None
    rows = table[table["step"] >= evidence.tables["steps"]["step"].iloc[late]]
    outputs, targets = (rows[rows["role"] == role] for role in ("output", "target"))
    is_one = (outputs["min"] == outputs["max"]) & ~outputs["shape"].isin(["scalar", "1"])
    if not len(outputs) or not is_one.all() or not (targets["min"] < targets["max"]).any():
        return None
    return float(losses[late:].mean())


def has_learned_little(evidence: Evidence, share: float = HALF) -> bool:
    """Whether a loop's loss fell below what counts as learned, and ends above a share of a guess's.

    Hard tasks end there too: it says nothing by itself. Of a run of vgexp the verdict decides.
    """
    losses, guess = column_of(evidence, "steps", "loss"), constant_loss(evidence)
    if evidence.metrics.get("verdict") is not None or guess is None or not has_learned(evidence):
        return False
    return float(running_means(pd.Series(losses[np.isfinite(losses)]))[-1]) >= share * guess


def learned_beyond_scatter(evidence: Evidence) -> bool:
    """Whether the loss of a network that did not learn ends below a constant guess's by more than
    the scatter of batches: it learned something, and 0.9 of a guess may be out of reach."""
    losses, guess = column_of(evidence, "steps", "loss"), constant_loss(evidence)
    if guess is None or has_learned(evidence) is not False or loss_of_constant(evidence):
        return False
    return is_below_guess(pd.Series(losses), guess)


def has_relapsed(evidence: Evidence) -> bool:
    """Whether a network learned and lost it, by a fall and a rise beyond the scatter of means over
    20 steps; without a table of steps, by the best mean and the last one."""
    guess, metrics = constant_loss(evidence), evidence.metrics
    best, last = (metrics.get(f"loss_{end}_mean_20") for end in ("best", "last"))
    if guess is None or best is None or last is None:
        return False
    is_told = metrics.get("verdict") == "relapsed"
    if not is_told and not best < LEARNED_BELOW * guess <= last:
        return False
    losses = column_of(evidence, "steps", "loss")
    return not losses.size or falls_and_rises(pd.Series(losses))


def stays_at_start(evidence: Evidence) -> bool:
    """Whether a run that is long enough ends with a loss where it began, or above.

    Where nobody knows a constant guess's loss, the first one stands for it: an untrained network
    guesses. A loss below 0 has no scale, and tells nothing.
    """
    losses = column_of(evidence, "steps", "loss")
    losses = losses[np.isfinite(losses)]
    if losses.size < ENOUGH_STEPS or losses.min() < 0 or evidence.metrics.get("takes_turns"):
        return False
    first, last = _first(losses), float(running_means(pd.Series(losses))[-1])
    return last >= LEARNED_BELOW * first and not is_short(evidence)


def _first(losses: np.ndarray) -> float:
    """The first loss, or the first that is not exactly 0, as that of an empty batch is."""
    kept = losses[losses != 0]
    return float(kept[0] if kept.size else 0.0)


def ends_not_finite(evidence: Evidence) -> bool:
    """Whether losses are infinite, or nan in the end; where all are nan, whether one was seen to
    be: what nobody measured is nan as well."""
    losses = column_of(evidence, "steps", "loss")
    finite = np.isfinite(losses)
    if not losses.size or np.isinf(losses).any():
        return bool(losses.size)
    if finite.any():
        return not finite[-1] and not has_lost_losses(evidence)
    table = evidence.tables.get("loss")
    if table is None or "role" not in table:
        return False
    results = table[table["role"] == "loss"]
    return bool((pd.to_numeric(results["not_finite"], errors="coerce") > 0).any())


def bad_loss(evidence: Evidence) -> str:
    """Since when no loss is finite, in words; empty where one is at the end, or none was
    measured."""
    losses = column_of(evidence, "steps", "loss")
    if not losses.size or math.isfinite(losses[-1]) or not ends_not_finite(evidence):
        return ""
    finite = np.flatnonzero(np.isfinite(losses))
    step = evidence.tables["steps"]["step"].iloc[finite[-1] + 1 if finite.size else 0]
    word = "nan" if math.isnan(losses[-1]) else "infinite"
    return f"the loss is {word} since step {int(step)}"


def has_lost_losses(evidence: Evidence) -> bool:
    """Whether losses that are nan are those that nobody saw, as of a loss that `torch.compile` has
    in its graph: the probe says so, no loss was described as nan, and all gradients are finite."""
    if not any("watch_loss saw" in line for line in evidence.unseen):
        return False
    table, norms = evidence.tables.get("loss"), column_of(evidence, "steps", "grad_norm")
    is_described = table is not None and bool((table["not_finite"] > 0).any())
    return bool(norms.size and np.isfinite(norms).all()) and not is_described


def constant_loss(evidence: Evidence) -> float | None:
    """The loss of the best constant guess: of a run as measured, else from the loss's own tensors.

    Where the probe found by two calls which loss it is, what the targets of all of them cost. Else
    it is known where the first loss is what cross-entropy, binary cross-entropy or the squared
    error gives for outputs and targets with these moments; of PyTorch's own squared error, which is
    known by its name, within what a correlation of the two changes.
    """
    known = evidence.metrics.get("constant_loss")
    if isinstance(known, int | float) and math.isfinite(known):
        return float(known)
    first = first_call(evidence)
    if first is None:
        return None
    if (by_definition := _by_definition(evidence)) is not None:
        return by_definition
    output, target, loss = first
    num_classes = num_classes_of(output["shape"], target["shape"])
    is_labels = has_labels(target)
    if is_labels and num_classes > 1:
        guess = math.log(num_classes)
        usual = guess + min(float(output["std"]) ** 2, guess) / 2
        named = "crossentropy" in plain_name(output["function"])
        return guess if named or abs(loss - usual) <= _ALIKE * usual else None
    if output["shape"] != target["shape"]:
        return None
    name = plain_name(output["function"])
    share = float(target["mean"])
    if "bce" in name or "binary" in name:
        if not (0 < share < 1 and target["min"] >= 0 and target["max"] <= 1):
            return None
        return -share * math.log(share) - (1 - share) * math.log(1 - share)
    apart = float(output["mean"]) - share
    usual = float(output["std"]) ** 2 + float(target["std"]) ** 2 + apart**2
    both = 2 * float(output["std"]) * float(target["std"])  # at most what alikeness takes or adds
    is_named = name == "mseloss" and abs(loss - usual) <= both + _ALIKE * usual
    if usual > 0 and (is_named or abs(loss - usual) <= _ALIKE * usual):
        return _variance_of_targets(evidence)
    return _of_pairs(output, target, loss)


def _by_definition(evidence: Evidence) -> float | None:
    """What the probe found, of all targets that were described; None of a loss of 0, by which
    nothing can be compared."""
    cost = _last_cost(evidence)
    return cost if cost is not None and cost > 0 else None


def _last_cost(evidence: Evidence) -> float | None:
    costs = column_of(evidence, "loss", "constant_loss")
    costs = costs[np.isfinite(costs)]
    return float(costs[-1]) if costs.size else None


def turned_guess(evidence: Evidence) -> float | None:
    """What the best constant guess costs in a loss of labels that is minus a cross-entropy, which
    is below 0; None of any other loss, and of networks that train against each other, which may
    mean it."""
    cost = _last_cost(evidence)
    if cost is None or cost >= 0 or evidence.metrics.get("takes_turns") or not _of_labels(evidence):
        return None
    return cost


def is_below_its_range(evidence: Evidence) -> bool:
    """Whether a loss of labels begins below 0, or ends there although it is known which loss it is:
    no cross-entropy of probabilities is, and what it falls to says nothing of what was learned."""
    losses = column_of(evidence, "steps", "loss")
    losses = losses[np.isfinite(losses)]
    if not losses.size or not _of_labels(evidence):
        return False
    ends_below = float(running_means(pd.Series(losses))[-1]) < 0
    return bool(losses[0] < 0) or (ends_below and constant_loss(evidence) is not None)


def _of_labels(evidence: Evidence) -> bool:
    """Whether a loss compares scores of several classes with labels."""
    first = first_call(evidence)
    if first is None or not has_labels(first[1]):
        return False
    return num_classes_of(first[0]["shape"], first[1]["shape"]) > 1


def _variance_of_targets(evidence: Evidence) -> float:
    """The variance of targets over all calls that were described: one batch has too few of them to
    tell what a guess costs to a tenth."""
    table = evidence.tables["loss"]
    targets = table[table["role"] == "target"]
    means, stds = (
        pd.to_numeric(targets[name], errors="coerce").to_numpy(dtype="float64", na_value=np.nan)
        for name in ("mean", "std")
    )
    known = np.isfinite(means) & np.isfinite(stds)
    return float((stds[known] ** 2).mean() + means[known].var())


def _of_pairs(output: pd.Series, target: pd.Series, loss: float) -> float | None:
    """log N of a loss that finds each of N outputs among N others, and guesses at the start."""
    sizes = str(output["shape"]).split("x")
    if len(sizes) != 2 or not all(size.isdigit() and int(size) > 1 for size in sizes):
        return None
    guess = math.log(int(sizes[0]))
    is_float = str(target["dtype"]).startswith(("float", "bfloat"))
    return guess if is_float and abs(loss - guess) <= _SAME * guess else None


def first_call(evidence: Evidence) -> tuple[pd.Series, pd.Series, float] | None:
    """The one output and the one target of the loss's first described call, and its result."""
    table = evidence.tables.get("loss")
    if table is None or not len(table):
        return None
    rows = table[table["step"] == table["step"].min()]
    output, target = (rows[rows["role"] == role] for role in ("output", "target"))
    result = rows.loc[rows["role"] == "loss", "mean"]
    if len(output) != 1 or len(target) != 1 or not len(result):
        return None
    return output.iloc[0], target.iloc[0], float(result.iloc[0])


def has_labels(target: pd.Series) -> bool:
    """Whether a tensor of a described call holds whole numbers, as labels are."""
    return str(target["dtype"]).startswith(("int", "uint"))


def plain_name(function: object) -> str:
    """A function's name without underscores and capitals, which its class has differently."""
    return str(function).replace("_", "").lower()


def is_short(evidence: Evidence) -> bool:
    """Whether the run was too short to tell: few steps, or a loss that was still falling."""
    verdict = evidence.metrics.get("verdict")
    if verdict is not None:
        return bool(verdict == "undecided")
    losses = column_of(evidence, "steps", "loss")
    if not losses.size:
        steps = evidence.metrics.get("steps")
        return isinstance(steps, int) and steps < ENOUGH_STEPS
    guess = constant_loss(evidence)
    return losses.size < ENOUGH_STEPS or still_falls(
        pd.Series(losses), math.nan if guess is None else guess
    )


def num_classes_of(output: object, target: object) -> int:
    """The number of classes: the size of the axis of an output without which its shape is that of
    the labels; 0 where it has none. The last axis is looked at first, then axis 1.

    A loss function may flatten both, or leave out the first label itself, as that of the next token
    does: labels are then longer by one.
    """
    sizes, labels = str(output).split("x"), str(target).split("x")
    if len(sizes) < 2 or not all(size.isdigit() for size in (*sizes, *labels)):
        return 0
    wanted = [int(size) for size in labels]
    numbers = [int(size) for size in sizes]
    for axis in (len(numbers) - 1, 1):
        rest = numbers[:axis] + numbers[axis + 1 :]
        is_shifted = len(rest) == len(wanted) and all(
            more - less in (0, 1) for more, less in zip(wanted, rest, strict=True)
        )
        if is_shifted or math.prod(rest) == math.prod(wanted):
            return numbers[axis]
    return numbers[1] if len(numbers) == 2 else 0
