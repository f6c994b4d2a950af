"""Runs from configuration to folder: whole files, true summaries, whatever ends them.

Holds: folders.py, runs/kind.py, runs/making.py, runs/past.py, runs/start.py, runs/training.py,
summaries.py
"""

from __future__ import annotations

import json
import math
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from small_runs import CONFIG, DIVERGING, strike, summary_of
from trainers import changed

import vgexp
from vgexp import folders, runs, tables
from vgexp.cli.interrupts import HungUp, Terminated, raise_on_signals
from vgexp.config import (
    Config,
    MlpConfig,
    RunConfig,
    TrainConfig,
)
from vgexp.errors import QuestionError
from vgexp.quantities import COMMON, LATER_TABLES, TABLES
from vgexp.tables import frames

COMPARED = ("layers.csv", "steps.csv", "evals.csv", "histograms.csv", "config.yaml")


def rows_of(folder: Path, table: str) -> list[str]:
    text = (folder / f"{table}.csv").read_text()
    assert text.endswith("\n"), "whole lines only"
    return text.splitlines()[1:]


# ---------------------------------------------------------------- whole runs


@pytest.mark.parametrize(
    ("checkpoint_every", "checkpoints"),
    [(0, ()), (20, ("checkpoint.pt",)), (10, ("checkpoint.pt", "checkpoint.previous.pt"))],
)
def test_a_run_writes_every_file_and_reads_back(
    checkpoint_every: int, checkpoints: tuple[str, ...], tmp_path: Path
) -> None:
    # By default it depends on the time that a run takes whether a checkpoint is written.
    config = changed(CONFIG, run=RunConfig(checkpoint_every=checkpoint_every))
    run = vgexp.run(config, tmp_path / "a", command="vgexp train ...")
    names = {path.name for path in run.folder.iterdir()}
    files = {f"{table}.csv" for table in (*COMMON, *LATER_TABLES, "histograms")}
    assert names == {*files, "summary.json", "config.yaml", *checkpoints}
    again = vgexp.load(run.folder)
    assert again.config == config
    assert again.summary == run.summary
    for table in ("layers", "steps", "evals", "histograms"):
        pd.testing.assert_frame_equal(getattr(again, table), getattr(run, table))
        assert list(getattr(run, table).columns) == [column.name for column in TABLES[table]]
    assert (run.folder / "config.yaml").read_text().startswith("# vgexp train ...\n")


def test_the_summary_tells_what_the_tables_tell(tmp_path: Path) -> None:
    run = vgexp.run(CONFIG, tmp_path / "a")
    summary = run.summary
    assert summary["status"] == "completed"
    assert summary["steps"] == len(run.steps) == 30
    assert summary["loss_last"] == run.steps["loss"].iloc[-1]
    val = run.evals[run.evals["split"] == "val"]
    assert summary["val_loss_best"] == val["loss"].min()
    # (6 + 1) * 8 + 2 * (8 + 1) * 8 + (8 + 1) * 3
    assert summary["num_parameters"] == 227
    assert summary["device"] == "cpu"
    assert summary["versions"]["torch"] == str(torch.__version__)
    assert summary["unseen"] == []
    first = run.layers[run.layers["step"] == 0].set_index("layer")["delta_rms"]
    assert summary["attenuation"] == pytest.approx(first[1] / first[3])


@pytest.mark.parametrize(
    ("layers", "ends"),
    [(r"layers\.[12]|readout", [1]), (r"layers\.[01]\.", [3]), ("readout", [1, 3])],
)
def test_the_attenuation_is_between_the_networks_own_ends_or_is_not(
    layers: str, ends: list[int], tmp_path: Path
) -> None:
    run = vgexp.run(changed(CONFIG, probe={"layers": layers}), tmp_path / "a")
    assert run.summary["attenuation"] is run.summary["attenuation_last"] is None
    assert (run.summary["num_layers"], run.summary["unmeasured_ends"]) == (3, ends)


def test_equal_seeds_give_equal_bytes_and_another_seed_does_not(tmp_path: Path) -> None:
    one, other, third = (
        vgexp.run(changed(CONFIG, seed=seed), tmp_path / name).folder
        for name, seed in (("one", 1), ("other", 1), ("third", 2))
    )
    for name in COMPARED:
        assert (one / name).read_bytes() == (other / name).read_bytes()
        assert (one / name).read_bytes() != (third / name).read_bytes()


