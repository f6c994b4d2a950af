"""Which modules of a user's model hold which rows of its plan."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping

from torch import nn

from vgexp.probe.blocks import outer_names
from vgexp.probe.flat import Members
from vgexp.probe.plan import ProbePlan, Rank


class Layout:
    """Modules by name, and the rows of the weights that they own or contain."""

    def __init__(self, model: nn.Module, plan: ProbePlan) -> None:
        self.plan = plan
        self.modules = dict(Members(model).modules())
        self.own = _own_layers(self.modules, plan)
        """For each module that owns weights their rows, one tuple a layer."""
        self.within = _rows_within(self.own)
        """For each module that contains weights their rows; the model is \"\"."""
        names = {id(module): name for name, module in self.modules.items()}
        self.streams = {names[id(module)]: row for module, row in plan.streams}
        """The rows of modules that may be blocks."""
        self._added: dict[str, int] = {}

    def add(self, name: str, module: nn.Module, row: int) -> None:
        """Adds what stands for a module that the model has not, with its row."""
        self.modules[name] = module
        self.own[name] = [(row,)]
        self._added[name] = row
        for each in (name, *outer_names(name)):
            self.within[each] = self.within.get(each, frozenset()) | {row}

    def drop_uses(self, kept: Container[int]) -> list[str]:
        """Takes away what was added, but for some rows. Returns the names."""
        dropped = {name: row for name, row in self._added.items() if row not in kept}
        for name, row in dropped.items():
            for each in (name, *outer_names(name)):
                self.within[each] -= {row}
            del self.modules[name], self.own[name], self.within[name], self._added[name]
        return list(dropped)

    def shown_rows(self, owners: Iterable[str]) -> Iterator[tuple[str, int]]:
        """Of some modules those whose output is z, each with its row."""
        shown = {id(module): row for module, row in self.plan.preacts}
        for name in owners:
            row = shown.get(id(self.modules[name]))
            if row is not None:
                yield name, row

    def rank(self, name: str, rank: Rank) -> None:
        """Sets the rank of all weights that a module owns."""
        for row in joined(self.own[name]):
            self.plan.rows[row].rank = rank


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
            within.setdefault(each, set()).update(joined(layers))
    return {name: frozenset(rows) for name, rows in within.items()}


def joined(layers: Iterable[tuple[int, ...]]) -> list[int]:
    """The rows of all layers."""
    return [row for layer in layers for row in layer]


def enclosing(name: str, names: Container[str]) -> str | None:
    """Which of some modules a module is, or is in; None if it is in none."""
    return next((each for each in (name, *outer_names(name)) if each in names), None)


def is_in(name: str, outer: str) -> bool:
    """Whether a module is another one, or within it."""
    return not outer or name == outer or name.startswith(f"{outer}.")
