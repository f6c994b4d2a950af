"""Runs side by side: folders written by hand with known numbers, shown, folded and written.

Holds: report/comparing/comparison.py, cli/compare.py, report/comparing/headings.py,
report/comparing/layer_values.py, report/comparing/results.py, report/comparing/runs.py,
report/comparing/sheet.py, report/comparing/spread.py
"""

import argparse
import csv
import io
import json
import math
import shutil
import statistics
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from rich.cells import cell_len
from rich.console import Console

from vgexp import config
from vgexp.cli import compare
from vgexp.errors import QuestionError
from vgexp.quantities import SUMMARY, TABLES
from vgexp.report.comparing.comparison import Comparison, compare_layers, compare_runs
from vgexp.report.comparing.runs import load_runs
from vgexp.report.comparing.sheet import show, write_csv
from vgexp.report.comparing.spread import spread_of
from vgexp.report.comparing.sweep_grid import sweep_grid

HEADER = [column.name for column in TABLES["layers"]]


def write_layers(folder: Path, deltas: list[Any], steps: tuple[int, ...]) -> None:
    rows = []
    for step in steps:
        for layer, delta in enumerate([*deltas, 0.5], start=1):
            kind = "linear" if layer <= len(deltas) else "readout"
            row = {"step": step, "layer": layer, "name": f"l{layer}", "kind": kind}
            values = {"delta_rms": delta, "grad_norm": 0.1 * layer + step}
            rows.append(row | values)
            rows.append(row | {"name": f"l{layer}.gate", "delta_rms": 1e9})
    with (folder / "layers.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, HEADER, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def make_run(
    folder: Path,
    overrides: dict[str, Any] | None = None,
    chosen: dict[str, str] | None = None,
    deltas: list[Any] | None = None,
    steps: tuple[int, ...] = (0, 20, 39),
    **figures: Any,
) -> Path:
    """A run of the defaults with nested overrides, by hand."""
    folder.mkdir(parents=True)
    choices = config.choices(config.Config()) | (chosen or {})
    content: dict[str, Any] = {"defaults": ["schema", *({k: v} for k, v in choices.items())]}
    content |= {group: {} for group in choices}
    content |= overrides or {}
    (folder / "config.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    write_layers(folder, deltas or [0.25, 0.5, 1.0], steps)
    summary = {
        "status": "completed",
        "verdict": "healthy",
        "loss_last_mean_20": 0.1 + 0.2,
        "val_accuracy_last": 0.9375,
        "attenuation": 0.25,
        "backward_factor_per_layer": 0.5,
        "underflow": 0,
        "versions": {"python": "3"},
    }
    (folder / "summary.json").write_text(json.dumps(summary | figures))
    return folder


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """Two depths, three seeds."""
    job = 0
    for depth in (3, 30):
        for seed in range(3):
            make_run(
                tmp_path / "sweep" / str(job),
                {"model": {"depth": depth}, "seed": seed},
                attenuation=depth * 10.0**-seed,
                loss_last_mean_20=float(depth + seed),
                verdict="healthy" if seed else "vanishing",
            )
            job += 1
    return tmp_path / "sweep"


def column(comparison: Comparison, title: str) -> list[Any]:
    return list(next(c.values for c in comparison.columns if c.title == title))


def titles(comparison: Comparison) -> list[str]:
    return [column.title for column in comparison.columns]


def printed(comparison: Comparison, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width)
    show(console, comparison)
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


# ---------------------------------------------------------------- a row a run


def test_only_keys_that_differ_and_can_change_a_result_are_columns(tmp_path: Path) -> None:
    make_run(tmp_path / "0", {"model": {"depth": 3}, "output": {"quiet": True}})
    make_run(tmp_path / "1", {"model": {"depth": 5}, "run": {"threads": 2}})
    comparison = compare_runs(load_runs([tmp_path]))
    assert titles(comparison)[:3] == ["run", "depth", "loss_last_mean_20"]
    assert column(comparison, "run") == ["0", "1"]
    assert column(comparison, "depth") == ["3", "5"]


def test_the_sharpness_is_a_column_where_some_run_has_one(tmp_path: Path) -> None:
    make_run(tmp_path / "0", {"model": {"depth": 3}}, sharpness_over_limit=None)
    assert "sharpness_over_limit" not in titles(compare_runs(load_runs([tmp_path])))
    make_run(tmp_path / "1", {"model": {"depth": 5}}, sharpness_over_limit=1.25)
    assert column(compare_runs(load_runs([tmp_path])), "sharpness_over_limit") == [None, 1.25]


def test_a_short_name_that_two_keys_share_is_spelled_out(tmp_path: Path) -> None:
    make_run(tmp_path / "0", {"optimizer": {"momentum": 0.5}}, {"optimizer": "momentum"})
    make_run(tmp_path / "1", {"optimizer": {"momentum": 0.9}}, {"optimizer": "momentum"})
    make_run(tmp_path / "2", {"scheduler": {"factor": 0.3}}, {"scheduler": "step"})
    comparison = compare_runs(load_runs([tmp_path]))
    assert "optimizer.momentum" not in titles(comparison)
    assert column(comparison, "momentum") == ["0.5", "0.9", None]
    assert column(comparison, "optimizer") == ["momentum", "momentum", "sgd"]
    assert column(comparison, "scheduler") == ["constant", "constant", "step"]
    assert "factor" not in titles(comparison)


def test_clashing_last_parts_keep_their_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, values in (("0", (1, 2)), ("1", (3, 4))):
        make_run(tmp_path / name)
        flat = dict(zip(("model.kind", "data.kind"), values, strict=True))
        monkeypatch.setitem(FLAT, name, flat)
    monkeypatch.setattr(
        "vgexp.report.comparing.runs._read_asked", lambda run: FLAT[run.folder.name]
    )
    comparison = compare_runs(load_runs([tmp_path]))
    assert titles(comparison)[1:3] == ["model.kind", "data.kind"]


FLAT: dict[str, dict[str, Any]] = {}


def test_equal_runs_and_a_run_alone_have_no_columns_of_differences(tmp_path: Path) -> None:
    make_run(tmp_path / "a")
    assert titles(compare_runs(load_runs([tmp_path])))[1] == "loss_last_mean_20"
    make_run(tmp_path / "b", {"seed": 0})
    assert titles(compare_runs(load_runs([tmp_path])))[1] == "loss_last_mean_20"


def test_runs_without_a_summary_have_a_row_with_their_status(tmp_path: Path) -> None:
    for job in range(3):
        make_run(tmp_path / str(job), {"seed": job})
    (tmp_path / "sweep.csv").write_text("job,status\n0,completed\n1,failed\n")
    (tmp_path / "1" / "summary.json").unlink()
    (tmp_path / "2" / "summary.json").unlink()
    failed_at_once = tmp_path / "3"
    failed_at_once.mkdir()
    (failed_at_once / "summary.json").write_text('{"status": "failed", "reason": "no memory"}')
    comparison = compare_runs(load_runs([tmp_path]))
    assert column(comparison, "verdict") == ["healthy", "failed", "unfinished", "failed"]
    write_csv(comparison, tmp_path / "out.csv")
    rows = list(read_csv(tmp_path / "out.csv"))
    assert [row["status"] for row in rows] == ["completed", "failed", "unfinished", "failed"]
    assert [row["verdict"] for row in rows] == ["healthy", "", "", ""]


@pytest.fixture
def unlucky(tmp_path: Path) -> Path:
    """A sweep: one run that completed, one that diverged, three that failed for two reasons."""
    sweep = tmp_path / "unlucky"
    cause = "step 1: z of layer 2 (layers.1.linear.weight) is the first that is not finite"
    make_run(sweep / "0", {"seed": 0}, cause="steady, yet no learning", verdict="stalled")
    make_run(sweep / "1", {"seed": 1}, status="diverged", verdict="diverged", cause=cause)
    for job, why in (("2", "depth is 0; allowed: at least 1"), ("3", "no\nmemory")):
        (sweep / job).mkdir()
        summary = {"status": "failed", "reason": why}
        (sweep / job / "summary.json").write_text(json.dumps(summary))
    make_run(sweep / "4", {"seed": 4})
    (sweep / "4" / "summary.json").unlink()
    (sweep / "sweep.csv").write_text("job,status,reason\n4,failed,no; memory\n")
    return sweep


def test_why_runs_failed_or_diverged_is_said_below_the_table(unlucky: Path) -> None:
    text = printed(compare_runs(load_runs([unlucky])))
    assert text.split("\n\n")[-1].splitlines() == [
        "run 1 diverged: step 1: z of layer 2 (layers.1.linear.weight) is the first",
        "  that is not finite",
        "run 2 failed: depth is 0; allowed: at least 1",
        "runs 3, 4 failed: no; memory",
    ]
    assert "no learning" not in text


@pytest.mark.parametrize("by_seed", [False, True])
def test_why_runs_failed_or_diverged_is_a_column_of_the_csv(
    unlucky: Path, tmp_path: Path, by_seed: bool
) -> None:
    write_csv(compare_runs(load_runs([unlucky]), by_seed=by_seed), tmp_path / "out.csv")
    reasons = [row["reason"] for row in read_csv(tmp_path / "out.csv")]
    diverged = "step 1: z of layer 2 (layers.1.linear.weight) is the first that is not finite"
    shallow, memory = "depth is 0; allowed: at least 1", "no; memory"
    if by_seed:
        assert reasons == [f"1 {diverged}, 1 {memory}", f"1 {shallow}, 1 {memory}"]
    else:
        assert reasons == ["", diverged, shallow, memory, memory]


def test_runs_that_all_ended_well_have_no_column_of_reasons(sweep: Path, tmp_path: Path) -> None:
    write_csv(compare_runs(load_runs([sweep])), tmp_path / "out.csv")
    assert "reason" not in next(read_csv(tmp_path / "out.csv"))


def test_the_verdict_tells_of_runs_that_did_not_complete_and_no_column_repeats_it(
    tmp_path: Path,
) -> None:
    make_run(tmp_path / "0")
    make_run(tmp_path / "1", {"seed": 1}, status="diverged", verdict="diverged", cause="step 1")
    make_run(tmp_path / "2", {"seed": 2}, status="interrupted")
    runs = load_runs([tmp_path])
    comparison = compare_runs(runs)
    assert column(comparison, "verdict") == ["healthy", "diverged", "healthy (interrupted)"]
    assert "status" not in printed(comparison)
    folded = compare_runs(runs, by_seed=True)
    assert column(folded, "verdict") == ["1 healthy, 1 diverged, 1 healthy (interrupted)"]
    write_csv(folded, tmp_path / "out.csv")
    (row,) = read_csv(tmp_path / "out.csv")
    assert row["verdict"] == "2 healthy, 1 diverged"
    assert row["status"] == "1 completed, 1 diverged, 1 interrupted"


def test_a_run_that_a_rule_stopped_is_a_row_with_what_stopped_it(tmp_path: Path) -> None:
    make_run(tmp_path / "0")
    why = "vanishing since step 0 (train.stop_on), after 200 steps"
    rule = {"train": {"stop_on": ["vanishing", "stalled"]}}
    make_run(tmp_path / "1", rule, status="stopped", verdict="vanishing", reason=why)
    comparison = compare_runs(load_runs([tmp_path]))
    assert column(comparison, "verdict") == ["healthy", "vanishing (stopped)"]
    text = printed(comparison)
    assert "[vanishing,stalled]" in text
    assert f"run 1 stopped: {why}" in text


def test_the_loss_that_a_diverged_run_has_no_number_for_is_not_finite(tmp_path: Path) -> None:
    lost = {"loss_last_mean_20": None, "loss_last": None, "val_accuracy_last": None}
    make_run(tmp_path / "0", status="diverged", verdict="diverged", cause="step 1", **lost)
    make_run(tmp_path / "1", status="failed", **lost)
    comparison = compare_runs(load_runs([tmp_path]), metric="loss_last")
    for name in ("loss_last", "loss_last_mean_20"):
        assert column(comparison, name) == ["not finite", None]
    assert column(comparison, "val_accuracy_last") == [None, None]
    write_csv(comparison, tmp_path / "out.csv")
    assert [row["loss_last"] for row in read_csv(tmp_path / "out.csv")] == ["", ""]


# ---------------------------------------------------------------- jobs and files that went wrong


def plan_jobs(sweep: Path, *overrides: list[str]) -> None:
    jobs = [{"job": i, "folder": str(i), "overrides": words} for i, words in enumerate(overrides)]
    (sweep / "plan.json").write_text(json.dumps({"format": 1, "jobs": jobs}))


def make_failure(folder: Path, reason: str) -> None:
    """A job whose configuration cannot be."""
    folder.mkdir()
    (folder / "summary.json").write_text(json.dumps({"status": "failed", "reason": reason}))


def test_a_job_whose_configuration_cannot_be_shows_the_value_that_cannot(tmp_path: Path) -> None:
    make_failure(tmp_path / "0", "lr is -1")
    make_run(tmp_path / "1", {"optimizer": {"lr": 0.001}, "train": {"steps": 3}})
    make_run(tmp_path / "2", {"optimizer": {"lr": 0.5}, "train": {"steps": 3}})
    plan_jobs(tmp_path, *([f"optimizer.lr={lr}", "train.steps=3"] for lr in ("-1", "1e-3", "0.5")))
    comparison = compare_runs(load_runs([tmp_path]))
    assert titles(comparison)[:3] == ["run", "lr", "loss_last_mean_20"]
    assert column(comparison, "lr") == ["-1", "0.001", "0.5"]
    (tmp_path / "plan.json").unlink()
    (tmp_path / "sweep.csv").write_text("job,status,optimizer.lr,train.steps\n0,failed,-1,3\n")
    assert column(compare_runs(load_runs([tmp_path])), "lr") == ["-1", "0.001", "0.5"]


def test_a_value_that_all_jobs_share_is_no_column_because_one_of_them_failed(
    tmp_path: Path,
) -> None:
    make_run(tmp_path / "0", {"optimizer": {"lr": 0.001}, "model": {"bias": False}})
    make_failure(tmp_path / "1", "depth is 0")
    shared = ["optimizer.lr=1e-3", "model.bias=False", "optimizer=sgd", "output.quiet=True"]
    plan_jobs(tmp_path, shared, [*shared, "model.depth=0"])
    comparison = compare_runs(load_runs([tmp_path]))
    assert titles(comparison)[:3] == ["run", "depth", "loss_last_mean_20"]
    assert column(comparison, "depth") == ["10", "0"]


def test_a_swept_preset_is_a_column_of_every_job(tmp_path: Path) -> None:
    make_run(tmp_path / "0", {"model": {"depth": 3}})
    make_failure(tmp_path / "1", "no")
    make_run(tmp_path / "2", {"model": {"depth": 3}})
    plan_jobs(tmp_path, *([f"+experiment={name}", "model.depth=3"] for name in "abc"))
    comparison = compare_runs(load_runs([tmp_path]))
    assert titles(comparison)[1] == "experiment"
    assert column(comparison, "experiment") == ["a", "b", "c"]


DAMAGE = (("summary.json", "{", "is not JSON"), ("config.yaml", "x", "holds no keys"))


@pytest.mark.parametrize(("name", "text", "problem"), DAMAGE)
def test_a_broken_run_is_a_row_with_its_reason_among_the_others(
    sweep: Path, tmp_path: Path, name: str, text: str, problem: str
) -> None:
    (sweep / "4" / name).write_text(text)
    comparison = compare_runs(load_runs([sweep]))
    assert column(comparison, "run") == list("012345")
    assert "unreadable" in column(comparison, "verdict")[4]
    assert f"run 4 unreadable: {name} {problem}" in printed(comparison)
    assert column(comparison, "loss_last_mean_20")[5] == 32.0
    assert f"run 4 unreadable: {name}" in printed(compare_layers(load_runs([sweep])))
    write_csv(comparison, tmp_path / "out.csv")
    assert problem in list(read_csv(tmp_path / "out.csv"))[4]["reason"]


def test_a_run_whose_summary_is_broken_stays_with_its_seeds_and_an_unknown_one_alone(
    sweep: Path,
) -> None:
    (sweep / "0" / "summary.json").write_text("")
    for job in ("4", "5"):
        (sweep / job / "config.yaml").write_text("")
    comparison = compare_runs(load_runs([sweep]), by_seed=True)
    assert column(comparison, "runs") == ["0, 1, 2", "3", "4", "5"]
    assert column(comparison, "loss_last_mean_20")[0].num_values == 2


@pytest.mark.parametrize("by_seed", [False, True])
def test_lists_and_mappings_where_a_summary_has_plain_values_are_shown_as_text(
    sweep: Path, by_seed: bool
) -> None:
    changed = {"status": {}, "attenuation": [1], "verdict": {"healthy": 1}}
    (sweep / "0" / "summary.json").write_text(json.dumps(changed))
    runs = load_runs([sweep])
    shown = printed(compare_runs(runs, by_seed=by_seed), width=300)
    assert "{'healthy': 1}" in shown
    assert "[1]" in shown
    assert sweep_grid(runs, "depth", "seed").values.count("[1]") == 1


@pytest.mark.parametrize(("name", "text", "problem"), DAMAGE)
def test_a_broken_run_that_is_named_itself_or_is_all_there_is_is_an_error(
    sweep: Path, name: str, text: str, problem: str
) -> None:
    (sweep / "4" / name).write_text(text)
    with pytest.raises(QuestionError, match=rf"4.{name} {problem}"):
        load_runs([sweep, sweep / "4"])
    for job in range(6):
        (sweep / str(job) / name).write_text(text)
    with pytest.raises(QuestionError, match=rf"sweep.0: {name} {problem}.*nor any other"):
        load_runs([sweep])


CUT: dict[str, tuple[Callable[[str], str], str]] = {
    "torn": (
        lambda text: text[:-3],
        "has 7 of 8 rows at step 39, ends within a line",
    ),
    "short": (
        lambda text: "".join(text.splitlines(keepends=True)[:12]),
        "ends at step 20, the run at step 39, has 3 of 8 rows at step 20",
    ),
    "one line": (lambda text: text.rpartition("\n39,")[0] + "\n", "has 7 of 8 rows at step 39"),
    "header": (lambda text: text.split("\n")[0] + "\n", "has no row"),
    "header alone": (lambda text: text.split("\n")[0][:9], "has no row, ends within a line"),
    "empty": (lambda text: text[:0], "has no row"),
}


def write_steps(folder: Path, num_steps: int) -> None:
    header = [column.name for column in TABLES["steps"]]
    lines = [",".join([str(step), *["0"] * (len(header) - 1)]) for step in range(num_steps)]
    (folder / "steps.csv").write_text("\n".join([",".join(header), *lines]) + "\n")


@pytest.mark.parametrize("cut", CUT)
def test_a_table_that_was_cut_is_not_shown_as_if_it_were_whole(tmp_path: Path, cut: str) -> None:
    for name in ("cut", "whole"):
        write_steps(make_run(tmp_path / name, steps=(0, 20, 39), num_layers=3), 40)
        path = tmp_path / name / "summary.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"steps": 40}))
    change, said = CUT[cut]
    path = tmp_path / "cut" / "layers.csv"
    path.write_text(change(path.read_text()))
    text = printed(compare_runs(load_runs([tmp_path])), 200)
    assert text.split("\n\n")[-1] == f"run cut: layers.csv {said}\n"
    text = printed(compare_layers(load_runs([tmp_path]), step="last"), 200)
    if cut in ("header alone", "empty"):
        said = {"empty": "is empty", "header alone": "ends within its header: 'step,laye'"}[cut]
    assert f"\n\nrun cut: layers.csv {said}\n\n" in text


@pytest.mark.parametrize(("chosen", "said"), [(None, True), ("first", False)])
def test_a_table_cut_within_its_only_step_has_fewer_rows_than_the_run_has_layers(
    tmp_path: Path, chosen: str | None, said: bool
) -> None:
    """No step before it tells how many there were; nor do layers, where some were chosen."""
    probe = {"probe": {"layers": chosen}}
    run = make_run(tmp_path / "0", probe, steps=(0,), num_layers=3)
    path = run / "summary.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"steps": 1}))
    write_steps(run, 1)
    path = run / "layers.csv"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:3]))
    text = printed(compare_runs(load_runs([tmp_path])), 200)
    assert ("run 0: layers.csv has 2 of 4 rows at step 0\n" in text) == said
    assert (".csv" in text) == said


