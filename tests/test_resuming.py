"""A run that was cut short goes on, and its tables end as if nothing had happened.

Holds: resuming.py, checkpoints/saved.py, cli/resume.py, runs/training.py, sinks/csv_files.py
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from fault_cases.children import forked
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import vgexp
from vgexp import checkpoints, folders, resuming
from vgexp.cli import main
from vgexp.config import (
    AdamConfig,
    AgcClipConfig,
    AutoClipConfig,
    Config,
    GaussianConfig,
    MlpConfig,
    MomentumConfig,
    OutputConfig,
    PlateauConfig,
    ProbeConfig,
    RmspropConfig,
    RunConfig,
    SgdConfig,
    SpiralsConfig,
    TrainConfig,
    WarmupCosineConfig,
)
from vgexp.errors import QuestionError
from vgexp.records import Rows
from vgexp.sinks.csv_files import CsvFiles

RECORDED = Path(__file__).parent / "recorded"

EXACT = ("layers.csv", "steps.csv", "evals.csv", "histograms.csv")
NUM_STEPS = 40

BASE = Config(
    model=MlpConfig(depth=4, width=16, activation="tanh", init="xavier_normal"),
    data=GaussianConfig(num_examples=256, batch_size=16),
    optimizer=SgdConfig(lr=0.1),
    train=TrainConfig(steps=NUM_STEPS, eval_every=10),
    probe=ProbeConfig(every=3, activations_every=5, histograms_every=4),
    run=RunConfig(checkpoint_every=7),
    output=OutputConfig(quiet=True),
)
CASES: dict[str, dict[str, Any]] = {
    "sgd": {},
    "momentum": {"optimizer": MomentumConfig(lr=0.05)},
    "adam": {"optimizer": AdamConfig(lr=0.01), "scheduler": WarmupCosineConfig()},
    "rmsprop": {"optimizer": RmspropConfig(lr=0.001), "dtype": "float64"},
    "plateau": {"scheduler": PlateauConfig()},
    "auto": {"clip": AutoClipConfig(50)},
    "agc": {"clip": AgcClipConfig(0.01)},
    "batch": {"model": MlpConfig(depth=4, width=16, norm="batch", activation="prelu")},
    "highway": {"model": MlpConfig(depth=4, width=16, skip="highway", norm="layer")},
    "accumulate": {"train": TrainConfig(steps=NUM_STEPS, eval_every=10, accumulate=3)},
    "spirals": {"data": SpiralsConfig(batch_size=32)},
    "goes_on": {
        "optimizer": SgdConfig(lr=1e30),
        "model": MlpConfig(depth=4, width=16),
        "train": TrainConfig(steps=NUM_STEPS, eval_every=10, stop_on_divergence=False),
    },
}


class Power(BaseException):
    """The power goes: nobody catches it, no file is closed well."""


def case(name: str) -> Config:
    return dataclasses.replace(BASE, **CASES[name])


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in EXACT}


def cut(
    monkeypatch: pytest.MonkeyPatch, step: int, strike: Callable[[], None], *, torn: bool = False
) -> None:
    """Calls `strike` when the row of `step` is written, half of it if `torn`."""
    write = CsvFiles.__call__

    def written(self: CsvFiles, rows: Rows) -> None:
        if rows.table == "steps" and step in rows.columns["step"]:
            monkeypatch.setattr(CsvFiles, "__call__", write)
            if torn:
                file = self._files["steps"]
                os.write(file._descriptor, b"17,0,0.")
            strike()
        write(self, rows)

    monkeypatch.setattr(CsvFiles, "__call__", written)


def fall(folder: Path, config: Config, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Trains until the power goes in the middle of a row of `steps.csv`."""

    def gone() -> None:
        raise Power

    cut(monkeypatch, step, gone, torn=True)
    monkeypatch.setattr("vgexp.runs.training._write_end", lambda *_: None)
    with pytest.raises(Power):
        vgexp.run(config, folder)
    monkeypatch.undo()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], dict[str, bytes]]:
    """The tables of a case that was never cut short."""
    known: dict[str, dict[str, bytes]] = {}

    def tables(name: str) -> dict[str, bytes]:
        if name not in known:
            folder = tmp_path_factory.mktemp("whole") / name
            vgexp.run(case(name), folder)
            known[name] = contents(folder)
        return known[name]

    return tables


Whole = Callable[[str], dict[str, bytes]]


