"""Reduces the tensors that passed by in a step to a few numbers a layer, many layers at once.

Axes: G tensors of one group (equal shape, one row each), R rows of `layers.csv`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vgexp import metrics
from vgexp.watch import Slope

STACKED_ENTRIES = 2**18
"""Tensors of at most so many entries are copied into one stack; larger ones are reduced alone."""
SATURATED_SHARE = 0.05
"""A bounded activation is saturated where |phi'| is below this share of its largest value."""


@dataclass(frozen=True)
class Part:
    """Numbers of one group: `values` [G] for each quantity, over `count` entries a row."""

    rows: tuple[int, ...]
    count: int
    values: tuple[Tensor, ...]


@dataclass(frozen=True)
class Seen:
    """A tensor that passed by at a row; `slope` and `channels_first` matter for u only."""

    row: int
    tensor: Tensor
    slope: Slope | None = None
    channels_first: bool = False


def moments(seen: Sequence[Seen]) -> list[Part]:
    """Mean and population standard deviation of each tensor."""
    return _reduce(seen, lambda x, _: metrics.row_moments(x.flatten(1)))


def rms(seen: Sequence[Seen]) -> list[Part]:
    """Root mean square of each tensor."""
    return _reduce(seen, lambda x, _: (metrics.row_rms(x.flatten(1)),))


def slopes(seen: Sequence[Seen]) -> list[Part]:
    """Share of saturated entries (nan: phi is not bounded) and largest |phi'| of each unit."""
    return _reduce(seen, _slope_shares)


def _slope_shares(u: Tensor, first: Seen) -> tuple[Tensor, ...]:
    assert first.slope is not None
    size = first.slope.derivative(u).abs()
    unit_axis = 2 if first.channels_first and u.ndim > 2 else u.ndim - 1
    other_axes = [axis for axis in range(1, u.ndim) if axis != unit_axis]
    largest = size.amax(other_axes) if other_axes else size
    if first.slope.peak is None:
        saturated = torch.full((u.shape[0],), torch.nan, dtype=u.dtype, device=u.device)
    else:
        below = size < SATURATED_SHARE * first.slope.peak
        saturated = torch.count_nonzero(below.flatten(1), dim=1) / below[0].numel()
    return saturated.to(u.dtype), largest


def _reduce(
    seen: Sequence[Seen], measure: Callable[[Tensor, Seen], tuple[Tensor, ...]]
) -> list[Part]:
    groups: dict[object, list[Seen]] = defaultdict(list)
    for index, item in enumerate(seen):
        x = item.tensor
        alone = index if x.numel() > STACKED_ENTRIES else None
        groups[(x.shape, x.dtype, x.device, id(item.slope), item.channels_first, alone)].append(
            item
        )
    parts = []
    for items in groups.values():
        tensors = [item.tensor.detach() for item in items]
        if tensors[0].numel() == 0:
            continue
        stacked = torch.stack(tensors) if len(tensors) > 1 else tensors[0].unsqueeze(0)
        values = measure(_real(stacked), items[0])
        parts.append(Part(tuple(i.row for i in items), tensors[0].numel(), values))
    return parts


def _real(x: Tensor) -> Tensor:
    """Half precision is measured in float32, integers (an embedding's input) likewise."""
    if x.dtype in (torch.float32, torch.float64):
        return x
    return x.abs().float() if x.is_complex() else x.float()


@dataclass(frozen=True)
class Cells:
    """A column's measured cells: `values[i]` belongs to row `rows[i]`."""

    rows: tuple[int, ...]
    values: Tensor


def combine_moments(parts: Sequence[Part]) -> tuple[Cells, Cells] | None:
    """Mean and standard deviation over all entries of a row, of however many parts."""
    if not parts:
        return None
    rows, single = _rows(parts)
    if single:
        return _joined(rows, parts, 0), _joined(rows, parts, 1)
    index, count, (mean, std) = _aligned(parts, rows)
    # Scaled by the row's largest magnitude so that squares stay inside float64.
    size = torch.zeros(len(rows), dtype=torch.float64, device=mean.device)
    size = size.scatter_reduce(0, index, torch.maximum(mean.abs(), std), "amax")
    scale = torch.where((size > 0) & torch.isfinite(size), size, 1.0)
    mean, std = mean / scale[index], std / scale[index]
    total = torch.zeros_like(size).index_add(0, index, count)
    mean_R = torch.zeros_like(size).index_add(0, index, count * mean) / total
    square = count * (std.square() + (mean - mean_R[index]).square())
    std_R = (torch.zeros_like(size).index_add(0, index, square) / total).sqrt()
    dtype = parts[0].values[0].dtype
    return Cells(rows, (mean_R * scale).to(dtype)), Cells(rows, (std_R * scale).to(dtype))


def combine_rms(parts: Sequence[Part]) -> Cells | None:
    """Root mean square over all entries of a row."""
    with_mean = [Part(p.rows, p.count, (torch.zeros_like(p.values[0]), *p.values)) for p in parts]
    combined = combine_moments(with_mean)
    return None if combined is None else combined[1]


def combine_slopes(parts: Sequence[Part]) -> tuple[Cells, Cells] | None:
    """Saturated share over all entries; share of units that no part found alive."""
    if not parts:
        return None
    rows, single = _rows(parts)
    if single:
        dead = [
            Part(p.rows, p.count, ((p.values[1] == 0).to(p.values[0].dtype).mean(1),))
            for p in parts
        ]
        return _joined(rows, parts, 0), _joined(rows, dead, 0)
    index, count, (saturated,) = _aligned(
        [Part(p.rows, p.count, p.values[:1]) for p in parts], rows
    )
    total = torch.zeros(len(rows), dtype=torch.float64, device=count.device)
    saturated_R = total.index_add(0, index, count * saturated) / total.index_add(0, index, count)
    largest: dict[int, Tensor] = {}
    for part in parts:
        for position, row in enumerate(part.rows):
            new = part.values[1][position]
            known = largest.get(row)
            largest[row] = torch.maximum(known, new) if known is not None else new
    dtype = parts[0].values[0].dtype
    dead_R = torch.stack([(largest[row] == 0).to(dtype).mean() for row in rows])
    return Cells(rows, saturated_R.to(dtype)), Cells(rows, dead_R)


def _rows(parts: Sequence[Part]) -> tuple[tuple[int, ...], bool]:
    """The rows that occur, and whether each occurs once."""
    every = [row for part in parts for row in part.rows]
    rows = tuple(dict.fromkeys(every))
    return rows, len(rows) == len(every)


def _joined(rows: tuple[int, ...], parts: Sequence[Part], quantity: int) -> Cells:
    return Cells(rows, torch.cat([part.values[quantity] for part in parts]))


def _aligned(parts: Sequence[Part], rows: tuple[int, ...]) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Positions in `rows`, counts and quantities of all parts, each one float64 vector."""
    device = parts[0].values[0].device
    position = {row: i for i, row in enumerate(rows)}
    index = _sent(torch.tensor([position[r] for part in parts for r in part.rows]), device)
    counts = [float(part.count) for part in parts for _ in part.rows]
    count = _sent(torch.tensor(counts, dtype=torch.float64), device)
    num_quantities = len(parts[0].values)
    values = [torch.cat([part.values[q] for part in parts]).double() for q in range(num_quantities)]
    return index, count, values


def _sent(x: Tensor, device: torch.device) -> Tensor:
    """`x` on the device; from pinned memory, since a plain copy to CUDA waits for the device."""
    return x if device.type == "cpu" else x.pin_memory().to(device, non_blocking=True)
