"""Data sets that are drawn, from the generator `data`, in float64."""

from __future__ import annotations

import math

import torch

from vgexp.config import GaussianConfig, SpiralsConfig
from vgexp.data import sources
from vgexp.data.examples import Examples
from vgexp.data.sizes import Size, size_of
from vgexp.seeds import generator
from vgexp.tasks import Task

SPIRAL_TURNS = 1.0
SPIRAL_NOISE = 0.02
"""Standard deviation of each coordinate's noise; an arm ends at radius 1."""


@sources.read.register
def gaussian(config: GaussianConfig, seed: int) -> Examples:
    """Inputs N(0, 1) with uniform random labels: the input of signal-propagation theory."""
    source = generator(seed, "data")
    shape = (config.num_examples, config.features)
    inputs_NF = torch.randn(shape, generator=source, dtype=torch.float64)
    targets_N = torch.randint(config.num_classes, shape[:1], generator=source)
    return Examples(inputs_NF, targets_N, Task("vector", (config.features,), config.num_classes))


@sources.read.register
def spirals(config: SpiralsConfig, seed: int) -> Examples:
    """Interleaved noisy spiral arms in the plane, one class an arm.

    Arm k of K: radius r uniform in [0, 1], angle 2 pi (r + k / K), plus noise N(0, 0.02^2) on
    each coordinate. Example i belongs to arm i modulo K.
    """
    source = generator(seed, "data")
    targets_N = torch.arange(config.num_examples) % config.num_classes
    radius_N = torch.rand(config.num_examples, generator=source, dtype=torch.float64)
    angle_N = 2 * math.pi * (SPIRAL_TURNS * radius_N + targets_N / config.num_classes)
    arm_N2 = radius_N[:, None] * torch.stack([angle_N.cos(), angle_N.sin()], dim=1)
    noise_N2 = torch.randn(arm_N2.shape, generator=source, dtype=torch.float64)
    inputs_N2 = arm_N2 + SPIRAL_NOISE * noise_N2
    return Examples(inputs_N2, targets_N, Task("vector", (2,), config.num_classes))


@size_of.register
def _size_of_gaussian(config: GaussianConfig) -> Size:
    keys = ("num_examples", "features")
    return Size(config.num_examples * config.features, config.num_examples, keys)


@size_of.register
def _size_of_spirals(config: SpiralsConfig) -> Size:
    # Beside the two coordinates there are a radius, an angle, their cosine and sine, and noise.
    return Size(2 * config.num_examples, config.num_examples, ("num_examples",), num_copies=5)
