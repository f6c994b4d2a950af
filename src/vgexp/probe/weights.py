"""Measures the columns of weights and gradients, around one optimizer step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from vgexp import metrics
from vgexp.probe import stacks
from vgexp.probe.flat import FlatWeight, is_in_parts
from vgexp.probe.moments import ColumnCells
from vgexp.probe.plan import PlanRow
from vgexp.probe.sharded import join_shards, local_part
from vgexp.quantities import LAYERS, Measure

Stacks = list[tuple[tuple[int, ...], Tensor]]
"""(rows, [G, N]): tensors of one shape, stacked where they are small."""


PIECE = 2**18
"""A gradient with more entries is measured in pieces on CPU: of a megabyte in float32, which are
still in a core's cache when they are read again."""
_WHOLE_NUMBERS = {torch.float32: torch.int32, torch.float64: torch.int64}
"""dtype -> one of whole numbers with as many bytes."""

Numbers = tuple[Tensor, Tensor, Tensor]
"""Of the rows of a stack: largest magnitude, L2 norm, and share of zeros."""

UPDATE_NORM = "update_norm"
"""Norm of W's change; `update_ratio` is this over `weight_norm`."""


DECLARED = {column.name: column.measure for column in LAYERS if column.measure is not None}
"""Columns whose declaration says how they are computed."""


