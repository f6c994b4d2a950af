"""A short `make faults`: kills, signals, closed and full disks, broken files, hostile names.

Holds: scripts/faults.py, resuming.py
"""

from __future__ import annotations

import errno
import os
import random
import shutil
import signal
import stat
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest
import torch
from fault_cases import broken_files, children, disks, kills, sweeps
from fault_cases.children import BASE, CONFIGURATIONS, Result, contents, forked, train, whole

import vgexp
from vgexp import checkpoints, config, folders, quantities, resuming
from vgexp.cli import error_blocks, main
from vgexp.errors import QuestionError, printable
from vgexp.sinks.csv_files import CsvFiles

pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
"""Of Python 3.12 on; what is forked here has no threads of its own that hold a lock."""
SMALL = config.Config(
    model=config.MlpConfig(depth=2, width=8),
    data=config.GaussianConfig(num_examples=64, batch_size=8),
    train=config.TrainConfig(steps=12),
    run=config.RunConfig(checkpoint_every=4),
    output=config.OutputConfig(quiet=True),
)


FEW_STEPS = "train.steps=45"
"""More than enough for a validation and for checkpoints, at whichever distance."""


def begin_with(
    few: dict[str, tuple[str, ...]], cases: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Has cases use these configurations only; each is run without a fault once, not each time."""
    for module in (children, cases):
        monkeypatch.setattr(module, "CONFIGURATIONS", few)
    monkeypatch.setattr(cases, "whole", cache(whole))


def kept(results: list[Result] | Result) -> None:
    """Requires that every promise was kept, in at least one case each."""
    for result in results if isinstance(results, list) else [results]:
        assert not result.broken
        assert result.num_cases > 0


def test_runs_killed_at_random_moments_end_as_if_nothing_had_happened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = {"batch_norm_float64": (*CONFIGURATIONS["batch_norm_float64"], FEW_STEPS)}
    begin_with(few, kills, monkeypatch)
    kept(kills.kills(tmp_path, random.Random(1), 2))


def test_a_sweep_killed_at_a_random_moment_ends_as_if_nothing_had_happened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = [word for word in BASE if not word.startswith("train.steps=")]
    few = (*short, "train.steps=20", "seed=1,2,3", "run.checkpoint_every=5")
    monkeypatch.setattr(sweeps, "GRID", few)
    kept(sweeps.killed(tmp_path, random.Random(3), 1))


@pytest.mark.parametrize(
    ("numbers", "code"),
    [([signal.SIGTERM], 143), ([signal.SIGINT], 130), ([signal.SIGTERM, signal.SIGTERM], 143)],
)
def test_a_signal_ends_with_its_code_and_leaves_what_resume_needs(
    numbers: list[signal.Signals], code: int, tmp_path: Path
) -> None:
    folder, overrides = tmp_path / "run", [*CONFIGURATIONS["adam"], "train.steps=2000"]
    child = forked(train(overrides, folder), tmp_path / "said")
    assert child.until(lambda: (folder / "checkpoint.pt").exists())
    for number in numbers:
        child.send(number)
    assert child.wait() == code
    assert child.words.count("error: ") == 1
    assert resuming.is_open(folder)
    assert checkpoints.load(folder / "checkpoint.pt").step > 0


def test_a_second_process_is_refused_and_the_first_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(children, "CONFIGURATIONS", {"adam": (*CONFIGURATIONS["adam"], FEW_STEPS)})
    expected, _ = whole("adam", tmp_path)
    folder = tmp_path / "run"
    first = forked(train(children.CONFIGURATIONS["adam"], folder), tmp_path / "first")
    assert first.until(lambda: (folder / "layers.csv").exists())
    os.kill(first.pid, signal.SIGSTOP)
    for argv in (["resume", str(folder)], train((), folder)):
        assert forked(argv, tmp_path / "second").wait() == 2
    os.kill(first.pid, signal.SIGCONT)
    assert first.wait() == 0
    assert contents(folder) == expected


def test_files_have_no_room_and_what_is_recorded_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = {"momentum": (*CONFIGURATIONS["momentum"], FEW_STEPS)}
    begin_with(few, disks, monkeypatch)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    small, limited = disks.full(tmp_path, random.Random(3), 2)
    assert small.skipped
    kept([limited, disks.closed(tmp_path, random.Random(8), 2)])


def test_a_loss_of_power_at_any_sync_or_rename_loses_no_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disks, "POWERED", ("auto_accumulate",))
    kept(disks.power(tmp_path, random.Random(4), 0.3))


@pytest.fixture(scope="module")
def both_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what `broken_files.two_runs` makes, which says nothing of where it is."""
    folder = tmp_path_factory.mktemp("two_runs")
    broken_files.two_runs(folder)
    return folder


@pytest.fixture
def made_runs(both_runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Has `two_runs` copy runs that are made once for all tests."""

    def copy(work: Path) -> tuple[Path, Path]:
        for name in ("stopped", "whole"):
            shutil.copytree(both_runs / name, work / name)
        return work / "stopped", work / "whole"

    monkeypatch.setattr(broken_files, "two_runs", copy)


@pytest.mark.usefixtures("made_runs")
def test_damaged_files_are_refused_or_end_in_the_right_tables(tmp_path: Path) -> None:
    kept(broken_files.damaged(tmp_path, random.Random(5), 24))


@pytest.mark.usefixtures("made_runs")
def test_hostile_files_execute_nothing_and_are_told_in_one_block(tmp_path: Path) -> None:
    kept(broken_files.hostile(tmp_path, every=5))


@pytest.mark.usefixtures("made_runs")
def test_hostile_names_reach_no_terminal_and_nothing_is_read_or_written_through_links(
    tmp_path: Path,
) -> None:
    broken_files.two_runs(tmp_path)
    kept([broken_files.names(tmp_path), broken_files.planted(tmp_path, every=13)])


@pytest.mark.parametrize("table", ["layers", "steps", "evals"])
def test_a_digit_changed_before_the_checkpoint_is_noticed(table: str, tmp_path: Path) -> None:
    vgexp.run(SMALL, tmp_path / "a")
    expected = contents(tmp_path / "a")
    (tmp_path / "a" / "summary.json").unlink()
    path = tmp_path / "a" / f"{table}.csv"
    content = bytearray(path.read_bytes())
    place = content.index(b"0.", content.index(b"\n"))
    content[place] = ord("7")
    path.write_bytes(content)
    said: list[str] = []
    vgexp.resume(tmp_path / "a", said.append)
    assert f"checkpoint.pt does not fit {table}" in said[0]
    assert contents(tmp_path / "a") == expected


def test_the_sum_of_a_table_goes_on_where_a_run_goes_on(tmp_path: Path) -> None:
    files = CsvFiles(tmp_path)
    first = files.settle()
    files.close()
    again = CsvFiles(tmp_path, prefixes=first)
    assert again.settle() == first
    again.close()
    for table, prefix in first.items():
        assert folders.read_prefix(tmp_path / f"{table}.csv", 10**9) == prefix


@pytest.mark.parametrize("place", ["below its header", "after its last line"])
@pytest.mark.parametrize("table", quantities.COMMON)
def test_bytes_that_are_no_text_in_a_table_leave_the_right_tables(
    table: str, place: str, tmp_path: Path
) -> None:
    vgexp.run(SMALL, tmp_path / "a")
    expected = contents(tmp_path / "a")
    (tmp_path / "a" / "summary.json").unlink()
    path = tmp_path / "a" / f"{table}.csv"
    header, newline, rows = path.read_bytes().partition(b"\n")
    lines = [b"\xff", rows] if place == "below its header" else [rows, b"\xff"]
    path.write_bytes(header + newline + b"".join(lines))
    vgexp.resume(tmp_path / "a")
    assert contents(tmp_path / "a") == expected
    assert b"\xff" not in path.read_bytes() or table == "timing"


def test_times_that_are_damaged_send_no_run_back(tmp_path: Path) -> None:
    vgexp.run(SMALL, tmp_path / "a")
    (tmp_path / "a" / "summary.json").unlink()
    (tmp_path / "a" / "timing.csv").write_bytes(b"\0\1\2")
    said: list[str] = []
    vgexp.resume(tmp_path / "a", said.append)
    assert said == ["going on from step 8"]


def test_a_useless_newest_checkpoint_does_not_take_the_place_of_the_good_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vgexp.run(SMALL, tmp_path / "a")
    (tmp_path / "a" / "summary.json").unlink()
    (tmp_path / "a" / checkpoints.NEWEST).write_bytes(b"broken")

    def gone(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("torch.save", gone)
    vgexp.resume(tmp_path / "a")
    assert [p.name for p in checkpoints.list_present(tmp_path / "a")] == [checkpoints.PREVIOUS]


def test_a_changed_value_is_noticed_without_any_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    folders.write_config(tmp_path / "a", SMALL, "")
    path = tmp_path / "a" / "config.yaml"
    text = path.read_text()
    path.write_text(text.replace("depth: 2", "depth: 3"))
    with pytest.raises(QuestionError, match="another configuration"):
        vgexp.resume(tmp_path / "a")
    path.write_text(text[: text.index("# identity")])
    with pytest.raises(QuestionError, match="cut short"):
        vgexp.resume(tmp_path / "a")


def test_tables_are_on_the_disk_before_the_summary_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    sync, replace = os.fsync, Path.replace

    def synced(descriptor: int) -> None:
        sync(descriptor)
        is_folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        done.append("folder" if is_folder else Path(f"/proc/self/fd/{descriptor}").readlink().name)

    def replaced(path: Path, target: Path) -> Path:
        done.append(f"-> {Path(target).name}")
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", replaced)
    vgexp.run(SMALL, tmp_path / "a")
    end = done.index("-> summary.json")
    last_save = max(i for i, what in enumerate(done) if what == "-> checkpoint.pt")
    assert {"layers.csv", "steps.csv", "evals.csv"} <= set(done[last_save:end])
    assert done[end - 1] == ".summary.json.new"
    assert done[end + 1] == "folder"


def test_a_link_under_the_name_of_a_temporary_file_is_not_written_through(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / ".summary.json.new").symlink_to(victim)
    folders.write_summary(tmp_path / "a", {})
    assert victim.read_text() == "mine"


def test_a_checkpoint_of_another_state_is_of_no_use(tmp_path: Path) -> None:
    vgexp.run(SMALL, tmp_path / "a")
    expected = contents(tmp_path / "a")
    (tmp_path / "a" / "summary.json").unlink()
    found = checkpoints.load(tmp_path / "a" / checkpoints.NEWEST)
    strange = checkpoints.Checkpoint(**{**vars(found), "state": {"weight": torch.zeros(1)}})
    checkpoints.save(tmp_path / "a", strange)
    said: list[str] = []
    vgexp.resume(tmp_path / "a", said.append)
    assert said == [
        "checkpoint.pt is of no use: its state is not of the form that this run's has; "
        f"going on from step {found.step}"
    ]
    assert contents(tmp_path / "a") == expected


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM, errno.EROFS])
def test_a_closed_folder_is_named(number: int, tmp_path: Path) -> None:
    from vgexp.cli.hydra_errors import translate

    log = str(tmp_path / "run" / "train.log")
    question = translate(OSError(number, "it is closed", log))
    assert question is not None
    assert str(question).startswith(f"cannot write in {tmp_path / 'run'}: it is closed\n")
    assert translate(OSError(errno.EIO, "it is broken", log)) is None


def test_a_block_keeps_commands_and_long_paths_whole(tmp_path: Path) -> None:
    folder = tmp_path / ("a b" * 30)
    block = error_blocks.format_block(
        "interrupted", f"go on: {error_blocks.format_resume(folder)}", f"in {folder}x there"
    )
    assert f"vgexp resume '{folder}'" in block
    assert (
        error_blocks.format_block("x" * 100 + " is not there") == f"error: {'x' * 100} is not there"
    )


@pytest.mark.parametrize("name", broken_files.NAMES)
def test_what_is_printable_has_no_character_that_a_terminal_obeys(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert all(c.isprintable() or c == "\n" for c in printable(name))
    assert main.main(["compare", name]) == 2
    assert all(c.isprintable() or c == "\n" for c in capsys.readouterr().err)
