"""The one reader of a run: what it finds, what it keeps, and what it leaves out.

Holds: past/run.py, __init__.py, past/extent.py, past/sweep.py, past/values.py
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Collection
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import vgexp
from vgexp import folders, tables
from vgexp.errors import QuestionError
from vgexp.past import PastRun, job_of, jobs_of
from vgexp.past.values import find_values
from vgexp.quantities import TABLES
from vgexp.tables import HAS_VALUE

RECORDED = Path(__file__).parents[1] / "recorded"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run of which anything may be changed."""
    return Path(shutil.copytree(RECORDED / "run", tmp_path / "run"))


def change_summary(run: Path, **changes: Any) -> None:
    path = run / folders.SUMMARY
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_run_has_an_attribute_for_every_declared_table_and_no_other() -> None:
    properties = {
        name for name, value in vars(vgexp.Run).items() if isinstance(value, cached_property)
    }
    assert properties - {"summary", "config"} == set(TABLES)


@pytest.mark.parametrize("table", TABLES)
def test_an_attribute_of_a_run_is_the_table_of_its_name_and_stays(table: str) -> None:
    folder = [*(path.parent for path in RECORDED.rglob(f"{table}.csv")), RECORDED / "run"][0]
    loaded = vgexp.load(folder)
    if not (folder / f"{table}.csv").exists():
        with pytest.raises(QuestionError, match=f"{table}.csv: No such file"):
            getattr(loaded, table)
        return
    pd.testing.assert_frame_equal(getattr(loaded, table), tables.read(folder, table))
    assert getattr(loaded, table) is getattr(loaded, table)


def test_the_dtype_is_the_summarys_else_the_configurations_else_unknown(run: Path) -> None:
    assert PastRun(run).dtype == "float64"
    change_summary(run, dtype="float16")
    assert PastRun(run).dtype == "float16"
    change_summary(run, dtype="float128")
    assert PastRun(run).dtype is None
    (run / folders.SUMMARY).unlink()
    config = (run / folders.CONFIG).read_text()
    (run / folders.CONFIG).write_text(config.replace("dtype: float64", "dtype: bfloat16"))
    assert PastRun(run).dtype == "bfloat16"
    (run / folders.CONFIG).unlink()
    assert PastRun(run).dtype is None


def test_a_table_that_lacks_its_last_step_alone_says_so(run: Path) -> None:
    assert PastRun(run).shortfall("steps") is None
    *lines, _ = (run / "steps.csv").read_text().splitlines(keepends=True)
    (run / "steps.csv").write_text("".join(lines))
    short = "steps.csv ends at step 22, the run at step 23"
    assert PastRun(run).shortfall("steps") == short
    change_summary(run, status="stopped")
    assert PastRun(run).shortfall("steps") == short
    change_summary(run, status="interrupted")
    assert PastRun(run).shortfall("steps") is None


def test_the_loss_scale_is_known_by_step(run: Path) -> None:
    steps = pd.read_csv(run / "steps.csv")
    steps.assign(loss_scale=2.0 ** steps["step"]).to_csv(run / "steps.csv", index=False)
    scales = PastRun(run).loss_scales
    assert scales is not None
    assert scales.to_dict() == {step: 2.0**step for step in steps["step"]}
    (run / "steps.csv").unlink()
    assert PastRun(run).loss_scales is None


def test_nan_is_told_from_an_empty_cell_and_from_a_column_that_an_older_table_lacks(
    run: Path,
) -> None:
    frame = pd.read_csv(run / "layers.csv").drop(columns=["act_std"])
    frame = frame.astype({"grad_norm": "object"})
    frame.loc[0, "grad_norm"], frame.loc[1, "grad_norm"] = "nan", ""
    frame.to_csv(run / "layers.csv", index=False)
    reader = PastRun(run)
    found = reader.layers(["grad_norm", "act_std"], ["grad_max"])
    assert found["grad_norm"][HAS_VALUE].tolist()[:3] == [True, False, True]
    assert found["grad_norm"]["grad_max"].tolist() == frame["grad_max"].tolist()
    assert not found["act_std"][HAS_VALUE].any()
    drawn = reader.read_with_inf("layers", ["grad_norm", "act_std", "no_such"])
    assert drawn["grad_norm"].tolist()[0] == np.inf
    assert np.isnan(drawn["grad_norm"].tolist()[1])
    assert drawn["act_std"].isna().all()
    assert [*drawn] == ["grad_norm", "act_std"]


