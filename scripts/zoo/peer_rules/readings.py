"""What the definitions of other tools ask of our tables. What was not measured raises no alarm."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

_RANGES = ((0.0, 1.0), (-1.0, 1.0), (0.0, math.inf))


class Run:
    """The tables of one run, as arrays."""

    def __init__(self, tables: Mapping[str, pd.DataFrame], facts: Mapping[str, Any]) -> None:
        self.tables, self.facts = tables, facts

    def column(self, table: str, name: str) -> np.ndarray:
        """A column as float64; empty where there is none."""
        frame = self.tables.get(table)
        if frame is None or name not in frame:
            return np.array([])
        return np.asarray(pd.to_numeric(frame[name], errors="coerce"), dtype="float64")

    def by_weight(self, name: str) -> Iterator[np.ndarray]:
        """The measured values of a column of layers, weight by weight, in the order of steps."""
        frame = self.tables.get("layers")
        if frame is None or name not in frame:
            return
        for _, rows in frame.groupby("name", sort=False):
            values = np.asarray(pd.to_numeric(rows[name], errors="coerce"), dtype="float64")
            if np.isfinite(values).any():
                yield values[np.isfinite(values)]

    @cached_property
    def losses(self) -> np.ndarray:
        return self.column("steps", "loss")

    @cached_property
    def accuracies(self) -> np.ndarray:
        """Of the validation split where it is known, else of training."""
        evals = self.tables.get("evals")
        if evals is not None and "accuracy" in evals and len(evals):
            rows = evals[evals["split"] != "train"] if "split" in evals else evals
            kept = np.asarray(pd.to_numeric(rows["accuracy"], errors="coerce"), dtype="float64")
        else:
            kept = self.column("steps", "accuracy")
        return kept[np.isfinite(kept)]

    @cached_property
    def does_not_rise(self) -> bool:
        """What AutoTrainer asks before it judges gradients; true where accuracy is not known."""
        known = self.accuracies
        if known.size < 2:
            return True
        return bool(known.max() < 0.6 or np.diff(known).max() < 0.01)


# ---------------------------------------------------------------- layers


def _values(run: Run, name: str) -> np.ndarray:
    values = run.column("layers", name)
    return values[np.isfinite(values)]


def is_ever_above(run: Run, name: str, limit: float) -> bool:
    return bool((_values(run, name) > limit).any())


def is_ever_below(run: Run, name: str, limit: float) -> bool:
    return bool((_values(run, name) < limit).any())


def is_ever_zero(run: Run, name: str) -> bool:
    return bool((_values(run, name) == 0).any())


def ends_above(run: Run, name: str, limit: float) -> bool:
    return any(values[-1] >= limit for values in run.by_weight(name))


def lasts(run: Run, name: str, limit: float, patience: int) -> bool:
    """Above a limit at so many measured steps in a row."""
    return any(_in_a_row(values > limit, patience) for values in run.by_weight(name))


def is_outside(run: Run, name: str, low: float, high: float, patience: int) -> bool:
    """Outside of two limits at so many measured steps in a row."""
    return any(
        _in_a_row((values < low) | (values > high), patience) for values in run.by_weight(name)
    )


def grows(run: Run, name: str, limit: float) -> bool:
    """Above a limit, or doubled four times in a row."""
    return is_ever_above(run, name, limit) or _by_ratio(run, name, lambda each: each >= 2)


def halves(run: Run, name: str) -> bool:
    """Halved four times in a row."""
    return _by_ratio(run, name, lambda each: each <= 0.5)


def weights_stay(run: Run, steps: int, tolerance: float) -> bool:
    """Whether a weight's norm is the same at so many measured steps in a row."""
    for norms in run.by_weight("weight_norm"):
        same = np.abs(np.diff(norms)) <= tolerance * np.abs(norms[:-1])
        if _in_a_row(same, steps - 1):
            return True
    return False


def variances_part(run: Run, limit: float) -> bool:
    """Whether the variances of z differ by more than a limit, over the layers of the first step."""
    frame = run.tables.get("layers")
    if frame is None or "preact_std" not in frame:
        return False
    hidden = frame[(frame["step"] == frame["step"].min()) & (frame["kind"] != "readout")]
    deviations = np.asarray(pd.to_numeric(hidden["preact_std"], errors="coerce"), dtype="float64")
    kept = deviations[np.isfinite(deviations) & (deviations > 0)]
    return kept.size > 1 and bool((kept.max() / kept.min()) ** 2 > limit)


def ends_ratio(
    run: Run, *, below: float = -1.0, first: float = math.inf, above: float = math.inf
) -> bool:
    """Whether the gradient of the first weight over that of the last is below or above a limit."""
    frame = run.tables.get("layers")
    if frame is None or "grad_norm" not in frame:
        return False
    for _, rows in frame[frame["grad_norm"].notna()].groupby("step"):
        norms = np.asarray(rows["grad_norm"], dtype="float64")
        if norms.size < 2 or norms[-1] == 0:
            continue
        ratio = norms[0] / norms[-1]
        if (ratio < below and norms[0] < first) or ratio > above:
            return True
    return False


def mean_reaches(run: Run, name: str, limit: float) -> bool:
    """Whether the mean over the weights of a step reaches a limit."""
    frame = run.tables.get("layers")
    if frame is None or name not in frame:
        return False
    return bool((frame.groupby("step")[name].mean() >= limit).any())


