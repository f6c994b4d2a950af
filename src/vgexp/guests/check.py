"""One update on a copy, before training: what is wrong with wiring, loss, inputs and signal."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from vgexp.errors import QuestionError
from vgexp.guests.calls import call_of
from vgexp.guests.copies import copy_together, untouched
from vgexp.guests.trial import Trial, try_update
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
_NORM_FIRST = "a normalisation follows on the first layer and divides by the scale of inputs"
_NO_OPTIMIZER = "no optimizer was given"
_OF_THE_OPTIMIZER = (
    "no_update", "not_in_optimizer", "rate_too_large", "optimizer_epsilon", "no_warmup",
)  # fmt: skip


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
        # What is warned of here is warned of again in training, or is found below.
        with torch.enable_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            trial = try_update(copied, own_loss_fn, call, own_optimizer)
    return _conclude(trial, has_optimizer=optimizer is not None)


# ---------------------------------------------------------------- the diagnosis


def _conclude(trial: Trial, *, has_optimizer: bool) -> Diagnosis:
    from vgexp import diagnosis

    frames = {name: trial.probe.to_frame(name) for name in trial.probe.tables}
    if trial.kind is not None and "loss" in frames:
        # Rules know a loss by its name, and a lambda's says nothing.
        named = frames["loss"]["function"].map(lambda name: _with_kind(name, str(trial.kind)))
        frames["loss"] = frames["loss"].assign(function=named)
    wiring = frames["wiring"]
    # Whoever calls them in the loss function may train them with another optimizer.
    others = wiring["name"].isin(trial.of_loss_alone) & (wiring["in_optimizer"] == 0)
    frames["wiring"] = wiring.assign(in_optimizer=wiring["in_optimizer"].mask(others))
    withheld = dict.fromkeys(_IN_A_LOOP, _ONE_UPDATE)
    if trial.facts["is_norm_first"]:
        withheld["inputs_unscaled"] = _NORM_FIRST
    evidence = trial.probe.gather(frames)
    settings = evidence.settings
    if not has_optimizer:
        withheld |= dict.fromkeys(_OF_THE_OPTIMIZER, _NO_OPTIMIZER)
        settings = {k: v for k, v in settings.items() if not k.startswith("optimizer.")}
        evidence = trial.probe.gather(_without_update(frames))
    return diagnosis.conclude(
        replace(
            evidence,
            settings=settings,
            metrics={**evidence.metrics, **trial.facts},
            is_check=True,
            withheld=withheld,
        )
    )


def _with_kind(name: str, kind: str) -> str:
    plain = name.replace("_", "").lower()
    return name if kind.replace("_", "") in plain else f"{name} ({kind})"


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
