"""Closed forms in the reproductions of papers, against simulation.

Holds: scripts/reproductions
"""

from __future__ import annotations

import math

import pandas as pd
import pytest
import torch
from reproductions import klambauer_2017, lu_2019, pascanu_2013, yang_2019
from reproductions.measured import by_layer, factor, geometric_mean, slope, span


def rays_dead(width: int, depth: int, num_nets: int) -> torch.Tensor:
    """Share of ReLU nets of one feature that are 0 for every input, after each layer: both rays."""
    source = torch.Generator().manual_seed(1)
    weight_NW = torch.randn(num_nets, width, generator=source)
    h_NWR = torch.stack([weight_NW, -weight_NW], dim=2).relu()
    shares = [(h_NWR == 0).all(2).all(1).double().mean()]
    for _ in range(depth - 1):
        weight_NVW = torch.randn(num_nets, width, width, generator=source)
        h_NWR = (weight_NVW @ h_NWR).relu()
        largest_N11 = h_NWR.amax((1, 2), keepdim=True)
        h_NWR = h_NWR / largest_N11.where(largest_N11 > 0, torch.ones(()))
        shares.append((h_NWR == 0).all(2).all(1).double().mean())
    return torch.stack(shares)


def normal_quantiles() -> torch.Tensor:
    """A standard normal in 200,001 equal shares, at the middle of each."""
    share_N = (torch.arange(200_001, dtype=torch.float64) + 0.5) / 200_001
    return torch.special.ndtri(share_N)


@pytest.mark.parametrize("width", [2, 3, 5])
def test_a_net_of_one_feature_is_born_dead_between_the_bounds(width: int) -> None:
    num_nets, depth = 20_000, 25
    shares = rays_dead(width, depth, num_nets)
    for layer, share in enumerate(shares.tolist(), start=1):
        low, high = lu_2019.least(width, layer), lu_2019.most(width, layer)
        margin = 4 * math.sqrt(max(high * (1 - high), low * (1 - low)) / num_nets)
        assert low - margin <= share <= high + margin
    # After the first layer the rays are orthogonal: the lower bound is exact at the second.
    error = math.sqrt(lu_2019.least(width, 2) / num_nets)
    assert shares[1] == pytest.approx(lu_2019.least(width, 2), abs=4 * error)
    assert lu_2019.most(width, 5) - lu_2019.least(width, 5) > 20 * error


@pytest.mark.parametrize(
    ("activation", "known"),
    [("linear", 1.0), ("relu", math.sqrt(math.pi / (math.pi - 1)))],
)
def test_the_factor_of_batch_norm_is_the_papers(activation: str, known: float) -> None:
    assert yang_2019.large_batch_factor(activation) == pytest.approx(known, rel=1e-9)


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_the_factor_of_batch_norm_is_that_of_a_wide_layer(activation: str) -> None:
    """One layer of independent examples through autograd: rms of dL/dz before and after."""
    source = torch.Generator().manual_seed(2)
    num_examples, num_in, num_out = 500, 900, 400
    z_BI = torch.randn(num_examples, num_in, generator=source, dtype=torch.float64)
    z_BI = ((z_BI - z_BI.mean(0)) / z_BI.std(0, correction=0)).requires_grad_()
    weight_OI = torch.randn(num_out, num_in, generator=source, dtype=torch.float64)
    phi = {"relu": torch.relu, "tanh": torch.tanh}[activation]
    next_BO = phi(z_BI) @ weight_OI.T
    next_BO.retain_grad()
    u_BO = (next_BO - next_BO.mean(0)) / next_BO.std(0, correction=0)
    back_BO = torch.randn(num_examples, num_out, generator=source, dtype=torch.float64)
    (u_BO * back_BO).sum().backward()
    assert z_BI.grad is not None
    # dL/du of this layer is W^T of the next one's dL/dz; dividing by its deviation, 1, is left out.
    ratio = float((z_BI.grad.square().sum(1).mean() / num_in / back_BO.square().mean()).sqrt())
    units = math.sqrt(num_out / num_in)
    assert ratio / units == pytest.approx(yang_2019.large_batch_factor(activation), rel=0.02)


def test_the_jacobian_of_selu_layers_is_the_papers() -> None:
    to_mean, to_variance = klambauer_2017.jacobian()
    assert (to_mean, to_variance) == pytest.approx((0.088834, 0.782648), abs=2e-6)
    assert klambauer_2017.next_moments(1.0) == pytest.approx((0.0, 1.0), abs=1e-6)


def test_selu_moments_are_those_of_normal_numbers() -> None:
    z_N = 1.3 * normal_quantiles()
    h_N = torch.nn.functional.selu(z_N)
    mean, variance = klambauer_2017.next_moments(1.69)
    assert (mean, variance) == pytest.approx((float(h_N.mean()), float(h_N.var())), abs=2e-4)


def test_a_recurrent_tanh_step_loses_what_its_slope_takes() -> None:
    z_N = 0.8 * normal_quantiles()
    state_rms = float(z_N.tanh().square().mean().sqrt())
    slope_rms = float((1 - z_N.tanh() ** 2).square().mean().sqrt())
    found = pascanu_2013.saturated_factor(1.7, state_rms)
    assert found == pytest.approx(1.7 * slope_rms, rel=1e-4)
    assert pascanu_2013.saturated_factor(0.9, 1e-4) == pytest.approx(0.9, rel=1e-6)


def test_means_over_seeds_are_geometric_and_leave_out_what_has_no_logarithm() -> None:
    rows = pd.DataFrame(
        {"layer": [1, 1, 2, 2, 3, 3], "backward_gain": [2.0, 8.0, 3.0, 27.0, 0.0, math.nan]}
    )
    assert by_layer(rows, "backward_gain").tolist()[:2] == pytest.approx([4.0, 9.0])
    assert math.isnan(by_layer(rows, "backward_gain").iloc[2])
    assert factor(rows) == pytest.approx(6.0)
    longer = rows.assign(layer=[1, 1, 2, 2, 4, 4])
    assert factor(longer, 1) == pytest.approx(9.0)
    assert geometric_mean([math.inf, 5.0]) == pytest.approx(5.0)


def test_a_power_is_read_off_and_a_span_has_two_ends() -> None:
    assert slope([1, 2, 8], [3, 3 * 2**-0.5, 3 * 8**-0.5]) == pytest.approx(-0.5)
    assert span([0.3333, 0.5], 2) == "0.33 to 0.5"
    assert span([2.0, 2.0001]) == "2"
