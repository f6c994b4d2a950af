"""Any byte of any file of a run: each reader names the file that is damaged, or reads on.

Holds: past/extent.py, past/problems.py, past/run.py, tables/plain.py
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import pytest
from fault_cases.children import is_one_block
from matplotlib.figure import Figure

import vgexp
from vgexp import checkpoints, folders, resuming
from vgexp.cli.main import main
from vgexp.errors import QuestionError
from vgexp.past import PastRun
from vgexp.quantities import COMMON, TABLES
from vgexp.report import figures
from vgexp.report.figures import of_run, style
from vgexp.sinks.csv_files import CsvFiles
from vgexp.sweep import place, table

RECORDED = Path(__file__).parents[1] / "recorded"

FILES = (
    *sorted(f"run/{path.name}" for path in (RECORDED / "run").iterdir() if path.is_file()),
    *("recurrent/time.csv", "recurrent/recurrence.csv"),
    *("signal/layers.csv", "signal/jacobian.csv", "signal/summary.json"),
)
OF_SWEEP = tuple(f"interrupted_sweep/{n}" for n in ("plan.json", "sweep.csv", "multirun.yaml"))
OF_INTERRUPTED = sorted(
    path.name
    for path in (RECORDED / "interrupted").iterdir()
    if path.is_file() and path.name != checkpoints.NEWEST
)


def _byte_at(share: float, byte: bytes) -> Callable[[bytes], bytes]:
    """Replaces one byte, at a share of the file's length."""

    def damage(content: bytes) -> bytes:
        place = int(share * (len(content) - 1))
        return content[:place] + byte + content[place + 1 :]

    return damage


def _in_header(content: bytes) -> bytes:
    place = len(content.split(b"\n")[0]) // 2
    return content[:place] + b"\xff" + content[place + 1 :]


