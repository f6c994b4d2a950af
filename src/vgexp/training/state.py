"""Everything that training changes, in one object, as a checkpoint has to hold it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import nn
from torch.nn import Parameter

from vgexp.clips import Clip
from vgexp.data.batches import Batch, Batches
from vgexp.losses import Loss
from vgexp.noise import Noise
from vgexp.schedulers import Schedule
from vgexp.seeds import GlobalStream
from vgexp.training.curvature import Curvature
from vgexp.training.half import Half


@dataclass
class TrainState:
    """Model, optimizer, schedule, clip, position in the data with its generator, and the step.

    Three random streams go on during training: the order of the data, which `batches` carries, what
    the model draws, and noise. Those for initialisation and generated data are no longer needed.
    """

    model: nn.Module
    loss: Loss
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    clip: Clip
    batches: Batches
    stream: GlobalStream
    """The random numbers of dropout."""
    half: Half | None = None
    """Half precision; None: everything is in the model's dtype."""
    noise: Noise | None = None
    """The noise that is added to the clipped gradient; None: none is."""
    curvature: Curvature | None = None
    """Measures the Hessian; None: it is never measured."""
    may_be_sparse: bool = False
    """Whether gradients may be sparse tensors (`nn.Embedding(sparse=True)`); none of ours are."""
    may_draw: bool = True
    """Whether the model may draw random numbers, as dropout does."""
    accumulate: int = 1
    """Batches whose gradients make one update."""
    step: int = 0
    """Updates done."""

    @cached_property
    def parameters(self) -> list[Parameter]:
        """The model's trainable parameters."""
        return [p for p in self.model.parameters() if p.requires_grad]

    @property
    def changes_gradients(self) -> bool:
        """Whether the optimizer may get another gradient than the backward pass gave."""
        return not self.clip.is_none or self.noise is not None

    @property
    def epoch(self) -> int:
        """Whole passes over the training split that the updates so far have made."""
        return self.step * self.accumulate // self.batches.per_epoch

    def next_batch(self) -> Batch:
        """The micro-batches of the next update."""
        return [self.batches.next() for _ in range(self.accumulate)]

    def coming_batch(self) -> Batch:
        """The micro-batches of the next update, which still reads them."""
        return self.batches.peek(self.accumulate)

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values from which `load_state_dict` continues."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "clip": self.clip.state_dict(),
            "batches": self.batches.state_dict(),
            "stream": self.stream.state_dict(),
            "half": {} if self.half is None else self.half.state_dict(),
            "noise": None if self.noise is None else self.noise.state_dict(),
            "curvature": None if self.curvature is None else self.curvature.state_dict(),
            "step": self.step,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores the state that `state_dict` returned."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.clip.load_state_dict(state["clip"])
        self.batches.load_state_dict(state["batches"])
        self.stream.load_state_dict(state["stream"])
        if self.half is not None:
            self.half.load_state_dict(state["half"])
        if self.noise is not None:
            self.noise.load_state_dict(state["noise"])
        if self.curvature is not None:
            self.curvature.load_state_dict(state["curvature"])
        self.step = state["step"]
