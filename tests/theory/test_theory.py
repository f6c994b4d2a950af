"""Predictions of step 0 against networks that vgexp itself builds, at two widths.

z and dL/dz are read off the modules that the networks name, dL/dz by autograd in float64.

Holds: skips.py, theory/backward.py, theory/batch.py, theory/forward.py, theory/moments.py,
theory/perceptron.py, theory/sample.py, theory/spread.py, theory/typical.py, theory/weights.py
"""

from __future__ import annotations

import functools
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from reference import vectors
from theory_reference import kept_preacts, log_signals
from torch import Tensor

from vgexp import losses
from vgexp.config import MlpConfig
from vgexp.inits import INITS, initialise
from vgexp.models import build
from vgexp.seeds import generator
from vgexp.skips import HIGHWAY_BIAS, SKIPS
from vgexp.theory import Sample, predict
from vgexp.theory.batch import Kernel
from vgexp.theory.forward import Net, forward
from vgexp.theory.function import function
from vgexp.theory.moments import Means
from vgexp.theory.sample import lengths, output_gradient
from vgexp.theory.weights import weights

INPUTS, OUTPUTS, BATCH, SEEDS, DEPTH = 13, 5, 24, 16, 5
CASES: dict[str, dict[str, Any]] = {
    "relu": {"activation": "relu"},
    "tanh, chaotic, biases": {"activation": "tanh", "gain": 1.2, "bias_std": 0.3},
    "sigmoid, xavier": {"activation": "sigmoid", "init": "xavier_uniform"},
    "gelu, torch_default": {"activation": "gelu", "init": "torch_default"},
    "orthogonal": {"activation": "tanh", "init": "orthogonal"},
    "lsuv": {"activation": "relu", "init": "lsuv"},
    "residual": {"skip": "residual"},
    "scaled": {"skip": "scaled_residual", "activation": "elu"},
    "rezero": {"skip": "rezero", "bias_std": 0.1},
    "highway": {"skip": "highway", "activation": "tanh"},
    "dense": {"skip": "dense"},
    "dropout": {"dropout": 0.25, "activation": "leaky_relu", "negative_slope": 0.3},
    "layer norm": {"norm": "layer"},
    "rms norm after": {"norm": "rms", "norm_position": "post", "activation": "gelu"},
    "layer norm of a sum": {"norm": "layer", "norm_position": "post", "skip": "residual"},
    "batch norm": {"norm": "batch"},
    "batch norm, residual": {"norm": "batch", "skip": "residual"},
}


@functools.cache
def sample(loss: str = "cross_entropy") -> Sample:
    """Inputs of unequal lengths that are alike."""
    drawn = generator(0, "theory")
    x = torch.randn(BATCH, INPUTS, generator=drawn, dtype=torch.float64)
    x = (x + 0.5) * torch.linspace(0.5, 1.5, BATCH, dtype=torch.float64)[:, None]
    if loss == "mse":
        y = torch.randn(BATCH, OUTPUTS, generator=drawn)
    else:
        y = torch.randint(0, OUTPUTS, (BATCH,), generator=drawn)
    return Sample(x, y, losses.LOSSES[loss].mean, is_mean=True)


def measured(config: MlpConfig, data: Sample, seeds: int) -> dict[str, Tensor]:
    """ln of the deviation of z and of the rms of N dL/dz, [seeds, 2] of each weight."""
    rows: dict[str, list[tuple[float, float]]] = {}
    for seed in range(seeds):
        torch.manual_seed(seed)  # of dropout
        model = build(config, vectors(INPUTS, OUTPUTS), torch.float64)
        initialise(model, config, generator(seed, "init"), data.inputs)
        seen = kept_preacts(model)
        targets = data.targets.double() if data.targets.is_floating_point() else data.targets
        data.loss(model(data.inputs), targets).backward()
        for name, logs in log_signals(seen, len(targets)).items():
            rows.setdefault(name, []).append(logs)
    return {name: torch.tensor(values) for name, values in rows.items()}


@pytest.mark.parametrize("width", [32, 128])
@pytest.mark.parametrize("case", CASES)
def test_predictions_are_what_networks_show(case: str, width: int) -> None:
    """Within 4 standard errors, and 4/width for what is of higher order in depth/width.

    A gate's dL/dz may be 20 % off besides: T' (branch - z) is not independent of it (large z, small
    phi'), as is taken.
    """
    config = MlpConfig(**{"depth": DEPTH, "width": width, **CASES[case]})
    forecast = predict(config, sample(), OUTPUTS)
    assert forecast.reason is None
    found = measured(config, sample(), SEEDS)
    assert set(forecast.rows) == set(found)
    for name, row in forecast.rows.items():
        assert row.preact_std is not None
        assert row.delta_rms is not None
        spread = found[name].std(0)
        allowed = 4 * spread / math.sqrt(SEEDS) + 4 / width + 0.2 * ("gate" in name)
        off = found[name].mean(0) - torch.tensor([row.preact_std, row.delta_rms]).log()
        assert (off.abs() <= allowed).all(), (name, off, allowed)


