"""Residual nets: their equations, torchvision's blocks, the paper's counts, their rows.

Holds: models/resnet.py, config/convolution.py, models/conv_net.py, models/convolution.py
"""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import reference_images
import torch
from reference_images import (
    Equations,
    batches,
    images,
    num_parameters,
    require_equations,
    require_twin,
    wrong_cells,
)
from torch import Tensor, nn

from vgexp.config import ResnetConfig
from vgexp.errors import QuestionError
from vgexp.models import Network, build, rehearsal
from vgexp.models.convolution import Pad
from vgexp.models.memory import need
from vgexp.norms import NORMS
from vgexp.probe import stacks
from vgexp.skips import SKIPS

TASK = images(2, 7, 5, 3)
CIFAR = images(3, 32, 32, 10)
SKIP_NAMES = [name for name in SKIPS if name != "dense"]
# skip, norm, where norms stand, pre-activation, bottleneck, shortcut.
SHAPES = [
    *itertools.product(
        SKIP_NAMES, ["batch"], ["pre"], [False, True], [False, True], ["projection"]
    ),
    *itertools.product(["residual"], NORMS, ["pre"], [False, True], [False], ["pad"]),
    *itertools.product(["highway", "residual"], NORMS, ["post"], [False], [False], ["projection"]),
    *itertools.product(["none"], ["batch", "layer"], ["post"], [False], [True], ["pad"]),
]


def drawn(**values: Any) -> tuple[ResnetConfig, Network]:
    given = {"width": 4, "norm_groups": 2, "bias": True, **values}
    given.setdefault("depth", 11 if given.get("bottleneck") else 8)
    config = ResnetConfig(**given)
    model = build(config, TASK, torch.float64)
    reference_images.drawn_in_place(model, config.activation)
    return config, model


# ---------------------------------------------------------------- forward and rows


@pytest.mark.parametrize(
    ("skip", "norm", "position", "preactivation", "bottleneck", "shortcut"), SHAPES
)
def test_outputs_gradients_and_every_column_are_the_equations(
    skip: str, norm: str, position: str, preactivation: bool, bottleneck: bool, shortcut: str
) -> None:
    config, model = drawn(
        activation="tanh",
        skip=skip,
        norm=norm,
        norm_position=position,
        preactivation=preactivation,
        bottleneck=bottleneck,
        shortcut=shortcut,
    )
    require_equations(config, model, TASK)


@pytest.mark.parametrize("preactivation", [False, True])
@pytest.mark.parametrize("bottleneck", [False, True])
def test_with_fixup_scalars_stand_before_each_weight_and_phi_and_on_each_branch(
    bottleneck: bool, preactivation: bool
) -> None:
    config, model = drawn(
        init="fixup",
        norm="none",
        activation="tanh",
        bottleneck=bottleneck,
        preactivation=preactivation,
        shortcut="projection",
    )
    scalars = [name for name, value in model.named_parameters() if value.ndim == 0]
    num_convs = config.depth - 1
    assert sum(name.endswith("multiplier.scale") for name in scalars) == 3
    assert sum(name.endswith("shift_of_conv.bias") for name in scalars) == num_convs
    assert sum(name.endswith("shift_of_phi.bias") for name in scalars) == num_convs
    assert len(scalars) == 2 * num_convs + 4
    ((x, _),) = batches(TASK, 1, 3)
    _, expected = Equations(config, dict(model.named_parameters()))(x)
    torch.testing.assert_close(model(x), expected, rtol=1e-9, atol=1e-11)
    assert wrong_cells(config, model, [batches(TASK, 1, 1), batches(TASK, 2, 2)]) == []


@pytest.mark.parametrize("activation", ["relu", "prelu", "sigmoid", "selu"])
@pytest.mark.parametrize("preactivation", [False, True])
def test_dead_channels_and_saturated_entries_are_counted(
    activation: str, preactivation: bool
) -> None:
    config, model = drawn(activation=activation, preactivation=preactivation)
    assert wrong_cells(config, model, [batches(TASK, 1, 1), batches(TASK, 2, 2)]) == []


def test_maps_too_large_for_one_stack_have_right_rows_too() -> None:
    task = images(3, 40, 44, 3)
    config = ResnetConfig(depth=8, width=26, activation="relu")
    model = build(config, task, torch.float64)
    reference_images.drawn_in_place(model, "relu")
    update = batches(task, 2, 1)
    assert stacks.is_large(torch.empty(reference_images.BATCH, 26, 40, 44))
    assert stacks.most_together(torch.empty(reference_images.BATCH, 26, 40, 44)) == 1
    assert wrong_cells(config, model, [update, update]) == []


