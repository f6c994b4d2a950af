"""Finds the weights that a user's model reads its output off, and the uses of shared weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from torch import Tensor, nn

from vgexp.probe.blocks import Block
from vgexp.probe.calls import Call
from vgexp.probe.flat import leaf_of
from vgexp.probe.graph import Place, before, mixes, only_leaf, place_of, walk
from vgexp.probe.hooks import Note
from vgexp.probe.layout import Layout, enclosing
from vgexp.probe.numbering import Unit

READ_OFF = (
    "the model's output is read off it by a function whose calls are not seen: no row has z of the"
    " read-out"
)
READ_OFF_ANOTHER = (
    "its output is read off a matrix by a function whose calls are not seen, or off a matrix that"
    " is none of its parameters: no row has z of the read-out"
)
_KINDS = ("linear", "conv")
"""Of weights that may be a read-out."""


def find_readouts(
    layout: Layout,
    output: Sequence[Tensor],
    blocks: Sequence[Block],
    owners: Sequence[str],
    calls: Mapping[str, Call],
    note: Note,
) -> list[int] | None:
    """The weights that the model's output is read off; None where no output tells.

    Args:
        note: told of a weight that the output is read off by a function which is not known.
    """
    roots = [place for x in output if (place := place_of(x)) is not None]
    if not roots:
        return None
    rows: dict[Place, int | None] = {
        place: None for block in blocks for place in block.call.places()
    }
    shown = dict(layout.shown_rows(owners))
    of_blocks = {block.name for block in blocks}
    for name in owners:
        inside = enclosing(name, of_blocks) is not None
        later = calls[name].later
        for place in calls[name].places():
            is_first = not inside and place not in later
            rows.setdefault(place, shown.get(name) if is_first else None)
    weights = {
        id(leaf_of(r.weight)): row for row, r in enumerate(layout.plan.rows) if r.weight is not None
    }

    def ends(place: Place) -> bool:
        return place in rows or (mixes(place[0]) and any(map(is_weight, before(place))))

    def is_weight(factor: Place) -> bool:
        leaf = only_leaf(factor)
        # `fully_shard` has other parameters in a pass.
        is_other = isinstance(leaf, nn.Parameter) and leaf.ndim > 1
        return leaf is not None and (id(leaf) in weights or is_other)

    reached = list(walk(roots, ends))
    found = [row for p in reached if (row := rows.get(p)) is not None]
    found = [r for r in dict.fromkeys(found) if layout.plan.rows[r].kind in _KINDS]
    if not found and not any(ends(place) for place in reached):
        return None
    for place in () if found else reached:
        for factor in before(place) if place not in rows and mixes(place[0]) else ():
            if is_weight(factor):
                row = weights.get(id(only_leaf(factor)))
                note(row, READ_OFF_ANOTHER if row is None else READ_OFF)
    if len(found) > 1:
        found = _without_inputs(found, rows)
    return found


def _without_inputs(found: list[int], rows: Mapping[Place, int | None]) -> list[int]:
    """Those of several weights that no other of them lies behind."""
    behind: set[int] = set()
    for place in [p for p, row in rows.items() if row in found]:
        for other in walk(before(place), lambda _: False):
            row = rows.get(other)
            if row is not None and row != rows[place]:
                behind.add(row)
    return [row for row in found if row not in behind] or found[-1:]


def mark_last(layout: Layout, units: Sequence[Unit]) -> None:
    """Marks the weight that was called last as the read-out, if nothing reads its z."""
    read = 0
    for unit in units:
        read |= unit.reads
    shown = {row for _, row in layout.plan.preacts}
    ends = [u for index, u in enumerate(units) if not read >> (index + 1) & 1]
    if not ends or ends[-1].block is not None:
        return
    row = ends[-1].rows[0][0]
    if row in shown and layout.plan.rows[row].kind in _KINDS:
        layout.plan.rows[row].kind = "readout"


def merge_twins(layout: Layout, owners: Iterable[str]) -> None:
    """Puts uses of a shared weight in one role into one row, and leaves others their own."""
    plan = layout.plan
    sharing: dict[int, list[tuple[str, int]]] = {}
    for name, row in layout.shown_rows(owners):
        sharing.setdefault(plan.twins.get(row, row), []).append((name, row))
    for main, uses in sharing.items():
        # The row of the weight is that of its own module's use, or else of the first.
        first_name, first = min(uses, key=lambda use: use[1] != main)
        for name, row in uses:
            if row in (first, main) or _is_alike(layout, name, row, first_name, first):
                if row != main:
                    plan.merged[row] = main
            else:
                plan.rows[row].is_wanted = plan.wants(plan.rows[row].name)
        if first != main:
            plan.rows[main].kind = plan.rows[first].kind
    plan.preacts = [(m, plan.merged.get(row, row)) for m, row in plan.preacts]


def _is_alike(layout: Layout, name: str, row: int, other_name: str, other: int) -> bool:
    modules, rows = layout.modules, layout.plan.rows
    are_embeddings = [isinstance(modules[n], nn.Embedding) for n in (name, other_name)]
    return are_embeddings[0] == are_embeddings[1] and rows[row].kind == rows[other].kind
