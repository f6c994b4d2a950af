"""Watches the loss of somebody's own loop: its value, and what its function is called with."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import Any, TypeVar, final

import torch
from torch import Tensor, nn

from vgexp.errors import QuestionError
from vgexp.probe.guesses import Guesses
from vgexp.probe.hooks import Hook, Note
from vgexp.probe.loss_arguments import Argument, describe_call, named_tensors, rows_of
from vgexp.probe.loss_evaluations import Evaluations, share_right
from vgexp.probe.loss_graph import LossGraph
from vgexp.probe.loss_numbers import Call, NumberWatch, share_added
from vgexp.probe.steps import Number, StepMeter
from vgexp.probe.watched_function import WatchedFunction
from vgexp.records import Rows
from vgexp.torch_internals import backward_task

LossFunction = TypeVar("LossFunction", bound=Callable[..., Any])

_NOTED = -1
"""The source of losses that the loop noted itself."""
_MOST_WATCHED = 3
"""Calls of a function that are looked into for terms that become numbers."""
_MOST_TENSORS = 16
"""Tensors of one call that are described at most."""


class _Noted:
    """One loss: its value, and whether it counts for the update."""

    __slots__ = ("counts", "is_in_step", "precision", "source", "task", "value", "weight")

    def __init__(self, source: int, value: Number, *, counts: bool, is_in_step: bool) -> None:
        self.source = source
        self.value = value
        self.counts = counts
        self.is_in_step = is_in_step
        """Whether the optimizer's own step called for it, by a closure."""
        self.task = -1
        """Autograd's number of the backward pass that went through it last."""
        self.weight: Number = None
        """dL/d(value) of that pass, with the loss scale in it."""
        self.precision = 0.0
        """The relative error of the weight by its dtype."""

    def with_value(self, value: Number) -> _Noted:
        """The same call, if the loss had another value."""
        other = _Noted(self.source, value, counts=self.counts, is_in_step=self.is_in_step)
        other.task, other.weight, other.precision = self.task, self.weight, self.precision
        return other