class WeightMeter:
    """Measures gradients before clipping, gradients as the optimizer sees them, and the update.

    Its methods are called while autograd records nothing. All numbers of a tensor are computed
    before the next tensor is read, since a network's weights do not fit into a core's cache.

    Args:
        reuse: whether the copies of weights use the memory of the step before. It costs memory
            between steps, but saves page faults where every step is measured.
        measures: further columns of weights or of gradients, by name.
    """

    def __init__(
        self,
        rows: Sequence[PlanRow],
        *,
        reuse: bool = False,
        measures: Mapping[str, Measure] = DECLARED,
    ) -> None:
        self._reuse = reuse
        self._measures = measures
        self._weights = {
            index: row.weight
            for index, row in enumerate(rows)
            if row.is_wanted and row.weight is not None
        }
        self._groups: dict[tuple[int, ...], list[tuple[int, ...]]] = {}
        self._cells: dict[str, ColumnCells] = {}
        self._before: Stacks = []
        self._copies: dict[tuple[int, ...], Tensor] = {}
        self._scratch: Tensor | None = None

    @property
    def weights(self) -> Mapping[int, Tensor]:
        """The weights by row."""
        return self._weights

    @property
    def gradients(self) -> Mapping[int, Tensor]:
        """The gradients that are there, by row."""
        return {
            index: grad
            for index, weight in self._weights.items()
            if weight.requires_grad and (grad := weight.grad) is not None
        }

    @property
    def whole_weights(self) -> Mapping[int, Tensor]:
        """Those that this rank has whole, or that know their other parts, by row."""
        return {
            index: weight.local() if isinstance(weight, FlatWeight) else weight
            for index, weight in self._weights.items()
            if not is_in_parts(weight)
        }

    @property
    def whole_gradients(self) -> Mapping[int, Tensor]:
        """The gradients of such weights that are there."""
        return {i: g for i, g in self.gradients.items() if not is_in_parts(self._weights[i])}

    def before_clip(self) -> None:
        """Measures the gradient's columns now; without this call `take_gradients` does."""
        groups = self._gradients()
        # First, since what follows writes into the stacks.
        self._measure("gradient", groups)
        numbers = [
            _numbers_of_sizes(grad.abs_()) if len(members) > 1 else self._numbers(grad)
            for members, grad in groups
        ]
        rows = _rows(groups)
        for place, name in enumerate(("grad_max", "grad_norm", "grad_zero_fraction")):
            self._cells[name] = ColumnCells(rows, tuple([each[place] for each in numbers]))

    def take_gradients(self) -> None:
        """Measures the gradient that the optimizer sees, and what `before_clip` did not."""
        if "grad_norm" in self._cells:
            groups = self._gradients()
            norms = tuple([metrics.row_norms(grad) for _, grad in groups])
            self._cells["grad_norm_clipped"] = ColumnCells(_rows(groups), norms)
        else:
            self.before_clip()
            self._cells["grad_norm_clipped"] = self._cells["grad_norm"]

    def gradient_norms(self, column: str) -> dict[int, float]:
        """The cells of `grad_norm` or `grad_norm_clipped` so far, by the identity of the parameter;
        none where reading them would wait for the device."""
        cells = self._cells.get(column)
        if cells is None or not cells.values or not all(x.is_cpu for x in cells.values):
            return {}
        norms = torch.cat(cells.values).tolist()
        return {id(self._weights[row]): norm for row, norm in zip(cells.rows, norms, strict=True)}

    def copy_weights(self) -> None:
        """Measures the norms of weights, and copies those that the update may change."""
        norms, self._before = [], []
        weights = self._stacks({i: local_part(w) for i, w in self._weights.items()})
        self._measure("weight", weights)
        for rows, w in weights:
            norms.append(metrics.row_norms(w))
            if any(self._weights[i].requires_grad for i in rows):
                self._before.append((rows, w if len(rows) > 1 else self._copy(rows, w)))
        self._cells["weight_norm"] = ColumnCells(_rows(weights), tuple(norms))

    def after_step(self) -> None:
        """Measures the norm of the change of the copied weights."""
        norms = []
        for rows, before in self._before:
            after = _stacked([local_part(self._weights[i]) for i in rows])
            # In place: the copy is of no further use, and a third tensor would cost more memory.
            norms.append(metrics.row_norms(before.sub_(after)))
        if norms:
            self._cells[UPDATE_NORM] = ColumnCells(_rows(self._before), tuple(norms))
        self._before = []

    def join_shards(self) -> None:
        """Makes the numbers of sharded weights, so far of this rank's part, those of the whole."""
        self._cells = join_shards(self._cells, self._weights)

    def collect(self) -> dict[str, ColumnCells]:
        """Ends a step. Returns the cells of each column."""
        cells, self._cells, self._before = self._cells, {}, []
        return cells

    def _measure(self, of: str, groups: Stacks) -> None:
        for name, measure in self._measures.items():
            if measure.of == of:
                values = tuple([measure.function(x_RN) for _, x_RN in groups])
                self._cells[name] = ColumnCells(_rows(groups), values)

    def _gradients(self) -> Stacks:
        return self._stacks(
            {i: local_part(grad, self._weights[i]) for i, grad in self.gradients.items()}
        )

    def _numbers(self, grad_1N: Tensor) -> Numbers:
        """Of one gradient, which stays as it is."""
        if grad_1N.is_cpu and grad_1N.numel() > PIECE and grad_1N.dtype in _WHOLE_NUMBERS:
            memory = self._memory_for(grad_1N[:, :PIECE])[0]
            peak, norm, share = _numbers_in_pieces(grad_1N, memory)
            return peak, metrics.row_norms(grad_1N) if norm is None else norm, share
        return _numbers_of_sizes(torch.abs(grad_1N, out=self._memory_for(grad_1N)))

    def _copy(self, rows: tuple[int, ...], weight: Tensor) -> Tensor:
        """A copy of a weight."""
        if not (self._reuse and weight.is_cpu):
            return weight.clone()
        copy = self._copies.get(rows)
        if copy is None or copy.shape != weight.shape or copy.dtype is not weight.dtype:
            copy = self._copies[rows] = torch.empty_like(weight)
        return copy.copy_(weight)

    def _memory_for(self, x_1N: Tensor) -> Tensor:
        """Memory for as many entries as a tensor has, reused where possible."""
        if self._scratch is None or not _fits(x_1N, self._scratch):
            self._scratch = torch.empty_like(x_1N)
        return self._scratch[:, : x_1N.shape[1]]

    def _stacks(self, tensors: Mapping[int, Tensor]) -> Stacks:
        present = tuple(tensors)
        groups = self._groups.get(present)
        if groups is None:
            groups = self._groups[present] = _groups(tensors)
        return [(rows, _stacked([tensors[i] for i in rows])) for rows in groups]