def test_a_diverged_run_is_a_result(tmp_path: Path) -> None:
    run = vgexp.run(DIVERGING, tmp_path / "a")
    summary = run.summary
    assert summary["status"] == summary["verdict"] == "diverged"
    last = int(run.steps["step"].iloc[-1])
    assert summary["steps"] == last < 29
    assert summary["cause"].startswith(f"step {last}: z of layer ")
    assert run.layers["step"].iloc[-1] == last
    assert run.layers["delta_rms"].iloc[-5:].size == 5
    assert json.loads((run.folder / "summary.json").read_text())["loss_last"] is None
    assert "nan" in rows_of(run.folder, "steps")[-1]


def test_a_diverged_run_that_went_on_says_so(tmp_path: Path) -> None:
    config = changed(DIVERGING, train={"stop_on_divergence": False})
    run = vgexp.run(config, tmp_path / "a")
    assert run.summary["status"] == run.summary["verdict"] == "diverged"
    assert run.summary["steps"] == len(run.steps) == 30
    assert "z of layer" in run.summary["cause"]


def test_a_thousand_layers_are_measured_from_the_first_to_the_last(tmp_path: Path) -> None:
    config = changed(CONFIG, model={"depth": 1000}, train={"steps": 2})
    run = vgexp.run(config, tmp_path / "a")
    assert len(run.layers) == 2 * 1001
    assert run.summary["num_layers"] == 1000


# ---------------------------------------------------------------- underflow


def deep_sigmoid(dtype: str, tmp_path: Path) -> runs.Run:
    model = MlpConfig(depth=90, width=32, activation="sigmoid", init="xavier_normal")
    config = changed(CONFIG, model=model, dtype=dtype, train={"steps": 2})
    return vgexp.run(config, tmp_path / dtype)


def test_a_gradient_below_float32_is_zero_in_the_table_and_hinted_at(tmp_path: Path) -> None:
    run = deep_sigmoid("float32", tmp_path)
    line = rows_of(run.folder, "layers")[0].split(",")
    header = [column.name for column in TABLES["layers"]]
    cells = dict(zip(header, line, strict=True))
    assert (cells["grad_norm"], cells["grad_max"], cells["delta_rms"]) == ("0.0", "0.0", "0.0")
    assert cells["grad_zero_fraction"] == "1.0"
    assert cells["backward_gain"] == ""
    assert run.summary["underflow"] > 20
    assert run.summary["attenuation"] == 0.0
    assert run.summary["verdict"] == "vanishing"
    from vgexp.diagnosis import sentence

    assert "dtype=float64 shows the true value" in sentence(run.summary)


def test_float64_shows_what_float32_could_not(tmp_path: Path) -> None:
    run = deep_sigmoid("float64", tmp_path)
    first = run.layers[run.layers["step"] == 0].set_index("layer")["delta_rms"]
    assert (first > 0).all()
    assert run.summary["underflow"] == 0
    factor = run.summary["backward_factor_per_layer"]
    assert 0.1 < factor < 0.3
    # The line that the factor is the slope of predicts layer 1 from layer 60, far below 1e-45.
    assert first[1] < 1e-45
    assert math.log(first[1]) == pytest.approx(
        math.log(first[60]) + 59 * math.log(factor), rel=0.02
    )


# ---------------------------------------------------------------- refusals


