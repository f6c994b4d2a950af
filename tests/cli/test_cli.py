"""The verbs, their exit codes, error blocks, lists.

Holds: cli/error_blocks.py, cli/interrupts.py, cli/listing.py, cli/main.py, cli/verbs.py
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import vgexp
from vgexp.cli import error_blocks, groups, hydra_entry, listing, main, verbs
from vgexp.cli.interrupts import Terminated, exit_code, raise_on_signals
from vgexp.errors import QuestionError
from vgexp.quantities import TABLES


@pytest.mark.parametrize("argv", [[], ["-h"], ["--help"]])
def test_help_names_every_verb_that_exists(
    argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.main(argv) == 0
    shown = capsys.readouterr().out
    assert all(f"\n  {verb} " in shown for verb in verbs.VERBS)
    assert max(map(len, shown.splitlines())) <= 80


def test_version_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["--version"]) == 0
    assert capsys.readouterr().out == f"vgexp {vgexp.__version__}\n"


@pytest.mark.parametrize("name", ["evals", "evals.csv"])
def test_the_metrics_of_one_table_are_listed(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["list", "metrics", name]) == 0
    *lines, blank, _ = capsys.readouterr().out.splitlines()
    named = [line.split()[0] for line in lines if not line.startswith(" ")]
    assert named == [f"evals.{column.name}" for column in TABLES["evals"]]
    assert not blank


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (
            ["trian"],
            "unknown verb: 'trian'\n"
            "  allowed: compare, diagnose, explain, fix, list, resume, show, signal, train\n"
            "  nearest: train",
        ),
        (["--hlep"], "nearest: --help"),
        (["list", "metric"], "nearest: metrics"),
        (["list", "list"], "unknown kind: 'list'"),
        (["train", "--foo"], "unknown flag: '--foo'"),
        (["list", "norms", "layers"], "takes one kind, not 2"),
        (["list", "metrics", "steps", "layers"], "takes one kind, not 3"),
        (["list", "metrics", "layer"], "unknown table: 'layer'"),
        (["-sc", "install=fihs"], "nearest: fish"),
        (["-sc"], "unknown completion command"),
        (["compare", "--no-such-flag"], "--no-such-flag"),
    ],
)
def test_a_wrong_question_is_one_block_and_exit_code_2(
    argv: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.main(argv) == 2
    shown = capsys.readouterr()
    assert not shown.out
    assert shown.err.startswith("error: ")
    assert said in shown.err
    assert "Traceback" not in shown.err


@pytest.mark.parametrize("argv", [["list", "list"], ["train", "--foo"], ["--foo"]])
def test_a_short_word_is_not_taken_for_one_that_is_half_like_it(
    argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.main(argv) == 2
    assert "nearest" not in capsys.readouterr().err


def test_a_block_wraps_at_80_columns_and_breaks_no_word() -> None:
    path = "/a/very/long/" + "path/" * 20 + "that-has-hyphens-too"
    shown = error_blocks.format_block("word " * 40, "allowed: " + "name, " * 40, path)
    assert path in shown
    assert all(len(line) <= 80 or path in line for line in shown.splitlines())


@pytest.mark.parametrize("kind", listing.KINDS)
def test_every_kind_lists_a_line_for_each_name(
    kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    entries = listing.KINDS[kind]()
    assert entries
    assert all(summary for _, summary in entries), entries
    assert main.main(["list", kind]) == 0
    lines, _, closing = capsys.readouterr().out.partition("\n\n")
    names = [line.split()[0] for line in lines.splitlines() if line[0] != " "]
    assert names == [name for name, _ in entries]
    lines = [*lines.splitlines(), *closing.splitlines()]
    assert max(map(len, lines)) <= 80


def test_list_alone_names_everything(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["list"]) == 0
    shown = capsys.readouterr().out
    words = shown.replace(",", " ").split()
    named = [kind for name, kind in listing.KINDS.items() if name != "zoo"]
    assert all(name in words for kind in named for name, _ in kind())
    assert f"{len(listing.list_zoo())} configurations of known health" in shown
    assert max(map(len, shown.splitlines())) <= 80


def test_the_zoo_is_listed_with_its_truth_and_counted_in_the_help(
    capsys: pytest.CaptureFixture[str],
) -> None:
    files = [*listing.find_configs().glob("zoo/*.yaml")]
    entries = dict(listing.list_zoo())
    assert {*entries} == {path.stem for path in files}
    assert entries["batchnorm_cnn"].startswith("held, batchnorm_depth: Sixty convolutions")
    with groups.wrap_groups():
        print(f"clip: agc, none\nzoo: {', '.join(entries)}")
    assert capsys.readouterr().out == (
        f"clip: agc, none\nzoo: {len(files)} configurations of known health: vgexp list zoo\n"
    )


def test_every_preset_opens_with_its_package_its_command_and_what_it_shows() -> None:
    for path in listing.find_configs().glob("experiment/*.yaml"):
        lines = path.read_text().splitlines()
        assert lines[0] == "# @package _global_", "Hydra reads the package in the first line only"
        assert lines[1].startswith("# vgexp train "), path
        assert f"experiment={path.stem}" in lines[1]
        assert lines[2].startswith("# ")


def test_a_crash_is_exit_code_1_and_says_how_to_see_the_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def crash(_: object) -> int:
        raise KeyError("lost")

    monkeypatch.setattr(listing, "main", crash)
    assert main.main(["list"]) == 1
    assert "KeyError: 'lost'\n  HYDRA_FULL_ERROR=1 shows" in capsys.readouterr().err
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    assert main.main(["list"]) == 1
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code", "word"),
    [(KeyboardInterrupt(), 130, "interrupted"), (Terminated(), 143, "terminated")],
)
def test_an_interruption_has_its_own_exit_code(
    error: KeyboardInterrupt,
    code: int,
    word: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def interrupted(_: object) -> int:
        raise error

    monkeypatch.setattr(listing, "main", interrupted)
    assert main.main(["list"]) == code == exit_code(error)
    assert capsys.readouterr().err == f"error: {word}\n", "list has nothing to record"
    monkeypatch.setattr(hydra_entry, "enter", lambda _verb, argv: interrupted(argv))
    assert main.main(["train"]) == code
    assert capsys.readouterr().err == f"error: {word}\n  nothing was recorded yet\n"


def test_ctrl_c_while_modules_are_loaded_is_one_line_too() -> None:
    code = """
