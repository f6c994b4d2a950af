"""The plain convolutional net: its forward pass, its rows, its shapes, and what it refuses.

Holds: models/cnn.py, config/convolution.py, models/conv_net.py, models/convolution.py
"""

from __future__ import annotations

import copy
import itertools
import math
from typing import Any

import numpy as np
import pytest
import reference_images
import torch
import torch.nn.functional as F
from reference import measured_rows, snapshot
from reference_images import Equations, batches, expected_rows, images, wrong_cells
from torch import Tensor, nn

from vgexp.activations import ACTIVATIONS
from vgexp.config import CnnConfig
from vgexp.errors import QuestionError
from vgexp.inits import initialise
from vgexp.models import Network, build
from vgexp.norms import NORMS
from vgexp.probe import Probe
from vgexp.skips import SKIPS

IN, OUT = 2, 3
TASK = images(IN, 7, 5, OUT)
SKIP_NAMES = [name for name in SKIPS if name != "dense"]
SHAPES = [
    (skip, norm, position)
    for skip, norm, position in itertools.product(SKIP_NAMES, NORMS, ("pre", "post"))
    if (norm != "none" or position == "pre")
    # The mean over positions of a channel that is normalised over them says nothing.
    and (skip, norm, position) != ("none", "instance", "post")
]


def drawn(**values: Any) -> tuple[CnnConfig, Network]:
    given = {"depth": 4, "width": 4, "norm_groups": 2, **values}
    config = CnnConfig(**given)
    model = build(config, TASK, torch.float64)
    reference_images.drawn_in_place(model, config.activation)
    return config, model


# ---------------------------------------------------------------- forward and rows


