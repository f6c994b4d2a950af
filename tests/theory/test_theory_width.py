"""Theory of a finite width: against sampled chains, and against nets made of plain matrices.

Nothing here is built by vgexp but the predictions: weights are drawn, multiplied and transposed by
the tests, many nets at a time, in float64.

Holds: theory/chain.py, theory/fluctuations.py, theory/lognormal.py, theory/typical.py,
theory/weights.py
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from vgexp import losses, runs
from vgexp.cli.main import main
from vgexp.config import MlpConfig
from vgexp.seeds import generator
from vgexp.theory import Forecast, Sample, function, predict
from vgexp.theory.chain import chain
from vgexp.theory.fluctuations import fluctuations
from vgexp.theory.forward import Net, forward
from vgexp.theory.lognormal import log_of_mean
from vgexp.theory.moments import Means
from vgexp.theory.sample import lengths
from vgexp.theory.weights import weights

INPUTS, OUTPUTS, BATCH = 13, 5, 24
PHI: dict[str, Callable[[Tensor], Tensor]] = {
    "linear": lambda z: z,
    "gelu": functional.gelu,
    "silu": functional.silu,
    "softplus": functional.softplus,
    "tanh": torch.tanh,
    "elu": functional.elu,
}


def sample(num_examples: int = BATCH) -> Sample:
    drawn = generator(0, "width")
    x = torch.randn(BATCH, INPUTS, generator=drawn, dtype=torch.float64)
    x = x * torch.linspace(0.8, 1.2, BATCH, dtype=torch.float64)[:, None]
    y = torch.randint(0, OUTPUTS, (BATCH,), generator=drawn)
    loss = losses.LOSSES["cross_entropy"]
    return Sample(x[:num_examples], y[:num_examples], loss.mean, is_mean=True)


def logs_of_nets(config: MlpConfig, data: Sample, nets: int) -> tuple[Tensor, Tensor, Tensor]:
    """ln of z's mean square and ln rms of N dL/dz of each hidden layer [nets, L], and the mean over
    pairs of the squared cosine of the last z."""
    phi, drawn = PHI[config.activation], generator(1, "nets")
    scale = {"he_normal": 2.0, "lecun_normal": 1.0}[config.init] * config.gain**2
    h, ws, zs, slopes = data.x_BF.expand(nets, -1, -1), [], [], []
    for layer in range(config.depth + 1):
        fan_in, fan_out = h.shape[-1], config.width if layer < config.depth else OUTPUTS
        w = torch.randn(nets, fan_in, fan_out, generator=drawn, dtype=torch.float64)
        ws.append(w * math.sqrt(scale / fan_in))
        z = (h @ ws[-1]).requires_grad_()
        zs.append(z.detach())
        (slope,) = torch.autograd.grad(phi(z).sum(), z)
        slopes.append(slope)
        h = phi(z).detach()
    delta = zs[-1].softmax(-1) - functional.one_hot(data.targets, OUTPUTS)
    deltas = []
    for w, slope in zip(ws[:0:-1], slopes[-2::-1], strict=True):
        delta = (delta @ w.transpose(1, 2)) * slope
        deltas.append(delta.square().mean((1, 2)).log() / 2)
    squares = torch.stack([z.square().mean((1, 2)) for z in zs[:-1]], 1)
    unit = functional.normalize(zs[-2], dim=-1)
    gram = (unit @ unit.transpose(1, 2)).square()
    count = gram.shape[-1]
    pairs = (gram.sum((1, 2)) - count) / max(count * (count - 1), 1)
    return squares.log(), torch.stack(deltas[::-1], 1), pairs.mean()


def predicted(config: MlpConfig, data: Sample) -> Forecast:
    found = predict(config, data, OUTPUTS)
    assert found.reason is None
    return found


@pytest.mark.parametrize("variance", [0.1, 1.0, 9.0, 100.0])
@pytest.mark.parametrize("count", [2, 30])
def test_the_logarithm_of_a_mean_of_lognormal_numbers_is_as_drawn(
    variance: float, count: int
) -> None:
    drawn = torch.randn(20_000, count, generator=generator(0, "lognormal"), dtype=torch.float64)
    logs = (drawn * math.sqrt(variance)).logsumexp(1) - math.log(count)
    mean, own = log_of_mean(variance, count)
    error = float(logs.std()) / math.sqrt(len(logs))
    assert mean == pytest.approx(float(logs.mean()), abs=4 * error + 2e-3 * variance)
    assert own == pytest.approx(float(logs.var()), rel=0.06, abs=1e-3 * variance)


@pytest.mark.parametrize(
    ("activation", "expected"), [("relu", (6, 2, 2, 1, 0)), ("linear", (3, 1, 1, 1, 0))]
)
def test_fluctuations_of_piecewise_linear_units_are_the_moments_of_a_normal_number(
    activation: str, expected: tuple[float, ...]
) -> None:
    """To the 1e-3 that `fluctuations` promises."""
    phi = function(activation)
    assert phi is not None
    found = fluctuations(phi, torch.tensor([1e-3, 1.0, 40.0], dtype=torch.float64))
    for moment, value in zip(vars(found).values(), expected, strict=True):
        torch.testing.assert_close(moment, torch.full_like(moment, value), atol=1e-3, rtol=1e-3)


def test_the_first_z_of_one_example_varies_as_a_mean_of_squared_normal_numbers() -> None:
    """ln of a mean over n of them has the variance psi'(n / 2)."""
    config = MlpConfig(depth=3, width=48, activation="tanh", init="lecun_normal")
    first = predicted(config, sample(1)).rows["layers.0.linear.weight"]
    variance = float(torch.polygamma(1, torch.tensor(24.0, dtype=torch.float64)))
    assert first.log_preact_std == pytest.approx(math.sqrt(variance) / 2, rel=0.02)


