"""A callback of Hugging Face's `Trainer` that measures the layers of a model while it trains."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from vgexp.errors import QuestionError
from vgexp.guests.probe import Probe, require_folder, require_settings
from vgexp.guests.recording import find_free
from vgexp.probe.sharded import is_sharded

try:
    from accelerate import Accelerator
    from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
except ModuleNotFoundError as error:
    raise QuestionError(
        "vgexp.integrations.transformers needs transformers and accelerate\n"
        "allowed: pip install 'vgexp[transformers]'"
    ) from error

FOLDER = "vgexp"
"""The name of the run folder below the trainer's `output_dir`."""


class ProbeCallback(TrainerCallback):
    """Measures the columns of `layers.csv` at the optimizer's steps.

    The tables go into the run folder `vgexp` below the trainer's `output_dir`; where it exists
    already, as after `resume_from_checkpoint`, into `vgexp_2` and so on. The loss is the one of the
    model's output, where it has one.

    No event of the `Trainer` lies between the backward pass and clipping. So while training runs,
    `Accelerator.clip_grad_norm_` measures the gradients before it clips them. The `Trainer` does
    not tell a callback of an error in training: `close` then ends the tables and removes the hooks.

    With several devices, rank 0 measures and writes; where parameters are sharded every rank
    measures.

    Args:
        folder: where the tables go in place of that, a folder that does not exist yet.
        settings: arguments of `Probe`, such as `every`, `activations_every` and `examples`.

    Attributes:
        probe: the probe of the last training; None before, and on ranks that do not measure.

    Raises:
        QuestionError: a setting is unknown or impossible.
    """

    def __init__(self, folder: str | Path | None = None, **settings: Any) -> None:
        require_settings(settings)
        require_folder(folder)
        self._folder = folder
        self._settings = settings
        self.probe: Probe | None = None
        self._losses = _Losses()
        self._undo: list[Callable[[], None]] = []

    @property
    def probes(self) -> list[Probe]:
        """The probe in a list, as Lightning's callback has them; empty where there is none."""
        return [] if self.probe is None else [self.probe]

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        """Makes the probe, and sets its hooks."""
        self.close()
        self.probe = None
        model, optimizer = kwargs["model"], kwargs["optimizer"]
        writes = bool(state.is_world_process_zero)
        if not writes and not any(map(is_sharded, model.parameters())):
            return
        folder = self._folder or find_free(Path(str(args.output_dir)) / FOLDER)
        settings = {"scaler": getattr(optimizer, "scaler", None), **self._settings}
        probe = Probe(model, optimizer, folder=folder if writes else None, **settings)
        probe.__enter__()
        self.probe = probe
        parameters = {id(p) for p in model.parameters()}
        self._losses = _Losses()
        hook = model.register_forward_hook(self._losses.see, with_kwargs=True)
        _CLIPPED[id(self)] = (parameters, probe.before_clip)
        _patch()
        self._undo = [lambda: probe.__exit__(None, None, None), hook.remove, self._stop_clipping]

    def on_pre_optimizer_step(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        """Notes the loss of the update, over its micro-batches."""
        loss = self._losses.take()
        if self.probe is not None and loss is not None:
            self.probe.note_loss(loss)

    def on_train_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        """Ends the tables."""
        self.close()

    def close(self) -> None:
        """Ends the tables, and removes all hooks; call it after an error in training."""
        undo, self._undo = self._undo, []
        for each in reversed(undo):
            each()

    def _stop_clipping(self) -> None:
        _CLIPPED.pop(id(self), None)
        _patch()


class _Losses:
    """The losses of an update's micro-batches, as the model's output shows them.

    With `num_items_in_batch`, each is a part of the update's loss, which is their sum; without, it
    is their mean.
    """

    def __init__(self) -> None:
        self._seen: list[Tensor] = []
        self._are_parts = False

    def see(self, module: nn.Module, _args: Any, kwargs: dict[str, Any], output: Any) -> None:
        """Keeps the loss of a call of the model in training."""
        loss = output.get("loss") if isinstance(output, dict) else getattr(output, "loss", None)
        if module.training and isinstance(loss, Tensor) and loss.numel() == 1:
            self._seen.append(loss.detach())
            self._are_parts = kwargs.get("num_items_in_batch") is not None

    def take(self) -> Tensor | None:
        """Returns the loss of the update, and forgets it; None where none was seen."""
        seen, self._seen = self._seen, []
        if not seen:
            return None
        total = sum(seen[1:], seen[0].clone())
        return total if self._are_parts else total / len(seen)


# ---------------------------------------------------------------- clipping

_PLAIN = Accelerator.clip_grad_norm_
_CLIPPED: dict[int, tuple[set[int], Callable[[], None]]] = {}
"""Callback that measures -> the parameters of its model, and what to call before clipping them."""


def _patch() -> None:
    """Has clipping measure first, while a callback measures; else puts back accelerate's own."""
    Accelerator.clip_grad_norm_ = _clip_grad_norm_ if _CLIPPED else _PLAIN


def _clip_grad_norm_(
    self: Accelerator, parameters: Iterable[Tensor], *args: Any, **kwargs: Any
) -> Any:
    clipped = list(parameters)
    ids = {id(p) for p in clipped}
    measures = [measure for held, measure in _CLIPPED.values() if not held.isdisjoint(ids)]
    if not measures:
        return _PLAIN(self, clipped, *args, **kwargs)
    self.unscale_gradients()
    for measure in measures:
        measure()
    # The plain one unscales as well, which a scaler refuses to do twice.
    self.unscale_gradients = lambda *_args, **_kwargs: None
    try:
        return _PLAIN(self, clipped, *args, **kwargs)
    finally:
        del self.unscale_gradients
