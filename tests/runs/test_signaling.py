"""`vgexp signal`: networks at initialisation, one a seed, are those that training begins with.

Holds: runs/signaling.py, cli/actions.py, report/terminal/at_start.py, training/trainer.py
"""

from __future__ import annotations

import dataclasses
import gc
import json
import math
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from small_models import MODELS
from small_runs import CONFIG, DIVERGING, summary_of
from trainers import changed

import vgexp
from vgexp import folders, runs, tables
from vgexp.assembly import assemble
from vgexp.cli.main import main
from vgexp.config import (
    AddingConfig,
    Config,
    LstmConfig,
    OutputConfig,
    RunConfig,
    SignalConfig,
)
from vgexp.diagnosis import start_sentence
from vgexp.diagnosis.at_start import average_geometrically
from vgexp.errors import QuestionError
from vgexp.quantities import SEED, TABLES

THREE = changed(CONFIG, seed=4, signal=SignalConfig(seeds=3))
WITH_DROPOUT = changed(THREE, model={"dropout": 0.3, "norm": "batch"}, train={"accumulate": 2})
IN_HALF = changed(THREE, dtype="bfloat16")


@pytest.mark.parametrize("config", [THREE, WITH_DROPOUT, IN_HALF])
def test_the_rows_of_a_seed_are_those_that_training_with_it_begins_with(
    config: Config, tmp_path: Path
) -> None:
    signal = runs.signal(config, tmp_path / "signal").layers
    assert signal["seed"].unique().tolist() == [4, 5, 6]
    assert list(signal.columns) == [c.name for c in (*TABLES["layers"], SEED)]
    for seed in (4, 5, 6):
        trained = runs.run(changed(config, seed=seed), tmp_path / str(seed)).layers
        expected = trained[trained["step"] == 0].reset_index(drop=True)
        measured = signal[signal["seed"] == seed].drop(columns="seed").reset_index(drop=True)
        pd.testing.assert_frame_equal(measured, expected, check_exact=True)


def test_narrow_tables_of_step_0_have_a_seed_as_well(tmp_path: Path) -> None:
    config = Config(
        model=LstmConfig(depth=2, width=5),
        data=AddingConfig(num_examples=64, seq_len=12, batch_size=16),
        signal=SignalConfig(seeds=2),
        output=OutputConfig(quiet=True),
    )
    done = runs.signal(config, tmp_path / "a")
    assert not (done.folder / "steps.csv").exists()
    time = done.table("time")
    assert time["seed"].unique().tolist() == [0, 1]
    assert time["step"].eq(0).all()
    logs = []
    for seed in (0, 1):
        of_seed = time[(time["seed"] == seed) & (time["name"] == "layers.1.h")]
        logs.append(-np.polyfit(of_seed["t"], np.log(of_seed["delta_rms"]), 1)[0])
    factor = done.summary["backward_factor_per_time_step"]
    assert factor == pytest.approx(math.exp(sum(logs) / 2))
    said = start_sentence(done.summary)
    assert "Back through time the first watched state gets" in said
    assert f"what the last gets, a fitted factor of {factor:.2g} a step." in said


@pytest.mark.parametrize("name", MODELS)
def test_a_network_that_was_measured_leaves_memory_at_once(name: str) -> None:
    trainer = assemble(MODELS[name])
    trainer.first_step()
    left = [weakref.ref(parameter) for parameter in trainer.state.model.parameters()]
    gc.disable()
    try:
        assert all(each() is not None for each in left)
        del trainer
        assert not any(each() is not None for each in left)
    finally:
        gc.enable()


