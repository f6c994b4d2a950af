"""Everything that training changes, in one object: what a checkpoint has to hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from vgexp.clips import Clip
from vgexp.data.batches import Batches
from vgexp.losses import Loss
from vgexp.noise import Noise
from vgexp.schedulers import Schedule
from vgexp.seeds import GlobalStream
from vgexp.training.curvature import Curvature
from vgexp.training.half import Half


@dataclass
class TrainState:
    """Model, optimizer, schedule, clip, position in the data with its generator, and the step.

    Generators for initialisation and generated data are used up before training begins; three
    streams go on: the order of the data, which `batches` carries, what the model draws, and noise.
    """

    model: nn.Module
    loss: Loss
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    clip: Clip
    batches: Batches
    stream: GlobalStream
    """What dropout draws from."""
    half: Half | None = None
    """Half precision; None: the model's own dtype throughout."""
    noise: Noise | None = None
    """What is added to the clipped gradient; None: nothing."""
    curvature: Curvature | None = None
    """What measures the Hessian; None: it is never measured."""
    may_be_sparse: bool = False
    """Whether gradients may be sparse tensors (`nn.Embedding(sparse=True)`); none of ours are."""
    step: int = 0
    """Updates done."""

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values that `load_state_dict` goes on from."""
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
        """Puts everything back to where `state_dict` was taken."""
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
