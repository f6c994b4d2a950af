"""Run folders written by hand, read back: values, dtypes, and what is wrong with broken ones.

Holds: tables/cells.py, tables/documents.py, tables/extents.py, tables/files.py, tables/folders.py,
tables/frames.py, tables/plain.py, tables/sweeps.py
"""

import json
import math
import tracemalloc
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from vgexp import config, folders, tables
from vgexp.errors import QuestionError
from vgexp.quantities import TABLES

STEPS_HEADER = ",".join(column.name for column in TABLES["steps"]) + "\n"
STEPS_ROWS = "0,0,0.1,2.3,0.5,1.5,1.0,1,0,8.0\n1,0,0.1,nan,,inf,-inf,,0,\n"


def write(folder: Path, name: str, text: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text, encoding="utf-8")
    return folder


def make_run(folder: Path, **values: object) -> Path:
    chosen = [{group: name} for group, name in config.choices(config.Config()).items()]
    content = {"defaults": ["schema", *chosen, "_self_"]}
    content |= config.to_dict(config.Config()) | values
    write(folder, "config.yaml", yaml.safe_dump(content, sort_keys=False))
    return write(folder, "summary.json", json.dumps({"status": "completed"}))


def test_values_come_back_exactly_with_nan_and_infinities_as_values(tmp_path: Path) -> None:
    frame = tables.read(write(tmp_path, "steps.csv", STEPS_HEADER + STEPS_ROWS), "steps")
    assert frame["step"].tolist() == [0, 1]
    assert frame["loss"][0] == 2.3
    assert math.isnan(frame["loss"][1])
    assert frame["grad_norm"].tolist() == [1.5, math.inf]
    assert frame["grad_norm_clipped"].tolist() == [1.0, -math.inf]


@pytest.mark.parametrize("exponent", [-323, -308, -45, -38, -8, 0, 8, 38, 307])
def test_shortest_float_forms_read_back_to_the_same_number(tmp_path: Path, exponent: int) -> None:
    values = np.random.default_rng(0).uniform(1, 10, 20) * 10.0**exponent
    rows = "".join(f"{i},0,{float(v)!r},,,,,,,\n" for i, v in enumerate(values))
    frame = tables.read(write(tmp_path, "steps.csv", STEPS_HEADER + rows), "steps")
    assert frame["lr"].tolist() == values.tolist()


def test_integers_that_may_be_empty_are_nullable_and_keys_are_not(tmp_path: Path) -> None:
    frame = tables.read(write(tmp_path, "steps.csv", STEPS_HEADER + STEPS_ROWS), "steps")
    assert frame["step"].dtype == "int64"
    assert frame["clipped"].dtype == "Int64"
    assert frame["clipped"].isna().tolist() == [False, True]
    assert frame["loss"].dtype == "float64"


def test_empty_cells_are_told_apart_from_nan(tmp_path: Path) -> None:
    folder = write(tmp_path, "steps.csv", STEPS_HEADER + STEPS_ROWS)
    frame, empty = tables.read(folder, "steps"), tables.empty_cells(folder, "steps")
    assert empty.shape == frame.shape
    assert not empty["loss"].any()
    assert empty["accuracy"].tolist() == [False, True]
    assert frame["accuracy"].isna().tolist() == [False, True]


@pytest.mark.parametrize("quote", ["", '"'])
def test_named_columns_are_read_as_they_are_in_the_whole_table(quote: str, tmp_path: Path) -> None:
    header = [column.name for column in TABLES["steps"]]
    rows = [["0", "0", "0.1", "nan", "", "1", "inf", "0", "0", "8"], ["1", "0"] + [""] * 8]
    lines = [",".join(header), *(f"{quote}{r[0]}{quote},{','.join(r[1:])}" for r in rows), "2,"]
    (tmp_path / "steps.csv").write_text("\n".join(lines))
    whole, empty = tables.read(tmp_path, "steps"), tables.empty_cells(tmp_path, "steps")
    for names in (["step", "loss"], ["accuracy"], ["grad_norm_clipped", "step"]):
        part = tables.read(tmp_path, "steps", names)
        in_order = [name for name in header if name in names]
        pd.testing.assert_frame_equal(part, whole[in_order])
        assert part.attrs[tables.HALF_LINE] == "2,"
        part_empty = tables.empty_cells(tmp_path, "steps", names)
        pd.testing.assert_frame_equal(part_empty, empty[in_order])
    assert empty["loss"].tolist() == [False, True]
    assert tables.column_names(tmp_path, "steps") == header
    with pytest.raises(QuestionError, match="nearest: loss"):
        tables.read(tmp_path, "steps", ["los"])


