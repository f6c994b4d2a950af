"""Weights and gradients of which each rank holds a part (`fully_shard`; flat pieces of FSDP1).

A rank measures its part, and one exchange makes of the ranks' numbers those of the whole tensors.

Axes: D ranks along one dimension of a mesh, Q columns, R rows.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from vgexp import metrics
from vgexp.probe.flat import FlatWeight
from vgexp.probe.moments import ColumnCells
from vgexp.torch_internals import is_in_flat

NORMS = ("grad_norm", "grad_norm_clipped", "weight_norm", "update_norm")
"""Columns whose squares add up."""
PEAKS = ("grad_max",)
SHARES = ("grad_zero_fraction",)
"""Columns that are means over entries."""
_WHOLE = frozenset({Tensor, nn.Parameter, type(None)})
"""Types of what is on this rank alone, which is nearly always so; and of no weight."""
COLUMNS = (*NORMS, *PEAKS, *SHARES)


def local_part(x: Tensor, like: Tensor | None = None) -> Tensor:
    """The part of a tensor that this rank holds: the tensor itself where it is not sharded.

    A rank that holds none of its entries has a zero, which changes no norm.

    Args:
        like: the weight whose gradient `x` is; it is laid out as the weight is, if it is not.
    """
    if type(x) in _WHOLE and type(like) in _WHOLE:
        return x
    if isinstance(x, FlatWeight):
        return _not_empty(x.local())
    if isinstance(like, FlatWeight):
        return _not_empty(x)
    kind = _sharded_kind()
    if kind is None or not isinstance(x, kind):
        return x
    sharded: Any = x
    if isinstance(like, kind) and sharded.placements != like.placements:
        sharded = sharded.redistribute(placements=like.placements)
    return _not_empty(sharded.to_local())


def _not_empty(part: Tensor) -> Tensor:
    return part if part.numel() else part.new_zeros(1)


def join_shards(
    cells: Mapping[str, ColumnCells], weights: Mapping[int, Tensor]
) -> dict[str, ColumnCells]:
    """Makes the cells of whole weights of those of each rank's parts.

    Every rank of a mesh or group has to call it, with the same weights. One exchange for each
    dimension of a mesh along which weights are sharded is made, of all their numbers; none where
    none are.

    A cell that a rank lacks is nan for all. A column that is no sum, mean or peak over entries is
    left out for sharded weights.
    """
    joined = dict(cells)
    parted: dict[tuple[tuple[Any, ...], torch.device | None], tuple[int, ...]] = {
        (tuple([mesh.get_group(dim) for dim in dims]), None): rows
        for (mesh, dims), rows in _meshes(weights).items()
    }
    flat = {row: w for row, w in weights.items() if isinstance(w, FlatWeight)}
    parted |= {((group,), device): rows for (group, device), rows in _groups(flat).items()}
    for (groups, device), rows in parted.items():
        numbers_QR, counts_R = _numbers(cells, weights, rows, device)
        for group in groups:
            numbers_QR, counts_R = _exchanged(numbers_QR, counts_R, group)
        values_QR = dict(zip(COLUMNS, numbers_QR, strict=True))
        for name, column in joined.items():
            joined[name] = _replaced(column, rows, values_QR.get(name))
    return joined


def squares_of_shards(tensors: Sequence[Tensor]) -> Tensor:
    """The sum of squares over all entries of sharded tensors, a 0-d float64 tensor.

    Every rank of their meshes has to call it; it waits for the others.
    """
    total: Tensor | None = None
    for (mesh, dims), rows in _meshes(dict(enumerate(tensors)), with_whole=True).items():
        square = metrics.total_norm([local_part(tensors[i]).double() for i in rows]).square()
        for dim in dims:
            torch.distributed.all_reduce(square, group=mesh.get_group(dim))
        total = square if total is None else total + square
    return torch.zeros((), dtype=torch.float64) if total is None else total


def squares_of_flat(weights: Sequence[FlatWeight]) -> Tensor:
    """The sum of squares over all entries of the gradients of such weights, a 0-d float64 tensor.

    Every rank of their groups has to call it, with the same weights; it waits for the others.
    """
    known = dict(enumerate(weights))
    total = torch.zeros((), dtype=torch.float64)
    groups: dict[Any, tuple[int, ...]] = {**_groups(known)}
    shared = {row for rows in groups.values() for row in rows}
    groups[None] = tuple([row for row in known if row not in shared])
    for key, rows in groups.items():
        grads = [g.double() for row in rows if (g := weights[row].grad) is not None and g.numel()]
        square = metrics.total_norm(grads).square() if grads else torch.zeros((), dtype=total.dtype)
        if key is not None:
            square = square.to(key[1])
            torch.distributed.all_reduce(square, group=key[0])
        total = total + square.to(total.device)
    return total


def is_sharded(x: Tensor) -> bool:
    """Whether a tensor is one of a mesh of ranks, or a parameter in flat pieces."""
    kind = _sharded_kind()
    return isinstance(x, FlatWeight) or is_in_flat(x) or (kind is not None and isinstance(x, kind))


def _sharded_kind() -> Any:
    """torch's class of sharded tensors; None where nothing has loaded it, so that there is none."""
    return getattr(sys.modules.get("torch.distributed.tensor"), "DTensor", None)