def test_the_chain_of_one_example_is_the_one_that_sampling_gives() -> None:
    """q' is sigma_w^2 times a mean over units, drawn here unit by unit; gelu, 24 units."""
    config = MlpConfig(depth=8, width=24, activation="gelu")
    data = sample(1)
    phi = function("gelu")
    assert phi is not None
    net = Net(Means(phi, 1.0), config, lengths(data.x_BF))
    layers = forward(net, weights(config, INPUTS, OUTPUTS))
    followed = chain(net, layers, ((-1.0, 1.0), (0.0, 0.0)))
    assert followed is not None
    drawn = generator(0, "units")
    q = torch.full((40_000,), layers[0].q, dtype=torch.float64)
    for layer in followed:
        logs, error = q.log(), float(q.log().std()) / math.sqrt(len(q))
        assert layer.q.mean_A.item() == pytest.approx(float(logs.mean()), abs=4 * error + 0.02)
        assert layer.q.variance_A.item() == pytest.approx(float(logs.var()), rel=0.07, abs=1e-4)
        assert layer.q.of_mean_A.item() == pytest.approx(float(q.mean().log()), abs=0.05)
        z = torch.randn(len(q), 24, generator=drawn, dtype=torch.float64) * q.sqrt()[:, None]
        q = 2 * functional.gelu(z).square().mean(1)