@pytest.mark.parametrize("depth", [1, 2, 5])
@pytest.mark.parametrize(("skip", "norm", "position"), SHAPES)
def test_the_forward_pass_is_the_equations(skip: str, norm: str, position: str, depth: int) -> None:
    config, model = drawn(depth=depth, skip=skip, norm=norm, norm_position=position)
    ((x, _),) = batches(TASK, 1, 0)
    _, expected = Equations(config, dict(model.named_parameters()))(x)
    torch.testing.assert_close(model(x), expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(("skip", "norm", "position"), SHAPES)
def test_every_column_follows_its_definition(skip: str, norm: str, position: str) -> None:
    config, model = drawn(activation="tanh", skip=skip, norm=norm, norm_position=position)
    assert wrong_cells(config, model, [batches(TASK, 1, 1), batches(TASK, 2, 2)]) == []


@pytest.mark.parametrize("skip", ["none", "residual"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_dead_channels_and_saturated_entries_are_counted(activation: str, skip: str) -> None:
    config, model = drawn(activation=activation, skip=skip, depth=3)
    assert wrong_cells(config, model, [batches(TASK, 1, 1), batches(TASK, 2, 2)]) == []
    if activation == "relu" and skip == "none":
        expected = expected_rows(
            config, snapshot(model), snapshot(model), batches(TASK, 1, 1), snapshot(model)
        )
        assert all(0 < row["dead_fraction"] < 1 for row in expected[:-1])


def test_gradients_are_those_of_the_equations() -> None:
    config, model = drawn(skip="highway", norm="batch", activation="tanh")
    p = {name: v.clone().requires_grad_() for name, v in snapshot(model).items()}
    ((x, y),) = batches(TASK, 1, 3)
    F.cross_entropy(model(x), y).backward()
    _, out = Equations(config, p)(x)
    F.cross_entropy(out, y).backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, p[name].grad, rtol=1e-9, atol=1e-11)


# ---------------------------------------------------------------- laws


def test_law_zeros_around_the_image_lose_what_the_init_keeps() -> None:
    """A linear net with variance 1/fan_in passes delta on through the taps that see the image.

    In the mean, delta^2 at a position is the sum over the 3x3 positions of the layer after it,
    divided by 9: along each axis the matrix T of ones on three diagonals, over 3. From the pooling,
    delta starts equal everywhere, so that delta_rms k layers down is mean(T^k 1) times as large.
    """
    size, depth, width, num_seeds = 4, 16, 128, 2
    step_IJ = np.tri(size, size, 1) * np.tri(size, size, 1).T / 3
    profile_I, expected = np.ones(size), []
    for _ in range(depth):
        expected.append(math.log(profile_I.mean()))
        profile_I = step_IJ @ profile_I
    config = CnnConfig(
        depth=depth, width=width, stages=1, activation="linear", init="lecun_normal", bias=False
    )
    task = images(1, size, size, 5)
    logs = np.zeros(depth)
    for seed in range(num_seeds):
        model = build(config, task, torch.float32)
        x, y = torch.randn(8, 1, size, size, generator=torch.Generator().manual_seed(seed)), [0] * 8
        initialise(model, config, torch.Generator().manual_seed(seed), x)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
        with Probe(model, optimizer, watches=model.watches()) as probe:
            F.cross_entropy(model(x), torch.tensor(y)).backward()
            optimizer.step()
        deltas = [float(row["delta_rms"]) for row in measured_rows(probe)[-2::-1]]
        logs += np.log(np.array(deltas) / deltas[0]) / num_seeds
    # A layer's mean-square factor has a variance of at most 2/width: after k layers ln rms has
    # walked sqrt(k / (2 width)), less for the mean of seeds. Four of these.
    walked = 4 * np.sqrt(np.arange(depth) / (2 * width * num_seeds))
    assert (np.abs(logs - expected) <= walked + 1e-6).all()
    # Far from the read-out, the largest eigenvalue of T a layer.
    assert expected[-1] - expected[-2] == pytest.approx(
        math.log((1 + 2 * math.cos(math.pi / 5)) / 3)
    )


# ---------------------------------------------------------------- shapes


def kernels(model: Network) -> list[tuple[int, ...]]:
    return [tuple(watch.weight.shape[:2]) for watch in model.watches() if watch.weight is not None]


def test_channels_double_and_the_image_halves_at_each_stage() -> None:
    model = build(CnnConfig(depth=7, width=5, stages=3), images(2, 28, 28, 4), torch.float32)
    assert kernels(model) == [
        (5, 2),
        (5, 5),
        (5, 5),
        (10, 5),
        (10, 10),
        (20, 10),
        (20, 20),
        (4, 20),
    ]
    sizes = heights(model, torch.zeros(1, 2, 28, 28))
    assert sizes == [28, 28, 28, 14, 14, 7, 7]


@pytest.mark.parametrize(("size", "last"), [(1, 1), (2, 1), (8, 1), (28, 1), (32, 1), (200, 2)])
def test_no_image_is_smaller_than_one_position(size: int, last: int) -> None:
    model = build(CnnConfig(depth=8, width=1, stages=8), images(1, size, size, 4), torch.float32)
    assert heights(model, torch.zeros(2, 1, size, size))[-1] == last


def heights(model: Network, x: Tensor) -> list[int]:
    found: list[int] = []
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    for watch in model.watches():
        if watch.kind == "conv":
            assert watch.preact is not None
            watch.preact.register_forward_hook(lambda _m, _a, y: found.append(y.shape[2]))
    model(x)
    return found


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_a_net_shallower_than_its_stages_has_a_stage_a_layer(depth: int) -> None:
    model = build(CnnConfig(depth=depth, width=2, stages=5), TASK, torch.float32)
    assert [shape[0] for shape in kernels(model)] == [2 * 2**i for i in range(depth)] + [OUT]


@pytest.mark.parametrize("bias", [True, False])
def test_biases_are_everywhere_or_nowhere(bias: bool) -> None:
    _, model = drawn(bias=bias)
    owners = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert all((owner.bias is not None) == bias for owner in owners)


@pytest.mark.parametrize("skip", SKIP_NAMES)
def test_building_draws_no_random_number(skip: str) -> None:
    before = torch.get_rng_state()
    build(CnnConfig(depth=4, skip=skip, norm="batch"), TASK, torch.float32)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_copy_computes_with_its_own_modules() -> None:
    _, model = drawn(skip="highway", norm="layer")
    ((x, _),) = batches(TASK, 1, 0)
    twin = copy.deepcopy(model)
    torch.testing.assert_close(twin(x), model(x))
    nn.init.zeros_(twin.watches()[0].weight)
    assert not torch.equal(twin(x), model(x))


def test_a_plain_layer_costs_two_module_calls() -> None:
    _, model = drawn(depth=3)
    calls: list[type] = []
    handle = nn.modules.module.register_module_forward_hook(
        lambda module, _args, _output: calls.append(type(module))
    )
    model(batches(TASK, 1, 0)[0][0])
    handle.remove()
    assert calls == [nn.Conv2d, nn.ReLU] * 3 + [nn.Linear, type(model)]


def test_dropout_falls_on_what_weights_read_and_not_on_the_path() -> None:
    _, model = drawn(skip="rezero", dropout=0.5, depth=3, stages=1, activation="linear")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("alpha"):
                parameter.zero_()
    before: list[Tensor] = []
    after: list[Tensor] = []
    layers = list(model.layers)
    layers[0].conv.register_forward_hook(lambda _m, _a, y: before.append(y))
    layers[2].dropout.register_forward_hook(lambda _m, a, y: after.extend((a[0], y)))
    model(batches(TASK, 1, 0)[0][0])
    assert torch.equal(before[0], after[0])
    assert 0.2 < float((after[1] == 0).double().mean()) < 0.8


# ---------------------------------------------------------------- questions


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ({"skip": "dense"}, "model=densenet"),
        ({"skip": "residul"}, "nearest: residual"),
        ({"norm": "batchnorm"}, "nearest: batch"),
        ({"norm": "group", "norm_groups": 3}, "a layer has 4 channels\n"),
        ({"norm": "instance", "stages": 4}, "the last images are of 1 x 1"),
        ({"norm": "instance", "norm_position": "post"}, "the same for every image"),
        ({"norm": "group", "norm_groups": 4, "depth": 1, "stages": 1}, None),
        ({"stages": 0}, "model.stages is 0"),
        ({"depth": 10**9}, "below 10001"),
        ({"width": 10**9}, "below 65537"),
    ],
)
def test_what_cannot_be_is_a_question(values: dict[str, Any], match: str | None) -> None:
    if match is None:
        drawn(**values)
        return
    with pytest.raises(QuestionError, match=match):
        drawn(**values)
