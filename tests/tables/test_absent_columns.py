"""A table of an earlier version lacks a column: what it measured is read, compared and shown.

Holds: quantities/tables.py, tables/frames.py
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest

import vgexp
from vgexp import tables
from vgexp.cli import main
from vgexp.errors import QuestionError
from vgexp.quantities import TABLES, Quantity
from vgexp.report import figures
from vgexp.report.figures import style

RECORDED = Path(__file__).parents[1] / "recorded" / "run"
OPTIONAL = [
    pytest.param(table, column, id=f"{table}.{column.name}")
    for table in ("layers", "steps", "evals")
    for column in TABLES[table]
    if column.role == "value"
]
REQUIRED = [
    pytest.param(table, column.name, id=f"{table}.{column.name}")
    for table, columns in TABLES.items()
    for column in columns
    if column.role != "value"
]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A recorded run with the columns of this version, those that it did not have empty."""
    folder = Path(shutil.copytree(RECORDED, tmp_path / "run"))
    for table in ("layers", "steps", "evals"):
        names = [column.name for column in TABLES[table]]
        as_text(folder, table).reindex(columns=names, fill_value="").to_csv(
            folder / f"{table}.csv", index=False
        )
    return folder


def as_text(run: Path, table: str) -> pd.DataFrame:
    return pd.read_csv(run / f"{table}.csv", dtype="str", keep_default_na=False)


def drop(run: Path, table: str, *names: str) -> None:
    as_text(run, table).drop(columns=list(names)).to_csv(run / f"{table}.csv", index=False)


@pytest.mark.parametrize(("table", "column"), OPTIONAL)
def test_a_run_without_one_known_column_loads_and_the_column_is_not_measured(
    run: Path, table: str, column: Quantity
) -> None:
    before = tables.read(run, table)
    drop(run, table, column.name)
    after = vgexp.load(run).table(table)
    assert set(after.columns) == set(before.columns)
    assert after[column.name].isna().all()
    assert after[column.name].dtype == before[column.name].dtype
    assert after.attrs[tables.ABSENT] == [column.name]
    others = [name for name in before if name != column.name]
    pd.testing.assert_frame_equal(after[others], before[others])
    assert tables.empty_cells(run, table)[column.name].all()
    assert tables.read(run, table, [column.name]).shape == (len(before), 1)


@pytest.mark.parametrize(("table", "column"), OPTIONAL)
def test_a_run_without_one_known_column_is_compared_and_shown(
    run: Path, table: str, column: Quantity, capsys: pytest.CaptureFixture[str]
) -> None:
    drop(run, table, column.name)
    metric = "weight_norm" if column.name == "delta_rms" else "delta_rms"
    assert main.main(["compare", str(run), "--layers", metric]) == 0
    assert main.main(["compare", str(run)]) == 0
    assert "has no" not in capsys.readouterr().out, "no one asked for it"
    assert main.main(["show", str(run)]) == 0
    assert "Traceback" not in capsys.readouterr().out


def test_what_was_asked_for_and_is_absent_is_said_once(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    drop(run, "layers", "dead_fraction")
    assert main.main(["show", str(run), "--metric", "dead_fraction"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert shown.count("layers.csv has no dead_fraction (written since vgexp 0.1)") == 1
    other = shutil.copytree(RECORDED, run.parent / "other")
    assert main.main(["compare", str(run), str(other), "--layers", "dead_fraction"]) == 0
    compared = " ".join(capsys.readouterr().out.split())
    assert compared.count("layers.csv has no dead_fraction (written since vgexp 0.1)") == 1
    assert main.main(["compare", str(run), "--layers", "dead_fraction"]) == 2
    assert "has no dead_fraction" in capsys.readouterr().err


def test_the_figures_of_a_run_without_a_column_are_drawn(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Image files are slow to write, and tell nothing of columns.
    monkeypatch.setattr(style, "write", lambda _figure, path: path)
    whole = {path.stem for path in figures.draw(run)}
    drop(run, "layers", "saturated_fraction", "update_ratio", "grad_max")
    drop(run, "steps", "grad_norm_clipped", "skipped")
    assert {path.stem for path in figures.draw(run)} == whole - {"update_ratios"}


@pytest.mark.parametrize(("table", "name"), REQUIRED)
def test_a_file_that_does_not_say_which_row_is_which_is_not_the_table(
    tmp_path: Path, table: str, name: str
) -> None:
    header = [column.name for column in TABLES[table] if column.name != name]
    (tmp_path / f"{table}.csv").write_text(",".join(header) + "\n")
    with pytest.raises(QuestionError, match=rf"lacks the columns {name}\n"):
        tables.read(tmp_path, table)


LAYERS = {*TABLES["flight"]}


@pytest.mark.parametrize(
    ("own", "other"),
    [
        (own, other)
        for own, columns in TABLES.items()
        for other, others in TABLES.items()
        if own != other
        if not {*columns} & {*others} >= LAYERS  # `flight` is a table of layers at other steps
    ],
)
def test_no_table_reads_as_another(tmp_path: Path, own: str, other: str) -> None:
    header = ",".join(column.name for column in TABLES[own])
    (tmp_path / f"{other}.csv").write_text(header + "\n")
    with pytest.raises(QuestionError, match="another table, or damaged"):
        tables.read(tmp_path, other)
