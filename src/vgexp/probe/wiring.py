"""`wiring.csv`: which parameters the loss reaches, and which of them the optimizer moves."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from vgexp.probe.flat import FlatWeight, Members, held_as
from vgexp.probe.hooks import Hook, Note
from vgexp.probe.moments import ColumnCells
from vgexp.probe.optimizers import StepHooks
from vgexp.probe.plan import PlanRow
from vgexp.probe.ranks import has_other_ranks
from vgexp.probe.weights import UPDATE_NORM
from vgexp.quantities import WIRING
from vgexp.records import Rows
from vgexp.torch_internals import version_of

LOOK_EVERY = 20
"""Updates between looks at whether gradients come, and whether those before were cleared. It takes
a hook on each parameter."""
_ENTRIES = 4096
"""Entries of a gradient whose signs are looked at."""


class _Facts(NamedTuple):
    """What is known of each parameter in one step, in the order of the table."""

    step: int
    is_whole: bool
    requires_grad: list[bool]
    lr: list[Any]
    """None: the optimizer does not hold it. A tensor may be on the device."""
    has_grad: list[bool]
    came: list[bool | None]
    kept: list[bool | None]
    written: list[bool]
    """Whether something was written into it in the step."""
    measured: list[int]
    """Parameters whose gradient was measured, and `peaks` of its magnitude."""
    peaks: Tensor | None
    of_others: list[bool]
    """Whether another optimizer that made a step holds it."""
    moved: list[int]
    """Parameters whose change was measured, and its norms."""
    changes: Tensor | None
    given: list[int]
    """Parameters whose gradient was seen as it came, and two rows: `peaks` of its magnitude then,
    and whether the one that the optimizer found has negative entries, -0 among them."""
    of_given: Tensor | None


class Wiring:
    """Looks at every parameter at the measured steps, and keeps rows where something changed.

    Values that are on the device are compared when rows are asked for; of a model on the CPU, at
    once, so that steps at which nothing changed take no memory.

    Args:
        with_changes: whether there are rows at steps that are not whole. A run that goes on from a
            checkpoint does not know what was before.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: StepHooks,
        note: Note,
        *,
        with_changes: bool = True,
    ) -> None:
        self._optimizer = optimizer
        self._note = note
        self._with_changes = with_changes
        self._model = model
        self._parameters: list[nn.Parameter] = []
        self._names: list[str] = []
        self._also: list[str | None] = []
        self._place: dict[int, int] = {}
        self._late: set[int] = set()
        """Parameters that came after the first, until their first step ends."""
        self._add_parameters()
        self._num_seen = sum(1 for _ in model.parameters())
        self._hooks: list[Any] = []
        self._last_look = -1
        self._marks: dict[int, tuple[int, int]] = {}
        self._arrived: dict[int, tuple[int, int, bool]] = {}
        self._peaks: dict[int, Tensor] = {}
        self._given: tuple[list[int], Tensor | None] = [], None
        self._is_looking = self._is_shared = False
        self._before: tuple[list[bool], list[Any], list[int]] | None = None
        self._has_grad: list[bool] = []
        self._pending: list[_Facts] = []
        self._known: list[tuple[Any, ...]] = []
        self._rows: list[Rows] = []

    def _add_parameters(self) -> None:
        """Adds the parameters that the model has and the table does not: all, and later those that
        a forward pass made. Another object of a known name, such as a whole weight in the place of
        a shard, is none."""
        known = {*self._names, *(n for also in self._also if also for n in also.split())}
        names: dict[int, list[str]] = {}
        for name, parameter in Members(self._model).parameters(remove_duplicate=False):
            if id(parameter) in self._place or name in known:
                continue
            if id(parameter) not in names:
                self._parameters.append(parameter)
            names.setdefault(id(parameter), []).append(name)
        self._names += [own[0] for own in names.values()]
        self._also += [" ".join(own[1:]) or None for own in names.values()]
        self._place |= {p: index for index, p in enumerate(names, len(self._place))}

    # ------------------------------------------------------------ one step

    def prepare(self, step: int, *, is_due: bool, is_whole: bool) -> None:
        """Sets hooks for the coming step where it is looked at, and removes them where it is not.

        The second update is looked at in any case, since it shows whether gradients are cleared.
        """
        if self._hooks and step == self._last_look:
            return
        self.disarm()
        if self._with_changes:
            is_late = step >= self._last_look + LOOK_EVERY or self._last_look < 1
            looks = step in (1, self._last_look) or (is_due and is_late)
        else:
            looks = is_whole
        if not looks:
            return
        self._is_looking, self._last_look = True, step
        self._is_shared = has_other_ranks()
        self._arrived, self._peaks = {}, {}
        self._marks = {
            id(p): (id(g), version_of(g)) for p in self._parameters if (g := p.grad) is not None
        }
        hook = Hook(self._note, None, self._on_gradient)
        for parameter in self._parameters:
            if (
                parameter.requires_grad
                and not is_lazy(parameter)
                and not isinstance(parameter, FlatWeight)
            ):
                self._hooks.append(_hook(parameter, hook))

    def disarm(self) -> None:
        """Removes all hooks."""
        for handle in self._hooks:
            handle.remove()
        self._hooks = []
        self._is_looking = False

    def before_step(self) -> None:
        """Notes, before the update, what the optimizer will do with each parameter."""
        if self._num_seen != (num := sum(1 for _ in self._model.parameters())):
            self._num_seen = num
            self._settle()  # what waits has fewer of them
            num_known = len(self._parameters)
            self._add_parameters()
            self._late = {id(p) for p in self._parameters[num_known:]}
            self._has_grad += [False] * (len(self._parameters) - len(self._has_grad))
            self._known += [()] * (len(self._parameters) - len(self._known) if self._known else 0)
        lr = {id(p): group.get("lr") for group in self._optimizer.groups() for p in group["params"]}
        self._before = (
            [p.requires_grad for p in self._parameters],
            [_copied(lr.get(id(held_as(p)), _ABSENT)) for p in self._parameters],
            [version_of(p) for p in self._parameters],
        )

    def see_gradients(self) -> None:
        """Notes which parameters have a gradient, once all backward passes are made."""
        self._has_grad = [p.grad is not None for p in self._parameters]
        places, pairs = [], []
        for place, parameter in enumerate(self._parameters if self._is_looking else ()):
            peak, gradient = self._peaks.get(id(parameter)), parameter.grad
            entries = None if peak is None or gradient is None else _entries(gradient)
            if peak is not None and entries is not None:
                places.append(place)
                pairs.append(torch.stack((peak, _has_negative(entries))))
        is_one_device = len({pair.device for pair in pairs}) == 1
        self._given = (places, torch.stack(pairs, 1)) if is_one_device else ([], None)

    def end_step(
        self,
        step: int,
        measured: Iterable[tuple[Sequence[PlanRow], Mapping[str, ColumnCells]]],
        *,
        is_whole: bool,
    ) -> None:
        """Ends a step, with the cells of its weights and of its other parameters."""
        before, self._before = self._before, None
        if before is None:
            if self._is_looking:
                self._end_look(step)
            return
        if not (self._with_changes or is_whole):
            return
        peaks, changes = _Gathered(self._place), _Gathered(self._place)
        for rows, cells in measured:
            peaks.add(rows, cells.get("grad_max"))
            changes.add(rows, cells.get(UPDATE_NORM))
        requires_grad, lr, versions = before
        came, kept = self._looked(step)
        facts = _Facts(
            step, is_whole, requires_grad, lr, self._has_grad, came, kept,
            [version_of(p) != v for p, v in zip(self._parameters, versions, strict=True)],
            peaks.places, peaks.joined(),
            [id(held_as(p)) in self._optimizer.of_others for p in self._parameters],
            changes.places, changes.joined(), *self._given,
        )  # fmt: skip
        self._given = [], None
        self._pending.append(facts)
        if all(x is None or x.is_cpu for x in (facts.peaks, facts.changes, facts.of_given)):
            self._settle()

    def drain(self) -> list[Rows]:
        """Returns the rows since the last call; waits for the device."""
        self._settle()
        rows, self._rows = self._rows, []
        return rows

    # ------------------------------------------------------------ gradients that come

    def _on_gradient(self, parameter: nn.Parameter) -> None:
        """Notes that a gradient came, and whether it was added to what was there before the step.

        To add in place raises a tensor's version by 1; to write zeros into it first, by 2. What
        came before the gradients were cleared, as another network's pass may, counts no more.
        """
        gradient = parameter.grad
        if gradient is None:
            return
        found, key = (id(gradient), version_of(gradient)), id(parameter)
        last = self._arrived.get(key)
        *at, is_kept = (*self._marks.get(key, (0, -2)), True) if last is None else last
        is_added = found == (at[0], at[1] + 1)
        self._arrived[key] = (*found, is_added and is_kept)
        # Of several ranks each has its own until all have come.
        entries = None if self._is_shared else _entries(gradient)
        if entries is not None:
            self._peaks[key] = torch.linalg.vector_norm(entries, math.inf).float()

    def _looked(self, step: int) -> tuple[list[bool | None], list[bool | None]]:
        """Whether a gradient came, and whether it was added to that of the update before."""
        if not self._is_looking:
            nothing: list[bool | None] = [None] * len(self._parameters)
            late, self._late = self._late, set()
            held = zip(self._parameters, self._has_grad, strict=True)
            return [has_grad if id(p) in late else None for p, has_grad in held], nothing
        came: list[bool | None] = [
            id(p) in self._arrived or has_grad
            for p, has_grad in zip(self._parameters, self._has_grad, strict=True)
        ]
        kept: list[bool | None] = [
            id(p) in self._arrived and self._arrived[id(p)][2]
            if step and came[index] and not isinstance(p, FlatWeight)
            else None
            for index, p in enumerate(self._parameters)
        ]
        return came, kept

    def _end_look(self, step: int) -> None:
        """Ends a step that was looked at but not measured: it is told where a gradient was kept."""
        self.see_gradients()
        _, kept = self._looked(step)
        self._is_looking = False
        places = [index for index, is_kept in enumerate(kept) if is_kept]
        if not places or not self._with_changes:
            return
        self._settle()
        for index in places:
            if self._known:
                known = self._known[index]
                self._known[index] = (*known[:_KEPT], 1, *known[_KEPT + 1 :])
        ones = [1] * len(places)
        columns = {"step": [step] * len(places), "gradient_came": ones, "gradient_kept": ones}
        self._rows.append(Rows("wiring", self._named(places) | columns))

    # ------------------------------------------------------------ rows

    def _settle(self) -> None:
        """Makes rows of the steps whose values are not compared yet."""
        pending, self._pending = self._pending, []
        for facts in pending:
            cells = self._cells(facts)
            states = [_state(one) for one in cells]
            known: list[tuple[Any, ...]] = self._known or [()] * len(states)
            states = [_with_known(new, old) for new, old in zip(states, known, strict=True)]
            self._known = states
            places = [
                index
                for index, (new, old) in enumerate(zip(states, known, strict=True))
                if facts.is_whole or new != old
            ]
            if places:
                columns: dict[str, Sequence[Any]] = {"step": [facts.step] * len(places)}
                columns |= self._named(places)
                for number, name in enumerate(_CELLS):
                    columns[name] = [cells[index][number] for index in places]
                self._rows.append(Rows("wiring", columns))

    def _named(self, places: Sequence[int]) -> dict[str, Sequence[Any]]:
        names: dict[str, Sequence[Any]] = {"name": self._names, "also_named": self._also}
        return {name: [values[index] for index in places] for name, values in names.items()}

    def _cells(self, facts: _Facts) -> list[tuple[Any, ...]]:
        """The cells of each parameter, in the order of `_CELLS`."""
        peaks = _values(facts.measured, facts.peaks)
        changes = _values(facts.moved, facts.changes)
        came, negative = facts.of_given.tolist() if facts.of_given is not None else ((), ())
        given = dict(zip(facts.given, zip(came, negative, strict=True), strict=True))
        found = []
        for index in range(len(self._parameters)):
            requires_grad, lr = facts.requires_grad[index], facts.lr[index]
            if not facts.has_grad[index]:
                gradient: str | None = "none"
            else:
                gradient = _word(peaks[index]) if index in peaks else None
            if index in changes:
                updated: int | None = int(changes[index] != 0)
            else:
                updated = None if facts.written[index] else 0
            found.append(
                (
                    int(requires_grad),
                    int(lr is not _ABSENT),
                    None if lr is None or lr is _ABSENT else float(lr),
                    _number(facts.came[index]),
                    gradient,
                    _number(facts.kept[index]),
                    updated,
                    int(facts.of_others[index]),
                    _left(peaks.get(index), *given.get(index, (0.0, 0.0))),
                )
            )
        return found