def test_rows_too_long_and_too_short_do_not_make_up_for_each_other(tmp_path: Path) -> None:
    header = ",".join(column.name for column in TABLES["steps"])
    (tmp_path / "steps.csv").write_text(f"{header}\n0{',1' * 10}\n1{',1' * 8}\n")
    with pytest.raises(QuestionError, match="11 cells in line 2, not 10"):
        tables.read(tmp_path, "steps", ["step", "loss"])


@pytest.mark.parametrize("table", TABLES)
def test_a_table_of_a_header_alone_is_a_frame_without_rows(tmp_path: Path, table: str) -> None:
    names = [column.name for column in TABLES[table]]
    frame = tables.read(write(tmp_path, f"{table}.csv", ",".join(names) + "\n"), table)
    assert frame.shape == (0, len(names))
    assert frame["step"].dtype == "int64"


@pytest.mark.parametrize("end", range(1, len("1,0,0.1,nan,,inf,-inf,,0")))
def test_a_last_line_cut_anywhere_is_dropped_and_kept_as_a_note(tmp_path: Path, end: int) -> None:
    last = STEPS_ROWS.splitlines()[1][:end]
    text = STEPS_HEADER + STEPS_ROWS.splitlines()[0] + "\n" + last
    frame = tables.read(write(tmp_path, "steps.csv", text), "steps")
    assert len(frame) == 1
    assert frame.attrs[tables.HALF_LINE] == last


def test_a_whole_table_has_no_half_line(tmp_path: Path) -> None:
    frame = tables.read(write(tmp_path, "steps.csv", STEPS_HEADER + STEPS_ROWS), "steps")
    assert frame.attrs[tables.HALF_LINE] is None


def test_columns_of_a_newer_version_are_kept(tmp_path: Path) -> None:
    header = STEPS_HEADER.strip() + ",seed,temperature,note\n"
    row = STEPS_ROWS.splitlines()[0]
    text = header + row + ",3,0.5,warm\n" + row + ",,nan,\n"
    frame = tables.read(write(tmp_path, "steps.csv", text), "steps")
    assert frame["seed"].tolist() == [3, pd.NA]
    assert frame["temperature"][0] == 0.5
    assert frame["note"].tolist()[0] == "warm"


def test_names_with_commas_and_quotes_survive(tmp_path: Path) -> None:
    header = ",".join(column.name for column in TABLES["evals"])
    text = header + '\n1,0,"a ""b"", [red]c",0.5,\n'
    frame = tables.read(write(tmp_path, "evals.csv", text), "evals")
    assert frame["split"].tolist() == ['a "b", [red]c']


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "is empty"),
        ("step,epo", "ends within its header"),
        ("step,epoch,lr\n0,0,0.1\n", "lacks the columns loss, accuracy, grad_norm"),
        (STEPS_HEADER + "0,0,0.1\n", "3 cells in line 2, not 10"),
        (STEPS_HEADER + STEPS_ROWS.replace("2.3", "two"), "column loss"),
        (STEPS_HEADER + ",0,0.1,2.3,0.5,1.5,1.0,1,0,\n", "column step"),
        (STEPS_HEADER + STEPS_ROWS + "\0\0\n", "1 cells in line 4"),
    ],
)
def test_a_broken_table_is_named_with_its_problem(tmp_path: Path, text: str, problem: str) -> None:
    folder = write(tmp_path, "steps.csv", text)
    with pytest.raises(QuestionError) as caught:
        tables.read(folder, "steps")
    assert str(folder / "steps.csv") in str(caught.value)
    assert problem in str(caught.value)


def test_missing_binary_and_unknown_tables_are_questions_gone_wrong(tmp_path: Path) -> None:
    with pytest.raises(QuestionError, match=r"steps\.csv: No such file"):
        tables.read(tmp_path, "steps")
    (tmp_path / "steps.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(QuestionError, match="is not text"):
        tables.read(tmp_path, "steps")
    with pytest.raises(QuestionError, match="nearest: steps"):
        tables.read(tmp_path, "step")


def test_a_summary_that_is_missing_or_broken_is_named(tmp_path: Path) -> None:
    with pytest.raises(QuestionError, match=r"summary\.json"):
        tables.read_summary(tmp_path)
    for text, problem in (("{", "is not JSON"), ("[1]", "holds a list")):
        with pytest.raises(QuestionError, match=problem):
            tables.read_summary(write(tmp_path, "summary.json", text))


def test_a_configuration_comes_back_as_it_was(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", seed=7)
    assert tables.read_config(run) == config.Config(seed=7)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"depth": 3}, "unknown key"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": "1x"}, "seed is '1x'"),
        ({"defaults": []}, "names no choice of model"),
    ],
)
def test_a_broken_configuration_is_named(
    tmp_path: Path, change: dict[str, object], problem: str
) -> None:
    run = make_run(tmp_path / "run", **change)
    with pytest.raises(QuestionError, match=problem) as caught:
        tables.read_config(run)
    assert "config.yaml" in str(caught.value)