def test_steps_that_are_missing_are_told_once_for_all_runs_that_miss_the_same(
    tmp_path: Path,
) -> None:
    for name, num_steps in (("a", 40), ("b", 12), ("c", 12), ("d", 0)):
        write_steps(make_run(tmp_path / name, num_layers=3), num_steps)
        path = tmp_path / name / "summary.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"steps": 40}))
    (tmp_path / "d" / "steps.csv").write_text("")
    assert printed(compare_runs(load_runs([tmp_path]))).split("\n\n")[-1].splitlines() == [
        "runs b, c: steps.csv ends at step 11, the run at step 39",
        "run d: steps.csv has no row",
    ]


def test_of_a_run_that_did_not_complete_only_a_torn_line_is_told(tmp_path: Path) -> None:
    write_steps(make_run(tmp_path / "0", status="interrupted"), 3)
    assert ".csv" not in printed(compare_runs(load_runs([tmp_path])))
    path = tmp_path / "0" / "steps.csv"
    path.write_text(path.read_text()[:-2])
    assert "steps.csv ends within a line" in printed(compare_runs(load_runs([tmp_path])))


@pytest.mark.parametrize("damage", ["a,b\n1,2\n", "", "cell"])
def test_layers_that_cannot_be_read_are_left_out_with_a_reason(tmp_path: Path, damage: str) -> None:
    for depth in (3, 4):
        make_run(tmp_path / "runs" / str(depth), {"model": {"depth": depth}})
    path = tmp_path / "runs" / "4" / "layers.csv"
    path.write_text(path.read_text().replace("0.25", "x") if damage == "cell" else damage)
    runs = load_runs([tmp_path])
    comparison = compare_layers(runs)
    assert column(comparison, "depth=3") == [0.25, 0.5, 1.0, 0.5]
    assert column(comparison, "depth=4") == [None] * 4
    assert "run 4: layers.csv " in printed(comparison)
    with pytest.raises(QuestionError, match=r"4.layers\.csv"):
        compare_layers(load_runs([path.parent]))
    (tmp_path / "runs" / "3" / "layers.csv").write_text("")
    with pytest.raises(QuestionError, match=r"at no step of these runs\n.*3: layers\.csv is empty"):
        compare_layers(load_runs([tmp_path]))


