"""The plan of a sweep: which number and which folder a new job gets.

Holds: sweep/plan.py
"""

from __future__ import annotations

from collections import Counter

import pytest

from vgexp.config import Config
from vgexp.errors import QuestionError
from vgexp.sweep import plan


def wanted(seed: int) -> plan.Wanted:
    return plan.Wanted((f"seed={seed}",), Config(seed=seed))


def extended(known: plan.Plan, *seeds: int, folder: str = "{}") -> plan.Plan:
    return plan.extend(
        known, [wanted(seed) for seed in seeds], Counter(), lambda _, n: folder.format(n)
    )[0]


def test_a_new_job_is_numbered_after_the_last_one_though_some_before_it_are_gone() -> None:
    whole = extended(plan.Plan(), 1, 2, 3)
    left = plan.Plan(tuple(entry for entry in whole.entries if entry.job != 1))
    assert [entry.job for entry in extended(left, 1, 2, 3, 4).entries] == [0, 2, 3, 4]


def test_the_same_job_wanted_twice_is_two_jobs_and_known_again_as_the_same_two() -> None:
    twice = extended(plan.Plan(), 1, 1)
    assert [entry.job for entry in twice.entries] == [0, 1]
    assert extended(twice, 1, 1) == twice


@pytest.mark.parametrize(
    "folder",
    ["../{}", "/tmp/{}", "a/../{}", ".", "a/${{seed}}/{}", "a\0{}", "é" * 128, "a/" + "b" * 256],
)
def test_a_folder_that_is_not_below_the_sweeps_as_it_is_spelled_is_refused(folder: str) -> None:
    with pytest.raises(QuestionError, match=r"hydra\.sweep\.subdir is"):
        extended(plan.Plan(), 1, folder=folder)


@pytest.mark.parametrize("folder", ["a/b{}", "..{}", "$a{}", "é" * 127, "b" * 255])
def test_a_folder_below_the_sweeps_is_taken_as_it_is_spelled(folder: str) -> None:
    (entry,) = extended(plan.Plan(), 1, folder=folder).entries
    assert entry.folder == folder.format(0)


def test_two_jobs_in_one_folder_are_refused() -> None:
    with pytest.raises(QuestionError, match="jobs 0 and 1 would share the folder 'a'"):
        extended(plan.Plan(), 1, 2, folder="a")
