"""Maps of variance and correlation against closed forms, iteration, and the papers' numbers.

Holds: theory/maps.py, theory/phase.py
"""

from __future__ import annotations

import math

import pytest
import torch

from vgexp.config import MlpConfig
from vgexp.theory import (
    Function,
    Plain,
    critical_gain,
    critical_weight_variance,
    fixed_point,
    function,
    phase,
)


def plain(name: str, weight: float, bias: float = 0.0, keep: float = 1.0) -> Plain:
    phi = function(name)
    assert phi is not None
    return Plain(phi, weight, bias, keep)


def iterated(layer: Plain, q: float, c: float, steps: int) -> tuple[float, float]:
    for _ in range(steps):
        following = float(layer.variance(torch.tensor([q], dtype=torch.float64)))
        c = layer.correlation(c, q, following)
        q = following
    return q, c


@pytest.mark.parametrize(
    ("name", "weight", "bias"),
    [("tanh", 1.7, 0.05), ("tanh", 0.8, 0.3), ("sigmoid", 4.0, 0.1), ("selu", 1.0, 0.0)],
)
def test_the_fixed_point_is_where_iteration_ends(name: str, weight: float, bias: float) -> None:
    layer = plain(name, weight, bias)
    end = fixed_point(layer)
    assert end.c is not None
    # 12 depth scales bring what is left of a deviation to e^-12 = 6e-6; 25 layers at the most.
    steps = min(math.ceil(12 * max(end.xi_q or 1, end.xi_c or 1)), 25)
    left = math.exp(-steps / max(end.xi_q or 1, end.xi_c or 1))
    q, c = iterated(layer, 1.3 * end.q, 0.2, steps)
    assert q == pytest.approx(end.q, rel=1e-4 + left)
    assert c == pytest.approx(end.c, abs=1e-4 + 2 * left)


def test_deviations_fall_by_e_in_a_depth_scale() -> None:
    layer = plain("tanh", 3.0, 0.05)
    end = fixed_point(layer)
    assert end.c is not None
    assert end.c < 0.9, "chaotic"
    assert end.xi_q is not None
    assert end.xi_c is not None
    near = end.q * (1 + 1e-6)
    after, _ = iterated(layer, near, 1.0, 5)
    assert (after - end.q) / (near - end.q) == pytest.approx(math.exp(-5 / end.xi_q), rel=1e-3)
    c = end.c + 1e-5
    for _ in range(5):
        c = layer.correlation(c, end.q, end.q)
    assert (c - end.c) / 1e-5 == pytest.approx(math.exp(-5 / end.xi_c), rel=1e-3)


def test_relu_s_maps_are_known() -> None:
    """q halves but for sigma_w^2, chi = sigma_w^2 / 2, c by Cho & Saul's kernel."""
    layer = plain("relu", 1.5, 0.2)
    end = fixed_point(layer)
    assert end.q == pytest.approx(0.2 / (1 - 0.75), rel=1e-10)
    assert end.chi == pytest.approx(0.75, rel=1e-12)
    assert end.xi_gradient == pytest.approx(-1 / math.log(0.75), rel=1e-9)
    critical = plain("relu", 2.0)
    c, q = 0.3, 4.0
    wanted = (math.sqrt(1 - c * c) + (math.pi - math.acos(c)) * c) / math.pi
    assert critical.correlation(c, q) == pytest.approx(wanted, rel=1e-9)
    assert fixed_point(critical, 0.37).q == pytest.approx(0.37)
    assert fixed_point(plain("relu", 2.1)).q == math.inf
    assert fixed_point(plain("relu", 1.9)).q == 0.0