def test_the_summary_has_geometric_means_over_seeds(tmp_path: Path) -> None:
    done = runs.signal(THREE, tmp_path / "a")
    by_layer = done.layers.pivot_table(index="seed", columns="layer", values="delta_rms")
    logs = [math.log(row[1] / row[3]) for _, row in by_layer.iterrows()]
    mean = sum(logs) / 3
    assert done.summary["attenuation"] == pytest.approx(math.exp(mean), rel=1e-12)
    spread = math.sqrt(sum((x - mean) ** 2 for x in logs) / 2)
    assert done.summary["attenuation_log_std"] == pytest.approx(spread, rel=1e-9)
    slopes = [
        -np.polyfit([1, 2, 3], np.log(row[[1, 2, 3]]), 1)[0] for _, row in by_layer.iterrows()
    ]
    factor = math.exp(sum(slopes) / 3)
    assert done.summary["backward_factor_per_layer"] == pytest.approx(factor, rel=1e-9)
    assert done.summary["num_seeds"] == 3
    assert done.summary["status"] == "completed"
    assert done.summary["unseen"] == []


@pytest.mark.parametrize(
    ("values", "mean"),
    [
        ([2.0, 8.0], 4.0),
        ([2.0, math.nan, 8.0], 4.0),
        ([0.0, 8.0], 0.0),
        ([0.0, math.inf], 0.0),
        ([3.0, math.inf], math.inf),
        ([1e-300, 1e300], 1.0),
    ],
)
def test_a_geometric_mean_knows_zero_and_infinity(values: list[float], mean: float) -> None:
    assert average_geometrically(values)[0] == pytest.approx(mean)


def test_the_geometric_mean_of_nothing_is_nan() -> None:
    assert all(map(math.isnan, average_geometrically([math.nan])))
    assert average_geometrically([5.0])[0] == pytest.approx(5.0)
    assert math.isnan(average_geometrically([5.0])[1])


def test_a_network_that_overflows_at_once_is_a_result(tmp_path: Path) -> None:
    config = changed(DIVERGING, model={"gain": 1e30, "depth": 4}, signal=SignalConfig(seeds=2))
    done = runs.signal(config, tmp_path / "a")
    assert done.summary["status"] == "completed"
    assert done.layers["seed"].nunique() == 2


# ---------------------------------------------------------------- cut short, and again


def test_what_was_cut_short_is_measured_anew_and_equal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = runs.signal(THREE, tmp_path / "whole")
    original = runs.signaling.build_trainer
    calls: list[int] = []

    def interrupted(config: Config) -> Any:
        calls.append(config.seed)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(config)

    monkeypatch.setattr(runs.signaling, "build_trainer", interrupted)
    cut = tmp_path / "cut"
    with pytest.raises(KeyboardInterrupt):
        runs.signal(THREE, cut)
    assert summary_of(cut)["status"] == "interrupted"
    assert folders.verb_of(cut) == "signal"
    done = vgexp.resume(cut)
    assert done.summary["status"] == "completed"
    assert (cut / "layers.csv").read_bytes() == (whole.folder / "layers.csv").read_bytes()
    assert vgexp.resume(cut).folder == cut


def test_a_failure_is_in_the_summary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vgexp.training import Trainer

    def failing(_: Trainer) -> None:
        raise RuntimeError("no memory")

    monkeypatch.setattr(Trainer, "first_step", failing)
    with pytest.raises(RuntimeError):
        runs.signal(THREE, tmp_path / "a")
    assert summary_of(tmp_path / "a")["reason"] == "RuntimeError: no memory"


def test_a_folder_with_a_run_is_refused_and_one_of_another_configuration_too(
    tmp_path: Path,
) -> None:
    runs.signal(THREE, tmp_path / "a")
    with pytest.raises(QuestionError, match="holds a run already"):
        runs.signal(THREE, tmp_path / "a")
    with pytest.raises(QuestionError, match="seed"):
        runs.finish(changed(THREE, seed=9), tmp_path / "a", verb="signal")
    done = runs.finish(THREE, tmp_path / "a", verb="signal")
    assert done.summary["num_seeds"] == 3


# ---------------------------------------------------------------- the command line

WORDS = [
    "model.depth=3",
    "model.width=8",
    "data=gaussian",
    "data.num_examples=160",
    "signal.seeds=2",
]


