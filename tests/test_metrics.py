"""The references are Python's own: `math.hypot` (which scales), `math.fsum` and fractions.

Holds: metrics.py
"""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import product

import pytest
import torch
from torch import Tensor

from vgexp import metrics

SCALES = {
    torch.float32: [1e-40, 1e-38, 1e-30, 1e-20, 1e-10, 1.0, 1e10, 1e19, 1e30, 1e37],
    torch.float64: [1e-300, 1e-200, 1e-100, 1.0, 1e100, 1e200, 1e300],
}
CASES = [(dtype, scale) for dtype, scales in SCALES.items() for scale in scales]
SHAPES = [(7, 3), (3,), (1,), (2, 3, 4), (300,), (40, 2)]


@pytest.fixture(params=["host", "device"], autouse=True)
def road(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test runs on the code for CPU and, on the CPU, on the code for CUDA."""
    if request.param == "device":
        monkeypatch.setattr(metrics, "_host", lambda _x: False)


def draw(shape: tuple[int, ...], dtype: torch.dtype, scale: float, seed: int = 0) -> Tensor:
    source = torch.Generator().manual_seed(seed)
    return (torch.randn(shape, generator=source, dtype=torch.float64) * scale).to(dtype)


def tensors(dtype: torch.dtype, scale: float) -> list[Tensor]:
    return [draw(shape, dtype, scale, seed) for seed, shape in enumerate(SHAPES)]


def hypot(x: Tensor) -> float:
    return math.hypot(*x.double().flatten().tolist())


def mean_and_std(values: list[float]) -> tuple[float, float]:
    """In exact rationals; the root at the end of a number brought near 1."""
    exact = [Fraction(v) for v in values]
    mean = sum(exact, Fraction(0)) / len(exact)
    peak = max((abs(v - mean) for v in exact), default=Fraction(0)) or Fraction(1)
    share = sum((((v - mean) / peak) ** 2 for v in exact), Fraction(0)) / len(exact)
    return float(mean), math.sqrt(share) * float(peak)


def close(measured: Tensor, expected: float, dtype: torch.dtype, slack: float = 8) -> bool:
    """Within `slack` roundings, plus one step of the smallest number."""
    info = torch.finfo(dtype)
    step = info.smallest_normal * info.eps
    return abs(float(measured) - expected) <= slack * info.eps * abs(expected) + step


@pytest.mark.parametrize(("dtype", "scale"), CASES)
def test_row_norms_and_rms_equal_the_reference_at_every_scale(
    dtype: torch.dtype, scale: float
) -> None:
    for num_entries in (1, 2, 63, 300):
        x_RN = draw((4, num_entries), dtype, scale)
        x_RN[2] *= 1e-3
        norm_R, rms_R = metrics.row_norms(x_RN), metrics.row_rms(x_RN)
        assert norm_R.dtype == rms_R.dtype == dtype
        for x, norm, rms in zip(x_RN, norm_R, rms_R, strict=True):
            assert close(norm, hypot(x), dtype)
            assert close(rms, hypot(x) / math.sqrt(num_entries), dtype)


@pytest.mark.parametrize("num_entries", [2**16 + 1, 2**17, 3_000_001])
def test_a_row_of_millions_of_entries_has_its_norm_to_rounding(num_entries: int) -> None:
    """A plain float32 norm of 3 million equal entries is off by 1e-4, of 100 million by 1e-2."""
    x_RN = torch.full((2, num_entries), 0.1)
    x_RN[1] *= 3
    x_RN[1, ::2] *= -1
    norms = [math.sqrt(num_entries) * float(row[0].abs()) for row in x_RN]
    total = math.hypot(*norms)
    for measured, expected in zip(metrics.row_norms(x_RN), norms, strict=True):
        assert float(measured) == pytest.approx(expected, rel=1e-6)
    assert float(metrics.row_moments(x_RN)[1][1]) == pytest.approx(float(x_RN[1, 1]), rel=1e-6)
    assert float(metrics.total_norm([*x_RN])) == pytest.approx(total, rel=1e-6)
    many = list(x_RN.flatten().split(10_000))
    assert float(metrics.total_norm(many)) == pytest.approx(total, rel=1e-6)


@pytest.mark.parametrize("small", list(product((False, True), repeat=4)))
def test_each_row_has_its_own_norm_whichever_rows_lose_their_squares(
    small: tuple[bool, ...],
) -> None:
    x_RN = draw((4, 50), torch.float32, 1.0)
    for row, is_small in enumerate(small):
        x_RN[row] *= (row + 1) * (1e-30 if is_small else 1.0)
    mean_R, std_R = metrics.row_moments(x_RN)
    for row, norm in enumerate(metrics.row_norms(x_RN)):
        mean, std = mean_and_std(x_RN[row].tolist())
        assert close(norm, hypot(x_RN[row]), torch.float32)
        assert close(mean_R[row], mean, torch.float32, 64)
        assert close(std_R[row], std, torch.float32)


@pytest.mark.parametrize(("dtype", "scale"), CASES)
def test_moments_equal_the_reference_at_every_scale(dtype: torch.dtype, scale: float) -> None:
    for num_entries in (1, 2, 63, 300):
        x_RN = draw((4, num_entries), dtype, scale)
        x_RN[1] += scale
        mean_R, std_R = metrics.row_moments(x_RN)
        assert mean_R.dtype == std_R.dtype == dtype
        for x, mean, std in zip(x_RN, mean_R, std_R, strict=True):
            exact_mean, exact_std = mean_and_std(x.tolist())
            eps = torch.finfo(dtype).eps
            # Of a sum that cancels, the rounding is that of its terms.
            assert abs(float(mean) - exact_mean) <= 8 * eps * float(x.abs().max()) + 1e-44
            assert close(std, exact_std, dtype, slack=20)


@pytest.mark.parametrize("offset", [1e2, 1e4, 1e6])
def test_the_std_of_data_far_from_zero_is_off_by_no_more_than_the_mean_s_rounding(
    offset: float,
) -> None:
    x_RN = draw((3, 500), torch.float32, 1.0) + offset
    mean_R, std_R = metrics.row_moments(x_RN)
    for x, mean, std in zip(x_RN, mean_R, std_R, strict=True):
        exact_mean, exact_std = mean_and_std(x.tolist())
        rounding = 2 * torch.finfo(torch.float32).eps * offset
        assert float(mean) == pytest.approx(exact_mean, abs=rounding)
        assert float(std) == pytest.approx(exact_std, rel=1e-5, abs=rounding)


@pytest.mark.parametrize("value", [0.0, 0.1, -3e38, 1e-45, 1e-20])
def test_equal_entries_have_no_deviation_beyond_the_mean_s_rounding(value: float) -> None:
    x_RN = torch.full((2, 77), value)
    mean_R, std_R = metrics.row_moments(x_RN)
    assert mean_R.tolist() == pytest.approx(x_RN[:, 0].tolist(), rel=1e-6)
    assert float(std_R.max()) <= 1e-6 * abs(value)


@pytest.mark.parametrize(("dtype", "scale"), CASES)
def test_norms_of_tensors_equal_the_reference_at_every_scale(
    dtype: torch.dtype, scale: float
) -> None:
    xs = tensors(dtype, scale)
    norm_R = metrics.norms(xs)
    assert norm_R.dtype == torch.float64
    assert norm_R.shape == (len(xs),)
    assert all(close(norm, hypot(x), dtype) for x, norm in zip(xs, norm_R, strict=True))


@pytest.mark.parametrize("small", [True, False])
@pytest.mark.parametrize(("dtype", "scale"), CASES)
def test_the_total_norm_equals_the_reference_at_every_scale(
    dtype: torch.dtype, scale: float, small: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not small:
        monkeypatch.setattr(metrics, "SMALL_TENSOR", 0)
    xs = tensors(dtype, scale)
    norm = metrics.total_norm(xs)
    assert norm.dtype == torch.float64
    assert norm.shape == ()
    assert close(norm, math.hypot(*map(hypot, xs)), dtype)


@pytest.mark.parametrize("small", [True, False])
def test_the_total_norm_may_exceed_float32(small: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not small:
        monkeypatch.setattr(metrics, "SMALL_TENSOR", 0)
    xs = [torch.full((5, 5), 3e38), torch.full((11,), -3e38)]
    assert float(metrics.total_norm(xs)) == pytest.approx(6 * 3e38, rel=1e-6)


def test_a_tensor_s_norm_may_exceed_float32() -> None:
    xs = [torch.full((5, 5), 3e38), torch.ones(4), torch.tensor([math.inf])]
    assert metrics.norms(xs).tolist() == pytest.approx([1.5e39, 2, math.inf], rel=1e-6)


@pytest.mark.parametrize("small", [True, False])
def test_tensors_of_very_different_scales_share_a_total_norm(
    small: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not small:
        monkeypatch.setattr(metrics, "SMALL_TENSOR", 0)
    xs = [torch.full((4,), 1e-30), torch.full((2, 2), 1e-25), torch.zeros(3)]
    assert float(metrics.total_norm(xs)) == pytest.approx(2e-25, rel=1e-6)
    xs.append(torch.full((9,), 1e30))
    assert float(metrics.total_norm(xs)) == pytest.approx(3e30, rel=1e-6)


@pytest.mark.parametrize("small", [True, False])
def test_a_tall_matrix_just_above_the_underflow_of_one_row_keeps_its_norm(
    small: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not small:
        monkeypatch.setattr(metrics, "SMALL_TENSOR", 0)
    # Each square is subnormal and 1e-4 off, while their sum is a normal number.
    x = torch.full((4096, 2), 2.9e-21)
    expected = hypot(x)
    assert float(metrics.norms([x])[0]) == pytest.approx(expected, rel=1e-6)
    assert float(metrics.total_norm([x])) == pytest.approx(expected, rel=1e-6)


def test_a_total_norm_over_float32_and_float64_is_that_of_both() -> None:
    xs = [torch.full((4,), 1.5), torch.full((7,), 1e100, dtype=torch.float64)]
    assert float(metrics.total_norm(xs)) == pytest.approx(math.sqrt(7) * 1e100)
    assert metrics.norms(xs).tolist() == pytest.approx([3.0, math.sqrt(7) * 1e100])


def test_a_large_row_whose_squares_are_all_lost_has_a_finite_norm() -> None:
    """Entries are multiplied before they are squared, and the sum of the squares must not
    overflow in its turn."""
    num_entries = 5 * 2**22
    x_RN = torch.tensor([[2.6e-23]]).expand(1, num_entries)
    # torch adds so many equal squares to about a percent only.
    expected = math.sqrt(num_entries) * 2.6e-23
    assert float(metrics.row_norms(x_RN)) == pytest.approx(expected, rel=0.02)


def test_nothing_and_empty_tensors_have_norm_zero_and_no_moments() -> None:
    empty = torch.zeros(0, 3)
    assert metrics.norms([]).tolist() == []
    assert float(metrics.total_norm([])) == 0
    assert float(metrics.total_norm([empty])) == 0
    assert float(metrics.total_norm([empty, torch.tensor([3.0, 4.0])])) == 5
    assert metrics.norms([empty, torch.tensor([3.0, 4.0])]).tolist() == [0, 5]
    assert metrics.row_norms(torch.zeros(2, 0)).tolist() == [0, 0]
    assert metrics.row_norms(torch.zeros(0, 2)).tolist() == []
    assert metrics.row_rms(torch.zeros(2, 0)).isnan().all()
    for moment_R in metrics.row_moments(torch.zeros(2, 0)):
        assert moment_R.shape == (2,)
        assert moment_R.isnan().all()


def test_zeros_have_norm_zero_and_one_entry_has_its_magnitude() -> None:
    assert metrics.row_norms(torch.zeros(2, 5)).tolist() == [0, 0]
    assert metrics.norms([torch.zeros(2, 5), torch.tensor(-1e-42)])[0] == 0
    assert float(metrics.total_norm([torch.zeros(2, 5)])) == 0
    assert [x.tolist() for x in metrics.row_moments(torch.zeros(1, 5))] == [[0], [0]]
    for value in (-1e-42, 3e38, -1.0):
        x = torch.tensor([[value]])
        assert float(metrics.row_norms(x)) == float(x.abs())
        assert float(metrics.norms([x[0, 0]])) == float(x.abs())
        assert float(metrics.total_norm([x])) == float(x.abs())


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_a_nan_gives_nan_and_an_infinity_gives_infinity_in_its_own_row_only(scale: float) -> None:
    x_RN = draw((4, 6), torch.float32, scale)
    x_RN[1, 2], x_RN[2, 3], x_RN[2, 4] = math.nan, math.inf, -math.inf
    for norm_R in (metrics.row_norms(x_RN), metrics.norms(list(x_RN))):
        assert [str(v) for v in norm_R[1:3].tolist()] == ["nan", "inf"]
        assert close(norm_R[0], hypot(x_RN[0]), torch.float32)
        assert close(norm_R[3], hypot(x_RN[3]), torch.float32)
    _, std_R = metrics.row_moments(x_RN)
    assert std_R.isfinite().tolist() == [True, False, False, True]
    assert metrics.total_norm(list(x_RN)).isnan()
    assert metrics.total_norm([x_RN[0], x_RN[2]]).isinf()


def test_nothing_is_written_to_the_measured_tensors() -> None:
    xs = tensors(torch.float32, 1e-30)
    before = [x.clone() for x in xs]
    metrics.norms(xs)
    metrics.total_norm(xs)
    metrics.row_norms(xs[0])
    metrics.row_moments(xs[0])
    assert all(map(torch.equal, xs, before))


# ---------------------------------------------------------------- outliers


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_outliers_are_counted_from_the_bound_on_by_magnitude(dtype: torch.dtype) -> None:
    x_RN = torch.tensor(
        [[1.0, -5.9, 2.0, 0.0], [6.0, -6.0, 5.999, 7.0], [-9.0, 0.0, 0.0, 0.0], [0.0] * 4],
        dtype=dtype,
    )
    given = x_RN.clone()
    peak_R, share_R = metrics.row_outliers(x_RN, 6.0)
    assert peak_R.tolist() == [x_RN[0].abs().max().item(), 7.0, 9.0, 0.0]
    assert share_R.tolist() == [0.0, 0.75, 0.25, 0.0]
    assert (peak_R.dtype, share_R.dtype) == (dtype, dtype)
    assert torch.equal(x_RN, given)


def test_an_infinite_entry_is_an_outlier_and_a_nan_makes_both_nan() -> None:
    inf, nan = torch.inf, torch.nan
    peak_R, share_R = metrics.row_outliers(torch.tensor([[1, -inf], [nan, 9], [2, 3]]), 6.0)
    assert str(peak_R.tolist()) == "[inf, nan, 3.0]"
    assert str(share_R.tolist()) == "[0.5, nan, 0.0]"
