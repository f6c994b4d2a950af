"""The whole search on tiny networks: cured, healthy, not cured, of the code; gone on with.

Holds: fixing/process.py, fixing/runner.py, fixing/record.py, fixing/trial.py
"""

from __future__ import annotations

import csv
import json
import math
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from trainers import changed

import vgexp
from vgexp import runs
from vgexp.config import (
    AdamConfig,
    Config,
    FixConfig,
    GaussianConfig,
    MlpConfig,
    OutputConfig,
    SpiralsConfig,
    TrainConfig,
)
from vgexp.errors import QuestionError
from vgexp.fixing import Cure, fix
from vgexp.fixing.change import Change
from vgexp.fixing.confirming import confirm
from vgexp.fixing.process import CURED, HEALTHY, NO_OVERRIDE, NOT_CURED, UNDECIDED
from vgexp.fixing.runner import Runner
from vgexp.fixing.trial import read_trial

SICK = Config(
    model=MlpConfig(depth=1, width=32),
    data=SpiralsConfig(num_examples=300, batch_size=32),
    optimizer=AdamConfig(lr=0.0),
    train=TrainConfig(steps=60, eval_every=0),
    output=OutputConfig(quiet=True),
    fix=FixConfig(seeds=2),
)
COMMAND = ("vgexp", "train", "optimizer.lr=0")


def composer_of(config: Config) -> Callable[[Sequence[str]], Config]:
    """Composes the learning rate, and refuses everything else."""

    def compose(words: Sequence[str]) -> Config:
        word = words[0]
        key, _, value = word.partition("=")
        if key != "optimizer.lr":
            raise QuestionError(f"unknown key: {key!r}\nallowed: optimizer.lr")
        return changed(config, optimizer={"lr": float(value)})

    return compose


def fix_it(config: Config, folder: Path, **changes: Any) -> Cure:
    return fix(config, folder, **{"compose": composer_of(config), "command": COMMAND, **changes})


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "fix.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def contents_of(folder: Path) -> dict[str, bytes]:
    """All files below a folder."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.fixture
def without_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is drawn, which would take longer than all runs."""
    monkeypatch.setattr("vgexp.fixing.process.draw_picture", lambda _: None)


@pytest.fixture(scope="module")
def cured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Cure, list[str]]:
    folder, said = tmp_path_factory.mktemp("fix") / "cured", list[str]()
    return folder, fix_it(SICK, folder, say=said.append), said


def test_the_override_is_proved_over_seeds(cured: tuple[Path, Cure, list[str]]) -> None:
    folder, cure, said = cured
    assert (cure.status, cure.exit_code) == (CURED, 0)
    assert cure.change is not None
    assert cure.change.override == "optimizer.lr=0.01"
    assert cure.cured_command == "vgexp train optimizer.lr=0.01"
    assert [trial.seed for trial in (*cure.before, *cure.after)] == [0, 1, 0, 1]
    assert {trial.cause for trial in cure.before} == {"no_update"}
    assert all(trial.is_healthy for trial in cure.after)
    assert {path.name for path in folder.iterdir()} == {
        *("before", "tried", "after", "fix.csv", "fix.json", "fix.png")
    }
    assert "Cause: no_update" in said
    assert any("may cost 120 steps (2 runs of 60)" in line for line in said)


def test_its_runs_are_ordinary_ones(cured: tuple[Path, Cure, list[str]]) -> None:
    folder, cure, _ = cured
    run = vgexp.load(folder / "after" / "1")
    assert run.config == changed(SICK, seed=1, fix=FixConfig(), optimizer={"lr": 0.01})
    assert run.summary["verdict"] == "healthy"
    head = (run.folder / "config.yaml").read_text().splitlines()[0]
    assert head == "# vgexp train optimizer.lr=0.01 train.steps=60 seed=1"
    assert vgexp.load(folder / "tried" / "1").config.train.steps == cure.tried[0].steps == 30


def test_the_records_say_what_was_tried(cured: tuple[Path, Cure, list[str]]) -> None:
    folder, cure, _ = cured
    tried = [row for row in rows_of(folder) if row["number"]]
    assert [(row["kind"], row["seed"], row["result"]) for row in tried] == [
        ("probe", "0", "kept"),
        ("full", "0", "kept"),
        ("full", "1", "kept"),
    ]
    assert float(tried[0]["cost"]) == pytest.approx(cure.spent, rel=1e-4)
    assert "not possible: unknown key: 'model.norm'" in {row["why"] for row in rows_of(folder)}
    told = json.loads((folder / "fix.json").read_text())
    assert (told["status"], told["cause"], told["override"]) == (
        *("cured", "no_update"),
        "optimizer.lr=0.01",
    )
    assert told["command"] == cure.cured_command
    assert [trial["verdict"] for trial in told["after"]] == ["healthy"] * 2


