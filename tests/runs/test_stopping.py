"""Rules that end a hopeless run early: what they need, what they leave alone, what remains.

Holds: runs/stopping.py, summaries.py, config/run.py, diagnosis/rules/training.py
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from trainers import BASE, changed

import vgexp
from vgexp import resuming, runs
from vgexp.config import Config, OutputConfig, ProbeConfig, SgdConfig, TrainConfig
from vgexp.diagnosis.causes import CAUSES
from vgexp.errors import QuestionError
from vgexp.quantities import VERDICTS
from vgexp.records import Floats, Rows
from vgexp.runs import making
from vgexp.runs.stopping import LiveRules, list_signs, require
from vgexp.summaries import status_of

PATIENCE = 40
RULES = TrainConfig(steps=200, stop_on=["vanishing"], stop_patience=PATIENCE)
QUIET = OutputConfig(quiet=True)
SICK = changed(
    BASE,
    model={"activation": "sigmoid", "depth": 9, "bias_std": 0.0},
    train=RULES,
    probe=ProbeConfig(every=10, activations_every=10, histograms_every=0, flight=5),
    output=QUIET,
    dtype="float32",
)
"""Nine sigmoid layers of width 7: the signal vanishes, and the loss stays where guessing is."""


class Facts:
    constant_loss, num_layers, tables, num_steps = 1.0, 3, ("layers", "steps", "evals"), 200


class Recorded:
    """Stands for a trainer: what rules ask of one."""

    def __init__(self, guess: float = 1.0) -> None:
        self.facts: Any = Facts()
        self.facts.constant_loss = guess
        self.state: Any = type("State", (), {"step": 0})()


def judged(
    losses: list[float],
    attenuations: dict[int, float],
    *stop_on: str,
    every: int = PATIENCE,
    patience: int | None = PATIENCE,
    guess: float = 1.0,
) -> list[str | None]:
    """The answers of the rules at each judgement, where rows come as they would of a run."""
    config = changed(SICK, train={"stop_on": [*stop_on], "stop_patience": patience})
    trainer = Recorded(guess)
    rules = LiveRules(config, trainer, warn=pytest.fail)  # type: ignore[arg-type]
    answers = []
    for step, loss in enumerate(losses):
        rules.note(Rows("steps", {"step": [step], "loss": Floats(np.array([loss]))}))
        if step in attenuations:
            deltas = [attenuations[step], 1.0, 1.0, 1.0]
            rules.note(
                Rows(
                    "layers",
                    {
                        "step": [step] * 4,
                        "layer": [1, 2, 3, 4],
                        "name": ["a", "b", "c", "d"],
                        "kind": ["linear"] * 3 + ["readout"],
                        "delta_rms": Floats(np.array(deltas)),
                    },
                )
            )
        trainer.state.step = step + 1
        if (step + 1) % every == 0:
            answers.append(rules(step + 1))
    return answers


FLAT = [1.0] * 160
"""Losses of a network that does not learn."""
LOST = dict.fromkeys(range(0, 160, 10), 1e-6)


# ---------------------------------------------------------------- when a rule holds


def test_a_signal_that_stays_lost_ends_a_run_that_does_not_learn() -> None:
    first, *_ = judged(FLAT, LOST, "vanishing")
    assert first is not None
    assert first.startswith("vanishing at every measured step since step 0")
    assert first.endswith("(train.stop_on), after 40 steps")


@pytest.mark.parametrize(
    ("losses", "attenuations"),
    [
        pytest.param(FLAT, {**LOST, 30: 0.5, 70: 0.5, 110: 0.5, 150: 0.5}, id="it came back"),
        pytest.param([*[1.0] * 20, *[0.5] * 140], LOST, id="it learned"),
        pytest.param([1 - 0.0012 * step for step in range(160)], LOST, id="the loss still falls"),
        pytest.param(FLAT, dict.fromkeys(LOST, 1e6), id="it explodes"),
        pytest.param(FLAT, {}, id="no signal was measured"),
    ],
)
def test_a_run_that_may_come_to_something_goes_on(
    losses: list[float], attenuations: dict[int, float]
) -> None:
    assert judged(losses, attenuations, "vanishing") == [None] * 4


def test_a_signal_that_vanishes_later_has_to_stay_so_for_the_patience() -> None:
    attenuations = {step: 0.5 if step < 50 else 1e-6 for step in LOST}
    one, two, three, _ = judged(FLAT, attenuations, "vanishing")
    assert (one, two) == (None, None)
    assert three is not None
    assert "since step 80" in three


def test_each_sign_ends_its_own_kind_of_run() -> None:
    steady, exploding = dict.fromkeys(LOST, 0.5), dict.fromkeys(LOST, 1e6)
    assert str(judged(FLAT, exploding, "exploding")[0]).startswith("exploding at every")
    assert str(judged(FLAT, steady, "stalled")[0]).startswith("stalled: ")
    assert judged(FLAT, LOST, "stalled") == [None] * 4


def test_what_was_learned_and_lost_for_the_patience_is_relapsed() -> None:
    losses = [*[1.0] * 30, *[0.2] * 30, *[1.0] * 100]
    answers = judged(losses, LOST, "relapsed", "vanishing")
    # Means over 20 steps lie at or above 0.9 from step 77 on.
    assert answers[:2] == [None, None]
    assert answers[2] == (
        "relapsed: it learned, and has lost it for 40 steps (train.stop_on), after 120 steps"
    )
    assert judged(losses[:90] + [0.2] * 70, LOST, "relapsed") == [None] * 4
    assert judged(losses, LOST, "vanishing") == [None] * 4


def test_where_no_guess_is_known_half_of_the_first_loss_counts_as_learned() -> None:
    assert judged(FLAT, LOST, "vanishing", guess=math.nan)[0] is not None
    learned = [*[1.0] * 20, *[0.4] * 140]
    assert judged(learned, LOST, "vanishing", guess=math.nan) == [None] * 4


def test_patience_is_a_part_of_the_run_and_at_least_a_hundred_steps() -> None:
    assert TrainConfig(steps=200).patience(200) == 100
    assert TrainConfig(steps=5000).patience(5000) == 1000
    assert TrainConfig(steps=5000).patience(5000, is_steady=True) == 2500
    for is_steady in (False, True):
        assert TrainConfig(stop_patience=7).patience(5000, is_steady=is_steady) == 7


def test_a_plateau_with_a_steady_signal_is_given_half_of_the_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("vgexp.config.run.LEAST_PATIENCE", 1)
    steady = dict.fromkeys(LOST, 0.5)
    answers = judged(FLAT, steady, "stalled", "vanishing", every=40, patience=None)
    assert answers[:2] == [None, None]
    assert str(answers[2]).startswith("stalled: ")
    assert str(judged(FLAT, LOST, "stalled", "vanishing", patience=None)[0]).startswith("vanish")


# ---------------------------------------------------------------- names


def test_the_names_are_verdicts_and_causes() -> None:
    signs = list_signs()
    assert {"vanishing", "exploding", "stalled", "relapsed", "diverged"} <= {*signs}
    assert {"healthy", "undecided", "unknown", "overfitting"}.isdisjoint(signs)
    assert {*signs} <= {*VERDICTS, *CAUSES}
    require(signs)


def test_a_wrong_name_is_one_question_before_anything_is_made(tmp_path: Path) -> None:
    config = changed(SICK, train={"stop_on": ["vanshing"]})
    with pytest.raises(QuestionError, match=r"(?s)'vanshing'.*nearest: vanishing"):
        vgexp.run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


# ---------------------------------------------------------------- whole runs


def text_of(folder: Path, table: str) -> str:
    return (folder / f"{table}.csv").read_text(encoding="utf-8")


def test_a_stopped_run_has_ended_with_whole_tables(tmp_path: Path) -> None:
    done = vgexp.run(SICK, tmp_path / "run")
    summary = done.summary
    assert summary["status"] == "stopped"
    assert summary["verdict"] == "vanishing"
    assert summary["reason"].startswith("vanishing at every measured step since step 0")
    assert summary["steps"] == 41 == len(done.steps)
    assert done.layers["step"].max() == 40
    assert sorted(done.flight["step"].unique()) == [36, 37, 38, 39, 40]
    assert "A rule ended the run early: vanishing" in done.diagnose().sentence
    before = {path.name: path.stat().st_mtime_ns for path in done.folder.iterdir()}
    assert not resuming.is_open(done.folder)
    assert runs.resume(done.folder).summary == summary
    assert before == {path.name: path.stat().st_mtime_ns for path in done.folder.iterdir()}


def test_until_the_last_step_a_stopped_run_is_the_same_as_one_without_rules(
    tmp_path: Path,
) -> None:
    stopped = vgexp.run(SICK, tmp_path / "stopped").folder
    plain = changed(SICK, train={"stop_on": [], "steps": 60}, probe={"flight": 0})
    whole = vgexp.run(plain, tmp_path / "whole").folder
    assert text_of(whole, "steps").startswith(text_of(stopped, "steps"))
    assert text_of(whole, "layers").startswith(text_of(stopped, "layers"))


def test_a_cause_ends_a_run_when_the_diagnosis_names_it(tmp_path: Path) -> None:
    config = changed(SICK, train={"stop_on": ["rate_too_large", "saturating_activation"]})
    summary = vgexp.run(config, tmp_path / "run").summary
    assert summary["status"] == "stopped"
    assert summary["reason"].startswith("saturating_activation since step 0 at layers.0")
    assert summary["cause_id"] == "saturating_activation"
    other = changed(SICK, train={"stop_on": ["rate_too_large"], "steps": 100})
    assert vgexp.run(other, tmp_path / "other").summary["status"] == "completed"


def test_a_healthy_run_is_as_without_rules(tmp_path: Path) -> None:
    signs = [name for name in list_signs() if name != "diverged"]
    healthy = changed(
        SICK,
        model={"activation": "tanh", "depth": 2},
        optimizer=SgdConfig(lr=0.3),
        train={"stop_on": signs, "steps": 120, "stop_patience": 80},
    )
    with_rules = vgexp.run(healthy, tmp_path / "rules")
    without = vgexp.run(changed(healthy, train={"stop_on": []}), tmp_path / "plain")
    assert with_rules.summary["status"] == "completed"
    assert with_rules.summary["verdict"] == "healthy"
    for table in ("layers", "steps", "evals", "parameters", "wiring"):
        assert text_of(with_rules.folder, table) == text_of(without.folder, table)


def test_diverged_may_be_named_as_well(tmp_path: Path) -> None:
    config = changed(
        SICK,
        model={"activation": "linear", "init": "he_normal"},
        optimizer=SgdConfig(lr=5.0),
        train={"stop_on": ["diverged"], "stop_on_divergence": False},
    )
    summary = vgexp.run(config, tmp_path / "run").summary
    assert summary["status"] == "diverged"
    assert summary["steps"] < 200


def test_a_run_that_goes_on_judges_the_rows_that_it_had(tmp_path: Path) -> None:
    config = changed(
        SICK,
        train={"stop_patience": 60, "stop_on": ["vanishing", "saturating_activation"]},
        run={"checkpoint_every": 25},
    )
    whole = vgexp.run(config, tmp_path / "whole").folder
    interrupt_after(config, tmp_path / "cut", 30)
    done = runs.resume(tmp_path / "cut")
    assert done.summary["status"] == "stopped"
    for table in ("layers", "steps", "evals", "flight"):
        assert text_of(done.folder, table) == text_of(whole, table)


def interrupt_after(config: Config, folder: Path, num_steps: int) -> None:
    """Makes a run that somebody interrupts, and leaves it as it is then."""

    kind = making.KINDS["train"]
    trainer = kind.build(config)

    def stop(*_: object) -> None:
        if trainer.state.step == num_steps:
            trainer.stop()

    trainer.state.optimizer.register_step_pre_hook(stop)
    with making.open_run(folder, config, "", "train"):
        kind.make(folder, config, trainer, runs.Display(True, draws=False))
    assert status_of(trainer) == "interrupted"
