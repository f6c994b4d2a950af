"""Activations against their formulas in math (second road) and autograd.

Holds: activations.py, registry.py
"""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from vgexp.activations import ACTIVATIONS, DERIVATIVES, Activation, slope, slope_of
from vgexp.errors import QuestionError

SELU = (1.6732632423543772848170429916717, 1.0507009873554804934193349852946)

# phi by name, on Python floats.
VALUES: dict[str, Callable[[float], float]] = {
    "linear": lambda u: u,
    "sigmoid": lambda u: 1 / (1 + math.exp(-u)),
    "tanh": lambda u: 1 - 2 / (math.exp(2 * u) + 1),
    "relu": lambda u: max(u, 0.0),
    "leaky_relu": lambda u: u if u > 0 else 0.01 * u,
    "prelu": lambda u: u if u > 0 else 0.25 * u,
    "elu": lambda u: u if u > 0 else math.expm1(u),
    "selu": lambda u: SELU[1] * (u if u > 0 else SELU[0] * math.expm1(u)),
    "gelu": lambda u: u * 0.5 * math.erfc(-u / math.sqrt(2)),
    "silu": lambda u: u / (1 + math.exp(-u)),
    "softplus": lambda u: math.log1p(math.exp(u)),
    "hardtanh": lambda u: min(max(u, -1.0), 1.0),
}

# The largest |phi'|, by hand, where phi is bounded.
PEAKS = {"sigmoid": 0.25, "tanh": 1.0, "hardtanh": 1.0}

USERS_MODULES = [
    nn.Sigmoid(),
    nn.Tanh(),
    nn.ReLU(inplace=True),
    nn.LeakyReLU(0.3),
    nn.LeakyReLU(-0.2),
    nn.PReLU(init=0.4),
    nn.ELU(1.7),
    nn.SELU(),
    nn.GELU(),
    nn.GELU(approximate="tanh"),
    nn.SiLU(),
    nn.Softplus(beta=2.5, threshold=7),
    nn.Hardtanh(-0.5, 2.25),
    nn.ReLU6(),
    nn.CELU(0.6),
    nn.Hardsigmoid(),
    nn.Hardswish(),
    nn.Hardshrink(0.7),
    nn.LogSigmoid(),
    nn.Mish(),
    nn.Softshrink(0.3),
    nn.Softsign(),
    nn.Tanhshrink(),
    nn.Threshold(0.2, -5.0),
]

# Both sides of every kink above and both tails; not the kinks of Hardswish, whose side is PyTorch's
# own business.
GRID = torch.cat([torch.linspace(-9.03, 9.07, 401), torch.tensor([-40.0, -21.0, 21.0, 40.0])])
HUGE = torch.tensor([-1e30, -1e4, -1e-30, 0.0, 1e-30, 1e4, 1e30])


def autograd(module: nn.Module, u: Tensor) -> Tensor:
    leaf = u.clone().requires_grad_()
    module(leaf.clone()).sum().backward()
    assert leaf.grad is not None
    return leaf.grad