def test_a_folder_that_holds_a_run_or_is_a_file_is_refused(tmp_path: Path) -> None:
    folder = vgexp.run(CONFIG, tmp_path / "a").folder
    before = {path: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(QuestionError, match="holds a run already"):
        vgexp.run(CONFIG, folder)
    assert before == {path: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(QuestionError, match="is a file"):
        vgexp.run(CONFIG, folder / "steps.csv")


def test_an_impossible_configuration_leaves_no_folder(tmp_path: Path) -> None:
    for wrong in (
        changed(CONFIG, probe={"layers": "("}),
        changed(CONFIG, data={"batch_size": 10**6}),
        changed(CONFIG, device="cuda:9"),
    ):
        with pytest.raises(QuestionError):
            vgexp.run(wrong, tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_loading_what_is_no_run_says_what_is_near(tmp_path: Path) -> None:
    vgexp.run(CONFIG, tmp_path / "sweep" / "0")
    with pytest.raises(QuestionError, match=r"is not a run folder but holds 1\nnearest: .*0"):
        vgexp.load(tmp_path / "sweep")
    with pytest.raises(QuestionError, match="is not there"):
        vgexp.load(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(QuestionError, match="no run in or under"):
        vgexp.load(tmp_path / "empty")


# ---------------------------------------------------------------- torn off


def ctrl_c() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def sigterm() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def sighup() -> None:
    os.kill(os.getpid(), signal.SIGHUP)


@pytest.mark.parametrize(
    ("send", "kind"), [(ctrl_c, KeyboardInterrupt), (sigterm, Terminated), (sighup, HungUp)]
)
def test_a_signal_while_rows_are_written_tears_none(
    send: Callable[[], None],
    kind: type[BaseException],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    strike(monkeypatch, 10, send)
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    with pytest.raises(kind), raise_on_signals():
        vgexp.run(CONFIG, tmp_path / "a")
    assert before == [signal.getsignal(number) for number in numbers]
    run = vgexp.load(tmp_path / "a")
    assert run.summary["status"] == "interrupted"
    num_steps = run.summary["steps"]
    assert num_steps < 30
    assert run.steps["step"].tolist() == list(range(num_steps))
    # What was measured of the steps that were done is there, and the last of them is measured.
    assert set(run.layers["step"]) == {0, 20 if num_steps > 20 else 0, num_steps - 1}
    assert 10 in set(run.evals["step"])


def test_a_second_ctrl_c_does_not_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def twice() -> None:
        ctrl_c()
        ctrl_c()

    strike(monkeypatch, 5, twice)
    with pytest.raises(KeyboardInterrupt):
        vgexp.run(CONFIG, tmp_path / "a")
    run = vgexp.load(tmp_path / "a")
    assert run.summary["status"] == "interrupted"
    assert len(run.steps) > 5


def test_a_signal_before_the_first_step_leaves_empty_tables_and_a_summary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = folders.write_config

    def interrupted(*arguments: Any) -> None:
        write(*arguments)
        ctrl_c()

    monkeypatch.setattr(folders, "write_config", interrupted)
    with pytest.raises(KeyboardInterrupt):
        vgexp.run(CONFIG, tmp_path / "a")
    run = vgexp.load(tmp_path / "a")
    assert run.summary["status"] == "interrupted"
    assert run.summary["steps"] == len(run.steps) == len(run.layers) == 0


def test_a_signal_during_setup_that_something_swallows_still_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vgexp import assembly

    assemble = assembly.assemble

    def swallowing(config: Config) -> Any:
        with suppress(KeyboardInterrupt):
            ctrl_c()
        return assemble(config)

    monkeypatch.setattr(assembly, "assemble", swallowing)
    with pytest.raises(KeyboardInterrupt):
        vgexp.run(CONFIG, tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_a_signal_in_the_last_step_leaves_a_completed_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    strike(monkeypatch, 29, ctrl_c)
    with pytest.raises(KeyboardInterrupt):
        vgexp.run(CONFIG, tmp_path / "a")
    run = vgexp.load(tmp_path / "a")
    assert run.summary["status"] == "completed"
    assert run.evals["split"].iloc[-1] == "test"


def test_what_a_summary_says_of_an_end_is_replaced_by_a_failure_and_the_rest_is_kept(
    tmp_path: Path,
) -> None:
    folders.write_summary(tmp_path, {"status": "interrupted", "reason": "before", "steps": 7})
    runs.write_failure(tmp_path, CONFIG, OSError(28, "No space left on device"))
    summary = summary_of(tmp_path)
    assert (summary["status"], summary["steps"]) == ("failed", 7)
    assert "No space left" in summary["reason"]
    assert vgexp.load(tmp_path).config == CONFIG


@pytest.mark.parametrize(
    "error", [RuntimeError("CUDA out of memory"), OSError(28, "No space left on device")]
)
def test_a_failed_run_keeps_its_rows_and_says_failed(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise error

    strike(monkeypatch, 15, fail)
    with pytest.raises(type(error)):
        vgexp.run(CONFIG, tmp_path / "a")
    summary = summary_of(tmp_path / "a")
    assert summary["status"] == "failed"
    assert summary["reason"] == f"{type(error).__name__}: {error}"
    assert summary["loss_last"] is not None
    assert len(rows_of(tmp_path / "a", "steps")) > 15


def test_no_training_is_lost_for_metrics_that_cannot_be_computed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("of no use")

    monkeypatch.setattr("vgexp.diagnosis.verdict.time_metrics", fail)
    run = vgexp.run(CONFIG, tmp_path / "a")
    assert run.summary["status"] == "completed"
    assert run.summary["reason"] == ("metrics could not be computed: ZeroDivisionError: of no use")
    assert len(rows_of(tmp_path / "a", "steps")) == CONFIG.train.steps


def test_a_full_disk_keeps_whole_lines_and_says_failed_where_it_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, budget = os.write, [9_000]

    def full(descriptor: int, content: bytes) -> int:
        if budget[0] <= 0:
            raise OSError(28, "No space left on device")
        budget[0] -= len(content)
        return write(descriptor, content[: max(1, len(content) + min(0, budget[0]))])

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match=r"No space left on device: .*\.csv") as caught:
        vgexp.run(changed(CONFIG, probe={"every": 1}), tmp_path / "a")
    monkeypatch.undo()
    assert "csv" in str(caught.value)
    for table in COMMON:
        for row in rows_of(tmp_path / "a", table):
            assert row.count(",") == len(TABLES[table]) - 1
    assert summary_of(tmp_path / "a")["status"] == "failed"
    assert len(tables.read(tmp_path / "a", "layers")) > 0


# ---------------------------------------------------------------- reading


@pytest.mark.parametrize("config", [CONFIG, DIVERGING], ids=["finite", "diverging"])
def test_a_runs_own_tables_are_read_at_once_as_they_are_read_cell_by_cell(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = vgexp.run(changed(config, probe={"activations_every": 7}), tmp_path / "a").folder
    for table in ("layers", "steps", "evals"):
        at_once = frames._read_at_once(folder / f"{table}.csv", table)
        assert at_once is not None
        with monkeypatch.context() as patch:
            patch.setattr(frames, "_read_at_once", lambda *_: None)
            by_cell = tables.read(folder, table)
        pd.testing.assert_frame_equal(at_once, by_cell, check_exact=True)
        assert at_once.attrs == by_cell.attrs


@pytest.mark.parametrize(
    "row",
    ["5,0,0.1", "5,0,0.1,1,1,1,1,0,0,,0", '"5",0,0.1,1,1,1,1,0,0,', "5,0,0.1,1,x,1,1,0,0,"],
)
def test_what_is_not_plain_is_left_to_the_careful_reader(row: str, tmp_path: Path) -> None:
    header = ",".join(column.name for column in TABLES["steps"])
    good = "0,0,0.1,1,1,1,1,0,0,"
    for lines in ([good, row], [row, good], [row]):
        (tmp_path / "steps.csv").write_text("\n".join([header, *lines, ""]))
        assert frames._read_at_once(tmp_path / "steps.csv", "steps") is None


def test_a_process_that_is_asked_to_leave_was_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def leave(*_: Any) -> None:
        raise SystemExit(-1)

    monkeypatch.setattr("vgexp.training.step.take_step", leave)
    with pytest.raises(SystemExit):
        vgexp.run(Config(train=TrainConfig(steps=3)), tmp_path / "a")
    assert runs.load(tmp_path / "a").summary["status"] == "interrupted"
    monkeypatch.undo()
    assert vgexp.resume(tmp_path / "a").summary["status"] == "completed"


def cut_short(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes a run that failed after some of its steps."""

    def fail() -> None:
        raise RuntimeError("the node is gone")

    with monkeypatch.context() as patch:
        strike(patch, 5, fail)
        with pytest.raises(RuntimeError, match="the node is gone"):
            runs.run(CONFIG, folder)


def test_a_run_that_is_finished_with_other_output_records_what_it_was_finished_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut_short(tmp_path / "a", monkeypatch)
    asked = changed(CONFIG, output={"figures": False})
    done = runs.finish(asked, tmp_path / "a")
    assert done.summary["status"] == "completed"
    assert done.config.output.figures is False
    ended = runs.finish(changed(CONFIG, output={"figures": True}), tmp_path / "a")
    assert ended.config.output.figures is False, "a run that has ended stays as it is"


def test_a_file_that_a_killed_process_left_half_written_is_removed_on_the_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut_short(tmp_path / "a", monkeypatch)
    left = tmp_path / "a" / ".checkpoint.pt.new"
    kept = tmp_path / "a" / "notes.new"
    for path in (left, kept):
        path.write_text("half")
    vgexp.resume(tmp_path / "a")
    assert not left.exists()
    assert kept.exists()