@pytest.mark.parametrize("case", ["relu", "tanh, chaotic, biases", "residual", "orthogonal"])
def test_single_seeds_spread_as_predicted(case: str) -> None:
    """A deviation of 80 draws is known to 8 %: 3 of these, and as much for higher orders."""
    config = MlpConfig(**{"depth": DEPTH, "width": 64, **CASES[case]})
    forecast = predict(config, sample(), OUTPUTS)
    found = measured(config, sample(), 80)
    for name in ("layers.0.linear.weight", "layers.3.linear.weight"):
        wanted = forecast.rows[name].log_delta_std
        assert wanted is not None
        assert float(found[name][:, 1].std()) == pytest.approx(wanted, rel=0.48)


def test_of_one_example_relu_s_spread_is_that_of_hanin_and_nica() -> None:
    """Var ln |dL/dz|^2 gains 5/n a layer, and so does Var ln |z|^2."""
    one = Sample(sample().inputs[:1], sample().targets[:1], sample().loss, is_mean=True)
    forecast = predict(MlpConfig(depth=9, width=200), one, OUTPUTS)
    deltas = [row.log_delta_std for row in list(forecast.rows.values())[:-1]]
    preacts = [row.log_preact_std for row in list(forecast.rows.values())[:-1]]
    for values, sign in ((deltas, -1), (preacts, 1)):
        squares = torch.tensor([4 * v**2 for v in values if v is not None], dtype=torch.float64)
        gained = sign * squares.diff()
        torch.testing.assert_close(gained, torch.full_like(gained, 5 / 200), rtol=0.25, atol=0.0)


@pytest.mark.parametrize("width", [50, 24])
def test_orthogonal_linear_nets_keep_dl_dz_of_every_seed(width: int) -> None:
    """Saxe 2014: dynamical isometry; what is left at every layer is the loss's own gradient."""
    config = MlpConfig(depth=30, width=width, activation="linear", init="orthogonal")
    *rows, _ = predict(config, sample(), OUTPUTS).rows.values()
    found = measured(config, sample(), 3)
    logs = found[f"layers.{len(rows) - 1}.linear.weight"][:, 1]
    torch.testing.assert_close(found["layers.0.linear.weight"][:, 1], logs, rtol=1e-9, atol=1e-9)
    for row in rows:
        assert row.delta_rms == pytest.approx(rows[-1].delta_rms, rel=1e-9)
        assert row.log_delta_std == pytest.approx(rows[-1].log_delta_std, rel=1e-6)


def test_what_spreads_in_an_orthogonal_linear_net_is_the_loss_s_own_gradient() -> None:
    """A deviation of 60 draws is known to 9 %: 3 of these."""
    config = MlpConfig(depth=30, width=50, activation="linear", init="orthogonal")
    row = predict(config, sample(), OUTPUTS).rows["layers.0.linear.weight"]
    logs = measured(config, sample(), 60)["layers.0.linear.weight"][:, 1]
    assert row.delta_rms is not None
    assert float(logs.std()) == pytest.approx(row.log_delta_std, rel=0.27)
    error = float(logs.std()) / math.sqrt(60)
    assert float(logs.mean()) == pytest.approx(math.log(row.delta_rms), abs=4 * error)


@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
def test_draws_asked_of_a_loss_together_have_the_gradient_of_each(loss: str) -> None:
    groups = lengths(sample(loss).x_BF)
    q_A = torch.linspace(0.5, 2.0, len(groups.share_A), dtype=torch.float64)
    together, each = (
        output_gradient(replace(sample(loss), is_mean=is_mean), groups, q_A, 0.4, OUTPUTS)
        for is_mean in (True, False)
    )
    for name, value in vars(each).items():
        torch.testing.assert_close(getattr(together, name), value)


def test_small_outputs_have_softmax_s_gradient() -> None:
    """p = 1/C: the mean square of p - y is (1 - 1/C)/C, whatever is drawn."""
    data, groups = sample(), lengths(sample().x_BF)
    output = output_gradient(data, groups, torch.full((len(groups.share_A),), 1e-12), 0.5, OUTPUTS)
    wanted = (1 - 1 / OUTPUTS) / OUTPUTS
    torch.testing.assert_close(output.square_A, torch.full_like(output.square_A, wanted))


