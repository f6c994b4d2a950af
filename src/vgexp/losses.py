"""Losses: the mean to minimise, when an answer is right, and the loss of the best constant answer.

Axes: N targets, C classes, K values of a target. A batch of B examples with an answer at each of T
positions has N = B T targets: [B, T, C] and [B, T] are the same to a loss as [N, C] and [N].
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from vgexp import user_code
from vgexp.errors import QuestionError
from vgexp.lookup import is_dotted
from vgexp.registry import Registry

RIGHT_WITHIN = 0.04
"""An answer is right if each component is nearer than this (Hochreiter & Schmidhuber 1997, 5.4)."""


@dataclass(frozen=True)
class Loss:
    """A named loss; its functions take the outputs and the targets of one batch."""

    summary: str
    mean: Callable[[Tensor, Tensor], Tensor]
    """0-d: the mean over the targets, in the outputs' dtype."""
    smoothed: Callable[[Loss, float], Loss] | None
    """The same loss with a share of the target probability spread over all classes; None: targets
    are values and no classes."""
    hits: Callable[[Tensor, Tensor], Tensor] | None
    """0-d: how many targets were answered right; None where right is not defined."""
    constant: Callable[[Tensor, int], float]
    """The best mean loss of answers that ignore the input, from all targets and C or K.

    Of targets [B, T] the best at each position, of [B T] one for all.
    nan where none is known."""
    is_mean: bool = True
    """Whether `mean` is the mean of each target's own loss, as of a user's loss nobody knows."""


def build(name: str, label_smoothing: float = 0.0, *, has_classes: bool = True) -> Loss:
    """Returns the named loss; with label smoothing its `mean` is the smoothed one (Szegedy 2016).

    Args:
        has_classes: whether targets are class numbers, without which a user's loss cannot
            tell what is right.

    Raises:
        QuestionError: an unknown name, or smoothing of a loss without classes.
    """
    loss = LOSSES[name]
    if is_dotted(name) and not has_classes:
        loss = dataclasses.replace(loss, hits=None)
    if not label_smoothing:
        return loss
    if loss.smoothed is None:
        raise QuestionError(
            f"train.label_smoothing is {label_smoothing}, but train.loss={name} has no classes\n"
            "allowed: train.label_smoothing=0, or train.loss=cross_entropy"
        )
    return loss.smoothed(loss, label_smoothing)


def require_targets(loss: str, targets: Tensor, data: str) -> None:
    """Requires a loss that fits the targets of a data set: classes, or values.

    Of a user's loss nothing is known.

    Raises:
        QuestionError: it is not.
    """
    are_classes = not targets.is_floating_point()
    words = {True: "classes", False: "values"}
    fitting = [name for name in LOSSES if (LOSSES[name].smoothed is not None) == are_classes]
    if loss not in fitting and not is_dotted(loss):
        raise QuestionError(
            f"train.loss is {loss!r}, which is for {words[not are_classes]}; the targets of"
            f" data={data} are {words[are_classes]}\n"
            f"allowed: {', '.join(fitting)}, or null, which takes what the data are for"
        )


def num_targets(outputs: Tensor) -> int:
    """Counts the answers in the outputs of a batch."""
    return outputs.shape[:-1].numel()


# ---------------------------------------------------------------- cross-entropy


def _cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    if outputs.ndim > 2:
        outputs, targets = outputs.flatten(0, -2), targets.flatten()
    return F.cross_entropy(outputs, targets)


def _smoothed(loss: Loss, share: float) -> Loss:
    mean, constant = partial(_smoothed_cross_entropy, share), partial(_smoothed_entropy, share)
    return dataclasses.replace(loss, mean=mean, constant=constant)


def _smoothed_cross_entropy(share: float, outputs: Tensor, targets: Tensor) -> Tensor:
    outputs_NC, targets_N = outputs.flatten(0, -2), targets.flatten()
    return F.cross_entropy(outputs_NC, targets_N, label_smoothing=share)


def _hits(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs.argmax(-1) == targets).sum()


def _label_entropy(targets: Tensor, num_outputs: int) -> float:
    return _smoothed_entropy(0.0, targets, num_outputs)


def _smoothed_entropy(share: float, targets: Tensor, num_outputs: int) -> float:
    positions_NT = targets.reshape(len(targets), -1)
    num_positions = positions_NT.shape[1]
    numbered_NT = positions_NT + num_outputs * torch.arange(num_positions)
    count_TC = torch.bincount(numbered_NT.flatten(), minlength=num_positions * num_outputs)
    asked_TC = (1 - share) * count_TC.double() / len(targets) + share / num_outputs
    return float(torch.special.entr(asked_TC).sum()) / num_positions


# ---------------------------------------------------------------- squared error


def _mse(outputs: Tensor, targets: Tensor) -> Tensor:
    return F.mse_loss(outputs, targets)


def _near(outputs: Tensor, targets: Tensor) -> Tensor:
    return ((outputs - targets).abs() < RIGHT_WITHIN).all(-1).sum()


def _variance(targets: Tensor, _num_outputs: int) -> float:
    return float(targets.double().var(0, correction=0).mean())


# ---------------------------------------------------------------- the user's


def _unknown(_targets: Tensor, _num_outputs: int) -> float:
    return math.nan


def _from_user_code(path: str) -> Loss:
    return Loss(path, user_code.loss(path), None, _hits, _unknown, is_mean=False)


LOSSES: Registry[Loss] = Registry(
    "loss",
    {
        "cross_entropy": Loss(
            "-ln of the probability of the right class, in nats",
            _cross_entropy,
            _smoothed,
            _hits,
            _label_entropy,
        ),
        "mse": Loss(
            f"mean squared error; right is nearer than {RIGHT_WITHIN}",
            _mse,
            None,
            _near,
            _variance,
        ),
    },
    _from_user_code,
)
"""Name -> loss."""
