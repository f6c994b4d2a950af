"""Data of the user's own: `torch.utils.data.Dataset`s, read as their examples are asked for.

Inputs are not standardised: they are what the data sets give. Axes: N examples, B of a batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset

from vgexp import lookup
from vgexp.config import CustomDataConfig
from vgexp.data.lazy import (
    KEY,
    WHOLE,
    LazySplit,
    collated,
    inputs_of,
    item_of,
    refused,
    targets_of,
)
from vgexp.errors import impossible
from vgexp.seeds import GlobalStream, generator
from vgexp.tasks import Task

_PURPOSES = ("training", "validation", "test")


@dataclass(frozen=True)
class Part:
    """A data set, and which of its examples are for one purpose; `tensors` where it holds such."""

    purpose: str
    dataset: Any
    rows: Tensor
    targets: Tensor
    largest_token: int
    tensors: tuple[Tensor, Tensor] | None


@dataclass(frozen=True)
class Own:
    """Data of the user's own, split already."""

    parts: tuple[Part, ...]
    """Training, and what there is of validation and test."""
    task: Task
    loss: str

    def splits(self, dtype: torch.dtype) -> list[LazySplit | tuple[Tensor, Tensor]]:
        """Training, validation and test: inputs and targets where they are in memory."""
        is_tokens = self.task.kind == "tokens"
        nothing = torch.empty(0, *self.task.shape, dtype=torch.int64 if is_tokens else dtype)
        found: dict[str, LazySplit | tuple[Tensor, Tensor]] = {}
        for part in self.parts:
            targets = targets_of(part.targets, dtype)
            if part.tensors is None:
                made = LazySplit(part.dataset, part.rows, targets, is_tokens, dtype)
                found[part.purpose] = made
            else:
                inputs = part.tensors[0].index_select(0, part.rows)
                found[part.purpose] = inputs_of(inputs, is_tokens, dtype), targets
        return [found.get(purpose, (nothing, targets[:0])) for purpose in _PURPOSES]


def read(config: CustomDataConfig, seed: int) -> Own:
    """Any `torch.utils.data.Dataset`s of your own: code that runs.

    What that code draws from torch's global generator as it makes them comes from the stream
    `data`.

    Raises:
        QuestionError: there is no such code, it raised something, or what it returns are no data
            sets of pairs.
    """
    lookup.find(KEY, config.target)  # what importing draws is not drawn again in this process
    stream = GlobalStream(seed, "data", torch.device("cpu"))
    stream.begin()
    try:
        given = lookup.make(KEY, config.target, config.kwargs, {"seed": seed})
        chosen = _chosen(given, config, seed)
        example = _example(chosen[0][1])
        parts = tuple(_part(*each, example) for each in chosen)
    finally:
        stream.end()
    return Own(parts, *_task(config, example, parts))


# ---------------------------------------------------------------- which data sets


def _chosen(given: Any, config: CustomDataConfig, seed: int) -> list[tuple[str, Any, Tensor]]:
    """Purpose, data set, and the numbers of its examples for it."""
    several = isinstance(given, tuple) or (
        isinstance(given, list) and all(isinstance(each, Dataset) for each in given)
    )
    if not several:
        num_examples = _length(given, "its")
        return [
            (purpose, given, rows)
            for purpose, rows in zip(
                _PURPOSES, _split(num_examples, config.val_fraction, seed), strict=True
            )
            if len(rows)
        ]
    if len(given) not in (2, 3):
        raise refused(f"returns {len(given)} things")
    named = zip(_PURPOSES, given, strict=False)
    return [
        (purpose, dataset, torch.arange(_length(dataset, f"the {purpose}")))
        for purpose, dataset in named
        if dataset is not None or purpose == "training"
    ]


