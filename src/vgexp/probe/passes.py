"""What passed by in one forward pass and the backward pass through it, kept until it is reduced.

A reference is kept where later code leaves the tensor alone, a copy where it overwrites it in
place. Which is which is learnt: on the first measured step everything is copied and the originals
are looked at again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor

from vgexp.probe import moments
from vgexp.probe.moments import Part, Seen
from vgexp.watch import Slope

PENDING_BYTES = 256 * 2**20
"""Bytes kept at most before they are reduced, so that memory does not grow with depth."""

REDUCTIONS: dict[str, Callable[[list[Seen]], list[Part]]] = {
    "z": moments.moments,
    "h": moments.moments,
    "u": moments.slopes,
    "delta": moments.rms,
}
"""Role -> how it is reduced: z before the activation, u its input, h its output, delta = dL/dz."""


@dataclass
class Kept:
    """A tensor that passed by, or its copy; `original` is what the copy was taken from."""

    tensor: Tensor
    version: int
    original: Tensor | None = None
    slope: Slope | None = None

    def overwritten(self) -> bool:
        """Whether the tensor that passed by was changed in place since."""
        looked_at = self.tensor if self.original is None else self.original
        return looked_at._version != self.version


class Copies:
    """Knows at which (role, row) a tensor must be copied because later code overwrites it."""

    def __init__(self) -> None:
        self._learning = True
        self._needed: set[tuple[str, int]] = set()

    def take(self, role: str, row: int, x: Tensor, slope: Slope | None) -> Kept:
        """Keeps `x` as a reference or a copy."""
        x = x.detach()
        if x.is_inference() or (role, row) in self._needed:
            copy = x.clone()
            return Kept(copy, copy._version, None, slope)
        if self._learning:
            return Kept(x.clone(), x._version, x, slope)
        return Kept(x, x._version, None, slope)

    def learn(self, role: str, row: int, kept: Kept) -> bool:
        """Notes an overwritten tensor; whether what was kept is still its value."""
        if not kept.overwritten():
            return True
        self._needed.add((role, row))
        return kept.original is not None

    def learnt(self) -> None:
        """Ends the first step: from now on references are kept where they sufficed."""
        self._learning = False


@dataclass
class Pass:
    """One micro-batch: its size, what is kept of it, and the parts already reduced."""

    copies: Copies
    channels_first: frozenset[int]
    examples: int = 0
    last_row: int | None = None
    backward: bool = False
    pending: dict[tuple[str, int, int], Kept] = field(default_factory=dict)
    pending_bytes: int = 0
    calls: dict[tuple[str, int], int] = field(default_factory=dict)
    forward_calls: set[tuple[str, int]] = field(default_factory=set)
    parts: dict[str, list[Part]] = field(default_factory=dict)
    lost: set[int] = field(default_factory=set)

    def keep(self, role: str, row: int, x: Tensor, slope: Slope | None = None) -> int:
        """Keeps a tensor of the forward pass; returns the how-manieth call of its row it is."""
        call = self.calls.get((role, row), 0)
        self.calls[(role, row)] = call + 1
        self._put((role, row, call), self.copies.take(role, row, x, slope))
        return call

    def keep_delta(self, row: int, call: int, delta: Tensor) -> None:
        """Keeps dL/dz of one call; a second backward through the same graph adds to the first."""
        known = self.pending.get(("delta", row, call))
        if known is not None:
            total = known.tensor + delta
            self.pending[("delta", row, call)] = Kept(total, total._version)
        else:
            self._put(("delta", row, call), self.copies.take("delta", row, delta, None))

    def _put(self, key: tuple[str, int, int], kept: Kept) -> None:
        self.pending[key] = kept
        self.pending_bytes += kept.tensor.numel() * kept.tensor.element_size()
        if self.pending_bytes > PENDING_BYTES:
            self.reduce()

    def reduce(self) -> None:
        """Turns what is kept into a few numbers a row and lets the tensors go."""
        by_role: dict[str, list[Seen]] = {}
        for (role, row, _), kept in self.pending.items():
            if self.copies.learn(role, row, kept):
                seen = Seen(row, kept.tensor, kept.slope, row in self.channels_first)
                by_role.setdefault(role, []).append(seen)
            else:
                self.lost.add(row)
        self.pending.clear()
        self.pending_bytes = 0
        for role, seen_list in by_role.items():
            self.parts.setdefault(role, []).extend(REDUCTIONS[role](seen_list))