@pytest.mark.usefixtures("without_picture")
def test_the_same_call_repeats_no_run(cured: tuple[Path, Cure, list[str]]) -> None:
    folder, cure, _ = cured
    tables = {path: path.stat().st_mtime_ns for path in folder.glob("*/*/steps.csv")}
    again = fix_it(SICK, folder)
    assert again.cured_command == cure.cured_command
    assert {path: path.stat().st_mtime_ns for path in folder.glob("*/*/steps.csv")} == tables


def test_another_configuration_in_the_same_folder_is_refused(
    cured: tuple[Path, Cure, list[str]], tmp_path: Path
) -> None:
    folder, _, _ = cured
    written = contents_of(folder)
    for own_run in (None, folder / "before" / "0"):
        with pytest.raises(QuestionError, match="holds a search for a cure of another conf"):
            fix_it(changed(SICK, model={"width": 16}), folder, own_run=own_run)
    # Also where the sick run is not there, as it is one of the user's.
    (tmp_path / "fix.json").write_bytes((folder / "fix.json").read_bytes())
    with pytest.raises(QuestionError, match="holds a search for a cure of another conf"):
        fix_it(changed(SICK, seed=5), tmp_path)
    assert contents_of(folder) == written
    assert {path.name for path in tmp_path.iterdir()} <= {"fix.json", ".lock"}


