"""sweep.csv grows a row a job and loses nothing; plan.json knows every job.

Holds: sweep/place.py, sweep/plan.py, sweep/plan_file.py, sweep/table.py
"""

from __future__ import annotations

import csv
import dataclasses
import math
import threading
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vgexp import folders, sweep
from vgexp.config import Config, OutputConfig
from vgexp.errors import QuestionError, reason
from vgexp.sweep import JobRow, place, plan, plan_file
from vgexp.sweep.plan import Plan, Wanted


def rows_of(folder: Path) -> list[list[str]]:
    with (folder / "sweep.csv").open(newline="") as file:
        return list(csv.reader(file))


def test_a_row_is_written_as_each_job_ends(tmp_path: Path) -> None:
    sweep.record(tmp_path, [JobRow(0, "completed", {"model.depth": "5"}, {"loss_last": "0.1"})])
    assert rows_of(tmp_path) == [
        ["job", "status", "model.depth", "loss_last", "reason"],
        ["0", "completed", "5", "0.1", ""],
    ]
    sweep.record(tmp_path, [JobRow(1, "failed", {"model.depth": "0"}, reason="too shallow, by 1")])
    assert rows_of(tmp_path)[2] == ["1", "failed", "0", "", "too shallow, by 1"]


def test_the_header_grows_and_reason_stays_last(tmp_path: Path) -> None:
    sweep.record(tmp_path, [JobRow(0, "failed", {"a": "1"}, reason="no")])
    sweep.record(tmp_path, [JobRow(1, "completed", {"a": "2", "b": "3"}, {"loss": "4"})])
    header, first, second = rows_of(tmp_path)
    assert header == ["job", "status", "a", "b", "loss", "reason"]
    assert first == ["0", "failed", "1", "", "", "no"]
    assert second == ["1", "completed", "2", "3", "4", ""]


def test_what_a_job_overrides_takes_the_place_of_no_column_that_tells_of_the_job() -> None:
    odd = {"job": "7", "status": "1", "reason": "2", "seed": "3"}
    cells = JobRow(4, sweep.FAILED, odd, {"seed": "9"}, "full").cells()
    assert cells == {"job": "4", "status": sweep.FAILED, "seed": "3", "reason": "full"}


def test_a_job_that_ends_again_replaces_its_row(tmp_path: Path) -> None:
    for status in ("interrupted", "completed"):
        sweep.record(tmp_path, [JobRow(0, status), JobRow(1, "completed")])
    assert [row[:2] for row in rows_of(tmp_path)[1:]] == [["0", "completed"], ["1", "completed"]]


def test_jobs_that_end_at_once_all_keep_their_rows(tmp_path: Path) -> None:
    threads = [
        threading.Thread(
            target=sweep.record, args=(tmp_path, [JobRow(i, "completed", {"i": str(i)})])
        )
        for i in range(12)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(int(row["job"]) for row in sweep.read(tmp_path)) == list(range(12))


def test_a_write_that_fails_leaves_the_file_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep.record(tmp_path, [JobRow(0, "completed")])
    before = (tmp_path / "sweep.csv").read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(csv.DictWriter, "writerows", full)
    with pytest.raises(OSError, match="No space left"):
        sweep.record(tmp_path, [JobRow(1, "completed")])
    assert (tmp_path / "sweep.csv").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["sweep.csv"]


def test_a_cell_of_any_kind_reads_back_as_it_was(tmp_path: Path) -> None:
    strange = 'a,b "c"\nd'
    sweep.record(tmp_path, [JobRow(0, "completed", {"k": strange})])
    assert sweep.read(tmp_path)[0]["k"] == strange


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, ""),
        (True, "True"),
        (3, "3"),
        (0.1, "0.1"),
        (1e-30, "1e-30"),
        (math.nan, "nan"),
        (math.inf, "inf"),
        (-math.inf, "-inf"),
        ("healthy", "healthy"),
    ],
)
def test_a_summary_figure_is_written_in_its_shortest_form(value: object, text: str) -> None:
    summary = {"status": "completed", "figure": value, "versions": {"torch": "2"}, "list": [1]}
    assert sweep.metrics(summary) == {"figure": text}


def test_a_reason_is_one_line() -> None:
    assert reason(QuestionError("depth is 0\nallowed: 1")) == "depth is 0; allowed: 1"
    assert reason(MemoryError()) == "MemoryError"
    assert reason(RuntimeError("out of\n memory")) == "RuntimeError: out of; memory"