def test_columns_that_were_read_are_not_read_again_and_are_the_callers_own(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[set[str]] = []
    read = tables.read

    def note(folder: Path, table: str, columns: Collection[str] | None) -> pd.DataFrame:
        asked.append({*(columns or ())})
        return read(folder, table, columns)

    monkeypatch.setattr(tables, "read", note)
    reader = PastRun(run)
    frame = reader.read("steps", ("step", "loss", "loss_scale"))
    frame["step"] = -1
    assert reader.read("steps", ("step", "loss"))["step"].tolist()[:2] == [0, 1]
    assert reader.loss_scales is not None
    assert asked == [{"step", "loss", "loss_scale"}]


def test_a_run_that_goes_on_while_it_is_read_is_read_as_far_as_it_was(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between reading the values and looking for empty cells, rows are written."""
    path = run / "layers.csv"
    frame = pd.read_csv(path).astype({"grad_norm": "object"})
    frame.loc[0, "grad_norm"] = "nan"
    frame.to_csv(path, index=False)
    may_hold_nan = tables.may_hold_nan

    def write_on(folder: Path, table: str) -> bool:
        with path.open("a") as file:
            file.write(path.read_text().splitlines()[-1] + "\n")
        return may_hold_nan(folder, table)

    monkeypatch.setattr(tables, "may_hold_nan", write_on)
    found = PastRun(run).layers(["grad_norm"])["grad_norm"]
    assert len(found) == len(frame)
    assert found[HAS_VALUE].dtype == bool
    assert found[HAS_VALUE].all()


def test_what_is_missing_is_no_error_and_is_noted_where_every_run_has_it(tmp_path: Path) -> None:
    for is_strict in (True, False):
        reader = PastRun(tmp_path, is_strict=is_strict)
        assert reader.summary == {}
        assert reader.outcome == {"status": "unfinished"}
        assert reader.config is None
        for table in TABLES:
            assert reader.table(table, ["step"]) is None
            assert reader.columns(table) == []
        assert reader.layers(["delta_rms"]) == {}
        assert reader.problems == ["layers.csv is not there", "steps.csv is not there"]
    for part in (reader.require_summary, reader.require_config, lambda: reader.read("time")):
        with pytest.raises(QuestionError, match="No such file"):
            part()


def test_a_table_that_was_cut_short_is_a_problem_where_every_layer_was_asked_for(run: Path) -> None:
    path = run / "layers.csv"
    whole = path.read_text()
    lines = whole.splitlines(keepends=True)
    last_step = lines[-1].split(",")[0]
    kept = [line for line in lines if not line.startswith(f"{last_step},")]
    path.write_text("".join([*kept, lines[-1]]))
    reader = PastRun(run, is_strict=False)
    assert reader.table("layers", ["step"]) is not None
    num_layers = reader.summary["num_layers"]
    assert reader.problems_of("layers") == [
        f"layers.csv has 1 of {num_layers + 1} rows at step {last_step}"
    ]
    first_step = [line for line in lines[1:] if line.startswith("0,")]
    path.write_text("".join([lines[0], *first_step[:-1]]))
    reader = PastRun(run, is_strict=False)
    assert reader.table("layers", ["step"]) is not None
    (problem,) = reader.problems_of("layers")
    assert problem.endswith(f"has {num_layers} of {num_layers + 1} rows at step 0")
    path.write_text(whole)
    reader = PastRun(run, is_strict=False)
    assert reader.table("layers", ["step"]) is not None
    assert reader.problems == []


def test_a_job_without_a_summary_has_the_ending_that_the_nearest_sweep_tells(
    tmp_path: Path,
) -> None:
    outer, inner = tmp_path / "outer", tmp_path / "outer" / "inner"
    job = inner / "0"
    job.mkdir(parents=True)
    (outer / "sweep.csv").write_text("job,status,reason\ninner/0,failed,outer\n")
    assert PastRun(job).outcome == {"status": "failed", "reason": "outer"}
    (inner / "sweep.csv").write_text("job,status,seed,reason\n0,failed,3,inner\n")
    assert PastRun(job).outcome == {"status": "failed", "reason": "inner"}
    assert dict(job_of(job).overrides) == {"seed": 3}
    lone = tmp_path / "lone"
    assert jobs_of([job, lone])[lone].ending == {}


@pytest.mark.parametrize(
    ("status", "expected"), [("failed", True), ("interrupted", True), ("completed", False)]
)
def test_a_run_can_go_on_until_it_has_ended_but_not_while_it_is_written(
    status: str, expected: bool, run: Path
) -> None:
    change_summary(run, status=status)
    assert PastRun(run).can_go_on is expected
    (run / folders.SUMMARY).unlink()
    assert PastRun(run).can_go_on
    with folders.occupy(run):
        reader = PastRun(run)
        assert reader.is_running
        assert not reader.can_go_on
    (run / folders.CONFIG).unlink()
    assert not PastRun(run).can_go_on


def test_a_run_is_equal_to_another_of_its_folder() -> None:
    assert vgexp.load(RECORDED / "run") == vgexp.load(RECORDED / "run")
    assert [field.name for field in dataclasses.fields(vgexp.Run)] == ["folder"]


def test_a_column_that_is_absent_is_named_once_however_often_it_is_read(run: Path) -> None:
    path = run / "layers.csv"
    pd.read_csv(path, dtype="str", keep_default_na=False).drop(columns="grad_max").to_csv(
        path, index=False
    )
    past = PastRun(run, is_strict=False)
    for beside in ("delta_rms", "act_std"):
        frame = past.table("layers", ["step", "grad_max", beside])
        assert frame is not None
        assert frame["grad_max"].isna().all()
    assert past.problems == ["layers.csv has no grad_max (written since vgexp 0.1)"]


def test_a_row_that_the_file_has_no_more_has_no_value(run: Path) -> None:
    path = run / "steps.csv"
    rows = tables.read(run, "steps", ["loss"])
    rows.loc[[0, 1], "loss"] = np.nan
    lines = path.read_text().splitlines(keepends=True)
    header = lines[0].rstrip("\n").split(",")
    cells = lines[1].split(",")
    cells[header.index("loss")] = "nan"
    path.write_text("".join([lines[0], ",".join(cells)]))
    assert len(rows) > 2
    assert find_values(run, "steps", rows)["loss"][[0, 1]].tolist() == [True, False]
