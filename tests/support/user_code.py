"""What somebody else might have written: code of no house of ours."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset


class Net(nn.Module):
    """Two layers and a head, on anything that can be made flat."""

    def __init__(self, num_inputs: int, num_outputs: int, width: int = 7) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Flatten(), nn.Linear(num_inputs, width), nn.Tanh())
        self.middle = nn.Linear(width, width + 2)
        self.head = nn.Linear(width + 2, num_outputs)

    def forward(self, x: Tensor) -> Tensor:
        h: Tensor = self.head(torch.relu(self.middle(self.encoder(x))))
        return h


def make(num_examples: int = 130) -> tuple[TensorDataset, TensorDataset]:
    """Vectors of five features in four classes."""
    x, y = torch.randn(num_examples, 5), torch.arange(num_examples) % 4
    return TensorDataset(x, y), TensorDataset(x[:20] + 0.1, y[:20])


class Spare(Net):
    """The same with a layer that is never called, as modules of torch's own have."""

    def __init__(self, num_inputs: int, num_outputs: int) -> None:
        super().__init__(num_inputs, num_outputs)
        self.spare = nn.Linear(3, 2)
