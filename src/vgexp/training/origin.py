"""What made the first value that is not finite: data, an update, forward pass, loss or backward.

The passes of one update are made again, on a copy of the model, and looked at value by value. That
is done once in a run.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node

from vgexp.data.batches import Batch
from vgexp.models import Network
from vgexp.training.state import TrainState


class Origin(NamedTuple):
    """What made the first value that is not finite, and where."""

    maker: str
    """`data`, `initialisation`, `update` (the one before), `forward`, `loss` or `backward`."""
    place: str
    """Of an update the parameter; of a forward pass the module, or what comes after one; of a
    backward pass the operation and its module. Of a loss that is finite the operation whose
    gradient is not. Empty where there is no name for it."""


def find_origin(state: TrainState, batch: Batch, drawn_before: Sequence[Tensor]) -> Origin | None:
    """Finds what made the first non-finite value of an update, before the optimizer takes it.

    The state stays as it is. An operation made a value that is not finite if all that it was given
    is. In the forward pass modules are looked at, in the order in which they are called; -inf, of
    which masks are made, counts where a module with weights made it, else only where the network's
    outputs are not finite.

    Args:
        drawn_before: the state of the model's random stream before the passes; empty: it draws
            nothing.

    Returns:
        None where the passes cannot be made again, or have nothing in them that is not finite.
    """
    for name, parameter in state.model.named_parameters():
        if not _is_finite(parameter):
            return Origin("update" if state.step else "initialisation", name)
    if not all(_is_finite(each) for x, y in batch for each in (x, y)):
        return Origin("data", "")
    now = state.stream.state_dict()
    try:
        if drawn_before:
            state.stream.load_state_dict(list(drawn_before))
        found = _find_in_passes(state, batch)
    except Exception:  # a user's model, which may not stand to be called again
        return None
    finally:
        state.stream.load_state_dict(now)
    if found is not None:
        return found
    bad = [name for name, p in state.model.named_parameters() if not _is_finite(p.grad)]
    return Origin("backward", bad[-1]) if bad else None


def _find_in_passes(state: TrainState, batch: Batch) -> Origin | None:
    model = copy.deepcopy(state.model)
    if isinstance(model, Network):
        model.recomputes = False  # so that each module is called once
    parameters = [p for p in model.parameters() if p.requires_grad]
    half = state.half
    for x, y in batch:
        with nullcontext() if half is None else half.context:
            calls = _Calls(model)
            with calls:
                outputs = model(x)
            loss = state.loss.mean(outputs, y)
        if (place := calls.first_bad(are_outputs_bad=not _is_finite(outputs))) is not None:
            return Origin("forward", place)
        if not _is_finite(loss):
            return Origin("loss", "")
        scaled = loss if half is None else half.scale(loss)
        node = _first_bad_node(scaled, parameters)
        if node is not None:
            operation = _name_of(node)
            if node in _between(_nodes_of(scaled), _nodes_of(outputs)):
                return Origin("loss", operation)
            module = calls.innermost(node)
            return Origin("backward", f"{operation} in {module}" if module else operation)
    return None


# ---------------------------------------------------------------- forward


class _Event(NamedTuple):
    """That a module is entered, or left. Whatever changes tensors in place comes later."""

    module: str
    """Its name and its class; empty for the model itself."""
    is_end: bool
    nodes: list[Node]
    """The operations that made the tensors which go in, or come out."""
    is_bad: bool
    """Whether one of them is not finite; -inf, of which masks are made, counts only where a module
    with weights of its own made it."""
    is_finite: bool


class _Calls:
    """Within, notes the calls of a model's modules."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._events: list[_Event] = []
        self._hooks = ExitStack()

    def __enter__(self) -> _Calls:
        for name, module in self._model.named_modules():
            label = f"{name} ({type(module).__name__})" if name else ""
            begin, end = self._make_hooks(label, any(True for _ in module.parameters(False)))
            self._hooks.callback(module.register_forward_pre_hook(begin, with_kwargs=True).remove)
            self._hooks.callback(module.register_forward_hook(end).remove)
        return self

    def __exit__(self, *_: object) -> None:
        self._hooks.close()

    def _make_hooks(
        self, label: str, has_weights: bool
    ) -> tuple[Callable[..., None], Callable[..., None]]:
        def begin(_: nn.Module, args: Any, kwargs: Any) -> None:
            # What goes in without being part of the graph is data, or a mask.
            self._note(label, False, (t for t in _tensors_in((args, kwargs)) if t.requires_grad))

        def end(_: nn.Module, _args: Any, result: Any) -> None:
            self._note(label, True, _tensors_in(result), is_mask=not has_weights)

        return begin, end

    def _note(
        self, label: str, is_end: bool, tensors: Iterable[Tensor], *, is_mask: bool = True
    ) -> None:
        seen = [*tensors]
        nodes = [tensor.grad_fn for tensor in seen if tensor.grad_fn is not None]
        is_finite = all(map(_is_finite, seen))
        is_bad = any(map(_has_nan_or_inf, seen)) if is_mask else not is_finite
        self._events.append(_Event(label, is_end, nodes, is_bad, is_finite))

    def first_bad(self, *, are_outputs_bad: bool) -> str | None:
        """The place of the first value that is not finite; None where there is none."""
        for number, event in enumerate(self._events):
            if event.is_bad:
                return self._place_of(number)
        if not are_outputs_bad:
            return None
        bad = (number for number, event in enumerate(self._events) if not event.is_finite)
        return self._place_of(next(bad, len(self._events) - 1))

    def _place_of(self, number: int) -> str:
        event, before = self._events[number], self._events[max(number - 1, 0)]
        if event.is_end and not before.is_end:  # it calls no other module
            return event.module
        return f"what follows {before.module}" if before.is_end else f"what precedes {event.module}"

    def innermost(self, node: Node) -> str:
        """The innermost module that made a node of the graph; empty where none of them did."""
        entered: list[_Event] = []
        for event in self._events:
            if not event.is_end:
                entered.append(event)
                continue
            begin = next(each for each in reversed(entered) if each.module == event.module)
            entered.remove(begin)
            if event.module and node in _between(event.nodes, begin.nodes):
                return event.module
        return ""


