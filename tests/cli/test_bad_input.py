"""What users do wrong and what happens to them, at the command line: one block, the right code.

Holds: cli/actions.py, cli/after_run.py, cli/error_blocks.py
"""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fault_cases.children import Child, forked

import vgexp
from vgexp import sweep
from vgexp.cli.main import main
from vgexp.errors import QuestionError
from vgexp.quantities import COMMON
from vgexp.records import Rows
from vgexp.sinks.csv_files import CsvFiles
from vgexp.training import history

QUICK = [
    "train.steps=4",
    "model.depth=2",
    "model.width=8",
    "data=gaussian",
    "data.num_examples=200",
]

forks = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
"""Python 3.12 warns of threads that hold a lock in a fork; what is forked here has none."""


@pytest.fixture(autouse=True)
def _elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)


def train(*words: str) -> int:
    return main(["train", *QUICK, *words])


def assert_one_block(shown: str, *said: str) -> None:
    """Progress aside, stderr is one block of at most 80 columns without a traceback."""
    lines = [line for line in shown.splitlines() if not line.startswith("step ")]
    assert lines[0].startswith("error: "), shown
    assert sum(line.startswith("error: ") for line in lines) == 1
    assert all(line.startswith(" ") for line in lines[1:]), shown
    assert max(map(len, lines)) <= 80 or "/" in shown
    assert "Traceback" not in shown
    words = " ".join(shown.split())
    assert all(part in words for part in said), shown


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["model.dpth=3"], "unknown key of model: 'dpth'"),
        (["model.activation=sigmod"], "nearest: sigmoid"),
        (["model.init=xavier"], "unknown init: 'xavier'"),
        (["model.depth=deep"], "model.depth is 'deep' allowed: a whole number"),
        (["model.depth=0"], "model.depth is 0"),
        (["data.batch_size=1000"], "data.batch_size is 1000 allowed: at most 140"),
        (["data.batch_size=0"], "data.batch_size is 0"),
        (["optimizer.lr=-1"], "optimizer.lr is -1.0"),
        (["optimizer.lr=nan"], "optimizer.lr is nan"),
        (["clip=norm", "clip.threshold=0"], "clip.threshold is 0.0"),
        (["device=cuda:99"], "device is 'cuda:99' allowed here: auto, cpu"),
        (["model.norm=instance"], "model.norm is 'instance' on a perceptron reason:"),
        (["model.norm=batch", "data.batch_size=1"], "at least 2 with batch norm"),
        (
            ["model.skip=dense", "model.depth=3000", "model.width=4096"],
            "the model has 75,472,318,767,114 parameters",
        ),
        (["probe.layers='('"], "probe.layers is '('"),
        (["probe.layers=nothing"], "matches no weight"),
        (["probe.every=0"], "probe.every is 0"),
        (["train.epochs=2"], "train.steps is 4 and train.epochs is 2"),
    ],
)
def test_a_wrong_question_ends_with_code_2_and_leaves_nothing(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(*words, "hydra.run.dir=here") == 2
    assert_one_block(capsys.readouterr().err, said)
    assert not Path("here").exists()


def test_a_run_folder_that_is_a_file_stays_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    Path("file").write_text("mine")
    for folder in ("file", "file/below"):
        assert train(f"hydra.run.dir={folder}") == 2
        assert_one_block(capsys.readouterr().err, "file is a file")
    assert Path("file").read_text() == "mine"


def test_a_folder_that_cannot_be_written_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(path: object, *_: object) -> int:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("vgexp.sinks.csv_files.files.open_regular", refused)
    assert train("hydra.run.dir=here", "output.quiet=true") == 1
    monkeypatch.undo()
    assert_one_block(capsys.readouterr().err, "the work failed", "Permission denied", "here/")


# ---------------------------------------------------------------- what is shown at the end


def test_a_run_ends_with_its_layers_a_sentence_and_its_files(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    # By default a checkpoint is written, and named, where a run takes a second or longer.
    assert train("hydra.run.dir=here", "run.checkpoint_every=0") == 0
    shown = capsys.readouterr()
    assert "delta_rms" in shown.out
    assert "readout" in shown.out
    assert "The gradient " in shown.out
    assert "Verdict: " in shown.out
    assert shown.out.rstrip().endswith(
        "evals.csv, histograms.csv, layers.csv, parameters.csv, steps.csv,\n"
        "  timing.csv, wiring.csv, config.yaml, summary.json"
    )
    assert max(map(len, shown.out.splitlines())) <= 80
    assert "\x1b" not in shown.out + shown.err, "no colours in a pipe"
    assert all(line.startswith("step ") for line in shown.err.splitlines())


@pytest.mark.parametrize("verb", ["train", "compare"])
def test_a_reader_who_leaves_early_is_no_failure(
    verb: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train("hydra.run.dir=here", "output.quiet=true") == 0
    reading, writing = os.pipe()
    os.close(reading)
    kept = os.dup(1)
    with os.fdopen(writing, "w") as gone, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", gone)
        words = [*QUICK, "hydra.run.dir=there"] if verb == "train" else ["here"]
        try:
            assert main([verb, *words]) == 0
        finally:
            os.dup2(os.open(os.devnull, os.O_WRONLY), gone.fileno())
    os.dup2(kept, 1)
    assert "error" not in capsys.readouterr().err


def test_a_quiet_run_shows_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert train("hydra.run.dir=here", "output.quiet=true") == 0
    assert capsys.readouterr() == ("", "")


def test_a_diverged_run_is_shown_and_is_no_failure(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["model.activation=linear", "optimizer.lr=100", "train.steps=40", "hydra.run.dir=here"]
    assert train(*words) == 0
    shown = capsys.readouterr().out
    assert "nan" in shown
    assert "The run diverged: step " in " ".join(shown.split())


def test_a_network_that_is_not_finite_at_the_start_is_a_diverged_run(
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ["model.activation=linear", "model.gain=1e20", "model.depth=4", "hydra.run.dir=here"]
    assert train(*words) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "The run diverged: step 0: z of layer 2 (layers.1.linear.weight) is the first" in shown
    assert "Verdict: diverged" in shown
    assert json.loads(Path("here/summary.json").read_text())["status"] == "diverged"


def test_the_command_line_twice_gives_the_same_bytes() -> None:
    for folder in ("one", "two"):
        assert train(f"hydra.run.dir={folder}", "output.quiet=true", "seed=3") == 0
    for table in ("layers", "steps", "evals"):
        one, two = (Path(folder, f"{table}.csv").read_bytes() for folder in ("one", "two"))
        assert one == two


# ---------------------------------------------------------------- work that fails


def fail_after_steps(
    monkeypatch: pytest.MonkeyPatch, error: Exception, activation: str = ""
) -> None:
    """Lets a run with this activation fail once the first rows of steps have been written."""
    write = CsvFiles.__call__

    def write_and_fail(files: CsvFiles, rows: Rows) -> None:
        write(files, rows)
        config = files._files["steps"]._path.with_name("config.yaml").read_text()
        if rows.table == "steps" and f"activation: {activation}" in config:
            raise error

    monkeypatch.setattr(CsvFiles, "__call__", write_and_fail)


def test_a_run_that_fails_says_failed_and_keeps_its_traceback_in_the_log(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    error = RuntimeError("CUDA out of memory. Tried to allocate 20 GiB")
    fail_after_steps(monkeypatch, error)
    # However slow the machine, rows are handed on at the end of the four steps.
    monkeypatch.setattr(history, "FLUSH_SECONDS", math.inf)
    assert train("hydra.run.dir=here") == 1
    assert_one_block(
        capsys.readouterr().err, "the work failed RuntimeError: CUDA out", "here/train.log"
    )
    summary = json.loads(Path("here/summary.json").read_text())
    assert summary["status"] == "failed"
    assert summary["reason"] == f"RuntimeError: {error}"
    assert "Traceback" in Path("here/train.log").read_text()
    assert len(Path("here/steps.csv").read_text().splitlines()) == 5
    assert vgexp.load("here").summary == summary


def test_a_failing_job_of_a_sweep_is_a_row_and_the_others_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fail_after_steps(monkeypatch, MemoryError("no memory"), "relu")
    words = ["model.activation=tanh,relu,sigmod", "hydra.sweep.dir=s"]
    assert train("-m", *words) == 1
    shown = capsys.readouterr()
    rows = sweep.read(Path("s"))
    assert [row["status"] for row in rows] == ["completed", "failed", "failed"]
    assert rows[1]["reason"] == "MemoryError: no memory"
    assert "unknown activation: 'sigmod'" in rows[2]["reason"]
    for job in "12":
        assert "Traceback" in Path(f"s/{job}/train.log").read_text()
        assert json.loads(Path(f"s/{job}/summary.json").read_text())["status"] == "failed"
    lines = shown.out.splitlines()
    assert [line[:2] for line in lines[:3]] == ["#0", "#1", "#2"]
    assert lines[3:] == ["3 jobs, 2 failed: s/sweep.csv", "vgexp compare s"]
    assert_one_block(shown.err, "2 of 3 jobs failed: 1, 2")


def test_a_log_that_cannot_be_written_is_not_pointed_at(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import logging

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    fail_after_steps(monkeypatch, OSError(28, "No space left on device"))
    monkeypatch.setattr(logging.StreamHandler, "flush", full)
    monkeypatch.setattr("vgexp.folders.write_summary", full)
    assert train("hydra.run.dir=here") == 1
    monkeypatch.undo()
    shown = capsys.readouterr().err
    assert_one_block(shown, "the work failed [Errno 28] No space left on device")


# ---------------------------------------------------------------- signals, from outside


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Callable[..., Child]]:
    """Starts a run in a fork of this process, which ends with the test at the latest."""
    children: list[Child] = []

    def start(*words: str) -> Child:
        children.append(forked(["train", *QUICK, *words], tmp_path / "said"))
        return children[-1]

    yield start
    for child in children:
        child.send(signal.SIGKILL)
        child.wait()


def reaches(child: Child, table: Path, num_lines: int) -> bool:
    """Whether a table has so many lines while the run goes on."""
    return child.until(lambda: table.exists() and len(table.read_text().splitlines()) >= num_lines)


@forks
@pytest.mark.parametrize(
    ("number", "code", "word"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")],
)
def test_a_signal_while_training_saves_everything(
    number: signal.Signals, code: int, word: str, started: Callable[..., Child]
) -> None:
    child = started("train.steps=10000000", "hydra.run.dir=here")
    assert reaches(child, Path("here/steps.csv"), 20), child.words
    child.send(number)
    assert child.wait() == code
    saved = "saved in here: evals.csv, histograms.csv, layers.csv, parameters.csv, steps.csv"
    assert_one_block(child.words, f"error: {word}", saved)
    run = vgexp.load("here")
    assert run.summary["status"] == "interrupted"
    assert run.steps["step"].tolist() == list(range(run.summary["steps"]))
    assert run.layers["step"].iloc[-1] == run.summary["steps"] - 1


def test_ctrl_c_during_setup_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        "vgexp.runs.start.load_libraries", lambda _: os.kill(os.getpid(), signal.SIGINT)
    )
    assert train("hydra.run.dir=here") == 130
    assert_one_block(capsys.readouterr().err, "error: interrupted nothing was recorded yet")
    assert not Path("here").exists()


@forks
def test_what_a_killed_run_recorded_is_readable(
    started: Callable[..., Child], capsys: pytest.CaptureFixture[str]
) -> None:
    child = started("train.steps=10000000", "hydra.run.dir=here", "probe.every=1")
    assert reaches(child, Path("here/steps.csv"), 150), child.words
    child.send(signal.SIGKILL)
    child.wait()
    run = vgexp.load("here")
    assert run.steps["step"].tolist() == list(range(len(run.steps)))
    assert len(run.layers) > 0
    with pytest.raises(QuestionError, match=r"summary\.json"):
        _ = run.summary
    assert main(["compare", "here"]) == 0
    assert "unfinished" in capsys.readouterr().out


# ---------------------------------------------------------------- files that are broken


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing happened to."""
    folder = tmp_path_factory.mktemp("once") / "here"
    words = ("device=cpu", "output.quiet=true", "output.figures=false")
    assert train(f"hydra.run.dir={folder}", *words) == 0
    return folder


@pytest.fixture
def recorded(once: Path) -> Path:
    """A copy of the run."""
    return Path(shutil.copytree(once, "here"))


@pytest.mark.parametrize(
    ("paths", "said"),
    [
        ([], "no run was named"),
        (["nowhere"], "nowhere is not there allowed: a run folder"),
        (["folder"], "no run in or under folder"),
        (["file"], "file is a file allowed: a run folder"),
        (["folder", "her"], "no run in or under folder"),
        (["her"], "nearest: here"),
    ],
)
def test_comparing_what_is_no_run_is_a_wrong_question(
    paths: list[str], said: str, recorded: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert recorded.is_dir()
    Path("folder").mkdir()
    Path("file").touch()
    assert main(["compare", *paths]) == 2
    assert_one_block(capsys.readouterr().err, said)


@pytest.mark.parametrize("table", ["layers", "steps", "evals"])
def test_a_table_that_is_broken_is_named_with_its_problem(
    table: str, recorded: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = recorded / f"{table}.csv"
    whole = path.read_text()
    broken = {
        "is empty": "",
        "lacks the columns": whole.replace("step,", "iteration,", 1),
        "ends within its header": whole[:7],
        "cells in line 3": "\n".join([*whole.splitlines()[:2], "1,2", *whole.splitlines()[3:], ""]),
        "that is no number": whole.replace("\n0,", "\nzero,", 1),
    }
    for said, text in broken.items():
        path.write_text(text)
        with pytest.raises(QuestionError, match=said) as caught:
            getattr(vgexp.load(recorded), table)
        assert str(path) in str(caught.value)
        if table == "layers":
            assert main(["compare", "here", "--layers"]) == 2
            assert_one_block(capsys.readouterr().err, said)


@pytest.mark.parametrize("table", [t for t in COMMON if t != "timing"])
def test_a_table_cut_in_the_middle_of_a_line_keeps_its_whole_lines(
    table: str, recorded: Path
) -> None:
    path = recorded / f"{table}.csv"
    whole = getattr(vgexp.load(recorded), table)
    os.truncate(path, path.stat().st_size - 4)
    cut = getattr(vgexp.load(recorded), table)
    assert len(cut) == len(whole) - 1
    assert cut.equals(whole.iloc[:-1])


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("summary.json", "", "is not JSON"),
        ("summary.json", '{"status": "comp', "is not JSON"),
        ("config.yaml", "", "holds no keys"),
        ("config.yaml", "model: [", "is not YAML"),
        ("config.yaml", "modell: {depth: 3}", "unknown key: 'modell'"),
    ],
)
def test_a_broken_summary_or_configuration_is_named(
    name: str, text: str, said: str, recorded: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (recorded / name).write_text(text)
    assert main(["compare", "here"]) == 2
    assert_one_block(capsys.readouterr().err, f"here/{name}", said)