@pytest.mark.parametrize("q", [0.3, 4.0, 100.0])
def test_large_outputs_have_the_integral_s(q: float) -> None:
    """E |p - y|^2 = 1 - 2/C + C E p_1^2, and 1/S^2 is the integral of t e^(-t S).

    So C E p_1^2 = C int t E[e^(2f - t e^f)] E[e^(-t e^f)]^(C-1) dt, taken in ln t.
    """
    f = torch.linspace(-10, 10, 1201, dtype=torch.float64)
    weight = torch.exp(-f * f / 2)
    f, weight = f * math.sqrt(q), weight / weight.sum()
    log_t = torch.linspace(-110, 50, 1601, dtype=torch.float64)[:, None]
    decay = torch.exp(-torch.exp(log_t + f))
    once = (weight * decay).sum(1)
    twice = (weight * torch.exp(2 * (f + log_t)) * decay).sum(1)
    total = float((twice * once ** (OUTPUTS - 1)).sum() * (log_t[1] - log_t[0]))
    wanted = (1 - 2 / OUTPUTS + OUTPUTS * total) / OUTPUTS
    data, groups = sample(), lengths(sample().x_BF)
    output = output_gradient(data, groups, torch.full((len(groups.share_A),), q), 0.0, OUTPUTS)
    # 64 draws of 24 examples: half a percent to two, by q.
    assert float(output.square_A.mean()) == pytest.approx(wanted, rel=0.05)


def test_squared_error_has_its_gradient() -> None:
    """2/K (z - y): 4/K^2 (q + mean y^2)."""
    data = sample("mse")
    groups = lengths(data.x_BF)
    output = output_gradient(data, groups, torch.full((len(groups.share_A),), 3.0), 0.0, OUTPUTS)
    wanted = 4 / OUTPUTS**2 * (3.0 + float(data.targets.double().square().mean()))
    assert float(output.square_A.mean()) == pytest.approx(wanted, rel=0.05)


@pytest.mark.parametrize("skip", [name for name in SKIPS if SKIPS[name].adds])
def test_each_skip_says_what_its_module_does_to_variances(skip: str) -> None:
    """One module of 1,500 units, dL/dz by autograd: 1,500 x 8 numbers are known to 1.3 %."""
    width, batch, v, q = 1500, 8, 0.7, 2.3
    drawn = generator(1, skip)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=drawn, dtype=torch.float64)

    make = SKIPS[skip].combine
    assert make is not None
    module = make(width, 7).double()
    weight = normal(width, width) * math.sqrt(v / width)
    for gate, _ in module.gates:
        torch.nn.init.normal_(gate.weight, 0.0, math.sqrt(v / width), generator=drawn)
        assert gate.bias is not None
        assert float(gate.bias[0].detach()) == HIGHWAY_BIAS
    h = normal(batch, width)
    h = (h / h.square().mean(1, keepdim=True).sqrt()).requires_grad_()
    z = (normal(batch, width) * math.sqrt(q)).requires_grad_()
    following, delta = module(z, h @ weight.T, h), normal(batch, width)
    by_z, by_h = torch.autograd.grad(following, (z, h), delta)

    def mean(f: Any, at: float, variance: Tensor) -> Tensor:
        g = torch.randn(400_000, generator=drawn, dtype=torch.float64)
        return f(at + g * variance.sqrt()).mean(-1)

    mix = SKIPS[skip].mix(torch.tensor(v), torch.tensor(q), 7, mean)
    wanted = float(mix.branch * v + mix.carried * q)
    assert float(following.detach().square().mean()) == pytest.approx(wanted, rel=0.06)
    assert float(by_z.square().mean()) == pytest.approx(float(mix.carried), rel=0.06)
    assert float(by_h.square().mean()) == pytest.approx(float(mix.backward) * v, rel=0.06)


@pytest.mark.parametrize("init", [name for name in INITS if INITS[name].std is not None])
@pytest.mark.parametrize("shape", [(40, 90), (90, 40)])
def test_each_init_says_the_root_mean_square_that_it_draws(
    init: str, shape: tuple[int, int]
) -> None:
    """3,600 draws: a mean square is known to 2.4 %."""
    weight = torch.empty(shape, dtype=torch.float64)
    INITS[init].draw(weight, 1.7, generator(0, init))
    std, gain = INITS[init].std, 1.0 if INITS[init].scales_outputs else 1.7
    assert std is not None
    assert float(weight.square().mean().sqrt()) == pytest.approx(gain * std(weight), rel=0.05)