class _Gathered:
    """Values of one column of several tables, with the places of their parameters."""

    def __init__(self, place: Mapping[int, int]) -> None:
        self._place = place
        self.places: list[int] = []
        self._values: list[Tensor] = []

    def add(self, rows: Sequence[PlanRow], cells: ColumnCells | None) -> None:
        if cells is not None:
            self.places += [self._place[id(rows[row].weight)] for row in cells.rows]
            self._values += cells.values

    def joined(self) -> Tensor | None:
        """One tensor, so that no small ones remain of a step."""
        if not self._values:
            return None
        if len({x.dtype for x in self._values}) > 1:
            self._values = [x.double() for x in self._values]
        return torch.cat(self._values).double()


_CELLS = tuple(
    column.name for column in WIRING if column.name not in ("step", "name", "also_named")
)
_KEPT = _CELLS.index("gradient_kept")
_ABSENT = object()


def _hook(parameter: nn.Parameter, hook: Hook) -> Any:
    return parameter.register_post_accumulate_grad_hook(hook)  # type: ignore[no-untyped-call]


def _copied(lr: Any) -> Any:
    """A learning rate; one that is a tensor is written to by schedulers."""
    return lr.clone() if isinstance(lr, Tensor) else lr


def _values(places: Sequence[int], values: Tensor | None) -> dict[int, float]:
    return {} if values is None else dict(zip(places, values.tolist(), strict=True))


