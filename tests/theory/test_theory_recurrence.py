"""Predictions of plain recurrent nets against networks that vgexp builds, and closed forms.

Holds: theory/recurrence.py, theory/shapes.py
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
from vgexp.config import RnnConfig
from vgexp.inits import initialise
from vgexp.models import build
from vgexp.models.recurrence.draws import RECURRENT_INITS
from vgexp.seeds import generator
from vgexp.tasks import Task
from vgexp.theory import Forecast, Sample
from vgexp.theory.recurrence import predict, recurrent_variance

STEPS, INPUTS, OUTPUTS, BATCH, SEEDS = 8, 3, 4, 12, 16
TASK = Task("sequence", (STEPS, INPUTS), OUTPUTS)
TOKENS = Task("tokens", (STEPS,), OUTPUTS, num_tokens=6)
CASES: dict[str, dict[str, Any]] = {
    "orthogonal": {},
    "two layers, biases": {
        "depth": 2,
        "init": "lecun_normal",
        "recurrent_init": "lecun_normal",
        "gain": 1.2,
        "bias_std": 0.2,
    },
    "relu": {"activation": "relu", "recurrent_init": "he_normal"},
    "radius": {"recurrent_init": "normal", "spectral_radius": 0.8},
    "radius, orthogonal": {"spectral_radius": 0.7, "gain": 3.0},
    "torch_default": {"init": "torch_default", "recurrent_init": "torch_default"},
    "dropout": {"depth": 2, "dropout": 0.3, "activation": "hardtanh"},
    "truncation": {"truncation": 3, "depth": 2},
}
loss = losses.LOSSES["cross_entropy"].mean


@functools.cache
def sample(*, tokens: bool = False) -> Sample:
    """Examples of unequal lengths, no two times alike."""
    drawn = generator(0, "recurrence")
    y = torch.randint(0, OUTPUTS, (BATCH,), generator=drawn)
    if tokens:
        return Sample(torch.randint(0, 6, (BATCH, STEPS), generator=drawn), y, loss)
    x = torch.randn(BATCH, STEPS, INPUTS, generator=drawn, dtype=torch.float64) + 0.3
    x = x * torch.linspace(0.3, 1.5, BATCH, dtype=torch.float64)[:, None, None]
    return Sample(x * torch.linspace(1.5, 0.5, STEPS)[:, None].double(), y, loss)


def expected(config: RnnConfig, data: Sample, tokens: int = 0) -> Forecast:
    recurrent = RECURRENT_INITS[config.recurrent_init]
    return predict(config, recurrent, data, tokens, OUTPUTS)


def measured(config: RnnConfig, data: Sample, task: Task) -> dict[str, Tensor]:
    """ln of deviation and rms of each row, and ln of rms of each state at every time."""
    found: dict[str, list[list[float]]] = {}
    for seed in range(SEEDS):
        torch.manual_seed(seed)  # of dropout
        model = build(config, task, torch.float64)
        initialise(model, config, generator(seed, "init"), data.inputs)
        model.time_points = None
        seen = kept_preacts(model)
        (meter,) = [meter for meter in model.meters() if meter.table == "time"]
        meter.arm()
        data.loss(model(data.inputs), data.targets).backward()
        taken = meter.take(0, BATCH, 1.0)
        assert taken is not None
        columns = taken().columns
        for name, logs in log_signals(seen, BATCH).items():
            found.setdefault(name, []).append(list(logs))
        for name in set(columns["name"]):
            pairs = zip(columns["name"], columns["delta_rms"], strict=True)
            rms_T = torch.tensor([float(value) for label, value in pairs if label == name])
            found.setdefault(name, []).append(rms_T.log().tolist())
    return {name: torch.tensor(values) for name, values in found.items()}


@pytest.mark.parametrize("width", [32, 128])
@pytest.mark.parametrize("case", CASES)
def test_predictions_are_what_networks_show(case: str, width: int) -> None:
    """Within 4 standard errors, and 8/width for 8 steps of one matrix at first order in 1/width.

    The last layer's states before a cut get nothing: -inf on both sides.
    """
    config = RnnConfig(**{"width": width, **CASES[case]})
    theory, found = expected(config, sample()), measured(config, sample(), TASK)
    assert theory.reason is None
    assert {*theory.rows, *theory.times} == set(found)
    wanted = {
        name: torch.tensor([row.preact_std, row.delta_rms]).log()
        for name, row in theory.rows.items()
    }
    wanted |= {name: torch.tensor(values).log() for name, values in theory.times.items()}
    for name, values in found.items():
        known = wanted[name].isfinite()
        assert torch.equal(known, values.isfinite().all(0)), name
        off, spread = values.mean(0) - wanted[name], values.std(0)
        allowed = 4 * spread / math.sqrt(SEEDS) + 8 / width
        assert (off.abs() <= allowed)[known].all(), (name, off, allowed)


def test_tokens_are_read_as_one_hot_vectors() -> None:
    config = RnnConfig(width=96, recurrent_init="lecun_normal")
    data = sample(tokens=True)
    theory = expected(config, data, TOKENS.num_tokens)
    found = measured(config, data, TOKENS)
    for name, row in theory.rows.items():
        assert row.preact_std is not None
        assert row.delta_rms is not None
        off = found[name].mean(0) - torch.tensor([row.preact_std, row.delta_rms]).log()
        assert (off.abs() <= 4 * found[name].std(0) / math.sqrt(SEEDS) + 4 / 96).all(), name


def test_of_a_linear_net_a_step_back_is_the_radius() -> None:
    """Orthogonal W_hh: |dL/dh_t| is the radius times |dL/dh_{t+1}|, exactly (Saxe 2014)."""
    config = RnnConfig(activation="linear", spectral_radius=0.83, width=20, gain=2.0)
    theory = expected(config, sample()).times["layers.0.h"]
    found = measured(config, sample(), TASK)["layers.0.h"].exp()
    for earlier, later in itertools.pairwise(theory):
        assert earlier is not None
        assert later is not None
        assert earlier / later == pytest.approx(0.83, rel=1e-12)
    torch.testing.assert_close(
        found[:, :-1] / found[:, 1:], torch.full((SEEDS, STEPS - 1), 0.83), rtol=1e-6, atol=0.0
    )


def test_long_sequences_reach_the_fixed_point_s_factor() -> None:
    """sqrt(chi) at the fixed point of the variance, with the inputs as a bias (Pascanu 2013)."""
    from vgexp.theory import Plain, fixed_point, function

    x = torch.ones(5, 200, 2, dtype=torch.float64)
    config = RnnConfig(width=50, recurrent_init="lecun_normal", gain=1.5, init="lecun_normal")
    deltas = expected(config, Sample(x, torch.arange(5) % 4, loss)).times["layers.0.h"]
    phi = function("tanh")
    assert phi is not None
    end = fixed_point(Plain(phi, 1.5**2, 1.5**2))
    assert deltas[80] is not None
    assert deltas[81] is not None
    assert deltas[80] / deltas[81] == pytest.approx(math.sqrt(end.chi), rel=1e-6)


@pytest.mark.parametrize("width", [40, 160])
def test_a_rescaled_matrix_has_the_variance_that_it_is_drawn_with(width: int) -> None:
    """Within 3 standard errors: the largest eigenvalue varies by 0.36 / sqrt(width).

    Without what it exceeds the circle's radius by the amplitude would be 9 or 4 % too large.
    """
    config = RnnConfig(width=width, recurrent_init="uniform", spectral_radius=1.3)
    model = build(config, TASK, torch.float64)
    found = []
    for seed in range(24):
        initialise(model, config, generator(seed, "init"), sample().inputs)
        weight = model.get_parameter("layers.0.cell.weight_hh_l0").detach()
        found.append(math.log(float(weight.square().mean())) / 2)
    amplitude = math.log(recurrent_variance(config, RECURRENT_INITS["uniform"])) / 2
    assert amplitude == pytest.approx(sum(found) / 24, abs=3 * 0.36 / (24 * width) ** 0.5)


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"recurrent_init": "identity"}, "identity"),
        ({"norm": "layer"}, "layer"),
        ({"skip": "residual", "depth": 2}, "residual"),
    ],
)
def test_where_theory_has_no_answer_it_says_why(values: dict[str, Any], word: str) -> None:
    theory = expected(RnnConfig(**values), sample())
    assert not theory.times
    assert not theory.rows
    assert word in str(theory.reason)


def test_what_overflows_is_left_empty() -> None:
    config = RnnConfig(activation="linear", recurrent_init="normal", gain=1e60)
    theory = expected(config, sample())
    rows = theory.rows
    assert set(theory.times["layers.0.h"]) == {None}
    assert rows["readout.weight"].preact_std is None
    assert rows["layers.0"].delta_rms is None
