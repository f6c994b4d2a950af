"""Tables of a run that are read when a rule asks for them, and what is told with them.

Holds: past/lazy.py
"""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

from vgexp import tables
from vgexp.diagnosis import diagnose, sentence
from vgexp.errors import QuestionError
from vgexp.past import PastRun
from vgexp.report.notebook import as_html
from vgexp.report.terminal.closing import show_closing
from vgexp.report.terminal.page import show

RECORDED = Path(__file__).parents[1] / "recorded"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run of which anything may be changed."""
    return Path(shutil.copytree(RECORDED / "run", tmp_path / "run"))


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The tables that were read from disk, in order."""
    seen: list[str] = []
    read = tables.read

    def noted(folder: Path, table: str, *columns: object) -> pd.DataFrame:
        seen.append(table)
        return read(folder, table, *columns)  # type: ignore[arg-type]

    monkeypatch.setattr(tables, "read", noted)
    return seen


def test_a_table_is_read_once_and_when_it_is_first_asked_for(run: Path, reads: list[str]) -> None:
    lazy = PastRun(run).tables()
    assert "layers" in lazy
    assert "steps" in lazy
    assert "attention" not in lazy
    assert 5 not in lazy
    assert {*lazy} == {path.stem for path in run.glob("*.csv")}
    assert len(lazy) == len([*run.glob("*.csv")])
    assert not reads
    pd.testing.assert_frame_equal(lazy["layers"], tables.read(run, "layers"))
    reads.clear()
    assert lazy["layers"] is lazy["layers"]
    assert not reads
    assert lazy.get("attention") is None
    with pytest.raises(KeyError):
        lazy["no_such_table"]


def test_what_is_known_already_is_not_read(run: Path, reads: list[str]) -> None:
    layers = pd.DataFrame({"step": [0]})
    assert PastRun(run).tables({"layers": layers})["layers"] is layers
    assert not reads


def test_a_damaged_table_is_absent_and_told_of_unless_the_run_is_strict(run: Path) -> None:
    (run / "layers.csv").write_text("no,table\n1,2\n")
    tolerant = PastRun(run, is_strict=False)
    lazy = tolerant.tables()
    assert lazy.get("layers") is None
    assert "layers" not in lazy
    assert any("layers.csv" in problem for problem in tolerant.problems)
    with pytest.raises(QuestionError, match=r"layers\.csv"):
        PastRun(run).tables()["layers"]


def test_the_end_of_training_and_show_and_a_notebook_tell_what_tables_tell(
    run: Path, reads: list[str]
) -> None:
    layers, summary = tables.read(run, "layers"), json.loads((run / "summary.json").read_text())
    last = next(f for f in diagnose(layers).findings if f.id == "gradient_last").sentence
    assert last not in sentence(summary), "the summary alone knows no last step"
    reads.clear()
    file = io.StringIO()
    console = Console(file=file, width=10_000)
    show_closing(console, run, summary, layers, [])
    assert last in file.getvalue()
    assert "layers" not in reads, "whoever trained has read it"
    show(console, PastRun(run, is_strict=False))
    assert file.getvalue().count(last) == 2
    assert last in as_html(run)


def test_a_run_without_tables_tells_what_its_summary_tells(run: Path) -> None:
    past = PastRun(run)
    assert past.config is not None
    told = sentence(past.summary, past.tables(), past.config)
    assert told.startswith("The gradient is steady at step 0")
    without = shutil.copytree(run, run.parent / "without")
    (without / "config.yaml").unlink()
    (without / "layers.csv").unlink()
    left = PastRun(without, is_strict=False)
    assert sentence(left.summary, left.tables(), left.config) == sentence(past.summary)
