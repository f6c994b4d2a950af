"""Learns the layers of a user's model from how its first measured pass uses them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from vgexp.probe.blocks import Block, find_blocks, outer_names
from vgexp.probe.calls import Call, Recorder
from vgexp.probe.graph import tensors_in
from vgexp.probe.hooks import Note
from vgexp.probe.layout import Layout, enclosing, is_in, joined
from vgexp.probe.numbering import Places, Unit, number_units
from vgexp.probe.placing import Placing
from vgexp.probe.plan import ProbePlan, Rank
from vgexp.probe.readouts import find_readouts, mark_last, merge_twins
from vgexp.probe.tied import Use


class Discovery:
    """Learns the layers of a user's model: `arm` before the first pass, `settle` after it.

    Args:
        model: the model, of which `plan` was made.
        note: told of weights that get no number, with the reason.
    """

    def __init__(self, model: nn.Module, plan: ProbePlan, note: Note) -> None:
        self._plan = plan
        self._note = note
        self._layout = layout = Layout(model, plan)
        self._placing = Placing(layout, note)
        self._recorder = Recorder({n: layout.modules[n] for n in layout.within}, note)
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

    def on_use(self, use: Use, read: Tensor, z: Tensor) -> None:
        """Records a call of a function with a matrix as that of a module."""
        if not self._plan.is_settled:
            self._layout.add(use.name, use.module, use.row)
            self._recorder.record(use.name, read, z)

    # ------------------------------------------------------------ what is learnt

    def settle(self) -> None:
        """Numbers the weights that were used, and makes rows of the blocks that were found.

        A weight that is first used at a later step comes after the one called before it. Weights
        that no call used have no number. Where no call was seen at all (a compiled model), weights
        are numbered in the order of registration.
        """
        plan, calls = self._plan, self._recorder.calls
        if plan.is_settled:
            self._placing.place_later(calls)
            return
        plan.is_settled = True
        self._settle_first(calls)
        # What comes later needs less: only in which order weights are used.
        self.disarm()
        owners = {name: self._layout.modules[name] for name in self._layout.own}
        self._recorder = Recorder(owners, self._note, with_places=False)
        self._output.clear()

    def _settle_first(self, calls: Mapping[str, Call]) -> None:
        plan = self._plan
        if not any(name in calls for name in self._layout.own):
            weights = [row for row in plan.rows if row.weight is not None]
            for number, weight in enumerate(weights, start=1):
                weight.layer = number
            return
        owners = self._owners(calls)
        shown = {place: name for name in owners for place in calls[name].places()}
        starts: dict[str, dict[int, int]] = {name: {} for name in self._layout.within}
        for owner in owners:
            began = dict.fromkeys(joined(self._layout.own[owner]), calls[owner].start)
            for name in (owner, *outer_names(owner)):
                starts[name] |= began
        blocks = find_blocks(self._layout.modules, calls, starts, self._layout.streams, shown)
        plan.norm_position = self._norm_position(blocks)
        readouts = find_readouts(self._layout, self._output, blocks, owners, calls, self._note)
        for name in self._layout.drop_uses(readouts or ()):
            owners.remove(name)
            self._recorder.calls.pop(name)
        if readouts is not None:
            for row in readouts:
                plan.rows[row].kind = "readout"
        merge_twins(self._layout, owners)
        units = self._units(blocks, owners, calls)
        number_units(units, self._places(units, owners, calls), self._data(calls))
        if readouts is None:
            mark_last(self._layout, units)
        self._placing.assign(units, calls)

    def _norm_position(self, blocks: Sequence[Block]) -> str | None:
        """Where the normalisation stands in the blocks with attention: behind the sum, or not."""
        attending = [
            block.call.traced.output
            for block in blocks
            if any(
                self._plan.rows[row].kind == "attention"
                for name, layers in self._layout.own.items()
                if name.startswith(f"{block.name}.")
                for row in joined(layers)
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
        called = [name for name in self._layout.own if name in calls]
        shown = {id(module) for module, _ in self._plan.preacts}
        holders = {outer for name in called for outer in outer_names(name)}
        owners = []
        for name in called:
            is_shown = id(self._layout.modules[name]) in shown
            if is_shown or (name not in holders and not self._has_vectors_only(name)):
                owners.append(name)
                if not is_shown:
                    self._layout.rank(name, Rank.HIDDEN)
            else:
                self._layout.rank(name, Rank.FREE)
        return sorted(owners, key=lambda name: calls[name].start)

    def _has_vectors_only(self, name: str) -> bool:
        """Whether no weight of a module has more than one axis, as gains of a norm have not."""
        weights = [self._plan.rows[row].weight for row in joined(self._layout.own[name])]
        return all(w is None or sum(size > 1 for size in w.shape) < 2 for w in weights)

    def _units(
        self, blocks: Sequence[Block], owners: Sequence[str], calls: Mapping[str, Call]
    ) -> list[Unit]:
        merged = self._plan.merged
        units = [Unit([(self._layout.streams[block.name],)], block.call, block) for block in blocks]
        known: dict[int, Unit] = {}
        inside = {merged.get(row, row) for block in blocks for row in block.starts}
        of_blocks = {block.name for block in blocks}
        for name in owners:
            if enclosing(name, of_blocks) is not None:
                continue
            layers = [
                tuple([merged.get(row, row) for row in rows]) for rows in self._layout.own[name]
            ]
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
            outer = enclosing(name, index_of)
            if outer is not None:
                for place in calls[name].places():
                    places.first.setdefault(place, index_of[outer])
        # A checkpoint says only afterwards where the output of what it ran was made.
        for name, call in calls.items():
            checkpoint = call.late_output
            if checkpoint is not None and checkpoint not in places.first:
                inside = [i for i, u in enumerate(units) if self._is_unit_in(u, name)]
                if inside:
                    places.first[checkpoint] = inside[-1]
        return places

    def _is_unit_in(self, unit: Unit, name: str) -> bool:
        rows = self._layout.within[name]
        if unit.block is not None:
            return is_in(unit.block.name, name)
        return all(row in rows for layer in unit.rows for row in layer)

    def _data(self, calls: Mapping[str, Call]) -> set[int]:
        """The ids of the tensors that the model was given."""
        return {id(x) for x, _ in calls[""].inputs} if "" in calls else set()
