"""What passed by in one forward pass and the backward pass through it, kept until it is reduced.

A reference is kept where later code leaves the tensor alone, a copy where it overwrites it in
place. Which is which is learnt: on the first measured step everything is copied and the originals
are looked at again.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from torch import Tensor

from vgexp.probe import moments
from vgexp.probe.moments import Part, Seen
from vgexp.watch import Slope

PENDING_BYTES = 256 * 2**20
"""Bytes kept at most before they are reduced, so that memory does not grow with depth."""


class Kept(NamedTuple):
    """A tensor that passed by, or its copy; `original` is what the copy was taken from."""

    row: int
    call: int
    tensor: Tensor
    version: int
    original: Tensor | None
    slope: Slope | None


class Copies:
    """Knows at which (role, row) a tensor must be copied because later code overwrites it."""

    def __init__(self) -> None:
        self._learning = True
        self._needed: set[tuple[str, int]] = set()

    def take(self, role: str, row: int, call: int, x: Tensor, slope: Slope | None = None) -> Kept:
        """Keeps `x` as a reference or a copy."""
        x = x.detach()
        if self._learning:
            return Kept(row, call, x.clone(), x._version, x, slope)
        if (role, row) in self._needed:
            x = x.clone()
        return Kept(row, call, x, x._version, None, slope)

    def intact(self, role: str, kept: Iterable[Kept], lost: set[int]) -> list[Seen]:
        """Those whose value is still what passed by; notes for the next time which are not."""
        seen = []
        for row, _, tensor, version, original, slope in kept:
            if original is None:
                overwritten = tensor._version != version
                is_lost = overwritten
            else:
                overwritten, is_lost = original._version != version, False
            if overwritten:
                self._needed.add((role, row))
            if is_lost:
                lost.add(row)
            else:
                seen.append(Seen(row, tensor, slope))
        return seen

    def learnt(self) -> None:
        """Ends the first step: from now on references are kept where they sufficed."""
        self._learning = False


class Pass:
    """One micro-batch: its size, what is kept of it, and the parts already reduced.

    `z`, `h` (activations' outputs), `u` (their inputs with phi') and `y` (their own outputs with
    phi' as a function of them) are of the forward pass, `delta` = dL/dz of the backward pass.
    """

    def __init__(self, copies: Copies, channels_first: frozenset[int], examples: int) -> None:
        self.examples = examples
        self.kept: dict[str, list[Kept]] = {role: [] for role in moments.REDUCTIONS}
        self.parts: dict[str, list[Part]] = {}
        self.lost: set[int] = set()
        self.last_row: int | None = None
        self.num_calls: dict[int, int] = {}
        self.backward = False
        self._copies = copies
        self._channels_first = channels_first
        self._bytes = 0
        self._of_forward: dict[str, set[int]] | None = None

    def keep(self, role: str, row: int, call: int, x: Tensor, slope: Slope | None = None) -> None:
        """Keeps one tensor."""
        kept = self._copies.take(role, row, call, x, slope)
        self.kept[role].append(kept)
        self._bytes += kept.tensor.nbytes
        if self._bytes > PENDING_BYTES:
            self.reduce(backward_too=True)

    def repeats(self, role: str, row: int) -> bool:
        """Whether a call within a backward pass repeats one of the forward pass (checkpointing)."""
        if self._of_forward is None:
            self._of_forward = {
                name: {k.row for k in kept} | {r for p in self.parts.get(name, []) for r in p.rows}
                for name, kept in self.kept.items()
            }
        return row in self._of_forward[role]

    def reduce(self, *, backward_too: bool) -> None:
        """Turns what is kept into a few numbers a row and lets the tensors go."""
        for role, kept in self.kept.items():
            if not kept or (role == "delta" and not backward_too):
                continue
            if role == "delta":
                kept = _summed_repeats(kept)
            seen = self._copies.intact(role, kept, self.lost)
            for name, parts in moments.reduce(role, seen, self._channels_first).items():
                self.parts.setdefault(name, []).extend(parts)
            self.kept[role] = []
        self._bytes = sum(k.tensor.nbytes for kept in self.kept.values() for k in kept)


def _summed_repeats(kept: list[Kept]) -> list[Kept]:
    """dL/dz of one call that came in several backward passes: the gradients add."""
    if len({(k.row, k.call) for k in kept}) == len(kept):
        return kept
    sums: dict[tuple[int, int], Kept] = {}
    for k in kept:
        known = sums.get((k.row, k.call))
        if known is not None:
            total = known.tensor + k.tensor
            k = Kept(k.row, k.call, total, total._version, None, None)
        sums[(k.row, k.call)] = k
    return list(sums.values())