def named(module: nn.Module) -> str:
    return repr(module).replace(" ", "")


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_the_module_computes_its_formula(name: str) -> None:
    u = GRID.double()
    expected = torch.tensor([VALUES[name](float(v)) for v in u], dtype=torch.float64)
    module = ACTIVATIONS[name].build(None).double()
    # Softplus is u itself above 20, where the formula differs by e^-20 = 2e-9.
    torch.testing.assert_close(module(u), expected, rtol=1e-9, atol=3e-9)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_the_derivative_is_autograds_in_float64(name: str) -> None:
    activation = ACTIVATIONS[name]
    module = activation.build(None).double()
    u = GRID.double().reshape(-1, 3, 5)
    computed = activation.derivative(module, u)
    assert computed.dtype == u.dtype
    torch.testing.assert_close(computed, autograd(module, u), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_the_derivative_is_the_difference_quotient_of_the_formula(name: str) -> None:
    activation = ACTIVATIONS[name]
    # Off the kinks at -1, 0 and 1 by more than the step; error of order step^2 = 1e-10.
    u, step = torch.linspace(-3.013, 2.973, 60, dtype=torch.float64), 1e-5
    assert min(float((u - kink).abs().min()) for kink in (-1.0, 0.0, 1.0)) > 10 * step
    quotients = [(VALUES[name](v + step) - VALUES[name](v - step)) / (2 * step) for v in u.tolist()]
    computed = activation.derivative(activation.build(None).double(), u)
    torch.testing.assert_close(
        computed, torch.tensor(quotients, dtype=torch.float64), rtol=1e-8, atol=1e-8
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_the_derivative_is_zero_exactly_where_autograds_is(name: str, dtype: torch.dtype) -> None:
    activation = ACTIVATIONS[name]
    module = activation.build(None).to(dtype)
    kinks = torch.tensor([-1.0, -0.0, 0.0, 1.0])
    u = torch.cat([GRID, kinks, torch.linspace(-60, 60, 97)]).to(dtype)
    computed, reference = activation.derivative(module, u), autograd(module, u)
    assert computed.dtype == dtype
    different = (computed == 0) != (reference == 0)
    # PyTorch computes bfloat16 in float32 and rounds once, and its vectorised float32 gelu drops
    # slopes under 2e-8: zeros by underflow may then differ.
    info = torch.finfo(dtype)
    smallest = info.eps if dtype == torch.bfloat16 or name == "gelu" else info.tiny
    gap = torch.maximum(computed.abs(), reference.abs())[different]
    assert bool((gap <= smallest).all()), (u[different], computed[different], reference[different])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("module", USERS_MODULES, ids=named)
def test_a_derivative_is_finite_at_every_scale(module: nn.Module, dtype: torch.dtype) -> None:
    found = slope_of(module)
    assert found is not None
    computed = found.derivative(HUGE.to(dtype))
    assert bool(torch.isfinite(computed).all())
    # Every phi here has straight tails, reached at 1e4 to the precision asked for (softsign: 1e-8).
    torch.testing.assert_close(computed[[0, -1]], computed[[1, -2]], rtol=0, atol=2e-8)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_named_derivatives_are_finite_at_every_scale(name: str) -> None:
    activation = ACTIVATIONS[name]
    assert bool(torch.isfinite(activation.derivative(activation.build(None), HUGE)).all())


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_the_peak_is_the_largest_slope_of_the_bounded_and_absent_else(name: str) -> None:
    activation = ACTIVATIONS[name]
    assert activation.peak == PEAKS.get(name)
    bounded = abs(VALUES[name](300.0)) < 50 and abs(VALUES[name](-300.0)) < 50
    assert bounded == (activation.peak is not None)
    if activation.peak is not None:
        fine = torch.linspace(-5, 5, 2001, dtype=torch.float64)
        largest = float(activation.derivative(activation.build(None), fine).max())
        assert largest == pytest.approx(activation.peak, abs=1e-12)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_each_build_is_a_fresh_module_that_leaves_its_input_alone(name: str) -> None:
    activation = ACTIVATIONS[name]
    first, second = activation.build(None), activation.build(None)
    assert first is not second
    assert type(first).__module__.startswith("torch.nn")
    u = GRID.clone()
    first(u)
    assert torch.equal(u, GRID)
    assert activation.has_parameters == (next(first.parameters(), None) is not None)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_computing_a_derivative_leaves_u_alone(name: str) -> None:
    u = GRID.clone()
    activation = ACTIVATIONS[name]
    activation.derivative(activation.build(None), u)
    assert torch.equal(u, GRID)


@pytest.mark.parametrize("name", ["leaky_relu", "prelu"])
def test_the_negative_slope_is_what_was_asked_for(name: str) -> None:
    activation = ACTIVATIONS[name]
    module = activation.build(0.375)
    u = torch.tensor([-2.0, -0.0, 0.0, 3.0])
    assert module(u).tolist() == [-0.75, 0.0, 0.0, 3.0]
    assert activation.derivative(module, u).tolist() == [0.375, 0.375, 0.375, 1.0]


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_slopes_without_parameters_are_one_object_and_parametric_ones_are_not(name: str) -> None:
    activation = ACTIVATIONS[name]
    slopes = [slope(name, activation.build(None)) for _ in range(2)]
    assert (slopes[0] is slopes[1]) == (not activation.has_parameters)
    assert slopes[0].peak == activation.peak


def test_a_prelu_slope_follows_its_weight() -> None:
    module = ACTIVATIONS["prelu"].build(None)
    found = slope("prelu", module)
    with torch.no_grad():
        next(module.parameters()).fill_(0.125)
    computed = found.derivative(torch.tensor([-1.0, 1.0]))
    assert computed.tolist() == [0.125, 1.0]
    assert not computed.requires_grad


@pytest.mark.parametrize("module", USERS_MODULES, ids=named)
def test_a_users_activation_has_autograds_slope(module: nn.Module) -> None:
    found = slope_of(module.double())
    assert found is not None
    u = GRID.double().reshape(-1, 3, 5)
    # PyTorch's own backward of these two rounds a constant to float32.
    rtol = 1e-6 if isinstance(module, nn.CELU | nn.Hardsigmoid) else 1e-12
    torch.testing.assert_close(found.derivative(u), autograd(module, u), rtol=rtol, atol=1e-14)


def test_every_known_class_is_tested_as_a_users() -> None:
    assert {type(module) for module in USERS_MODULES} == set(DERIVATIVES)


@pytest.mark.parametrize("shape", [(4, 3), (4, 3, 5), (4, 3, 5, 2)])
def test_a_prelu_with_a_slope_a_channel_reads_channels_on_axis_one(shape: tuple[int, ...]) -> None:
    module = nn.PReLU(3).double()
    with torch.no_grad():
        module.weight.copy_(torch.tensor([0.1, 0.2, 0.7]))
    found = slope_of(module)
    assert found is not None
    u = torch.linspace(-2, 2, math.prod(shape), dtype=torch.float64).reshape(shape)
    torch.testing.assert_close(found.derivative(u), autograd(module, u))


def test_equal_modules_of_users_share_a_slope_and_unequal_ones_do_not() -> None:
    slopes = [slope_of(nn.LeakyReLU(value)) for value in (0.1, 0.1, 0.2)]
    assert slopes[0] is slopes[1]
    assert slopes[0] is not slopes[2]
    assert slope_of(nn.GELU()) is not slope_of(nn.GELU(approximate="tanh"))


def test_what_is_not_a_known_elementwise_activation_has_no_slope() -> None:
    class Mine(nn.ReLU):
        def forward(self, input: Tensor) -> Tensor:
            return input**2

    for module in (nn.Identity(), nn.Softmax(dim=1), nn.RReLU(), nn.Linear(2, 2), Mine()):
        assert slope_of(module) is None


def test_an_unknown_activation_names_the_nearest() -> None:
    with pytest.raises(QuestionError, match="nearest: relu"):
        ACTIVATIONS["relo"]


def test_every_peak_of_a_users_bounded_activation_is_its_largest_slope() -> None:
    fine = torch.linspace(-12, 12, 4801, dtype=torch.float64)
    for module in USERS_MODULES:
        found = slope_of(module.double())
        assert found is not None
        if found.peak is not None:
            assert float(found.derivative(fine).abs().max()) == pytest.approx(found.peak)
            assert float(module(HUGE.double()).abs().max()) < 10


def test_summaries_are_one_short_line_each() -> None:
    summaries = [ACTIVATIONS.summary(name) for name in ACTIVATIONS]
    assert all(0 < len(text) < 80 and "\n" not in text for text in summaries)
    assert len(set(summaries)) == len(summaries)
    assert all(isinstance(ACTIVATIONS[name], Activation) for name in ACTIVATIONS)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_the_bounds_are_the_smallest_and_the_largest_value_and_absent_where_there_is_none(
    name: str,
) -> None:
    activation = ACTIVATIONS[name]
    far = torch.tensor([-1e6, 0.0, 1e6])
    values = activation.build(None)(far).detach()
    bounded = bool((values.abs() <= 1).all())
    assert (activation.bounds is not None) == bounded
    if activation.bounds is not None:
        assert activation.bounds == (float(values.min()), float(values.max()))


@pytest.mark.parametrize("name", [n for n in ACTIVATIONS if ACTIVATIONS[n].rnn_nonlinearity])
def test_torchs_recurrent_cell_computes_the_activation_that_names_its_nonlinearity(
    name: str,
) -> None:
    cell = nn.RNNCell(1, 1, bias=False, nonlinearity=str(ACTIVATIONS[name].rnn_nonlinearity))
    nn.init.ones_(cell.weight_ih)
    u = torch.linspace(-3, 3, 25)[:, None]
    torch.testing.assert_close(cell(u), ACTIVATIONS[name].build(None)(u))


def test_torchs_recurrent_cell_is_used_for_both_activations_that_it_has() -> None:
    assert [n for n in ACTIVATIONS if ACTIVATIONS[n].rnn_nonlinearity] == ["tanh", "relu"]
