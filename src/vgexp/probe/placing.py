"""Writes numbers of layers into the rows of a user's model."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from torch import nn

from vgexp.probe.calls import Call
from vgexp.probe.flat import leaf_of
from vgexp.probe.graph import parameters_behind
from vgexp.probe.hooks import Note
from vgexp.probe.layout import Layout, is_in, joined
from vgexp.probe.numbering import Unit, mark_bypassed
from vgexp.probe.plan import Rank

BYPASSED = (
    "on a branch: a shortcut leads round, and no module's output carries the sum; no number, and no"
    " place on the path of layers"
)


class Placing:
    """Gives the rows of a plan their numbers, and makes rows of the blocks that were found.

    Args:
        note: told of weights that get no number, with the reason.
    """

    def __init__(self, layout: Layout, note: Note) -> None:
        self._layout = layout
        self._plan = layout.plan
        self._note = note

    def assign(self, units: Sequence[Unit], calls: Mapping[str, Call]) -> None:
        """Writes numbers without gaps into the rows."""
        plan = self._plan
        shown = {row for _, row in plan.preacts}
        called = {
            row
            for name in self._layout.own
            if name in calls
            for row in joined(self._layout.own[name])
        }
        mark_bypassed(units, plan, shown)
        on_path = [unit for unit in units if not unit.is_bypassed]
        heads = [u for u in on_path if plan.rows[u.rows[0][0]].kind == "readout"]
        top = max((u.number for u in heads), default=0)
        for unit in heads:
            unit.number = top
        skipped = self._skipped_blocks(on_path, calls)
        numbers: list[float] = sorted(
            {*skipped.values(), *(n for u in on_path for n in range(u.number, u.last + 1))}
        )
        dense = {number: place for place, number in enumerate(numbers, start=1)}
        for unit in units:
            for offset, layer in enumerate(unit.rows):
                for row in layer:
                    plan.placed.add(row)
                    if unit.is_bypassed:
                        self._note(row, BYPASSED)
                    else:
                        plan.rows[row].layer = dense[unit.number + offset]
            if unit.block is not None:
                self._fill(unit, dense[unit.number], called)
        for name, number in skipped.items():
            self._reserve(name, dense[number])
        plan.placed |= called
        self._place_functional(called, calls)

    def _skipped_blocks(self, units: Sequence[Unit], calls: Mapping[str, Call]) -> dict[str, float]:
        """Blocks that this pass left out, each with a number between those of its neighbours.

        They have the class of a block beside them in the same container, as where layers are
        dropped at random.
        """
        blocks = {u.block.name: u.number for u in units if u.block is not None}
        found: dict[str, float] = {}
        children: dict[str, list[str]] = {}
        for name in self._layout.streams:
            children.setdefault(name.rpartition(".")[0], []).append(name)
        for container in dict.fromkeys(name.rpartition(".")[0] for name in blocks):
            beside = children[container]
            kinds = {type(self._layout.modules[n]) for n in beside if n in blocks} - {nn.Sequential}
            waiting: list[str] = []
            last: int | None = None
            for name in [n for n in beside if type(self._layout.modules[n]) in kinds]:
                if name in blocks:
                    found |= _between(waiting, last, blocks[name])
                    waiting, last = [], blocks[name]
                elif name not in calls:
                    waiting.append(name)
            found |= _between(waiting, last, None)
        return found

    def _reserve(self, name: str, number: int) -> None:
        """Gives a block that was not called, and all weights in it, a number."""
        plan = self._plan
        stream = plan.rows[self._layout.streams[name]]
        stream.layer, stream.is_wanted = number, plan.wants(stream.name)
        shown = {row for _, row in plan.preacts}
        for row in self._layout.within[name]:
            if plan.rows[row].layer is None:
                plan.rows[row].layer = number
            if row not in shown:
                plan.rows[row].rank = max(plan.rows[row].rank, Rank.HIDDEN)

    def _fill(self, unit: Unit, number: int, called: Collection[int]) -> None:
        """Gives the weights that a block used its number, and it a row of its own."""
        plan, block = self._plan, unit.block
        assert block is not None
        stream = plan.rows[self._layout.streams[block.name]]
        stream.is_wanted = plan.wants(stream.name)
        for row in self._used_within(block.name, block.call, called):
            if plan.rows[row].layer is None:
                plan.rows[row].layer = number
                plan.placed.add(row)

    def _place_functional(self, called: Collection[int], calls: Mapping[str, Call]) -> None:
        """Gives weights whose modules are not called the number of the module that uses them."""
        plan = self._plan
        for name, layers in self._layout.own.items():
            call = calls.get(name)
            number = plan.rows[layers[0][0]].layer
            if call is None or number is None or len(layers) > 1:
                continue
            for row in self._used_within(name, call, called):
                if plan.rows[row].layer is None and row not in plan.placed:
                    plan.rows[row].layer = number
                    plan.rows[row].rank = Rank.HIDDEN
                    plan.placed.add(row)

    def _used_within(self, name: str, call: Call, called: Collection[int]) -> list[int]:
        """The weights in a module that its call used, whether by calls of their own or not.

        Args:
            called: the weights that have a call of their own, here or elsewhere.
        """
        plan = self._plan
        rows = sorted(self._layout.within[name])
        if all(row in called for row in rows):
            return rows
        traced = call.traced
        starts = [place for _, place in traced.outputs if place is not None]
        stops = {place for _, place in traced.inputs if place is not None}
        behind = parameters_behind(starts, stops)
        used = []
        for row in rows:
            weight = plan.rows[row].weight
            if row in called or (
                weight is not None and (id(leaf_of(weight)) in behind or not weight.requires_grad)
            ):
                if row not in called:
                    plan.rows[row].rank = max(plan.rows[row].rank, Rank.HIDDEN)
                used.append(row)
        return used

    def place_later(self, calls: Mapping[str, Call]) -> None:
        """Numbers weights that were first used at a later step."""
        plan = self._plan
        number, given = 0, None
        for name in sorted(
            (n for n in self._layout.own if n in calls), key=lambda n: calls[n].start
        ):
            read = calls[name].inputs[0][0] if calls[name].inputs else None
            rows = [plan.merged.get(row, row) for row in joined(self._layout.own[name])]
            layers = [plan.rows[row].layer for row in rows]
            new = [row for row in rows if plan.rows[row].layer is None and row not in plan.placed]
            if new:
                of_block = self._number_of_block(name)
                if of_block is not None:
                    number = of_block
                elif number == 0 or read is None or read is not given:
                    number += 1
                for row in new:
                    plan.rows[row].layer = number
                    plan.placed.add(row)
            else:
                number = max((layer or 0 for layer in layers), default=number) or number
            given = read

    def _number_of_block(self, name: str) -> int | None:
        for stream, row in self._layout.streams.items():
            layer = self._plan.rows[row].layer
            if layer is not None and is_in(name, stream):
                return layer
        return None


def _between(names: Sequence[str], last: int | None, after: int | None) -> dict[str, float]:
    """Numbers for names between two whole ones, of which one may be missing."""
    if last is None:
        last = (after or 0) - 1
    return {name: last + place / (len(names) + 1) for place, name in enumerate(names, start=1)}