def test_the_command_writes_a_folder_and_shows_layers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["signal", *WORDS, "model.activation=sigmoid"]) == 0
    shown = capsys.readouterr().out
    assert "geometric means over 2 seeds" in shown
    assert max(map(len, shown.splitlines())) <= 80
    (folder,) = tmp_path.glob("outputs/signal/mlp/*")
    assert (folder / "config.yaml").read_text().startswith("# vgexp signal model.depth=3")
    config = ["--config-dir", str(folder), "--config-name", "config"]
    assert main(["signal", *config, "hydra.run.dir=again"]) == 0
    assert Path("again/layers.csv").read_bytes() == (folder / "layers.csv").read_bytes()


def test_a_sweep_goes_on_where_it_was_cut_short(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "sweep"
    words = [*WORDS, "model.gain=0.5,1,2", f"hydra.sweep.dir={place}"]
    assert main(["signal", "-m", *words]) == 0
    jobs = pd.read_csv(place / "sweep.csv")
    assert jobs["model.gain"].tolist() == [0.5, 1.0, 2.0]
    assert jobs["backward_factor_per_layer"].is_monotonic_increasing
    before = (place / "1" / "layers.csv").read_bytes()
    for name in ("layers.csv", "summary.json"):
        (place / "1" / name).unlink()
    capsys.readouterr()
    assert main(["resume", str(place)]) == 0
    assert "2 of 3 jobs have ended" in capsys.readouterr().out
    assert (place / "1" / "layers.csv").read_bytes() == before
    assert folders.verb_of(place / "1") == "signal"


def test_signal_runs_are_compared_by_what_they_have(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for depth in (3, 6):
        words = [*WORDS[1:], f"model.depth={depth}", f"hydra.run.dir={tmp_path / str(depth)}"]
        assert main(["signal", *words, "output.quiet=true"]) == 0
    assert main(["compare", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "attenuation" in shown
    assert "loss" not in shown


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["signal.seeds=0"], "signal.seeds is 0"),
        (["signal.seed=3"], "nearest: seeds"),
        (["model=mpl"], "mlp"),
    ],
)
def test_a_wrong_question_is_answered(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["signal", *words]) == 2
    assert said in capsys.readouterr().err


def test_help_is_that_of_the_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["signal", "--help"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("vgexp signal [flags] [overrides]")
    assert "signal.seeds=10" in shown
    assert max(map(len, shown.splitlines())) <= 80
    assert main(["train", "--help"]) == 0
    assert capsys.readouterr().out.startswith("vgexp train [flags] [overrides]")


def test_training_says_that_it_does_not_measure_what_signal_measures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["model.depth=2", "train.steps=2", "signal.jacobian=true", "signal.paths=true"]
    assert main(["train", *words, f"hydra.run.dir={tmp_path / 'a'}"]) == 0
    warning = "warning: signal.jacobian, signal.paths: of vgexp signal alone"
    assert warning in capsys.readouterr().err
    assert not (tmp_path / "a" / "jacobian.csv").exists()
    assert main(["train", "model.depth=2", "train.steps=2", f"hydra.run.dir={tmp_path / 'b'}"]) == 0
    assert "warning" not in capsys.readouterr().err


def test_training_takes_no_notice_of_how_many_seeds_signal_has(tmp_path: Path) -> None:
    one = runs.run(THREE, tmp_path / "a").folder
    other = runs.run(dataclasses.replace(THREE, signal=SignalConfig()), tmp_path / "b").folder
    for table in ("layers", "steps", "evals"):
        assert (one / f"{table}.csv").read_bytes() == (other / f"{table}.csv").read_bytes()


def test_a_table_from_before_there_were_predictions_is_read(tmp_path: Path) -> None:
    folder = runs.run(changed(CONFIG, run=RunConfig(checkpoint_every=0)), tmp_path / "a").folder
    frame = tables.read(folder, "layers")
    kept = [name for name in frame.columns if not name.startswith("predicted_")]
    lines = (folder / "layers.csv").read_text().splitlines()
    old = [",".join(line.split(",")[: len(kept)]) for line in lines]
    (folder / "layers.csv").write_text("\n".join(old) + "\n")
    read = tables.read(folder, "layers")
    pd.testing.assert_frame_equal(read[kept], frame[kept], check_dtype=False)
    assert read.drop(columns=kept).isna().all(axis=None)
    assert json.loads((folder / "summary.json").read_text())["status"] == "completed"