# ---------------------------------------------------------------- backward


def _first_bad_node(loss: Tensor, parameters: Sequence[Tensor]) -> Node | None:
    """The first operation whose gradient is not finite though what it is given is."""
    found: list[Node] = []

    def watch(node: Node) -> Callable[[Any, Any], None]:
        def look(made: Any, given: Any) -> None:
            if not found and all(map(_is_finite, given)) and not all(map(_is_finite, made)):
                found.append(node)

        return look

    with ExitStack() as hooks:
        for node in _between(_nodes_of(loss), []):
            hooks.callback(node.register_hook(watch(node)).remove)
        torch.autograd.grad(loss, parameters, allow_unused=True)
    return found[0] if found else None


def _between(made: Iterable[Node], given: Iterable[Node]) -> set[Node]:
    """The operations that were made of others, up to those others."""
    seen: set[Node] = set(given)
    ends = set(seen)
    waiting = [*made]
    while waiting:
        node = waiting.pop()
        if node not in seen:
            seen.add(node)
            waiting += [each for each, _ in node.next_functions if each is not None]
    return seen - ends


def _nodes_of(tensor: Tensor) -> list[Node]:
    return [] if tensor.grad_fn is None else [tensor.grad_fn]


def _name_of(node: Node) -> str:
    """`sqrt` of a node that is called SqrtBackward0."""
    name = re.sub(r"Backward\d*$", "", node.name().rpartition("::")[2])
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


# ---------------------------------------------------------------- tensors


def _tensors_in(what: Any) -> Iterator[Tensor]:
    if isinstance(what, Tensor):
        yield what
    elif isinstance(what, Mapping):
        yield from _tensors_in([*what.values()])
    elif isinstance(what, list | tuple):
        for each in what:
            yield from _tensors_in(each)


def _is_finite(tensor: Tensor | None) -> bool:
    return tensor is None or bool(torch.isfinite(tensor).all())


def _has_nan_or_inf(tensor: Tensor) -> bool:
    """Whether something is nan or inf; -inf is what masks are made of."""
    return bool(torch.isnan(tensor).any() | torch.isposinf(tensor).any())
