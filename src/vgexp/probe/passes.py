"""Keeps the tensors of one forward pass and its backward pass until they are reduced.

A reference is kept where later code leaves the tensor alone, a copy where it overwrites it in
place. The probe learns which is which: on the first measured step everything is copied, and the
originals are checked later. Gradients need no copies, since autograd writes into no tensor that
anything else refers to.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import torch
from torch import Tensor

from vgexp.probe import histograms, moments, stacks
from vgexp.probe.moments import GroupNumbers, Seen, StackMeasure
from vgexp.torch_internals import base_of, version_of
from vgexp.watch import Slope

Kept = tuple[int, Tensor, int, Tensor | None, Slope | None]
"""Row, tensor or copy, its version when it was kept, the copy's original, phi'. A plain tuple: it
is made within the user's forward pass, and a named tuple costs six times as much."""

OVERWRITTEN = "a tensor was overwritten in place before it was measured"
NO_MEASURES: Mapping[str, Sequence[StackMeasure]] = MappingProxyType({})
TWICE = "gradients of one call came in several backward passes, the first already reduced"


class Awaited:
    """dL/dz of one call: one tensor for each backward pass through it."""

    __slots__ = ("came", "is_reduced", "num_accepted", "row")

    def __init__(self, row: int) -> None:
        self.row = row
        self.came: list[Tensor | None] = []
        """None where nothing comes back through the call: a recurrent net's output, of which the
        last state alone is read, is such a one."""
        self.num_accepted = 0
        self.is_reduced = False


class Copies:
    """Learns at which (role, row) a tensor must be copied because later code overwrites it."""

    def __init__(self) -> None:
        self._learning = True
        self._needed: set[tuple[str, int]] = set()
        self.are_none = False
        """Whether references are enough everywhere."""

    def take(self, role: str, row: int, x: Tensor, slope: Slope | None) -> Kept:
        """Keeps `x` as a reference or a copy."""
        x = x.detach()
        if self._learning:
            return row, x.clone(), version_of(x), x, slope
        if self._needed and (role, row) in self._needed:
            x = x.clone()
        return row, x, version_of(x), None, slope

    def select_intact(self, role: str, kept: list[Kept]) -> tuple[list[Seen], set[int]]:
        """Separates tensors that still have their value from the rows of those that have not.

        Overwritten tensors are remembered, and copied from the next step on.
        """
        if not self._learning:
            intact = [(row, x, slope) for row, x, at, _, slope in kept if version_of(x) == at]
            if len(intact) == len(kept):
                return intact, set()
        seen, lost = [], set()
        for row, tensor, version, original, slope in kept:
            if version_of(tensor if original is None else original) != version:
                self._needed.add((role, row))
                self.are_none = False
                if original is None:
                    lost.add(row)
                    continue
            seen.append((row, tensor, slope))
        return seen, lost

    def stop_learning(self) -> None:
        """Ends the first step: from now on references are kept where they were enough."""
        self._learning = False
        self.are_none = not self._needed


