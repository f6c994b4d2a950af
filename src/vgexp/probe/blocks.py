"""Recognises the blocks of a user's model, whose outputs are the stream that gradients run along.

A module carries its input if its first output has the shape of a tensor that it was given, and a
path that passes no weight leads from the one to the other. Of the modules that carry and contain
weights, those are blocks that are no mere containers of others.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor, nn

from vgexp.probe.calls import Call
from vgexp.probe.graph import Place, carries, nearest


@dataclass
class Block:
    """A module of the stream."""

    name: str
    call: Call
    starts: Mapping[int, int]
    """Its weights that have a call of their own, and when the first one began."""
    carried: int | None
    """Which of its inputs it carries, or reads first; None where that is not known."""

    @property
    def given(self) -> Tensor | None:
        """The input that it carries, as it was passed."""
        return None if self.carried is None else self.call.inputs[self.carried][0]

    @property
    def read(self) -> Place | None:
        """Where the input that it carries was made, when it was called."""
        return None if self.carried is None else self.call.inputs[self.carried][1]

    @property
    def read_in_graph(self) -> Place | None:
        """The same in the graph that has its output, which is another one under a checkpoint."""
        traced = self.call.traced
        if self.carried is None or self.carried >= len(traced.inputs):
            return None
        return traced.inputs[self.carried][1]


def outer_names(name: str) -> Iterator[str]:
    """The names of the modules that a module is in, the innermost first, the model's "" last."""
    while name:
        name = name.rpartition(".")[0]
        yield name


Starts = Mapping[str, Mapping[int, int]]
"""For each module the weights within it that were called, and when."""


def find_blocks(
    modules: Mapping[str, nn.Module],
    calls: Mapping[str, Call],
    starts: Starts,
    candidates: Collection[str],
    shown: Mapping[Place, str],
) -> list[Block]:
    """Finds the blocks, in the order of their calls.

    Args:
        modules: by name; `calls` has those that were called.
        starts: for each candidate the weights within it that were called, and when.
        candidates: the modules that may be blocks.
        shown: where outputs of weights were made, with the modules that own the weights.
    """
    stops = set(shown)
    called = [name for name in candidates if name in calls and starts[name]]
    carriers: dict[str, Block] = {}
    for name in called:
        # A module that owns weights and adds their product to its input is a block itself.
        own = {place for place in calls[name].places() if shown.get(place) == name}
        others = stops - own if own else stops
        carried = _carried(calls[name].traced, others)
        if carried is not None and carried < len(calls[name].inputs):
            carriers[name] = Block(name, calls[name], starts[name], carried)
    found = [
        each for name in _outermost(carriers) for each in _resolve(name, carriers, modules, stops)
    ]
    blocks = {name: carriers[name] for name in found}
    _add_alike(blocks, modules, calls, starts, called)
    return sorted(blocks.values(), key=lambda block: block.call.start)


def _carried(traced: Call, stops: Collection[Place]) -> int | None:
    """Which of its inputs a module carries."""
    out = traced.output
    if out is None:
        return None
    shape = traced.outputs[0][0].shape
    for index, (x, place) in enumerate(traced.inputs):
        if place is not None and x.shape == shape and carries(out, place, stops):
            return index
    return None


def _resolve(
    name: str,
    carriers: Mapping[str, Block],
    modules: Mapping[str, nn.Module],
    stops: Collection[Place],
) -> list[str]:
    """The blocks that a module consists of: itself, unless it is a container of others."""
    inner = _outermost({n: b for n, b in carriers.items() if n.startswith(f"{name}.")})
    if inner and _is_container(carriers[name], [carriers[n] for n in inner], modules, stops):
        return [each for n in inner for each in _resolve(n, carriers, modules, stops)]
    return [name]


def _outermost(blocks: Mapping[str, Block]) -> list[str]:
    """The names of blocks that are in no other, in the order of their calls."""
    names = [n for n in blocks if not any(outer in blocks for outer in outer_names(n) if outer)]
    return sorted(names, key=lambda n: blocks[n].call.start)


def _is_container(
    block: Block,
    inner: Sequence[Block],
    modules: Mapping[str, nn.Module],
    stops: Collection[Place],
) -> bool:
    """Whether its inner blocks, one after another, are all that lies between input and output.

    No shortcut leads round them. They hold all of its weights, or they are blocks of one class and
    further weights come before the first of them.
    """
    ends = {place: each.name for each in inner for place in each.call.places()}
    out, read = block.call.traced.output, block.read_in_graph
    if out is None or read is None or carries(out, read, {*stops, *ends}):
        return False
    if not all(_follows(here, after, ends, stops) for here, after in pairwise(inner)):
        return False
    held = {row for each in inner for row in each.starts}
    others = [start for row, start in block.starts.items() if row not in held]
    if not others:
        return True
    classes = {type(modules[each.name]) for each in inner}
    return len(inner) > 1 and len(classes) == 1 and max(others) < inner[0].call.start


def _follows(
    here: Block, after: Block, ends: Mapping[Place, str], stops: Collection[Place]
) -> bool:
    """Whether a block reads the output of another, and nothing besides."""
    if after.given is not None and any(after.given is x for x, _ in here.call.outputs[:1]):
        return True
    read = after.read or after.read_in_graph
    return read is not None and nearest(read, ends, stops) == {here.name}


def _add_alike(
    blocks: dict[str, Block],
    modules: Mapping[str, nn.Module],
    calls: Mapping[str, Call],
    starts: Starts,
    called: Sequence[str],
) -> None:
    """Adds the other modules of the blocks' classes, such as those that change the shape."""
    classes = {type(modules[name]) for name in blocks} - {nn.Sequential}
    holders = {outer for name in blocks for outer in outer_names(name)}
    for name in called:
        if type(modules[name]) not in classes:
            continue
        if name in blocks or any(outer in blocks for outer in outer_names(name) if outer):
            continue
        inner = [n for n in blocks if n.startswith(f"{name}.")] if name in holders else []
        if any(type(modules[other]) is type(modules[name]) for other in inner):
            continue
        for other in inner:
            del blocks[other]
        inputs = calls[name].inputs
        first = next((i for i, (x, _) in enumerate(inputs) if x.is_floating_point()), None)
        blocks[name] = Block(name, calls[name], starts[name], first)
        holders.update(outer_names(name))