def test_a_job_without_layers_has_an_empty_column_and_its_reason(tmp_path: Path) -> None:
    make_run(tmp_path / "0")
    make_failure(tmp_path / "1", "depth is 0")
    plan_jobs(tmp_path, ["model.depth=10"], ["model.depth=0"])
    comparison = compare_layers(load_runs([tmp_path]))
    assert titles(comparison) == ["layer", "depth=10", "depth=0"]
    assert "run 1 failed: depth is 0" in printed(comparison)
    assert ".csv" not in printed(comparison)
    (tmp_path / "0" / "layers.csv").rename(tmp_path / "moved.csv")
    make_run(tmp_path / "2", {"model": {"depth": 3}})
    text = printed(compare_layers(load_runs([tmp_path])))
    assert "run 0: layers.csv is not there" in text


def test_a_figure_of_the_summary_becomes_a_column(tmp_path: Path) -> None:
    make_run(tmp_path / "0", underflow=7)
    comparison = compare_runs(load_runs([tmp_path]), metric="underflow")
    assert column(comparison, "underflow") == [7]


def test_a_column_of_the_layers_is_shown_at_both_ends_of_the_hidden_path(tmp_path: Path) -> None:
    make_run(tmp_path / "0", deltas=[0.125, 0.5, 2.0])
    runs = load_runs([tmp_path])
    comparison = compare_runs(runs, metric="delta_rms")
    assert column(comparison, "delta_rms_first_layer") == [0.125]
    assert column(comparison, "delta_rms_last_layer") == [2.0]
    for step, value in (("first", 0.1), ("20", 20.1), ("last", 39.1)):
        ends = compare_runs(runs, metric="grad_norm", step=step)
        assert column(ends, "grad_norm_first_layer") == [value]


