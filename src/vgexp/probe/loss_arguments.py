"""What a loss function is called with, and what it returns: rows of `loss.csv`."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vgexp.probe.graph import classes_of_weight, maker_of
from vgexp.probe.loss_cuts import cut_by, reaches_any
from vgexp.probe.loss_graph import NOTHING, LossGraph, graph_of
from vgexp.probe.steps import Number, floats, read_numbers
from vgexp.records import Rows

_MOST_ENTRIES = 2**22
"""Entries that are described at a time, so that large outputs need no second copy of themselves."""
_NUMBERS = ("min", "max", "mean", "std", "not_finite", "row_sum_min", "row_sum_max")
_WORDS_OF_GRAPH = ("squashed_twice", "broadcast_to", "functions", "reads_scores")
RESULT = "result"
INPUT, WEIGHT = "input", "weight"
"""Roles of what is no argument of the loss: what the model read, and a parameter of it."""


class Argument(NamedTuple):
    """What is known of one tensor; `numbers` are those of `_NUMBERS`."""

    function: str
    name: str
    role: str
    shape: str
    dtype: str
    made_by: str | None
    numbers: tuple[Number, ...]
    graph: LossGraph = NOTHING
    """Of a loss, what lies behind it."""
    cut_by: str | None = None
    reaches_output: bool | None = None
    classes_of_weight: bool | None = None
    """Of an output, whether a weight gave it its axis of classes."""
    number_share: Number = None
    """Of a loss, the share of it that is a term as a plain number."""
    pass_weight: Number = None
    """Of a loss, the derivative by it of what the backward pass began at."""
    constant_loss: Number = None
    """Of a loss, what the best constant answer costs."""


def rows_of(described: Sequence[tuple[int, Argument]]) -> Rows | None:
    """Makes rows of `loss.csv` of steps and arguments; None of none. On CUDA it waits."""
    if not described:
        return None
    num_numbers = len(_NUMBERS)
    read = read_numbers([number for _, argument in described for number in argument.numbers])
    columns = {name: read[i::num_numbers] for i, name in enumerate(_NUMBERS)}
    lost = columns["not_finite"]
    for name in ("min", "max", "mean", "std"):
        pairs = zip(columns[name], lost, strict=True)
        columns[name] = [None if share == 1 else value for value, share in pairs]
    numbers = {name: floats(values, torch.float64) for name, values in columns.items()}
    words = {
        name: [getattr(argument, name) for _, argument in described]
        for name in ("function", "name", "role", "shape", "dtype", "made_by", "cut_by")
    }
    graphs = [argument.graph for _, argument in described]
    words |= {n: [getattr(g, n) for g in graphs] for n in _WORDS_OF_GRAPH}
    for name in ("flat_fraction", "share_min", "share_max"):
        of_graph = read_numbers([getattr(g, name) for g in graphs])
        numbers[name] = floats(of_graph, torch.float64)
    for name in ("number_share", "pass_weight", "constant_loss"):
        of_call = read_numbers([getattr(argument, name) for _, argument in described])
        numbers[name] = floats(of_call, torch.float64)
    flags = {
        "reaches_output": [argument.reaches_output for _, argument in described],
        "is_steep": [g.is_steep for g in graphs],
        "classes_of_weight": [argument.classes_of_weight for _, argument in described],
    }
    words |= {n: [None if f is None else int(f) for f in each] for n, each in flags.items()}
    return Rows("loss", {"step": [step for step, _ in described], **words, **numbers})


def named_tensors(function: Any, args: Any, kwargs: Any) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a call, by the names of the function's parameters."""
    named: Mapping[str, Any]
    try:
        named = inspect.signature(function).bind(*args, **kwargs).arguments
    except (TypeError, ValueError):  # it has no signature
        named = {**{str(i): value for i, value in enumerate(args)}, **kwargs}
    for name, value in named.items():
        yield from _tensors_in(name, value)


def _tensors_in(name: str, value: Any) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _tensors_in(f"{name}.{key}", inner)
    elif isinstance(value, tuple | list):
        for i, inner in enumerate(value):
            yield from _tensors_in(f"{name}.{i}", inner)


