"""A sweep that was cut short goes on, and ends as if nothing had happened.

Holds: cli/resume_sweep.py, cli/callback.py, sweep/place.py
"""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
from collections.abc import Callable
from contextlib import nullcontext
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given, settings
from hypothesis import strategies as st

import vgexp
from vgexp import runs, sweep
from vgexp.cli import overrides, resume_sweep
from vgexp.cli.job import Job
from vgexp.cli.main import main
from vgexp.config import Config
from vgexp.records import Rows
from vgexp.sinks.csv_files import CsvFiles
from vgexp.sweep import plan, plan_file

EXACT = ("layers.csv", "steps.csv", "evals.csv", "config.yaml")
DIFFERING = {"seconds", "processor_seconds_per_step", "probe_overhead", "host"}
GRID = (
    *("data=gaussian", "data.num_examples=128", "data.batch_size=16", "model.width=8"),
    *("model.depth=2,3", "train.steps=10", "run.checkpoint_every=4", "seed=1,2"),
)


class Power(BaseException):
    """The power goes: nobody catches it."""


@pytest.fixture(autouse=True)
def somewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep that was never cut short."""
    folder = tmp_path_factory.mktemp("whole") / "s"
    assert train(folder) == 0
    return folder


def train(folder: Path, *words: str) -> int:
    return main(["train", "-m", *(words or GRID), f"hydra.sweep.dir={folder}"])


def resume(folder: Path, *words: str) -> int:
    return main(["resume", str(folder), *words])


def table(folder: Path) -> list[dict[str, str]]:
    """The rows without the columns that may differ."""
    with (folder / "sweep.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [{name: row[name] for name in row if name not in DIFFERING} for row in rows]


def require_equal(folder: Path, whole: Path) -> None:
    for mine, other in zip(table(folder), table(whole), strict=True):
        assert mine == other, {k: (mine[k], other[k]) for k in other if mine[k] != other[k]}
    jobs = [path.name for path in whole.iterdir() if path.is_dir()]
    for job in jobs:
        for name in EXACT:
            mine, other = (each / job / name for each in (folder, whole))
            assert mine.read_bytes() == other.read_bytes(), (job, name)
    assert jobs == [path.name for path in whole.iterdir() if path.is_dir()]


def strike(monkeypatch: pytest.MonkeyPatch, job: int, blow: Callable[[], None]) -> None:
    """Calls `blow` in the middle of that job."""
    write = CsvFiles.__call__

    def written(self: CsvFiles, rows: Rows) -> None:
        write(self, rows)
        if f"/{job}/" in str(self._files["steps"]._path) and rows.table == "steps":
            monkeypatch.setattr(CsvFiles, "__call__", write)
            blow()

    monkeypatch.setattr(CsvFiles, "__call__", written)


@pytest.fixture(scope="module")
def fallen(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """Sweeps in which the power went, by the job that it went in. To be copied."""

    def gone() -> None:
        raise Power

    @cache
    def fall(job: int) -> Path:
        folder = tmp_path_factory.mktemp("fallen") / "s"
        with pytest.MonkeyPatch.context() as patch:
            strike(patch, job, gone)
            patch.setattr(runs.training, "_write_end", lambda *_: None)
            patch.setattr("vgexp.cli.job.Job._record", lambda *_: None)
            with pytest.raises(Power):
                train(folder)
        return folder

    return fall


@pytest.mark.parametrize("again", [resume, train])
@pytest.mark.parametrize("job", [0, 2])
def test_after_a_loss_of_power_the_sweep_ends_as_if_nothing_had_happened(
    job: int,
    again: Callable[[Path], int],
    whole: Path,
    fallen: Callable[[int], Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copytree(fallen(job), tmp_path / "s")
    assert not (tmp_path / "s" / "sweep.csv").exists()
    capsys.readouterr()
    assert again(tmp_path / "s") == 0
    shown = capsys.readouterr().out
    assert f"{job} of 4 jobs have ended, {4 - job} to do\n" in shown
    assert shown.count("#") == 4 - job
    require_equal(tmp_path / "s", whole)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_sweep_says_how_to_go_on_and_its_rows_are_replaced(
    number: int,
    code: int,
    whole: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "a folder"
    strike(monkeypatch, 1, lambda: os.kill(os.getpid(), number))
    assert main(["train", "-m", *GRID, f"hydra.sweep.dir='{folder}'"]) == code
    assert [row["status"] for row in table(folder)] == ["completed", "interrupted"]
    assert f"go on: vgexp resume '{folder}'" in capsys.readouterr().err
    assert resume(folder) == 0
    require_equal(folder, whole)


def test_ended_jobs_are_not_run_again(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(whole, tmp_path / "s")
    monkeypatch.setattr(runs.training, "_train", lambda *_: pytest.fail("a job was run"))
    assert resume(tmp_path / "s") == 0
    assert train(tmp_path / "s") == 0
    require_equal(tmp_path / "s", whole)


def test_a_larger_grid_adds_its_jobs_only(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(whole, tmp_path / "s")
    larger = [word.replace("model.depth=2,3", "model.depth=1,2,3") for word in GRID]
    assert train(tmp_path / "s", *larger) == 0
    rows = table(tmp_path / "s")
    assert rows[:4] == table(whole)
    assert [(row["job"], row["model.depth"], row["seed"]) for row in rows[4:]] == [
        ("4", "1", "1"),
        ("5", "1", "2"),
    ]
    # The way that it is gone on with does not matter, nor that presets may have changed.
    shutil.rmtree(tmp_path / "s" / "5")
    monkeypatch.setattr("vgexp.cli.job.to_config", lambda _: pytest.fail("it was composed"))
    assert resume(tmp_path / "s") == 0
    assert table(tmp_path / "s") == rows


def test_failed_jobs_are_run_again_on_request_only(
    whole: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def full() -> None:
        raise OSError(28, "No space left on device")

    folder = tmp_path / "s"
    with monkeypatch.context() as patch:
        strike(patch, 2, full)
        assert train(folder) == 1
    assert f"once more: vgexp resume {folder} --failed" in capsys.readouterr().err
    statuses = ["completed", "completed", "failed", "completed"]
    for again in (resume, train):
        assert again(folder) == 1
        assert "4 of 4 jobs have ended, 1 of these failed, 0 to do" in capsys.readouterr().out
        assert [row["status"] for row in table(folder)] == statuses
    assert resume(folder, "--failed") == 0
    require_equal(folder, whole)


def test_a_job_that_cannot_be_is_not_mistaken_for_another(tmp_path: Path) -> None:
    words = [word.replace("model.depth=2,3", "model.depth=2,0") for word in GRID]
    assert train(tmp_path / "s", *words) == 1
    before = table(tmp_path / "s")
    assert [row["status"] for row in before] == ["completed"] * 2 + ["failed"] * 2
    for again in (
        lambda: resume(tmp_path / "s", "--failed"),
        lambda: train(tmp_path / "s", *words),
    ):
        assert again() == 1
        assert table(tmp_path / "s") == before


def test_a_job_of_a_sweep_that_is_resumed_alone_brings_its_row_up_to_date(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "s"
    strike(monkeypatch, 3, lambda: os.kill(os.getpid(), signal.SIGINT))
    assert train(folder) == 130
    assert resume(folder / "3") == 0
    require_equal(folder, whole)


def test_a_job_that_another_process_runs_is_left_to_it(
    whole: Path,
    fallen: Callable[[int], Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    fcntl = pytest.importorskip("fcntl")
    folder = tmp_path / "s"
    shutil.copytree(fallen(1), folder)
    descriptor = os.open(folder / "1", os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    assert resume(folder) == 1
    captured = capsys.readouterr()
    assert "being run by another process" in captured.out
    assert "1 of 4 jobs are being run by another process" in captured.err
    assert [row["job"] for row in table(folder)] == ["0", "2", "3"]
    os.close(descriptor)
    assert resume(folder) == 0
    require_equal(folder, whole)


def elsewhere(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Has jobs run as in another process of a launcher's: no command there sees to signals.

    Returns:
        The SIGTERMs that nobody has seen to, which would have killed that process.
    """
    killed: list[int] = []
    begin = Job.__init__

    def begun(self: Job, *words: Any, **further: Any) -> None:
        begin(self, *words, **further)
        self._pid = -1

    monkeypatch.setattr(Job, "__init__", begun)
    monkeypatch.setattr("vgexp.cli.interrupts.raise_on_signals", nullcontext)
    signal.signal(signal.SIGTERM, lambda number, _: killed.append(number))
    return killed


