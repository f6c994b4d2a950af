"""One update on a copy, before training: what is wrong with wiring, loss, inputs and signal."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from vgexp.errors import QuestionError, one_line
from vgexp.guests.calls import ALLOWED, Call, call_of, describe, guess_of, handing_on, own_loss
from vgexp.guests.copies import copy_together, untouched
from vgexp.guests.probe import Probe
from vgexp.probe.loss import loss_in
from vgexp.probe.optimizers import StepHooks
from vgexp.probe.ranks import unwrapped
from vgexp.seeds import without_draws

if TYPE_CHECKING:
    import pandas as pd

    from vgexp.diagnosis import Diagnosis

_ONE_UPDATE = "one update before training does not tell (probe.diagnose() does, in your loop)"
_IN_A_LOOP = (
    "gradient_cleared", "gradient_kept", "rate_too_small", "clip_throttles", "dead_units",
    "saturated_units", "labels_unlearnable", "flat_landscape", "relapsed", "overfitting",
    "idle_clip", "idle_layers", "loss", "unfinished",
)  # fmt: skip
_NO_OPTIMIZER = "no optimizer was given"
_OF_THE_OPTIMIZER = (
    "no_update", "not_in_optimizer", "rate_too_large", "optimizer_epsilon", "no_warmup",
)  # fmt: skip


class _Update(NamedTuple):
    """What one update gave."""

    probe: Probe
    loss: float
    loss_after: float | None
    """On the same batch, behind the update."""
    guess: float | None
    """The loss of the best constant guess, where it is known what the loss is."""
    of_loss_alone: set[str]
    """Names of the parameters whose modules the loss function calls, and the model does not."""


def check(
    model: nn.Module,
    loss_fn: Callable[..., Any] | None,
    batch: Any,
    optimizer: torch.optim.Optimizer | None = None,
) -> Diagnosis:
    """Makes one update on a copy of everything, and says what is wrong before training starts.

    Model, optimizer, loss function, batch, gradients, buffers and random generators stay as they
    are. It takes the time and the memory of an update and of a copy. A model in evaluation mode is
    checked in training mode.

    `healthy` means that all that one update can show is in order: the gradient reaches every
    weight that needs it, the optimizer changes them, nothing is nan, the loss fits its targets,
    inputs and signal have a usual scale. Whether it learns only training shows.

    Args:
        loss_fn: called as `loss_fn(model(inputs), target)`; None: the model makes its own loss.
        batch: `(inputs, target)`, where inputs may be a tensor, a mapping of the model's arguments
            or a tuple of them; or `(input, input, ..., target)`. Without a loss function, what the
            model is called with: `model(**batch)` of a mapping, `model(*batch)` of a tuple; the
            loss is what it returns, or `loss` of it.
        optimizer: None leaves out what is wrong with one.

    Returns:
        As `probe.diagnose()`. What one update cannot tell is in `unchecked`.

    Raises:
        QuestionError: an argument is none of these, something cannot be copied, the loss is not one
            number, or a pass raised.
    """
    _require(model, loss_fn, optimizer)
    model = unwrapped(model)
    call = call_of(model, batch, has_loss=loss_fn is not None)
    with without_draws(), untouched(model, optimizer, loss_fn), torch.inference_mode(False):
        copied, own_optimizer, own_loss_fn, memo = copy_together(model, optimizer, loss_fn)
        del memo
        if not copied.training:
            copied.train()
        if own_optimizer is None:
            own_optimizer = _stand_in(copied)
        with torch.enable_grad():
            update = _update(
                copied, own_loss_fn, call, own_optimizer, updates=optimizer is not None
            )
    return _conclude(update, has_optimizer=optimizer is not None)


# ---------------------------------------------------------------- the update


def _update(
    model: nn.Module, loss_fn: Any, call: Call, optimizer: Any, *, updates: bool
) -> _Update:
    for parameter in (*model.parameters(), *StepHooks(optimizer).parameters()):
        parameter.grad = None
    ran: set[int] = set()
    probe = Probe(model, optimizer, every=1, activations_every=1)
    watched = None if loss_fn is None else probe.watch_loss(loss_fn)
    with probe:
        with _explained("the model's forward pass", call), _noting(model, ran):
            output = model(*call.args, **call.kwargs)
        in_model = frozenset(ran)
        with _explained("the loss function", call, output), _noting(model, ran):
            result = output if watched is None else watched(output, call.target)
        if watched is None:
            result = _watch_own_loss(probe, model, call, output)
        loss = _require_loss(result, loss_fn)
        if watched is None or not loss.requires_grad:
            probe.note_loss(loss)
        value = float(loss.detach())
        if loss.requires_grad:
            with _explained("the backward pass", call, output):
                loss.backward()  # type: ignore[no-untyped-call]
        with _explained("the optimizer's step", call):
            _step(optimizer, loss)
    compared = own_loss(call.kwargs, output) if loss_fn is None else (output, call.target)
    guess = None if compared is None else guess_of(compared[0], compared[1], value)
    after = _loss_again(model, loss_fn, call) if updates else None
    return _Update(probe, value, after, guess, _owned(model, ran - in_model))


def _loss_again(model: nn.Module, loss_fn: Any, call: Call) -> float | None:
    """The loss behind the update; None where it cannot be had."""
    try:
        with torch.no_grad():
            output = model(*call.args, **call.kwargs)
            loss = loss_in(output if loss_fn is None else loss_fn(output, call.target))
            return None if loss is None or loss.numel() != 1 else float(loss)
    except Exception:  # a model that changes as it runs may raise anything
        return None


def _watch_own_loss(probe: Probe, model: nn.Module, call: Call, output: Any) -> Any:
    """What a model returned that makes its own loss; its logits and labels are described."""
    loss, found = loss_in(output), own_loss(call.kwargs, output)
    if loss is None or found is None:
        return output
    logits, labels = found
    name = f"{type(model).__name__}.loss"
    return probe.watch_loss(handing_on(loss, name))(logits, labels)


def _step(optimizer: Any, loss: Tensor) -> None:
    """Makes the step; an optimizer that asks for the loss again gets the one that there is."""
    try:
        needed = inspect.signature(optimizer.step).parameters.get("closure")
    except (TypeError, ValueError):
        needed = None
    if needed is not None and needed.default is inspect.Parameter.empty:
        optimizer.step(lambda: loss.detach())
    else:
        optimizer.step()


def _stand_in(model: nn.Module) -> torch.optim.Optimizer:
    """An optimizer that changes nothing, where none was given."""
    every = [p for p in model.parameters() if p.requires_grad] or [*model.parameters()]
    return torch.optim.SGD(every, lr=0.0)


@contextmanager
def _noting(model: nn.Module, ran: set[int]) -> Iterator[None]:
    """Within, the ids of the model's modules that are called are added."""
    handles = [
        module.register_forward_pre_hook(lambda module, _: ran.add(id(module)))
        for module in model.modules()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _owned(model: nn.Module, modules: set[int]) -> set[str]:
    """The names of the parameters that only these modules own."""
    names = {id(p): name for name, p in model.named_parameters()}
    ids = {m: {id(p) for p in m.parameters(recurse=False)} for m in model.modules()}
    theirs = set().union(*(own for m, own in ids.items() if id(m) in modules))
    others = set().union(*(own for m, own in ids.items() if id(m) not in modules))
    return {names[each] for each in theirs - others}


# ---------------------------------------------------------------- the diagnosis


def _conclude(update: _Update, *, has_optimizer: bool) -> Diagnosis:
    from vgexp import diagnosis

    frames = {name: update.probe.to_frame(name) for name in update.probe.tables}
    wiring = frames["wiring"]
    # Whoever calls them in the loss function may train them with another optimizer.
    others = wiring["name"].isin(update.of_loss_alone) & (wiring["in_optimizer"] == 0)
    frames["wiring"] = wiring.assign(in_optimizer=wiring["in_optimizer"].mask(others))
    withheld = dict.fromkeys(_IN_A_LOOP, _ONE_UPDATE)
    evidence = update.probe.gather(frames)
    settings = evidence.settings
    if not has_optimizer:
        withheld |= dict.fromkeys(_OF_THE_OPTIMIZER, _NO_OPTIMIZER)
        settings = {k: v for k, v in settings.items() if not k.startswith("optimizer.")}
        evidence = update.probe.gather(_without_update(frames))
    known = {
        "loss_at_start": update.loss,
        "loss_after_update": update.loss_after,
        "constant_loss": update.guess,
    }
    return diagnosis.conclude(
        replace(
            evidence,
            settings=settings,
            metrics={**evidence.metrics, **known},
            is_check=True,
            withheld=withheld,
        )
    )


def _without_update(frames: Mapping[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """The tables without what the stand-in did."""
    made = {"layers": ["update_ratio"], "wiring": ["lr", "updated"], "steps": ["lr"]}
    return {
        name: frame.assign(**{c: np.nan for c in made.get(name, ()) if c in frame})
        for name, frame in frames.items()
    }


# ---------------------------------------------------------------- errors


def _require(model: Any, loss_fn: Any, optimizer: Any) -> None:
    if not isinstance(model, nn.Module):
        given = repr(model) if isinstance(model, str) else f"of type {type(model).__name__}"
        raise QuestionError(
            f"check: model is {given}\nallowed: a torch.nn.Module, as in"
            " vgexp.check(model, loss_fn, (inputs, target), optimizer)"
        )
    if next(model.parameters(), None) is None:
        raise QuestionError(
            f"check: {type(model).__name__} has no parameters, so that nothing can be trained\n"
            "allowed: a module with parameters; a module finds those of its parts among its"
            " attributes, nn.ModuleList and nn.ModuleDict"
        )
    if loss_fn is not None and (not callable(loss_fn) or isinstance(loss_fn, type)):
        given = f"the class {loss_fn.__name__}" if isinstance(loss_fn, type) else "not callable"
        raise QuestionError(
            f"check: loss_fn is {given}\nallowed: a function or a module, such as"
            " nn.CrossEntropyLoss(), or None where the model makes its own loss"
        )
    if optimizer is not None:
        try:
            StepHooks(optimizer)
        except QuestionError:
            raise QuestionError(
                f"check: optimizer is of type {type(optimizer).__name__}\n"
                "allowed: a torch.optim.Optimizer, or None"
            ) from None


def _require_loss(result: Any, loss_fn: Any) -> Tensor:
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
def _explained(what: str, call: Call, output: Any = None) -> Iterator[None]:
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