@pytest.mark.parametrize("bottleneck", [False, True])
def test_blocks_are_those_of_torchvision(bottleneck: bool) -> None:
    config, model = drawn(
        depth=29 if bottleneck else 20, bottleneck=bottleneck, shortcut="projection", bias=False
    )
    twin, x = torchvision_twin(config, model), batches(TASK, 1, 0)[0][0]
    require_twin(model, twin, x)


def torchvision_twin(config: ResnetConfig, model: Network) -> nn.Module:
    """The same net of torchvision's blocks, its values copied over by position."""
    # Not at the top: all who collect tests would load torch's compiler, which torchvision asks for.
    from torchvision.models.resnet import BasicBlock, Bottleneck

    cls: Any = Bottleneck if config.bottleneck else BasicBlock
    width, expansion = config.width, cls.expansion
    blocks: list[nn.Module] = [
        nn.Conv2d(TASK.shape[0], width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
    ]
    channels = width
    for stage in range(3):
        inner = width * 2**stage
        for block in range(3):
            stride = 2 if stage and not block else 1
            downsample = None
            if stride > 1 or channels != inner * expansion:
                downsample = nn.Sequential(
                    nn.Conv2d(channels, inner * expansion, 1, stride, bias=False),
                    nn.BatchNorm2d(inner * expansion),
                )
            blocks.append(cls(channels, inner, stride, downsample))
            channels = inner * expansion
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, TASK.num_outputs)]
    twin = nn.Sequential(*blocks, *head).double()
    with torch.no_grad():
        for is_beside in (False, True):
            ours = [v for n, v in model.named_parameters() if ("projection" in n) == is_beside]
            theirs = [v for n, v in twin.named_parameters() if ("downsample" in n) == is_beside]
            for mine, other in zip(ours, theirs, strict=True):
                other.copy_(mine)
    return twin


def test_a_plain_net_is_the_same_with_and_without_preactivation() -> None:
    (_, one), (_, other) = (drawn(skip="none", preactivation=each) for each in (False, True))
    x = batches(TASK, 1, 0)[0][0]
    assert torch.equal(one(x), other(x))


def test_the_path_of_a_preactivated_net_is_the_stem_where_branches_are_zero() -> None:
    _, model = drawn(preactivation=True, skip="residual", shortcut="pad", depth=14)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "conv." in name and name != "layers.0.conv.weight":
                parameter.zero_()
    x = batches(TASK, 1, 0)[0][0]
    seen: list[Tensor] = []
    layers = list(model.layers)
    for layer in (layers[0], layers[-1]):
        layer.makes_z.register_forward_hook(lambda _m, _a, y: seen.append(y))
    model(x)
    first, last = seen
    torch.testing.assert_close(last[:, :4], first[:, :, ::4, ::4])
    assert not last[:, 4:].any()


# ---------------------------------------------------------------- the paper's nets

MILLIONS = {20: 0.27, 32: 0.46, 44: 0.66, 56: 0.85, 110: 1.7, 1202: 19.4}
"""He 2015, Table 6."""