@pytest.mark.usefixtures("without_picture")
def test_a_repeat_that_is_interrupted_leaves_the_records(
    cured: tuple[Path, Cure, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _, _ = cured
    written = contents_of(folder)

    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("vgexp.fixing.process.run_seeds", stop)
        with pytest.raises(KeyboardInterrupt):
            fix_it(SICK, folder)
    assert contents_of(folder) == written


def test_a_proof_stays_until_another_change_is_confirmed(
    cured: tuple[Path, Cure, list[str]], tmp_path: Path
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(cured[0], folder)
    runner = Runner(folder, COMMAND, counts_epochs=False)
    slow, good, other = (
        Change((f"optimizer.lr={lr}",), changed(SICK, optimizer={"lr": lr}), (1.0,))
        for lr in (1e-9, 0.01, 0.02)
    )
    proof = contents_of(folder / "after")

    def confirm_first(*changes: Change) -> list[Path]:
        found = confirm(changes, runner, [0, 1], 60, lambda _: None, 1, lambda _, steps: steps)
        assert found is not None
        assert found[0] is changes[-1]
        return [trial.folder for trial in found[1]]

    in_place = [folder / "after" / seed for seed in "01"]
    assert confirm_first(slow, good) == in_place
    assert contents_of(folder / "after") == proof
    assert [path.name for path in (folder / "dropped" / "1").iterdir()] == ["0"]
    assert confirm_first(other) == in_place
    assert [vgexp.load(path).config.optimizer.lr for path in in_place] == [0.02, 0.02]
    (dropped,) = (path for path in (folder / "dropped").iterdir() if path.name != "1")
    assert contents_of(dropped) == proof


@pytest.mark.usefixtures("without_picture")
def test_an_interrupted_search_goes_on_where_it_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish, made = runs.finish, list[Path]()

    def stop_third(config: Config, folder: Path, **display: Any) -> Any:
        if len(made) == 2:
            raise KeyboardInterrupt
        made.append(folder)
        return finish(config, folder, **display)

    config = changed(SICK, fix=FixConfig(seeds=1))
    with monkeypatch.context() as patch:
        patch.setattr(runs, "finish", stop_third)
        with pytest.raises(KeyboardInterrupt):
            fix_it(config, tmp_path)
    assert [row["kind"] for row in rows_of(tmp_path) if row["number"]] == ["probe"]
    assert json.loads((tmp_path / "fix.json").read_text())["status"] == "searching"
    times = {folder: (folder / "steps.csv").stat().st_mtime_ns for folder in made}
    assert fix_it(config, tmp_path).status == CURED
    assert {folder: (folder / "steps.csv").stat().st_mtime_ns for folder in made} == times


def test_a_run_of_ones_own_gives_its_tables(
    cured: tuple[Path, Cure, list[str]], tmp_path: Path
) -> None:
    folder, _, _ = cured
    own = folder / "before" / "0"
    cure = fix_it(changed(SICK, fix=FixConfig(keep=["optimizer.lr"])), tmp_path, own_run=own)
    assert cure.before[0].folder == own
    assert not (tmp_path / "before").exists()
    assert (cure.status, cure.exit_code) == (NO_OVERRIDE, 3)
    assert {each.why for each in cure.left_out} >= {"fix.keep: it changes optimizer.lr"}


def test_the_time_of_a_step_is_the_processors_and_on_cuda_the_best_rate(
    cured: tuple[Path, Cure, list[str]], tmp_path: Path
) -> None:
    folder, _, _ = cured
    run = tmp_path / "run"
    shutil.copytree(folder / "after" / "0", run)
    summary = json.loads((run / "summary.json").read_text())
    assert read_trial(run, 60).seconds_per_step == summary["processor_seconds_per_step"] > 0
    (run / "timing.csv").write_text("step,seconds,examples_per_second\n1,1,64\n60,9,640\n")
    (run / "summary.json").write_text(json.dumps({**summary, "device": "cuda:0"}))
    assert read_trial(run, 60).seconds_per_step == 32 / 640
    del summary["processor_seconds_per_step"]
    (run / "summary.json").write_text(json.dumps(summary))
    assert math.isnan(read_trial(run, 60).seconds_per_step)


def test_what_is_healthy_is_left_as_it_is(
    cured: tuple[Path, Cure, list[str]], tmp_path: Path
) -> None:
    folder, _, _ = cured
    own = folder / "after" / "0"
    cure = fix_it(vgexp.load(own).config, tmp_path, own_run=own)
    assert (cure.status, cure.exit_code, cure.tried) == (HEALTHY, 0, [])


def test_a_run_too_short_to_tell_is_undecided(tmp_path: Path) -> None:
    cure = fix_it(changed(SICK, optimizer={"lr": 1e-5}, train=TrainConfig(steps=2)), tmp_path)
    assert (cure.status, cure.exit_code) == (UNDECIDED, 0)


def test_where_nothing_cures_all_that_was_tried_is_told(tmp_path: Path) -> None:
    random = GaussianConfig(num_examples=300, features=4, num_classes=3, batch_size=32)
    config = changed(SICK, data=random, fix=FixConfig(seeds=1))
    cure = fix_it(config, tmp_path)
    assert (cure.status, cure.exit_code, cure.change) == (NOT_CURED, 3, None)
    assert [each.result for each in cure.tried][-1] == "dropped"
    assert (tmp_path / "dropped" / "1" / "0" / "steps.csv").is_file()
    assert [row["folder"] for row in rows_of(tmp_path) if row["kind"] == "full"] == [
        str(each.trial.folder) for each in cure.tried if each.kind == "full" and each.trial
    ]
    assert all(each.trial.folder.is_dir() for each in cure.tried if each.trial)
    assert not (tmp_path / "fix.png").exists()


def test_an_unknown_key_to_keep_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(QuestionError, match="nearest: optimizer"):
        fix_it(changed(SICK, fix=FixConfig(keep=["optimizr"])), tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_trial_says_of_a_run_what_its_diagnosis_says(
    cured: tuple[Path, Cure, list[str]], tmp_path: Path
) -> None:
    folder, _, _ = cured
    short = runs.run(changed(SICK, optimizer={"lr": 1e-5}, train=TrainConfig(steps=2)), tmp_path)
    found = [path.parent for path in folder.glob("*/*/summary.json")]
    for run in (*found, short.folder):
        trial, told = read_trial(run, 60), vgexp.load(run).diagnose()
        assert (trial.health, trial.cause) == (told.health, told.cause), run
    assert read_trial(short.folder, 2).health == "undecided"


@pytest.mark.usefixtures("without_picture")
def test_of_a_cure_of_two_keys_the_one_that_cures_alone_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def compose(words: Sequence[str]) -> Config:
        texts = {word.partition("=")[0]: word.partition("=")[2] for word in words}
        if not texts.keys() <= {"optimizer.lr", "model.gain"}:
            raise QuestionError("unknown key\nallowed: others")
        values = {key: float(text) for key, text in texts.items()}
        return changed(
            SICK,
            fix=FixConfig(seeds=1),
            optimizer={"lr": values.get("optimizer.lr", 0.0)},
            model={"gain": values.get("model.gain", 1.0)},
        )

    both = ("model.gain=1.1", "optimizer.lr=0.01")
    monkeypatch.setattr("vgexp.fixing.candidates.list_words", lambda *_: [[both]])
    cure = fix_it(compose([]), tmp_path, compose=compose)
    assert cure.status == CURED
    assert cure.cured_command == "vgexp train optimizer.lr=0.01"
    full = [each.change.words for each in cure.tried if each.kind == "full"]
    assert full == [both, both[:1], both[1:]]
    assert vgexp.load(tmp_path / "after" / "0").config.model == SICK.model
    assert (tmp_path / "dropped").is_dir()
