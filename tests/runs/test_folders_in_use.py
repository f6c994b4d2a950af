"""Folders, terminals and environments as people have them, while runs are made in them.

Holds: location.py, origin.py, report/figures/backend.py, runs/training.py
"""

from __future__ import annotations

import dataclasses
import io
import json
import os
import pickle
import shutil
import signal
import sys
import warnings
from pathlib import Path

import pytest
from small_runs import CONFIG, strike

import vgexp
from vgexp.cli import error_blocks
from vgexp.cli.interrupts import HungUp, raise_on_signals
from vgexp.cli.main import main
from vgexp.cli.session import Refused
from vgexp.config import RunConfig
from vgexp.errors import LostError, QuestionError
from vgexp.location import Location
from vgexp.report.figures import backend, style
from vgexp.tables import find_runs


def test_matplotlib_is_imported_without_a_backend_that_it_may_not_know(
    user_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (user_folder / "matplotlib.py").write_text(
        "import os\n"
        "assert 'MPLBACKEND' not in os.environ\n"
        "class Known(dict):\n"
        "    def __setitem__(self, key, value):\n"
        "        if value.startswith('module://'):\n"
        "            raise ValueError(value)\n"
        "        super().__setitem__(key, value)\n"
        "rcParams = Known()\n"
    )
    monkeypatch.syspath_prepend(str(user_folder))
    for asked, chosen in (("module://matplotlib_inline.backend_inline", {}), ("svg", "svg")):
        monkeypatch.setenv("MPLBACKEND", asked)
        monkeypatch.delitem(sys.modules, "matplotlib")
        backend.import_matplotlib()
        assert os.environ["MPLBACKEND"] == asked
        found = sys.modules["matplotlib"].rcParams
        assert found == ({"backend": chosen} if chosen else {})


def test_letters_that_the_font_lacks_bring_no_warning(tmp_path: Path) -> None:
    def draw(axes: style.Axes) -> None:
        axes.text(0.5, 0.5, style.label("日本語"))

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for suffix in ("png", "svg"):
            style.write(style.draw_alone(draw, style.label("runs/名前")), tmp_path / f"a.{suffix}")
    assert caught == []
    assert {path.name for path in tmp_path.iterdir()} == {"a.png", "a.svg"}


def test_jobs_in_hidden_folders_are_found_below_their_sweep_alone(tmp_path: Path) -> None:
    jobs = [tmp_path / "sweep" / name for name in (".2", ".10", ".later/a")]
    for job in (*jobs, tmp_path / "others" / ".git"):
        job.mkdir(parents=True)
        (job / "summary.json").write_text("{}")
    (tmp_path / "sweep" / "plan.json").write_text("{}")
    assert find_runs([tmp_path]) == jobs
    with pytest.raises(QuestionError, match="no run"):
        find_runs([tmp_path / "others"])


# ---------------------------------------------------------------- a run's folder, moved or removed

SAVED = dataclasses.replace(CONFIG, run=RunConfig(checkpoint_every=5))
TABLES = ("layers.csv", "steps.csv", "evals.csv", "histograms.csv")


def test_a_folder_is_found_under_its_new_name_and_a_removed_one_is_not(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    told: list[Path] = []
    with Location(tmp_path / "a", told.append) as location:
        assert location.find() == tmp_path / "a"
        (tmp_path / "a").rename(tmp_path / "b")
        (tmp_path / "a").mkdir()  # another one, which is not taken for it
        assert [location.find(), location.find()] == [tmp_path / "b"] * 2
        assert told == [tmp_path / "b"]
        (tmp_path / "b").rmdir()
        with pytest.raises(LostError, match="b was removed"):
            location.find()
        assert location.find_if_there() is None


def test_what_cannot_be_looked_at_is_not_taken_to_be_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").mkdir()
    with Location(tmp_path / "a") as location:

        def refuse(*_: object, **__: object) -> None:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(Path, "stat", refuse)
        assert location.find() == tmp_path / "a"
    with Location(tmp_path / "never there") as nowhere:
        assert nowhere.find() == tmp_path / "never there"


def test_a_run_whose_folder_is_moved_says_so_once_and_ends_with_the_same_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = vgexp.run(SAVED, tmp_path / "whole").folder
    strike(monkeypatch, 9, lambda: (tmp_path / "a").rename(tmp_path / "b") and None)
    done = vgexp.run(SAVED, tmp_path / "a")
    assert done.folder == tmp_path / "b"
    assert not (tmp_path / "a").exists()
    assert done.summary["status"] == "completed"
    for table in TABLES:
        assert (done.folder / table).read_bytes() == (whole / table).read_bytes()
    assert {path.name for path in done.folder.iterdir()} == {path.name for path in whole.iterdir()}
    warning = f"warning: the run folder was moved to {tmp_path / 'b'}; it goes on there"
    assert " ".join(capsys.readouterr().err.split()) == warning


def test_a_moved_run_that_is_cut_short_goes_on_from_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = vgexp.run(SAVED, tmp_path / "whole").folder

    def move_and_interrupt() -> None:
        (tmp_path / "a").rename(tmp_path / "b")
        os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        strike(patch, 9, move_and_interrupt)
        with pytest.raises(KeyboardInterrupt):
            vgexp.run(SAVED, tmp_path / "a")
    assert json.loads((tmp_path / "b" / "summary.json").read_text())["status"] == "interrupted"
    vgexp.resume(tmp_path / "b")
    for table in TABLES:
        assert (tmp_path / "b" / table).read_bytes() == (whole / table).read_bytes()


def test_a_checkpoint_in_the_middle_of_a_move_is_made_in_the_new_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from vgexp import resuming

    save, moved = resuming.save, []

    def move_and_save(folder: Path, *rest: object) -> None:
        if not moved:
            moved.append(folder.rename(tmp_path / "b"))
        save(folder, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(resuming, "save", move_and_save)
    assert vgexp.run(SAVED, tmp_path / "a").folder == tmp_path / "b"
    assert "no checkpoint" not in capsys.readouterr().err


def test_a_checkpoint_in_the_middle_of_a_removal_is_no_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from vgexp import resuming

    def remove_and_fail(folder: Path, *_: object) -> None:
        for path in folder.iterdir():
            path.unlink()
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr(resuming, "save", remove_and_fail)
    with pytest.raises(LostError, match="was removed"):
        vgexp.run(SAVED, tmp_path / "a")
    assert "no checkpoint" not in capsys.readouterr().err


@pytest.mark.parametrize("what", ["", "layers.csv"])
def test_a_run_whose_folder_or_table_is_removed_ends_soon_and_makes_no_new_one(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    remove = os.unlink if what else shutil.rmtree
    strike(monkeypatch, 9, lambda: remove(Path("a") / what))  # type: ignore[operator]
    words = ["train.steps=1000", "train.eval_every=10", "model.depth=2", "output.quiet=true"]
    assert main(["train", *words, "hydra.run.dir=a"]) == 1
    told = capsys.readouterr().err
    assert "removed" in told
    assert "Traceback" not in told
    assert "HYDRA_FULL_ERROR" not in told
    assert Path("a").exists() == bool(what)
    if what:
        summary = json.loads(Path("a/summary.json").read_text())
        assert summary["status"] == "failed"
        assert summary["reason"].startswith("layers.csv in a was removed")
        assert len(Path("a/steps.csv").read_text().splitlines()) < 100


def test_a_sweep_whose_folder_is_moved_ends_after_the_job_at_hand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["train.steps=12", "model.depth=2", "seed=1,2", "hydra.sweep.dir=a", "-m"]
    with monkeypatch.context() as patch:
        strike(patch, 0, lambda: Path("a").rename("b") and None)
        assert main(["train", *words]) == 1
    assert "the sweep's folder a was removed or moved" in capsys.readouterr().err
    assert not Path("a").exists()
    assert json.loads(Path("b/0/summary.json").read_text())["status"] == "completed"
    assert main(["resume", "b"]) == 0
    assert Path("b/1/summary.json").exists()


def test_what_ends_a_sweep_is_the_same_in_another_process() -> None:
    for error in (LostError("a\nb"), QuestionError("c")):
        sent = pickle.loads(pickle.dumps(Refused(error)))
        assert (type(sent.error), str(sent.error)) == (type(error), str(error))


# ---------------------------------------------------------------- a terminal that is closed


def test_a_hang_up_that_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with raise_on_signals():
            os.kill(os.getpid(), signal.SIGHUP)
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
    with pytest.raises(HungUp), raise_on_signals():
        os.kill(os.getpid(), signal.SIGHUP)


class Closed(io.StringIO):
    """What a terminal that was closed is to those who write."""

    was_written_to = False

    def write(self, _text: str) -> int:
        self.was_written_to = True
        raise OSError(5, "Input/output error")


def test_a_block_that_nobody_can_read_raises_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    closed = Closed()
    monkeypatch.setattr(sys, "stderr", closed)
    error_blocks.show_interruption(HungUp(), None)
    assert closed.was_written_to


def test_a_sweep_whose_lines_nobody_can_read_does_its_jobs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stdout", Closed())
    words = ["train.steps=2", "model.depth=2", "seed=1,2", "hydra.sweep.dir=a", "-m"]
    assert main(["train", *words]) == 1  # what it leaves could not be told
    assert "Error executing job" not in capsys.readouterr().err
    assert [json.loads(Path(f"a/{n}/summary.json").read_text())["status"] for n in (0, 1)] == [
        "completed"
    ] * 2


# ---------------------------------------------------------------- hydra.job.chdir=true


@pytest.mark.parametrize("is_sweep", [False, True])
def test_a_job_that_hydra_moved_into_its_folder_finds_what_was_typed(
    is_sweep: bool, user_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (user_folder / "text.txt").write_text("to be or not to be, that is the question. " * 20)
    words = ["data=text", "data.path=text.txt", "data.seq_len=8", "data.batch_size=8"]
    words += ["model=transformer", "model.depth=1", "model.width=8", "train.steps=2"]
    where = ["hydra.sweep.dir=s", "-m"] if is_sweep else ["hydra.run.dir=r"]
    assert main(["train", "hydra.job.chdir=true", *words, *where]) == 0
    told = capsys.readouterr()
    assert "error" not in told.err
    run = Path("s/0") if is_sweep else Path("r")
    assert json.loads((run / "summary.json").read_text())["status"] == "completed"
    assert "path: text.txt\n" in (run / "config.yaml").read_text()
    if not is_sweep:
        assert "Written to r\n" in told.out


def test_names_of_the_users_own_are_looked_up_where_the_command_was_typed(
    user_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (user_folder / "mine_here.py").write_text(
        "import torch\ndef phi(u):\n    return torch.tanh(u)\n"
    )
    words = ["train.steps=2", "model.depth=2", "hydra.job.chdir=true", "hydra.run.dir=r"]
    assert main(["train", *words, "model.activation=mine_here.fie"]) == 2
    assert "allowed: phi" in capsys.readouterr().err
    assert not Path("r").exists()
    assert main(["train", *words, "model.activation=mine_here.phi"]) == 0
    assert Path("r/summary.json").exists()


def test_processes_of_a_launcher_do_not_import_from_the_current_folder_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from vgexp.cli.launcher import protect_import_path

    for before in (None, ""):
        if before is None:
            monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
        else:
            monkeypatch.setenv("PYTHONSAFEPATH", before)
        with protect_import_path():
            assert os.environ["PYTHONSAFEPATH"] == "1"
        assert os.environ.get("PYTHONSAFEPATH") == before


def test_a_look_at_the_start_whose_folder_is_removed_ends_and_makes_no_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from vgexp.runs import signaling

    monkeypatch.chdir(tmp_path)
    start = signaling._start

    def remove_and_start(*words: object, **more: object) -> object:
        done = start(*words, **more)  # type: ignore[arg-type]
        shutil.rmtree("a")
        return done

    monkeypatch.setattr(signaling, "_start", remove_and_start)
    words = ["model.depth=2", "signal.seeds=3", "hydra.run.dir=a", "output.quiet=true"]
    assert main(["signal", *words]) == 1
    assert "the folder a was removed" in capsys.readouterr().err
    assert not Path("a").exists()
