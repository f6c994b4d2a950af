"""Data sets: inputs and targets, split, standardised, in memory."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vgexp import metrics
from vgexp.config import DataConfig, choice
from vgexp.data import digits, generated
from vgexp.data.examples import Examples
from vgexp.errors import impossible
from vgexp.registry import Registry
from vgexp.seeds import generator
from vgexp.tasks import Task


@dataclass(frozen=True)
class Split:
    """Examples of one purpose."""

    inputs: Tensor
    """[N, ...] as the task says."""
    targets: Tensor
    """[N] or [N, T], int64: class numbers; [N, K], floating: values."""

    def __len__(self) -> int:
        return len(self.targets)

    def take(self, rows_B: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs and targets of some examples, by their numbers."""
        return self.inputs.index_select(0, rows_B), self.targets.index_select(0, rows_B)

    def part(self, start: int, end: int) -> tuple[Tensor, Tensor]:
        """Inputs and targets of examples in a row."""
        return self.inputs[start:end], self.targets[start:end]

    def to(self, device: torch.device) -> Split:
        """The same on a device."""
        return Split(self.inputs.to(device), self.targets.to(device))


@dataclass(frozen=True)
class Dataset:
    """A data set in three disjoint splits."""

    name: str
    train: Split
    val: Split
    test: Split
    task: Task
    loss: str = "cross_entropy"
    """Name of the loss that its targets are for."""

    def to(self, device: torch.device) -> Dataset:
        """The same on a device."""
        train, val, test = (split.to(device) for split in (self.train, self.val, self.test))
        return dataclasses.replace(self, train=train, val=val, test=test)

    def flattened(self) -> Dataset:
        """The same with each example's input as a vector of features."""

        def flat(split: Split) -> Split:
            return Split(split.inputs.flatten(1), split.targets)

        train, val, test = (flat(split) for split in (self.train, self.val, self.test))
        task = self.task.flattened()
        return dataclasses.replace(self, train=train, val=val, test=test, task=task)


Source = Callable[[Any, int], Examples]

DATA: Registry[Source] = Registry(
    "data", {"digits": digits.read, "gaussian": generated.gaussian, "spirals": generated.spirals}
)
"""Name -> function of (configuration, seed)."""


def load(config: DataConfig, seed: int, dtype: torch.dtype) -> Dataset:
    """The configured data set: split at random, then standardised by the training split.

    Of n examples round(val_fraction n) are for validation, as many again for the test, unless the
    set has a test split of its own. Values and splits depend on `seed`, not on `dtype`, which only
    rounds.

    Raises:
        QuestionError: no example is left for training.
    """
    found = DATA[choice("data", config)](config, seed)
    num_examples = len(found.targets)
    num_held = round(config.val_fraction * num_examples)
    num_out = num_held if found.test is not None else 2 * num_held
    if num_out >= num_examples:
        raise impossible(
            "data.val_fraction",
            config.val_fraction,
            f"a share that leaves some of the {num_examples} examples for training",
        )
    order_N = torch.randperm(num_examples, generator=generator(seed, "split"))
    val_V, test_V, train_T = order_N.tensor_split((num_held, num_out))
    inputs, *test_inputs = _prepared(found, train_T, dtype)
    targets = found.targets if found.targets.dtype == torch.int64 else found.targets.to(dtype)
    train, val, test = (Split(inputs[rows], targets[rows]) for rows in (train_T, val_V, test_V))
    if found.test is not None:
        test = Split(test_inputs[0], found.test[1].to(targets.dtype))
    return Dataset(choice("data", config), train, val, test, found.task, found.loss)


def _prepared(found: Examples, train_T: Tensor, dtype: torch.dtype) -> list[Tensor]:
    """Inputs, and those of a test split of its own, ready for a model; tokens are as they are."""
    parts = [found.inputs, *([] if found.test is None else [found.test[0]])]
    if found.task.kind == "tokens":
        return parts
    channel_axis = 1 if found.task.kind == "image" else None
    scale = _Scale(found.inputs[train_T], channel_axis)
    return [scale(part).to(dtype) for part in parts]


class _Scale:
    """Inputs less one mean, over one standard deviation, of each channel of the training split.

    The divisor is the number of values; constant values are divided by 1. Without an axis of
    channels there is one channel.
    """

    def __init__(self, train: Tensor, channel_axis: int | None) -> None:
        rows = train.reshape(1, -1)
        if channel_axis is not None:
            rows = train.movedim(channel_axis, 0).flatten(1)
        mean, std = metrics.row_moments(rows)
        constant = rows.amin(1) == rows.amax(1)
        self._shape = [1] * train.ndim
        if channel_axis is not None:
            self._shape[channel_axis] = -1
        self._mean, self._std = mean, torch.where(constant, 1.0, std)

    def __call__(self, inputs: Tensor) -> Tensor:
        return (inputs - self._mean.reshape(self._shape)) / self._std.reshape(self._shape)
