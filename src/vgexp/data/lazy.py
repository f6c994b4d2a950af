"""What a user's data set gives: examples read one by one, collated, made ready.

Axes: N examples, B of a batch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import default_collate as collate

from vgexp import lookup
from vgexp.errors import QuestionError

KEY = "data.target"
ALLOWED = (
    "(train, validation) or (train, validation, test), or one data set, each a"
    " torch.utils.data.Dataset with __getitem__ and __len__"
)
_PAIRS = "examples (input, target), each a tensor, an array or a number"
WHOLE = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.bool)


@dataclass(frozen=True)
class LazySplit:
    """Examples of one purpose that are read from a data set as they are asked for."""

    dataset: Any
    """Gives example i by `dataset[i]`."""
    rows: Tensor
    """[N] on the CPU: its examples that are for this purpose."""
    targets: Tensor
    """[N, ...] as the loss reads them."""
    is_tokens: bool
    dtype: torch.dtype
    """Of inputs and of values."""
    is_flat: bool = False

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, rows_B: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs and targets of some examples, by their numbers."""
        numbers = self.rows[rows_B.to(self.rows.device)].tolist()
        return self._batch(numbers)

    def part(self, start: int, end: int) -> tuple[Tensor, Tensor]:
        """Inputs and targets of examples in a row."""
        return self._batch(self.rows[start:end].tolist())

    def to(self, device: torch.device) -> LazySplit:
        """The same with batches on a device."""
        return dataclasses.replace(self, targets=self.targets.to(device))

    def flattened(self) -> LazySplit:
        """The same with each input as a vector of features."""
        return dataclasses.replace(self, is_flat=True)

    def _batch(self, numbers: Sequence[int]) -> tuple[Tensor, Tensor]:
        inputs, targets = collated([self.dataset[number] for number in numbers], numbers)
        inputs = inputs_of(inputs, self.is_tokens, self.dtype)
        if self.is_flat:
            inputs = inputs.flatten(1)
        device = self.targets.device
        return inputs.to(device), targets_of(targets, self.dtype).to(device)


def item_of(dataset: Any, number: int) -> Any:
    """An example as the data set gives it.

    Raises:
        QuestionError: reading it raised something.
    """
    try:
        return dataset[number]
    except Exception as error:
        raise lookup.explain_error(f"{KEY}: reading example {number} raised", error) from error


def collated(items: Sequence[Any], numbers: Sequence[int]) -> tuple[Tensor, Tensor]:
    """A batch: inputs and targets of examples, which are pairs.

    Raises:
        QuestionError: one is no pair, or they cannot stand in one tensor.
    """
    for item, number in zip(items, numbers, strict=True):
        if not (isinstance(item, tuple | list) and len(item) == 2):
            length = f" of {len(item)}" if isinstance(item, tuple | list | dict) else ""
            raise refused(
                f"gives data whose example {number} is a {type(item).__name__}{length}", _PAIRS
            )
    sides = []
    for name, side in zip(("input", "target"), zip(*items, strict=True), strict=True):
        try:
            batch = collate(list(side))
        except (TypeError, RuntimeError) as error:
            raise _uncollated(name, side, numbers) from error
        if not isinstance(batch, Tensor):
            raise refused(f"gives data whose {name} is a {type(side[0]).__name__}", _PAIRS)
        sides.append(batch)
    return sides[0], sides[1]


def _uncollated(name: str, side: Sequence[Any], numbers: Sequence[int]) -> QuestionError:
    shapes = [getattr(value, "shape", None) for value in side]
    for number, shape in zip(numbers, shapes, strict=True):
        if shape != shapes[0]:
            first, this = (list(s) if s is not None else "no array" for s in (shapes[0], shape))
            return refused(
                f"gives data whose {name}s differ in shape: {first} in example {numbers[0]},"
                f" {this} in example {number}",
                "examples of one shape",
            )
    return refused(f"gives data whose {name} is a {type(side[0]).__name__}", _PAIRS)


def inputs_of(x: Tensor, is_tokens: bool, dtype: torch.dtype) -> Tensor:
    """As a model reads them: tokens as int64, else in the dtype of the run."""
    return x.long() if is_tokens else x.to(dtype)


def targets_of(y: Tensor, dtype: torch.dtype) -> Tensor:
    """Class numbers as int64; values [N, K], a single one as [N, 1]."""
    if y.dtype in WHOLE:
        return y.long()
    return y.to(dtype)[:, None] if y.ndim == 1 else y.to(dtype)


def refused(what: str, allowed: str = ALLOWED) -> QuestionError:
    """The error for data that are not what they should be."""
    return QuestionError(f"{KEY}: the function {what}\nallowed: {allowed}")
