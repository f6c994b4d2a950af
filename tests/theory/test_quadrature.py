"""Gaussian integrals against closed forms, and against plain sums on a very fine grid.

Holds: theory/quadrature.py, theory/function.py, theory/tables.py
"""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from vgexp.activations import ACTIVATIONS
from vgexp.theory import Function, function
from vgexp.theory.quadrature import GRADED, Resolution, plane, sphere_line
from vgexp.theory.tables import squares

VARIANCES = (1e-12, 1e-6, 1e-2, 0.7, 1.0, 13.0, 1e3, 1e6)
CORRELATIONS = (-1.0, -0.999, -0.5, 0.3, 0.999, 1 - 1e-7, 1.0)


def phi(name: str) -> Function:
    found = function(name)
    assert found is not None
    return found


def tensor(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def on_a_grid(f, q: float, kinks: tuple[float, ...]) -> float:  # type: ignore[no-untyped-def]
    """Simpson's rule in u, two million points between the places where f bends, to 14 deviations;
    of large variances as fine about 0, where an activation does all it does."""
    root = math.sqrt(q)
    ends = sorted({-14 * root, 14 * root, *kinks, -60.0, 60.0, 0.0})
    ends = [end for end in ends if abs(end) <= 14 * root]
    total = 0.0
    for low, high in itertools.pairwise(ends):
        num = 200_000
        u = torch.linspace(low, high, num + 1, dtype=torch.float64)
        # A hair inside, so that f is what it is on this side of a kink.
        u[0], u[-1] = u[0] + 1e-13 * (high - low), u[-1] - 1e-13 * (high - low)
        weight = torch.full_like(u, 2.0)
        weight[1::2], weight[0], weight[-1] = 4.0, 1.0, 1.0
        density = torch.exp(-u * u / (2 * q)) / math.sqrt(2 * math.pi * q)
        total += float((weight * density * f(u)).sum()) * (high - low) / num / 3
    return total


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_activation_s_means_are_those_of_a_fine_grid(name: str) -> None:
    found = phi(name)
    for q in (1e-6, 0.7, 1e4):
        for f in (found.value, found.slope):
            wanted = on_a_grid(lambda u, f=f: f(u).square(), q, found.kinks)
            got = float(found.mean(lambda u, f=f: f(u).square(), tensor(q)))
            assert got == pytest.approx(wanted, rel=1e-10)


@pytest.mark.parametrize("q", VARIANCES)
def test_means_with_a_closed_form_are_right_to_1e_10_at_any_scale(q: float) -> None:
    relu, hardtanh, probit = phi("relu"), phi("hardtanh"), Function("erf", torch.erf, torch.erf)
    at = tensor(q)
    assert float(relu.square(at)) == pytest.approx(q / 2, rel=1e-12)
    assert float(relu.slope_square(at)) == pytest.approx(0.5, rel=1e-12)
    inside = math.erf(1 / math.sqrt(2 * q))
    assert float(hardtanh.slope_square(at)) == pytest.approx(inside, rel=1e-10)
    # Williams 1998: E erf(u)^2 = 2/pi arcsin(2q / (1 + 2q)).
    wanted = 2 / math.pi * math.asin(2 * q / (1 + 2 * q))
    assert float(probit.square(at)) == pytest.approx(wanted, rel=1e-10)
    moments = [float(probit.mean(lambda u, k=k: u**k, at)) for k in (2, 4, 8)]
    assert moments == pytest.approx([q, 3 * q**2, 105 * q**4], rel=1e-11)


@pytest.mark.parametrize("c", CORRELATIONS)
@pytest.mark.parametrize("q", [(2.0, 3.0), (1e-6, 1e4), (1e6, 1e6)])
def test_means_over_two_are_the_arc_cosine_kernels_and_erf_s(
    q: tuple[float, float], c: float
) -> None:
    relu, probit = phi("relu"), Function("erf", torch.erf, torch.erf)
    angle, scale = math.acos(c), math.sqrt(q[0] * q[1])
    # Cho & Saul 2009, n = 1 and n = 0. Near c = 1, 1e-8 of what is left of sin and cos.
    wanted = scale * (math.sin(angle) + (math.pi - angle) * c) / (2 * math.pi)
    got = relu.mean_product(relu.value, relu.value, q, c)
    assert got == pytest.approx(wanted, rel=1e-8, abs=1e-12 * scale)
    got = relu.mean_product(relu.slope, relu.slope, q, c)
    assert got == pytest.approx((math.pi - angle) / (2 * math.pi), rel=1e-8, abs=1e-12)
    ratio = 2 * c * scale / math.sqrt((1 + 2 * q[0]) * (1 + 2 * q[1]))
    got = probit.mean_product(torch.erf, torch.erf, q, c)
    assert got == pytest.approx(2 / math.pi * math.asin(ratio), rel=1e-8, abs=1e-12)


@pytest.mark.parametrize("c", [-0.8, 0.0, 0.4, 1.0])
def test_hermite_polynomials_are_orthogonal_over_two(c: float) -> None:
    """Mehler: E He_j(u) He_k(v) = c^k k! where j = k, else 0."""
    hermite = {1: lambda u: u, 2: lambda u: u**2 - 1, 3: lambda u: u**3 - 3 * u}
    nodes = plane((1.0, 1.0), c)
    for j, of_u in hermite.items():
        for k, of_v in hermite.items():
            wanted = c**k * math.factorial(k) if j == k else 0.0
            assert float(nodes.mean(of_u(nodes.u_N), of_v(nodes.v_NM))) == pytest.approx(
                wanted, abs=1e-10
            )


@pytest.mark.parametrize(("name", "c"), [("tanh", 0.95), ("elu", -0.6), ("hardtanh", 0.99)])
def test_two_resolutions_of_the_plane_agree(name: str, c: float) -> None:
    found, q = phi(name), (50.0, 0.3)
    finer = plane(q, c, found.kinks, Resolution(20, 0.8, GRADED))
    for f in (found.value, found.slope):
        wanted = float(finer.mean(f(finer.u_N), f(finer.v_NM)))
        assert found.mean_product(f, f, q, c) == pytest.approx(wanted, rel=1e-8)


@pytest.mark.parametrize("num", [2.0, 3.0, 5.0, 63.0, 511.5])
def test_a_coordinate_of_a_sphere_has_its_moments(num: float) -> None:
    """E u^2 = 1, E u^4 = 3 n / (n + 2), and half of the sphere lies above 0."""
    nodes = sphere_line(num)
    assert float(nodes.mean(nodes.u_AN**2)) == pytest.approx(1.0, rel=1e-9)
    assert float(nodes.mean(nodes.u_AN**4)) == pytest.approx(3 * num / (num + 2), rel=1e-9)
    assert float(nodes.mean((nodes.u_AN > 0).double())) == pytest.approx(0.5, rel=1e-9)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_the_table_is_as_good_as_the_means_themselves(name: str) -> None:
    """The first variance lies below its end."""
    found = phi(name)
    q = tensor(7e-20, 3.3e-9, 0.0123, 0.91, 17.7, 4.4e4)
    square, slope = squares(found, q)
    for got, wanted in ((square, found.square(q)), (slope, found.slope_square(q))):
        torch.testing.assert_close(got[1:], wanted[1:], rtol=1e-6, atol=0.0)
        torch.testing.assert_close(got[:1], wanted[:1], rtol=2e-5, atol=0.0)


def test_only_scale_free_activations_are_homogeneous() -> None:
    free = {name for name in ACTIVATIONS if phi(name).is_homogeneous}
    assert free == {"linear", "relu", "leaky_relu", "prelu"}


def test_an_activation_declares_every_place_where_autograd_jumps() -> None:
    """Between two neighbours 2e-4 apart a smooth phi' changes by less than 2e-3."""
    u = torch.arange(-30, 30, 2e-4, dtype=torch.float64) + 1e-5
    for name in ACTIVATIONS:
        found = phi(name)
        jumps = (found.slope(u).diff().abs() > 2e-3).nonzero().flatten()
        for place in u[jumps].tolist():
            assert min((abs(place - kink) for kink in found.kinks), default=1.0) < 1e-3, name


@pytest.mark.usefixtures("user_folder")
def test_of_the_user_s_own_the_error_is_told() -> None:
    Path("mine.py").write_text(
        "import torch\n"
        "def smooth(u): return torch.sin(u)\n"
        "def bent(u): return torch.relu(u - 0.123456)\n"
    )
    smooth, bent = phi("mine.smooth"), phi("mine.bent")
    assert smooth.error(1.0) < 1e-12
    assert float(smooth.square(tensor(1.0))) == pytest.approx((1 - math.exp(-2)) / 2, rel=1e-10)
    a = 0.123456
    tail = math.erfc(a / math.sqrt(2)) / 2
    wanted = (1 + a * a) * tail - a * math.exp(-a * a / 2) / math.sqrt(2 * math.pi)
    error = abs(float(bent.square(tensor(1.0))) / wanted - 1)
    assert error < 1e-4
    assert bent.error(1.0) > 1e-7, "a kink that is not declared shows"
