"""`vgexp diagnose`: what it prints of runs, and its exit codes.

Holds: cli/diagnose.py, past/diagnosing.py
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from layer_tables import GUESSING, STEADY, VANISHING, steps_of, summary_of

import vgexp
from vgexp.cli.main import main
from vgexp.config import Config, NormClipConfig
from vgexp.diagnosis import CAUSE_RULES, CAUSES, Diagnosis
from vgexp.errors import QuestionError
from vgexp.folders import write_config
from vgexp.past import PastRun
from vgexp.past.diagnosing import command_of, diagnose_run, list_next

FELL = [2.3] + [0.5] * 120


def write_run(folder: Path, layers: pd.DataFrame, losses: Any, **changes: Any) -> Path:
    """A run folder with these tables."""
    folder.mkdir(parents=True)
    layers.to_csv(folder / "layers.csv", index=False)
    steps_of(losses).to_csv(folder / "steps.csv", index=False)
    summary = {**summary_of(layers, losses), "steps": len(losses)}
    (folder / "summary.json").write_text(json.dumps(summary))
    write_config(folder, Config(**changes), "")
    return folder


@pytest.fixture
def sick(tmp_path: Path) -> Path:
    return write_run(tmp_path / "sweep" / "sick", VANISHING, [GUESSING] * 120)


@pytest.fixture
def healthy(tmp_path: Path) -> Path:
    return write_run(tmp_path / "sweep" / "healthy", STEADY, FELL, seed=7)


def test_a_sick_run_is_told_with_the_command_to_type(
    sick: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["diagnose", str(sick)]) == 3
    said = capsys.readouterr().out
    assert "Cause: saturating_activation, since step 0, at layer 1 (layers.0)" in said
    command = f"vgexp train --config-dir {sick} --config-name config model.skip=residual"
    assert command in said
    more = f"More\n  vgexp fix {sick}\n  vgexp explain saturating_activation {sick}\n"
    assert more in said


def test_a_cause_that_no_override_cures_is_explained_and_not_fixed(sick: Path) -> None:
    past = PastRun(sick, is_strict=False)
    found = diagnose_run(past)
    bare = dataclasses.replace(found.findings[0], remedies=())
    others = dataclasses.replace(found, findings=(bare, *found.findings[1:]))
    assert list_next(past, others) == [f"vgexp explain saturating_activation {sick}"]
    assert list_next(past, dataclasses.replace(found, cause=None)) == []


def test_a_healthy_run_has_no_cause(healthy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diagnose", str(healthy)]) == 0
    said = capsys.readouterr().out
    assert "\nHealth: healthy (verdict: healthy)\n" in said
    assert "Cause" not in said


def test_what_was_checked_is_counted_and_all_of_it_listed_on_request(
    sick: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["diagnose", str(sick)])
    short = capsys.readouterr().out
    told = vgexp.load(sick).diagnose()
    clean = [id for id in told.checked if id in CAUSE_RULES and id != told.cause]
    assert f"Checked, nothing found: {len(clean)} rules (--all lists them)\n" in short
    assert "the loss is vgexp's own, which needs no such check (3)" in " ".join(short.split())
    main(["diagnose", str(sick), "--all"])
    whole = capsys.readouterr().out
    for id in CAUSE_RULES:
        assert id in whole
    assert len(whole.splitlines()) > len(short.splitlines())
    assert all(len(line) <= 80 for line in whole.splitlines() if "  vgexp " not in line)


def test_only_the_causes_that_are_named_fail(
    sick: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["diagnose", str(sick), "--fail-on", "dead_units, saturating_activation"]) == 3
    assert main(["diagnose", str(sick), "--fail-on=dead_units"]) == 0
    assert main(["diagnose", str(sick), "--fail-on", "dead_unit"]) == 2
    assert "nearest: dead_units" in capsys.readouterr().err
    assert main(["diagnose", str(sick), "--fail-on", ","]) == 2
    capsys.readouterr()
    assert main(["diagnose", str(sick), "--fail-on", "vanishing"]) == 2
    assert "vanishing is a verdict" in capsys.readouterr().err


def test_a_note_that_is_named_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_run(tmp_path / "clipped", STEADY, FELL, clip=NormClipConfig(threshold=1e6))
    summary = json.loads((run / "summary.json").read_text())
    (run / "summary.json").write_text(json.dumps({**summary, "clip_fraction": 0.0}))
    (note,) = (each.id for each in vgexp.load(run).diagnose().findings if each.id in CAUSES)
    assert CAUSES[note].is_note
    assert main(["diagnose", str(run)]) == 0
    assert main(["diagnose", str(run), "--fail-on", note]) == 3
    assert main(["diagnose", str(run), "--fail-on", "dead_units"]) == 0
    assert "\nHealth: healthy" in capsys.readouterr().out


def test_several_runs_are_each_compared_with_the_good_one(
    sick: Path, healthy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["diagnose", str(sick), str(healthy), "--baseline", str(healthy)]) == 3
    said = capsys.readouterr().out.splitlines()
    differs = [line.strip() for line in said if line.startswith("    differs: ")]
    assert differs == [
        "differs: seed; losses part at step 19",
        "differs: no key; losses do not part",
    ]
    assert said[-1] == f"against {healthy}"
    asked = ["diagnose", str(sick), str(healthy), "--baseline", str(healthy), "--json"]
    assert main(asked) == 3
    told = [each["baseline"] for each in json.loads(capsys.readouterr().out)]
    assert [list(each["differs"]) for each in told] == [["seed"], []]
    assert told[0]["parts"]["step"] == 19


def test_several_runs_have_a_line_each_in_groups(
    sick: Path, healthy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["diagnose", str(sick.parent)]) == 3
    said = capsys.readouterr().out.splitlines()
    assert said == [
        "saturating_activation: 1 of 2 runs",
        f"  {sick}  vanishing  since step 0 at layer 1",
        "    seed=0",
        "healthy: 1 of 2 runs",
        f"  {healthy}  healthy",
        "    seed=7",
    ]


def test_json_is_the_diagnosis(
    sick: Path, healthy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["diagnose", str(sick), "--json"]) == 3
    told = json.loads(capsys.readouterr().out)
    assert told == {"run": str(sick), **vgexp.load(sick).diagnose().to_dict()}
    assert main(["diagnose", str(sick), str(healthy), "--json"]) == 3
    told = json.loads(capsys.readouterr().out)
    assert [each["cause"] for each in told] == ["saturating_activation", None]


def test_against_a_good_run_it_says_what_differs_and_since_when(
    sick: Path, healthy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["diagnose", str(sick), "--baseline", str(healthy)]) == 3
    said = capsys.readouterr().out
    assert f"Against {healthy}\n  seed: 0 here, 7 there\n" in said
    assert "the training losses part at step 19: 2.3 here, 0.59 there" in said
    assert main(["diagnose", str(sick), "--baseline", str(sick), "--json"]) == 3
    against = json.loads(capsys.readouterr().out)["baseline"]
    assert (against["differs"], against["parts"]) == ({}, None)


def test_of_a_file_in_the_current_folder_no_nearest_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data.csv").write_text("a\n1\n")
    monkeypatch.chdir(tmp_path)
    assert main(["diagnose", "data.csv"]) == 2
    assert "nearest" not in capsys.readouterr().err
    assert main(["diagnose", str(tmp_path / "data.csv")]) == 2
    assert "nearest" in capsys.readouterr().err


def test_a_folder_that_holds_no_run_is_one_readable_block(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["diagnose", str(tmp_path)]) == 2
    assert f"no run in or under {tmp_path}" in " ".join(capsys.readouterr().err.split())


def test_a_run_with_only_some_tables_says_what_it_lacks(
    sick: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (sick / "layers.csv").unlink()
    assert main(["diagnose", str(sick)]) == 3
    said = capsys.readouterr().out
    assert said.startswith("Note: layers.csv is not there\nHealth: sick (verdict: vanishing)\n")
    assert "\nCause: cannot be told: layers.csv is not there\n" in said
    assert "unknown" not in said
    assert "all that was checked is in order" not in said
    assert "needs layers.csv (" in said


def test_damage_stands_in_the_line_of_a_run_among_others(
    sick: Path, healthy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (sick / "layers.csv").write_bytes(b"\xff\xfe\x00garbage\x81" * 9)
    (healthy / "config.yaml").unlink()
    main(["diagnose", str(sick.parent)])
    said = capsys.readouterr().out
    assert said.startswith(f"cause cannot be told: 1 of 2 runs\n  {sick}  vanishing  damaged: lay")
    assert f"  {healthy}  healthy  damaged: config.yaml\n" in said
    main(["diagnose", str(healthy)])
    said = capsys.readouterr().out
    notes, _, rest = said.partition("Health: ")
    assert "Note: config.yaml is not there: settings are not known, and remedies are" in notes
    assert "Note: " not in rest
    assert all(len(line) <= 80 for line in said.splitlines())


def test_a_run_that_breaks_a_rule_is_named_and_keeps_none_from_being_told(
    sick: Path,
    healthy: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def of(past: PastRun) -> Diagnosis:
        if past.folder == sick:
            raise TypeError("float and list")
        return diagnose_run(past)

    monkeypatch.setattr("vgexp.past.diagnosing.diagnose_run", of)
    assert main(["diagnose", str(sick.parent)]) == 0
    said = capsys.readouterr().out
    assert f"not diagnosed: {sick}: TypeError: float and list\n" in said
    assert f"  {healthy}  healthy\n" in said
    assert main(["diagnose", str(sick)]) == 2
    assert f"{sick} cannot be diagnosed: TypeError" in " ".join(capsys.readouterr().err.split())


def test_a_run_with_one_row_is_undecided(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_run(tmp_path / "one", STEADY.iloc[:1], [2.3])
    assert main(["diagnose", str(run)]) == 0
    assert "\nHealth: undecided" in capsys.readouterr().out


def test_a_run_of_nan_alone_is_a_diagnosis(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_run(tmp_path / "nan", STEADY.assign(delta_rms=np.nan), [np.nan] * 30)
    assert main(["diagnose", str(run)]) == 3
    assert "\nHealth: sick (verdict: diverged)" in capsys.readouterr().out


def test_a_run_without_a_summary_is_diagnosed_by_its_tables(
    sick: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (sick / "summary.json").unlink()
    main(["diagnose", str(sick)])
    assert "The gradient vanishes at step 0" in capsys.readouterr().out
    (sick / "layers.csv").write_text("")
    assert main(["diagnose", str(sick)]) == 2


def test_of_several_runs_a_damaged_one_is_named(
    sick: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(sick, sick.parent / "broken")
    (sick.parent / "broken" / "summary.json").write_text("{}")
    (sick.parent / "broken" / "layers.csv").unlink()
    assert main(["diagnose", str(sick.parent)]) == 3
    assert "not diagnosed: " in capsys.readouterr().out


def test_a_path_instead_of_a_frame_is_a_question_gone_wrong() -> None:
    with pytest.raises(QuestionError, match="diagnose was given a str"):
        vgexp.diagnose("outputs/run")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        (
            "vgexp train +experiment=relu_he seed=3 hydra.run.dir=/a",
            ["vgexp", "train", "+experiment=relu_he", "seed=3"],
        ),
        ("vgexp train -m seed=1,2", None),
        ("", None),
        ("vgexp train 'unfinished", None),
    ],
)
def test_the_command_of_a_run_is_what_was_typed_or_what_repeats_it(
    sick: Path, typed: str, words: list[str] | None
) -> None:
    write_config(sick, Config(), typed)
    repeats = ["vgexp", "train", "--config-dir", str(sick), "--config-name", "config"]
    assert command_of(PastRun(sick)) == tuple(words or repeats)