def _groups(tensors: Mapping[int, Tensor]) -> list[tuple[int, ...]]:
    """Groups rows whose tensors go into one stack: alike, and not too large."""
    groups: list[list[int]] = []
    open_groups: dict[object, list[int]] = {}
    for index, x in tensors.items():
        kind = (x.shape, x.dtype, x.device)
        alone = x.is_cpu and x.numel() > metrics.SMALL_TENSOR
        group = open_groups.get(kind)
        if group is None or alone or len(group) >= stacks.most_together(x):
            open_groups[kind] = group = []
            groups.append(group)
        group.append(index)
    return [tuple(rows) for rows in groups]


def _stacked(tensors: list[Tensor]) -> Tensor:
    """Stacks G tensors of one shape to [G, N], dense, real, in a dtype that has norms.

    A view for one tensor of such a kind.
    """
    dense = [x if x.layout is torch.strided else x.to_dense() for x in tensors]
    stacked = dense[0].unsqueeze(0) if len(dense) == 1 else torch.stack(dense)
    if stacked.dtype is not torch.float32 and stacked.dtype is not torch.float64:
        stacked = torch.view_as_real(stacked) if stacked.is_complex() else stacked.float()
    return stacked.flatten(1) if stacked.ndim > 1 else stacked[:, None]


def _numbers_of_sizes(size_RN: Tensor) -> Numbers:
    """Writes into the magnitudes."""
    peak_R, norm_R = metrics.row_peaks_and_norms(size_RN)
    if size_RN.is_cpu and size_RN.numel() and bool(size_RN.amin() > 0):
        return peak_R, norm_R, torch.zeros_like(peak_R)
    # In place: a comparison that makes booleans is twice as slow.
    return peak_R, norm_R, size_RN.eq_(0).mean(1)


def _numbers_in_pieces(x_1N: Tensor, memory: Tensor) -> tuple[Tensor, Tensor | None, Tensor]:
    """The numbers of one tensor, each piece of which is read once; None for a norm whose plain
    squares may have left the range of the dtype.

    Args:
        memory: for the magnitudes of a piece.
    """
    norms, peaks, num_zeros = [], [], 0
    for piece in torch.split(x_1N[0], PIECE):
        size = torch.abs(piece, out=memory[: piece.numel()])
        norms.append(metrics.piece_norms(size[None])[0])
        # As whole numbers, numbers without a sign have the same order, nan comes last, and they
        # are compared faster.
        bits = size.view(_WHOLE_NUMBERS[x_1N.dtype])
        peaks.append(bits.amax())
        if not bits.amin():
            # In place: a comparison that makes booleans is twice as slow.
            num_zeros += round(float(size.eq_(0).mean()) * piece.numel())
    peak_1 = torch.stack(peaks).amax(0, keepdim=True).view(x_1N.dtype)
    norm = torch.linalg.vector_norm(torch.cat(norms), dtype=torch.float64)
    is_safe = metrics.is_safe(float(norm), x_1N.numel(), x_1N.dtype)
    share_1 = x_1N.new_full((1,), num_zeros / x_1N.numel())
    return peak_1, norm.to(x_1N.dtype)[None] if is_safe else None, share_1


def _fits(x_1N: Tensor, scratch: Tensor) -> bool:
    alike = (x_1N.dtype, x_1N.device) == (scratch.dtype, scratch.device)
    return alike and x_1N.shape[1] <= scratch.shape[1]


def _rows(groups: Stacks) -> tuple[int, ...]:
    return tuple([row for rows, _ in groups for row in rows])
