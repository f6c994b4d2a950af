"""A user's data: `torch.utils.data.Dataset`s, read as their examples are asked for.

Inputs are not standardised: they are what the data sets give. Axes: N examples, B of a batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset

from vgexp import lookup
from vgexp.config import CustomDataConfig
from vgexp.data import sources
from vgexp.data.lazy import (
    KEY,
    WHOLE,
    collated,
    item_of,
    refused,
)
from vgexp.data.splits import PURPOSES, Part, UserSplits
from vgexp.errors import impossible
from vgexp.seeds import GlobalStream, generator
from vgexp.tasks import Task

_ROWS_AT_ONCE = 4096


@sources.read.register
def read(config: CustomDataConfig, seed: int) -> UserSplits:
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
    return UserSplits(parts, *_task(config, example, parts))


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
                PURPOSES, _split(num_examples, config.val_fraction, seed), strict=True
            )
            if len(rows)
        ]
    if len(given) not in (2, 3):
        raise refused(f"returns {len(given)} things")
    named = zip(PURPOSES, given, strict=False)
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
        raise lookup.explain_error(f"{KEY}: the length of {whose} data raised", error) from error
    if not length:
        raise refused(f"returns a {type(dataset).__name__} without examples as {whose} data")
    return length


# ---------------------------------------------------------------- their examples


def _example(dataset: Any) -> tuple[Tensor, Tensor]:
    """The first example's input and target."""
    inputs, targets = collated([item_of(dataset, 0)], [0])
    for name, values in (("inputs", inputs), ("targets", targets)):
        if values.is_complex():
            raise refused(f"gives {name} that are complex", "real numbers, as view_as_real gives")
    return inputs[0], targets[0]


def _part(purpose: str, dataset: Any, rows: Tensor, example: tuple[Tensor, Tensor]) -> Part:
    """Knows every target: from a tensor of them, or by reading every example once."""
    is_tokens = _is_tokens(example[0])
    tensors = _tensors(dataset)
    if tensors is not None:
        inputs, targets = tensors
        require_alike(purpose, 0, (inputs[0], targets[0]), example)
        largest = int(inputs.max()) if is_tokens and inputs.numel() else 0
        bad_rows = _bad_rows(inputs, targets)
        bad = tuple(number for number in rows.tolist() if number in bad_rows)
        return Part(purpose, dataset, rows, targets.index_select(0, rows), largest, tensors, bad)
    known = None if is_tokens else _known_targets(purpose, dataset, example)
    if known is not None:
        return Part(purpose, dataset, rows, known.index_select(0, rows), 0, None)
    read: list[Tensor] = []
    largest, found = 0, []
    for number in rows.tolist():
        x, y = collated([item_of(dataset, number)], [number])
        require_alike(purpose, number, (x[0], y[0]), example)
        read.append(y)
        largest = max(largest, int(x.max())) if is_tokens and x.numel() else 0
        found += [number] if _bad_rows(x, y) else []
    return Part(purpose, dataset, rows, torch.cat(read), largest, None, tuple(found))


def _bad_rows(inputs: Tensor, targets: Tensor) -> set[int]:
    """Rows in which an input or a target is nan or infinite."""
    found: set[int] = set()
    for values in (inputs, targets):
        if values.is_floating_point():
            # Part by part: what is compared takes memory of its own.
            for start in range(0, len(values), _ROWS_AT_ONCE):
                part = values[start : start + _ROWS_AT_ONCE]
                is_bad = ~torch.isfinite(part).reshape(len(part), -1).all(1)
                found.update((start + is_bad.nonzero().flatten()).tolist())
    return found


def _tensors(dataset: Any) -> tuple[Tensor, Tensor] | None:
    """Inputs and targets, of data that are tensors already."""
    if type(dataset) is TensorDataset and len(dataset.tensors) == 2:
        return dataset.tensors
    if type(dataset) is Subset:
        below = _tensors(dataset.dataset)
        rows = torch.as_tensor(list(dataset.indices))
        return below and (below[0].index_select(0, rows), below[1].index_select(0, rows))
    return None