def _split(num_examples: int, fraction: float, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Training, validation, test, at random."""
    num_held = round(fraction * num_examples)
    if 2 * num_held >= num_examples:
        allowed = f"a share that leaves some of the {num_examples} examples for training"
        raise impossible("data.val_fraction", fraction, allowed)
    order_N = torch.randperm(num_examples, generator=generator(seed, "split"))
    val_V, test_V, train_T = order_N.tensor_split((num_held, 2 * num_held))
    return train_T, val_V, test_V


def _length(dataset: Any, whose: str) -> int:
    if isinstance(dataset, IterableDataset):
        raise refused(f"returns an iterable data set as {whose} data: its order cannot be chosen")
    if isinstance(dataset, DataLoader):
        raise refused(f"returns a DataLoader as {whose} data: give its .dataset, vgexp batches it")
    if not (hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__")):
        raise refused(f"returns a {type(dataset).__name__} as {whose} data")
    try:
        length = len(dataset)
    except Exception as error:
        raise lookup.raised(f"{KEY}: the length of {whose} data raised", error) from error
    if not length:
        raise refused(f"returns a {type(dataset).__name__} without examples as {whose} data")
    return length


# ---------------------------------------------------------------- their examples


def _example(dataset: Any) -> tuple[Tensor, Tensor]:
    """The first example's input and target."""
    inputs, targets = collated([item_of(dataset, 0)], [0])
    return inputs[0], targets[0]


def _part(purpose: str, dataset: Any, rows: Tensor, example: tuple[Tensor, Tensor]) -> Part:
    """Knows every target: from a tensor of them, or by reading every example once."""
    is_tokens = _is_tokens(example[0])
    tensors = _tensors(dataset)
    if tensors is not None:
        inputs, targets = tensors
        largest = int(inputs.max()) if is_tokens else 0
        return Part(purpose, dataset, rows, targets.index_select(0, rows), largest, tensors)
    known = None if is_tokens else _known_targets(dataset)
    if known is not None:
        return Part(purpose, dataset, rows, known.index_select(0, rows), 0, None)
    read: list[Tensor] = []
    largest = 0
    for number in rows.tolist():
        x, y = collated([item_of(dataset, number)], [number])
        if x.shape[1:] != example[0].shape or y.shape[1:] != example[1].shape:
            raise refused(
                f"gives {purpose} data whose example {number} has shapes {list(x.shape[1:])},"
                f" {list(y.shape[1:])}; the first example {list(example[0].shape)},"
                f" {list(example[1].shape)}",
                "examples of one shape",
            )
        read.append(y)
        largest = max(largest, int(x.max())) if is_tokens else 0
    return Part(purpose, dataset, rows, torch.cat(read), largest, None)


def _tensors(dataset: Any) -> tuple[Tensor, Tensor] | None:
    """Inputs and targets, of data that are tensors already."""
    if type(dataset) is TensorDataset and len(dataset.tensors) == 2:
        return dataset.tensors
    if type(dataset) is Subset:
        below = _tensors(dataset.dataset)
        rows = torch.as_tensor(list(dataset.indices))
        return below and (below[0].index_select(0, rows), below[1].index_select(0, rows))
    return None


def _known_targets(dataset: Any) -> Tensor | None:
    """`dataset.targets`, as torchvision's sets have it, if they are what its examples say."""
    try:
        targets = torch.as_tensor(dataset.targets)
        if targets.shape[:1] != (len(dataset),):
            return None
        for number in (0, len(dataset) // 2, len(dataset) - 1):
            if not torch.equal(torch.as_tensor(item_of(dataset, number)[1]), targets[number]):
                return None
    except (AttributeError, TypeError, ValueError, RuntimeError, IndexError):
        return None
    return targets


# ---------------------------------------------------------------- what they are for


def _is_tokens(x: Tensor) -> bool:
    return x.ndim == 1 and x.dtype in (torch.int32, torch.int64)


def _task(
    config: CustomDataConfig, example: tuple[Tensor, Tensor], parts: Sequence[Part]
) -> tuple[Task, str]:
    """The form of inputs and answers, and the loss that the targets are for."""
    x, y = example
    kinds = {1: "tokens" if _is_tokens(x) else "vector", 2: "sequence", 3: "image"}
    if x.ndim not in kinds:
        raise refused(
            f"gives inputs of shape {list(x.shape)}",
            "[features], [positions, features], [channels, rows, columns], or whole numbers"
            " [positions]",
        )
    kind, shape = kinds[x.ndim], tuple(x.shape)
    num_tokens = 1 + max(part.largest_token for part in parts) if kind == "tokens" else 0
    is_class = y.dtype in WHOLE
    if y.ndim > (1 if is_class else 2):
        raise refused(
            f"gives targets of shape {list(y.shape)}",
            "a class number, class numbers [positions], values [K] or [positions, K]",
        )
    if is_class:
        num_classes = _num_classes(config, parts)
        return Task(kind, shape, num_classes, num_tokens, y.ndim == 1), "cross_entropy"
    num_values = y.shape[-1] if y.ndim else 1
    return Task(kind, shape, num_values, num_tokens, y.ndim == 2), "mse"


def _num_classes(config: CustomDataConfig, parts: Sequence[Part]) -> int:
    train = parts[0]
    asked = config.num_classes or _told_classes(train.dataset)
    number = asked or int(train.targets.max()) + 1
    for part in parts:
        least, largest = int(part.targets.min()), int(part.targets.max())
        if least < 0 or largest >= number:
            wrong = least if least < 0 else largest
            more = "" if least < 0 else f", or data.num_classes of at least {largest + 1}"
            raise refused(
                f"gives {part.purpose} data with class {wrong}, but there are {number} classes",
                f"class numbers 0 to {number - 1}{more}",
            )
    return number


def _told_classes(dataset: Any) -> int | None:
    """What a data set says of its classes itself."""
    while type(dataset) is Subset:
        dataset = dataset.dataset
    told = getattr(dataset, "num_classes", None)
    if isinstance(told, int) and not isinstance(told, bool):
        return told
    classes = getattr(dataset, "classes", None)
    return len(classes) if isinstance(classes, list | tuple | dict) and classes else None