def test_only_a_folder_of_another_programs_sweep_or_a_file_is_refused(tmp_path: Path) -> None:
    assert place.admit(tmp_path) is None
    assert place.admit(tmp_path / "new" / "folder") is None
    (tmp_path / "multirun.yaml").write_text("hydra: {}")
    with pytest.raises(QuestionError, match="holds a sweep that is not vgexp's"):
        place.admit(tmp_path)
    plan_file.write(tmp_path, Plan())
    assert place.admit(tmp_path) == Plan()
    with pytest.raises(QuestionError, match="is a file"):
        place.admit(tmp_path / "plan.json" / "below")


def test_rows_stand_in_the_order_of_jobs_and_columns_of_overrides_first(tmp_path: Path) -> None:
    late = JobRow(2, "completed", {"b": "3"}, {"loss": "1"})
    early = JobRow(1, "completed", {"a": "2"}, {"loss": "4"})
    sweep.record(tmp_path, [late], ["a", "b"])
    sweep.record(tmp_path, [early], ["a", "b"])
    assert rows_of(tmp_path) == [
        ["job", "status", "a", "b", "loss", "reason"],
        ["1", "completed", "2", "", "4", ""],
        ["2", "completed", "", "3", "1", ""],
    ]


def wanted(seed: int, **changes: Any) -> Wanted:
    return Wanted((f"seed={seed}",), Config(seed=seed, **changes))


def numbered(_job: Wanted, number: int) -> str:
    return str(number)


def test_a_larger_sweep_keeps_the_numbers_of_the_jobs_that_are_there() -> None:
    small, first = plan.extend(Plan(), [wanted(1), wanted(3)], Counter(), numbered)
    large, asked = plan.extend(small, [wanted(s) for s in (1, 2, 3)], Counter(), numbered)
    assert [entry.job for entry in first] == [0, 1]
    assert [entry.job for entry in asked] == [0, 2, 1]
    assert large.entries[:2] == small.entries
    again, same = plan.extend(large, [wanted(s) for s in (3, 2, 1)], Counter(), numbered)
    assert again == large
    assert [entry.job for entry in same] == [1, 2, 0]


def test_fields_that_change_no_table_do_not_make_another_job() -> None:
    known, _ = plan.extend(Plan(), [wanted(1)], Counter(), numbered)
    other = wanted(1, device="cpu", output=OutputConfig(quiet=True))
    assert plan.extend(known, [other], Counter(), numbered)[0] == known


def test_equal_jobs_of_one_command_are_two_and_stay_two() -> None:
    both = [wanted(1), wanted(1, device="cpu")]
    known, first = plan.extend(Plan(), both, Counter(), numbered)
    assert [entry.job for entry in first] == [0, 1]
    assert plan.extend(known, both, Counter(), numbered) == (known, first)
    met: Counter[str] = Counter()
    for job, number in zip(both, (0, 1), strict=True):  # one after the other, as a search asks
        known, (entry,) = plan.extend(known, [job], met, numbered)
        assert entry.job == number


def test_jobs_that_would_share_a_folder_are_refused() -> None:
    with pytest.raises(QuestionError, match="jobs 0 and 1 would share the folder 'x'"):
        plan.extend(Plan(), [wanted(1), wanted(2)], Counter(), lambda *_: "x")


def a_plan() -> Plan:
    impossible = Wanted(("model.depth=0",), None, "too shallow")
    known, _ = plan.extend(Plan(), [wanted(1), impossible], Counter(), numbered)
    return known.add_command(("train", "-m", "seed=1"))


