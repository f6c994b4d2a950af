"""Copies a model, its optimizer and its loss function, so that the copies refer to each other."""

from __future__ import annotations

import copy
import types
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from vgexp.errors import QuestionError, one_line
from vgexp.torch_internals import version_of

Memo = dict[int, Any]
"""The id of an original -> its copy, as `copy.deepcopy` keeps it."""


def copy_together(
    model: nn.Module, optimizer: Any, loss_fn: Any
) -> tuple[nn.Module, Any, Any, Memo]:
    """Copies of the three, and what became of each object in them.

    The copied optimizer holds the copied model's parameters, and copies of those that are none of
    the model's. Functions that reach the model by name (in a closure, among the globals of their
    module, as a default) reach its copy. What the model computed before and kept is copied without
    its graph.

    Raises:
        QuestionError: one of them cannot be copied.
    """
    memo: Memo = {}
    for module in model.modules():
        for value in vars(module).values():
            if isinstance(value, Tensor) and not value.is_leaf:
                memo[id(value)] = value.detach().clone()
            elif isinstance(value, torch.Generator):
                memo[id(value)] = _copied_generator(value)
    copied_model, copied_optimizer = (
        _copied(what, value, memo) for what, value in (("model", model), ("optimizer", optimizer))
    )
    if optimizer is not None:
        _copy_attributes(optimizer, copied_optimizer, memo)
    copied_loss = rebound(loss_fn, memo)
    if copied_loss is loss_fn and not isinstance(loss_fn, types.FunctionType):
        copied_loss = _copied("loss_fn", loss_fn, memo)
    for module in copied_model.modules():
        _rebind_attributes(module, memo)
    return copied_model, copied_optimizer, copied_loss, memo


def rebound(function: Any, memo: Memo) -> Any:
    """The function with copies for what it reaches of what was copied; itself where nothing is."""
    return _rebound(function, memo, set())


@contextmanager
def untouched(*owners: Any) -> Iterator[None]:
    """Within, gradients that come to parameters do not stay; afterwards buffers are as before.

    It stands for the case that a copy still reaches the original in a way that nobody can see.

    Args:
        owners: modules, and whatever else has `param_groups`.
    """
    modules = [each for each in owners if isinstance(each, nn.Module)]
    parameters = {id(p): p for module in modules for p in module.parameters()}
    for owner in owners:
        groups = getattr(owner, "param_groups", None) or ()
        parameters |= {id(p): p for group in groups for p in group["params"]}
    gradients = [(p, p.grad) for p in parameters.values()]
    kept = [(x, x.detach().clone(), version_of(x)) for module in modules for x in module.buffers()]
    try:
        for parameter, _ in gradients:
            parameter.grad = None
        yield
    finally:
        for parameter, gradient in gradients:
            parameter.grad = gradient
        for buffer, value, version in kept:
            if version_of(buffer) != version:
                with torch.no_grad():
                    buffer.copy_(value)


def _copied(what: str, value: Any, memo: Memo) -> Any:
    try:
        return copy.deepcopy(value, memo)
    except Exception as error:  # of somebody else's classes any
        raise QuestionError(
            f"check makes its update on copies, and this {what}, a {type(value).__name__}, cannot"
            f" be copied: {type(error).__name__}: {one_line(str(error))}\n"
            f"allowed: a {what} that copy.deepcopy takes; keep what cannot be copied out of it, or"
            " give its class a __deepcopy__. In a training loop of yours vgexp.Probe needs no copy"
        ) from error


def _copy_attributes(optimizer: Any, copied: Any, memo: Memo) -> None:
    """Gives a copy what optimizers of torch leave out of their state, as LBFGS does its list of
    parameters; but no hooks and no wrapped methods."""
    for name, value in vars(optimizer).items():
        if name not in vars(copied) and not callable(value):
            vars(copied)[name] = _or_itself(value, memo)


def _copied_generator(generator: torch.Generator) -> torch.Generator:
    made = torch.Generator(generator.device)
    made.set_state(generator.get_state())
    return made


def _rebind_attributes(module: nn.Module, memo: Memo) -> None:
    """Functions that a copied module keeps, hooks among them, reach copies."""
    for name, value in list(vars(module).items()):
        if isinstance(value, types.FunctionType):
            vars(module)[name] = rebound(value, memo)
        elif isinstance(value, dict):
            for key, inner in list(value.items()):
                if isinstance(inner, types.FunctionType):
                    value[key] = rebound(inner, memo)
        elif isinstance(value, list):
            value[:] = [
                rebound(inner, memo) if isinstance(inner, types.FunctionType) else inner
                for inner in value
            ]


def _rebound(value: Any, memo: Memo, seen: set[int]) -> Any:
    if id(value) in memo:
        return memo[id(value)]
    if not isinstance(value, types.FunctionType) or id(value) in seen:
        return value
    seen.add(id(value))
    closure = value.__closure__ or ()
    cells = [_cell(cell, memo, seen) for cell in closure]
    names = {name: value.__globals__[name] for name in _names(value.__code__, value.__globals__)}
    found = {name: _reached(each, memo, seen) for name, each in names.items()}
    changed = {name: each for name, each in found.items() if each is not names[name]}
    defaults = tuple(_reached(each, memo, seen) for each in value.__defaults__ or ())
    if (
        not changed
        and all(new is old for new, old in zip(cells, closure, strict=True))
        and all(new is old for new, old in zip(defaults, value.__defaults__ or (), strict=True))
    ):
        return value
    scope = {**value.__globals__, **changed} if changed else value.__globals__
    made = types.FunctionType(
        value.__code__, scope, value.__name__, defaults or None, tuple(cells) or None
    )
    made.__kwdefaults__ = value.__kwdefaults__
    made.__dict__.update(value.__dict__)
    made.__doc__, made.__module__ = value.__doc__, value.__module__
    made.__qualname__ = value.__qualname__
    memo[id(value)] = made
    return made


def _cell(cell: types.CellType, memo: Memo, seen: set[int]) -> types.CellType:
    try:
        held = cell.cell_contents
    except ValueError:  # it is empty
        return cell
    found = _reached(held, memo, seen)
    return cell if found is held else types.CellType(found)


def _reached(value: Any, memo: Memo, seen: set[int]) -> Any:
    """The copy of something that a function reaches; itself where it is none of what was copied,
    and holds no module."""
    if id(value) in memo:
        return memo[id(value)]
    if isinstance(value, types.FunctionType):
        return _rebound(value, memo, seen)
    if isinstance(value, nn.Module) or isinstance(getattr(value, "__self__", None), nn.Module):
        return _or_itself(value, memo)
    is_holder = isinstance(value, tuple | list | dict)
    items = value.values() if isinstance(value, dict) else value if is_holder else ()
    if any(id(each) in memo or isinstance(each, nn.Module) for each in items):
        return _or_itself(value, memo)
    return value


def _or_itself(value: Any, memo: Memo) -> Any:
    try:
        return copy.deepcopy(value, memo)
    except Exception:  # of somebody else's classes any
        return value


def _names(code: types.CodeType, scope: Mapping[str, Any]) -> Iterator[str]:
    """The names of globals that a function's code may use, functions within it included."""
    yield from (name for name in code.co_names if name in scope)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names(constant, scope)
