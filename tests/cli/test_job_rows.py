"""Rows of `sweep.csv` for the jobs of a plan, and which jobs are launched again.

Holds: cli/job_rows.py
"""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import BrokenExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
from hydra.core.utils import JobReturn

from vgexp import sweep
from vgexp.cli.job_rows import find_differing_keys, list_override_keys, record_endings
from vgexp.cli.launcher import PlannedLauncher
from vgexp.config import Config
from vgexp.sweep import JobRow, plan


def plan_of(*overrides: tuple[str, ...]) -> plan.Plan:
    wanted = [plan.Wanted(words, Config(seed=number)) for number, words in enumerate(overrides)]
    return plan.extend(plan.Plan(), wanted, Counter(), lambda _, number: str(number))[0]


def end(folder: Path, known: plan.Plan, status: str = "completed") -> None:
    for entry in known.entries:
        (folder / entry.folder).mkdir()
        (folder / entry.folder / "summary.json").write_text(json.dumps({"status": status}))


def test_a_key_that_jobs_set_to_different_values_is_found_however_it_is_typed() -> None:
    known = plan_of(("+a=1", "++b=1", "c=1", "d=1"), ("+a=2", "++b=2", "c=2", "d=1"), ("d=1",))
    assert find_differing_keys(known.entries) == {"a", "b", "c"}
    assert find_differing_keys(plan_of(("a=1", "b=2")).entries) == frozenset()
    assert find_differing_keys(()) == frozenset()
    assert list_override_keys(plan_of(("b=1", "a=1"), ("a=2", "c=3")).entries) == ["b", "a", "c"]


@pytest.mark.parametrize(
    "unknown",
    [JobRow(7, "completed", {"seed": "1"}), JobRow(0, "completed", {"seed": "0", "other": "1"})],
    ids=["row", "column"],
)
def test_a_row_or_a_column_that_belongs_to_no_job_leaves_the_table(
    unknown: JobRow, tmp_path: Path
) -> None:
    known = plan_of(("seed=0",), ("seed=1",))
    end(tmp_path, known)
    record_endings(tmp_path, known)
    expected = (tmp_path / sweep.FILE).read_bytes()
    assert [row["seed"] for row in sweep.read(tmp_path)] == ["0", "1"]
    sweep.record(tmp_path, [unknown])
    assert (tmp_path / sweep.FILE).read_bytes() != expected
    record_endings(tmp_path, known)
    assert (tmp_path / sweep.FILE).read_bytes() == expected


@pytest.mark.parametrize(("retries_failed", "has_values"), [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_a_failed_job_is_launched_again_if_that_is_asked_for_and_it_has_a_configuration(
    retries_failed: bool, has_values: bool, tmp_path: Path
) -> None:
    known = plan_of(("seed=0",))
    end(tmp_path, known, "failed")
    (entry,) = known.entries
    launcher = PlannedLauncher()
    launcher._folder = tmp_path
    launcher._session = SimpleNamespace(retries_failed=bool(retries_failed))  # type: ignore[assignment]
    asked = entry if has_values else dataclasses.replace(entry, choices=None, values=None)
    assert launcher._must_run(asked) == (retries_failed and has_values)


def test_where_no_job_of_a_killed_process_has_written_each_is_tried_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = plan_of(("seed=0",), ("seed=1",), ("seed=2",))
    tried: list[list[int]] = []
    given_up: list[int] = []

    def hand_on(entries: Sequence[plan.Entry]) -> Sequence[JobReturn]:
        tried.append([entry.job for entry in entries])
        if any(entry.job == 1 for entry in entries):
            raise BrokenExecutor("killed")
        return [JobReturn() for _ in entries]

    launcher = PlannedLauncher()
    launcher._folder = tmp_path
    monkeypatch.setattr(launcher, "_hand_on", hand_on)
    monkeypatch.setattr(launcher, "_give_up", lambda entry, _: given_up.append(entry.job))
    done: dict[int, JobReturn] = {}
    assert launcher._launch_once(list(known.entries), done) == []
    assert tried == [[0, 1, 2], [0], [1], [2]]
    assert (given_up, set(done)) == ([1], {0, 2})