def test_a_plan_reads_back_as_it_was_written(tmp_path: Path) -> None:
    assert plan_file.read(tmp_path) is None
    plan_file.write(tmp_path, a_plan())
    read = plan_file.read(tmp_path)
    assert read == a_plan()
    assert read is not None
    assert read.entries[0].config == Config(seed=1)
    with pytest.raises(QuestionError, match="too shallow"):
        _ = read.entries[1].config
    done = read.end_command(("train", "-m", "seed=1"))
    assert done.pending == ()
    assert done.commands == read.commands


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_a_damaged_plan_is_a_question_or_the_same(tmp_path: Path, data: st.DataObject) -> None:
    plan_file.write(tmp_path, a_plan())
    content = bytearray((tmp_path / plan.FILE).read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        content[at] ^= data.draw(st.integers(1, 255))
    else:
        del content[at:]
    (tmp_path / plan.FILE).write_bytes(bytes(content))
    with suppress(QuestionError):
        assert plan_file.read(tmp_path) == a_plan()


OUTSIDE = ["..", "../x", "a/../../x", "/tmp/x", "", "a\0b"]


@pytest.mark.parametrize("folder", OUTSIDE)
def test_a_plan_that_leads_out_of_the_sweep_is_refused(tmp_path: Path, folder: str) -> None:
    entry = dataclasses.replace(a_plan().entries[0], folder=folder)
    plan_file.write(tmp_path, Plan((entry,)))
    with pytest.raises(QuestionError, match="is not below the sweep's"):
        plan_file.read(tmp_path)
    with pytest.raises(QuestionError, match="allowed: a folder below the sweep's"):
        plan.extend(Plan(), [wanted(1)], Counter(), lambda *_: folder)


@pytest.mark.parametrize(
    "changes",
    [
        {"job": "1"},
        {"job": None},
        {"job": 1.5},
        {"job": -3},
        {"job": True},
        {"job": 10**30},
        {"folder": 5},
        {"overrides": (1,)},
        {"identity": None},
        {"values": [1]},
        {"choices": "mlp"},
    ],
)
def test_a_plan_of_odd_things_is_a_question(tmp_path: Path, changes: dict[str, Any]) -> None:
    plan_file.write(tmp_path, Plan((dataclasses.replace(a_plan().entries[0], **changes),)))
    with pytest.raises(QuestionError, match="is damaged"):
        plan_file.read(tmp_path)


def test_a_plan_whose_jobs_are_one_is_a_question(tmp_path: Path) -> None:
    entry = a_plan().entries[0]
    for other in ({"job": 7}, {"folder": "7"}):
        plan_file.write(tmp_path, Plan((entry, dataclasses.replace(entry, **other))))
        with pytest.raises(QuestionError, match="two jobs share a number or a folder"):
            plan_file.read(tmp_path)


def test_values_that_are_not_those_of_the_identity_are_a_question() -> None:
    entry = dataclasses.replace(a_plan().entries[0], identity="0")
    with pytest.raises(QuestionError, match="has the configuration of another"):
        _ = entry.config


def test_what_changes_no_table_is_taken_anew_for_jobs_that_are_open() -> None:
    known, _ = plan.extend(Plan(), [wanted(1, device="cuda"), wanted(2)], Counter(), numbered)
    again = [wanted(1, device="cpu"), wanted(2, device="cpu")]
    renewed, asked = plan.extend(known, again, Counter(), numbered, lambda e: e.job == 0)
    assert [entry.config.device for entry in asked] == ["cpu", "auto"]
    assert list(renewed.entries) == asked


def test_the_jobs_of_a_lost_plan_are_found_in_their_folders(tmp_path: Path) -> None:
    for number in (10, 2):
        (tmp_path / str(number)).mkdir()
        folders.write_config(tmp_path / str(number), Config(seed=number), "")
    (tmp_path / "2" / ".hydra").mkdir()
    (tmp_path / "2" / ".hydra" / "overrides.yaml").write_text("- seed=2\n")
    (tmp_path / "7").mkdir()
    found = plan_file.rebuild(tmp_path)
    assert [(entry.job, entry.overrides) for entry in found.entries] == [
        (2, ("seed=2",)),
        (10, ()),
    ]
    assert plan.extend(found, [wanted(10)], Counter(), numbered)[0] == found


def test_a_new_job_is_numbered_after_the_last_though_numbers_are_missing_before_it() -> None:
    known, _ = plan.extend(Plan(), [wanted(seed) for seed in range(4)], Counter(), numbered)
    found = dataclasses.replace(known, entries=known.entries[2:])  # the folders of two were removed
    larger, (new,) = plan.extend(found, [wanted(9)], Counter(), numbered)
    assert (new.job, new.folder) == (4, "4")
    assert [entry.job for entry in larger.entries] == [2, 3, 4]


def test_a_run_knows_the_sweep_whose_job_it_is(tmp_path: Path) -> None:
    plan_file.write(tmp_path, a_plan())
    assert place.record_of(tmp_path / "0") == (tmp_path.resolve(), a_plan())
    assert place.record_of(tmp_path / "9") is None
    assert place.record_of(tmp_path) is None
