"""Numbers units from what each reads, along the paths of autograd's graph.

A unit is a block, or a weight outside of blocks. The number of a unit is one more than the largest
number among the units that it reads without another in between; so weights that read the same
stand side by side (query, key and value; gate and value) and share a number.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from vgexp.probe.blocks import Block
from vgexp.probe.calls import Call
from vgexp.probe.graph import Place, before
from vgexp.probe.plan import ProbePlan

_OPAQUE = 1
"""The bit of a mask that stands for what no walk can look into."""
_HIDES = ("CheckpointFunctionBackward", "CompiledFunctionBackward")


@dataclass
class Unit:
    """A block, or a module outside of blocks whose output is z of its weights."""

    rows: list[tuple[int, ...]]
    """Its rows, one tuple a layer."""
    call: Call
    block: Block | None = None
    number: int = 0
    reads: int = 0
    """The units that it reads, as bits of a mask."""
    carries: int = 0
    """Those that the input leads to that a block carries."""
    above: int = 0
    """All units that lie before it."""
    is_bypassed: bool = False
    twins: list[Call] = field(default_factory=list)
    """Calls of further modules that share its weight, in the same role."""

    @property
    def last(self) -> int:
        """The number of its last layer."""
        return self.number + max(0, len(self.rows) - 1)


@dataclass
class Places:
    """Where outputs of units were made."""

    first: dict[Place, int] = field(default_factory=dict)
    again: dict[Place, int] = field(default_factory=dict)
    """Further uses of a unit's weight, which take no number of their own."""


def number_units(units: Sequence[Unit], places: Places, data: Collection[int]) -> None:
    """Numbers units in the order of their calls, and says which ones each reads."""
    paths = _Paths(units, places)
    made = {id(x): i for i, unit in enumerate(units) for x, _ in unit.call.outputs}
    memory = {_memory(x): i for i, unit in enumerate(units) for x, _ in unit.call.outputs}
    hidden: int | None = None
    seen: dict[int, int] = {}
    for index, unit in enumerate(units):
        known = [place for _, place in unit.call.inputs if place is not None]
        out = unit.call.output
        # What a weight reads is what its output was computed from, not all that it was given.
        reads = paths.reach(known if unit.block is not None or out is None else before(out))
        floats = [x for x, place in unit.call.inputs if place is None and x.is_floating_point()]
        if not known and floats:
            reads |= _guess(floats[0], made, memory, data, hidden, index)
        if reads & _OPAQUE:
            last = index - 1 if hidden is None else hidden
            reads = (reads & ~_OPAQUE) | (0 if last < 0 else 1 << (last + 1))
        # A unit reads only what was called before it.
        unit.number = 1 + paths.deepest(reads)
        unit.reads = reads & ((1 << (index + 1)) - 1)
        unit.carries = unit.reads
        if unit.block is not None and unit.block.read is not None:
            unit.carries &= paths.reach([unit.block.read])
        same = seen.setdefault(id(unit.call.inputs[0][0]), index) if unit.call.inputs else index
        if same != index and not known:
            unit.number, unit.reads = units[same].number, units[same].reads
        for bit in _bits(unit.reads):
            unit.above |= units[bit].above | 1 << (bit + 1)
        if unit.call.output is None:
            hidden = index


def _guess(
    x: Tensor,
    made: Mapping[int, int],
    memory: Mapping[int, int],
    data: Collection[int],
    hidden: int | None,
    index: int,
) -> int:
    """The unit whose output a tensor without a graph comes from: frozen, detached or hidden."""
    source = made.get(id(x), memory.get(_memory(x)))
    if source is None and id(x) not in data:
        source = hidden
    return 0 if source is None or source >= index else 1 << (source + 1)


def _memory(x: Tensor) -> int:
    try:
        return x.untyped_storage().data_ptr() or id(x)
    except Exception:  # a tensor without memory of its own, such as a sparse one
        return id(x)


class _Paths:
    """Finds the units that places lead back to, each place once.

    A concatenation is followed along the part that is deepest in weights only, so that layers that
    are connected densely are still one after another.
    """

    def __init__(self, units: Sequence[Unit], places: Places) -> None:
        self._units = units
        self._places = places
        self._known: dict[Place, int] = {}

    def reach(self, starts: Iterable[Place]) -> int:
        """The mask of the units that paths first lead to."""
        mask = 0
        for start in starts:
            mask |= self._reach(start)
        return mask

    def _reach(self, start: Place) -> int:
        known, pending = self._known, [start]
        while pending:
            place = pending[-1]
            if place in known:
                pending.pop()
                continue
            unit = self._places.first.get(place)
            if unit is not None:
                known[place] = 1 << (unit + 1)
                continue
            further = before(place)
            missing = [each for each in further if each not in known]
            if missing:
                pending += missing
                continue
            known[place] = self._join(place, [known[each] for each in further])
        return known[start]

    def _join(self, place: Place, masks: list[int]) -> int:
        name = place[0].name()
        if name in _HIDES:
            return _OPAQUE
        if name.startswith("CatBackward"):
            mask = max(masks, key=self.deepest, default=0)
        else:
            mask = 0
            for each in masks:
                mask |= each
        # A further use takes no number, but what reads it comes after the first one.
        again = self._places.again.get(place)
        return mask if again is None else mask | 1 << (len(self._units) + again + 1)

    def deepest(self, mask: int) -> int:
        """The largest number of the units in a mask."""
        num_units = len(self._units)
        return max((self._units[bit % num_units].last for bit in _bits(mask)), default=0)


def _bits(mask: int) -> Iterable[int]:
    """The indices of the units in a mask."""
    mask >>= 1
    index = 0
    while mask:
        zeros = (mask & -mask).bit_length() - 1
        mask >>= zeros + 1
        index += zeros
        yield index
        index += 1


def mark_bypassed(units: Sequence[Unit], plan: ProbePlan, shown: Collection[int]) -> None:
    """Marks weights between two units of which one reads the other round them."""
    below = [0] * len(units)
    for index in reversed(range(len(units))):
        for bit in _bits(units[index].reads):
            below[bit] |= below[index] | 1 << (index + 1)
    between = 0
    for unit in units:
        for source in _bits(unit.carries):
            between |= unit.above & below[source]
    for index in _bits(between):
        each = units[index]
        row = each.rows[0][0]
        if each.block is None and row in shown and plan.rows[row].kind != "readout":
            each.is_bypassed = True