import sys
class Interrupts:
    def find_spec(self, name, path=None, target=None):
        if name == "vgexp.cli.error_blocks":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Interrupts())
from vgexp.cli.main import main
sys.exit(main(["list"]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (130, "error: interrupted\n")


def test_the_entry_loads_no_module_of_ours_before_it_can_be_interrupted() -> None:
    code = """
import sys
import vgexp.cli.main
print(*sorted(name for name in sys.modules if name.startswith("vgexp")))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["vgexp", "vgexp.cli", "vgexp.cli.main"]


def test_sigterm_raises_within_and_is_as_before_after() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Terminated), raise_on_signals():
        os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_reader_who_leaves_early_sees_no_complaint() -> None:
    command = f"{sys.executable} -m vgexp list metrics | head -1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert len(done.stdout.splitlines()) == 1


@pytest.mark.parametrize("argv", [["--version"], ["list", "metrics"]], ids=["short", "long"])
def test_after_the_reader_has_left_the_code_is_0_and_the_last_flush_has_nobody_to_fail(
    argv: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reading, writing = os.pipe()
    before = os.dup(1)
    os.close(reading)
    try:
        os.dup2(writing, 1)
        with (
            open(1, "w", encoding="utf-8", closefd=False) as stdout,
            monkeypatch.context() as patch,
        ):
            patch.setattr(sys, "stdout", stdout)
            assert main.main(argv) == 0
            stdout.flush()  # as the interpreter does when it ends
            assert os.path.samestat(os.fstat(1), Path(os.devnull).stat())
    finally:
        os.dup2(before, 1)
        for descriptor in (before, writing):
            os.close(descriptor)
    assert capsys.readouterr().err == ""


def test_full_disk_and_other_errors_of_the_system_keep_their_words() -> None:
    assert error_blocks.describe(OSError(28, "No space left on device")) == (
        "[Errno 28] No space left on device"
    )
    assert error_blocks.describe(QuestionError("as it is")) == "as it is"
    assert error_blocks.describe(RuntimeError()) == "RuntimeError"


def test_an_interruption_says_what_was_saved(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("layers.csv", "summary.json", "train.log"):
        (tmp_path / name).touch()
    error_blocks.show_interruption(KeyboardInterrupt(), tmp_path)
    shown = " ".join(capsys.readouterr().err.split())
    assert shown == f"error: interrupted saved in {tmp_path}: layers.csv, summary.json"
