"""A Lightning callback that measures the layers of a module while a `Trainer` trains it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vgexp.errors import QuestionError
from vgexp.guests.probe import Probe, require_folder, require_settings
from vgexp.guests.recording import find_free
from vgexp.probe.flat import Members, held_as
from vgexp.probe.sharded import is_sharded
from vgexp.torch_internals import flat_kind

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
    `trainer.log_dir` or, without a logger, below `trainer.default_root_dir`; where it exists
    already, into `vgexp_2` and so on. With several optimizers each has a folder of its own,
    `vgexp/optimizer_0` and so on, with the weights that it holds.

    Gradients are measured before Lightning clips them, and once more as the optimizer sees them.
    The loss is the one that Lightning calls `backward` with; the number that accumulation divides
    it by is multiplied back. With several optimizers it is that of the backward passes since an
    optimizer's own gradients were cleared. With several devices, rank 0 measures and writes; where
    parameters are sharded every rank measures.

    Args:
        folder: where the tables go in place of that, a folder that does not exist yet.
        settings: arguments of `Probe`, such as `every`, `activations_every` and `examples`.

    Attributes:
        probes: the probes of the last `fit`, one an optimizer; empty on ranks that do not measure.

    Raises:
        QuestionError: a setting is unknown or impossible.
    """

    def __init__(self, folder: str | Path | None = None, **settings: Any) -> None:
        super().__init__()
        require_settings(settings)
        require_folder(folder)
        self._folder = folder
        self._settings = settings
        self.probes: list[Probe] = []
        self._entered: list[tuple[Probe, torch.optim.Optimizer]] = []
        self._notes: list[Callable[[Tensor], object]] = []

    @property
    def probe(self) -> Probe | None:
        """The probe of the first optimizer; None where there is none."""
        return self.probes[0] if self.probes else None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Makes a probe for each optimizer, and sets its hooks."""
        self.probes, self._notes = [], []
        kind, model = flat_kind(), getattr(trainer, "model", None)
        # Of flat parameters, the wrapper alone knows what is in them.
        module = model if kind is not None and isinstance(model, kind) else pl_module
        # Every rank asks for it: the answer is sent from one to the others.
        beside = Path(trainer.log_dir or trainer.default_root_dir) / FOLDER
        writes = bool(trainer.is_global_zero)
        if not writes and not any(map(is_sharded, module.parameters())):
            return
        folder = (Path(self._folder) if self._folder else find_free(beside)) if writes else None
        optimizers = trainer.optimizers
        for number, optimizer in enumerate(optimizers):
            settings = {"scaler": getattr(trainer.precision_plugin, "scaler", None)}
            own = folder
            if len(optimizers) > 1:
                settings["layers"] = _pattern(module, optimizer)
                own = None if folder is None else folder / f"optimizer_{number}"
            probe = Probe(module, optimizer, folder=own, **{**settings, **self._settings})
            # A loss that is watched counts for those alone whose gradients it is part of.
            self._notes.append(
                probe.note_loss if len(optimizers) == 1 else probe.watch_loss(_return_it)
            )
            probe.__enter__()
            self._entered.append((probe, optimizer))
            self.probes.append(probe)

    def on_before_backward(
        self, trainer: Trainer, pl_module: LightningModule, loss: Tensor
    ) -> None:
        """Notes the loss, as it is before accumulation divides it."""
        is_divided = pl_module.automatic_optimization and trainer.accumulate_grad_batches > 1
        for note in self._notes:
            note(loss.detach() * trainer.accumulate_grad_batches if is_divided else loss)

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Measures the gradients before Lightning clips them."""
        for probe, own in self._entered:
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
        entered, self._entered, self._notes = self._entered, [], []
        for probe, _ in entered:
            probe.__exit__(type(error) if error else None, error, None)


def _return_it(loss: Tensor) -> Tensor:
    return loss


def _pattern(module: LightningModule, optimizer: torch.optim.Optimizer) -> str | None:
    """A regular expression on the names of the weights that an optimizer holds.

    None where it holds none with two axes: then nothing is left out.
    """
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    every = Members(module).parameters()
    names = [name for name, p in every if id(held_as(p)) in held and p.ndim >= 2]
    return "^(" + "|".join(map(re.escape, names)) + ")$" if names else None
