"""docs/diagnosis.md: its rules are those of the source, and its rates count what was judged.

Holds: docs/diagnosis.md, scripts/zoo/judging.py, scripts/zoo/page.py, scripts/zoo/reasons.py,
scripts/zoo/running.py
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from zoo import judging, page, reasons, running
from zoo.judging import Judged
from zoo.presets import read_presets
from zoo.running import LOOP, PRESET, Job

from vgexp.diagnosis import CAUSE_RULES

SICK = ("rate_too_large", "dead_units")


def judged(
    truth: tuple[str, ...] = SICK, cause: str | None = None, *, learned: bool = False, **job: Any
) -> Judged:
    given = {"name": "some", "half": "held", "seed": 0, "cured": False} | job
    made = Job(PRESET, truth=truth, **given)
    health = "healthy" if cause is None else "sick"
    return Judged(made, learned, health, cause, (cause or "",), {"peer": ["alarm"]})


def test_the_rules_of_the_page_are_those_of_the_source() -> None:
    text = page.PAGE.read_text(encoding="utf-8")
    assert text.partition(page.MEASURED)[0] == page.make_rules(), "run PYTHONPATH=scripts make zoo"
    assert all(f"[{id}](explain.md#{id})" in text for id in CAUSE_RULES)


def test_a_reason_is_given_for_what_is_in_the_zoo_alone() -> None:
    loops = {name for _, name, _, _ in running._loops()}
    assert {*reasons.REASONS} <= {*read_presets()} | loops


def test_rates_count_detected_right_and_false_alarms() -> None:
    some = [
        judged(cause="dead_units"),
        judged(cause="underflow"),
        judged(),
        judged((), "unknown", learned=True),
        judged((), learned=True),
        judged((), learned=True, half="tune"),
        judged(cause="underflow", learned=True, cured=True),
        judged(learned=True, cured=True),
    ]
    text = page.make_measured(some)
    assert (
        "| `held` | 2 of 3 (67%) | 1 of 3 (33%) | 1 of 3 (33%) | 1 of 2 (50%) | 1 of 2 (50%) |"
        in text
    )
    assert "| `tune` | 0 of 0 | 0 of 0 | 0 of 0 | 0 of 1 (0%) | 0 of 0 |" in text
    assert "| peer | 3 of 3 | 2 of 2 | 0 of 3 |  |\n| vgexp | 2 of 3 | 1 of 2 | 1 of 3 |" in text


@pytest.mark.parametrize(
    ("truth", "cause", "column"),
    [
        (SICK, "dead_units", 0),
        (SICK, "underflow", 1),
        (SICK, None, 2),
        ((), None, 3),
        ((), "underflow", 4),
    ],
)
def test_what_a_check_says_before_training_is_counted(
    truth: tuple[str, ...], cause: str | None, column: int
) -> None:
    said = {"health": "healthy" if cause is None else "sick", "cause": cause}
    counted = page._checks([replace(judged(truth), check=said), judged(truth)])
    counts = [str(int(place == column)) for place in range(5)]
    assert f"| `held` | {' | '.join(counts)} |" in counted.splitlines()


def test_the_matrix_has_a_row_for_each_truth_and_marks_what_is_right() -> None:
    some = [judged(cause="dead_units"), judged(cause="underflow"), judged((), learned=True)]
    matrix = page._matrix(some)
    row = "| rate_too_large or dead_units | 2 | **dead_units 1**, underflow 1 |"
    assert matrix.splitlines()[2:] == ["| healthy | 1 | **healthy 1** |", row]


@pytest.mark.parametrize(
    ("truth", "cured", "learned", "words"),
    [
        (SICK, False, True, "it learns"),
        (SICK, False, False, None),
        (SICK, True, False, "the cured twin does not learn"),
        (SICK, True, True, None),
        ((), False, False, "it does not learn"),
        ((), False, True, None),
    ],
)
def test_a_label_that_the_outcome_contradicts_is_listed(
    truth: tuple[str, ...], cured: bool, learned: bool, words: str | None
) -> None:
    job = Job(PRESET, "some", "held", truth, 2, cured)
    found = judging.list_unconfirmed([Judged(job, learned, "sick", "unknown", (), {})])
    assert found == ([] if words is None else [f"some seed 2: {words}"])


def test_what_has_ended_is_not_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "RUNS", tmp_path)
    preset, loop = (
        Job(PRESET, "still_mlp", "tune", ("no_update",), 1),
        Job(LOOP, "a", "held", (), 0),
    )
    assert not preset.has_ended
    assert not loop.has_ended
    preset.place.mkdir(parents=True)
    (preset.place / "summary.json").write_text("{}", encoding="utf-8")
    loop.place.parent.mkdir(parents=True)
    for rules, ended in ((running.hash_of_rules(), True), ("those of last year", False)):
        loop.place.write_text(json.dumps({"rules": rules}), encoding="utf-8")
        assert loop.has_ended is ended
    assert preset.has_ended


def test_a_cured_twin_has_its_cure_and_a_folder_of_its_own() -> None:
    sick, cured = (Job(PRESET, "still_mlp", "tune", ("no_update",), 1, each) for each in (0, 1))
    assert sick.place != cured.place
    assert {*running.words_of(cured)} - {*running.words_of(sick)} == {
        "optimizer.lr=0.1",
        f"hydra.run.dir={cured.place}",
    }


def test_jobs_are_every_seed_of_a_half_and_cured_twins_of_the_sick() -> None:
    jobs = running.list_jobs((0, 5), ("tune",), (PRESET,))
    presets = [each for each in read_presets().values() if each.half == "tune"]
    assert len(jobs) == 2 * (len(presets) + sum(each.is_sick for each in presets))
    assert {job.half for job in jobs} == {"tune"}
