"""A callback of Hugging Face's `Trainer` that measures the layers of a model while it trains."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from vgexp.errors import QuestionError
from vgexp.guests.probe import Probe

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
    already, as after `resume_from_checkpoint`, into `vgexp-2` and so on. The loss is the one of the
    model's output, where it has one.

    No event of the `Trainer` lies between the backward pass and clipping. So while training runs,
    `Accelerator.clip_grad_norm_` measures the gradients before it clips them.

    Args:
        folder: where the tables go in place of that, a folder that does not exist yet.
        settings: arguments of `Probe`, such as `every`, `activations_every` and `examples`.

    Attributes:
        probe: the probe of the last training; None before, and on other ranks than 0.
    """

    def __init__(self, folder: str | Path | None = None, **settings: Any) -> None:
        self._folder = folder
        self._settings = settings
        self.probe: Probe | None = None
        self._undo: list[Callable[[], None]] = []

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        """Makes the probe, and sets its hooks."""
        self._leave()
        self.probe = None
        if not state.is_world_process_zero:
            return
        model, optimizer = kwargs["model"], kwargs["optimizer"]
        folder = self._folder or _free(Path(args.output_dir) / FOLDER)
        settings = {"scaler": getattr(optimizer, "scaler", None), **self._settings}
        probe = Probe(model, optimizer, folder=folder, **settings)
        probe.__enter__()
        self.probe = probe
        self._undo = [
            lambda: probe.__exit__(None, None, None),
            model.register_forward_hook(_noting_loss(probe)).remove,
            _measure_before_clipping(probe),
        ]

    def on_train_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        """Ends the tables."""
        self._leave()

    def _leave(self) -> None:
        undo, self._undo = self._undo, []
        for each in reversed(undo):
            each()


def _noting_loss(probe: Probe) -> Callable[[Any, Any, Any], None]:
    def note(module: Any, _args: Any, output: Any) -> None:
        loss = output.get("loss") if isinstance(output, dict) else getattr(output, "loss", None)
        if module.training and loss is not None:
            probe.note_loss(loss)

    return note


def _measure_before_clipping(probe: Probe) -> Callable[[], None]:
    """Has clipping measure first. Returns what undoes it."""
    plain = Accelerator.clip_grad_norm_

    def clip_grad_norm_(self: Accelerator, *args: Any, **kwargs: Any) -> Any:
        self.unscale_gradients()
        probe.before_clip()
        return plain(self, *args, **kwargs)

    Accelerator.clip_grad_norm_ = clip_grad_norm_

    def undo() -> None:
        Accelerator.clip_grad_norm_ = plain

    return undo


def _free(folder: Path) -> Path:
    """The folder, or the first of `folder-2`, `folder-3` and so on that does not exist."""
    number, found = 1, folder
    while found.exists():
        number += 1
        found = folder.with_name(f"{folder.name}-{number}")
    return found