@pytest.mark.usefixtures("user_folder")
def test_every_init_is_declared_or_measured() -> None:
    assert all(INITS[name].std is not None for name in INITS)
    Path("mine.py").write_text("import torch\ndef flat(w): w.fill_(0.1)\n")
    (first, *_) = weights(MlpConfig(init="mine.flat", gain=2.0), INPUTS, OUTPUTS)
    assert first.variance == pytest.approx(0.04)


@pytest.mark.usefixtures("user_folder")
@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"init": "zero_last", "skip": "residual"}, "zero_last"),
        ({"norm": "batch", "norm_position": "post"}, "batch norm"),
        ({"norm": "group", "width": 8, "norm_groups": 4}, "together"),
        ({"norm": "mine.norm"}, "your own"),
        ({"activation": "mine.mixes"}, "mixes"),
    ],
)
def test_where_theory_has_no_answer_it_says_why(values: dict[str, Any], word: str) -> None:
    Path("mine.py").write_text(
        "import torch\n"
        "def norm(width): return torch.nn.LayerNorm(width)\n"
        "def mixes(u): return u - u.mean()\n"
    )
    forecast = predict(MlpConfig(**values), sample(), OUTPUTS)
    assert not forecast.rows
    assert forecast.reason is not None
    assert word in forecast.reason


@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e30])
@pytest.mark.parametrize(
    "values",
    [{"gain": 0.0}, {"gain": 1e-3}, {"gain": 1e3}, {"activation": "tanh"}, {"skip": "residual"}],
)
def test_extremes_end_in_numbers_or_empty_cells(values: dict[str, Any], scale: float) -> None:
    data = Sample(sample().inputs * scale, sample().targets, sample().loss, is_mean=True)
    for depth in (1, 150):
        forecast = predict(MlpConfig(width=20, depth=depth, **values), data, OUTPUTS)
        if values == {"activation": "tanh"} and scale > 1:
            assert "nearly all units" in str(forecast.reason)
            continue
        assert len(forecast.rows) == depth + 1
        for row in forecast.rows.values():
            for number in (row.preact_std, row.delta_rms, row.backward_gain, row.log_delta_std):
                assert number is None or (math.isfinite(number) and number >= 0)
            assert row.log_delta_std is None or row.log_delta_std < 0.5 * math.sqrt(6 * depth / 20)


@pytest.mark.parametrize(
    ("gain", "num_rows", "has_spread"), [(1.0, 5, True), (30.0, 5, False), (1e4, 0, False)]
)
def test_of_saturated_units_first_nothing_is_said_of_single_nets_and_then_nothing_at_all(
    gain: float, num_rows: int, has_spread: bool
) -> None:
    config = MlpConfig(depth=4, width=64, activation="tanh", init="xavier_normal", gain=gain)
    forecast = predict(config, sample(), OUTPUTS)
    assert len(forecast.rows) == num_rows
    assert all((row.log_delta_std is not None) == has_spread for row in forecast.rows.values())
    said = forecast.reason if num_rows == 0 else forecast.caveat
    assert said is None if has_spread else "a few of them rule" in str(said)


@pytest.mark.parametrize("skip", ["none", "residual", "dense"])
def test_batch_norm_of_weights_that_are_0_is_predicted_to_pass_nothing_back(skip: str) -> None:
    config = MlpConfig(depth=3, width=20, gain=0.0, norm="batch", skip=skip)
    *hidden, readout = predict(config, sample(), OUTPUTS).rows.values()
    assert [row.delta_rms for row in hidden] == [0.0] * 3
    assert readout.delta_rms == pytest.approx(math.sqrt((1 - 1 / OUTPUTS) / OUTPUTS))


@pytest.mark.parametrize(("num_inputs", "is_known"), [(1, False), (2, False), (INPUTS, True)])
def test_where_examples_are_alike_or_opposite_no_spread_is_predicted(
    num_inputs: int, is_known: bool
) -> None:
    x = torch.randn(BATCH, num_inputs, generator=generator(3, "theory"), dtype=torch.float64)
    forecast = predict(
        MlpConfig(depth=3, activation="tanh"),
        Sample(x, sample().targets, sample().loss, is_mean=True),
        OUTPUTS,
    )
    assert (forecast.caveat is None) == is_known
    assert all((row.log_delta_std is not None) == is_known for row in forecast.rows.values())


