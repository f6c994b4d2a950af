"""Learns the layers of a user's model from how its first measured pass uses them."""

from __future__ import annotations

from collections.abc import Collection, Container, Iterable, Mapping, Sequence

from torch import Tensor, nn

from vgexp.probe.blocks import Block, find_blocks, outer_names
from vgexp.probe.calls import Call, Recorder
from vgexp.probe.graph import (
    Place,
    before,
    mixes,
    parameters_behind,
    place_of,
    reads_one_of,
    tensors_in,
    walk,
)
from vgexp.probe.hooks import Note
from vgexp.probe.numbering import Places, Unit, mark_bypassed, number_units
from vgexp.probe.plan import ProbePlan, Rank

BYPASSED = (
    "on a branch: a shortcut leads round, and no module's output carries the sum; no number, and no"
    " place on the path of layers"
)
_READOUT_KINDS = ("linear", "conv")


class Discovery:
    """Learns the layers of a user's model: `arm` before the first pass, `settle` after it.

    Args:
        model: the model, of which `plan` was made.
        note: told of weights that get no number, with the reason.
    """

    def __init__(self, model: nn.Module, plan: ProbePlan, note: Note) -> None:
        self._plan = plan
        self._note = note
        self._modules = dict(model.named_modules())
        self._own = _own_layers(self._modules, plan)
        self._within = _rows_within(self._own)
        self._recorder = Recorder({n: self._modules[n] for n in self._within}, note)
        names = {id(module): name for name, module in self._modules.items()}
        self._streams = {names[id(module)]: row for module, row in plan.streams}
        self._output: list[Tensor] = []

    # ------------------------------------------------------------ life

    @property
    def is_needed(self) -> bool:
        """Whether there are weights that no pass has used yet."""
        plan = self._plan
        return not plan.is_settled or any(
            row.layer is None and row.weight is not None and index not in plan.placed
            for index, row in enumerate(plan.rows)
        )

    def arm(self) -> None:
        """Sets hooks on the modules that contain weights."""
        self._recorder.arm()

    def disarm(self) -> None:
        """Removes the hooks."""
        self._recorder.disarm()

    def drop(self) -> None:
        """Forgets what was recorded."""
        self._recorder.drop()
        self._output.clear()

    def on_output(self, output: object) -> None:
        """Keeps the tensors of the model's output, of the first call with gradients."""
        if not any(x.requires_grad for x in self._output):
            self._output = list(tensors_in(output, in_objects=True))

    # ------------------------------------------------------------ what is learnt

    def settle(self) -> None:
        """Numbers the weights that were used, and makes rows of the blocks that were found.

        A weight that is first used at a later step comes after the one called before it. Weights
        that no call used have no number. Where no call was seen at all (a compiled model), weights
        are numbered in the order of registration.
        """
        plan, calls = self._plan, self._recorder.calls
        if plan.is_settled:
            self._settle_later(calls)
            return
        plan.is_settled = True
        self._settle_first(calls)
        # What comes later needs less: only in which order weights are used.
        self.disarm()
        owners = {name: self._modules[name] for name in self._own}
        self._recorder = Recorder(owners, self._note, with_places=False)
        self._output.clear()

    def _settle_first(self, calls: Mapping[str, Call]) -> None:
        plan = self._plan
        if not any(name in calls for name in self._own):
            weights = [row for row in plan.rows if row.weight is not None]
            for number, weight in enumerate(weights, start=1):
                weight.layer = number
            return
        owners = self._owners(calls)
        shown = {place: name for name in owners for place in calls[name].places()}
        starts: dict[str, dict[int, int]] = {name: {} for name in self._within}
        for owner in owners:
            began = dict.fromkeys(_joined(self._own[owner]), calls[owner].start)
            for name in (owner, *outer_names(owner)):
                starts[name] |= began
        blocks = find_blocks(self._modules, calls, starts, self._streams, shown)
        plan.norm_position = self._norm_position(blocks)
        readouts = self._readouts(blocks, owners, calls)
        if readouts is not None:
            for row in readouts:
                plan.rows[row].kind = "readout"
        self._merge_twins(owners)
        units = self._units(blocks, owners, calls)
        number_units(units, self._places(units, owners, calls), self._data(calls))
        if readouts is None:
            self._find_last(units)
        self._assign(units)

    def _norm_position(self, blocks: Sequence[Block]) -> str | None:
        """Where the normalisation stands in the blocks with attention: behind the sum, or not."""
        attending = [
            block.call.traced.output
            for block in blocks
            if any(
                self._plan.rows[row].kind == "attention"
                for name, layers in self._own.items()
                if name.startswith(f"{block.name}.")
                for row in _joined(layers)
            )
        ]
        made = [place[0].name() for place in attending if place is not None]
        if not made:
            return None
        return "post" if all("Norm" in name for name in made) else "pre"

    def _owners(self, calls: Mapping[str, Call]) -> list[str]:
        """The modules whose output is z of their weights, or takes the place of it, by call.

        A weight of a module whose submodules have weights too, and are called, is free.
        """
        called = [name for name in self._own if name in calls]
        shown = {id(module) for module, _ in self._plan.preacts}
        holders = {outer for name in called for outer in outer_names(name)}
        owners = []
        for name in called:
            is_shown = id(self._modules[name]) in shown
            if is_shown or (name not in holders and not self._has_vectors_only(name)):
                owners.append(name)
                if not is_shown:
                    self._rank(name, Rank.HIDDEN)
            else:
                self._rank(name, Rank.FREE)
        return sorted(owners, key=lambda name: calls[name].start)

    def _has_vectors_only(self, name: str) -> bool:
        """Whether no weight of a module has more than one axis, as gains of a norm have not."""
        weights = [self._plan.rows[row].weight for row in _joined(self._own[name])]
        return all(w is None or sum(size > 1 for size in w.shape) < 2 for w in weights)

    def _rank(self, name: str, rank: Rank) -> None:
        for row in _joined(self._own[name]):
            self._plan.rows[row].rank = rank

    def _readouts(
        self, blocks: Sequence[Block], owners: Sequence[str], calls: Mapping[str, Call]
    ) -> list[int] | None:
        """The weights that the model's output is read off; None where no output tells."""
        roots = [place for x in self._output if (place := place_of(x)) is not None]
        if not roots:
            return None
        rows: dict[Place, int | None] = {
            place: None for block in blocks for place in block.call.places()
        }
        shown = dict(self._shown_rows(owners))
        of_blocks = {block.name for block in blocks}
        for name in owners:
            inside = _enclosing(name, of_blocks) is not None
            later = calls[name].later
            for place in calls[name].places():
                is_first = not inside and place not in later
                rows.setdefault(place, shown.get(name) if is_first else None)
        weights = {id(r.weight) for r in self._plan.rows if r.weight is not None}

        def ends(place: Place) -> bool:
            return place in rows or (mixes(place[0]) and reads_one_of(place, weights))

        reached = list(walk(roots, ends))
        found = [row for p in reached if (row := rows.get(p)) is not None]
        found = [r for r in dict.fromkeys(found) if self._plan.rows[r].kind in _READOUT_KINDS]
        if not found and not any(ends(place) for place in reached):
            return None
        if len(found) > 1:
            found = self._without_inputs(found, rows)
        return found

    def _without_inputs(self, found: list[int], rows: Mapping[Place, int | None]) -> list[int]:
        """Those of several weights that no other of them lies behind."""
        behind: set[int] = set()
        for place in [p for p, row in rows.items() if row in found]:
            for other in walk(before(place), lambda _: False):
                row = rows.get(other)
                if row is not None and row != rows[place]:
                    behind.add(row)
        return [row for row in found if row not in behind] or found[-1:]

    def _shown_rows(self, owners: Iterable[str]) -> Iterable[tuple[str, int]]:
        shown = {id(module): row for module, row in self._plan.preacts}
        for name in owners:
            row = shown.get(id(self._modules[name]))
            if row is not None:
                yield name, row

    def _merge_twins(self, owners: Iterable[str]) -> None:
        """Puts uses of a shared weight in one role into one row, and leaves others their own."""
        plan = self._plan
        sharing: dict[int, list[tuple[str, int]]] = {}
        for name, row in self._shown_rows(owners):
            sharing.setdefault(plan.twins.get(row, row), []).append((name, row))
        for main, uses in sharing.items():
            # The row of the weight is that of its own module's use, or else of the first.
            first_name, first = min(uses, key=lambda use: use[1] != main)
            for name, row in uses:
                if row in (first, main) or self._is_alike(name, row, first_name, first):
                    if row != main:
                        plan.merged[row] = main
                else:
                    plan.rows[row].is_wanted = plan.wants(plan.rows[row].name)
            if first != main:
                plan.rows[main].kind = plan.rows[first].kind
        plan.preacts = [(m, plan.merged.get(row, row)) for m, row in plan.preacts]

    def _is_alike(self, name: str, row: int, other_name: str, other: int) -> bool:
        modules, rows = self._modules, self._plan.rows
        are_embeddings = [isinstance(modules[n], nn.Embedding) for n in (name, other_name)]
        return are_embeddings[0] == are_embeddings[1] and rows[row].kind == rows[other].kind

    def _units(
        self, blocks: Sequence[Block], owners: Sequence[str], calls: Mapping[str, Call]
    ) -> list[Unit]:
        merged = self._plan.merged
        units = [Unit([(self._streams[block.name],)], block.call, block) for block in blocks]
        known: dict[int, Unit] = {}
        inside = {merged.get(row, row) for block in blocks for row in block.starts}
        of_blocks = {block.name for block in blocks}
        for name in owners:
            if _enclosing(name, of_blocks) is not None:
                continue
            layers = [tuple([merged.get(row, row) for row in rows]) for rows in self._own[name]]
            first = known.get(layers[0][0])
            if first is not None:
                first.twins.append(calls[name])
                continue
            if layers[0][0] in inside:
                continue
            unit = Unit(layers, calls[name])
            known.update({row: unit for layer in layers for row in layer})
            units.append(unit)
        units.sort(key=lambda unit: unit.call.start)
        return units

    def _places(
        self,
        units: Sequence[Unit],
        owners: Sequence[str],
        calls: Mapping[str, Call],
    ) -> Places:
        """Where the outputs of units were made, and those of modules that end in one of them."""
        places = Places()
        for index, unit in enumerate(units):
            again = {*unit.call.later, *(p for call in unit.twins for p in call.places())}
            for place in again:
                places.again.setdefault(place, index)
            given = {each for _, each in unit.call.inputs}
            further = [p for _, p in unit.call.outputs if p is not None and p not in given]
            for place in [*unit.call.places(), *further]:
                if place not in again:
                    places.first.setdefault(place, index)
        index_of = {unit.block.name: i for i, unit in enumerate(units) if unit.block is not None}
        for name in owners:
            enclosing = _enclosing(name, index_of)
            if enclosing is not None:
                for place in calls[name].places():
                    places.first.setdefault(place, index_of[enclosing])
        # A checkpoint says only afterwards where the output of what it ran was made.
        for name, call in calls.items():
            checkpoint = call.late_output
            if checkpoint is not None and checkpoint not in places.first:
                inside = [i for i, u in enumerate(units) if self._is_unit_in(u, name)]
                if inside:
                    places.first[checkpoint] = inside[-1]
        return places

    def _is_unit_in(self, unit: Unit, name: str) -> bool:
        rows = self._within[name]
        if unit.block is not None:
            return _is_in(unit.block.name, name)
        return all(row in rows for layer in unit.rows for row in layer)

    def _data(self, calls: Mapping[str, Call]) -> set[int]:
        """The ids of the tensors that the model was given."""
        return {id(x) for x, _ in calls[""].inputs} if "" in calls else set()

    def _find_last(self, units: Sequence[Unit]) -> None:
        """Marks the weight that was called last as the read-out, if nothing reads its z."""
        read = 0
        for unit in units:
            read |= unit.reads
        shown = {row for _, row in self._plan.preacts}
        ends = [u for index, u in enumerate(units) if not read >> (index + 1) & 1]
        if not ends or ends[-1].block is not None:
            return
        row = ends[-1].rows[0][0]
        if row in shown and self._plan.rows[row].kind in _READOUT_KINDS:
            self._plan.rows[row].kind = "readout"

    def _assign(self, units: Sequence[Unit]) -> None:
        """Writes numbers without gaps into the rows."""
        plan = self._plan
        shown = {row for _, row in plan.preacts}
        called = {
            row
            for name in self._own
            if name in self._recorder.calls
            for row in _joined(self._own[name])
        }
        mark_bypassed(units, plan, shown)
        on_path = [unit for unit in units if not unit.is_bypassed]
        heads = [u for u in on_path if plan.rows[u.rows[0][0]].kind == "readout"]
        top = max((u.number for u in heads), default=0)
        for unit in heads:
            unit.number = top
        skipped = self._skipped_blocks(on_path)
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
        self._place_functional(called)

    def _skipped_blocks(self, units: Sequence[Unit]) -> dict[str, float]:
        """Blocks that this pass left out, each with a number between those of its neighbours.

        They have the class of a block beside them in the same container, as where layers are
        dropped at random.
        """
        blocks = {u.block.name: u.number for u in units if u.block is not None}
        found: dict[str, float] = {}
        children: dict[str, list[str]] = {}
        for name in self._streams:
            children.setdefault(name.rpartition(".")[0], []).append(name)
        for container in dict.fromkeys(name.rpartition(".")[0] for name in blocks):
            beside = children[container]
            kinds = {type(self._modules[n]) for n in beside if n in blocks} - {nn.Sequential}
            waiting: list[str] = []
            last: int | None = None
            for name in [n for n in beside if type(self._modules[n]) in kinds]:
                if name in blocks:
                    found |= _between(waiting, last, blocks[name])
                    waiting, last = [], blocks[name]
                elif name not in self._recorder.calls:
                    waiting.append(name)
            found |= _between(waiting, last, None)
        return found

    def _reserve(self, name: str, number: int) -> None:
        """Gives a block that was not called, and all weights in it, a number."""
        plan = self._plan
        stream = plan.rows[self._streams[name]]
        stream.layer, stream.is_wanted = number, plan.wants(stream.name)
        shown = {row for _, row in plan.preacts}
        for row in self._within[name]:
            if plan.rows[row].layer is None:
                plan.rows[row].layer = number
            if row not in shown:
                plan.rows[row].rank = max(plan.rows[row].rank, Rank.HIDDEN)

    def _fill(self, unit: Unit, number: int, called: Collection[int]) -> None:
        """Gives the weights that a block used its number, and it a row of its own."""
        plan, block = self._plan, unit.block
        assert block is not None
        stream = plan.rows[self._streams[block.name]]
        stream.is_wanted = plan.wants(stream.name)
        for row in self._used_within(block.name, block.call, called):
            if plan.rows[row].layer is None:
                plan.rows[row].layer = number
                plan.placed.add(row)

    def _place_functional(self, called: Collection[int]) -> None:
        """Gives weights whose modules are not called the number of the module that uses them."""
        plan = self._plan
        for name, layers in self._own.items():
            call = self._recorder.calls.get(name)
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
        rows = sorted(self._within[name])
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
                weight is not None and (id(weight) in behind or not weight.requires_grad)
            ):
                if row not in called:
                    plan.rows[row].rank = max(plan.rows[row].rank, Rank.HIDDEN)
                used.append(row)
        return used

    def _settle_later(self, calls: Mapping[str, Call]) -> None:
        """Numbers weights that were first used at a later step."""
        plan = self._plan
        number, given = 0, None
        for name in sorted((n for n in self._own if n in calls), key=lambda n: calls[n].start):
            read = calls[name].inputs[0][0] if calls[name].inputs else None
            rows = [plan.merged.get(row, row) for row in _joined(self._own[name])]
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
        for stream, row in self._streams.items():
            layer = self._plan.rows[row].layer
            if layer is not None and _is_in(name, stream):
                return layer
        return None