@final
class LossWatch:
    """The losses of one probe. It sees calls between `enter` and `leave` only.

    A loss counts for the update once a backward pass begins in it, so that losses of a validation
    do not; one that the loop notes itself counts at once. If the gradients were cleared since, as
    after a step that a scaler skipped, the losses before count no more.

    Of the first loss that is not finite the arguments are described in any case, where reading it
    does not wait for a device.

    Args:
        steps: knows the parameters whose gradients make the update.
        note: is told what could not be measured.
        of_model: describes what the model was given, and its parameters, where a loss is bad.
        may_unpack: says whether what was saved for the backward pass can be read as it is. To
            unpack it may run a part of the model once more.
    """

    def __init__(
        self,
        steps: StepMeter,
        note: Note,
        of_model: Callable[[], list[Argument]],
        may_unpack: Callable[[], bool],
    ) -> None:
        self._steps = steps
        self._may_unpack = may_unpack
        self._of_model = of_model
        self._note = note
        self._modules: list[tuple[int, nn.Module, Callable[..., None]]] = []
        self._num_sources = 0
        self._hooks: list[Any] = []
        self._is_inside = False
        self._losses: list[_Noted] = []
        self._described: dict[int, list[Argument]] = {}
        self._rows: list[tuple[int, list[Argument]]] = []
        self.describes = False
        """Whether the arguments of the next call are described."""
        self.evaluations = Evaluations()
        """Calls without gradients."""
        self._guesses: dict[int, Guesses] = {}
        self._numbers: dict[int, Call] = {}
        self._number_watches: dict[int, NumberWatch] = {}
        self._num_watched: dict[int, int] = {}
        self._has_seen_bad = False
        self.is_in_step = False
        """Whether calls are those of a closure, which clears the gradients between them."""

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def is_used(self) -> bool:
        """Whether a loss function is watched."""
        return self._num_sources > 0

    # ------------------------------------------------------------ what a loop calls

    def watch(self, function: LossFunction) -> LossFunction:
        """Returns what is to be called instead of a loss function; a module is returned itself."""
        if not callable(function):
            raise QuestionError(
                f"watch_loss: given a {type(function).__name__}\n"
                "allowed: a module or a function that returns the loss"
            )
        source = self._num_sources
        self._num_sources += 1
        if isinstance(function, nn.Module):
            see = partial(self._on_module, source)
            self._modules.append((source, function, see))
            if self._is_inside:
                self._hook(source, function, see)
            return function
        see_result = Hook(self._note, None, partial(self._see, source))
        watched: Any = WatchedFunction(function, see_result, partial(self._watch_numbers, source))
        return watched  # type: ignore[no-any-return]

    def note_loss(self, loss: Tensor | float) -> None:
        """Notes a loss of the update; where it has several, they count by their mean."""
        if not isinstance(loss, Tensor):
            if isinstance(loss, bool) or not isinstance(loss, int | float):
                raise QuestionError(
                    f"note_loss: given a {type(loss).__name__}\nallowed: a tensor or a number"
                )
            self._note_value(float(loss))
        elif loss.numel():
            self._note_value(_value_of(loss))

    def _note_value(self, value: Number) -> None:
        self._losses.append(_Noted(_NOTED, value, counts=True, is_in_step=self.is_in_step))

    # ------------------------------------------------------------ life

    def enter(self) -> None:
        """Begins to see calls."""
        self._is_inside = True
        for source, module, see in self._modules:
            self._hook(source, module, see)

    def leave(self) -> None:
        """Sees no more calls, and forgets those of an update that did not come."""
        self._is_inside = False
        for handle in self._hooks:
            handle.remove()
        self._hooks.clear()
        self._forget()

    def end_step(self, step: int, loss_scale: Tensor | float = 1.0) -> Number:
        """Ends an update; its loss, or None where none was seen.

        The mean over an update's calls of a function; the sum of these over functions. Where a
        pass goes through several calls of a function, or the loop gives calls different weights, it
        is the sum of dL/d(value) times value over all calls. Losses that the loop noted are taken
        alone. Of a closure the first pass is the update's own: the others are at other weights. It
        comes after those of micro-batches before the step.

        Args:
            loss_scale: what a scaler multiplied the loss by.
        """
        self.evaluations.end(step)
        by_source = self._counted()
        described = [
            argument._replace(
                pass_weight=self._weight_of(source),
                constant_loss=self._cost_of_guess(source, by_source.get(source), loss_scale),
                graph=self._with_shares(source, argument.graph),
            )
            if argument.role == "loss"
            else argument
            for source, each in self._described.items()
            for argument in each
        ]
        if described:
            self._rows.append((step, described))
        self._forget()
        return _loss_of([*by_source.values()], loss_scale)

    def _counted(self) -> dict[int, list[_Noted]]:
        """The losses that make the update's, by source."""
        by_source: dict[int, list[_Noted]] = {}
        closed: dict[int, int] = {}
        for loss in self._losses:
            if not loss.counts:
                continue
            if loss.source not in closed or closed[loss.source] == loss.task != -1:
                by_source.setdefault(loss.source, []).append(loss)
            if loss.is_in_step:
                closed.setdefault(loss.source, loss.task)
        return {_NOTED: by_source[_NOTED]} if _NOTED in by_source else by_source

    def _weight_of(self, source: int) -> Number:
        """dL/d(value) of a source's first call of the update; None: no pass went through it."""
        first = next((loss for loss in self._losses if loss.source == source), None)
        return None if first is None else first.weight

    def drain(self) -> Rows | None:
        """Returns the rows of `loss.csv` since the last call; on CUDA it waits for the device."""
        kept, self._rows = self._rows, []
        return rows_of([(step, argument) for step, arguments in kept for argument in arguments])

    # ------------------------------------------------------------ what is seen

    def _hook(self, source: int, module: nn.Module, see: Callable[..., None]) -> None:
        handles = [Hook(self._note, None, see).set_after(module, with_kwargs=True)]
        if not type(module).__module__.startswith("torch."):  # torch's own make no numbers
            enter = Hook(self._note, None, partial(self._enter_numbers, source))
            leave = Hook(self._note, None, partial(self._leave_numbers, source))
            handles += [enter.set_before(module), leave.set_after(module, always_call=True)]
        self._hooks += [handle for handle in handles if handle is not None]

    def _leave_numbers(self, source: int, *_: Any) -> None:
        """Takes the watch off the stack, also where the call raised."""
        if (watch := self._number_watches.get(source)) is not None:
            watch.end()

    def _watch_numbers(self, source: int) -> NumberWatch | None:
        """What is to be on the stack of modes during the next call; None: nothing is."""
        is_due = self.describes and self._is_inside and source not in self._described
        if not is_due or self._num_watched.get(source, 0) >= _MOST_WATCHED:
            return None
        if not torch.is_grad_enabled() or torch.compiler.is_compiling():
            return None
        watch = self._number_watches[source] = NumberWatch()
        return watch

    def _enter_numbers(self, source: int, _module: nn.Module, _args: Any) -> None:
        if (watch := self._watch_numbers(source)) is not None:
            watch.begin()

    def _share_of_numbers(self, source: int, loss: Tensor) -> float | None:
        """The share of a loss that is a number made of a term, by this call and the one before."""
        watch = self._number_watches.pop(source, None)
        if watch is None:
            return None
        self._num_watched[source] = self._num_watched.get(source, 0) + 1
        before, now = self._numbers.get(source), watch.take(loss)
        self._numbers[source] = now
        value = float(loss.detach()) if loss.numel() == 1 and loss.is_cpu else 0.0
        return None if before is None else share_added(before, now, value)

    def _on_module(
        self, source: int, module: nn.Module, args: Any, kwargs: Any, result: Any
    ) -> None:
        if (watch := self._number_watches.get(source)) is not None:
            watch.end()
        self._see(source, module.forward, args, kwargs, result, type(module).__name__)

    def _see(
        self, source: int, function: Any, args: Any, kwargs: Any, result: Any, name: str = ""
    ) -> None:
        if not self._is_inside or torch.compiler.is_compiling():
            return
        loss = loss_in(result)
        if loss is not None and loss.numel() and not torch.is_grad_enabled():
            name = name or getattr(function, "__name__", type(function).__name__)
            right = self._share_right(name, function, args, kwargs)
            self.evaluations.see(_value_of(loss), right)
        if loss is None or not loss.requires_grad or not loss.numel():
            return
        number_share = self._share_of_numbers(source, loss)
        with torch.no_grad():
            noted = _Noted(source, _value_of(loss), counts=False, is_in_step=self.is_in_step)
            self._losses.append(noted)
            entries = loss.detach().clone() if loss.numel() > 1 else None
            loss.register_hook(  # type: ignore[no-untyped-call]
                Hook(self._note, None, partial(self._on_backward, noted, entries))
            )
            is_bad = self._is_first_bad(noted.value)
            if self.describes and source in self._described and not is_bad:
                further = [*islice(named_tensors(function, args, kwargs), _MOST_TENSORS)]
                self._see_guess(source, function, further, loss)
            if is_bad or (self.describes and source not in self._described):
                self._described[source] = []  # even if it fails: of one call alone
                name = name or getattr(function, "__name__", type(function).__name__)
                every = [*named_tensors(function, args, kwargs)][:_MOST_TENSORS]
                if not is_bad:
                    self._see_guess(source, function, every, loss)
                self._described[source] = [
                    *describe_call(
                        name, every, loss, reads_saved=self._may_unpack(), number_share=number_share
                    ),
                    *(self._of_model() if is_bad else ()),
                ]

    def _see_guess(
        self, source: int, function: Any, every: Sequence[tuple[str, Tensor]], loss: Tensor
    ) -> None:
        """Has the call looked at for what a constant answer costs; it is missing where that fails,
        and all else is described."""
        try:
            self._guesses.setdefault(source, Guesses()).see(function, every, loss)
        except Exception as error:
            self._note(None, f"what a constant guess costs raised {type(error).__name__}: {error}")

    def _cost_of_guess(
        self, source: int, calls: Sequence[_Noted] | None, loss_scale: Tensor | float
    ) -> Number:
        """What the update's loss would be if each of its calls cost what a constant answer does."""
        guesses = self._guesses.get(source)
        cost = None if guesses is None else guesses.cost()
        if cost is None or not calls:
            return cost
        return _loss_of([[loss.with_value(cost) for loss in calls]], loss_scale)

    def _share_right(self, name: str, function: Any, args: Any, kwargs: Any) -> Number:
        """Of an evaluation the share of right answers; missing where that fails, and its loss is
        not."""
        try:
            return share_right(name, [*islice(named_tensors(function, args, kwargs), 3)])
        except Exception as error:
            self._note(None, f"the share of right answers raised {type(error).__name__}: {error}")
            return None

    def _with_shares(self, source: int, graph: LossGraph) -> LossGraph:
        """With what the values of calls say, where the graph has no cross-entropy of torch's."""
        guesses = self._guesses.get(source)
        shares = None if guesses is None or graph.share_min is not None else guesses.shares()
        return graph if shares is None else graph._replace(share_min=shares[0], share_max=shares[1])

    def _is_first_bad(self, value: Number) -> bool:
        """Whether a loss is the first that is not finite; on a device nobody waits to know."""
        if not isinstance(value, float) or math.isfinite(value) or self._has_seen_bad:
            return False
        self._has_seen_bad = True
        return True

    def _on_backward(self, noted: _Noted, entries: Tensor | None, gradient: Tensor) -> None:
        # A later pass through it replaces the first, which may be that of a gradient penalty.
        noted.task = backward_task()
        _weigh(noted, entries, gradient.detach())
        if noted.counts:
            return
        before = [
            loss for loss in self._losses if loss.counts and loss.task not in (-1, noted.task)
        ]
        if before and not self.is_in_step and all(p.grad is None for p in self._steps.parameters):
            for loss in before:  # a later pass may go through it yet
                loss.counts = False
        noted.counts = True

    def _forget(self) -> None:
        self._losses = []
        self._described = {}
        self.is_in_step = False
        for watch in self._number_watches.values():  # of calls that raised or gave no loss
            watch.end()
        self._number_watches.clear()