def test_batch_norm_makes_the_pattern_of_a_linear_net_fade() -> None:
    """Of units of eigenvalues l, each divided by its own s^2 = sum l g^2."""
    source = torch.Generator().manual_seed(3)
    eigen_E = torch.tensor([0.4, 0.2, 0.1, 0.1, 0.05, 0.05, 0.04, 0.03, 0.02, 0.01]).double()
    found = Kernel(eigen_E)
    for _ in range(4):
        square_NE = torch.randn(200_000, 10, generator=source, dtype=torch.float64).square()
        scale_N = square_NE @ eigen_E
        assert found.norm().over_batch == pytest.approx(float((1 / scale_N).mean()), rel=0.02)
        eigen_E = (square_NE * eigen_E / scale_N[:, None]).mean(0)
        found = found.after(1.0, 1.0, 10**9, is_divided=True)
        torch.testing.assert_close(found.eigenvalues_E, eigen_E, rtol=0.02, atol=0.0)


@pytest.mark.parametrize("num_examples", [6, 10])
def test_the_factor_of_deep_linear_batch_norm_is_yang_s(num_examples: int) -> None:
    """(B - 2)/(B - 3) in mean square where examples are equally far from each other (2019)."""
    data = Sample(
        sample().inputs[:num_examples], sample().targets[:num_examples], sample().loss, is_mean=True
    )
    config = MlpConfig(depth=400, width=10**6, activation="linear", norm="batch", bias=False)
    middle = predict(config, data, OUTPUTS).layers[200]
    assert middle.chi == pytest.approx((num_examples - 2) / (num_examples - 3), rel=1e-3)


@pytest.mark.parametrize(
    ("activation", "num_examples"), [("relu", 6), ("tanh", 6), ("relu", 16), ("linear", 16)]
)
def test_batch_norm_of_few_examples_is_predicted(activation: str, num_examples: int) -> None:
    """dL/dz sums to 0 over the batch: with numbers in no relation 0.2 to 0.5 would be missing.

    Within 4 standard errors and 6/width a layer, for what is of higher order in 1/width.
    """
    data = Sample(
        sample().inputs[:num_examples], sample().targets[:num_examples], sample().loss, is_mean=True
    )
    config = MlpConfig(depth=8, width=200, activation=activation, norm="batch")
    rows = predict(config, data, OUTPUTS).rows
    found = measured(config, data, 24)["layers.0.linear.weight"][:, 1]
    wanted = rows["layers.0.linear.weight"].delta_rms
    assert wanted is not None
    allowed = 4 * float(found.std()) / math.sqrt(24) + 6 / 200 * 7 / 2
    assert float(found.mean()) == pytest.approx(math.log(wanted), abs=allowed)


def test_factors_are_explained_by_slope_and_weights() -> None:
    """sigmoid at q: chi = sigma_w^2 E phi'^2 <= sigma_w^2 / 16."""
    config = MlpConfig(depth=5, width=40, activation="sigmoid", init="lecun_normal")
    forecast = predict(config, sample(), OUTPUTS)
    for layer in forecast.layers[:-1]:
        assert layer.weight_gain == pytest.approx(1.0)
        assert layer.mean_slope < 1 / 16
        assert layer.chi == pytest.approx(layer.weight_gain * layer.mean_slope, rel=1e-9)
        assert layer.factor == pytest.approx(layer.chi + layer.carried, rel=0.02)


@pytest.mark.parametrize("width", [2, 32])
def test_lsuv_brings_the_deviation_of_every_weight_s_output_to_the_gain(width: int) -> None:
    rows = predict(MlpConfig(depth=4, width=width, init="lsuv", gain=5.0), sample(), OUTPUTS).rows
    assert len(rows) == 5
    for name, row in rows.items():
        assert row.preact_std == pytest.approx(5.0, rel=1e-9), name


@pytest.mark.parametrize("num_examples", [1, 2, BATCH])
@pytest.mark.parametrize("width", [2, 32])
def test_lsuv_s_variance_is_about_the_mean_of_all_outputs(width: int, num_examples: int) -> None:
    """Of W x with independent entries: Var(W) (the mean of |x|^2 - |mean of x|^2 / width)."""
    config = MlpConfig(depth=1, width=width, init="lsuv", gain=5.0)
    x = sample().inputs[:num_examples]
    phi = function("relu")
    assert phi is not None
    first, _ = forward(Net(Means(phi, 1.0), config, lengths(x)), weights(config, INPUTS, OUTPUTS))
    about_mean = float(x.square().sum(1).mean() - x.mean(0).square().sum() / width)
    assert first.is_fitted
    assert first.weight_variance * about_mean == pytest.approx(25.0, rel=1e-9)


def test_predicting_draws_no_random_number() -> None:
    before = torch.get_rng_state()
    predict(MlpConfig(depth=3, width=8, init="lsuv"), sample(), OUTPUTS)
    assert torch.equal(before, torch.get_rng_state())
