"""Says what a probe did not measure, and why: one line a reason, with the weights in it."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence

from torch import nn

from vgexp.probe.flat import Members, held_as
from vgexp.probe.moments import ColumnCells
from vgexp.probe.optimizers import StepHooks
from vgexp.probe.plan import PlanRow, ProbePlan
from vgexp.quantities.layers import READOUT

MOST_NAMES = 8
"""The most weights that a line names."""

_VECTORS = (nn.Embedding, nn.EmbeddingBag)
"""Modules that no activation is expected to follow."""

NO_ACTIVATION = (
    "no known activation was called on what these weights give: columns of h are empty (act_*,"
    " saturated_fraction, dead_fraction)"
)
NO_CALL = "no call of its module was seen with gradients"
NO_GRADIENT = (
    "the gradient was None at the optimizer's step: no backward pass reached these weights, or a"
    " hook freed it before"
)
NOT_HELD = "the optimizer does not hold these weights, so that its steps do not change them"


_OF_THE_WHOLE = ("the model", "the optimizer", "the run folder", "the tables", "the loss")
"""Names of what is not one weight: what is missing of them is told first."""
_PLACE = re.compile(r"(?<![^.])\d+(?![^.])")
"""A number between dots: the place of a module in a list."""


class Missing:
    """What was measured so far of a user's model, to say in the end what was not."""

    def __init__(self, model: nn.Module, plan: ProbePlan, optimizer: StepHooks) -> None:
        self._plan = plan
        self._optimizer = optimizer
        self._parameters = [id(held_as(p)) for _, p in Members(model).parameters()]
        self._never_activated = {
            row for module, row in plan.preacts if isinstance(module, _VECTORS)
        }
        self._with: dict[str, set[int]] = {"preact_mean": set(), "act_mean": set()}
        self._with["grad_norm"] = set()
        self._are_gradients_measured = False

    def take(self, cells: Mapping[str, ColumnCells]) -> None:
        """Takes note of which rows have cells in a step."""
        for name, rows in self._with.items():
            if name in cells:
                rows.update(cells[name].rows)
        self._are_gradients_measured |= "grad_norm" in cells

    def is_shown(self, name: str) -> bool:
        """Whether z was measured of the weight of this name."""
        rows = self._plan.rows
        return any(rows[row].name == name for row in self._with["preact_mean"])

    def reasons(self, told: Collection[str]) -> dict[str, list[str]]:
        """Reason -> weights. Of weights that were told of before, only what they lack beside it.

        Of the models of vgexp, and before a step was measured, there is nothing to say.
        """
        if not self._plan.owners:
            return {}
        with_z, with_h = self._with["preact_mean"], self._with["act_mean"]
        rows = [(i, row) for i, row in enumerate(self._plan.rows) if row.is_wanted]
        trained = [(i, row) for i, row in rows if row.weight is not None
                   and row.weight.requires_grad]  # fmt: skip
        found = {
            NO_ACTIVATION: [
                row
                for i, row in rows
                if i in with_z - with_h - self._never_activated
                and row.kind not in (READOUT, "stream")
            ],
            NO_GRADIENT: [
                row
                for i, row in trained
                if self._are_gradients_measured
                and i not in self._with["grad_norm"]
                and row.name not in told
            ],
            NOT_HELD: self._not_held([row for _, row in trained]),
        }
        return {reason: [row.name for row in rows] for reason, rows in found.items() if rows}

    def _not_held(self, rows: Iterable[PlanRow]) -> list[PlanRow]:
        """The weights that the optimizer does not hold; none where it holds no parameter at all."""
        held = {id(p) for p in self._optimizer.parameters()}
        if held.isdisjoint(self._parameters):
            return []
        return [row for row in rows if row.weight is None or id(held_as(row.weight)) not in held]


def lines(reasons: Mapping[str, Sequence[str]]) -> list[str]:
    """Writes `weight, weight and 5 more: reason` of each reason.

    First comes what is missing of the whole, or keeps weights from learning; last that no
    activation follows, which is so of many weights of a sound model.
    """
    ordered = sorted(reasons.items(), key=lambda item: _rank(*item))
    return [
        f"{_counted(names) if reason == NO_ACTIVATION else _listed(names)}: {reason}"
        for reason, names in ordered
    ]


def _rank(reason: str, names: Sequence[str]) -> int:
    if reason == NO_ACTIVATION:
        return 2
    is_serious = reason in (NO_GRADIENT, NOT_HELD) or not set(names).isdisjoint(_OF_THE_WHOLE)
    return 0 if is_serious else 1


def _counted(names: Sequence[str]) -> str:
    """Lists names; where they are many, those of repeated blocks as one, with their number."""
    if len(names) <= MOST_NAMES:
        return _listed(names)
    alike: dict[str, list[str]] = {}
    for name in names:
        alike.setdefault(_PLACE.sub("*", name), []).append(name)
    return _listed(
        [
            f"{pattern} ({len(each)})" if len(each) > 1 else each[0]
            for pattern, each in alike.items()
        ]
    )


def _listed(names: Sequence[str]) -> str:
    more = len(names) - MOST_NAMES
    if more <= 1:  # one more name is no longer than the words that stand for it
        return ", ".join(names)
    return f"{', '.join(names[:MOST_NAMES])} and {more} more"