def _known_targets(purpose: str, dataset: Any, example: tuple[Tensor, Tensor]) -> Tensor | None:
    """`dataset.targets`, as torchvision's sets have it, if they are what its examples say."""
    read = {}
    try:
        targets = torch.as_tensor(dataset.targets)
        if targets.shape[:1] != (len(dataset),):
            return None
        for number in (0, len(dataset) // 2, len(dataset) - 1):
            read[number] = item_of(dataset, number)
            if not torch.equal(torch.as_tensor(read[number][1]), targets[number]):
                return None
    except (AttributeError, TypeError, ValueError, RuntimeError, IndexError):
        return None
    for number, item in read.items():
        x, y = collated([item], [number])
        require_alike(purpose, number, (x[0], y[0]), example)
    return targets


# ---------------------------------------------------------------- what they are for


def require_alike(
    purpose: str, number: int, found: tuple[Tensor, Tensor], example: tuple[Tensor, Tensor]
) -> None:
    """Requires the form of the first example for training of another one.

    Raises:
        QuestionError: its shapes differ, or one of the two has whole numbers where the other has
            none.
    """
    if [x.shape for x in found] != [x.shape for x in example]:
        shapes, first = (", ".join(str(list(x.shape)) for x in pair) for pair in (found, example))
        raise refused(
            f"gives {purpose} data whose example {number} has shapes {shapes}; the first example"
            f" {first}",
            "examples of one shape",
        )
    for name, this, first_one in zip(("inputs", "targets"), found, example, strict=True):
        if (this.dtype in WHOLE) != (first_one.dtype in WHOLE):
            raise refused(
                f"gives {purpose} data whose {name} are {this.dtype}; those for training begin with"
                f" {first_one.dtype}",
                "whole numbers for every purpose, or for none",
            )


def _is_tokens(x: Tensor) -> bool:
    return x.ndim == 1 and x.dtype in (torch.int32, torch.int64)


def _task(
    config: CustomDataConfig, example: tuple[Tensor, Tensor], parts: Sequence[Part]
) -> tuple[Task, str]:
    """The form of inputs and answers, and the loss that the targets are for."""
    x, y = example
    kinds = {1: "tokens" if _is_tokens(x) else "vector", 2: "sequence", 3: "image"}
    if x.ndim not in kinds or not x.numel():
        raise refused(
            f"gives inputs of shape {list(x.shape)}",
            "[features], [positions, features], [channels, rows, columns], or whole numbers"
            f" [positions]{'' if x.numel() else '; none of these 0'}",
        )
    kind, shape = kinds[x.ndim], tuple(x.shape)
    num_tokens = 1 + max(part.largest_token for part in parts) if kind == "tokens" else 0
    is_class = y.dtype in WHOLE
    if y.ndim > (1 if is_class else 2):
        raise refused(
            f"gives targets of shape {list(y.shape)}",
            "a class number, class numbers [positions], values [K] or [positions, K]",
        )
    if is_class and y.shape == (1,) and not (kind in ("tokens", "sequence") and shape[0] == 1):
        raise refused(
            "gives class numbers of shape [1], an axis more than there should be",
            "a class number of shape [], such as targets.squeeze(1) of a tensor of them",
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
        num_negative = int((part.targets < 0).sum())
        if num_negative:
            raise refused(
                f"gives {part.purpose} data with class {int(part.targets.min())}: of"
                f" {part.targets.numel():,} class numbers {num_negative:,} are below 0"
                " and name no class",
                "class numbers from 0 on, and no examples without a class",
            )
        largest = int(part.targets.max())
        if largest >= number:
            raise refused(
                f"gives {part.purpose} data with class {largest}, but there are {number} classes",
                f"class numbers 0 to {number - 1}, or data.num_classes of at least {largest + 1}",
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
