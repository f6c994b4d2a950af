"""The perceptron against a loop over its equations, written from the definition.

Holds: models/mlp.py, models/families.py
"""

from __future__ import annotations

import copy
import itertools
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from reference import vectors
from torch import Tensor, nn

from vgexp.activations import ACTIVATIONS
from vgexp.config import MlpConfig, ModelConfig
from vgexp.errors import QuestionError
from vgexp.models import Mlp, build
from vgexp.norms import NORMS
from vgexp.skips import SKIPS

INPUTS, OUTPUTS, WIDTH, BATCH, GROUPS = 7, 3, 6, 5, 3
USABLE_NORMS = [name for name in NORMS if name != "instance"]
CASES = list(itertools.product(SKIPS, USABLE_NORMS, ("pre", "post")))
Weights = dict[str, Tensor]


def drawn(**values: Any) -> tuple[MlpConfig, Mlp, Tensor]:
    """A small perceptron in float64 with every parameter off its start, and a batch."""
    config = MlpConfig(**{"depth": 4, "width": WIDTH, "norm_groups": GROUPS, **values})
    model = build(config, vectors(INPUTS, OUTPUTS), torch.float64)
    generator = torch.Generator().manual_seed(11)
    for parameter in model.parameters():
        nn.init.normal_(parameter, 0.2, 0.5, generator=generator)
    return config, model, torch.randn(BATCH, INPUTS, dtype=torch.float64, generator=generator)


# ---------------------------------------------------------------- the equations


def standardised(x: Tensor, axis: int) -> Tensor:
    centred = x - x.mean(axis, keepdim=True)
    return centred / ((centred**2).mean(axis, keepdim=True) + 1e-5).sqrt()


def by_groups(x: Tensor) -> Tensor:
    return torch.cat([standardised(part, 1) for part in x.chunk(GROUPS, dim=1)], 1)


NORMALISED: dict[str, Callable[[Tensor], Tensor]] = {
    "batch": lambda x: standardised(x, 0),
    "layer": lambda x: standardised(x, 1),
    "group": by_groups,
    "rms": lambda x: x / ((x**2).mean(1, keepdim=True) + 1e-5).sqrt(),
}


@dataclass
class Expected:
    z: list[Tensor] = field(default_factory=list)
    u: list[Tensor] = field(default_factory=list)
    h: list[Tensor] = field(default_factory=list)
    gate: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    output: Tensor = field(default_factory=lambda: torch.zeros(()))


def equations(config: MlpConfig, p: Weights, x: Tensor) -> Expected:
    """INTERFACE.md, "The perceptron, exactly", with tanh; layers counted from 1."""
    seen = Expected()

    def norm(layer: int, v: Tensor) -> Tensor:
        if config.norm == "none":
            return v
        y = NORMALISED[config.norm](v) * p[f"layers.{layer - 1}.norm.weight"]
        return y + p.get(f"layers.{layer - 1}.norm.bias", torch.zeros(()))

    def affine(name: str, v: Tensor) -> Tensor:
        return v @ p[f"{name}.weight"].T + p[f"{name}.bias"]

    adds = config.skip not in ("none", "dense")
    z = affine("layers.0.linear", x)
    for layer in range(1, config.depth + 1):
        if adds and config.norm_position == "post":
            u = z
            h = torch.tanh(z)
        elif config.norm_position == "post":
            u = z
            h = norm(layer, torch.tanh(z))
        else:
            u = norm(layer, z)
            h = torch.tanh(u)
        seen.z.append(z)
        seen.u.append(u)
        seen.h.append(h)
        if layer == config.depth:
            break
        reads = torch.cat(seen.h, 1) if config.skip == "dense" else h
        branch = affine(f"layers.{layer}.linear", reads)
        if config.skip in ("none", "dense"):
            z = branch
        elif config.skip == "residual":
            z = z + branch
        elif config.skip == "scaled_residual":
            z = z + branch / math.sqrt(config.depth)
        elif config.skip == "rezero":
            z = z + p[f"layers.{layer}.skip.alpha"] * branch
        elif config.skip == "highway":
            gate = affine(f"layers.{layer}.skip.gate", h)
            carried = 1 / (1 + torch.exp(-gate))
            seen.gate.append((gate, carried))
            z = carried * branch + (1 - carried) * z
        else:
            raise AssertionError(f"no equation for {config.skip}")
        if adds and config.norm_position == "post":
            z = norm(layer + 1, z)
    seen.output = affine("readout", seen.h[-1])
    return seen