def _value_of(loss: Tensor) -> Number:
    """A loss as a number, or as a copy where reading it would wait: it may change in place."""
    loss = loss.detach()
    value = loss.reshape(()) if loss.numel() == 1 else loss.double().mean()
    return float(value) if value.is_cpu else value.clone()


def _weigh(noted: _Noted, entries: Tensor | None, gradient: Tensor) -> None:
    """Notes dL/d(value); of many entries the value is their mean by the weights of a mask."""
    weight = gradient.double().sum()
    if entries is not None:
        weighted = (gradient.double() * entries).sum() / weight
        value = torch.where(weight == 0, _stacked([noted.value])[0].to(weighted.device), weighted)
        noted.value = float(value) if value.is_cpu else value
    noted.weight = float(weight) if weight.is_cpu else weight
    noted.precision = torch.finfo(gradient.dtype).eps


def _loss_of(calls: Sequence[Sequence[_Noted]], loss_scale: Tensor | float) -> Number:
    """The loss of an update, of the calls of each function."""
    if not calls:
        return None
    means = [_mean([loss.value for loss in own]) for own in calls]
    plain: Number = sum(means[1:], means[0])
    every = [loss for own in calls for loss in own]
    passes = [(loss.source, loss.task) for loss in every if loss.task != -1]
    is_repeated = len(set(passes)) < len(passes)
    if (len(calls) == 1 and not is_repeated) or any(loss.weight is None for loss in every):
        return plain
    weights, values = (_stacked([getattr(x, what) for x in every]) for what in ("weight", "value"))
    weights = weights.to(values.device)
    weighted = (weights * values).sum() / _stacked([loss_scale]).to(values.device)[0]
    if not is_repeated:
        # Of equal weights only what the loop and a scaler multiply the whole by is left out.
        error = 4 * max(loss.precision for loss in every)
        is_equal = weights.amax() - weights.amin() <= error * weights.abs().amax()
        weighted = torch.where(is_equal, _stacked([plain])[0].to(weighted.device), weighted)
    return float(weighted) if weighted.is_cpu else weighted


def _stacked(values: Sequence[Any]) -> Tensor:
    """Numbers as one tensor of float64, where the first tensor is."""
    device = next((value.device for value in values if isinstance(value, Tensor)), None)
    same = [torch.as_tensor(value, dtype=torch.float64, device=device) for value in values]
    return torch.stack([value.reshape(()) for value in same])


def _mean(values: Sequence[Any]) -> Any:
    if not any(isinstance(value, Tensor) for value in values):
        return sum(values) / len(values)
    return _stacked(values).mean()


def loss_in(result: Any) -> Tensor | None:
    """The loss in what a loss function returned: itself, `loss`, or the first tensor."""
    if isinstance(result, Tensor):
        return result
    found = result.get("loss") if isinstance(result, Mapping) else getattr(result, "loss", None)
    if found is None and isinstance(result, tuple | list):
        found = next((x for x in result if isinstance(x, Tensor)), None)
    return found if isinstance(found, Tensor) else None
