"""Gradient noise: Gaussian noise on the clipped gradient, whose variance falls step by step.

g_t + N(0, sigma_t^2), sigma_t^2 = eta / (1 + t)^decay, t from 0 (Neelakantan 2015). It is added
after clipping: before, clipping would shrink the noise with the gradient, and its variance would be
another.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor, nn

from vgexp import metrics


@final
class Noise:
    """Annealed noise from a generator of its own, drawn in float64 on the CPU: one seed gives one
    noise in every dtype and on every device.

    Args:
        eta: the variance at step 0.
        decay: the power of 1 + t that it is divided by; the paper has 0.55.
        generator: of the CPU.
    """

    def __init__(self, eta: float, decay: float, generator: torch.Generator) -> None:
        self._eta, self._decay = eta, decay
        self._generator = generator

    def std(self, step: int) -> float:
        """Returns sigma_t, the standard deviation at a step."""
        # Not by a power, which overflows where the noise just ends.
        return math.sqrt(self._eta) * math.exp(-self._decay / 2 * math.log1p(step))

    @torch.no_grad()
    def __call__(self, parameters: Sequence[nn.Parameter], step: int) -> Tensor:
        """Adds noise to `p.grad` of each parameter that has one; their total norm after, 0-d.

        As many numbers are drawn for a parameter without a gradient.
        """
        sizes = [p.numel() for p in parameters]
        noise_N = torch.randn(sum(sizes), dtype=torch.float64, generator=self._generator)
        noise_N = (noise_N * self.std(step)).to(parameters[0].dtype)
        parts = metrics.to_device(noise_N, parameters[0].device).split_with_sizes(sizes)
        grads = []
        for p, part_n in zip(parameters, parts, strict=True):
            if p.grad is not None:
                p.grad.add_(part_n.view(p.shape))
                grads.append(p.grad)
        return metrics.total_norm(grads)

    def state_dict(self) -> Tensor:
        """Returns the state of the generator."""
        return self._generator.get_state()

    def load_state_dict(self, state: Tensor) -> None:
        """Restores the state of the generator."""
        self._generator.set_state(state)
