"""Initialisations: bounds, deviations, orthonormality, whose draws they are, and lsuv's outputs.

Holds: inits/choices.py, inits/drawing.py, inits/draws.py, inits/fits.py, inits/init.py,
models/conv_net.py, models/mlp.py
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from reference import vectors
from reference_images import images
from torch import Tensor, nn

from vgexp.config import CnnConfig, ConvConfig, MlpConfig, ResnetConfig
from vgexp.errors import QuestionError
from vgexp.inits import INITS, initialise
from vgexp.models import Mlp, Network, build
from vgexp.seeds import generator
from vgexp.skips import SKIPS

FAN_OUT, FAN_IN = 300, 500

# Name -> (distribution, its std at gain 1 by fan_in and fan_out); None: drawn otherwise.
REFERENCES: dict[str, tuple[str, float] | None] = {
    "xavier_normal": ("normal", math.sqrt(2 / (FAN_IN + FAN_OUT))),
    "xavier_uniform": ("uniform", math.sqrt(2 / (FAN_IN + FAN_OUT))),
    "he_normal": ("normal", math.sqrt(2 / FAN_IN)),
    "he_uniform": ("uniform", math.sqrt(2 / FAN_IN)),
    "lecun_normal": ("normal", math.sqrt(1 / FAN_IN)),
    "lecun_uniform": ("uniform", math.sqrt(1 / FAN_IN)),
    "normal": ("normal", 1.0),
    "uniform": ("uniform", 1 / math.sqrt(FAN_IN) / math.sqrt(3)),
    "torch_default": ("uniform", 1 / math.sqrt(FAN_IN) / math.sqrt(3)),
    "fixup": ("normal", math.sqrt(2 / FAN_IN)),
    "zero_last": ("normal", math.sqrt(2 / FAN_IN)),
    "orthogonal": None,
    "delta_orthogonal": None,
    "lsuv": None,
}
DRAWN = [name for name, reference in REFERENCES.items() if reference]
OF_BRANCHES = ("fixup", "zero_last")
"""Need a path beside the weights that they set to 0."""
ANYWHERE = [name for name in INITS if name not in OF_BRANCHES]


def batch(rows: int = 64, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(rows, 20, dtype=dtype, generator=generator(5, "data"))


def initialised(seed: int = 0, **values: Any) -> Mlp:
    config = MlpConfig(**{"depth": 3, "width": 24, **values})
    model = build(config, vectors(20, 10), torch.float32)
    initialise(model, config, generator(seed, "init"), batch())
    return model


def weights(model: Network) -> list[Tensor]:
    return [watch.weight.detach().clone() for watch in model.watches()]


def biases(model: Mlp) -> dict[str, Tensor]:
    return {name: b.detach() for name, b in model.named_parameters() if name.endswith("bias")}


def test_every_init_has_a_reference_and_a_summary() -> None:
    assert set(REFERENCES) == set(INITS)
    assert all(0 < len(INITS.summary(name)) < 90 for name in INITS)


@pytest.mark.parametrize("gain", [1e-30, 1.0, 2.5, 1e30])
@pytest.mark.parametrize("name", DRAWN)
def test_a_weight_has_the_stated_distribution(name: str, gain: float) -> None:
    reference = REFERENCES[name]
    assert reference is not None
    distribution, std = reference
    weight = torch.empty(FAN_OUT, FAN_IN)
    INITS[name].draw(weight, gain, generator(1, "init"))
    # 150,000 draws: the estimate of std is within 5 of its own deviations, 5 std / sqrt(2 N).
    sample = weight.double() / gain
    assert float(sample.std()) == pytest.approx(std, rel=5 / math.sqrt(2 * sample.numel()))
    assert abs(float(sample.mean())) < 5 * std / math.sqrt(sample.numel())
    if distribution == "uniform":
        # The largest of N draws misses the bound by a share of about 1/N.
        bound = math.sqrt(3) * std
        assert bound * (1 - 1e-4) < float(sample.abs().max()) <= bound * (1 + 1e-6)
    else:
        assert float(sample.abs().max()) > 3.5 * std
        within = float((sample.abs() < std).double().mean())
        # 68.27 % of a normal, 57.7 % of a uniform; 5 deviations are 0.006.
        assert within == pytest.approx(0.6827, abs=0.006)


def test_a_kernel_counts_its_positions_in_both_fans() -> None:
    for name, variance in [("he_normal", 2 / 90), ("xavier_normal", 2 / (90 + 360))]:
        weight = torch.empty(40, 10, 3, 3)
        INITS[name].draw(weight, 1.0, generator(2, "init"))
        assert float(weight.var()) == pytest.approx(variance, rel=5 * math.sqrt(2 / 3600))


@pytest.mark.parametrize("shape", [(12, 12), (8, 30), (30, 8)])
def test_orthogonal_has_orthonormal_rows_or_columns_times_gain(shape: tuple[int, int]) -> None:
    weight = torch.empty(shape, dtype=torch.float64)
    INITS["orthogonal"].draw(weight, 3.0, generator(0, "init"))
    short = weight if shape[0] <= shape[1] else weight.T
    identity = torch.eye(min(shape), dtype=torch.float64)
    torch.testing.assert_close(short @ short.T, 9 * identity)


@pytest.mark.parametrize("skip", SKIPS)
@pytest.mark.parametrize("name", ANYWHERE)
def test_every_weight_is_drawn_from_the_generator_alone(name: str, skip: str) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = initialised(init=name, skip=skip, bias_std=0.1)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    second = initialised(init=name, skip=skip, bias_std=0.1)
    other = initialised(seed=1, init=name, skip=skip, bias_std=0.1)
    for a, b, c in zip(weights(first), weights(second), weights(other), strict=True):
        assert torch.equal(a, b)
        assert not torch.equal(a, c)
        assert bool(torch.isfinite(a).all())
    # A weight that was passed over would hold what its memory held.
    drawn = [float(w.std()) for w in weights(first)]
    assert all(0.01 < std < 3 for std in drawn)


@pytest.mark.parametrize("name", [name for name in ANYWHERE if name != "lsuv"])
def test_bias_noise_leaves_the_weights_alone(name: str) -> None:
    plain, noisy = (initialised(init=name, skip="highway", bias_std=std) for std in (0.0, 0.5))
    for a, b in zip(weights(plain), weights(noisy), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("bias_std", [0.0, 0.5])
@pytest.mark.parametrize("name", ANYWHERE)
def test_biases_start_at_zero_gates_at_minus_two_and_noise_is_added(
    name: str, bias_std: float
) -> None:
    found = biases(initialised(init=name, skip="highway", width=1000, depth=2, bias_std=bias_std))
    start = {"layers.0.linear.bias": 0.0, "layers.1.linear.bias": 0.0, "readout.bias": 0.0}
    for key, bias in found.items():
        bound = 1 / math.sqrt(20 if key == "layers.0.linear.bias" else 1000)
        spread = bound / math.sqrt(3) if name == "torch_default" and key in start else 0.0
        std = math.hypot(spread, bias_std)
        # 10 or 1,000 draws: mean within 5 std / sqrt(N), std within 5 std / sqrt(2 N).
        tolerance = 5 / math.sqrt(bias.numel())
        assert float(bias.mean()) == pytest.approx(start.get(key, -2.0), abs=tolerance * std)
        assert float(bias.std()) == pytest.approx(std, abs=tolerance * std)
        if bias_std == 0:
            assert float((bias - start.get(key, -2.0)).abs().max()) <= bound * (spread > 0)


def test_torch_default_is_what_a_linear_layer_draws() -> None:
    torch.manual_seed(0)
    linear = nn.Linear(500, 300, dtype=torch.float64)
    model = build(MlpConfig(depth=1, width=300), vectors(500, 2), torch.float64)
    config = MlpConfig(init="torch_default")
    inputs = torch.zeros(2, 500, dtype=torch.float64)
    initialise(model, config, torch.Generator().manual_seed(0), inputs)
    # The same stream: the first draw of both is this weight.
    torch.testing.assert_close(model.watches()[0].weight, linear.weight, rtol=0, atol=1e-7)


def test_without_biases_there_is_nothing_to_draw_for_them() -> None:
    assert biases(initialised(bias=False, init="torch_default", bias_std=0.3)) == {}


def test_a_gain_of_zero_draws_zeros() -> None:
    for name in INITS:
        skip = "residual" if name in OF_BRANCHES else "none"
        assert all(not w.any() for w in weights(initialised(init=name, gain=0.0, skip=skip)))


# ---------------------------------------------------------------- lsuv


def output_variances(model: Network, x: Tensor) -> list[float]:
    """Variance of each weight module's own output, in a forward pass of the model."""
    modules = [model.get_submodule(w.name.removesuffix(".weight")) for w in model.watches()]
    found: dict[nn.Module, float] = {}
    handles = [
        module.register_forward_hook(
            lambda module, _args, y: found.update({module: float(y.double().var(unbiased=False))})
        )
        for module in modules
    ]
    with torch.no_grad():
        model(x)
    for handle in handles:
        handle.remove()
    return [found[module] for module in modules]


