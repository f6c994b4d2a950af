"""Predictions of convolutional nets against networks that vgexp builds, and closed forms.

Holds: theory/convolution.py, theory/positions.py, theory/series.py
"""

from __future__ import annotations

import functools
import itertools
import math
from typing import Any

import pytest
import torch
from theory_reference import kept_preacts, log_signals
from torch import Tensor

from vgexp import losses
from vgexp.config import CnnConfig
from vgexp.inits import initialise
from vgexp.models import build, cnn
from vgexp.seeds import generator
from vgexp.tasks import Task
from vgexp.theory import Forecast, Sample
from vgexp.theory.convolution import Convolution, predict
from vgexp.theory.function import function
from vgexp.theory.positions import convolved, convolved_back, distances
from vgexp.theory.series import coefficients, product, scale_free

OUTPUTS, BATCH, SEEDS, SHAPE = 5, 12, 12, (2, 7, 9)
TASK = Task("image", SHAPE, OUTPUTS)
CASES: dict[str, dict[str, Any]] = {
    "relu, three stages": {},
    "tanh, biases, one stage": {
        "activation": "tanh",
        "bias_std": 0.2,
        "stages": 1,
        "gain": 0.9,
    },
    "delta_orthogonal": {"activation": "tanh", "init": "delta_orthogonal", "gain": 1.2},
    "dropout": {"dropout": 0.25, "activation": "gelu", "stages": 2},
    "torch_default": {"activation": "elu", "init": "torch_default", "stages": 2},
    "lsuv": {"init": "lsuv", "stages": 2},
}


@functools.cache
def sample(batch: int = BATCH) -> Sample:
    """Smooth images with a frame, so that borders and places matter."""
    drawn = generator(0, "images")
    x = torch.randn(batch, *SHAPE, generator=drawn, dtype=torch.float64)
    x = torch.nn.functional.avg_pool2d(x, 3, 1, 1) * 2 + 0.2
    x = x * torch.linspace(0.3, 1.4, SHAPE[2], dtype=torch.float64)
    return Sample(x, torch.randint(0, OUTPUTS, (batch,), generator=drawn), loss, is_mean=True)


loss = losses.LOSSES["cross_entropy"].mean


def forecast(config: CnnConfig, data: Sample | None = None) -> Forecast:
    layers = [
        Convolution(f"layers.{i}.conv.weight", p.in_channels, p.out_channels, p.kernel, p.stride)
        for i, p in enumerate(cnn.plan(config, SHAPE[0]))
    ]
    return predict(config, layers, data or sample(), OUTPUTS)


def measured(config: CnnConfig, data: Sample) -> dict[str, Tensor]:
    """ln of the deviation of z and of the rms of N dL/dz, [seeds, 2] of each weight."""
    rows: dict[str, list[tuple[float, float]]] = {}
    for seed in range(SEEDS):
        torch.manual_seed(seed)  # of dropout
        model = build(config, TASK, torch.float64)
        initialise(model, config, generator(seed, "init"), data.inputs)
        seen = kept_preacts(model)
        data.loss(model(data.inputs), data.targets).backward()
        for name, logs in log_signals(seen, BATCH).items():
            rows.setdefault(name, []).append(logs)
    return {name: torch.tensor(values) for name, values in rows.items()}


@pytest.mark.parametrize("width", [16, 48])
@pytest.mark.parametrize("case", CASES)
def test_predictions_are_what_networks_show(case: str, width: int) -> None:
    """Within 4 standard errors, and 2/width for what few channels change at first order."""
    config = CnnConfig(**{"depth": 4, "width": width, **CASES[case]})
    expected, found = forecast(config), measured(config, sample())
    assert expected.reason is None
    assert set(expected.rows) == set(found)
    for name, row in expected.rows.items():
        assert row.preact_std is not None
        assert row.delta_rms is not None
        allowed = 4 * found[name].std(0) / math.sqrt(SEEDS) + 2 / width
        off = found[name].mean(0) - torch.tensor([row.preact_std, row.delta_rms]).log()
        assert (off.abs() <= allowed).all(), (name, off, allowed)


@pytest.mark.parametrize("width", [2, 16])
def test_lsuv_brings_the_deviation_of_every_weight_s_output_to_the_gain(width: int) -> None:
    rows = forecast(CnnConfig(depth=4, stages=2, width=width, init="lsuv", gain=5.0)).rows
    assert len(rows) == 5
    for name, row in rows.items():
        assert row.preact_std == pytest.approx(5.0, rel=1e-9), name


def test_gains_are_of_neighbouring_rows() -> None:
    rows = list(forecast(CnnConfig(depth=5)).rows.values())
    for row, following in itertools.pairwise(rows):
        assert row.backward_gain is not None
        assert row.delta_rms is not None
        assert following.delta_rms is not None
        assert row.backward_gain == pytest.approx(row.delta_rms / following.delta_rms, rel=1e-12)
    assert rows[-1].backward_gain is None