@pytest.mark.parametrize(
    ("activation", "init", "gain", "depth"),
    [
        ("silu", "he_normal", 1.0, 6),
        ("gelu", "he_normal", 1.2, 12),
        ("tanh", "lecun_normal", 1.5, 16),
        ("tanh", "lecun_normal", 1.0, 16),
        ("softplus", "lecun_normal", 1.0, 12),
        ("elu", "he_normal", 1.0, 12),
    ],
)
def test_many_nets_have_the_median_and_the_spread_that_are_predicted(
    activation: str, init: str, gain: float, depth: int
) -> None:
    """Means within 3.5 standard errors and 6 %, spreads to 40 %, as docs/theory.md says."""
    config = MlpConfig(depth=depth, width=48, activation=activation, init=init, gain=gain)
    data = sample()
    squares, deltas, _ = logs_of_nets(config, data, 160)
    rows = list(predicted(config, data).rows.values())[:-1]
    for index in (0, depth // 2, depth - 1):
        row = rows[index]
        assert row.delta_rms is not None
        assert row.preact_std is not None
        assert row.log_delta_std is not None
        assert row.log_preact_std is not None
        for logs, median, spread in (
            (deltas[:, index], math.log(row.delta_rms), row.log_delta_std),
            (squares[:, index], 2 * math.log(row.preact_std), 2 * row.log_preact_std),
        ):
            error = float(logs.std()) / math.sqrt(len(logs))
            assert float(logs.mean()) == pytest.approx(median, abs=3.5 * error + 0.06)
            assert float(logs.std()) == pytest.approx(spread, rel=0.4)


@pytest.mark.parametrize("activation", ["tanh", "silu", "elu"])
def test_of_one_example_what_weights_on_both_ways_share_is_predicted(activation: str) -> None:
    """phi' is small where z is large, and the weights below read h that goes with z: without that
    dL/dz of a tanh net would be 12 % larger after 20 layers of 48 units."""
    config = MlpConfig(depth=16, width=40, activation=activation, init="lecun_normal", gain=1.3)
    data = sample(1)
    squares, deltas, _ = logs_of_nets(config, data, 700)
    rows = list(predicted(config, data).rows.values())[:-1]
    for index in (0, 8, 15):
        row = rows[index]
        assert row.delta_rms is not None
        assert row.preact_std is not None
        for logs, median in (
            (deltas[:, index], math.log(row.delta_rms)),
            (squares[:, index], 2 * math.log(row.preact_std)),
        ):
            error = float(logs.std()) / math.sqrt(len(logs))
            assert float(logs.mean()) == pytest.approx(median, abs=4 * error + 0.02)


@pytest.mark.parametrize(("activation", "depth"), [("linear", 24), ("tanh", 24)])
def test_few_units_make_examples_alike(activation: str, depth: int) -> None:
    """The root mean square correlation of pairs, whose mean stays near 0."""
    config = MlpConfig(depth=depth, width=40, activation=activation, init="lecun_normal")
    data = sample()
    *_, pairs = logs_of_nets(config, data, 150)
    phi = function(activation)
    assert phi is not None
    net = Net(Means(phi, 1.0), config, lengths(data.x_BF))
    last = forward(net, weights(config, INPUTS, OUTPUTS))[-2]
    assert abs(last.c) < 0.2
    assert math.sqrt(float(pairs)) > 0.5
    assert last.c_rms == pytest.approx(math.sqrt(float(pairs)), rel=0.12)


@pytest.mark.parametrize(("activation", "width"), [("gelu", 64), ("gelu", 256), ("silu", 64)])
def test_where_few_nets_rule_the_mean_the_limit_is_told_with_the_reason(
    activation: str, width: int
) -> None:
    config = MlpConfig(depth=30, width=width, activation=activation)
    found = predicted(config, sample())
    assert found.caveat is not None
    assert found.caveat.startswith("the limit of infinite width, without spread")
    assert "no correction for the width holds" in found.caveat
    wide = list(
        predicted(MlpConfig(depth=30, width=10**6, activation=activation), sample()).rows.values()
    )
    for row, of_many in zip(found.rows.values(), wide, strict=True):
        # Of one unit: the more units, the less each of them gets.
        share = 1.0 if row.name == "readout.weight" else math.sqrt(10**6 / width)
        assert row.delta_rms == row.wide_delta_rms
        assert row.log_delta_std is None
        assert row.delta_rms == pytest.approx(share * of_many.wide_delta_rms, rel=1e-9)
        assert row.delta_rms == pytest.approx(share * of_many.delta_rms, rel=0.03)


@pytest.mark.parametrize(
    ("activation", "gain", "width", "depth"),
    [("gelu", 1.3, 64, 30), ("tanh", 1.0, 64, 50), ("relu", 1.0, 128, 50), ("silu", 1.0, 256, 10)],
)
def test_where_nets_are_about_lognormal_the_width_is_counted(
    activation: str, gain: float, width: int, depth: int
) -> None:
    found = predicted(
        MlpConfig(depth=depth, width=width, activation=activation, gain=gain), sample()
    )
    assert found.caveat is None
    first = next(iter(found.rows.values()))
    assert first.log_delta_std is not None
    assert first.delta_rms != first.wide_delta_rms


@pytest.mark.parametrize(
    ("activation", "init", "longest", "is_told"),
    [
        ("silu", "he_normal", 6.0, True),
        ("silu", "lsuv", 6.0, True),
        ("silu", "he_normal", 1.0, False),
        ("relu", "he_normal", 6.0, False),
        ("tanh", "he_normal", 6.0, False),
    ],
)
def test_where_few_long_examples_rule_a_batch_it_is_told(
    activation: str, init: str, longest: float, is_told: bool
) -> None:
    """silu takes more of a short example's signal in each layer than of a long one's."""
    data = sample()
    inputs = data.inputs / data.inputs.norm(dim=1, keepdim=True) * math.sqrt(INPUTS)
    inputs[3] *= longest
    config = MlpConfig(depth=10, width=64, activation=activation, init=init)
    found = predicted(config, Sample(inputs, data.targets, data.loss, data.is_mean))
    first = next(iter(found.rows.values()))
    assert ("few examples come to be much longer" in (found.caveat or "")) == is_told
    assert (first.log_delta_std is None) == is_told


def test_one_example_is_predicted_where_a_batch_is_not() -> None:
    """Nothing is averaged over, so that it does not matter who rules an average."""
    found = predicted(MlpConfig(depth=30, width=64, activation="gelu"), sample(1))
    assert found.caveat is not None
    assert found.caveat.startswith("much depth for so few units: off by up to a factor of")
    squares, deltas, _ = logs_of_nets(
        MlpConfig(depth=30, width=64, activation="gelu"), sample(1), 300
    )
    first, *_, last, _ = found.rows.values()
    assert first.delta_rms is not None
    assert last.preact_std is not None
    error = float(deltas[:, 0].std()) / math.sqrt(300)
    assert float(deltas[:, 0].mean()) == pytest.approx(
        math.log(first.delta_rms), abs=4 * error + 0.3
    )
    error = float(squares[:, -1].std()) / math.sqrt(300)
    assert float(squares[:, -1].mean()) == pytest.approx(
        2 * math.log(last.preact_std), abs=4 * error + 0.1
    )


def test_the_reason_is_on_the_screen_and_in_the_summary(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["signal", "model.activation=gelu", "model.depth=30", "signal.seeds=1"]
    words += ["model.width=24", "data.batch_size=16", "output.figures=false"]
    assert main([*words, f"hydra.run.dir={tmp_path / 'a'}"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    summary = runs.load(tmp_path / "a").summary
    assert summary["theory"].startswith("the limit of infinite width, without spread")
    assert f"a layer ({summary['theory']})" in shown
    assert runs.load(tmp_path / "a").layers["predicted_log_delta_std"].isna().all()