# ---------------------------------------------------------------- forward


@pytest.mark.parametrize("depth", [1, 2, 4])
@pytest.mark.parametrize(("skip", "norm", "position"), CASES)
def test_the_forward_pass_is_the_equations(skip: str, norm: str, position: str, depth: int) -> None:
    config, model, x = drawn(
        depth=depth, activation="tanh", skip=skip, norm=norm, norm_position=position
    )
    expected = equations(config, dict(model.named_parameters()), x).output
    torch.testing.assert_close(model(x), expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation_acts_in_every_layer(activation: str) -> None:
    _, model, x = drawn(activation=activation, negative_slope=0.3, depth=3)
    phi = [ACTIVATIONS[activation].build(0.3).double() for _ in range(3)]
    p = dict(model.named_parameters())
    h = x
    for layer in range(3):
        phi[layer].load_state_dict(model.layers[layer].activation.state_dict())
        h = phi[layer](h @ p[f"layers.{layer}.linear.weight"].T + p[f"layers.{layer}.linear.bias"])
    expected = h @ p["readout.weight"].T + p["readout.bias"]
    torch.testing.assert_close(model(x), expected)


@pytest.mark.parametrize("skip", SKIPS)
def test_without_biases_the_layers_and_read_out_have_none(skip: str) -> None:
    _, model, x = drawn(skip=skip, bias=False)
    biases = [name for name, _ in model.named_parameters() if name.endswith("bias")]
    # A highway gate's bias is what makes it start mostly carrying: it stays.
    assert all("skip.gate" in name for name in biases)
    assert model(x).shape == (BATCH, OUTPUTS)


@pytest.mark.parametrize("skip", [name for name in SKIPS if name != "dense"])
def test_a_thousand_layers_go_forward_and_back(skip: str) -> None:
    depth = sys.getrecursionlimit() + 10
    model = build(MlpConfig(depth=depth, width=2, skip=skip), vectors(3, 2), torch.float32)
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    model(torch.ones(2, 3)).sum().backward()
    assert len(model.watches()) == depth + 1 + (depth - 1) * (skip == "highway")


def test_a_hundred_concatenating_layers_go_forward_and_back() -> None:
    model = build(MlpConfig(depth=100, width=2, skip="dense"), vectors(3, 2), torch.float32)
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    model(torch.ones(2, 3)).sum().backward()
    assert model.watches()[99].weight.shape == (2, 198)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("skip", SKIPS)
def test_building_draws_no_random_number_and_has_one_dtype(skip: str, dtype: torch.dtype) -> None:
    before = torch.get_rng_state()
    config = MlpConfig(depth=3, width=6, skip=skip, activation="prelu", norm="layer")
    model = build(config, vectors(4, 2), dtype)
    assert torch.equal(torch.get_rng_state(), before)
    assert {parameter.dtype for parameter in model.parameters()} == {dtype}


def test_a_copy_computes_with_its_own_modules() -> None:
    _, model, x = drawn(skip="highway", norm="layer", norm_position="post")
    twin = copy.deepcopy(model)
    torch.testing.assert_close(twin(x), model(x))
    nn.init.zeros_(twin.watches()[0].weight)
    assert not torch.equal(twin(x), model(x))
    used = {watch.preact for watch in twin.watches()} | {watch.act for watch in twin.watches()}
    assert used - {None} <= set(twin.modules())


def test_a_plain_layer_costs_two_module_calls() -> None:
    _, model, x = drawn(depth=4)
    calls: list[nn.Module] = []
    handle = nn.modules.module.register_module_forward_hook(
        lambda module, _args, _output: calls.append(module)
    )
    model(x)
    handle.remove()
    assert [type(module) for module in calls] == [nn.Linear, nn.ReLU] * 4 + [nn.Linear, Mlp]


# ---------------------------------------------------------------- watches


@dataclass
class Sites:
    inputs: dict[nn.Module, Tensor] = field(default_factory=dict)
    outputs: dict[nn.Module, Tensor] = field(default_factory=dict)


def watched_sites(model: Mlp, x: Tensor) -> Sites:
    """What passes by every module of the model in one forward pass."""
    sites = Sites()

    def see(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        sites.inputs[module], sites.outputs[module] = args[0], output

    handles = [module.register_forward_hook(see) for module in model.modules()]
    model(x)
    for handle in handles:
        handle.remove()
    return sites


def main_path(model: Mlp) -> Iterator[Any]:
    return (watch for watch in model.watches() if ".gate." not in watch.name)


@pytest.mark.parametrize("depth", [1, 4])
@pytest.mark.parametrize(("skip", "norm", "position"), CASES)
def test_the_watched_modules_hand_on_z_u_and_h_of_the_equations(
    skip: str, norm: str, position: str, depth: int
) -> None:
    config, model, x = drawn(
        depth=depth, activation="tanh", skip=skip, norm=norm, norm_position=position
    )
    expected = equations(config, dict(model.named_parameters()), x)
    sites = watched_sites(model, x)
    *hidden, readout = main_path(model)
    assert len(hidden) == depth
    for watch, z, u, h in zip(hidden, expected.z, expected.u, expected.h, strict=True):
        torch.testing.assert_close(sites.outputs[watch.preact], z)
        torch.testing.assert_close(sites.inputs[watch.activation], u)
        torch.testing.assert_close(sites.outputs[watch.act], h)
        torch.testing.assert_close(watch.slope.derivative(u), 1 - torch.tanh(u) ** 2)
    torch.testing.assert_close(sites.outputs[readout.preact], expected.output)
    assert (readout.activation, readout.act, readout.slope) == (None, None, None)


def test_a_highway_gate_has_its_own_watch_beside_its_weight() -> None:
    config, model, x = drawn(skip="highway", activation="tanh", depth=3)
    expected = equations(config, dict(model.named_parameters()), x)
    sites = watched_sites(model, x)
    gates = [watch for watch in model.watches() if ".gate." in watch.name]
    for watch, (preact, carried) in zip(gates, expected.gate, strict=True):
        assert watch.preact is not None
        assert watch.activation is not None
        assert watch.act is watch.activation
        torch.testing.assert_close(sites.outputs[watch.preact], preact)
        torch.testing.assert_close(sites.inputs[watch.activation], preact)
        torch.testing.assert_close(sites.outputs[watch.act], carried)
        assert watch.slope is not None
        assert watch.slope.peak == 0.25
    assert [(watch.name, watch.layer, watch.kind) for watch in model.watches()] == [
        ("layers.0.linear.weight", 1, "linear"),
        ("layers.1.linear.weight", 2, "linear"),
        ("layers.1.skip.gate.weight", 2, "linear"),
        ("layers.2.linear.weight", 3, "linear"),
        ("layers.2.skip.gate.weight", 3, "linear"),
        ("readout.weight", 4, "readout"),
    ]


@pytest.mark.parametrize(("skip", "norm", "position"), CASES)
def test_every_weight_matrix_is_watched_once_under_its_own_name(
    skip: str, norm: str, position: str
) -> None:
    _, model, _ = drawn(skip=skip, norm=norm, norm_position=position)
    watched = {watch.name: watch.weight for watch in model.watches()}
    matrices = {name: value for name, value in model.named_parameters() if value.ndim == 2}
    assert list(watched) == sorted(matrices, key=list(watched).index)
    assert all(watched[name] is matrices[name] for name in matrices)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_layers_share_a_slope_unless_the_activation_has_parameters(activation: str) -> None:
    _, model, _ = drawn(activation=activation, depth=3)
    slopes = {id(watch.slope) for watch in model.watches()[:-1]}
    assert len(slopes) == (3 if ACTIVATIONS[activation].has_parameters else 1)


def test_the_sum_is_normed_after_but_the_first_z_is_not() -> None:
    _, model, _ = drawn(skip="residual", norm="layer", norm_position="post", depth=5)
    norms = [module for module in model.modules() if isinstance(module, nn.LayerNorm)]
    assert len(norms) == 4
    assert isinstance(model.watches()[0].preact, nn.Linear)


# ---------------------------------------------------------------- questions


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ({"activation": "rleu"}, "nearest: relu"),
        ({"skip": "residul"}, "nearest: residual"),
        ({"norm": "batchnorm"}, "nearest: batch"),
        ({"norm": "instance"}, "over no positions"),
        ({"norm": "group", "norm_groups": 4}, "nearest: 1, 2, 3"),
    ],
)
def test_a_wrong_name_or_value_is_a_question(values: dict[str, Any], match: str) -> None:
    with pytest.raises(QuestionError, match=match):
        drawn(**values)


def test_a_model_without_a_builder_is_a_question() -> None:
    with pytest.raises(QuestionError, match="unknown model configuration"):
        build(ModelConfig(), vectors(3, 2), torch.float32)