DAMAGES: Mapping[str, Callable[[bytes], bytes] | None] = {
    "no text at the start": _byte_at(0, b"\xff"),
    "no text in the header": _in_header,
    "no text in the middle": _byte_at(0.5, b"\xff"),
    "a zero byte": _byte_at(0.5, b"\0"),
    "another letter": _byte_at(0.5, b"x"),
    "empty": lambda _: b"",
    "cut in the header": lambda content: content[: len(content.split(b"\n")[0]) // 2],
    "cut in the middle": lambda content: content[: len(content) // 2],
    "a folder": None,
}
NAMED = {
    "no text at the start": "is not text",
    "no text in the header": "is not text",
    "a folder": "is a folder",
}
"""Damage that nobody who opens the file overlooks -> what is said of it."""


GAPS = ("is not there", "ends at step", "ends within a line", "rows at step")


def damage(path: Path, how: str) -> None:
    """Damages a file; None in `DAMAGES`: something that is no file has its name."""
    change = DAMAGES[how]
    if change is None:
        path.unlink()
        path.mkdir()
    else:
        path.write_bytes(change(path.read_bytes()))


def mend(path: Path, source: Path) -> None:
    """Puts the recorded file back."""
    if path.is_dir():
        path.rmdir()
    shutil.copyfile(source, path)


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what was recorded."""
    return Path(shutil.copytree(RECORDED, tmp_path_factory.mktemp("recorded") / "copied"))


@pytest.fixture
def damaged(copied: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """The one file of the copy that is damaged."""
    file, how = request.param
    damage(copied / file, how)
    yield copied / file
    mend(copied / file, RECORDED / file)


def each_damage(files: Sequence[str]) -> pytest.MarkDecorator:
    """Runs a test with each damage of each file."""
    cases = [pytest.param((file, how), id=f"{file}: {how}") for file in files for how in DAMAGES]
    return pytest.mark.parametrize("damaged", cases, indirect=True)


def how_of(request: pytest.FixtureRequest) -> str:
    """Which damage the file of a test has."""
    return str(request.node.callspec.params["damaged"][1])


@pytest.fixture(autouse=True)
def _without_drawing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures read their tables, and stay empty."""
    empty = {
        name: dataclasses.replace(figure, make=lambda *_, **__: Figure())
        for name, figure in of_run.FIGURES.items()
    }
    monkeypatch.setattr(of_run, "FIGURES", empty)
    monkeypatch.setattr(of_run, "overview_of_run", lambda *_: Figure())
    monkeypatch.setattr(style, "write", lambda _, path: path)


def said_by(call: Callable[[], object]) -> str:
    """The question that a call ends in; empty where it ends well."""
    try:
        call()
    except QuestionError as error:
        return str(error)
    return ""


# ---------------------------------------------------------------- what each reader says


def _load(folder: Path) -> str:
    run = vgexp.load(folder)
    parts = [name for name in TABLES if (folder / f"{name}.csv").exists()]
    return "\n".join(said_by(partial(getattr, run, part)) for part in (*parts, "summary", "config"))


def _typed(*words: str) -> Callable[[Path, pytest.CaptureFixture[str]], str]:
    def say(folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
        code = main([*words, str(folder)])
        shown = capsys.readouterr()
        assert code in (0, 2)
        assert is_one_block(shown.err) if code else not shown.err
        return shown.err or shown.out

    return say


READERS: Mapping[str, Callable[[Path, pytest.CaptureFixture[str]], str]] = {
    "load": lambda folder, _: _load(folder),
    "compare": _typed("compare"),
    "compare --layers": _typed("compare", "--layers"),
    "compare --metric": _typed("compare", "--seeds", "--metric", "grad_norm", "--step", "last"),
    "show": _typed("show"),
    "figures": lambda folder, _: said_by(partial(figures.draw, folder)),
}
"""Name -> reads a run folder, and returns what it said of it."""

READ_BY: Mapping[str, tuple[str, ...]] = {
    "load": (*(f"{name}.csv" for name in TABLES), "summary.json", "config.yaml"),
    "compare": ("summary.json", "config.yaml"),
    "compare --layers": ("layers.csv", "summary.json", "config.yaml"),
    "compare --metric": ("layers.csv", "summary.json", "config.yaml"),
    "show": ("layers.csv", "steps.csv", "evals.csv", "time.csv", "summary.json", "config.yaml"),
    "figures": tuple(f"{name}.csv" for name in TABLES if name not in ("timing", "recurrence")),
}
"""Reader -> the files without which it cannot do, or which it would show more of."""

ENDS_OF = ("layers.csv", "steps.csv")
"""Files of which every reader of runs says where they end before the run does."""


def _names_of(reader: str) -> list[str]:
    """The recorded files that a reader reads, or looks at the end of."""
    names = {*READ_BY[reader], *(ENDS_OF if reader.startswith("compare") else ())}
    return [file for file in FILES if Path(file).name in names]


@pytest.mark.parametrize(
    ("reader", "damaged"),
    [
        pytest.param(reader, (file, how), id=f"{reader}: {file}: {how}")
        for reader in READERS
        for file in _names_of(reader)
        for how in DAMAGES
    ],
    indirect=["damaged"],
)
def test_a_damaged_file_is_named_or_is_read_on(
    reader: str,
    damaged: Path,
    request: pytest.FixtureRequest,
    capsys: pytest.CaptureFixture[str],
) -> None:
    said = " ".join(READERS[reader](damaged.parent, capsys).split())
    assert "codec" not in said
    assert "Traceback" not in said
    how = how_of(request)
    if how in NAMED and damaged.name in READ_BY[reader]:
        assert f"{damaged.name} {NAMED[how]}" in said


@pytest.mark.parametrize("reader", READERS)
def test_damage_to_files_that_a_reader_does_not_read_changes_nothing_that_it_says(
    reader: str, copied: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    unread: dict[str, list[str]] = {}
    for file in sorted({*FILES} - {*_names_of(reader)}):
        unread.setdefault(file.split("/")[0], []).append(file)
    assert unread or reader == "load"
    for folder, others in unread.items():
        whole = READERS[reader](copied / folder, capsys)
        for how in DAMAGES:
            for file in others:
                damage(copied / file, how)
            said = READERS[reader](copied / folder, capsys)
            for file in others:
                mend(copied / file, RECORDED / file)
            assert said == whole, how


@each_damage(FILES)
def test_a_run_that_is_not_strict_notes_what_a_strict_one_raises(damaged: Path) -> None:
    def read(run: PastRun) -> None:
        for part in ("summary", "config", "dtype", "loss_scales", "outcome", "can_go_on"):
            getattr(run, part)
        for name in TABLES:
            run.table(name, run.columns(name))
        run.layers(["delta_rms", "grad_norm"], ["grad_max"])

    folder = damaged.parent
    noting, strict = PastRun(folder, is_strict=False), PastRun(folder)
    read(noting)
    raised = said_by(partial(read, strict)).replace(f"{folder}/", "")
    if raised:
        assert damaged.name in raised
        assert "; ".join(raised.splitlines()) in noting.problems
    else:  # What is missing is no damage to what is there.
        assert all(any(gap in words for gap in GAPS) for words in noting.problems)


@pytest.mark.parametrize("lost", ["backward_factor_per_layer", "signal", "attenuation"])
def test_a_summary_that_lacks_a_metric_is_named_where_words_need_it(
    lost: str, copied: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = copied / "signal" / "summary.json"
    path.write_text(path.read_text().replace(f'"{lost}"', '"lost"'))
    code = main(["show", str(path.parent)])
    error = " ".join(capsys.readouterr().err.split())
    mend(path, RECORDED / "signal" / "summary.json")
    named = f"summary.json is not as vgexp signal writes it: KeyError: '{lost}'"
    assert named in error if lost == "signal" else code in (0, 2)
    assert code == (2 if error else 0)
    run = copied / "run" / "summary.json"
    run.write_text(run.read_text().replace(f'"{lost}"', '"lost"'))
    page = vgexp.load(run.parent)._repr_html_()
    mend(run, RECORDED / "run" / "summary.json")
    assert "<h3>" in page


# ---------------------------------------------------------------- sweeps


@each_damage(OF_SWEEP)
@pytest.mark.usefixtures("damaged")
def test_a_damaged_file_of_a_sweep_keeps_no_run_from_being_compared(
    copied: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", str(copied / "interrupted_sweep")]) == 0
    shown = capsys.readouterr()
    assert "stalled (interrupted)" in shown.out
    assert "codec" not in shown.out
    assert not shown.err


@each_damage(OF_SWEEP)
def test_a_damaged_file_of_a_sweep_is_named_before_the_sweep_goes_on(damaged: Path) -> None:
    found: list[int] = []

    def read() -> None:
        known = place.admit(damaged.parent)
        rows = table.read(damaged.parent)
        found.extend([len(known.entries) if known else 0, len(rows)])

    said = said_by(read)
    assert "codec" not in said
    assert damaged.name in said or (damaged.name != "plan.json" and found[0] == 4)


# ---------------------------------------------------------------- resume


@pytest.fixture
def cut_short(tmp_path: Path) -> Path:
    """A run that lost power, of which anything may be changed."""
    return Path(shutil.copytree(RECORDED / "interrupted", tmp_path / "run"))


@pytest.mark.parametrize("how", DAMAGES)
@pytest.mark.parametrize("name", OF_INTERRUPTED)
def test_a_damaged_file_is_named_or_set_aside_where_a_run_goes_on(
    name: str, how: str, cut_short: Path
) -> None:
    versions = checkpoints.load(cut_short / checkpoints.NEWEST).versions
    damage(cut_short / name, how)
    story: list[str] = []

    def go_on() -> None:
        folders.require_regular_files(cut_short)
        config = vgexp.load(cut_short).config
        start = resuming.start_of(cut_short, config, versions)
        CsvFiles(cut_short, COMMON, start.prefixes).close()
        story.append(start.story)

    said = said_by(go_on)
    assert "codec" not in said
    if story:
        assert all(path.read_bytes().endswith(b"\n") for path in cut_short.glob("*.csv"))
        # No promise is made of the table of times: what is wrong with it costs no step.
        assert name != "timing.csv" or story == ["going on from step 8"]
    else:
        assert name in said
        assert name.endswith((".csv", ".yaml")) or how == "a folder"