# Before the first checkpoint all of them begin anew.
@pytest.mark.parametrize(
    ("name", "step"), [("sgd", 0), *itertools.product(CASES, (8, NUM_STEPS - 1))]
)
def test_a_loss_of_power_changes_no_table(
    name: str, step: int, whole: Whole, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = whole(name)
    fall(tmp_path / "a", case(name), monkeypatch, step)
    assert contents(tmp_path / "a") != expected
    run = vgexp.resume(tmp_path / "a")
    assert contents(tmp_path / "a") == expected
    assert run.summary["status"] in ("completed", "diverged")
    assert run.summary["steps"] == NUM_STEPS
    assert run.summary["seconds"] >= 0


@pytest.mark.parametrize("name", ["sgd", "adam", "auto"])
def test_ctrl_c_leaves_a_checkpoint_of_the_step_at_hand(
    name: str, whole: Whole, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = whole(name)
    cut(monkeypatch, 10, lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        vgexp.run(case(name), tmp_path / "a")
    stopped = vgexp.load(tmp_path / "a").summary
    assert stopped["status"] == "interrupted"
    found = checkpoints.load(tmp_path / "a" / checkpoints.NEWEST)
    # One more step may follow, measured whole.
    assert found.step <= stopped["steps"] <= found.step + 1 < NUM_STEPS
    vgexp.resume(tmp_path / "a")
    assert contents(tmp_path / "a") == expected


def test_a_run_can_fall_again_and_again(
    whole: Whole, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = whole("adam")
    fall(tmp_path / "a", case("adam"), monkeypatch, 9)

    def gone() -> None:
        raise Power

    for step in (9, 15, 15, 30, 39):
        cut(monkeypatch, step, gone, torn=True)
        monkeypatch.setattr("vgexp.runs.training._write_end", lambda *_: None)
        with pytest.raises(Power):
            vgexp.resume(tmp_path / "a")
        monkeypatch.undo()
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    vgexp.resume(tmp_path / "a")
    assert contents(tmp_path / "a") == expected


def test_at_most_two_checkpoints_are_kept_and_either_will_do(
    whole: Whole, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = whole("sgd")
    fall(tmp_path / "a", case("sgd"), monkeypatch, 30)
    kept = sorted(path.name for path in (tmp_path / "a").glob("*checkpoint*"))
    assert {p: checkpoints.load(tmp_path / "a" / p).step for p in kept} == {
        checkpoints.NEWEST: 28,
        checkpoints.PREVIOUS: 21,
    }
    for broken in ([checkpoints.NEWEST], [checkpoints.NEWEST, checkpoints.PREVIOUS]):
        folder = tmp_path / f"b{len(broken)}"
        shutil.copytree(tmp_path / "a", folder)
        for name in broken:
            (folder / name).write_bytes((folder / name).read_bytes()[:100])
        vgexp.resume(folder)
        assert contents(folder) == expected


def test_tables_shorter_than_the_newest_checkpoint_are_gone_on_with_from_an_older_one(
    whole: Whole, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = whole("sgd")
    fall(tmp_path / "a", case("sgd"), monkeypatch, 30)
    newest = checkpoints.load(tmp_path / "a" / checkpoints.NEWEST)
    os.truncate(tmp_path / "a" / "layers.csv", newest.tables["layers"][0] - 1)
    config = case("sgd")
    versions = newest.versions
    story = "checkpoint.pt does not fit layers; going on from step 21"
    assert resuming.start_of(tmp_path / "a", config, versions).story == story
    vgexp.resume(tmp_path / "a")
    assert contents(tmp_path / "a") == expected


@pytest.fixture(scope="module")
def fallen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose power went at step 30."""
    folder = tmp_path_factory.mktemp("fallen") / "run"
    with pytest.MonkeyPatch.context() as monkeypatch:
        fall(folder, case("sgd"), monkeypatch, 30)
    return folder


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_a_checkpoint_with_a_changed_byte_is_unusable_or_says_the_same(
    fallen: Path, tmp_path: Path, data: st.DataObject
) -> None:
    before = checkpoints.load(fallen / checkpoints.NEWEST)
    content = bytearray((fallen / checkpoints.NEWEST).read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= data.draw(st.integers(1, 255))
    path = tmp_path / "changed.pt"
    path.write_bytes(content)
    try:
        after = checkpoints.load(path)
    except checkpoints.UnusableError:
        return
    assert checkpoints.digest(vars(after)) == checkpoints.digest(vars(before))


def test_a_checkpoint_executes_nothing(tmp_path: Path) -> None:
    class Malicious:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(tmp_path / "executed"),)

    torch.save({"format": 1, "state": Malicious()}, tmp_path / "bad.pt")
    with pytest.raises(checkpoints.UnusableError):
        checkpoints.load(tmp_path / "bad.pt")
    assert not (tmp_path / "executed").exists()


def test_another_configuration_is_refused_with_the_difference(fallen: Path, tmp_path: Path) -> None:
    shutil.copytree(fallen, tmp_path / "a")
    folders.write_config(
        tmp_path / "a", dataclasses.replace(BASE, optimizer=SgdConfig(lr=0.2), device="cpu"), ""
    )
    before = contents(tmp_path / "a")
    with pytest.raises(QuestionError) as refused:
        vgexp.resume(tmp_path / "a")
    assert "another configuration\n  optimizer.lr: 0.1 then, 0.2 now\n" in str(refused.value)
    assert "device" not in str(refused.value)
    assert contents(tmp_path / "a") == before


def test_another_version_is_refused_with_the_difference(
    fallen: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(fallen, tmp_path / "a")
    monkeypatch.setattr("vgexp.__version__", "9.9")
    with pytest.raises(QuestionError, match=r"vgexp: .* then, 9.9 now"):
        vgexp.resume(tmp_path / "a")


def test_a_table_of_another_version_is_never_cut(fallen: Path, tmp_path: Path) -> None:
    shutil.copytree(fallen, tmp_path / "a")
    for name in (checkpoints.NEWEST, checkpoints.PREVIOUS):
        (tmp_path / "a" / name).unlink()
    (tmp_path / "a" / "evals.csv").write_text("step,loss\n0,1\n")
    with pytest.raises(QuestionError, match="does not begin"):
        vgexp.resume(tmp_path / "a")
    assert (tmp_path / "a" / "evals.csv").read_text() == "step,loss\n0,1\n"


def test_a_run_that_has_ended_is_left_as_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    vgexp.run(BASE, tmp_path / "a")
    before = {path: path.read_bytes() for path in (tmp_path / "a").iterdir()}
    vgexp.resume(tmp_path / "a")
    assert main.main(["resume", str(tmp_path / "a")]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'a'} has ended: completed\n"
    assert {path: path.read_bytes() for path in (tmp_path / "a").iterdir()} == before


def test_a_second_process_is_refused(fallen: Path, tmp_path: Path) -> None:
    shutil.copytree(fallen, tmp_path / "a")
    with folders.occupy(tmp_path / "a"), pytest.raises(QuestionError, match="another process"):
        vgexp.resume(tmp_path / "a")


def test_checkpoints_change_no_table(tmp_path: Path, whole: Whole) -> None:
    without = dataclasses.replace(BASE, run=RunConfig(checkpoint_every=0))
    vgexp.run(without, tmp_path / "a")
    assert contents(tmp_path / "a") == whole("sgd")
    assert not list((tmp_path / "a").glob("*checkpoint*"))


def test_where_there_is_no_room_for_checkpoints_the_one_before_stays_and_training_goes_on(
    whole: Whole,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    save, num_saved = torch.save, []

    def full(content: Any, file: Any) -> None:
        num_saved.append(file)
        save(content, file)
        if len(num_saved) > 1:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    run = vgexp.run(BASE, tmp_path / "a")
    assert run.summary["status"] == "completed"
    assert contents(tmp_path / "a") == whole("sgd")
    assert checkpoints.load(tmp_path / "a" / checkpoints.NEWEST).step == 7
    assert not list((tmp_path / "a").glob(".*.new"))
    said = " ".join(capsys.readouterr().err.split())
    warning = (
        "warning: no checkpoint at step {}: [Errno 28] No space left on device; training goes on"
    )
    assert said == " ".join(warning.format(step) for step in (14, 21, 28, 35))


ASKED = [
    *("train", "data=gaussian", "model.depth=3", "model.width=16", "train.steps=60"),
    *("probe.every=10", "train.eval_every=20", "run.checkpoint_every=10", "device=cpu"),
    "output.figures=false",
]


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that nobody kills."""
    folder = tmp_path_factory.mktemp("killed") / "once"
    assert main.main([*ASKED, f"hydra.run.dir={folder}"]) == 0
    return folder


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_process_is_gone_on_with_from_the_command_line(
    how: signal.Signals, tmp_path: Path, once: Path
) -> None:
    again, said = tmp_path / "again", tmp_path / "said"

    def before() -> None:
        cut(pytest.MonkeyPatch(), 35, lambda: os.kill(os.getpid(), how))

    killed = forked([*ASKED, f"hydra.run.dir={again}"], said, before)
    assert killed.wait() == (143 if how == signal.SIGTERM else -9), killed.words
    assert (again / checkpoints.PREVIOUS).exists()
    assert contents(again) != contents(once)
    resumed = forked(["resume", str(again)], said)
    assert resumed.wait() == 0, resumed.words
    assert contents(again) == contents(once)
    assert json.loads((again / "summary.json").read_text())["status"] == "completed"


def test_a_folder_of_several_runs_says_which_can_be_gone_on_with(
    fallen: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("0", "1"):
        shutil.copytree(fallen, tmp_path / "many" / name)
    assert main.main(["resume", str(tmp_path / "many")]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "holds 2 runs, 2 to go on with" in said
    assert f"vgexp resume {tmp_path / 'many' / '1'}" in said


def test_a_folder_of_sweeps_says_which_of_them_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("sweep", "interrupted_sweep", "interrupted"):
        shutil.copytree(RECORDED / name, tmp_path / name)
    assert main.main(["resume", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert "holds 8 runs, 2 to go on with allowed: one run, or one sweep" in " ".join(said.split())
    shown = [f"  vgexp resume {tmp_path / name}" for name in ("interrupted", "interrupted_sweep")]
    assert said.splitlines()[-2:] == shown


def test_a_run_stopped_before_its_first_step_begins_once(
    whole: Whole, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = CsvFiles.__call__

    def struck(self: CsvFiles, rows: Rows) -> None:
        write(self, rows)
        if rows.table == "evals":
            os.kill(os.getpid(), signal.SIGINT)

    for again in (False, True):
        monkeypatch.setattr(CsvFiles, "__call__", struck)
        with pytest.raises(KeyboardInterrupt):
            vgexp.resume(tmp_path / "a") if again else vgexp.run(case("sgd"), tmp_path / "a")
    monkeypatch.setattr(CsvFiles, "__call__", write)
    vgexp.resume(tmp_path / "a")
    assert contents(tmp_path / "a") == whole("sgd")


def test_a_folder_with_a_configuration_alone_begins(whole: Whole, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    folders.write_config(tmp_path / "a", case("sgd"), "")
    vgexp.resume(tmp_path / "a")
    assert contents(tmp_path / "a") == whole("sgd")


def test_it_says_from_where_it_goes_on_and_what_was_of_no_use(
    fallen: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(fallen, tmp_path / "a")
    newest = tmp_path / "a" / checkpoints.NEWEST
    newest.write_bytes(newest.read_bytes()[:1000])
    (tmp_path / "a" / "timing.csv").unlink()
    assert main.main(["resume", str(tmp_path / "a")]) == 0
    said = capsys.readouterr().err
    assert said.startswith("checkpoint.pt is of no use: it is cut short or no checkpoint; going on")
    assert "from step 21" in said


def test_a_table_whose_lines_moved_is_not_cut_within_a_line(
    fallen: Path, whole: Whole, tmp_path: Path
) -> None:
    shutil.copytree(fallen, tmp_path / "a")
    table = tmp_path / "a" / "steps.csv"
    lines = table.read_text().splitlines()
    table.write_text("\n".join([lines[0], *(line + " " for line in lines[1:])]) + "\n")
    vgexp.resume(tmp_path / "a")
    assert contents(tmp_path / "a") == whole("sgd")


def test_another_device_is_refused_with_the_difference(fallen: Path) -> None:
    versions = checkpoints.load(fallen / checkpoints.NEWEST).versions
    assert versions["device"] == "cpu"
    with pytest.raises(QuestionError, match="device: cpu then, cuda now"):
        resuming.start_of(fallen, case("sgd"), {**versions, "device": "cuda"})


def test_an_edited_configuration_without_a_checkpoint_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = dataclasses.replace(BASE, run=RunConfig(checkpoint_every=0))
    cut(monkeypatch, 10, lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        vgexp.run(config, tmp_path / "a")
    (tmp_path / "a" / checkpoints.NEWEST).unlink()
    other = dataclasses.replace(config, optimizer=SgdConfig(lr=0.2))
    folders.write_config(tmp_path / "a", other, "")
    before = contents(tmp_path / "a")
    with pytest.raises(QuestionError, match="another configuration"):
        vgexp.resume(tmp_path / "a")
    assert contents(tmp_path / "a") == before


@pytest.mark.parametrize("times", [1, 2])
def test_a_run_that_begins_anew_keeps_what_was_recorded(
    times: int, whole: Whole, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = dataclasses.replace(BASE, run=RunConfig(checkpoint_every=0))
    fall(tmp_path / "a", config, monkeypatch, 30)
    recorded = [contents(tmp_path / "a")]
    for _ in range(times - 1):
        with monkeypatch.context() as patch:
            cut(patch, 20, lambda: (_ for _ in ()).throw(Power()))
            patch.setattr("vgexp.runs.training._write_end", lambda *_: None)
            with pytest.raises(Power):
                vgexp.resume(tmp_path / "a")
        recorded.append(contents(tmp_path / "a"))
    told: list[str] = []
    vgexp.resume(tmp_path / "a", told.append)
    assert told == [f"going on from the beginning; what was recorded is kept in before_{times}"]
    assert contents(tmp_path / "a") == whole("sgd")
    for number, tables in enumerate(recorded, 1):
        assert contents(tmp_path / "a" / f"before_{number}") == tables