@pytest.mark.parametrize("function", [compare_runs, compare_layers])
def test_unknown_metrics_and_steps_are_answered_with_the_nearest(
    sweep: Path, function: Callable[..., Comparison]
) -> None:
    runs = load_runs([sweep])
    with pytest.raises(QuestionError, match="nearest: delta_rms"):
        function(runs, metric="delta_rmz")
    with pytest.raises(QuestionError, match=r"allowed: first, last, 0, 20, 39\nnearest: 20"):
        function(runs, metric="delta_rms", step="25")
    with pytest.raises(QuestionError, match="nearest: last"):
        function(runs, metric="delta_rms", step="lats")
    with pytest.raises(QuestionError, match="measured at no step"):
        function(runs, metric="act_std")


def test_many_measured_steps_are_listed_by_their_spacing(tmp_path: Path) -> None:
    make_run(tmp_path / "0", steps=(*range(0, 500, 20), 499))
    with pytest.raises(QuestionError, match="every 20th from 0 to 480, 499"):
        compare_layers(load_runs([tmp_path]), step="7")


# ---------------------------------------------------------------- a row a layer


def test_layers_stand_side_by_side_without_gates_and_with_the_readout_last(tmp_path: Path) -> None:
    make_run(tmp_path / "0", {"model": {"depth": 2}}, deltas=[0.5, 1.0])
    make_run(tmp_path / "1", {"model": {"depth": 12}}, deltas=[0.5**n for n in range(12, 0, -1)])
    comparison = compare_layers(load_runs([tmp_path]))
    assert titles(comparison) == ["layer", "depth=2", "depth=12"]
    assert column(comparison, "layer") == [*map(str, range(1, 13)), "readout"]
    assert column(comparison, "depth=2") == [0.5, 1.0, *[None] * 10, 0.5]
    assert column(comparison, "depth=12")[:2] == [0.5**12, 0.5**11]


