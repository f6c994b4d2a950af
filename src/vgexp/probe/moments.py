"""Reduces the tensors of a step to a few numbers for each layer, many layers at once.

Axes: G tensors of one group (equal shape, one row each), R rows of `layers.csv`.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from typing import NamedTuple

import torch
from torch import Tensor

from vgexp import metrics
from vgexp.probe import stacks
from vgexp.watch import SATURATED_SHARE, Slope

OUTLIER = 6.0
"""The magnitude from which an entry of h is an outlier.

Dettmers et al. 2022, LLM.int8() (arXiv:2208.07339): in transformers, features of at least this
magnitude decide what quantisation to 8 bits costs.
"""

FEW = 32
"""Entries of a unit that are looked at first, to see that it is not dead."""


class GroupNumbers(NamedTuple):
    """Numbers of one group of tensors: `values` [G] each, over `num_entries` entries a row."""

    rows: tuple[int, ...]
    num_entries: int
    values: tuple[Tensor, ...]


Seen = tuple[int, Tensor, Slope | None]
"""A measured tensor: its row, itself, and phi' where it is an activation's. A plain tuple, since
hundreds are made in a step."""

Parts = dict[str, list[GroupNumbers]]
"""Quantity (`z`, `h`, `peak`, `slope`, `delta`) -> parts."""

Measured = Mapping[str, tuple[Tensor, ...]]
StackMeasure = Callable[[Tensor, Slope | None, bool], Measured]
"""Takes a stack, phi' where it is an activation's, and whether channels come first."""


def reduce(measure: StackMeasure, seen: Sequence[Seen], channels_first: frozenset[int]) -> Parts:
    """Stacks the tensors of one role and measures the stacks."""
    parts: Parts = defaultdict(list)
    for group in _groups(seen, channels_first):
        first_row, first, slope = group[0]
        num_entries = first.numel()
        if num_entries == 0:
            continue
        stacked = torch.stack([x for _, x, _ in group]) if len(group) > 1 else first.unsqueeze(0)
        rows = tuple([row for row, _, _ in group])
        measured = measure(_real(stacked), slope, first_row in channels_first)
        for name, values in measured.items():
            parts[name].append(GroupNumbers(rows, num_entries, values))
    return parts


def _groups(seen: Sequence[Seen], channels_first: frozenset[int]) -> list[list[Seen]]:
    """Groups tensors that can be stacked: alike, and with no more entries than fit one stack."""
    if len(seen) == 1:
        return [list(seen)]
    groups: list[list[Seen]] = []
    open_groups: dict[object, list[Seen]] = {}
    last: tuple[object, ...] = ()
    group: list[Seen] = []
    most = 0
    for item in seen:
        row, x, slope = item
        kind = (x.shape, x.dtype, x.device, slope, row in channels_first)
        if kind != last:
            group, last = open_groups.get(kind, []), kind
            most = stacks.most_together(x) if slope is None or slope.stackable else 1
        if not group or len(group) >= most:
            open_groups[kind] = group = []
            groups.append(group)
        group.append(item)
    return groups


def _preact(z: Tensor, _slope: Slope | None, _channels_first: bool) -> Measured:
    return {"z": metrics.row_moments(z.flatten(1))}


def _act(h: Tensor, _slope: Slope | None, _channels_first: bool) -> Measured:
    flat = h.flatten(1)
    return {"h": metrics.row_moments(flat), "peak": metrics.row_outliers(flat, OUTLIER)}


def _rms(delta: Tensor, _slope: Slope | None, _channels_first: bool) -> Measured:
    return {"delta": (metrics.row_rms(delta.flatten(1)),)}


def _input_slopes(u: Tensor, slope: Slope | None, channels_first: bool) -> Measured:
    assert slope is not None

    def derivative(u: Tensor) -> Tensor:
        # Without the stack's axis where there is one tensor: a slope may know its axes.
        return slope.derivative(u[0]).unsqueeze(0) if len(u) == 1 else slope.derivative(u)

    return {"slope": _slope_shares(u, derivative, slope, channels_first)}


def _output_slopes(y: Tensor, slope: Slope | None, channels_first: bool) -> Measured:
    assert slope is not None
    assert slope.from_output is not None
    return {"slope": _slope_shares(y, slope.from_output, slope, channels_first)}


def _output(y: Tensor, slope: Slope | None, channels_first: bool) -> Measured:
    return {**_output_slopes(y, slope, channels_first), **_act(y, slope, channels_first)}


REDUCTIONS: Mapping[str, StackMeasure] = {
    "z": _preact,
    "h": _act,
    "u": _input_slopes,
    "y": _output_slopes,
    "hy": _output,
    "delta": _rms,
}
"""Role -> measurement of a stack: z before the activation, h after it, u its input, y its own
output, hy where y is h, delta = dL/dz.