def test_erf_s_edge_of_chaos_is_in_closed_form() -> None:
    """E erf'^2 = (4 / pi) / sqrt(1 + 4 q), E erf^2 = (2 / pi) arcsin(2 q / (1 + 2 q))."""
    phi = Function("erf", torch.erf, lambda u: torch.exp(-u * u) * (2 / math.sqrt(math.pi)))
    weight, q = critical_weight_variance(phi, 0.07)
    assert weight == pytest.approx(math.pi / 4 * math.sqrt(1 + 4 * q), rel=1e-9)
    square = 2 / math.pi * math.asin(2 * q / (1 + 2 * q))
    assert weight * square + 0.07 == pytest.approx(q, rel=1e-8)
    assert fixed_point(Plain(phi, weight, 0.07)).chi == pytest.approx(1, abs=1e-8)


@pytest.mark.parametrize(
    ("values", "gain"),
    [
        ({"activation": "relu", "init": "he_normal"}, 1.0),
        ({"activation": "relu", "init": "xavier_uniform"}, math.sqrt(2)),
        ({"activation": "linear", "init": "orthogonal"}, 1.0),
        ({"activation": "tanh", "init": "lecun_normal", "gain": 3.0}, 1.0),
        ({"activation": "relu", "init": "uniform", "width": 17}, math.sqrt(6)),
        ({"activation": "relu", "init": "he_normal", "dropout": 0.36}, 0.8),
        ({"activation": "prelu", "negative_slope": 0.5}, math.sqrt(1 / 1.25)),
    ],
)
def test_the_critical_gain_is_known_of_scale_free_nets(values: dict, gain: float) -> None:  # type: ignore[type-arg]
    found, reason = critical_gain(MlpConfig(**values))
    assert reason is None
    assert found == pytest.approx(gain, rel=1e-5)


@pytest.mark.parametrize("start", [0.01, 1.0, 30.0])
@pytest.mark.parametrize("activation", ["tanh", "sigmoid", "elu", "selu", "hardtanh"])
def test_at_the_critical_gain_layers_end_where_chi_is_1(activation: str, start: float) -> None:
    config = MlpConfig(activation=activation, bias_std=0.2)
    gain, reason = critical_gain(config)
    assert reason is None
    assert gain is not None
    config.gain = gain
    layer = phase(config).layer
    assert layer is not None
    q = torch.tensor([start], dtype=torch.float64)
    for _ in range(150):
        q = layer.variance(q)
    assert layer.chi(float(q)) == pytest.approx(1, abs=1e-4)
    _, wanted = critical_weight_variance(layer.phi, layer.bias_variance)
    assert float(q) == pytest.approx(wanted, rel=1e-3)


@pytest.mark.parametrize("bias_std", [0.0, 0.2])
@pytest.mark.parametrize("activation", ["gelu", "silu"])
def test_a_gain_at_which_the_variance_runs_away_is_not_critical(
    activation: str, bias_std: float
) -> None:
    """chi is 1 at some q*, from which every deviation of the variance grows."""
    gain, reason = critical_gain(MlpConfig(activation=activation, bias_std=bias_std))
    assert gain is None
    assert reason is not None
    assert "no stable fixed point" in reason


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"skip": "residual"}, "skip"),
        ({"norm": "layer"}, "norm"),
        ({"init": "lsuv"}, "lsuv"),
        ({"gain": 0.0}, "gain"),
        ({"activation": "softplus"}, "no fixed point"),
    ],
)
def test_where_there_is_no_critical_gain_a_reason_is_given(values: dict, word: str) -> None:  # type: ignore[type-arg]
    gain, reason = critical_gain(MlpConfig(**values))
    assert gain is None
    assert reason is not None
    assert word in reason


def test_dropout_keeps_examples_apart() -> None:
    """Schoenholz 2017: with dropout no net is ordered, c* = 1 is no fixed point."""
    end = fixed_point(plain("tanh", 0.9 / 0.8, 0.1, keep=0.8))
    assert end.c is not None
    assert end.c < 1
    layer = plain("tanh", 0.9 / 0.8, 0.1, keep=0.8)
    assert layer.correlation(end.c, end.q) == pytest.approx(end.c, abs=1e-9)
    assert fixed_point(plain("tanh", 0.9, 0.1)).c == 1.0