DIFFERENT: tuple[dict[str, Any], ...] = (
    {"model": {"depth": 3, "activation": "sigmoid", "init": "xavier_normal"}, "seed": 1},
    {"model": {"depth": 30, "activation": "leaky_relu", "init": "torch_default"}, "seed": 2},
)


def test_runs_that_differ_in_much_are_called_by_name_with_a_key_above(tmp_path: Path) -> None:
    for name, overrides in zip(("plain", "deep"), DIFFERENT, strict=True):
        make_run(tmp_path / name / "2026-01-02_03-04-05_678901", overrides)
    comparison = compare_layers(load_runs([tmp_path]))
    key, table, _ = printed(comparison).split("\n\n")
    assert key.splitlines() == [
        "run deep: depth=30, activation=leaky_relu, init=torch_default, seed=2",
        "run plain: depth=3, activation=sigmoid, init=xavier_normal, seed=1",
    ]
    assert table.splitlines()[0].split() == ["layer", "run", "deep", "run", "plain"]
    write_csv(comparison, tmp_path / "out.csv")
    full = "depth=3, activation=sigmoid, init=xavier_normal, seed=1"
    assert list(next(read_csv(tmp_path / "out.csv")))[2] == full


def test_one_long_difference_is_no_heading_either(tmp_path: Path) -> None:
    for job, regex in enumerate(("layers.[0-9].linear.weight", "layers.1")):
        make_run(tmp_path / str(job), {"probe": {"layers": regex}})
    text = printed(compare_layers(load_runs([tmp_path])))
    assert text.startswith("run 0: layers=layers.[0-9].linear.weight\nrun 1: layers=layers.1\n\n")