def _meshes(
    weights: Mapping[int, Tensor], *, with_whole: bool = False
) -> dict[tuple[Any, tuple[int, ...]], tuple[int, ...]]:
    """The rows of sharded weights, by mesh and the mesh's dimensions along which they are.

    Args:
        with_whole: whether those that every rank of a mesh has whole are listed too.
    """
    kind = _sharded_kind()
    groups: dict[tuple[Any, tuple[int, ...]], tuple[int, ...]] = {}
    for row, weight in weights.items():
        if kind is not None and isinstance(weight, kind):
            sharded: Any = weight
            placed = enumerate(sharded.placements)
            dims = tuple([dim for dim, placement in placed if not placement.is_replicate()])
            if dims or with_whole:
                key = (sharded.device_mesh, dims)
                groups[key] = (*groups.get(key, ()), row)
    return groups


def _groups(
    weights: Mapping[int, FlatWeight],
) -> dict[tuple[Any, torch.device], tuple[int, ...]]:
    """The rows of weights in flat pieces, by the ranks that hold the pieces and where they exchange
    them."""
    found: dict[tuple[Any, torch.device], tuple[int, ...]] = {}
    for row, weight in weights.items():
        key = weight.group
        if key is not None:
            found[key] = (*found.get(key, ()), row)
    return found


def _numbers(
    cells: Mapping[str, ColumnCells],
    weights: Mapping[int, Tensor],
    rows: tuple[int, ...],
    device: torch.device | None,
) -> tuple[Tensor, Tensor]:
    """[Q, R] this rank's numbers, nan where it has none, and [R] how many entries they are of.

    Args:
        device: where the ranks exchange them; None: where the parts are.
    """
    every: list[Any] = [weights[row] for row in rows]
    parts = [w.local() if isinstance(w, FlatWeight) else w.to_local() for w in every]
    device = device or parts[0].device
    counts = torch.tensor([float(part.numel()) for part in parts], dtype=torch.float64)
    numbers_QR = torch.full((len(COLUMNS), len(rows)), torch.nan, dtype=torch.float64)
    numbers_QR, counts_R = (metrics.to_device(x, device) for x in (numbers_QR, counts))
    for column_R, name in zip(numbers_QR, COLUMNS, strict=True):
        if name in cells and cells[name].values:
            place = {row: index for index, row in enumerate(cells[name].rows)}
            found = [(i, place[row]) for i, row in enumerate(rows) if row in place]
            to, of = (metrics.to_device(torch.tensor(x, dtype=torch.long), device)
                      for x in ([i for i, _ in found], [j for _, j in found]))  # fmt: skip
            column_R[to] = metrics.to_device(torch.cat(cells[name].values).double(), device)[of]
    return numbers_QR, counts_R


def _exchanged(numbers_QR: Tensor, counts_R: Tensor, group: Any) -> tuple[Tensor, Tensor]:
    """The numbers and counts over all ranks of a group."""
    own = torch.cat((numbers_QR, counts_R[None]))
    gathered = [torch.empty_like(own) for _ in range(torch.distributed.get_world_size(group))]
    torch.distributed.all_gather(gathered, own, group=group)
    all_DQR = torch.stack(gathered)
    counts_DR = all_DQR[:, -1]
    total_R = counts_DR.sum(0)
    joined = []
    for name, of_DR in zip(COLUMNS, all_DQR.unbind(1), strict=False):
        if name in NORMS:
            joined.append(metrics.row_norms(of_DR.T.contiguous()))
        elif name in PEAKS:
            joined.append(of_DR.amax(0))
        else:
            joined.append((of_DR * counts_DR).sum(0) / total_R)
    return torch.stack(joined), total_R


def _replaced(column: ColumnCells, rows: tuple[int, ...], values_R: Tensor | None) -> ColumnCells:
    """A column with other values in some rows; without these where there are none."""
    if values_R is None:
        return column._replace(missing=column.missing | frozenset(rows))
    place = {row: index for index, row in enumerate(rows)}
    found = [(j, place[row]) for j, row in enumerate(column.rows) if row in place]
    if not found:
        return column
    joined = torch.cat(column.values)
    to, of = (metrics.to_device(torch.tensor(x), joined.device)
              for x in ([j for j, _ in found], [i for _, i in found]))  # fmt: skip
    joined[to] = metrics.to_device(values_R, joined.device)[of].to(joined.dtype)
    return column._replace(values=(joined,))
