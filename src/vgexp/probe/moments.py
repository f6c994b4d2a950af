"""Reduces the tensors that passed by in a step to a few numbers a layer, many layers at once.

Axes: G tensors of one group (equal shape, one row each), R rows of `layers.csv`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from vgexp import metrics
from vgexp.watch import Slope

STACKED_ENTRIES = 2**17
"""Entries of a stack at most: half a megabyte in float32, which stays in a core's cache."""
SATURATED_SHARE = 0.05
"""A bounded activation is saturated where |phi'| is below this share of its largest value."""


class Part(NamedTuple):
    """Numbers of one group: `values` [G] each, over `num_entries` entries a row."""

    rows: tuple[int, ...]
    num_entries: int
    values: tuple[Tensor, ...]


class Seen(NamedTuple):
    """A tensor that passed by at a row, with phi' where it is an activation's."""

    row: int
    tensor: Tensor
    slope: Slope | None


Parts = dict[str, list[Part]]
"""Quantity (`z`, `h`, `slope`, `delta`) -> parts."""


def reduce(role: str, seen: Sequence[Seen], channels_first: frozenset[int]) -> Parts:
    """What is kept of the tensors of one role.

    `z`, `h`: mean and population standard deviation. `delta`: root mean square. `slope`, from an
    activation's input `u` or output `y`: share of saturated entries (nan where phi is unbounded)
    and the largest |phi'| of each unit.
    """
    parts: Parts = defaultdict(list)
    for group in _groups(seen, channels_first):
        tensors = [item.tensor for item in group]
        num_entries = tensors[0].numel()
        if num_entries == 0:
            continue
        stacked = _real(torch.stack(tensors) if len(tensors) > 1 else tensors[0].unsqueeze(0))
        rows = tuple(item.row for item in group)
        is_channels_first = rows[0] in channels_first
        for name, values in REDUCTIONS[role](stacked, group[0].slope, is_channels_first).items():
            parts[name].append(Part(rows, num_entries, values))
    return parts


def _groups(seen: Sequence[Seen], channels_first: frozenset[int]) -> list[list[Seen]]:
    """Tensors that can be stacked: equal kind, and no more entries than fit one stack."""
    groups: list[list[Seen]] = []
    open_groups: dict[object, list[Seen]] = {}
    for item in seen:
        x, slope = item.tensor, item.slope
        key = (x.shape, x.dtype, x.device, id(slope), item.row in channels_first)
        group = open_groups.get(key)
        can_grow = slope is None or slope.stackable
        if group is None or not can_grow or (len(group) + 1) * x.numel() > STACKED_ENTRIES:
            group = []
            groups.append(group)
            open_groups[key] = group
        group.append(item)
    return groups


Measured = Mapping[str, tuple[Tensor, ...]]


def _moments(name: str) -> Callable[[Tensor, Slope | None, bool], Measured]:
    return lambda x, _slope, _first: {name: metrics.row_moments(x.flatten(1))}


def _rms(delta: Tensor, _slope: Slope | None, _channels_first: bool) -> Measured:
    return {"delta": (metrics.row_rms(delta.flatten(1)),)}


def _input_slopes(u: Tensor, slope: Slope | None, channels_first: bool) -> Measured:
    assert slope is not None
    # Without the stack's axis where there is one tensor: a slope may know its axes.
    size = slope.derivative(u[0]).unsqueeze(0) if len(u) == 1 else slope.derivative(u)
    return {"slope": _slope_shares(size, slope, channels_first)}


def _output_slopes(y: Tensor, slope: Slope | None, channels_first: bool) -> Measured:
    assert slope is not None
    assert slope.from_output is not None
    return {"slope": _slope_shares(slope.from_output(y), slope, channels_first)}


def _output(y: Tensor, slope: Slope | None, channels_first: bool) -> Measured:
    return {
        "h": metrics.row_moments(y.flatten(1)),
        **_output_slopes(y, slope, channels_first),
    }


REDUCTIONS: Mapping[str, Callable[[Tensor, Slope | None, bool], Measured]] = {
    "z": _moments("z"),
    "h": _moments("h"),
    "u": _input_slopes,
    "y": _output_slopes,
    "hy": _output,
    "delta": _rms,
}
"""Role -> measurement of a stack: z before the activation, h after it, u its input, y its own
output, hy where y is h, delta = dL/dz."""


def _slope_shares(slopes: Tensor, slope: Slope, channels_first: bool) -> tuple[Tensor, Tensor]:
    size = slopes.abs_()
    unit_axis = 2 if channels_first and size.ndim > 2 else size.ndim - 1
    other_axes = [axis for axis in range(1, size.ndim) if axis != unit_axis]
    largest = size.amax(other_axes) if other_axes else size.clone()
    if slope.peak is None:
        saturated = torch.full((len(size),), torch.nan, dtype=size.dtype, device=size.device)
    else:
        # In place: a comparison that makes booleans is twice as slow.
        below = size.lt_(SATURATED_SHARE * slope.peak)
        saturated = below.flatten(1).mean(1)
    return saturated, largest


def _real(x: Tensor) -> Tensor:
    """Half precision is measured in float32; of complex numbers, the magnitude."""
    if x.dtype in (torch.float32, torch.float64):
        return x
    return x.abs().float() if x.is_complex() else x.float()


class Cells(NamedTuple):
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
    with_mean = [
        Part(p.rows, p.num_entries, (torch.zeros_like(p.values[0]), *p.values)) for p in parts
    ]
    combined = combine_moments(with_mean)
    return None if combined is None else combined[1]


def combine_slopes(parts: Sequence[Part]) -> tuple[Cells, Cells] | None:
    """Saturated share over all entries; share of units that no part found alive."""
    if not parts:
        return None
    rows, single = _rows(parts)
    if single:
        dead = [
            Part(p.rows, p.num_entries, ((p.values[1] == 0).to(p.values[0].dtype).mean(1),))
            for p in parts
        ]
        return _joined(rows, parts, 0), _joined(rows, dead, 0)
    index, count, (saturated,) = _aligned(
        [Part(p.rows, p.num_entries, p.values[:1]) for p in parts], rows
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
    counts = [float(part.num_entries) for part in parts for _ in part.rows]
    count = _sent(torch.tensor(counts, dtype=torch.float64), device)
    num_quantities = len(parts[0].values)
    values = [torch.cat([part.values[q] for part in parts]).double() for q in range(num_quantities)]
    return index, count, values


def _sent(x: Tensor, device: torch.device) -> Tensor:
    """`x` on the device; from pinned memory, since a plain copy to CUDA waits for the device."""
    return x if device.type == "cpu" else x.pin_memory().to(device, non_blocking=True)