@pytest.mark.parametrize("gain", [1.0, 3.0])
@pytest.mark.parametrize(
    "values",
    [
        {"activation": "tanh", "depth": 50},
        {"activation": "relu", "depth": 50},
        {"activation": "linear", "depth": 50},
        {"activation": "sigmoid", "depth": 50},
        {"activation": "relu", "depth": 30, "skip": "residual"},
        {"activation": "tanh", "depth": 10, "skip": "highway"},
        {"activation": "relu", "depth": 10, "skip": "dense", "norm": "batch"},
        {"activation": "tanh", "depth": 10, "skip": "residual", "norm": "layer"},
        {"activation": "tanh", "depth": 10, "bias_std": 0.3},
    ],
)
def test_lsuv_brings_every_output_to_the_asked_variance(
    values: dict[str, Any], gain: float
) -> None:
    model = initialised(init="lsuv", gain=gain, **values)
    for variance in output_variances(model, batch()):
        assert variance / gain**2 == pytest.approx(1, abs=0.1001)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_lsuv_works_on_inputs_of_any_scale(scale: float) -> None:
    config = MlpConfig(depth=5, width=24, init="lsuv", activation="tanh")
    model = build(config, vectors(20, 10), torch.float32)
    initialise(model, config, generator(0, "init"), batch() * scale)
    variances = output_variances(model, batch() * scale)
    assert variances == pytest.approx([1.0] * 6, abs=0.1001)


