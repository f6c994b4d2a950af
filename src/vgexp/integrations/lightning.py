"""A Lightning callback that measures the layers of a module while a `Trainer` trains it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vgexp.errors import QuestionError
from vgexp.guests.probe import Probe

try:
    from lightning.pytorch import Callback, LightningModule, Trainer
except ModuleNotFoundError:
    try:
        from pytorch_lightning import Callback, LightningModule, Trainer
    except ModuleNotFoundError as error:
        raise QuestionError(
            "vgexp.integrations.lightning needs lightning, which is not installed\n"
            "allowed: pip install 'vgexp[lightning]'"
        ) from error

FOLDER = "vgexp"
"""The name of the run folder below the trainer's own."""


class ProbeCallback(Callback):
    """Measures the columns of `layers.csv` at the steps of every optimizer of a module.

    The tables go into a run folder beside the trainer's own output, `vgexp` below
    `trainer.log_dir` or, without a logger, below `trainer.default_root_dir`. With several
    optimizers each has a folder of its own, `vgexp/optimizer_0` and so on, with the weights that it
    holds.

    Gradients are measured before Lightning clips them, and once more as the optimizer sees them.
    The loss is the one that Lightning calls `backward` with; the number that accumulation divides
    it by is multiplied back. With several devices, rank 0 measures and writes.

    Args:
        folder: where the tables go in place of that, a folder that does not exist yet.
        settings: arguments of `Probe`, such as `every`, `activations_every` and `examples`.

    Attributes:
        probes: the probes of the last `fit`, one an optimizer; empty on other ranks than 0.
    """

    def __init__(self, folder: str | Path | None = None, **settings: Any) -> None:
        super().__init__()
        self._folder = folder
        self._settings = settings
        self.probes: list[Probe] = []
        self._entered: list[Probe] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Makes a probe for each optimizer, and sets its hooks."""
        self.probes = []
        if not trainer.is_global_zero:
            return
        folder = Path(self._folder or _own_folder(trainer))
        optimizers = trainer.optimizers
        for number, optimizer in enumerate(optimizers):
            settings = dict(self._settings)
            if len(optimizers) > 1:
                settings.setdefault("layers", _pattern(pl_module, optimizer))
            settings.setdefault("scaler", _scaler(trainer))
            own = folder if len(optimizers) == 1 else folder / f"optimizer_{number}"
            probe = Probe(pl_module, optimizer, folder=own, **settings)
            probe.__enter__()
            self._entered.append(probe)
            self.probes.append(probe)

    def on_before_backward(
        self, trainer: Trainer, pl_module: LightningModule, loss: Tensor
    ) -> None:
        """Notes the loss, as it is before accumulation divides it."""
        parts = trainer.accumulate_grad_batches if pl_module.automatic_optimization else 1
        for probe in self._entered:
            probe.note_loss(loss.detach() * parts)

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Measures the gradients before Lightning clips them."""
        for probe, own in zip(self._entered, trainer.optimizers, strict=False):
            if own is getattr(optimizer, "optimizer", optimizer):
                probe.before_clip()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Ends the tables."""
        self._leave(None)

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Ends the tables, and records how training ended."""
        self._leave(exception)

    def _leave(self, error: BaseException | None) -> None:
        entered, self._entered = self._entered, []
        for probe in entered:
            probe.__exit__(type(error) if error else None, error, None)


def _own_folder(trainer: Trainer) -> Path:
    return Path(trainer.log_dir or trainer.default_root_dir) / FOLDER


def _scaler(trainer: Trainer) -> Any:
    return getattr(trainer.precision_plugin, "scaler", None)


def _pattern(module: LightningModule, optimizer: torch.optim.Optimizer) -> str:
    """A regular expression on the names of the weights that an optimizer holds."""
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    names = [name for name, p in module.named_parameters() if id(p) in held and p.ndim >= 2]
    return "^(" + "|".join(map(re.escape, names)) + ")$"
