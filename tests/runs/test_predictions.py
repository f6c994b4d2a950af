"""Theory's columns beside the measured ones: on rows of step 0, of the batch that is measured.

Holds: runs/predictions.py, assembly/forecasts.py, diagnosis/at_start.py
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch.nn.functional as F
from small_runs import CONFIG
from torch import Tensor
from trainers import changed

from vgexp import runs
from vgexp.assembly import assemble
from vgexp.assembly.forecasts import forecast_first_step, set_critical_gain
from vgexp.cli.main import main
from vgexp.config import (
    AddingConfig,
    CnnConfig,
    Config,
    DigitsConfig,
    LstmConfig,
    MlpConfig,
    SignalConfig,
)
from vgexp.diagnosis.at_start import signal_depth
from vgexp.errors import QuestionError
from vgexp.quantities import PREDICTED
from vgexp.records import Rows
from vgexp.runs import predictions
from vgexp.theory import Forecast, ForecastRow, Sample, predict

NAMES = [column.name for column in PREDICTED]
DEEP = changed(
    CONFIG,
    model=MlpConfig(depth=6, width=64, activation="tanh", init="xavier_normal"),
    train={"steps": 5},
    probe={"every": 2, "activations_every": 2},
    signal=SignalConfig(seeds=8),
)


def test_a_run_has_predictions_on_the_rows_of_step_0_and_no_others(tmp_path: Path) -> None:
    layers = runs.run(DEEP, tmp_path / "a").layers
    at_start = layers["step"] == 0
    assert layers.loc[~at_start, NAMES].isna().all().all()
    hidden = at_start & (layers["kind"] != "readout")
    assert layers.loc[hidden, NAMES].notna().all().all()
    assert layers.loc[at_start & ~hidden, "predicted_delta_rms"].notna().all()


def test_predictions_are_those_of_the_batch_that_is_measured(tmp_path: Path) -> None:
    layers = runs.run(DEEP, tmp_path / "a").layers
    trainer = assemble(DEEP)
    ((x, y),) = trainer.state.coming_batch()
    forecast = predict(DEEP.model, Sample(x, y, trainer.state.loss.mean, is_mean=True), 3)
    for _, row in layers[layers["step"] == 0].iterrows():
        assert row["predicted_preact_std"] == forecast.rows[row["name"]].preact_std
        assert row["predicted_delta_rms"] == forecast.rows[row["name"]].delta_rms
    first = trainer.state.batches.next()
    assert first[0].equal(x)


def apart(outputs: Tensor, targets: Tensor) -> Tensor:
    """A loss of a batch as a whole, which is no mean of losses of its examples."""
    return F.cross_entropy(outputs, targets) * outputs.var(0).sum()


def test_a_users_loss_is_asked_of_one_batch_at_a_time(tmp_path: Path) -> None:
    config = changed(DEEP, train={"steps": 1, "loss": f"{__name__}.apart"})
    layers = runs.run(config, tmp_path / "a").layers
    ((x, y),) = assemble(config).state.coming_batch()
    forecast = predict(DEEP.model, Sample(x, y, apart), 3)
    for _, row in layers.iterrows():
        assert row["predicted_delta_rms"] == forecast.rows[row["name"]].delta_rms


def test_looking_at_the_coming_batch_changes_nothing() -> None:
    looked, other = assemble(DEEP), assemble(DEEP)
    for _ in range(3):
        looked.state.coming_batch()
    for _ in range(2 * looked.state.batches.per_epoch + 1):
        assert looked.state.batches.next()[0].equal(other.state.batches.next()[0])


@pytest.mark.parametrize("activation", ["tanh", "sigmoid", "relu"])
def test_measurement_agrees_with_theory_within_the_spread_of_seeds(
    activation: str, tmp_path: Path
) -> None:
    config = changed(DEEP, model={"activation": activation})
    done = runs.signal(config, tmp_path / "a")
    hidden = done.layers[done.layers["kind"] != "readout"]
    off = np.log(hidden["delta_rms"] / hidden["predicted_delta_rms"])
    by_layer = off.groupby(hidden["layer"]).mean()
    spread = hidden.groupby("layer")["predicted_log_delta_std"].mean()
    # Four standard errors of eight seeds, and 4 / width for what is left out at finite width.
    assert (by_layer.abs() < 4 * spread / math.sqrt(8) + 4 / 64).all()
    predicted = done.summary["predicted_backward_factor_per_layer"]
    assert done.summary["backward_factor_per_layer"] == pytest.approx(predicted, rel=0.05)


@pytest.mark.parametrize(
    ("config", "why"),
    [
        (changed(CONFIG, train={"pretrain_steps": 3}), "trained before"),
        (changed(CONFIG, model={"norm": "batch", "norm_position": "post"}), ""),
    ],
)
def test_where_there_is_no_theory_cells_are_empty_and_the_reason_is_told(
    config: Config, why: str
) -> None:
    expected = forecast_first_step(config, assemble(config))
    assert expected.rows == {}
    assert expected.note
    assert why in expected.note


def test_a_theory_that_fails_does_not_end_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: object) -> None:
        raise ArithmeticError("no root")

    monkeypatch.setattr("vgexp.assembly.predictors.predict", failing)
    done = runs.run(CONFIG, tmp_path / "a")
    assert done.summary["status"] == "completed"
    assert done.layers[NAMES].isna().all().all()


def test_rows_that_begin_before_and_end_after_step_0_keep_their_order() -> None:
    expected = Forecast({"a": ForecastRow("a", 1, None, 2.0, None, None)})
    rows = Rows("layers", {"step": [0, 0, 2], "name": ["a", "b", "a"]})
    beside = predictions.add_predictions(rows, expected)
    assert beside.columns["predicted_delta_rms"] == [2.0, None, None]
    later = Rows("layers", {"step": [2], "name": ["a"]})
    assert predictions.add_predictions(later, expected) is later
    steps = Rows("steps", {"step": [0]})
    assert predictions.add_predictions(steps, expected) is steps


# ---------------------------------------------------------------- the critical gain


@pytest.mark.parametrize(("activation", "gain"), [("tanh", 1.0), ("relu", math.sqrt(2))])
def test_the_critical_gain_of_xavier_is_the_textbooks(activation: str, gain: float) -> None:
    model = MlpConfig(activation=activation, init="lecun_normal", gain=0.3)
    found = set_critical_gain(Config(model=model)).model
    assert isinstance(found, MlpConfig)
    assert found.gain == pytest.approx(gain, rel=1e-6)


@pytest.mark.parametrize(
    "config",
    [
        Config(model=MlpConfig(norm="layer")),
        Config(model=CnnConfig(skip="residual"), data=DigitsConfig()),
        Config(model=MlpConfig(activation="gelu")),
        Config(model=LstmConfig(), data=AddingConfig()),
    ],
)
def test_a_critical_gain_that_theory_does_not_know_is_refused(config: Config) -> None:
    with pytest.raises(QuestionError, match=r"signal\.critical is true"):
        set_critical_gain(config)


def test_a_convolutional_net_has_a_critical_gain_too() -> None:
    """Xavier's fans are those of a kernel; far from borders it is as for a matrix."""
    model = CnnConfig(activation="relu", init="lecun_normal", gain=0.3)
    found = set_critical_gain(Config(model=model, data=DigitsConfig())).model
    assert isinstance(found, CnnConfig)
    assert found.gain == pytest.approx(math.sqrt(2), rel=1e-6)


