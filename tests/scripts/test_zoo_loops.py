"""The zoo's loops: what is true of each is a known cause, and two sets say their sources.

Nothing is trained: that the labels hold is what `python -m zoo --outcomes` says.

Holds: scripts/zoo/loops
"""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import nn
from zoo import running
from zoo.loops import FAULTS, FORUMS, LOOPS, REPORTS, Loop
from zoo.loops.loop import HEALTHY, Goal, Parts, loops_of, measure, usual_step
from zoo.presets import SETS
from zoo.running import LOOP

from vgexp.diagnosis import CAUSES

OF_REPORTS = {name: loop for name, loop in LOOPS.items() if loop.half == REPORTS}
OF_FAULTS = {name: loop for name, loop in LOOPS.items() if loop.half == FAULTS}
A_CATALOGUE = re.compile(
    r"Humbatova et al\.|Islam et al\.|Zhang et al\.|DeepCrime|defects4ML|UMLAUT|NeuraLint"
    r"|AUTOTRAINER|DeepLocalize|DeepDiagnosis"
)
"""What an account of a planted fault contains: the catalogue that has it."""
OF_FORUMS = {name: loop for name, loop in LOOPS.items() if loop.half == FORUMS}
A_SOURCE = re.compile(
    r"GitHub (project )?[\w./-]+, (issues?|pull request|as the benchmark) |Stack Overflow[ ,]"
    r"|discuss\.pytorch\.org/t/\d+|datascience\.stackexchange\.com/questions/\d+|After the kind of "
)
"""What an account of a report contains: where it is, or that no single page is meant."""


def truths(loop: Loop) -> tuple[str, ...]:
    return (loop.truth,) if isinstance(loop.truth, str) else loop.truth


@pytest.mark.parametrize("name", LOOPS)
def test_a_loop_is_of_a_known_set_and_its_causes_are_known(name: str) -> None:
    loop = LOOPS[name]
    assert loop.half in SETS
    assert len(set(truths(loop))) == len(truths(loop))
    if loop.is_sick:
        assert all(CAUSES[cause].group != "notes" for cause in truths(loop))


@pytest.mark.parametrize("name", [*OF_REPORTS, *OF_FORUMS])
def test_a_loop_after_a_report_says_which(name: str) -> None:
    assert name.startswith({REPORTS: "report_", FORUMS: "forum_"}[LOOPS[name].half])
    first, _, rest = LOOPS[name].about.partition("\n\n")
    assert first.endswith(".")
    assert A_SOURCE.search(rest.replace("\n", " "))


@pytest.mark.parametrize("name", OF_FAULTS)
def test_a_planted_fault_says_its_catalogue(name: str) -> None:
    loop = OF_FAULTS[name]
    assert name.startswith("faults_")
    first, _, rest = loop.about.partition("\n\n")
    assert first.endswith(".")
    assert A_CATALOGUE.search(rest) or not loop.is_sick


@pytest.mark.parametrize(
    ("loops", "least_sick"), [(OF_REPORTS, 45), (OF_FORUMS, 40)], ids=[REPORTS, FORUMS]
)
def test_reports_are_enough_of_each_health_and_of_most_causes(
    loops: dict[str, Loop], least_sick: int
) -> None:
    sick = [loop for loop in loops.values() if loop.is_sick]
    assert len(sick) >= least_sick
    assert len(loops) - len(sick) >= 15
    groups = {CAUSES[cause].group for loop in sick for cause in {*truths(loop)} - {"unknown"}}
    named = {cause.group for id, cause in CAUSES.items() if id != "unknown"} - {"notes"}
    assert groups == named


def test_jobs_of_reports_are_a_training_each_and_a_cured_twin_of_the_sick() -> None:
    jobs = running.list_jobs((0, 1), (REPORTS,), (LOOP,))
    num_sick = sum(loop.is_sick for loop in OF_REPORTS.values())
    assert len(jobs) == 2 * (len(OF_REPORTS) + num_sick)
    assert {job.name for job in jobs} == set(OF_REPORTS)
    assert {job.name for job in jobs if job.cured} == {
        name for name, loop in OF_REPORTS.items() if loop.is_sick
    }


def _few(cured: bool) -> Parts:
    """One weight.

    After the kind of nothing.
    """
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5 if cured else 0.0)
    batches = [(torch.ones(1, 1), torch.ones(1, 1))] * 3

    def score(model: Any) -> float:
        return float(model.weight)

    return Parts(model, optimizer, nn.MSELoss(), batches, Goal(score, 0.9))


@pytest.mark.parametrize(("cured", "last"), [(False, 0.0), (True, 1.0)])
def test_the_score_says_whether_a_loop_learned(cured: bool, last: float) -> None:
    parts = _few(cured)
    assert measure(parts) == 0.0
    for batch in parts.batches:
        usual_step(parts.model, parts.optimizer, parts.loss, batch)
    assert measure(parts) == last
    assert parts.goal.is_reached(last) is cured


def test_a_loop_keeps_what_its_maker_says_of_it() -> None:
    (loop,) = loops_of(REPORTS, [("report_few", HEALTHY, _few)])
    assert loop.about == "One weight.\n\nAfter the kind of nothing."
    assert not loop.is_sick