def has_not_finite(run: Run) -> bool:
    """Whether nan or infinity is in the loss, in gradients or in what the loss was given."""
    wiring = run.tables.get("wiring")
    if wiring is not None and "gradient" in wiring and wiring["gradient"].eq("not_finite").any():
        return True
    norms = run.column("steps", "grad_norm")
    given = run.column("loss", "not_finite")
    return has_bad_loss(run) or _turns_bad(norms) or bool((given > 0).any())


# ---------------------------------------------------------------- loss and accuracy


def has_bad_loss(run: Run) -> bool:
    frame = run.tables.get("loss")
    if frame is not None and len(frame):
        results = frame[frame["role"] == "loss"]
        if (pd.to_numeric(results["not_finite"], errors="coerce") > 0).any():
            return True
    return _turns_bad(run.losses)


def loss_reaches(run: Run, limit: float) -> bool:
    return bool((run.losses >= limit).any())


def loss_rises_over(run: Run, gap: int) -> bool:
    """Whether a loss is not below the one so many steps before, asked every so many steps."""
    return bool((np.diff(run.losses[::gap]) >= 0).any())


def loss_stays(run: Run, num: int) -> bool:
    return _in_a_row(np.diff(run.losses) == 0, num - 1)


def loss_stagnates(run: Run, period: int, share: float, patience: int) -> bool:
    checked = run.losses[::period]
    with np.errstate(all="ignore"):
        falls = -np.diff(checked) / checked[:-1]
    return _in_a_row(falls < share, patience)


def loss_doubles(run: Run, period: int, patience: int) -> bool:
    checked = run.losses[::period]
    with np.errstate(all="ignore"):
        return _in_a_row(checked[1:] / checked[:-1] >= 2, patience)


def loss_fluctuates(run: Run, window: int, share: float) -> bool:
    """Whether the loss turns at more than a share of the last steps."""
    last = run.losses[-window:]
    turns = np.diff(np.sign(np.diff(last))) != 0
    return last.size == window and float(turns.mean()) > share


def is_far_from_guess(run: Run) -> bool:
    """Whether the first loss of a classifier is off log K by log K or more."""
    num_classes = run.facts.get("num_classes")
    if not num_classes or not run.losses.size:
        return False
    expected = math.log(num_classes)
    return bool(abs(run.losses[0] - expected) >= expected)


def accuracy_is_constant(run: Run, num: int) -> bool:
    return _in_a_row(np.diff(run.accuracies) == 0, num - 1)


def accuracy_stays(run: Run, rise: float, enough: float) -> bool:
    known = run.accuracies
    return known.size > 1 and bool(known.max() < enough and np.diff(known).max() < rise)


def swings(run: Run, size: float, share: float) -> bool:
    """Whether maxima lie above the minima beside them by a size, in a share of all epochs."""
    known = run.accuracies
    before, here, after = known[:-2], known[1:-1], known[2:]
    high = here[(here >= before) & (here >= after)]
    low = here[(here <= before) & (here <= after)]
    num = min(high.size, low.size)
    return num > 0 and int((high[:num] - low[:num] >= size).sum()) >= share * known.size


def is_overfit(run: Run, share: float) -> bool:
    evals = run.tables.get("evals")
    if evals is None or not len(evals) or not run.losses.size:
        return False
    later = evals[evals["split"] != "train"]
    validated = float(pd.to_numeric(later["loss"], errors="coerce").mean())
    trained = float(np.nanmean(run.losses))
    return trained > 0 and (validated - trained) / trained > share


def stops_improving(run: Run, delta: float, train: int, validation: int) -> bool:
    """Whether neither loss gets better by delta for so many steps."""
    evals = run.tables.get("evals")
    if evals is None or not len(evals):
        return False
    rows = evals[evals["split"] != "train"]
    validated = np.asarray(pd.to_numeric(rows["loss"], errors="coerce"), dtype="float64")
    return _waits(run.losses, delta) >= train and _waits(validated, delta) >= validation


def targets_beyond(run: Run) -> bool:
    """Whether outputs keep to the range of an activation, and targets do not."""
    frame = run.tables.get("loss")
    if frame is None or not len(frame):
        return False
    outputs, targets = (frame[frame["role"] == role] for role in ("output", "target"))
    if not len(outputs) or not len(targets):
        return False
    if not str(targets["dtype"].iloc[0]).startswith(("float", "bfloat")):
        return False
    low, high = outputs["min"].min(), outputs["max"].max()
    least, most = targets["min"].min(), targets["max"].max()
    return any(
        bottom <= low and high <= top and (least < bottom or most > top) for bottom, top in _RANGES
    )


# ---------------------------------------------------------------- what they share


def _in_a_row(truths: np.ndarray, num: int) -> bool:
    count = 0
    for each in truths:
        count = count + 1 if each else 0
        if count >= num:
            return True
    return False


def _by_ratio(run: Run, name: str, judge: Callable[[np.ndarray], np.ndarray]) -> bool:
    with np.errstate(all="ignore"):
        return any(_in_a_row(judge(values[1:] / values[:-1]), 4) for values in run.by_weight(name))


def _turns_bad(values: np.ndarray) -> bool:
    """Whether some values are finite and a later one is not; what is nan throughout was not
    measured."""
    finite = np.isfinite(values)
    return bool(finite.any() and not finite[int(np.argmax(finite)) :].all())


def _waits(values: np.ndarray, delta: float) -> int:
    """The most values in a row that are no better than the best before by delta."""
    best, count, most = math.inf, 0, 0
    for value in values:
        if value < best - delta:
            best, count = float(value), 0
        else:
            count += 1
            most = max(most, count)
    return most