def test_signal_measures_at_the_critical_gain(tmp_path: Path) -> None:
    words = ["model.depth=4", "model.activation=tanh", "signal.seeds=2", "signal.critical=true"]
    assert main(["signal", *words, f"hydra.run.dir={tmp_path / 'a'}", "output.quiet=true"]) == 0
    done = runs.load(tmp_path / "a")
    assert done.config.model.gain == pytest.approx(done.summary["critical_gain"])
    assert done.summary["chi"] == pytest.approx(1.0, abs=1e-3)


# ---------------------------------------------------------------- on screen


def said_of(words: list[str], folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """What `vgexp signal` says, in one line."""
    assert main(["signal", *words, "signal.seeds=3", f"hydra.run.dir={folder}"]) == 0
    return " ".join(capsys.readouterr().out.split())


def test_the_sentence_explains_the_factor(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["model.depth=8", "model.activation=sigmoid", "model.init=xavier_normal"]
    shown = said_of(words, tmp_path / "a", capsys)
    done = runs.load(tmp_path / "a")
    summary = done.summary
    root = math.sqrt(summary["weight_gain"] * summary["mean_slope"])
    assert f"the root of it, {root:.2g}, is the factor of delta_rms." in shown
    deltas = done.layers.query("seed == 0 and kind != 'readout'")["predicted_delta_rms"].tolist()
    # 1e-3 is passed between the fourth and the fifth layer before the last.
    logs = [math.log(deltas[-1 - back] / deltas[-1]) for back in (4, 5)]
    depth = 4 + (math.log(1e-3) - logs[0]) / (logs[1] - logs[0])
    assert 4 < depth < 5
    assert summary["predicted_signal_depth"] == pytest.approx(depth)
    assert f"1e-3 of the signal is left after {depth:.3g} layers." in shown
    assert f"Theory says {deltas[0] / deltas[-1]:.2g} in all," in shown
    gain = summary["critical_gain"]
    other = tmp_path / "b"
    said_of([*words, f"model.gain={gain}"], other, capsys)
    there = runs.load(other).summary
    # Theory's own, of the same batch.
    assert there["critical_attenuation"] is None
    tried = runs.load(other).layers.query("seed == 0")["predicted_delta_rms"].tolist()
    assert summary["critical_attenuation"] == pytest.approx(tried[0] / tried[-2])


def test_dropout_and_skips_are_counted_in_the_factor_that_is_explained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["model.depth=12", "model.width=256", "model.dropout=0.5"]
    shown = said_of(words, tmp_path / "dropout", capsys)
    assert "= 2 and 2 of dropout, norm, gate or scale: the root of it, 1.4, is the" in shown
    shown = said_of(["model.depth=6", "model.skip=residual"], tmp_path / "skip", capsys)
    assert "the branch passes back 1 of the mean square, the skip 1; the root of the sum, 1.4," in (
        shown
    )


def test_where_theory_has_no_answer_its_own_reason_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["model.activation=tanh", "model.width=8", "model.bias_std=10", "model.depth=4"]
    assert "No prediction: phi' is about 0 at nearly all units" in said_of(
        words, tmp_path / "a", capsys
    )


def test_what_borders_and_few_units_take_is_told_beside_the_factor(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = said_of(["model=cnn", "model.depth=6", "data.batch_size=8"], tmp_path / "a", capsys)
    summary = runs.load(tmp_path / "a").summary
    # A kernel that a stride does not thin out: 9 channels Var(W) of he_normal.
    assert summary["weight_gain"] == pytest.approx(2)
    there = summary["middle_factor"]
    assert there < 0.95
    words = (
        "the root of it, 1, would be the factor of delta_rms there; borders or few units make it"
    )
    assert words in said
    said = said_of(["model.depth=16", "model.width=12"], tmp_path / "b", capsys)
    assert "borders or few units make it 0.9" in said


def test_of_a_recurrent_net_the_factor_of_a_step_in_time_is_explained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["model=rnn", "model.depth=3", "model.width=32", "data=adding", "data.seq_len=20"]
    said = said_of([*words, "data.num_examples=64", "data.batch_size=16"], tmp_path / "a", capsys)
    summary = runs.load(tmp_path / "a").summary
    assert summary["middle_factor"] is None
    root = math.sqrt(summary["weight_gain"] * summary["mean_slope"])
    assert root == pytest.approx(summary["predicted_backward_factor_per_time_step"], rel=0.1)
    assert said.count("At the middle layer") == 1
    assert "is the factor of delta_rms a step" in said.partition("Back through time")[2]


def test_a_gain_that_is_critical_already_is_not_proposed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = said_of(["model.depth=6"], tmp_path / "a", capsys)
    assert "Deep layers end at chi = 1, between vanishing and exploding." in shown
    assert "model.gain" not in shown


@pytest.mark.parametrize(
    ("deltas", "depth"),
    [
        # Power laws are not continued, what falls alike is, as far as ten times the depth.
        ([1 / layer for layer in range(20, 0, -1)], math.nan),
        ([0.5 ** (10 - layer) for layer in range(1, 10)] + [1.0], math.log(1e3) / math.log(2)),
        ([2.0 ** (6 - layer) for layer in range(1, 6)] + [1.0], math.log(1e3) / math.log(2)),
        ([0.99 ** (6 - layer) for layer in range(1, 7)], math.nan),
        ([1.0, 0.0, 1.0], math.nan),
        ([1.0], math.nan),
    ],
)
def test_the_depth_at_which_a_signal_is_lost(deltas: list[float], depth: float) -> None:
    rows = pd.DataFrame(
        {
            "layer": range(1, len(deltas) + 1),
            "name": [f"w{n}" for n in range(len(deltas))],
            "kind": "linear",
            "predicted_delta_rms": deltas,
        }
    )
    assert signal_depth(rows) == pytest.approx(depth, nan_ok=True)


def test_show_says_of_a_signal_folder_what_signal_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["model.depth=3", "signal.seeds=2", f"hydra.run.dir={tmp_path / 'a'}"]
    assert main(["signal", *words]) == 0
    said = capsys.readouterr().out
    assert main(["show", str(tmp_path / "a")]) == 0
    result, _, _ = said.partition("Written to ")
    assert capsys.readouterr().out == f"{result}Run folder: {tmp_path / 'a'}\n"
    assert main(["show", str(tmp_path / "a"), "--metric", "grad_norm"]) == 2
    refused = capsys.readouterr()
    assert not refused.out
    assert "run of vgexp signal" in " ".join(refused.err.split())
    assert f"vgexp compare {tmp_path / 'a'} --layers grad_norm" in refused.err


def test_a_frame_of_two_seeds_is_not_taken_for_one(tmp_path: Path) -> None:
    done = runs.signal(changed(DEEP, signal=SignalConfig(seeds=2)), tmp_path / "a")
    assert isinstance(done.layers, pd.DataFrame)
    assert done.layers.groupby(["seed", "name"]).size().eq(1).all()