def test_a_sweep_gives_its_runs_in_the_order_of_jobs(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / "sweep" / str(job)) for job in (0, 1, 2, 9, 10, 11)]
    assert tables.find_runs([tmp_path / "sweep"]) == runs
    assert tables.find_runs([str(tmp_path)]) == runs


def test_a_run_named_twice_is_found_once_where_it_was_named_first(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / "sweep" / str(job)) for job in range(3)]
    (tmp_path / "latest").symlink_to(runs[2])
    found = tables.find_runs([runs[2], tmp_path / "sweep", tmp_path / "latest"])
    assert found == [runs[2], runs[0], runs[1]]
    assert tables.find_runs([tmp_path]) == runs


def test_a_run_without_a_summary_counts_and_a_folder_of_presets_does_not(tmp_path: Path) -> None:
    cut = make_run(tmp_path / "cut")
    (cut / "summary.json").unlink()
    write(tmp_path / "configs", "config.yaml", "defaults: []\n")
    with pytest.raises(QuestionError, match="no run in or under"):
        tables.find_runs([tmp_path])
    write(cut, "layers.csv", "")
    assert tables.find_runs([tmp_path]) == [cut]


def test_a_path_that_is_no_folder_is_answered_with_the_nearest(tmp_path: Path) -> None:
    run = make_run(tmp_path / "relu_deep")
    with pytest.raises(QuestionError, match=r"not there\n(.*\n)nearest: .*relu_deep"):
        tables.find_runs([tmp_path / "relu_deeep"])
    with pytest.raises(QuestionError, match=r"is a file\n(.*\n)nearest: .*relu_deep"):
        tables.find_runs([run / "summary.json"])
    with pytest.raises(QuestionError, match="a sweep folder"):
        tables.find_runs([tmp_path / "no" / "such"])


SWEEP = "job,status,optimizer.lr,model,seed,loss_last,reason\n"


def test_how_the_jobs_of_a_sweep_ended_is_read_from_its_table(tmp_path: Path) -> None:
    assert tables.sweep_jobs(tmp_path) == {}
    rows = "0,completed,0.1,mlp,3,2.5,\n1,failed,1e-3,cnn,,,no memory\n2,,,,,,\n"
    write(tmp_path, "sweep.csv", SWEEP + rows)
    assert tables.sweep_jobs(tmp_path) == {
        "0": tables.SweepJob(
            {"status": "completed"}, {"optimizer.lr": 0.1, "model": "mlp", "seed": 3}
        ),
        "1": tables.SweepJob(
            {"status": "failed", "reason": "no memory"}, {"optimizer.lr": 0.001, "model": "cnn"}
        ),
    }


def test_what_a_job_overrides_is_read_from_the_plan_that_also_knows_its_folder(
    tmp_path: Path,
) -> None:
    words = ["+experiment=relu_he", "model.depth=3", "probe.layers='a b'", "clip.threshold=null"]
    words += ["optimizer.lr=-1e-4", "model.bias=False", "~data"]
    jobs = [{"job": 4, "folder": "deep/4", "overrides": words, "values": None}]
    write(tmp_path, "plan.json", json.dumps({"jobs": jobs}))
    write(tmp_path, "sweep.csv", SWEEP + "4,failed,-1e-4,,,,too small\n")
    assert tables.sweep_jobs(tmp_path) == {
        "deep/4": tables.SweepJob(
            {"status": "failed", "reason": "too small"},
            {
                "experiment": "relu_he",
                "model.depth": 3,
                "probe.layers": "a b",
                "clip.threshold": None,
                "optimizer.lr": -1e-4,
                "model.bias": False,
            },
        )
    }


@pytest.mark.parametrize("damage", [b"", b"{", b"[1]", b'{"jobs": [3]}', b"\xff\xfe", b"a\0b\n"])
def test_a_damaged_file_of_a_sweep_tells_nothing(tmp_path: Path, damage: bytes) -> None:
    for name in ("plan.json", "sweep.csv"):
        (tmp_path / name).write_bytes(damage)
    assert tables.sweep_jobs(tmp_path) == {}
    plan, table = sorted(tables.sweep_problems(tmp_path))
    assert plan.startswith(f"{tmp_path / 'plan.json'} is ")
    assert table.startswith(f"{tmp_path / 'sweep.csv'} is ")