@pytest.mark.parametrize("size", [8, 13])
def test_a_border_takes_the_cosine_s_share_of_a_linear_net(size: int) -> None:
    """Far from its ends (1 + 2 cos(pi / (n + 1))) / 3 a layer of delta_rms, on n x n."""
    layers = [Convolution(str(i), 1 if not i else 4, 4, 3, 1) for i in range(3 * size)]
    config = CnnConfig(depth=len(layers), width=4, activation="linear", init="lecun_normal")
    x = torch.ones(2, 1, size, size, dtype=torch.float64)
    rows = predict(config, layers, Sample(x, torch.tensor([0, 1]), loss), 3).rows
    wanted = (1 + 2 * math.cos(math.pi / (size + 1))) / 3
    assert rows["0"].backward_gain == pytest.approx(wanted, abs=0.002)


def test_the_centre_of_a_kernel_sees_no_border() -> None:
    """delta_orthogonal: a linear net of one stage keeps dL/dz to the last bit of theory."""
    config = CnnConfig(depth=9, stages=1, activation="linear", init="delta_orthogonal")
    rows = list(forecast(config).rows.values())
    for row in rows[:-2]:
        assert row.backward_gain == pytest.approx(1, rel=1e-12)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(5, 8), (6, 7)])
def test_the_way_back_is_the_transpose(stride: int, size: tuple[int, int]) -> None:
    taps = torch.rand(3, 3, dtype=torch.float64)
    x = torch.rand(2, *size, dtype=torch.float64, requires_grad=True)
    y = convolved(x, taps, stride)
    came = torch.rand_like(y)
    (wanted,) = torch.autograd.grad(y, x, came)
    torch.testing.assert_close(convolved_back(came, taps, stride, size), wanted)


def test_all_pairs_of_positions_are_counted_once() -> None:
    """Few positions: the mean over distances is that over all pairs."""
    x = torch.rand(3, 3, 4, dtype=torch.float64)
    between = distances(3, 4)
    products = x[:, None] * between.moved(x, 1)
    torch.testing.assert_close(between.mean(products, 1), x.mean((1, 2)).square())


def test_of_many_distances_some_stand_for_their_neighbours() -> None:
    """A Gaussian of distance on 12 x 13: 32 of 287 distances know its mean to 2 %."""
    between = distances(12, 13)
    assert len(between) == 32
    weights = between.step_D2.double().square().sum(1).div(-40).exp()[None, :, None, None]
    inside = between.moved(torch.ones(1, 12, 13, dtype=torch.float64), 1)
    rows, columns = (torch.arange(n).double() for n in (12, 13))
    one, two = ((r[:, None] - r).square().div(-40).exp().mean() for r in (rows, columns))
    assert float(between.mean(weights * inside, 1)) == pytest.approx(float(one * two), rel=0.02)


@pytest.mark.parametrize(
    ("name", "error"), [("relu", 1e-3), ("tanh", 2e-4), ("gelu", 3e-4), ("sigmoid", 2e-4)]
)
def test_the_series_is_the_integral(name: str, error: float) -> None:
    """Unequal variances, correlations of both signs."""
    phi = function(name)
    assert phi is not None
    q = torch.tensor([0.05, 0.6, 3.0], dtype=torch.float64)
    a = coefficients(phi, q)
    for i, j, c in [(0, 1, 0.9), (1, 2, -0.7), (2, 2, 0.999), (0, 2, 0.3), (1, 1, 1.0)]:
        wanted = phi.mean_product(phi.value, phi.value, (float(q[i]), float(q[j])), c)
        found = float(product(a[:, i], a[:, j], torch.tensor(c).double()))
        scale = math.sqrt(float(phi.square(q[i : i + 1]) * phi.square(q[j : j + 1])))
        assert found == pytest.approx(wanted, abs=error * scale)


def test_of_a_scale_free_activation_variances_are_factors() -> None:
    """Relu: (sqrt(1 - c^2) + c (pi - arccos c)) / (2 pi) (Cho & Saul 2009)."""
    phi, c = function("relu"), torch.linspace(-1, 1, 21, dtype=torch.float64)
    assert phi is not None
    wanted = ((1 - c * c).sqrt() + c * (math.pi - c.arccos())) / (2 * math.pi)
    torch.testing.assert_close(scale_free(phi, c), wanted, rtol=0.0, atol=5e-4)
    a = coefficients(phi, torch.tensor([0.3, 4.0], dtype=torch.float64))
    found = product(a[:, :1], a[:, 1:], c)
    torch.testing.assert_close(found, scale_free(phi, c) * math.sqrt(1.2), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("values", "word"),
    [({"skip": "residual"}, "residual"), ({"norm": "batch"}, "batch")],
)
def test_where_theory_has_no_answer_it_says_why(values: dict[str, Any], word: str) -> None:
    found = forecast(CnnConfig(**values))
    assert not found.rows
    assert found.reason is not None
    assert word in found.reason


def test_one_image_and_images_of_nothing_are_no_error() -> None:
    one = sample(1)
    assert forecast(CnnConfig(depth=3), one).reason is None
    zero = Sample(one.inputs * 0, one.targets, loss)
    first = next(iter(forecast(CnnConfig(depth=3), zero).rows.values()))
    assert first.preact_std == 0
