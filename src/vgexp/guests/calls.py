"""How a model and a loss function are called with a batch that somebody gave."""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from vgexp.errors import QuestionError, one_line
from vgexp.probe.loss import loss_in

ALLOWED = (
    "allowed: (inputs, target), (input, input, ..., target), or, with loss_fn=None, what the model"
    " is called with: a mapping for model(**batch), a tuple for model(*batch)"
)
_EXACT, _SAME, _LIKE = 1e-5, 0.01, 0.25
"""Relative differences up to which a loss is what a formula gives. Smoothed labels, classes with
weights and labels of positions further on give cross-entropies that are near the usual one."""
_LABELS = ("labels", "label", "targets", "target", "y")


class Call(NamedTuple):
    """What a model is called with, and the target of the loss function."""

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    target: Any = None


def call_of(model: nn.Module, batch: Any, *, has_loss: bool) -> Call:
    """Reads a batch: its tensors are copied.

    Inputs that are one tuple are spread over the model's parameters if it needs that many, and a
    mapping among them if its keys are the model's parameters.

    Raises:
        QuestionError: it is no batch, a tensor of it has no entries, or it has no target though
            there is a loss function.
    """
    if isinstance(batch, str | bytes) or not isinstance(batch, Tensor | tuple | list | Mapping):
        raise QuestionError(f"check: batch is of type {type(batch).__name__}\n{ALLOWED}")
    if _has_empty(batch):
        raise QuestionError(f"check: batch has no entries: {describe(batch)}\n{ALLOWED}")
    batch = _copied(batch)
    if not has_loss:
        if isinstance(batch, Mapping):
            return Call((), batch)
        return Call(tuple(batch) if isinstance(batch, tuple | list) else (batch,), {})
    if not isinstance(batch, tuple | list) or len(batch) < 2:
        what = f"a {type(batch).__name__}"
        if isinstance(batch, tuple | list):
            what += f" of {len(batch)}"
        raise QuestionError(
            f"check: batch is {what}, and a loss function needs inputs and a target\n{ALLOWED}"
        )
    *inputs, target = batch
    if len(inputs) > 1:
        return Call(tuple(inputs), {}, target)
    (only,) = inputs
    if isinstance(only, Mapping) and _takes(model, (), only):
        return Call((), only, target)
    if isinstance(only, tuple | list) and not _takes(model, (only,), {}):
        return Call(tuple(only), {}, target)
    return Call((only,), {}, target)


def describe(value: Any) -> str:
    """What a batch holds, in a few words: `float32 4x5, int64 4`."""
    if isinstance(value, Tensor):
        sizes = "x".join(map(str, value.shape)) or "scalar"
        return f"{str(value.dtype).removeprefix('torch.')} {sizes}"
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {describe(each)}" for name, each in value.items())
    if isinstance(value, tuple | list):
        return f"({', '.join(map(describe, value))})"
    return type(value).__name__


def own_loss(kwargs: Mapping[str, Any], result: Any) -> tuple[Tensor, Tensor] | None:
    """The logits and labels of a model that makes its own loss, with the classes in dim 1."""
    logits = result.get("logits") if isinstance(result, Mapping) else None
    if logits is None:
        logits = getattr(result, "logits", None)
    labels = next((kwargs[name] for name in _LABELS if isinstance(kwargs.get(name), Tensor)), None)
    if not isinstance(logits, Tensor) or labels is None or logits.shape[:-1] != labels.shape:
        return None
    return logits.flatten(0, -2), labels.flatten()


def guess_of(output: Any, target: Any, loss: float) -> float | None:
    """The loss of the best answer that does not depend on inputs, of a loss that is the usual
    cross-entropy, binary cross-entropy or squared error of its output and target, to a hundredth.

    Of labels it is log K, since a batch need not have all K of them.
    """
    pair = _pair(output, target)
    if pair is None:
        return None
    x, y = pair[0].double(), pair[1]
    try:
        if not y.is_floating_point() and x.ndim == y.ndim + 1:
            guess = math.log(x.shape[1])
            # A model of text compares positions with labels one further on.
            measured = [functional.cross_entropy(x, y.long())]
            return guess if guess and _is_near(loss, measured, _LIKE) else None
        if x.shape != y.shape or not y.is_floating_point():
            return None
        y = y.double()
        if _is_near(loss, [(x - y).square().mean()], _SAME):
            return float((y - y.mean()).square().mean())
        share = y.mean()
        measured = [functional.binary_cross_entropy_with_logits(x, y)]
        if bool(((x >= 0) & (x <= 1)).all()):
            measured.append(functional.binary_cross_entropy(x, y))
        if 0 < share < 1 and _is_near(loss, measured, _SAME):
            return float(functional.binary_cross_entropy(share, share))
    except (RuntimeError, IndexError, ValueError):  # labels that are out of range, for one
        return None
    return None


