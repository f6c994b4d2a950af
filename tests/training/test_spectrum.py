"""Ends and trace of matrices whose spectrum is known, and of those that are hard to read.

Holds: training/spectrum.py
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from vgexp.training.spectrum import BASIS, PRODUCTS, Product, ends, trace


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def matrix(eigenvalues: list[float] | Tensor, dtype: torch.dtype = torch.float64) -> Tensor:
    """A symmetric matrix that is turned, with these eigenvalues."""
    values = torch.as_tensor(eigenvalues, dtype=torch.float64)
    turn, _ = torch.linalg.qr(torch.randn(len(values), len(values), generator=generator()).double())
    return (turn * values @ turn.T).to(dtype)


def product_of(matrix_PP: Tensor) -> Product:
    return lambda v_P: matrix_PP @ v_P


def start(size: int, dtype: torch.dtype = torch.float64, seed: int = 1) -> Tensor:
    return torch.randn(size, generator=generator(seed), dtype=torch.float64).to(dtype)


def signs(size: int, num: int, seed: int = 2) -> list[Tensor]:
    drawn = generator(seed)
    return [2.0 * torch.randint(2, (size,), generator=drawn).double() - 1 for _ in range(num)]


OUTLIERS = [*np.linspace(-0.3, 0.5, 150), 2.0, 5.0, 9.0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_the_ends_are_those_of_eigvalsh_at_every_scale(dtype: torch.dtype, scale: float) -> None:
    h_PP = (matrix(OUTLIERS) * scale).to(dtype)
    exact = np.linalg.eigvalsh(h_PP.double().numpy())
    found = ends(product_of(h_PP), start(153, dtype))
    assert found.largest == pytest.approx(exact[-1], rel=1e-5)
    assert np.abs(exact - found.smallest).min() <= found.smallest_residual
    assert exact[0] <= found.smallest * (1 - 1e-4)
    assert PRODUCTS[0] <= found.num_products <= PRODUCTS[1]


def test_residuals_are_those_of_the_vector_that_was_found() -> None:
    h_PP = matrix(OUTLIERS)
    found = ends(product_of(h_PP), start(153), products=(5, 5))
    v_P = found.vector_P
    assert float(v_P.norm()) == pytest.approx(1, rel=1e-12)
    assert found.largest == pytest.approx(float(v_P @ h_PP @ v_P), rel=1e-12)
    residual = float((h_PP @ v_P - found.largest * v_P).norm())
    assert 1e-3 < residual == pytest.approx(found.largest_residual, rel=1e-9)
    basis_MP = found.basis_MP
    assert torch.allclose(basis_MP @ basis_MP.T, torch.eye(5).double(), atol=1e-13)
    assert found.basis_trace == pytest.approx(float((basis_MP @ h_PP @ basis_MP.T).trace()))


def test_a_spectrum_that_needs_more_than_a_full_basis_is_restarted_and_found() -> None:
    close = [*np.linspace(0, 1, 400), 1.02]
    few = ends(product_of(matrix(close)), start(401), products=(BASIS, BASIS))
    found = ends(product_of(matrix(close)), start(401), products=(10, 400))
    assert few.largest_residual > 3e-3
    assert BASIS < found.num_products < 200
    assert found.largest_residual <= 1e-3 * 1.02
    assert found.largest == pytest.approx(1.02, rel=1e-3)
    gram_MM = found.basis_MP @ found.basis_MP.T
    assert torch.allclose(gram_MM, torch.eye(len(gram_MM)).double(), atol=1e-12)


def test_largest_is_by_value_where_negative_curvature_dominates() -> None:
    values = [-100.0, -50.0, *np.linspace(-1, 0.1, 60), 3.0]
    found = ends(product_of(matrix(values)), start(63))
    assert found.largest == pytest.approx(3.0, rel=1e-4)
    assert found.smallest == pytest.approx(-100.0, rel=1e-6)


def test_where_every_eigenvalue_is_negative_the_largest_is_too() -> None:
    found = ends(product_of(matrix([-9.0, -4.0, -1.0])), start(3))
    assert (found.largest, found.smallest) == pytest.approx((-1.0, -9.0), rel=1e-12)


@pytest.mark.parametrize("size", [1, 2, 5, 10])
def test_of_a_small_matrix_everything_is_exact(size: int) -> None:
    h_PP = matrix(torch.linspace(-2, 3.5, size))
    exact = np.linalg.eigvalsh(h_PP.numpy())
    found = ends(product_of(h_PP), start(size))
    assert (found.smallest, found.largest) == pytest.approx((exact[0], exact[-1]), rel=1e-12)
    assert found.num_products == size
    mean, error = trace(product_of(h_PP), found, signs(size, 2))
    assert mean == pytest.approx(float(h_PP.trace()), rel=1e-12)
    assert error == pytest.approx(0, abs=1e-12)


def test_a_matrix_of_zeros_is_flat_exactly() -> None:
    found = ends(torch.zeros_like, start(40))
    assert (found.largest, found.smallest, found.largest_residual) == (0, 0, 0)
    assert trace(torch.zeros_like, found, signs(40, 3)) == (0, 0)


def test_of_a_multiple_of_one_the_first_vector_tells_all() -> None:
    found = ends(lambda v_P: 3 * v_P, start(40))
    assert (found.largest, found.smallest, found.num_products) == pytest.approx((3, 3, 1))
    assert trace(lambda v_P: 3 * v_P, found, signs(40, 3))[0] == pytest.approx(120, rel=0.1)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite_is_not_known(value: float) -> None:
    found = ends(lambda v_P: v_P * value, start(40))
    assert all(map(math.isnan, (found.largest, found.smallest, found.largest_residual)))
    mean, error = trace(lambda v_P: v_P * value, found, signs(40, 3))
    assert math.isnan(mean)
    assert math.isnan(error)


def test_an_eigenvalue_that_has_overtaken_the_last_one_is_found_from_there() -> None:
    h_PP = torch.diag(torch.cat([torch.tensor([4.0, 6.0]), torch.linspace(-1, 2, 500)])).double()
    last_P = torch.zeros(502).double()
    last_P[0] = 1.0
    fresh_P = start(502)
    found = ends(product_of(h_PP), last_P + 0.3 * fresh_P / fresh_P.norm())
    assert found.largest == pytest.approx(6.0, rel=1e-3)


# ---------------------------------------------------------------- trace


def test_an_eigenvalue_that_the_basis_holds_adds_nothing_to_the_traces_error() -> None:
    values = [*[0.0] * 60, 50.0, 30.0, 20.0]
    found = ends(product_of(matrix(values)), start(63))
    mean, error = trace(product_of(matrix(values)), found, signs(63, 4))
    assert mean == pytest.approx(100, rel=1e-9)
    assert error < 1e-9


def test_the_trace_is_as_far_off_as_its_error_says() -> None:
    h_PP = matrix(torch.linspace(-1, 3, 60))
    scores = []
    for seed in range(60):
        found = ends(product_of(h_PP), start(60, seed=seed), products=(4, 4))
        mean, error = trace(product_of(h_PP), found, signs(60, 12, seed))
        scores.append((mean - 60) / error)
    assert np.mean(scores) == pytest.approx(0, abs=4 / math.sqrt(60))
    assert 0.8 < np.std(scores) < 1.5
