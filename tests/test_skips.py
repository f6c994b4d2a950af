"""Skip connections against their equations in numpy.

Holds: skips.py
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from vgexp.skips import SKIPS, Combine, ConvGate, Highway

Array = NDArray[np.float64]
DEPTH, WIDTH, BATCH = 7, 5, 3


def sigmoid(u: Array) -> Array:
    return 1 / (1 + np.exp(-u))


def arrays(module: nn.Module) -> dict[str, Array]:
    return {name: value.detach().numpy() for name, value in module.named_parameters()}


def highway(z: Array, branch: Array, h: Array, p: dict[str, Array]) -> Array:
    carry = sigmoid(h @ p["gate.weight"].T + p["gate.bias"])
    return carry * branch + (1 - carry) * z


# The next z of (z, branch, h, parameters); None: there is nothing to combine.
REFERENCES: dict[str, Callable[[Array, Array, Array, dict[str, Array]], Array] | None] = {
    "none": None,
    "dense": None,
    "residual": lambda z, branch, _h, _p: z + branch,
    "scaled_residual": lambda z, branch, _h, _p: z + branch / np.sqrt(DEPTH),
    "rezero": lambda z, branch, _h, p: z + p["alpha"] * branch,
    "highway": highway,
}


def built(name: str) -> Combine:
    combine = SKIPS[name].combine
    assert combine is not None
    module = combine(WIDTH, DEPTH).double()
    generator = torch.Generator().manual_seed(3)
    for weight in module.parameters():
        nn.init.normal_(weight, 0.3, 1.0, generator=generator)
    return module


@pytest.mark.parametrize("name", SKIPS)
def test_a_skip_that_adds_has_a_module_and_others_have_none(name: str) -> None:
    skip = SKIPS[name]
    assert skip.adds == (REFERENCES[name] is not None) == (skip.combine is not None)
    assert skip.concatenates == (name == "dense")


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
@pytest.mark.parametrize("name", [name for name in SKIPS if SKIPS[name].adds])
def test_the_next_z_is_the_equations(name: str, scale: float) -> None:
    reference = REFERENCES[name]
    assert reference is not None
    module = built(name)
    rng = np.random.default_rng(2)
    z, branch, h = rng.normal(size=(3, BATCH, WIDTH))
    z, branch = z * scale, branch * scale
    computed = module(*map(torch.from_numpy, (z, branch, h)))
    expected = reference(z, branch, h, arrays(module))
    # Relative to the terms: their sum may cancel.
    np.testing.assert_allclose(computed.detach().numpy(), expected, rtol=1e-12, atol=1e-14 * scale)


def test_rezero_starts_as_the_identity() -> None:
    combine = SKIPS["rezero"].combine
    assert combine is not None
    z, branch = torch.randn(2, BATCH, WIDTH, generator=torch.Generator().manual_seed(0))
    assert torch.equal(combine(WIDTH, DEPTH)(z, branch, branch), z)


def test_a_highway_gate_starts_at_minus_two_and_its_sigmoid_is_a_module() -> None:
    module = Highway(WIDTH)
    ((gate, transform),) = module.gates
    assert gate.bias.tolist() == [-2.0] * WIDTH
    assert isinstance(transform, nn.Sigmoid)
    nn.init.zeros_(gate.weight)
    one, zero = torch.ones(BATCH, WIDTH), torch.zeros(BATCH, WIDTH)
    share = 1 / (1 + np.exp(2.0))
    assert module(zero, one, one).detach().numpy() == pytest.approx(share)


def test_a_highway_takes_a_gate_of_another_shape() -> None:
    combine = SKIPS["highway"].combine
    assert combine is not None
    before = torch.get_rng_state()
    module = combine(4, 1, lambda: ConvGate(3, 4, 3, 2, 1, device="meta")).double()
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(module.gate.bias, torch.full((4,), -2.0, dtype=torch.float64))
    generator = torch.Generator().manual_seed(3)
    nn.init.normal_(module.gate.weight, 0.3, 1.0, generator=generator)
    z, branch = torch.randn(2, BATCH, 4, 3, 4, dtype=torch.float64, generator=generator)
    h = torch.randn(BATCH, 3, 6, 7, dtype=torch.float64, generator=generator)
    weight, bias = module.gate.weight, module.gate.bias
    # A convolution as a product with the patches under the kernel.
    patches = nn.functional.unfold(h, 3, padding=1, stride=2)
    gate = weight.flatten(1) @ patches + bias[:, None]
    share = (1 / (1 + torch.exp(-gate))).reshape(branch.shape)
    torch.testing.assert_close(module(z, branch, h), share * branch + (1 - share) * z)


@pytest.mark.parametrize("name", [name for name in SKIPS if SKIPS[name].adds])
def test_z_is_carried_where_the_branch_is_zero_and_its_weights_learn(name: str) -> None:
    """By the derivative to the branch, which is 0 where a zero alpha multiplies it."""
    combine = SKIPS[name].combine
    assert combine is not None
    module = combine(WIDTH, DEPTH)
    for parameter in module.parameters():
        if parameter.ndim > 1:
            nn.init.zeros_(parameter)
    z = torch.randn(BATCH, WIDTH, generator=torch.Generator().manual_seed(0))
    branch = torch.zeros_like(z).requires_grad_()
    joined = module(z, branch, z)
    joined.sum().backward()
    assert branch.grad is not None
    carries = torch.equal(joined, z) and bool(branch.grad.all())
    assert SKIPS[name].carries_z == carries


@pytest.mark.parametrize("name", [name for name in SKIPS if SKIPS[name].adds])
def test_building_draws_no_random_number(name: str) -> None:
    combine = SKIPS[name].combine
    assert combine is not None
    before = torch.get_rng_state()
    combine(WIDTH, DEPTH)
    assert torch.equal(torch.get_rng_state(), before)


def test_every_skip_has_a_reference_and_a_summary() -> None:
    assert set(REFERENCES) == set(SKIPS)
    assert all(0 < len(SKIPS.summary(name)) < 90 for name in SKIPS)


@pytest.mark.parametrize("name", [name for name in SKIPS if SKIPS[name].adds])
def test_a_skip_says_whether_it_keeps_its_path_and_whether_it_is_a_plain_sum(name: str) -> None:
    module, skip = built(name), SKIPS[name]
    rng = np.random.default_rng(5)
    z, other, branch, h = (torch.from_numpy(x) for x in rng.normal(size=(4, BATCH, WIDTH)))
    keeps = torch.allclose(module(z, branch, h) - z, module(other, branch, h) - other)
    assert skip.keeps_path == module.keeps_path == keeps
    assert skip.is_sum == torch.allclose(module(z, branch, h), z + branch)


def test_a_skip_without_a_module_keeps_no_path() -> None:
    alone = [skip for skip in SKIPS.values() if not skip.adds]
    assert alone
    assert not any(skip.keeps_path or skip.is_sum for skip in alone)