class Pass:
    """One micro-batch: its size, the tensors kept of it, and the numbers they were reduced to.

    The tensors of a role are reduced as soon as they fill a stack, while they are in the cache. So
    memory does not grow with depth.
    """

    def __init__(
        self,
        copies: Copies,
        channels_first: frozenset[int],
        examples: int,
        task: int,
        *,
        with_histograms: bool = False,
        own: Mapping[str, Sequence[StackMeasure]] = NO_MEASURES,
    ) -> None:
        self.examples = examples
        self.input_shape: tuple[int, ...] = ()
        """Of the first tensor that the model, or whatever began the pass, was given."""
        self.opened_in_task = task
        """Autograd's number of the backward pass in which it began; -1: it began in none."""
        self.backward_tasks: set[int] = set()
        """Autograd's numbers of the backward passes through it."""
        self.parts: dict[str, list[GroupNumbers]] = {}
        self.lost: dict[tuple[str, int], str] = {}
        """(quantity, row) -> why it cannot be measured."""
        self.last_row: int | None = None
        self.last_shape: torch.Size | None = None
        """The row and the shape of the z that came last."""
        self.num_named = 0
        self.mark = object()
        """By which the pass knows its own nodes of the autograd graph."""
        self.num_calls: dict[tuple[str, int], int] = {}
        """(role, row) -> calls so far."""
        self._copies = copies
        self._channels_first = channels_first
        self._with_histograms = with_histograms
        self._own = own
        self._kept: dict[str, list[Kept]] = {role: [] for role in moments.REDUCTIONS}
        self._num_entries = dict.fromkeys(moments.REDUCTIONS, 0)
        self._awaited: list[Awaited] = []
        self._of_forward: set[tuple[str, int]] | None = None
        self._row_of: dict[int, tuple[weakref.ref[Tensor], int]] = {}

    @property
    def has_gradients(self) -> bool:
        """Whether a backward pass went through it."""
        return "delta" in self.parts or any(awaited.came for awaited in self._awaited)

    def keep(self, role: str, row: int, x: Tensor, slope: Slope | None = None) -> None:
        """Keeps a tensor of the forward pass."""
        key = (role, row)
        self.num_calls[key] = self.num_calls.get(key, 0) + 1
        if self._copies.are_none:
            kept: Kept = (row, x.detach(), version_of(x), None, slope)
        else:
            kept = self._copies.take(role, row, x, slope)
        self._kept[role].append(kept)
        num_entries = self._num_entries[role] + x.numel()
        self._num_entries[role] = num_entries
        if num_entries >= stacks.HOST_WAITING and num_entries >= stacks.most_waiting(x):
            self._reduce(role)

    def await_gradient(self, row: int) -> Awaited:
        """Adds a place for dL/dz of the call that was just kept."""
        awaited = Awaited(row)
        self._awaited.append(awaited)
        return awaited

    def take_gradient(self, awaited: Awaited, gradient: Tensor | None) -> None:
        """Keeps a large gradient, and reduces the kept ones when they fill a stack."""
        if gradient is None:
            return
        if awaited.is_reduced:
            self.lost[("delta", awaited.row)] = TWICE
        awaited.came.append(gradient)
        self._num_entries["delta"] += gradient.numel()
        if self._num_entries["delta"] >= stacks.most_waiting(gradient):
            self.reduce_gradients()

    def accept_gradients(self, is_of_update: bool) -> None:
        """Ends a backward pass: its gradients count if they are the update's, or are dropped."""
        for awaited in self._awaited:
            if is_of_update:
                awaited.num_accepted = len(awaited.came)
            else:
                del awaited.came[awaited.num_accepted :]

    def reduce_accepted(self) -> None:
        """Reduces large gradients once they count, so that many passes do not keep them all."""
        if self._num_entries["delta"] and all(a.num_accepted == len(a.came) for a in self._awaited):
            self.reduce_gradients()

    def reduce_gradients(self) -> None:
        """Reduces the kept gradients to a few numbers for each row, and forgets them."""
        seen: list[Seen] = []
        for awaited in self._awaited:
            came = [gradient for gradient in awaited.came if gradient is not None]
            if came:
                seen.append((awaited.row, _sum(came), None))
            if awaited.came:
                awaited.came.clear()
                awaited.num_accepted = 0
                awaited.is_reduced = True
        self._num_entries["delta"] = 0
        self._add("delta", seen)

    def reduce(self) -> None:
        """Reduces the kept tensors of the forward pass to a few numbers a row, and forgets them."""
        for role in self._kept:
            self._reduce(role)

    def repeats(self, role: str, row: int) -> bool:
        """Whether a call within a backward pass repeats one of the forward pass (checkpointing)."""
        if self._of_forward is None:
            self._of_forward = set(self.num_calls)
        return (role, row) in self._of_forward

    def name(self, z: Tensor, row: int) -> None:
        """Remembers the row of a z, as long as the tensor lives."""
        self._row_of[id(z)] = weakref.ref(z), row

    def row_of(self, x: Tensor) -> int | None:
        """The row whose z a tensor is, or is a view of."""
        known = self._row_of.get(id(x))
        if known is not None and known[0]() is x:
            return known[1]
        base = base_of(x)
        known = None if base is None else self._row_of.get(id(base))
        return known[1] if known is not None and known[0]() is base else None

    def _reduce(self, role: str) -> None:
        kept = self._kept[role]
        if not kept:
            return
        self._kept[role], self._num_entries[role] = [], 0
        seen, lost = self._copies.select_intact(role, kept)
        for row in lost:
            for quantity in moments.QUANTITIES[role]:
                self.lost[(quantity, row)] = OVERWRITTEN
        self._add(role, seen)

    def _add(self, role: str, seen: list[Seen]) -> None:
        measures = [moments.REDUCTIONS[role]]
        if self._with_histograms and role in histograms.REDUCTIONS:
            measures.append(histograms.REDUCTIONS[role])
        measures += self._own.get(role, ())
        for measure in measures:
            for quantity, parts in moments.reduce(measure, seen, self._channels_first).items():
                self.parts.setdefault(quantity, []).extend(parts)


def _sum(gradients: list[Tensor]) -> Tensor:
    """Adds up dL/dz of one call over several backward passes."""
    total = gradients[0]
    for more in gradients[1:]:
        total = total + more
    return total.detach() if total.requires_grad else total
