"""The cause of a sick run in the terminal: what it is, and what to type, within 80 columns.

Holds: report/terminal/cause.py, diagnosis/page.py
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from layer_tables import GUESSING, STEADY, VANISHING, steps_of, summary_of
from rich.console import Console

from vgexp.config import Config
from vgexp.diagnosis.page import page_of
from vgexp.folders import write_config
from vgexp.past import PastRun
from vgexp.past.diagnosing import diagnose_run
from vgexp.report.terminal.cause import show_cause
from vgexp.report.terminal.closing import show_closing
from vgexp.report.terminal.page import show

COMMAND = "vgexp train model.activation=sigmoid"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A current folder, so that runs have short names."""
    monkeypatch.chdir(tmp_path)


def write_run(folder: Path, layers: pd.DataFrame, losses: Any, **changes: Any) -> PastRun:
    folder.mkdir()
    layers.to_csv(folder / "layers.csv", index=False)
    steps_of(losses).to_csv(folder / "steps.csv", index=False)
    summary = {**summary_of(layers, losses), "steps": len(losses), **changes}
    (folder / "summary.json").write_text(json.dumps(summary))
    write_config(folder, Config(), COMMAND)
    return PastRun(folder, is_strict=False)


def sick_run(name: str = "sick", **changes: Any) -> PastRun:
    told = {"cause_id": "saturating_activation", "cause_step": 0, "cause_layer": "layers.0"}
    return write_run(Path(name), VANISHING, [GUESSING] * 120, **(told | changes))


def printed(run: PastRun) -> list[str]:
    console = Console(file=io.StringIO(), width=80)
    show_cause(console, run, run.summary)
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined, no-any-return]


@pytest.mark.usefixtures("place")
def test_the_cause_is_told_with_the_command_of_its_first_remedy() -> None:
    lines = printed(sick_run())
    assert lines[0] == "Cause: saturating_activation since step 0 at layer 1 (layers.0)"
    first = diagnose_run(PastRun("sick")).findings[0].remedies[0]
    assert first.override is not None
    assert [line for line in lines if line.startswith("  Try:")] == [
        f"  Try:  vgexp train model.activation=sigmoid {first.override}"
    ]
    assert lines[-3:] == [
        "  More: vgexp diagnose sick",
        "        vgexp fix sick",
        "        vgexp explain saturating_activation sick",
    ]
    assert all(len(line) <= 80 for line in lines)


@pytest.mark.usefixtures("place")
def test_of_a_loop_of_somebodys_own_the_remedy_is_in_words(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = sick_run()
    monkeypatch.setattr("vgexp.report.terminal.cause.command_of", lambda _: ())
    (line,) = [line for line in printed(run) if line.startswith("  Try:")]
    words = diagnose_run(run).findings[0].remedies[0].words
    assert words.startswith(line.removeprefix("  Try:  "))


@pytest.mark.usefixtures("place")
def test_a_healthy_run_has_no_word_of_a_cause() -> None:
    run = write_run(Path("healthy"), STEADY, [2.3] + [0.5] * 120, cause_id=None)
    assert printed(run) == []
    older = write_run(Path("older"), VANISHING, [GUESSING] * 120)
    assert printed(older) == []


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize("changes", [{"cause_id": "no such"}, {"signal": 3, "num_layers": "x"}])
def test_a_summary_that_somebody_changed_breaks_nothing(changes: dict[str, Any]) -> None:
    assert all(len(line) <= 80 for line in printed(sick_run(**changes)))


@pytest.mark.usefixtures("place")
def test_training_ends_with_it_and_show_has_it_after_the_verdict() -> None:
    run = sick_run()
    for shows in (
        lambda console: show_closing(console, run.folder, run.summary, VANISHING, []),
        lambda console: show(console, run),
    ):
        console = Console(file=io.StringIO(), width=80)
        shows(console)
        lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
        verdict = lines.index("Verdict: vanishing")
        cause = lines.index("Cause: saturating_activation since step 0 at layer 1 (layers.0)")
        assert cause > verdict
        assert "        vgexp explain saturating_activation sick" in lines[cause:]


@pytest.mark.usefixtures("place")
def test_a_diagnosis_fits_eighty_columns_but_for_commands() -> None:
    lines = page_of(diagnose_run(sick_run()), ["vgexp", "train", *["model.depth=9"] * 9])
    long = [line for line in lines.splitlines() if len(line) > 80]
    assert long
    assert all(line.startswith("    vgexp train") for line in long)
