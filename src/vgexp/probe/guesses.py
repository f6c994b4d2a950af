"""Finds which loss a loop's function is, by its value, and pools its targets.

A function may have any name, and be written by hand. What it is shows where its value, for one
output and one target, is that of a definition at two calls or more, up to a factor that a sum, a
mean or a half makes, and of labels a minus sign: a guess then costs less than 0.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vgexp.probe import constant_guess as best
from vgexp.probe.constant_guess import Guess, Numbers

_MOST_OUTPUTS = 2**17
"""Entries of an output that are compared with definitions."""
_MOST_POOLED = 2**15
"""Entries of targets that are kept."""
_MOST_CLASSES = 2**16
_MOST_COLUMNS = 64
"""Columns up to which each is answered by a number of its own."""
_GROWN = 1.05
"""Times the targets of which a cost was found, from which on it is found anew: that of a focal loss
takes 50 ms."""
_LEAST_CALLS = 2
_MOST_CALLS = 4
"""Calls whose value is compared; later ones only add targets."""
_GAMMAS = (0.5, 1.0, 1.5, 2.0, 3.0, 5.0)
_ABOVE_LOGS = 1e-3
"""What rounding adds to the logarithm of 1."""
_NOISE = 0.5
"""How far a target of a binary cross-entropy may be beyond 0 and 1."""
_ROUNDING = {torch.float64: 1e-9, torch.float16: 2e-2, torch.bfloat16: 5e-2}
"""Relative error of a loss in a dtype; in float32 it is 1e-5."""


BEYOND = "binary cross-entropy of no shares"
"""The name of definitions whose targets are to be from 0 to 1 and are not."""
_OF_SCORES = ("logs", "weighted logs")
"""Definitions that say nothing of probabilities: minus one of them is the mean of some scores."""


class _Definition(NamedTuple):
    name: str
    value: Callable[[Tensor, Tensor], Tensor]
    """Of an output and a target in float64: labels [R] and scores [R, K], or of one shape."""
    guess: Guess
    """Of the pooled targets, or counts of labels."""


_Pair = tuple[str, Tensor, Tensor]
"""What is compared: how it was cut out of the output and the target, and both."""


class Guesses:
    """What a constant answer costs in one loss function of a loop."""

    def __init__(self) -> None:
        self._found: list[tuple[_Definition, str]] | None = None
        """The definitions whose values the calls had, each with the name of its factor."""
        self._num_calls = 0
        self._factor = 1.0
        self._pooled: list[Numbers] = []
        self._counts: Numbers = np.zeros(0)
        self._last: tuple[Any, int, float] = None, 0, math.nan
        """The last cost, of which definition and how many targets."""

    def see(self, function: Any, named: Sequence[tuple[str, Tensor]], loss: Tensor) -> None:
        """Looks at one call. Of tensors on a device nothing is looked at: it would wait."""
        outputs = [x for _, x in named if x.requires_grad and x.is_floating_point()]
        targets = [x for _, x in named if not x.requires_grad]
        if len(outputs) != 1 or len(targets) != 1 or loss.numel() != 1:
            return
        if not (loss.is_cpu and outputs[0].is_cpu and targets[0].is_cpu):
            return
        output, target = outputs[0].detach(), targets[0].detach()
        is_large = output.numel() > _MOST_OUTPUTS or target.numel() > _MOST_OUTPUTS
        if is_large or not output.numel() or target.is_complex():
            return
        pairs = _pairs(output, target)
        if not pairs or self._found == []:
            return
        _, scores, wanted = pairs[0]
        self._pool(wanted, num_classes=0 if wanted.is_floating_point() else scores.shape[1])
        if self._num_calls < _MOST_CALLS:
            module = getattr(function, "__self__", function)
            wide = [(place, o.double(), t) for place, o, t in pairs]
            self._compare(wide, float(loss.detach()), module, loss.dtype)

    def cost(self) -> float | None:
        """The cost of the best constant answer to all targets so far; None: it is not known."""
        if not self._found or self._num_calls < (1 if self._factor < 0 else _LEAST_CALLS):
            return None
        num = int(self._counts.sum()) or sum(each.size for each in self._pooled)
        key = (self._found[0][0].name, self._factor)
        if self._last[0] != key or num > _GROWN * self._last[1]:
            pooled = self._counts if self._counts.size else np.concatenate(self._pooled)
            self._last = key, num, self._factor * self._found[0][0].guess(pooled)
        cost = self._last[2]
        if self._factor < 0 and not math.isfinite(cost):  # too few labels: all are as frequent
            cost = self._factor * math.log(self._counts.size)
        return cost if math.isfinite(cost) else None

    def shares(self) -> tuple[float, float] | None:
        """The smallest and the largest target of a binary cross-entropy for which they are no
        shares; None of any other loss."""
        if self._num_calls < _LEAST_CALLS or not self._found or not self._pooled:
            return None
        if self._found[0][0].name != BEYOND:
            return None
        return min(float(x.min()) for x in self._pooled), max(float(x.max()) for x in self._pooled)

    def _pool(self, target: Tensor, num_classes: int) -> None:
        if num_classes:
            if num_classes <= _MOST_CLASSES:
                kept = target[(target >= 0) & (target < num_classes)]
                new = np.bincount(kept.numpy(), minlength=num_classes).astype(np.float64)
                self._counts = new if self._counts.size != new.size else self._counts + new
            return
        rows = target.numpy().reshape(len(target), -1) if target.ndim == 2 else target.numpy()
        rows = rows if rows.ndim == 2 and rows.shape[1] <= _MOST_COLUMNS else rows.reshape(-1, 1)
        room = _MOST_POOLED - sum(each.size for each in self._pooled)
        same = not self._pooled or self._pooled[0].shape[1] == rows.shape[1]
        if same and room >= rows.shape[1]:
            self._pooled.append(rows[: room // rows.shape[1]].astype(np.float64))

    def _compare(
        self, pairs: Sequence[_Pair], loss: float, module: Any, dtype: torch.dtype
    ) -> None:
        if not math.isfinite(loss) or loss == 0:
            return
        bound = _ROUNDING.get(dtype, 1e-5)
        _, output, target = pairs[0]
        is_labels = not target.is_floating_point()
        known = [*(_of_labels(module) if is_labels else _of_numbers(module, output, target))]
        factors = _factors(output, target)
        self._num_calls += 1
        names = None if self._found is None else {(each.name, name) for each, name in self._found}
        found = []
        for (place, given, wanted), one in itertools.product(pairs, known):
            each = one._replace(name=one.name + place)
            try:
                value = float(each.value(given, wanted))
            except Exception:  # shapes or ranges that the definition does not have
                continue
            found += [
                (each, name)
                for name, factor in factors.items()
                if (names is None or (each.name, name) in names)
                and value
                and (factor > 0 or one.name not in _OF_SCORES)
                and math.isclose(loss, factor * value, rel_tol=bound)
            ]
        self._found = found
        if found:
            self._factor = factors[found[0][1]]


def _factors(output: Tensor, target: Tensor) -> dict[str, float]:
    """What a reduction, or the half of a square, multiplies a mean over entries by."""
    rows = float(len(target))
    across = float(output.numel() / max(1, len(output))) if target.is_floating_point() else 1.0
    named = {"mean": 1.0, "half": 0.5, "rows": across, "sum": rows * across, "of rows": rows}
    named |= {"half sum": rows * across / 2, "half rows": across / 2}
    if target.is_floating_point():
        return named
    return named | {f"minus {name}": -factor for name, factor in named.items()}


def _as_labels(output: Tensor, target: Tensor) -> tuple[Tensor, Tensor] | None:
    """Scores [R, K] and labels [R]; None where the target holds no labels of such scores."""
    if target.is_floating_point() or target.dtype is torch.bool or output.ndim < 2:
        return None
    if output.shape[:-1] == target.shape:
        scores = output.reshape(-1, output.shape[-1])
    elif output.shape[:1] + output.shape[2:] == target.shape:
        scores = output.movedim(1, -1).reshape(-1, output.shape[1])
    else:
        return None
    if scores.shape[1] < 2:
        return None
    return scores, target.reshape(-1).long()


def _pairs(output: Tensor, target: Tensor) -> list[_Pair]:
    """What the loss may compare: outputs and targets as they are, or of the next token. Such a loss
    may leave out positions that no label is for, and the first label, itself."""
    plain = _as_labels(output, target) or _as_numbers(output, target)
    found = [] if plain is None else [("", *plain)]
    if output.ndim != 3 or target.ndim != 2 or len(output) != len(target):
        return found
    num = output.shape[1]
    for place, scores, labels in (
        (" of the next", output[:, :-1], target[:, 1:]),
        (" of the first", output[:, :-1], target),
        (" of the last", output[:, 1:], target),
        (" of all next", output, target[:, 1:]),
    ):
        pair = _as_labels(scores, labels) if num > 1 and labels.numel() else None
        found += [] if pair is None else [(place, *pair)]
    return found


def _as_numbers(output: Tensor, target: Tensor) -> tuple[Tensor, Tensor] | None:
    """Outputs and targets, one for each, of the targets' shape: a function may leave out axes of
    one entry itself."""
    sizes = [[size for size in x.shape if size != 1] for x in (output, target)]
    if sizes[0] != sizes[1] or not target.numel() or target.ndim == 0:
        return None
    return output.reshape(target.shape), target.double()


# ---------------------------------------------------------------- definitions


def _of_labels(module: Any) -> Iterator[_Definition]:
    is_torch = isinstance(module, nn.CrossEntropyLoss | nn.NLLLoss)
    weight = module.weight if is_torch else None
    smoothing = float(getattr(module, "label_smoothing", 0.0)) if is_torch else 0.0
    if weight is not None:
        w = weight.detach().double().cpu()
        own = partial(best.of_labels, smoothing=0.0, weights=w.numpy())
        yield _Definition("weighted", lambda o, t: F.cross_entropy(o, t, w), own)
        yield _Definition("weighted logs", partial(_of_logs, weights=w), own)
        return
    yield _Definition("cross-entropy", F.cross_entropy, best.of_labels)
    yield _Definition("logs", _of_logs, best.of_labels)
    yield _Definition("shares", lambda o, t: F.nll_loss(o.log(), t), best.of_labels)
    for share in dict.fromkeys((smoothing, 0.1, 0.05, 0.2)):
        if share:
            yield _Definition(
                f"smoothed {share}",
                partial(F.cross_entropy, label_smoothing=share),
                partial(best.of_labels, smoothing=share),
            )
    for gamma in _GAMMAS:
        yield _Definition(
            f"focal {gamma}",
            partial(_focal, gamma=gamma),
            partial(best.of_focal_labels, gamma=gamma),
        )


def _of_logs(o: Tensor, t: Tensor, weights: Tensor | None = None) -> Tensor:
    """Of other numbers than logarithms of probabilities no answer is the best."""
    if float(o.max()) > _ABOVE_LOGS:
        raise ValueError("no logarithms of probabilities")
    return F.nll_loss(o, t, weights)


def _focal(o: Tensor, t: Tensor, gamma: float) -> Tensor:
    logs = o.log_softmax(1).gather(1, t[:, None])
    return -((1 - logs.exp()) ** gamma * logs).mean()


def _of_numbers(module: Any, output: Tensor, target: Tensor) -> Iterator[_Definition]:
    yield _Definition("squares", F.mse_loss, best.of_squares)
    yield _Definition(
        "root", lambda o, t: F.mse_loss(o, t).sqrt(), lambda t: best.of_squares(t) ** 0.5
    )
    yield _Definition("distances", F.l1_loss, best.of_distances)
    for beta in _lengths(module, "beta", nn.SmoothL1Loss):
        yield _Definition(
            f"smooth {beta}",
            partial(F.smooth_l1_loss, beta=beta),
            partial(best.of_smooth, beta=beta),
        )
    for delta in _lengths(module, "delta", nn.HuberLoss):
        yield _Definition(
            f"huber {delta}",
            partial(F.huber_loss, delta=delta),
            partial(best.of_huber, delta=delta),
        )
    low, high = float(target.min()), float(target.max())
    if low >= 0 and high <= 1:
        yield from _of_shares(module, output, target)
    if low < -_NOISE or high > 1 + _NOISE:
        yield _Definition(BEYOND, F.binary_cross_entropy_with_logits, lambda _: math.nan)
        yield _Definition(BEYOND, _binary_by_hand, lambda _: math.nan)
    if low >= 0:
        yield _Definition("counts", lambda o, t: F.poisson_nll_loss(o, t), best.of_counts)
    if bool((target.abs() == 1).all()):
        yield _Definition("hinge", lambda o, t: (1 - t * o).clamp(min=0).mean(), best.of_hinge)
        yield _Definition("margin", F.soft_margin_loss, best.of_soft_margin)


def _binary_by_hand(p: Tensor, t: Tensor) -> Tensor:
    """A binary cross-entropy of shares, of any targets."""
    return -(t * p.log() + (1 - t) * (1 - p).log()).mean()


def _lengths(module: Any, name: str, kind: type) -> Sequence[float]:
    return (float(getattr(module, name)),) if isinstance(module, kind) else (1.0, 0.5, 0.1)


def _of_shares(module: Any, output: Tensor, target: Tensor) -> Iterator[_Definition]:
    """Definitions for targets from 0 to 1."""
    positive = getattr(module, "pos_weight", None)
    if isinstance(module, nn.BCEWithLogitsLoss) and positive is not None:
        w = positive.detach().double().cpu()
        yield _Definition(
            "weighted logits",
            partial(F.binary_cross_entropy_with_logits, pos_weight=w),
            partial(best.of_binary, positive=w.numpy()),
        )
        return
    yield _Definition("logits", F.binary_cross_entropy_with_logits, best.of_binary)
    is_share = bool(((output >= 0) & (output <= 1)).all())
    if is_share:
        yield _Definition("binary shares", F.binary_cross_entropy, best.of_binary)
    for gamma in _GAMMAS:
        for alpha in (None, 0.25, 0.5, 0.75):
            guess = partial(best.of_binary_focal, gamma=gamma, alpha=alpha)
            on_logits = partial(_binary_focal, gamma=gamma, alpha=alpha, is_share=False)
            yield _Definition(f"binary focal {gamma} {alpha}", on_logits, guess)
            if is_share:
                on_shares = partial(_binary_focal, gamma=gamma, alpha=alpha, is_share=True)
                yield _Definition(f"focal shares {gamma} {alpha}", on_shares, guess)
    is_row = target.ndim == 2 and 1 < target.shape[1] <= _MOST_COLUMNS
    if is_row and bool(((target.sum(1) - 1).abs() < 1e-3).all()):
        yield _Definition("divergence", _divergence, best.of_divergence)
        yield _Definition(
            "divergence of scores",
            lambda o, t: _divergence(o.log_softmax(1), t),
            best.of_divergence,
        )
        columns = target.shape[1]
        yield _Definition(
            "soft labels",
            lambda o, t: F.cross_entropy(o, t) / columns,
            lambda t: best.of_shares(t) / columns,
        )


def _divergence(logs: Tensor, t: Tensor) -> Tensor:
    return (torch.xlogy(t, t) - t * logs).mean()


def _binary_focal(
    o: Tensor, t: Tensor, gamma: float, alpha: float | None, *, is_share: bool
) -> Tensor:
    p = o.clamp(1e-12, 1 - 1e-12) if is_share else o.sigmoid()
    plain = (
        F.binary_cross_entropy(p, t, reduction="none")
        if is_share
        else F.binary_cross_entropy_with_logits(o, t, reduction="none")
    )
    costs = (1 - (p * t + (1 - p) * (1 - t))) ** gamma * plain
    if alpha is not None:
        costs = costs * (alpha * t + (1 - alpha) * (1 - t))
    return costs.mean()
