"""What LSUV reached on the batch that it fitted, told beside what another batch shows.

Holds: assembly/networks.py, summaries.py
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn import functional

from vgexp import data, runs
from vgexp.assembly import assemble
from vgexp.config import Config, DigitsConfig, MlpConfig, OutputConfig, SignalConfig, TrainConfig
from vgexp.diagnosis import sentence, start_sentence
from vgexp.quantities import SUMMARY

CONFIG = Config(
    model=MlpConfig(depth=12, width=20, activation="silu", init="lsuv", gain=1.5),
    data=DigitsConfig(batch_size=16),
    train=TrainConfig(steps=1),
    signal=SignalConfig(seeds=2),
    output=OutputConfig(quiet=True, figures=False),
    dtype="float64",
)


def test_what_lsuv_reached_is_the_variance_of_each_weight_s_output_on_the_first_examples() -> None:
    """By plain products of the weights, with the first 16 examples of the training split."""
    model = assemble(CONFIG).state.model
    dataset = data.load(CONFIG.data, CONFIG.seed, torch.float64).flattened()
    h, found = dataset.train.part(0, 16)[0], {}
    for name, weight in model.named_parameters():
        if name.endswith("weight"):
            z = h @ weight.detach().T
            found[name] = float(z.var(correction=0))
            h = functional.silu(z)
    assert dict(model.fitted_variances) == pytest.approx(found, rel=1e-9)
    assert all(2.25 * 0.9 < variance < 2.25 * 1.1 for variance in found.values())


def test_the_summary_and_the_words_tell_what_lsuv_reached(tmp_path: Path) -> None:
    variances = assemble(CONFIG).state.model.fitted_variances.values()
    low, high = min(variances), max(variances)
    said = f"have variances of {low:.2g} to {high:.2g}; preact_std is measured on another batch."
    trained = runs.run(CONFIG, tmp_path / "train").summary
    measured = runs.signal(CONFIG, tmp_path / "signal").summary
    for summary in (trained, measured):
        assert summary["fitted_variance_min"] == pytest.approx(low)
        assert summary["fitted_variance_max"] == pytest.approx(high)
    assert f"On the batch that lsuv fitted, the outputs of all weights {said}" in sentence(trained)
    assert f"fitted for the first seed, the outputs of all weights {said}" in start_sentence(
        measured
    )
    assert {"fitted_variance_min", "fitted_variance_max"} <= set(SUMMARY)


def test_where_nothing_is_fitted_nothing_is_told(tmp_path: Path) -> None:
    model = MlpConfig(depth=2, width=5)
    config = Config(
        model=model, train=TrainConfig(steps=1), output=OutputConfig(quiet=True, figures=False)
    )
    summary = runs.run(config, tmp_path / "a").summary
    assert "fitted_variance_min" not in summary
    assert "lsuv" not in sentence(summary)