def test_jobs_that_have_not_begun_are_named(tmp_path: Path) -> None:
    jobs = [{"job": number, "folder": f"of/{number}", "overrides": []} for number in range(16)]
    write(tmp_path, "plan.json", json.dumps({"jobs": jobs}))
    write(tmp_path, "sweep.csv", SWEEP + "1,failed,,,,,no memory\n")
    make_run(tmp_path / "of" / "0")
    assert tables.sweep_problems(tmp_path) == [
        f"14 of 16 jobs of {tmp_path} have not begun: 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, ..."
    ]
    for number in range(2, 15):
        make_run(tmp_path / "of" / str(number))
    assert tables.sweep_problems(tmp_path) == [f"1 of 16 jobs of {tmp_path} has not begun: 15"]
    make_run(tmp_path / "of" / "15")
    assert tables.sweep_problems(tmp_path) == []


@pytest.mark.parametrize("defaults", [5, "schema", {"model": "mlp"}])
def test_a_defaults_list_that_is_none_is_named(tmp_path: Path, defaults: object) -> None:
    run = make_run(tmp_path / "run", defaults=defaults)
    with pytest.raises(QuestionError, match="names no choice of model"):
        tables.read_config(run)


def test_dates_that_cannot_be_are_no_yaml(tmp_path: Path) -> None:
    with pytest.raises(QuestionError, match="is not YAML"):
        tables.read_config(write(tmp_path, "config.yaml", "seed: 2026-99-99\n"))


def rows(steps: list[int], num_rows: int) -> str:
    return "".join(f"{step},0,{'0' * 40},,,,,,,\n" for step in steps for _ in range(num_rows))


@pytest.mark.parametrize("num_rows", [1, 3, 5000])
def test_how_far_a_table_goes_is_told_from_its_ends(tmp_path: Path, num_rows: int) -> None:
    whole = STEPS_HEADER + rows([0, 10, 19], num_rows)
    write(tmp_path, "steps.csv", whole)
    assert tables.extent_of(tmp_path, "steps") == tables.Extent(19, num_rows, num_rows, False)
    write(tmp_path, "steps.csv", whole[:-1])
    last = (19, num_rows - 1) if num_rows > 1 else (10, 1)
    assert tables.extent_of(tmp_path, "steps") == tables.Extent(last[0], num_rows, last[1], True)
    write(tmp_path, "steps.csv", whole + "20,0")
    assert tables.extent_of(tmp_path, "steps") == tables.Extent(19, num_rows, num_rows, True)
    write(tmp_path, "steps.csv", STEPS_HEADER + rows([4], num_rows))
    assert tables.extent_of(tmp_path, "steps") == tables.Extent(4, num_rows, num_rows, False)


def test_a_table_without_rows_goes_nowhere_and_a_file_that_is_none_has_no_end(
    tmp_path: Path,
) -> None:
    assert tables.extent_of(tmp_path, "steps") is None
    for text, is_torn in (("", False), (STEPS_HEADER, False), ("step,ep", True)):
        write(tmp_path, "steps.csv", text)
        assert tables.extent_of(tmp_path, "steps") == tables.Extent(None, 0, 0, is_torn)
    write(tmp_path, "steps.csv", "a list\nof words\n")
    assert tables.extent_of(tmp_path, "steps") is None


def test_the_middle_of_a_long_table_is_not_read(tmp_path: Path) -> None:
    write(tmp_path, "steps.csv", STEPS_HEADER + rows(list(range(300_000)), 1))
    tracemalloc.start()
    try:
        assert tables.extent_of(tmp_path, "steps") == tables.Extent(299_999, 1, 1, False)
        assert tracemalloc.get_traced_memory()[1] < 1e6
    finally:
        tracemalloc.stop()


YAML_FILES = sorted((Path(__file__).parents[1] / "recorded").rglob("*.yaml"))


def test_yaml_is_read_the_same_with_and_without_libyaml(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [path.read_text(encoding="utf-8") for path in YAML_FILES]
    texts += ["a: {b: [1, 2.5, 1e-3, null, yes, 'x']}\n# c\nd: |\n  é\n  f\n", "", "text", "- 1"]
    found = [folders.parse_yaml(text) for text in texts]
    monkeypatch.delattr(yaml, "CSafeLoader", raising=False)
    assert found == [folders.parse_yaml(text) for text in texts]
    assert len(YAML_FILES) > 5


@pytest.mark.parametrize(
    "text", ["a: [1", "a: b: c", "\t", "[" * 5_000, "a: !!python/name:os.system", "a: 2001-99-99"]
)
def test_what_is_no_yaml_is_told_in_the_same_words_with_and_without_libyaml(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises((yaml.YAMLError, RecursionError, ValueError)) as first:
        folders.parse_yaml(text)
    monkeypatch.delattr(yaml, "CSafeLoader", raising=False)
    with pytest.raises(first.type) as second:
        folders.parse_yaml(text)
    assert str(first.value) == str(second.value)
