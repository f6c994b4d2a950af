"""Sinks beside the CSV files: each gets every row, and the failure of one is its own.

Holds: sinks/opening.py, sinks/sink.py, sinks/user_code.py
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import CONFIG, strike
from trainers import changed

import vgexp
from vgexp import runs, sinks, tables
from vgexp.cli.main import main
from vgexp.config import Config, OutputConfig, RunConfig, SignalConfig
from vgexp.errors import QuestionError
from vgexp.quantities import COMMON, SEED, TABLES

MINE = '''
import json
import sys
import random

import numpy
import torch


class Keep:
    """Writes every row as a line of JSON beside the tables."""

    def __init__(self, folder, tables, config, first_step):
        self.file = (folder / "kept").open("a")
        self.write({"tables": tables, "depth": config.model.depth, "first_step": first_step})

    def __call__(self, rows):
        for i in range(len(rows)):
            cells = {name: values[i] for name, values in rows.columns.items()}
            self.write([rows.table, {k: str(v) for k, v in cells.items() if v is not None}])

    def close(self):
        self.write("closed")
        self.file.close()

    def write(self, value):
        self.file.write(json.dumps(value) + "\\n")


def count():
    """A sink without `close`."""
    return lambda rows: None


def draws():
    return lambda rows: (torch.rand(3), random.random(), numpy.random.rand())


def spoils():
    def take(rows):
        for values in rows.columns.values():
            if isinstance(values, list):
                values.clear()
            else:
                values.values[:] = 0
        rows.columns.clear()

    return take


def fails_to_open():
    raise RuntimeError("no network")


def fails_at_rows():
    def take(rows):
        if rows.table == "steps" and max(rows.columns["step"]) >= 20:
            raise RuntimeError("quota")

    return take


def fails_at_the_start():
    def take(rows):
        raise RuntimeError("quota")

    return take


class FailsThenCloses:
    def __init__(self, folder):
        self.folder = folder

    def __call__(self, rows):
        raise RuntimeError("quota")

    def close(self):
        with (self.folder / "closings").open("a") as file:
            file.write("closed\\n")


def changes_config(config):
    config.model.depth = 99
    return lambda rows: None


class FailsToClose:
    def __call__(self, rows):
        pass

    def close(self):
        raise RuntimeError("still sending")


class FailsAlways(FailsToClose):
    def __call__(self, rows):
        raise RuntimeError("quota")


def is_no_sink():
    return 3


def wants_more(folder, project):
    return print


number = 3
'''


@pytest.fixture(autouse=True)
def code(user_folder: Path) -> None:
    (user_folder / "mine.py").write_text(MINE)


def config(*names: str, **sections: Any) -> Config:
    return changed(CONFIG, output=OutputConfig(quiet=True, sinks=["csv", *names]), **sections)


def kept(folder: Path) -> list[Any]:
    return [json.loads(line) for line in (folder / "kept").read_text().splitlines()]


def rows_kept(folder: Path, table: str) -> list[dict[str, str]]:
    return [each[1] for each in kept(folder) if isinstance(each, list) and each[0] == table]


def rows_read(folder: Path, table: str) -> list[dict[str, str]]:
    """The cells of a table as text; empty ones are left out."""
    import csv

    with (folder / f"{table}.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if v} for row in csv.DictReader(file)]


def assert_same_rows(kept: list[dict[str, str]], read: list[dict[str, str]]) -> None:
    assert [row.keys() for row in kept] == [row.keys() for row in read]
    for one, other in zip(kept, read, strict=True):
        for name in one:
            assert one[name] == other[name] or float(one[name]) == pytest.approx(float(other[name]))


# ---------------------------------------------------------------- what a sink gets


def test_a_sink_of_ones_own_gets_every_row_of_every_table_of_training() -> None:
    folder = runs.run(config("mine.Keep"), "a").folder
    first, *_, last = kept(folder)
    assert first["first_step"] == 0
    assert first["depth"] == 3
    assert last == "closed"
    assert {*first["tables"]} == {*COMMON, "histograms"}
    for table, columns in first["tables"].items():
        assert columns == [column.name for column in TABLES[table]]
        assert_same_rows(rows_kept(folder, table), rows_read(folder, table))
        assert rows_read(folder, table)


def test_a_sink_of_ones_own_gets_every_row_of_a_look_at_the_start() -> None:
    look = config("mine.Keep", signal=SignalConfig(seeds=3, shattering=True))
    folder = runs.signal(look, "a").folder
    first, *_, last = kept(folder)
    assert last == "closed"
    assert {*first["tables"]} == {"layers", "histograms", "shattering"}
    for table, columns in first["tables"].items():
        assert columns == [column.name for column in (*TABLES[table], SEED)]
        assert_same_rows(rows_kept(folder, table), rows_read(folder, table))
    assert {row["seed"] for row in rows_kept(folder, "layers")} == {"0", "1", "2"}


def test_after_a_resumption_a_sink_has_had_every_row_of_the_tables(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def gone() -> None:
        raise RuntimeError("the node is gone")

    asked = config("mine.Keep", run=RunConfig(checkpoint_every=7))
    with monkeypatch.context() as patch:
        strike(patch, 20, gone)
        with pytest.raises(RuntimeError, match="the node is gone"):
            runs.run(asked, "a")
    with pytest.raises(QuestionError, match=r"output\.sinks: mine\.Keep"):
        vgexp.resume("a")
    folder = vgexp.resume("a", trust=True).folder
    beginnings = [each["first_step"] for each in kept(folder) if isinstance(each, dict)]
    assert beginnings[0] == 0
    assert beginnings[1] in (14, 21)
    lines = kept(folder)
    resumed_at = next(i for i, each in enumerate(lines) if i and isinstance(each, dict))
    for table in ("layers", "steps", "evals"):
        parts = [
            [each[1] for each in part if isinstance(each, list) and each[0] == table]
            for part in (lines[:resumed_at], lines[resumed_at:])
        ]
        before = [row for row in parts[0] if int(row["step"]) < beginnings[1]]
        assert_same_rows([*before, *parts[1]], rows_read(folder, table))


def test_a_sink_that_changes_its_rows_changes_them_for_no_other() -> None:
    folder = runs.run(config("mine.spoils", "mine.Keep"), "a").folder
    for table in (*COMMON, "histograms"):
        assert rows_kept(folder, table)
        assert_same_rows(rows_kept(folder, table), rows_read(folder, table))


def test_every_name_is_opened_once_and_the_csv_files_always() -> None:
    asked = changed(config(), output=OutputConfig(quiet=True, sinks=["mine.Keep"] * 2))
    folder = runs.run(asked, "a").folder
    assert sum(isinstance(each, dict) for each in kept(folder)) == 1
    assert len(vgexp.load(folder).steps) == 30
    none = changed(config(), output=OutputConfig(quiet=True, sinks=[]))
    assert len(runs.run(none, "b").steps) == 30


def test_no_number_of_a_run_depends_on_its_sinks() -> None:
    dropping = {"model": {"dropout": 0.3}}
    one = runs.run(config("mine.draws", **dropping), "a").folder
    other = runs.run(config(**dropping), "b").folder
    for table in ("layers", "steps", "evals"):
        assert (one / f"{table}.csv").read_bytes() == (other / f"{table}.csv").read_bytes()
    summaries = [tables.read_summary(folder) for folder in (one, other)]
    assert summaries[0]["config_hash"] == summaries[1]["config_hash"]


def test_a_sink_may_change_its_configuration_and_the_run_keeps_its_own(tmp_path: Path) -> None:
    asked = config("mine.changes_config")
    sinks.SINKS["mine.changes_config"](sinks.SinkContext(tmp_path, TABLES, asked))
    assert asked.model.depth == CONFIG.model.depth != 99


def test_what_a_module_draws_as_it_is_imported_is_the_same_with_a_sink_in_it(
    user_folder: Path,
) -> None:
    (user_folder / "shared.py").write_text(
        "import torch\nSTART = torch.rand(())\n"
        "def fill(weight):\n    return weight.fill_(START)\n"
        "def count():\n    return lambda rows: None\n"
    )
    starts = []
    for index, names in enumerate(([], ["shared.count"])):
        sys.modules.pop("shared", None)
        torch.manual_seed(index)
        done = runs.run(config(*names, model={"init": "shared.fill"}), f"run{index}")
        starts.append(done.layers["weight_norm"][0])
    assert starts[0] == starts[1]


# ---------------------------------------------------------------- what fails


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("fails_to_open", "could not be opened: RuntimeError: no network"),
        ("is_no_sink", "could not be opened: TypeError: it made a int, which cannot be called"),
        ("fails_at_rows", "failed at rows of steps: RuntimeError: quota"),
        ("fails_at_the_start", "RuntimeError: quota"),
        ("FailsAlways", "RuntimeError: quota"),
        ("FailsToClose", "could not be closed: RuntimeError: still sending"),
    ],
)
@pytest.mark.parametrize("verb", ["train", "signal"])
def test_a_sink_that_fails_is_told_once_and_the_run_goes_on(
    verb: str, name: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    make = {"train": runs.run, "signal": runs.signal}[verb]
    look = {"signal": SignalConfig(seeds=2)}
    whole = make(config("mine.count", **look), "whole").folder
    capsys.readouterr()
    done = make(config(f"mine.{name}", "mine.Keep", **look), "a")
    told = " ".join(capsys.readouterr().err.split())
    is_met = not (verb == "signal" and name == "fails_at_rows")  # it has no steps
    assert told.count("warning: ") == is_met
    if is_met:
        assert f"warning: the sink mine.{name} " in told
        assert said in told
        assert told.endswith("the run goes on without it")
    assert done.summary["status"] == "completed"
    for path in whole.glob("*.csv"):
        if path.name != "timing.csv":
            assert (done.folder / path.name).read_bytes() == path.read_bytes()
    assert kept(done.folder)[-1] == "closed", "the sink after it has all"


def test_a_sink_that_fails_at_rows_is_closed_once() -> None:
    folder = runs.run(config("mine.FailsThenCloses"), "a").folder
    assert (folder / "closings").read_text() == "closed\n"


def test_what_ends_the_process_is_no_failure_of_a_sink(user_folder: Path) -> None:
    (user_folder / "mine.py").write_text(
        "def stops():\n    def take(rows):\n        raise KeyboardInterrupt\n    return take\n"
    )
    with pytest.raises(KeyboardInterrupt):
        runs.run(config("mine.stops"), "a")
    assert vgexp.load("a").summary["status"] == "interrupted"


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("cvs", ["unknown sink: 'cvs'", "nearest: csv", "or your own: package.module.name"]),
        ("mine.Kep", ["output.sinks is 'mine.Kep'", "Keep"]),
        ("mine.number", ["output.sinks names 'mine.number', of type int"]),
        ("mine.wants_more", ["'project'", "allowed: a class or a function", "first_step"]),
        ("nowhere.Keep", ["nowhere"]),
    ],
)
def test_what_is_no_sink_is_refused_before_a_folder_is_made(name: str, words: list[str]) -> None:
    for make in (runs.run, runs.signal):
        with pytest.raises(QuestionError) as caught:
            make(config(name), "a")
        for word in words:
            assert word in str(caught.value)
        assert not Path("a").exists()


@pytest.mark.parametrize("value", ["csv", 3, ["csv", 3], None])
def test_what_is_no_list_of_names_is_refused(value: Any) -> None:
    with pytest.raises(QuestionError, match=r"output\.sinks is .*\nallowed: a list of text"):
        Config(output=OutputConfig(sinks=value))


@pytest.mark.parametrize("name", sinks.SINKS)
def test_every_sink_of_ours_goes_with_a_run_and_has_a_line_about_it(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert runs.run(config(name), "a").summary["status"] == "completed"
    assert "warning: " not in capsys.readouterr().err
    assert main(["list", "sinks"]) == 0
    assert f"{name} {sinks.SINKS.summary(name)}" in " ".join(capsys.readouterr().out.split())


# ---------------------------------------------------------------- the command line

WORDS = [
    *("model.depth=2", "model.width=6", "data=gaussian", "data.num_examples=64"),
    *("data.batch_size=16", "train.steps=3", "output.figures=false"),
]


def test_a_sweep_hands_the_list_to_every_job(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", "-m", *WORDS, "seed=1,2", "output.sinks=[csv,mine.Keep]"]
    assert main([*words, "hydra.sweep.dir=s"]) == 0
    for job in "01":
        folder = Path("s") / job
        assert tables.read_config(folder).output.sinks == ["csv", "mine.Keep"]
        assert_same_rows(rows_kept(folder, "steps"), rows_read(folder, "steps"))
    assert main(["compare", "s"]) == 0
    capsys.readouterr()
    (Path("s") / "1" / "summary.json").unlink()
    assert main(["resume", "s"]) == 2
    assert "output.sinks: mine.Keep" in capsys.readouterr().err
    assert main(["resume", "s", "--trust"]) == 0


def test_a_sweep_goes_over_lists() -> None:
    words = ["train", "-m", *WORDS, "output.sinks=[csv],[csv,mine.Keep]"]
    assert main([*words, "hydra.sweep.dir=s"]) == 0
    assert not Path("s/0/kept").exists()
    assert kept(Path("s/1"))[-1] == "closed"
    assert main(["compare", "s"]) == 0


def test_a_sweep_whose_sinks_are_ours_needs_no_trust() -> None:
    words = ["train", "-m", *WORDS, "seed=1,2", "output.sinks=[csv]", "hydra.sweep.dir=s"]
    assert main(words) == 0
    (Path("s") / "1" / "summary.json").unlink()
    assert main(["resume", "s"]) == 0


def test_one_name_without_brackets_is_told_how_to_be_typed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["train", *WORDS, "output.sinks=csv", "hydra.run.dir=a"]) == 2
    shown = capsys.readouterr().err
    assert "a list of text" in shown
    assert "output.sinks" in shown