def test_lsuv_keeps_the_directions_of_an_orthonormal_start() -> None:
    model = initialised(init="lsuv", activation="relu", depth=4)
    for weight in weights(model)[1:4]:
        gram = weight.double() @ weight.double().T
        scale = gram.diagonal().mean()
        torch.testing.assert_close(
            gram / scale, torch.eye(24, dtype=torch.float64), rtol=0, atol=1e-5
        )


def test_lsuv_leaves_batch_statistics_and_hooks_as_they_were() -> None:
    config = MlpConfig(depth=3, width=24, init="lsuv", norm="batch")
    model = build(config, vectors(20, 10), torch.float32)
    before = [buffer.clone() for buffer in model.buffers()]
    initialise(model, config, generator(0, "init"), batch())
    assert len(before) == 9
    assert all(torch.equal(a, b) for a, b in zip(before, model.buffers(), strict=True))
    assert model.training
    assert not any(module._forward_hooks for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_lsuv_leaves_an_output_without_variance_alone() -> None:
    config = MlpConfig(depth=3, width=24, init="lsuv")
    model = build(config, vectors(20, 10), torch.float32)
    initialise(model, config, generator(0, "init"), torch.zeros(8, 20))
    for weight in weights(model):
        short = weight.double() if weight.shape[0] <= weight.shape[1] else weight.double().T
        identity = torch.eye(min(weight.shape), dtype=torch.float64)
        torch.testing.assert_close(short @ short.T, identity, rtol=0, atol=1e-5)


def test_lsuv_takes_one_pass_however_deep() -> None:
    config = MlpConfig(depth=1000, width=8, init="lsuv", activation="tanh")
    model = build(config, vectors(20, 10), torch.float32)
    calls: list[nn.Module] = []
    handle = nn.modules.module.register_module_forward_hook(
        lambda module, _args, _output: calls.append(module)
    )
    initialise(model, config, generator(0, "init"), batch())
    handle.remove()
    assert len(calls) == 2 * 1000 + 2


def test_an_unknown_init_is_a_question() -> None:
    with pytest.raises(QuestionError, match="nearest: he_normal"):
        initialised(init="he_norm")


@pytest.mark.parametrize("name", INITS)
def test_one_seed_gives_one_network_in_every_dtype(name: str) -> None:
    drawn = {}
    for dtype in (torch.float32, torch.float64):
        skip = "residual" if name in OF_BRANCHES else "none"
        config = MlpConfig(depth=3, width=9, init=name, bias_std=0.1, activation="tanh", skip=skip)
        model = build(config, vectors(5, 4), dtype)
        batch = torch.randn(32, 5, generator=generator(0, "data"), dtype=torch.float64)
        initialise(model, config, generator(3, "init"), batch.to(dtype))
        drawn[dtype] = [p.detach().double() for p in model.parameters()]
    for single, double in zip(drawn[torch.float32], drawn[torch.float64], strict=True):
        torch.testing.assert_close(single, double, rtol=1e-5, atol=1e-6)


# ---------------------------------------------------------------- images


IMAGES = images(3, 12, 10, 5)


def convolutional(config: ConvConfig, dtype: torch.dtype = torch.float64) -> tuple[Network, Tensor]:
    """An initialised net, and images."""
    x = torch.randn(6, *IMAGES.shape, dtype=dtype, generator=generator(5, "data"))
    model = build(config, IMAGES, dtype)
    initialise(model, config, generator(0, "init"), x)
    return model, x


def kernels(model: Network) -> dict[str, Tensor]:
    return {w.name: w.weight.detach() for w in model.watches() if w.weight is not None}


@pytest.mark.parametrize(
    "config",
    [
        CnnConfig(depth=12, width=8, init="lsuv", activation="tanh"),
        CnnConfig(depth=12, width=8, init="lsuv", skip="highway"),
        ResnetConfig(depth=20, width=8, init="lsuv"),
        ResnetConfig(depth=14, width=8, init="lsuv", norm="none", preactivation=True),
    ],
)
def test_lsuv_brings_every_convolutions_output_to_variance_one(config: ConvConfig) -> None:
    model, x = convolutional(config)
    assert output_variances(model, x) == pytest.approx([1.0] * len(model.watches()), abs=0.1001)


@pytest.mark.parametrize(("num_out", "num_in"), [(9, 9), (9, 4), (4, 9)])
def test_delta_orthogonal_has_an_orthogonal_centre_and_zeros_around(
    num_out: int, num_in: int
) -> None:
    weight = torch.full((num_out, num_in, 3, 3), torch.nan, dtype=torch.float64)
    INITS["delta_orthogonal"].draw(weight, 1.5, generator(0, "init"))
    centre = weight[:, :, 1, 1].clone()
    short = centre if num_out <= num_in else centre.T
    identity = torch.eye(len(short), dtype=torch.float64)
    torch.testing.assert_close(short @ short.T, 1.5**2 * identity)
    weight[:, :, 1, 1] = 0
    assert not weight.any()


def test_delta_orthogonal_keeps_the_norm_of_every_position_through_a_hundred_linear_layers() -> (
    None
):
    config = CnnConfig(
        depth=100, width=6, stages=1, activation="linear", init="delta_orthogonal", bias=False
    )
    model, x = convolutional(config)
    seen: dict[str, Tensor] = {}
    for watch in model.watches()[:-1]:
        assert watch.preact is not None
        watch.preact.register_forward_hook(
            lambda _m, _a, y, name=watch.name: seen.update({name: y})
        )
    model(x)
    for z in seen.values():
        torch.testing.assert_close(z.norm(dim=1), x.norm(dim=1))


def test_delta_orthogonal_of_a_matrix_is_orthogonal() -> None:
    one, other = torch.empty(2, 7, 5, dtype=torch.float64)
    INITS["delta_orthogonal"].draw(one, 2.0, generator(0, "init"))
    INITS["orthogonal"].draw(other, 2.0, generator(0, "init"))
    assert torch.equal(one, other)


# ---------------------------------------------------------------- residual branches


def first_and_last_z(model: Network, x: Tensor) -> tuple[Tensor, Tensor]:
    """Of the main path, the read-out left out."""
    seen: list[Tensor] = []
    main = [w for w in model.watches() if w.kind != "readout" and "projection" not in w.name]
    for watch in (main[0], main[-1]):
        assert watch.preact is not None
        watch.preact.register_forward_hook(lambda _m, _a, y: seen.append(y))
    model(x)
    return seen[0], seen[1]


@pytest.mark.parametrize("skip", ["residual", "scaled_residual"])
@pytest.mark.parametrize("init", OF_BRANCHES)
def test_a_perceptron_with_branches_from_zero_starts_as_the_identity(init: str, skip: str) -> None:
    model = initialised(init=init, skip=skip, depth=7)
    first, last = first_and_last_z(model, batch())
    assert torch.equal(first, last)
    drawn = [bool(w.any()) for w in weights(model)]
    assert drawn == [True] + [False] * 6 + [init == "zero_last"]


@pytest.mark.parametrize("norm", ["batch", "none", "layer"])
@pytest.mark.parametrize("preactivation", [False, True])
def test_zero_last_starts_every_block_as_its_path(norm: str, preactivation: bool) -> None:
    config = ResnetConfig(
        depth=14, width=6, init="zero_last", norm=norm, preactivation=preactivation
    )
    model, x = convolutional(config)
    first, last = first_and_last_z(model, x)
    start = first if preactivation else model.layers[0].activation(model_norm(model)(first))
    torch.testing.assert_close(last[:, :6], start[:, :, ::4, ::4])
    assert not last[:, 6:].any()
    scales = [v for name, v in model.named_parameters() if name.endswith("norm.weight")]
    ends_with_norm = norm != "none" and not preactivation
    assert sum(not bool(scale.any()) for scale in scales) == 6 * ends_with_norm
    zeros = [name for name, weight in kernels(model).items() if not bool(weight.any())]
    last_of_blocks = [f"layers.{i}.conv.weight" for i in range(2, 13, 2)]
    assert zeros == ([] if ends_with_norm else last_of_blocks)


def model_norm(model: Network) -> nn.Module:
    return model.layers[0].norm or nn.Identity()


@pytest.mark.parametrize(
    ("bottleneck", "depth", "exponent"), [(False, 14, -1 / 2), (True, 20, -1 / 4)]
)
def test_fixup_scales_all_but_the_last_weight_of_a_branch_by_the_papers_power(
    bottleneck: bool, depth: int, exponent: float
) -> None:
    """L^(-1/(2m - 2)) for L branches of m weights."""
    values: dict[str, Any] = {"depth": depth, "width": 8, "norm": "none", "bottleneck": bottleneck}
    fixed, plain = (
        kernels(convolutional(ResnetConfig(init=init, **values))[0])
        for init in ("fixup", "he_normal")
    )
    size = 3 if bottleneck else 2
    for index, (name, weight) in enumerate(fixed.items()):
        if name == "readout.weight" or (index and index % size == 0):
            assert not weight.any()
        else:
            factor = 6**exponent if index else 1.0
            torch.testing.assert_close(weight, factor * plain[name])


def test_fixups_second_update_moves_its_function_alike_at_every_depth() -> None:
    """The paper's aim: an update of size eta moves the function by an amount free of depth."""
    moved = []
    for depth in (8, 32, 128):
        config = ResnetConfig(depth=depth, width=6, norm="none", init="fixup", bias=True)
        model, x = convolutional(config)
        y = torch.arange(6) % 5
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
        before = model(x).detach()
        for _ in range(2):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
        moved.append(float((model(x).detach() - before).norm()))
    assert max(moved) / min(moved) < 1.5


@pytest.mark.parametrize("init", OF_BRANCHES)
@pytest.mark.parametrize("skip", ["none", "rezero", "highway", "dense"])
def test_branches_from_zero_need_a_path_and_nothing_else_that_is_zero(init: str, skip: str) -> None:
    with pytest.raises(QuestionError, match=f"{init}' on a model without residual branches"):
        initialised(init=init, skip=skip)


def test_fixup_is_refused_where_norms_end_the_branches() -> None:
    with pytest.raises(QuestionError, match=r"allowed: model\.norm=none"):
        convolutional(ResnetConfig(depth=8, init="fixup"))
