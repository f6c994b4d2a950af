"""Data sets: inputs and targets, split, standardised, in memory."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vgexp.config import DataConfig, choice
from vgexp.data import sizes
from vgexp.data.examples import AnySplit, Examples, Pair, num_held
from vgexp.data.scale import InputScale
from vgexp.data.sources import read
from vgexp.data.splits import UserSplits
from vgexp.registry import import_modules
from vgexp.seeds import generator
from vgexp.tasks import Task


@dataclass(frozen=True)
class Split:
    """Examples of one purpose."""

    inputs: Tensor
    """[N, ...] as the task says."""
    targets: Tensor
    """[N] or [N, T], int64: class numbers; [N, K] or [N, T, K], floating: values."""

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

    def flattened(self) -> Split:
        """The same with each example's input as a vector of features."""
        return Split(self.inputs.flatten(1), self.targets)


@dataclass(frozen=True)
class Dataset:
    """A data set in three disjoint splits."""

    name: str
    train: AnySplit
    val: AnySplit
    test: AnySplit
    task: Task
    loss: str = "cross_entropy"
    """Name of the loss that its targets are for."""
    remarks: tuple[str, ...] = ()
    """What somebody should know of the examples, who trains on them nevertheless."""

    def to(self, device: torch.device) -> Dataset:
        """The same on a device."""
        train, val, test = (split.to(device) for split in (self.train, self.val, self.test))
        return dataclasses.replace(self, train=train, val=val, test=test)

    def flattened(self) -> Dataset:
        """The same with each example's input as a vector of features."""
        train, val, test = (split.flattened() for split in (self.train, self.val, self.test))
        task = self.task.flattened()
        return dataclasses.replace(self, train=train, val=val, test=test, task=task)


def load(
    config: DataConfig, seed: int, dtype: torch.dtype, device: torch.device = sizes.CPU
) -> Dataset:
    """The configured data set: split at random, then standardised by the training split.

    Of n examples round(val_fraction n) are for validation, as many again for the test, unless the
    set has such splits of its own. Values and splits depend on `seed`, not on `dtype`, which only
    rounds. Tokens, class numbers and a user's own inputs are as they are.

    Args:
        device: where they will be kept, on which there has to be room for them.

    Raises:
        QuestionError: no example is left for training, there is no room, or the data cannot be had.
    """
    sizes.require_memory(config, dtype, device)
    name = choice("data", config)
    found = read(config, seed)
    if isinstance(found, UserSplits):
        of_user = (Split(*s) if isinstance(s, tuple) else s for s in found.splits(dtype))
        train, val, test = of_user
        return Dataset(name, train, val, test, found.task, found.loss, found.remarks)
    pairs = _parted(found, config.val_fraction, seed)
    inputs = _prepared(found, [pair[0] for pair in pairs], dtype)
    targets = [pair[1] for pair in pairs]
    if found.targets.is_floating_point():
        targets = [values.to(dtype) for values in targets]
    train, val, test = map(Split, inputs, targets)
    return Dataset(name, train, val, test, found.task, found.loss)


def _parted(found: Examples, val_fraction: float, seed: int) -> list[Pair]:
    """Raw inputs and targets for training, validation and test."""
    num_examples = len(found.targets)
    needs_val, needs_test = found.val is None, found.test is None
    held = num_held(val_fraction, num_examples, needs_val + needs_test)
    order_N = torch.randperm(num_examples, generator=generator(seed, "split"))
    ends = (held * needs_val, held * (needs_val + needs_test))
    val_V, test_V, train_T = order_N.tensor_split(ends)

    def drawn(rows_N: Tensor) -> Pair:
        return found.inputs[rows_N], found.targets[rows_N]

    return [drawn(train_T), found.val or drawn(val_V), found.test or drawn(test_V)]


def _prepared(found: Examples, parts: Sequence[Tensor], dtype: torch.dtype) -> list[Tensor]:
    """Inputs of training, validation and test, as a model reads them."""
    if found.task.kind == "tokens":
        return list(parts)
    axis = found.channel_axis
    if axis is None and found.task.kind == "image":
        axis = 1
    scale = InputScale(parts[0], axis)
    return [scale(part, dtype).reshape(len(part), *found.task.shape) for part in parts]


import_modules(__name__, __path__)