def test_names_too_long_for_a_heading_are_numbered_and_spelled_out(tmp_path: Path) -> None:
    names = [f"{preset}/2026-01-02_03-04-05_67890{n}" for preset in "ab" for n in range(2)]
    for name, overrides in zip(names, DIFFERENT * 2, strict=True):
        make_run(tmp_path / name, overrides)
    text = printed(compare_layers(load_runs([tmp_path])))
    assert "run 4: depth=30, " in text
    assert f"run 4: {names[3]}\n" in text
    assert_whole(text, 80)


def test_many_seeds_are_called_by_the_first_and_the_last_of_their_runs(tmp_path: Path) -> None:
    for job in range(24):
        overrides = DIFFERENT[job // 12] | {"seed": job % 12}
        make_run(tmp_path / str(job), overrides, steps=(0,))
    text = printed(compare_layers(load_runs([tmp_path]), by_seed=True))
    assert text.startswith("runs 0, ..., 11: depth=3, activation=sigmoid, init=xavier_normal\n")
    assert_whole(text, 80)


def test_runs_that_differ_in_nothing_are_called_by_their_names(tmp_path: Path) -> None:
    make_run(tmp_path / "a")
    make_run(tmp_path / "b")
    assert titles(compare_layers(load_runs([tmp_path]))) == ["layer", "run a", "run b"]


@pytest.mark.parametrize(
    ("folders", "named"),
    [
        (["a/x/probe", "b/y/probe"], ["x/probe", "y/probe"]),
        (["a/x/probe", "b/x/probe"], ["a/x/probe", "b/x/probe"]),
        (["p/a/x/probe", "q/b/x/probe", "q/b/x/more"], ["a/x/probe", "b/x/probe", "b/x/more"]),
        (["mlp/1", "cnn/2"], ["mlp/1", "cnn/2"]),
    ],
)
def test_folders_called_alike_are_told_apart_by_as_few_above_them_as_needed(
    tmp_path: Path, folders: list[str], named: list[str]
) -> None:
    made = [make_run(tmp_path / folder) for folder in folders]
    assert [run.name for run in load_runs(made)] == named


def test_nan_is_a_value_and_an_empty_cell_is_none(tmp_path: Path) -> None:
    make_run(tmp_path / "0", deltas=["nan", "", "inf"])
    values = column(compare_layers(load_runs([tmp_path])), "run 0")
    assert math.isnan(values[0])
    assert values[1:] == [None, math.inf, 0.5]
    text = printed(compare_layers(load_runs([tmp_path])))
    assert [line.split() for line in text.splitlines()[-6:-2]] == [
        ["1", "nan"],
        ["2"],
        ["3", "inf"],
        ["readout", "0.5"],
    ]


def test_a_thousand_layers_are_a_thousand_rows(tmp_path: Path) -> None:
    make_run(tmp_path / "0", deltas=[0.5] * 1000, steps=(0,))
    assert len(column(compare_layers(load_runs([tmp_path])), "layer")) == 1001


def test_a_long_runs_table_is_not_read_as_a_whole(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "0")
    row = ",".join(str(0.1234567 + place) for place in range(len(HEADER) - 4))
    lines = [f"{i // 10},{1 + i % 10},layers.{i % 10}.weight,linear,{row}\n" for i in range(30_000)]
    (folder / "layers.csv").write_text(f"{','.join(HEADER)}\n{''.join(lines)}")
    (run,) = load_runs([tmp_path])
    tracemalloc.start()
    try:
        assert len(column(compare_layers([run]), "run 0")) == 10
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 20e6


# ---------------------------------------------------------------- seeds


def test_a_spread_is_mean_and_deviation_and_geometric_for_factors() -> None:
    values = [0.5, 2.0, 8.0]
    plain, factor = (
        spread_of(values, SUMMARY["loss_last_mean_20"]),
        spread_of(values, SUMMARY["attenuation_last"]),
    )
    assert plain.centre == pytest.approx(statistics.fmean(values))
    assert plain.spread == pytest.approx(statistics.stdev(values))
    assert factor.centre == pytest.approx(2.0)
    assert factor.spread == pytest.approx(4.0)
    assert factor.centre == pytest.approx(statistics.geometric_mean(values))


def test_values_that_do_not_count_are_left_out_and_counted() -> None:
    values = [None, math.nan, math.inf, 0.0, 4.0]
    factor = spread_of(values, SUMMARY["attenuation"])
    assert (factor.centre, factor.spread) == (pytest.approx(4.0), None)
    assert (factor.num_values, factor.num_seeds) == (1, 5)
    assert spread_of(values, SUMMARY["underflow"]).num_values == 2
    assert spread_of([None], SUMMARY["underflow"]).centre is None


@pytest.mark.parametrize("exponent", [-300, 300])
def test_a_geometric_mean_of_extreme_numbers_stays_in_range(exponent: int) -> None:
    spread = spread_of([10.0**exponent] * 5, SUMMARY["attenuation"])
    assert spread.centre == pytest.approx(10.0**exponent, rel=1e-10)
    assert spread.spread == pytest.approx(1.0)


def test_runs_equal_but_for_the_seed_are_folded(sweep: Path) -> None:
    comparison = compare_runs(load_runs([sweep]), by_seed=True)
    assert titles(comparison)[:3] == ["runs", "num_seeds", "depth"]
    assert column(comparison, "runs") == ["0, 1, 2", "3, 4, 5"]
    assert column(comparison, "num_seeds") == [3, 3]
    assert column(comparison, "verdict") == ["2 healthy, 1 vanishing"] * 2
    losses, attenuations = (
        column(comparison, title) for title in ("loss_last_mean_20", "attenuation")
    )
    assert [spread.centre for spread in losses] == [4.0, 31.0]
    assert [spread.spread for spread in losses] == [1.0, 1.0]
    assert attenuations[0].centre == pytest.approx(0.3)
    assert attenuations[0].spread == pytest.approx(10.0)


def test_layers_are_folded_over_seeds_too(tmp_path: Path) -> None:
    for seed, delta in enumerate((0.5, 2.0, 8.0)):
        make_run(tmp_path / str(seed), {"seed": seed}, deltas=[delta])
    comparison = compare_layers(load_runs([tmp_path]), by_seed=True)
    (values,) = (c.values for c in comparison.columns[1:])
    assert values[0].centre == pytest.approx(2.0)
    assert values[0].spread == pytest.approx(4.0)


# ---------------------------------------------------------------- shown and written


def assert_whole(text: str, width: int) -> None:
    assert "…" not in text
    assert all(cell_len(line) <= width for line in text.splitlines())


@pytest.mark.parametrize("by_seed", [False, True])
@pytest.mark.parametrize("width", [40, 80, 200])
def test_a_comparison_fits_the_console_without_a_cell_cut_off(
    sweep: Path, by_seed: bool, width: int
) -> None:
    runs = load_runs([sweep])
    comparison = compare_runs(runs, metric="delta_rms", by_seed=by_seed)
    assert_whole(printed(comparison, width), width)
    assert_whole(printed(compare_layers(runs, by_seed=by_seed), width), width)


PRESETS = ("relu", "sigmoid_deep", "relu", "a_name_of_more_than_twenty", "7")


@pytest.fixture
def long_names(tmp_path: Path) -> list[Path]:
    """Runs as they lie in `outputs/train`, of presets of which one was run twice."""
    return [
        make_run(tmp_path / preset / f"2026-01-02_03-04-05_67890{number}", {"seed": number})
        for number, preset in enumerate(PRESETS)
    ]


def test_long_names_of_runs_become_their_presets_or_else_numbers_with_a_legend(
    long_names: list[Path],
) -> None:
    comparison = compare_runs(load_runs(long_names))
    assert column(comparison, "run") == ["1", "sigmoid_deep", "3", "4", "5"]
    text = printed(comparison)
    assert "run 3: relu/2026-01-02_03-04-05_678902\n" in text
    assert "run 5: 7/2026" in text
    assert "run 2:" not in text
    assert_whole(text, 80)


def test_the_csv_has_the_whole_path_of_each_run_whatever_it_is_called(
    long_names: list[Path], tmp_path: Path
) -> None:
    write_csv(compare_runs(load_runs(long_names)), tmp_path / "out.csv")
    assert [row["run"] for row in read_csv(tmp_path / "out.csv")] == list(map(str, long_names))
    write_csv(compare_runs(load_runs(long_names), by_seed=True), tmp_path / "out.csv")
    (row,) = read_csv(tmp_path / "out.csv")
    assert row["runs"].split(", ") == list(map(str, long_names))


def test_names_are_text_and_never_markup(tmp_path: Path) -> None:
    make_run(tmp_path / "[bold]a[/]")
    make_run(tmp_path / "[red]b")
    text = printed(compare_runs(load_runs([tmp_path])))
    assert "[bold]a[/]" in text
    assert "[red]b" in text


def read_csv(path: Path) -> Iterator[dict[str, str]]:
    with path.open(newline="") as file:
        yield from csv.DictReader(file)


def test_the_csv_holds_what_is_shown_with_every_digit(sweep: Path, tmp_path: Path) -> None:
    runs, path = load_runs([sweep]), tmp_path / "out.csv"
    for by_seed in (False, True):
        comparison = compare_runs(runs, by_seed=by_seed)
        write_csv(comparison, path)
        rows = list(read_csv(path))
        assert len(rows) == len(comparison.columns[0].values)
        if not by_seed:
            assert list(rows[0]) == titles(comparison)
    assert rows[0]["loss_last_mean_20_mean"] == "4.0"
    assert rows[0]["loss_last_mean_20_std"] == "1.0"
    assert float(rows[0]["attenuation_geometric_mean"]) == pytest.approx(0.3, rel=1e-14)
    assert rows[0]["attenuation_n"] == "3"


def test_floats_nan_and_empty_cells_of_the_csv_read_back(tmp_path: Path) -> None:
    third = float(np.float64(1) / 3)
    make_run(tmp_path / "0", deltas=[third, "nan", ""])
    write_csv(compare_layers(load_runs([tmp_path])), tmp_path / "out.csv")
    assert [row["run 0"] for row in read_csv(tmp_path / "out.csv")] == [
        repr(third),
        "nan",
        "",
        "0.5",
    ]


def test_a_csv_that_cannot_be_written_is_a_question_gone_wrong(tmp_path: Path) -> None:
    with pytest.raises(QuestionError, match="cannot write"):
        write_csv(Comparison([]), tmp_path / "no" / "out.csv")


# ---------------------------------------------------------------- the verb


def compared(*arguments: str | Path) -> str:
    parser = argparse.ArgumentParser()
    compare.add_arguments(parser)
    with redirect_stdout(io.StringIO()) as out:
        assert compare.main(parser.parse_args([str(argument) for argument in arguments])) == 0
    return out.getvalue()


def test_the_verb_shows_runs_layers_seeds_and_writes_csv(sweep: Path, tmp_path: Path) -> None:
    assert "val_" in compared(sweep)
    assert "depth=30" in compared(sweep, "--layers")
    assert "depth=30" in compared("--layers", sweep)
    assert "grad_norm at last" in compared(sweep, "--layers", "grad_norm", "--step", "last")
    assert "grad_norm at first" in compared(sweep, "--layers", "--metric", "grad_norm")
    assert "grad_norm at step 20" in compared("--layers", "grad_norm", sweep, "--step", "20")
    told = compared(sweep, "--seeds", "--csv", tmp_path / "out.csv")
    assert "2 healthy" in told
    assert told.endswith(f"\n\ntable: {tmp_path / 'out.csv'}\n")
    assert (tmp_path / "out.csv").is_file()


def test_the_verb_without_a_run_says_what_it_takes() -> None:
    with pytest.raises(QuestionError, match="RUN_OR_SWEEP"):
        compared()


RECORDED = Path(__file__).parents[1] / "recorded"


@pytest.mark.parametrize("metric", ["delta_rms", "predicted_delta_rms"])
def test_seeds_of_a_prediction_are_folded_as_those_of_what_it_predicts(
    metric: str, tmp_path: Path
) -> None:
    comparison = compare_layers(load_runs([RECORDED / "sweep"]), metric, by_seed=True)
    values = [value for shown in comparison.columns[1:] for value in shown.values]
    assert values
    assert all(value.is_geometric for value in values if value is not None)
    write_csv(comparison, tmp_path / "layers.csv")
    header = (tmp_path / "layers.csv").read_text().splitlines()[0]
    assert "_geometric_mean" in header
    assert "_geometric_std" in header


@pytest.mark.parametrize(
    ("sweep", "metric", "is_geometric"),
    [
        ("sweep", "weight_gradient_ratio", True),
        ("sweep", "loss_last", False),
        ("signal_sweep", "attenuation_log_std", False),
        ("signal_sweep", "backward_factor_log_std", False),
    ],
)
def test_a_metric_is_folded_as_it_is_declared(sweep: str, metric: str, is_geometric: bool) -> None:
    comparison = compare_runs(load_runs([RECORDED / sweep]), metric, by_seed=True)
    (shown,) = (column for column in comparison.columns if column.title == metric)
    assert [value.is_geometric for value in shown.values] == [is_geometric] * 2


# ---------------------------------------------------------------- what is missing or there twice


def test_what_a_sweep_lacks_is_told_where_the_whole_of_it_was_asked_for(tmp_path: Path) -> None:
    sweep = tmp_path / "cut"
    shutil.copytree(RECORDED / "interrupted_sweep", sweep)
    assert f"1 of 4 jobs of {sweep} has not begun: 3" in " ".join(compared(sweep).split())
    assert "begun" not in compared(sweep / "0")
    (sweep / "sweep.csv").write_bytes(b"\xff")
    assert "sweep.csvisnottext" in "".join(compared(tmp_path).split())


def test_a_column_without_a_value_has_its_reason() -> None:
    told = compared(RECORDED / "sweep", "--metric", "path_length")
    assert "path_length: no run has a value; signal.paths has it measured" in told
    told = compared(RECORDED / "sweep", "--metric", "time_attenuation")
    assert (
        f"time_attenuation: no run has a value; {SUMMARY['time_attenuation'].meaning}"
        in " ".join(told.split())
    )
    assert "no run has a value" not in compared(RECORDED / "sweep", "--metric", "loss_first")


def test_two_runs_of_one_seed_are_one_seed(tmp_path: Path) -> None:
    """Of equal runs the one that completed counts, and the others are named."""
    cut = make_run(tmp_path / "0", {"seed": 1}, status="interrupted", loss_last=9.0)
    make_run(tmp_path / "1", {"seed": 2}, status="completed", loss_last=3.0)
    make_run(tmp_path / "2", {"seed": 1}, status="completed", loss_last=1.0)
    runs = load_runs([tmp_path])
    comparison = compare_runs(runs, "loss_last", by_seed=True)
    assert column(comparison, "runs") == ["2, 1"]
    assert column(comparison, "num_seeds") == [2]
    (spread,) = column(comparison, "loss_last")
    assert (spread.centre, spread.num_seeds) == (2.0, 2)
    assert "runs 0, 2 are equal, seed included: run 2 counts" in comparison.endings
    assert len(column(compare_runs(runs), "run")) == 3
    shutil.rmtree(cut)
    assert not compare_runs(load_runs([tmp_path]), by_seed=True).endings