def test_a_job_that_is_terminated_in_a_launcher_s_process_says_how_far_it_came(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "s"
    with monkeypatch.context() as patch:
        killed = elsewhere(patch)
        strike(patch, 1, lambda: os.kill(os.getpid(), signal.SIGTERM))
        assert train(folder) == 143
    assert not killed
    assert [row["status"] for row in table(folder)] == ["completed", "interrupted"]
    summary = json.loads((folder / "1" / "summary.json").read_text())
    assert summary["status"] == "interrupted"
    assert 0 < summary["steps"] < 10
    assert resume(folder) == 0
    require_equal(folder, whole)


@pytest.mark.parametrize("damage", ["sweep.csv", "lost plan", "garbage"])
def test_a_damaged_table_or_a_lost_plan_comes_back(
    damage: str, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "s"
    shutil.copytree(whole, folder)
    if damage == "sweep.csv":
        (folder / "sweep.csv").write_bytes(b"job,sta\xff\n1,completed\n")
        assert resume(folder) == 0
    elif damage == "lost plan":
        (folder / "plan.json").unlink()
        assert train(folder) == 0
    else:
        (folder / "plan.json").write_text("{}")
        assert resume(folder) == 2
        assert "is damaged" in capsys.readouterr().err
        (folder / "plan.json").unlink()
        assert train(folder) == 0
    require_equal(folder, whole)


def test_equal_jobs_on_other_devices_are_two_jobs(tmp_path: Path) -> None:
    words = ["model.depth=2", "train.steps=2", "device=cpu,auto"]
    assert train(tmp_path / "s", *words) == 0
    assert train(tmp_path / "s", *words) == 0
    assert [row["device"] for row in table(tmp_path / "s")] == ["cpu", "auto"]


def test_folders_named_by_overrides_are_found_again(tmp_path: Path) -> None:
    words = ["train.steps=2", "seed=1,2", "hydra.sweep.subdir=it is ${hydra.job.override_dirname}"]
    assert train(tmp_path / "s", *words) == 0
    assert train(tmp_path / "s", *words) == 0
    names = sorted(path.name for path in (tmp_path / "s").iterdir() if path.is_dir())
    assert names == ["it is seed=1,train.steps=2", "it is seed=2,train.steps=2"]


def test_jobs_that_would_share_a_folder_are_a_wrong_question(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(tmp_path / "s", "train.steps=2", "seed=1,2", "hydra.sweep.subdir=x") == 2
    assert "would share the folder 'x'" in capsys.readouterr().err


def test_a_search_by_a_figure_that_is_no_number_is_a_wrong_question(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(tmp_path / "s", "seed=1,2", "run.objective=depth_traned") == 2
    assert "nearest: depth_trained" in capsys.readouterr().err
    assert not (tmp_path / "s").exists()


def test_what_is_no_sweep_or_cannot_be_changed_is_refused(
    whole: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert resume(whole, "model.depth=3") == 2
    assert "jobs go on as they were asked for" in capsys.readouterr().err
    assert resume(whole / "0", "--failed") == 2
    assert "is no sweep" in capsys.readouterr().err
    assert resume(whole, "hydra/launcher=nowhere") == 2
    assert "unknown hydra/launcher: 'nowhere'" in capsys.readouterr().err


# ---------------------------------------------------------------- what may be repeated


@pytest.mark.parametrize(
    "word",
    [
        "hydra.launcher._target_=os.system",
        "hydra.callbacks.x._target_=os.system",
        "+hydra.callbacks.x={_target_: os.system}",
        "hydra/launcher=mine",
        "hydra.launcher.setup=[rm]",
        "hydra.sweeper.custom_search_space=os.system",
        "hydra.sweeper.storage=sqlite:///x",
        "hydra.job_logging.handlers.x.class=os.system",
        "+experiment=../../../evil",
        "experiment=[sigmoid_deep,../evil]",
        "+sub/hydra=../../evil",
        "model=../evil",
        "model.target=os.system",
        "optimizer@hydra.callbacks.x=sgd",
        "+x@hydra.launcher=y",
        "--config-dir",
        "--config-dir=x",
        "-cd",
    ],
)
def test_a_command_that_could_execute_something_is_not_harmless(word: str) -> None:
    assert not resume_sweep.is_harmless(("train", "-m", "seed=1", word))


@pytest.mark.parametrize("word", ["hydra.launcher._target_=os.system", "--config-dir=x"])
def test_a_command_that_is_not_harmless_is_not_repeated_from_a_file(
    word: str, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ("train", "-m", "seed=1", word)
    shutil.copytree(whole, tmp_path / "s")
    known = plan_file.read(whole)
    assert known is not None
    plan_file.write(tmp_path / "s", known.add_command(command))
    assert resume(tmp_path / "s") == 1
    assert "command could execute something" in " ".join(capsys.readouterr().err.split())


def test_a_command_whose_jobs_are_not_all_known_is_typed_again(whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "s"
    folder.mkdir()
    command = ("train", "-m", *GRID, "hydra.sweep.dir=elsewhere")
    assert resume_sweep.is_harmless(command)
    plan_file.write(folder, plan.Plan().add_command(command))
    assert resume(folder) == 0
    require_equal(folder, whole)
    assert not Path("elsewhere").exists()
    now = plan_file.read(folder)
    assert now is not None
    assert [words for words in now.pending if words != command] == []


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12))
def test_any_text_can_be_given_to_a_key(text: str) -> None:
    (override,) = OverridesParser.create().parse_overrides([overrides.assign("k", text)])
    value = override.value()
    assert str(getattr(value, "text", value)).replace("\\${", "${") == text


def test_what_a_search_is_told_is_a_figure_of_the_summary() -> None:
    from vgexp.cli.job import objective

    config = Config()
    assert objective({"loss_last_mean_20": 0.5}, config) == 0.5
    assert objective({"loss_last_mean_20": None}, config) is None
    assert objective({"loss_last_mean_20": "x"}, config) is None
    assert objective({}, None) is None


def test_a_summary_of_nonsense_is_an_open_job(whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "s"
    shutil.copytree(whole, folder)
    (folder / "1" / "summary.json").write_text(json.dumps([1, 2]))
    assert resume(folder) == 0
    require_equal(folder, whole)
    assert [row["status"] for row in sweep.read(folder)] == ["completed"] * 4


def test_an_impossible_job_never_becomes_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [word.replace("model.depth=2,3", "model.depth=2,-1") for word in GRID]
    with monkeypatch.context() as patch:
        patch.setattr("vgexp.cli.job.Job._run_in_sweep", lambda *_: (_ for _ in ()).throw(Power()))
        with pytest.raises(Power):
            train(tmp_path / "s", *words)
    assert resume(tmp_path / "s") == 1
    rows = table(tmp_path / "s")
    assert [row["status"] for row in rows] == ["completed"] * 2 + ["failed"] * 2
    assert "model.depth is -1" in rows[2]["reason"]
    assert train(tmp_path / "whole", *words) == 1
    assert table(tmp_path / "whole") == rows


@pytest.mark.parametrize(
    "mistake", ["modl.depth=1,2", "run.objective=nope", "hydra.sweep.subdir=x", "seed=1,-2x"]
)
def test_a_command_that_was_refused_leaves_nothing_in_the_plan(
    mistake: str, whole: Path, tmp_path: Path
) -> None:
    shutil.copytree(whole, tmp_path / "s")
    before = plan_file.read(tmp_path / "s")
    assert train(tmp_path / "s", "train.steps=2", "data.val_fraction=0.2,0.3", mistake) == 2
    assert plan_file.read(tmp_path / "s") == before
    assert resume(tmp_path / "s") == 0


@pytest.mark.parametrize("subdir", ["../out${hydra.job.num}", "/tmp/out${hydra.job.num}"])
def test_a_job_folder_outside_the_sweep_is_refused(
    subdir: str, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(whole, tmp_path / "s")
    assert train(tmp_path / "s", "train.steps=2", "seed=7", f"hydra.sweep.subdir={subdir}") == 2
    assert "a folder below the sweep's" in capsys.readouterr().err
    assert resume(tmp_path / "s") == 0
    assert not list(tmp_path.glob("out*"))


def test_a_sweep_that_failed_for_its_device_goes_on_on_another(tmp_path: Path) -> None:
    words = ["train.steps=2", "seed=1,2"]
    assert train(tmp_path / "s", *words, "device=cuda") == 1
    assert train(tmp_path / "s", *words, "device=cpu") == 1, "failed ones only on request"
    assert resume(tmp_path / "s", "--failed") == 0
    assert [row["device"] for row in table(tmp_path / "s")] == ["cpu", "cpu"]


def test_a_value_of_several_lines_leaves_a_run_that_can_be_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(tmp_path / "s", "train.steps=2", "seed=1,2", 'probe.layers="a|\n.*"') == 0
    assert all(len(line) <= 80 for line in capsys.readouterr().out.splitlines()[:2])
    for job in "01":
        assert vgexp.load(tmp_path / "s" / job).config.probe.layers == "a|\n.*"
    assert main(["compare", str(tmp_path / "s")]) == 0


def test_runs_and_sweeps_do_not_share_a_folder(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(whole, tmp_path / "s")
    assert main(["train", "train.steps=2", f"hydra.run.dir={tmp_path / 's'}"]) == 2
    assert "holds a sweep" in " ".join(capsys.readouterr().err.split())
    assert train(tmp_path / "s" / "0", "train.steps=2", "seed=1,2") == 2
    assert "holds a run" in " ".join(capsys.readouterr().err.split())
    require_equal(tmp_path / "s", whole)


@pytest.mark.parametrize(
    "damage", ["99,completed,x\n5,failed,x\n", 'x"' + "y" * 200_000, "0,completed" + ",z" * 80]
)
def test_rows_of_no_job_go_from_the_table(damage: str, whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "s")
    with (tmp_path / "s" / "sweep.csv").open("a") as file:
        file.write(damage)
    assert resume(tmp_path / "s") == 0
    require_equal(tmp_path / "s", whole)


def test_a_job_folder_that_is_a_link_is_gone_on_with(
    whole: Path, fallen: Callable[[int], Path], tmp_path: Path
) -> None:
    shutil.copytree(fallen(1), tmp_path / "s")
    (tmp_path / "s" / "1").rename(tmp_path / "elsewhere")
    (tmp_path / "s" / "1").symlink_to(tmp_path / "elsewhere")
    assert resume(tmp_path / "s") == 0
    assert table(tmp_path / "s") == table(whole)


def test_options_may_stand_anywhere(whole: Path) -> None:
    assert resume(whole, "--failed", "hydra/launcher=basic") == 0
    assert resume(whole, "hydra/launcher=basic", "--failed") == 0


def test_a_linked_job_that_is_resumed_alone_brings_its_row_up_to_date(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    strike(monkeypatch, 3, lambda: os.kill(os.getpid(), signal.SIGINT))
    assert train(tmp_path / "s") == 130
    (tmp_path / "s" / "3").rename(tmp_path / "elsewhere")
    (tmp_path / "s" / "3").symlink_to(tmp_path / "elsewhere")
    assert resume(tmp_path / "s" / "3") == 0
    assert table(tmp_path / "s") == table(whole)


def test_a_table_without_the_columns_that_it_needs_is_made_anew(
    whole: Path, tmp_path: Path
) -> None:
    shutil.copytree(whole, tmp_path / "s")
    (tmp_path / "s" / "sweep.csv").write_text("job,reason\n0,\n")
    assert resume(tmp_path / "s") == 0
    require_equal(tmp_path / "s", whole)