def describe_call(
    function: str,
    named: Sequence[tuple[str, Tensor]],
    loss: Tensor,
    *,
    reads_saved: bool,
    number_share: float | None = None,
) -> list[Argument]:
    """Describes the tensors of a call and its loss, with what autograd's graph says of it.

    Args:
        reads_saved: as of `graph_of`.
        number_share: the share of the loss that is a term as a plain number, where that is known.
    """
    outputs = [x for _, x in named if x.requires_grad]
    reaches = reaches_any(loss, outputs)
    graph = graph_of(loss, outputs=outputs, reads_saved=reads_saved)
    result = describe(function, RESULT, loss, graph)
    result = result._replace(cut_by=cut_by(loss), reaches_output=reaches, number_share=number_share)
    return [*(_of_argument(function, name, x) for name, x in named), result]


def _of_argument(function: str, name: str, x: Tensor) -> Argument:
    is_of_weight = classes_of_weight(x) if x.requires_grad else None
    return describe(function, name, x)._replace(classes_of_weight=is_of_weight)


def describe(function: str, name: str, x: Tensor, graph: LossGraph = NOTHING) -> Argument:
    """Describes a tensor of a call: one that requires gradients is an output, else a target."""
    role = "loss" if name == RESULT else "output" if x.requires_grad else "target"
    shape = "x".join(map(str, x.shape)) or "scalar"
    dtype = str(x.dtype).removeprefix("torch.")
    made_by = maker_of(x) if role == "output" else None
    x = x.detach()
    has_rows = role == "output" and x.ndim > 1 and x.is_floating_point()
    if not x.numel() or x.layout is not torch.strided:
        nothing = (None,) * len(_NUMBERS)
        return Argument(function, name, role, shape, dtype, made_by, nothing, graph)
    numbers: tuple[Number, ...] = (*_moments(x), None, None)
    if has_rows:
        sums = x.sum(1, dtype=torch.float64)
        numbers = (*numbers[:-2], sums.amin(), sums.amax())
    # Read at once where that is free, so that no small tensors stay.
    if x.is_cpu:
        numbers = tuple(read_numbers(numbers))
    return Argument(function, name, role, shape, dtype, made_by, numbers, graph)


def _moments(x: Tensor) -> tuple[Number, ...]:
    """Smallest, largest, mean and standard deviation of finite entries, and the share of others."""
    longest = max(range(x.ndim), key=lambda axis: x.shape[axis]) if x.ndim else 0
    size = max(1, x.shape[longest] * _MOST_ENTRIES // x.numel()) if x.ndim else 1
    parts = [_part(each) for each in (torch.split(x, size, longest) if x.ndim else [x])]
    count, mean, std, low, high = (torch.stack(each) for each in zip(*parts, strict=True))
    total = count.sum()
    middle = (count * mean).sum() / total
    spread = ((count * (std.square() + (mean - middle).square())).sum() / total).sqrt()
    lost = 1 - total / x.numel()
    return low.amin(), high.amax(), middle, spread, lost


def _part(x: Tensor) -> tuple[Tensor, ...]:
    """Number, mean, standard deviation, smallest and largest of the finite entries, in float64."""
    wide = (x.abs() if x.is_complex() else x).double()
    finite = torch.isfinite(wide)
    kept = torch.where(finite, wide, 0.0)
    count = finite.sum().double()
    mean = kept.sum() / count
    apart = torch.where(finite, wide - mean, 0.0)
    # Scaled, so that no square leaves float64.
    size = apart.abs().amax()
    unit = torch.where(size > 0, size, 1.0)
    std = unit * ((apart / unit).square().sum() / count).sqrt()
    is_none = count == 0
    low, high = wide.masked_fill(~finite, torch.inf), wide.masked_fill(~finite, -torch.inf)
    zero = torch.zeros_like(mean)
    return (
        count,
        torch.where(is_none, zero, mean),
        torch.where(is_none, zero, std),
        low.amin(),
        high.amax(),
    )
