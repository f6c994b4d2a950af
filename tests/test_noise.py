"""Gradient noise: its law, its place, and its stream.

Holds: noise.py
"""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import nn
from trainers import (
    BASE,
    changed,
    collected,
    require_going_on,
    tables_of,
)

from vgexp.assembly import assemble
from vgexp.config import AdamConfig, Config, NormClipConfig, ProbeConfig
from vgexp.errors import QuestionError
from vgexp.noise import Noise
from vgexp.seeds import generator

EVERY = ProbeConfig(every=1, activations_every=1)
NOISY = changed(BASE, train={"gradient_noise": 0.3}, probe=EVERY)


def drawn(eta: float, decay: float, step: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """40,000 numbers added to gradients of 0, of unequal shapes."""
    parameters = [nn.Parameter(torch.zeros(s, dtype=dtype)) for s in ((150, 200), (10_000,))]
    for p in parameters:
        p.grad = torch.zeros_like(p)
    Noise(eta, decay, generator(3, "noise"))(parameters, step)
    return torch.cat([p.grad.flatten() for p in parameters if p.grad is not None])


@pytest.mark.parametrize("eta", [0.01, 1.0, 7.0])
@pytest.mark.parametrize("step", [0, 1, 99, 12_345])
def test_its_variance_is_eta_over_a_power_of_the_step(step: int, eta: float) -> None:
    noise = drawn(eta, 0.55, step)
    variance = eta / (1 + step) ** 0.55
    # The variance of 40,000 normal numbers is known to 0.7 % (one standard error).
    assert noise.var().item() == pytest.approx(variance, rel=0.03)
    assert abs(noise.mean().item()) < 5 * math.sqrt(variance / 40_000)
    share = (noise.abs() < math.sqrt(variance)).double().mean().item()
    assert share == pytest.approx(math.erf(1 / math.sqrt(2)), abs=0.012), "normal"


def test_its_decay_is_the_line_of_log_variance_on_log_step() -> None:
    for decay in (0.0, 0.55, 2.0):
        first, last = (drawn(1.0, decay, step).var().log().item() for step in (0, 10**6))
        assert (first - last) / math.log(1 + 10**6) == pytest.approx(decay, abs=1e-6)
    assert not drawn(1.0, 1e6, 5).any(), "a decay beyond any power ends the noise"


def test_one_seed_gives_one_noise_in_every_dtype() -> None:
    assert torch.equal(drawn(0.3, 0.55, 4).float(), drawn(0.3, 0.55, 4, torch.float32))


def test_it_is_added_to_the_clipped_gradient_and_the_columns_say_so() -> None:
    plain, noisy = (
        tables_of(changed(config, clip=NormClipConfig(threshold=0.05), train={"steps": 1}))
        for config in (BASE, NOISY)
    )
    for table in ("steps", "layers"):
        assert noisy[table]["grad_norm"] == plain[table]["grad_norm"]
    assert noisy["steps"]["clipped"] == [1]
    # By hand: the same numbers from the same stream, on the gradient scaled to 0.05.
    trainer = assemble(changed(NOISY, clip=NormClipConfig(threshold=0.05)))
    model, (x, y) = trainer.state.model, trainer.state.batches.next()
    nn.functional.cross_entropy(model(x), y).backward()
    gradient = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    numbers = torch.randn(len(gradient), dtype=torch.float64, generator=generator(0, "noise"))
    expected = gradient * 0.05 / gradient.norm() + math.sqrt(0.3) * numbers
    assert noisy["steps"]["grad_norm_clipped"][0] == pytest.approx(expected.norm().item())
    assert plain["steps"]["grad_norm_clipped"][0] == pytest.approx(0.05)
    sizes = [p.numel() for p in model.parameters()]
    by_tensor = [part.norm().item() for part in expected.split(sizes)]
    weights = [i for i, p in enumerate(model.parameters()) if p.ndim == 2]
    assert noisy["layers"]["grad_norm_clipped"] == pytest.approx([by_tensor[i] for i in weights])
    before = [p.norm().item() for p in model.parameters()]
    assert noisy["layers"]["update_ratio"] == pytest.approx(
        [0.3 * by_tensor[i] / before[i] for i in weights]
    )


def test_without_clipping_the_norm_before_and_after_differ() -> None:
    steps = tables_of(NOISY)["steps"]
    assert set(steps["clipped"]) == {0}
    assert all(a != b for a, b in zip(steps["grad_norm"], steps["grad_norm_clipped"], strict=True))


def test_eta_moves_neither_data_nor_weights_nor_masks() -> None:
    tables, weights, batches = [], [], []
    for eta in (0.0, 1e-60, 0.3):
        config = changed(BASE, train={"gradient_noise": eta, "steps": 5}, model={"dropout": 0.3})
        trainer = assemble(config)
        weights.append(copy.deepcopy(trainer.state.model.state_dict()))
        batches.append(copy.deepcopy(trainer.state.batches).next()[0])
        tables.append(collected(trainer.rows())["steps"])
    for name in weights[0]:
        assert torch.equal(weights[0][name], weights[2][name])
    assert torch.equal(batches[0], batches[2])
    # Noise too small to move a weight shows that order and masks stay for all steps.
    assert tables[1]["loss"] == tables[0]["loss"]
    assert tables[2]["loss"][0] == tables[0]["loss"][0]
    assert tables[2]["loss"][1:] != tables[0]["loss"][1:]


def test_another_seed_is_another_noise() -> None:
    one, other = (Noise(1.0, 0.55, generator(seed, "noise")).state_dict() for seed in (0, 1))
    assert not torch.equal(one, other)


@pytest.mark.parametrize("stop_after", [3, 10])
def test_a_loaded_state_goes_on_with_the_noise_that_follows(stop_after: int) -> None:
    config = changed(NOISY, optimizer=AdamConfig(lr=0.02), model={"dropout": 0.2})
    config = changed(config, probe=ProbeConfig(every=2, activations_every=3, histograms_every=0))
    require_going_on(config, stop_after)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"gradient_noise": -0.1}, "train.gradient_noise is -0.1"),
        ({"gradient_noise": math.inf}, "train.gradient_noise is inf"),
        ({"gradient_noise_decay": -1.0}, "train.gradient_noise_decay is -1.0"),
    ],
)
def test_what_is_no_variance_is_refused(values: dict[str, Any], said: str) -> None:
    with pytest.raises(QuestionError, match=said):
        changed(Config(), train=values)