`z`, `h`: mean and population standard deviation. `peak`: largest |h|, and the share of outliers.
`delta`: root mean square. `slope`, from u or y: share of saturated entries (nan where phi is
unbounded) and for each unit a number that is 0 only if phi' is 0 everywhere, its largest |phi'| or,
where phi is unbounded, that of a few entries.
"""


QUANTITIES: Mapping[str, tuple[str, ...]] = {
    "z": ("z",),
    "h": ("h", "peak"),
    "u": ("slope",),
    "y": ("slope",),
    "hy": ("h", "peak", "slope"),
    "delta": ("delta",),
}
"""Role -> the quantities that are measured of it."""


def _slope_shares(
    x: Tensor, derivative: Callable[[Tensor], Tensor], slope: Slope, channels_first: bool
) -> tuple[Tensor, Tensor]:
    unit_axis = 2 if channels_first and x.ndim > 2 else x.ndim - 1
    other_axes = [axis for axis in range(1, x.ndim) if axis != unit_axis]
    if slope.peak is not None:
        # A bounded activation's phi' is nowhere negative.
        size = derivative(x)
        largest = _largest_of_units(size, other_axes)
        # In place: a comparison that makes booleans is twice as slow.
        below = size.lt_(SATURATED_SHARE * slope.peak)
        return below.flatten(1).mean(1), largest
    saturated = torch.full((len(x),), torch.nan, dtype=x.dtype, device=x.device)
    # All that is asked of phi' here is which units are dead, and one entry shows that a unit is
    # not. So a few are computed, and the rest only where these leave it open. On CUDA to look at
    # them would wait for the device.
    few = _few_entries(x, other_axes) if x.is_cpu and slope.stackable else x
    largest = _largest_of_units(derivative(few).abs_(), other_axes)
    if few is not x and not largest.all():
        largest = _largest_of_units(derivative(x).abs_(), other_axes)
    return saturated, largest


def _few_entries(x: Tensor, other_axes: list[int]) -> Tensor:
    """At most `FEW` entries of each unit, of as many examples as possible; all of small tensors."""
    num_entries = math.prod(x.shape[axis] for axis in other_axes)
    if num_entries <= 2 * FEW:
        return x
    left = FEW
    for axis in other_axes:
        length = min(left, x.shape[axis])
        x = x.narrow(axis, 0, length)
        left //= length
    return x


def _largest_of_units(size: Tensor, other_axes: list[int]) -> Tensor:
    if not other_axes:
        return size.clone()
    # Examples first: to reduce short inner axes of many entries at once is slow on CPU.
    if other_axes[-1] > len(other_axes):
        size = size.amax(1, keepdim=True)
    return size.amax(other_axes)


def _real(x: Tensor) -> Tensor:
    """Converts half precision to float32, and complex numbers to their magnitudes."""
    if x.dtype in (torch.float32, torch.float64):
        return x
    return x.abs().float() if x.is_complex() else x.float()


class ColumnCells(NamedTuple):
    """A column's measured cells, one after another in the order of `rows`."""

    rows: tuple[int, ...]
    values: tuple[Tensor, ...]
    """1-d pieces, which are joined only once, when they are read."""
    missing: frozenset[int] = frozenset()
    """Rows whose value is left out, since part of its tensors was lost."""


def combine_moments(parts: Sequence[GroupNumbers]) -> tuple[ColumnCells, ...]:
    """Combines parts into the mean and standard deviation over all entries of each row."""
    rows, single = _rows(parts)
    if single:
        return _joined(rows, parts, 0), _joined(rows, parts, 1)
    if not parts:
        return ()
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
    return (
        ColumnCells(rows, ((mean_R * scale).to(dtype),)),
        ColumnCells(rows, ((std_R * scale).to(dtype),)),
    )


def combine_rms(parts: Sequence[GroupNumbers]) -> tuple[ColumnCells, ...]:
    """Combines parts into the root mean square over all entries of each row."""
    rows, single = _rows(parts)
    if single:
        return (_joined(rows, parts, 0),)
    with_mean = [
        GroupNumbers(p.rows, p.num_entries, (torch.zeros_like(p.values[0]), *p.values))
        for p in parts
    ]
    return combine_moments(with_mean)[1:]