def kind_of(output: Any, target: Any, loss: float) -> str | None:
    """The name in torch.nn.functional of the loss that has this value for output and target; None
    where none has, or where several do."""
    pair = _pair(output, target)
    if pair is None:
        return None
    x, y = pair
    found = []
    for name, has_classes in (("cross_entropy", True), ("binary_cross_entropy_with_logits", False)):
        try:
            if _is_near(loss, [getattr(functional, name)(x.float(), y)], _EXACT):
                found.append(name)
            if has_classes and (x >= 0).all():  # or it took probabilities
                taken = [functional.nll_loss(x.float().log(), y)]
                found += ["nll_loss"] if _is_near(loss, taken, _EXACT) else []
        except (RuntimeError, IndexError, ValueError):
            continue
    return found[0] if len(found) == 1 and found[0] != "nll_loss" else None


def _pair(output: Any, target: Any) -> tuple[Tensor, Tensor] | None:
    """Output and target without their graphs, with classes in dim 1; None if they are no two
    tensors."""
    output = output if isinstance(output, Tensor) else getattr(output, "logits", None)
    if not isinstance(output, Tensor) or not isinstance(target, Tensor) or output.ndim == 0:
        return None
    x, y = output.detach(), target.detach()
    if x.ndim == 2 and x.shape[0] == y.numel():  # the loss function spreads positions itself
        y = y.reshape(-1) if not y.is_floating_point() else y
    if x.ndim > 2 and x.shape[:-1] == y.shape and not y.is_floating_point():
        x, y = x.flatten(0, -2), y.flatten()
    return x, y


def _is_near(loss: float, measured: Iterable[Tensor], tolerance: float) -> bool:
    return any(abs(loss - float(each)) <= tolerance * abs(float(each)) for each in measured)


def handing_on(made: Tensor, name: str) -> Callable[[Tensor, Tensor], Tensor]:
    """A function of this name that returns a loss which a model made of output and target."""

    def loss(output: Tensor, target: Tensor) -> Tensor:  # noqa: ARG001
        return made

    loss.__name__ = name
    return loss


def require_loss(result: Any, loss_fn: Any) -> Tensor:
    loss = loss_in(result)
    whose = "the model" if loss_fn is None else "the loss function"
    if loss is None:
        why = "\nallowed: the loss as a tensor of one number"
        if loss_fn is None:
            why += ", or something with it as `loss`; or a loss_fn that makes it"
        raise QuestionError(f"check: {whose} returned a {type(result).__name__}, no loss{why}")
    if loss.numel() != 1:
        raise QuestionError(
            f"check: {whose} returned {describe(loss)}, and a loss is one number\n"
            "allowed: its mean, as in loss.mean() or reduction='mean'"
            + ("; or a loss_fn that makes a loss of it" if loss_fn is None else "")
        )
    return loss


@contextmanager
def explained(what: str, call: Call, output: Any = None) -> Iterator[None]:
    """Makes one readable error of what somebody else's code raised."""
    try:
        yield
    except QuestionError:
        raise
    except Exception as error:
        text = "; ".join(line.strip() for line in str(error).splitlines() if line.strip())
        lines = [f"check: {what} raised {type(error).__name__}: {one_line(text)}"]
        given = [describe(call.args)[1:-1]] if call.args else []
        given += [describe(call.kwargs)] if call.kwargs else []
        lines.append(f"inputs: {', '.join(given)}")
        if output is not None:
            lines.append(f"output: {describe(output)}")
        if call.target is not None:
            lines.append(f"target: {describe(call.target)}")
        raise QuestionError("\n".join([*lines, ALLOWED])) from error


def _has_empty(value: Any) -> bool:
    """Whether a tensor of a batch has no entries."""
    if isinstance(value, Tensor):
        return value.numel() == 0
    if isinstance(value, Mapping):
        return any(map(_has_empty, value.values()))
    return isinstance(value, tuple | list) and any(map(_has_empty, value))


def _takes(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    try:
        inspect.signature(model.forward).bind(*args, **kwargs)
    except (TypeError, ValueError):
        return False
    return True


def _copied(value: Any) -> Any:
    """A batch with copies of its tensors, each without its graph."""
    if isinstance(value, Tensor):
        made = value.detach().clone()
        return made.requires_grad_() if value.requires_grad else made
    if isinstance(value, Mapping):
        return {name: _copied(each) for name, each in value.items()}
    if type(value) in (tuple, list):
        return type(value)(map(_copied, value))
    try:
        with torch.no_grad():
            return copy.deepcopy(value)
    except Exception:  # of somebody else's classes any
        return value
