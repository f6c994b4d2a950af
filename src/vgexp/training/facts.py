"""What is known of a run before its first update, and stays as it is."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch

from vgexp.data import Dataset
from vgexp.losses import Loss


@dataclass(frozen=True)
class RunFacts:
    """What summaries and theory ask about a run."""

    dataset: Dataset
    loss: Loss
    num_steps: int
    """Updates of a run that comes to its end."""
    num_parameters: int
    """Trainable numbers of the model."""
    num_layers: int | None
    """L, the hidden layers of the main path, measured or not; None where the rows tell."""
    device: torch.device
    """Where the model is."""
    tables: tuple[str, ...]
    """The tables that the run has."""
    stops_on_divergence: bool
    """Whether the first non-finite step is the last."""
    num_flight_steps: int = 0
    """Last steps that `flight.csv` has; 0: there is no such table."""

    @cached_property
    def constant_loss(self) -> float:
        """The best loss of a prediction that ignores the input."""
        targets, task = self.dataset.train.targets, self.dataset.task
        if task.per_position and not task.positions_tell:
            targets = targets.flatten(0, 1)
        return self.loss.constant(targets.cpu(), task.num_outputs)