def _word(peak: float) -> str:
    if not math.isfinite(peak):
        return "not_finite"
    return "finite" if peak else "zero"


def _entries(gradient: Tensor) -> Tensor | None:
    """The entries of an ordinary gradient, and of a sparse one those that it holds; None where
    there are none, or they are in pieces on several devices."""
    if type(gradient) is not Tensor or not gradient.is_floating_point():
        return None
    gradient = gradient.detach()
    if gradient.layout == torch.sparse_coo:
        gradient = gradient.coalesce().values()
    return gradient if gradient.layout == torch.strided and gradient.numel() else None


def _has_negative(entries: Tensor) -> Tensor:
    """1 if one of the first entries has a negative sign, as -0 has."""
    return torch.signbit(entries.reshape(-1)[:_ENTRIES]).any().float()


def _left(found: float | None, came: float, has_negative: float) -> float | None:
    """The share of its largest entry that a gradient has kept. One that is 0 was multiplied by 0
    where entries are -0, which clearing does not leave; else it is not known."""
    if found is None or not 0 < came < math.inf or not math.isfinite(found):
        return None
    return found / came if found or has_negative else None


def _number(flag: bool | None) -> int | None:
    return None if flag is None else int(flag)


def _state(cells: tuple[Any, ...]) -> tuple[Any, ...]:
    """What is compared with the step before: of a learning rate, whether it is 0; and all but the
    size of a gradient."""
    requires_grad, in_optimizer, lr, *others, _ = cells
    return requires_grad, in_optimizer, lr == 0, *others


def _with_known(new: tuple[Any, ...], old: tuple[Any, ...]) -> tuple[Any, ...]:
    """What was not looked at in a step is as it was."""
    if not old:
        # At the first update there is no gradient from before.
        return (*new[:_KEPT], new[_KEPT] or 0, *new[_KEPT + 1 :])
    return tuple(o if n is None else n for n, o in zip(new, old, strict=True))