# ---------------------------------------------------------------- modules and weights


def _between(names: Sequence[str], last: int | None, after: int | None) -> dict[str, float]:
    """Numbers for names between two whole ones, of which one may be missing."""
    if last is None:
        last = (after or 0) - 1
    return {name: last + place / (len(names) + 1) for place, name in enumerate(names, start=1)}


def _own_layers(
    modules: Mapping[str, nn.Module], plan: ProbePlan
) -> dict[str, list[tuple[int, ...]]]:
    """For each module that owns weights their rows, one tuple a layer."""
    owned = {id(module): layers for module, layers in plan.owners}
    return {name: owned[id(m)] for name, m in modules.items() if id(m) in owned}


def _rows_within(own: Mapping[str, list[tuple[int, ...]]]) -> dict[str, frozenset[int]]:
    """For each module that contains weights their rows; the model is \"\"."""
    within: dict[str, set[int]] = {}
    for name, layers in own.items():
        for each in (name, *outer_names(name)):
            within.setdefault(each, set()).update(_joined(layers))
    return {name: frozenset(rows) for name, rows in within.items()}


def _joined(layers: Iterable[tuple[int, ...]]) -> list[int]:
    return [row for layer in layers for row in layer]


def _enclosing(name: str, names: Container[str]) -> str | None:
    """Which of some modules a module is, or is in; None if it is in none."""
    return next((each for each in (name, *outer_names(name)) if each in names), None)


def _is_in(name: str, outer: str) -> bool:
    """Whether a module is another one, or within it."""
    return not outer or name == outer or name.startswith(f"{outer}.")
