"""Densely connected nets: their equations, torchvision's layers, the paper's counts, their rows.

Holds: models/densenet.py, config/convolution.py
"""

from __future__ import annotations

from typing import Any

import pytest
import reference_images
import torch
import torch.nn.functional as F
from reference_images import (
    batches,
    images,
    num_parameters,
    require_equations,
    require_twin,
    wrong_cells,
)
from torch import nn

from vgexp.config import DensenetConfig
from vgexp.errors import QuestionError
from vgexp.models import Network, build
from vgexp.models.memory import need
from vgexp.norms import NORMS

TASK = images(2, 8, 12, 3)
CIFAR = images(3, 32, 32, 10)


def drawn(**values: Any) -> tuple[DensenetConfig, Network]:
    given = {"width": 4, "growth_rate": 2, "norm_groups": 2, "bias": True, **values}
    given.setdefault("depth", 16 if given.get("bottleneck") else 10)
    config = DensenetConfig(**given)
    model = build(config, TASK, torch.float64)
    reference_images.drawn_in_place(model, config.activation)
    return config, model


@pytest.mark.parametrize("position", ["pre", "post"])
@pytest.mark.parametrize("bottleneck", [False, True])
@pytest.mark.parametrize("norm", NORMS)
def test_outputs_gradients_and_every_column_are_the_equations(
    norm: str, bottleneck: bool, position: str
) -> None:
    if (norm, position) == ("instance", "post"):
        with pytest.raises(QuestionError, match="the same for every image"):
            drawn(norm=norm, norm_position=position)
        return
    config, model = drawn(
        activation="tanh",
        norm=norm,
        bottleneck=bottleneck,
        norm_position=position,
        compression=0.65 if bottleneck and norm != "group" else 1.0,
    )
    require_equations(config, model, TASK)


@pytest.mark.parametrize("activation", ["relu", "prelu", "sigmoid"])
def test_dead_channels_and_saturated_entries_are_counted(activation: str) -> None:
    config, model = drawn(activation=activation, bottleneck=True)
    assert wrong_cells(config, model, [batches(TASK, 1, 1), batches(TASK, 2, 2)]) == []


def test_layers_and_transitions_are_those_of_torchvision() -> None:
    config, model = drawn(depth=22, bottleneck=True, compression=0.5, bias=False, width=4)
    twin = TorchvisionTwin(config).double()
    with torch.no_grad():
        for mine, other in zip(model.parameters(), twin.parameters(), strict=True):
            other.copy_(mine)
    x = batches(TASK, 1, 0)[0][0]
    require_twin(model, twin, x)


class TorchvisionTwin(nn.Module):
    """The same net of torchvision's parts."""

    def __init__(self, config: DensenetConfig) -> None:
        # Not at the top: all who collect tests would load torch's compiler, which it asks for.
        from torchvision.models.densenet import _DenseLayer, _Transition

        super().__init__()
        self.joining = _DenseLayer
        k, width = config.growth_rate, config.width
        parts: list[nn.Module] = [nn.Conv2d(TASK.shape[0], width, 3, padding=1, bias=False)]
        for block in range(3):
            if block:
                parts.append(_Transition(width, width // 2))
                width //= 2
            for _ in range(config.layers_per_block):
                parts.append(_DenseLayer(width, k, 4, 0.0))
                width += k
        parts += [nn.BatchNorm2d(width), nn.Linear(width, TASK.num_outputs)]
        self.parts = nn.ModuleList(parts)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        *parts, norm, readout = self.parts
        for part in parts:
            x = torch.cat([x, part(x)], 1) if isinstance(part, self.joining) else part(x)
        return readout(F.relu(norm(x)).mean((2, 3)))


# k, depth, bottleneck and compression (-BC), millions: Huang 2017, Table 2.
PAPER = [
    (12, 40, False, 1.0),
    (12, 100, False, 7.0),
    (24, 100, False, 27.2),
    (12, 100, True, 0.8),
    (24, 250, True, 15.3),
    (40, 190, True, 25.6),
]


@pytest.mark.parametrize(("k", "depth", "bc", "millions"), PAPER)
def test_the_counts_are_the_papers(k: int, depth: int, bc: bool, millions: float) -> None:
    config = DensenetConfig(
        depth=depth,
        growth_rate=k,
        width=2 * k if bc else 16,
        bottleneck=bc,
        compression=0.5 if bc else 1.0,
    )
    with torch.device("meta"):
        model = build(config, CIFAR, torch.float32)
    assert num_parameters(model) == closed_form(config)
    assert round(num_parameters(model) / 1e6, 1) == millions
    assert len(model.watches()) == depth


def closed_form(config: DensenetConfig) -> int:
    """Kernels, two numbers a normed channel, the read-out."""
    k, width = config.growth_rate, config.width
    total = 27 * width
    for block in range(3):
        if block:
            kept = int(width * config.compression)
            total += 2 * width + width * kept
            width = kept
        for _ in range((config.depth - 4) // (6 if config.bottleneck else 3)):
            if config.bottleneck:
                total += 2 * width + 4 * k * width + 2 * 4 * k + 9 * 4 * k * k
            else:
                total += 2 * width + 9 * k * width
            width += k
    return total + 2 * width + 10 * width + 10


def test_the_need_counts_every_parameter() -> None:
    config, model = drawn(bottleneck=True, compression=0.5)
    assert need(config, TASK, 7).num_parameters == num_parameters(model)


@pytest.mark.parametrize("size", [1, 7, 8, 28])
def test_images_of_any_size_pass(size: int) -> None:
    config = DensenetConfig(depth=7, width=2, growth_rate=2)
    model = build(config, images(1, size, size, 4), torch.float32)
    for parameter in model.parameters():
        nn.init.ones_(parameter)
    assert model(torch.ones(3, 1, size, size)).shape == (3, 4)


def test_building_draws_no_random_number() -> None:
    before = torch.get_rng_state()
    drawn(bottleneck=True)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ({"depth": 41}, r"allowed: 3n\+4, n at least 1\nnearest: 40, 43"),
        ({"depth": 43, "bottleneck": True}, "nearest: 40, 46"),
        ({"depth": 1}, "nearest: 7, 10"),
        ({"skip": "none"}, "model=resnet and model=cnn"),
        ({"compression": 0.0}, "above 0"),
        ({"compression": 1.5}, "at most 1"),
        ({"growth_rate": 0}, "model.growth_rate is 0"),
        ({"norm": "group", "norm_groups": 3}, "a layer has 4 channels\n"),
    ],
)
def test_what_cannot_be_is_a_question(values: dict[str, Any], match: str) -> None:
    with pytest.raises(QuestionError, match=match):
        drawn(**values)