def closed_form(n: int) -> int:
    """Kernels, two numbers a normed channel, the read-out."""
    kernels = 9 * (3 * 16 + 2 * n * 16**2)
    for width in (32, 64):
        kernels += 9 * (width // 2 * width + (2 * n - 1) * width**2)
    return kernels + 2 * (16 + 2 * n * (16 + 32 + 64)) + 64 * 10 + 10


@pytest.mark.parametrize(
    ("depth", "skip"), [*itertools.product(MILLIONS, ["residual"]), (20, "none"), (110, "none")]
)
def test_the_counts_are_the_papers(depth: int, skip: str) -> None:
    with torch.device("meta"):
        model = build(ResnetConfig(depth=depth, skip=skip), CIFAR, torch.float32)
    millions = MILLIONS[depth]
    assert num_parameters(model) == closed_form((depth - 2) // 6)
    assert round(num_parameters(model) / 1e6, 1 if millions > 1 else 2) == millions
    rows = [watch for watch in model.watches() if watch.kind == "conv"]
    assert len(rows) == depth - 1
    assert model.watches()[-1].layer == depth


def test_a_bottleneck_net_of_164_layers_has_the_papers_count() -> None:
    """1.7 million: He 2016, Table 4."""
    for shortcut in ("pad", "projection"):
        config = ResnetConfig(depth=164, bottleneck=True, preactivation=True, shortcut=shortcut)
        with torch.device("meta"):
            assert round(num_parameters(build(config, CIFAR, torch.float32)) / 1e6, 1) == 1.7


def test_rezero_has_one_alpha_a_block_at_zero_and_gates_see_what_branches_see() -> None:
    model = build(ResnetConfig(depth=14, skip="rezero"), CIFAR, torch.float32)
    alphas = [v for name, v in model.named_parameters() if name.endswith("alpha")]
    assert [alpha.item() for alpha in alphas] == [0.0] * 6
    model = build(ResnetConfig(depth=14, skip="highway"), CIFAR, torch.float32)
    gates = [w for w in model.watches() if "gate" in w.name]
    shapes = [tuple(w.weight.shape) for w in gates if w.weight is not None]
    widths = (16, 16, 16, 32, 32, 64, 64)
    assert shapes == [(out, inner, 3, 3) for inner, out in itertools.pairwise(widths)]
    assert [w.layer for w in gates] == [3, 5, 7, 9, 11, 13]
    assert all(
        bool((v == -2).all()) for name, v in model.named_parameters() if name.endswith("gate.bias")
    )


def test_a_projection_shares_the_number_of_its_blocks_last_convolution() -> None:
    _, model = drawn(shortcut="projection")
    numbered = [(watch.name, watch.layer) for watch in model.watches()]
    assert numbered[4:7] == [
        ("layers.4.conv.weight", 5),
        ("layers.4.projection.weight", 5),
        ("layers.5.conv.weight", 6),
    ]


def test_padding_appends_zeros_and_takes_every_other_position() -> None:
    _, model = drawn(shortcut="pad")
    (first, *_) = [module for module in model.modules() if isinstance(module, Pad)]
    x = torch.arange(2 * 4 * 5 * 3.0).reshape(2, 4, 5, 3)
    y = first(x)
    assert y.shape == (2, 8, 3, 2)
    assert torch.equal(y[:, :4], x[:, :, [0, 2, 4]][:, :, :, [0, 2]])
    assert not y[:, 4:].any()


def test_twelve_hundred_layers_go_forward_and_back() -> None:
    model = build(ResnetConfig(depth=1202, width=1), images(1, 4, 4, 2), torch.float32)
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    model(torch.ones(2, 1, 4, 4)).sum().backward()
    assert len(model.watches()) == 1202


@pytest.mark.parametrize("skip", ["residual", "highway"])
def test_the_need_is_every_parameter_and_what_autograd_keeps(skip: str) -> None:
    config, model = drawn(shortcut="projection", skip=skip)
    needed = need(config, TASK, 7)
    assert needed.num_parameters == num_parameters(model)
    kept: dict[int, int] = {}
    own = {parameter.data_ptr() for parameter in model.parameters()}

    def keep(x: Tensor) -> Tensor:
        if x.data_ptr() not in own:
            kept[x.data_ptr()] = x.numel()
        return x

    x = torch.zeros(7, *TASK.shape, dtype=torch.float64)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        out = model(x)
    assert out.shape == (7, 3)
    assert 0.8 < needed.num_activations / sum(kept.values()) < 1.2


@pytest.mark.parametrize("size", [1, 8, 28, 32])
def test_images_of_any_size_pass(size: int) -> None:
    model = build(ResnetConfig(depth=8, width=2), images(1, size, size, 4), torch.float32)
    for parameter in model.parameters():
        nn.init.ones_(parameter)
    assert model(torch.ones(3, 1, size, size)).shape == (3, 4)


# ---------------------------------------------------------------- questions


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ({"depth": 21}, r"allowed: 6n\+2 with basic blocks, n at least 1\nnearest: 20, 26"),
        ({"depth": 2}, "nearest: 8, 14"),
        ({"depth": 22, "bottleneck": True}, "nearest: 20, 29"),
        ({"skip": "dense"}, "model=densenet"),
        ({"skip": "residul"}, "nearest: residual"),
        ({"shortcut": "A"}, "pad"),
        ({"preactivation": True, "norm_position": "post"}, "nothing after the sum"),
    ],
)
def test_what_cannot_be_is_a_question(values: dict[str, Any], match: str) -> None:
    with pytest.raises(QuestionError, match=match):
        drawn(**values)


@pytest.mark.parametrize("blocks", [1, 3])
@pytest.mark.parametrize("bottleneck", [False, True])
@pytest.mark.parametrize("skip", ["none", "residual", "highway"])
def test_the_memory_of_any_depth_is_told_from_two(skip: str, bottleneck: bool, blocks: int) -> None:
    depth = (9 if bottleneck else 6) * blocks + 2
    config = ResnetConfig(depth=depth, width=3, skip=skip, bottleneck=bottleneck)
    task = images(1, 8, 8, 4)
    assert need(config, task, 16) == rehearsal.rehearse(config, task, 16)