def combine_peaks(parts: Sequence[GroupNumbers]) -> tuple[ColumnCells, ...]:
    """Combines parts into the largest magnitude, and the share of outliers over all entries."""
    rows, single = _rows(parts)
    if single:
        return _joined(rows, parts, 0), _joined(rows, parts, 1)
    if not parts:
        return ()
    index, count, (peak, share) = _aligned(parts, rows)
    largest_R = torch.zeros(len(rows), dtype=torch.float64, device=peak.device)
    largest_R = largest_R.scatter_reduce(0, index, peak, "amax")
    dtype = parts[0].values[0].dtype
    return (
        ColumnCells(rows, (largest_R.to(dtype),)),
        ColumnCells(rows, (_mean_share(index, count, share, len(rows)).to(dtype),)),
    )


def combine_slopes(parts: Sequence[GroupNumbers]) -> tuple[ColumnCells, ...]:
    """Combines parts into the saturated share of entries, and the share of units that are dead."""
    rows, single = _rows(parts)
    if single:
        return _joined(rows, parts, 0), ColumnCells(rows, _dead_shares(parts))
    if not parts:
        return ()
    shares = [GroupNumbers(p.rows, p.num_entries, p.values[:1]) for p in parts]
    index, count, (saturated,) = _aligned(shares, rows)
    saturated_R = _mean_share(index, count, saturated, len(rows))
    dtype = parts[0].values[0].dtype
    dead = tuple([_dead_share([largest[None]]) for largest in _largest(parts, rows)])
    return ColumnCells(rows, (saturated_R.to(dtype),)), ColumnCells(rows, dead)


def _mean_share(index: Tensor, count: Tensor, share: Tensor, num_rows: int) -> Tensor:
    """[R]: the share over all entries of each row."""
    total = torch.zeros(num_rows, dtype=torch.float64, device=count.device)
    return total.index_add(0, index, count * share) / total.index_add(0, index, count)


def _largest(parts: Sequence[GroupNumbers], rows: Sequence[int]) -> list[Tensor]:
    """What tells the dead units of each row; where widths differ, the units of all widths."""
    largest: dict[int, dict[int, Tensor]] = {row: {} for row in rows}
    for part in parts:
        for row, new_U in zip(part.rows, part.values[1], strict=True):
            known = largest[row].get(len(new_U))
            largest[row][len(new_U)] = new_U if known is None else torch.maximum(known, new_U)
    return [torch.cat(list(largest[row].values())) for row in rows]


def _dead_shares(parts: Sequence[GroupNumbers]) -> tuple[Tensor, ...]:
    """[G] of parts one after another, those of one width together."""
    largest_GU = [part.values[1] for part in parts]
    same_width = groupby(largest_GU, key=lambda x: (x.shape[1], x.dtype))
    return tuple([_dead_share([*together]) for _, together in same_width])


def _dead_share(largest_GU: list[Tensor]) -> Tensor:
    """[G]: share of the units U whose phi' is 0 everywhere."""
    joined_GU = torch.cat(largest_GU) if len(largest_GU) > 1 else largest_GU[0].clone()
    return joined_GU.eq_(0).mean(1)


def _rows(parts: Sequence[GroupNumbers]) -> tuple[tuple[int, ...], bool]:
    """The rows that occur, and whether each occurs once."""
    every = parts[0].rows if len(parts) == 1 else [row for part in parts for row in part.rows]
    rows = tuple(dict.fromkeys(every))
    return rows, 0 < len(rows) == len(every)


def _joined(rows: tuple[int, ...], parts: Sequence[GroupNumbers], quantity: int) -> ColumnCells:
    return ColumnCells(rows, tuple([part.values[quantity] for part in parts]))


def _aligned(
    parts: Sequence[GroupNumbers], rows: tuple[int, ...]
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """The positions in `rows`, entry counts and quantities of all parts, as float64 vectors."""
    device = parts[0].values[0].device
    position = {row: i for i, row in enumerate(rows)}
    index = metrics.to_device(
        torch.tensor([position[r] for part in parts for r in part.rows]), device
    )
    counts = [float(part.num_entries) for part in parts for _ in part.rows]
    count = metrics.to_device(torch.tensor(counts, dtype=torch.float64), device)
    num_quantities = len(parts[0].values)
    values = [torch.cat([part.values[q] for part in parts]).double() for q in range(num_quantities)]
    return index, count, values
