"""Whether a loss says that a network learned, lost it, or had too few steps to tell.

Holds: diagnosis/learning.py
"""

import math

import numpy as np
import pandas as pd
import pytest
from layer_tables import steps_of

from vgexp.diagnosis import has_learned, learning_of
from vgexp.diagnosis.learning import (
    ENOUGH_STEPS,
    falls_and_rises,
    is_below_guess,
    still_falls,
)


@pytest.mark.parametrize("num_steps", [1, 5, 19, 20, 21, 200])
def test_learning_is_the_best_mean_over_twenty_steps_below_nine_tenths(num_steps: int) -> None:
    low, high = 0.89, 0.91
    assert has_learned(steps_of([low] * num_steps), 1.0)
    assert not has_learned(steps_of([high] * num_steps), 1.0)


@pytest.mark.parametrize("seed", range(3))
def test_learning_is_what_plain_python_over_windows_says(seed: int) -> None:
    losses = np.random.default_rng(seed).uniform(0.5, 1.5, 60).tolist()
    means = [math.fsum(losses[i : i + 20]) / 20 for i in range(41)]
    for constant in (min(means) / 0.9 * 0.999, min(means) / 0.9 * 1.001):
        found = learning_of(steps_of(losses), constant)
        below = [i for i, mean in enumerate(means) if mean < 0.9 * constant]
        assert (found.learned, found.keeps) == (bool(below), below[-1:] == [40])
        is_lost = below and below[-1] != 40
        assert found.relapse_step == (below[-1] + 19 if is_lost else None)


def test_a_short_dip_is_not_learning_and_a_huge_loss_before_does_not_hide_it() -> None:
    assert not has_learned(steps_of([1.0] * 30 + [0.5] * 3 + [1.0] * 30), 1.0)
    assert has_learned(steps_of([1e30] * 3 + [math.inf, math.nan] + [0.5] * 20), 1.0)
    assert not has_learned(steps_of([]), 1.0)
    assert not has_learned(steps_of([math.nan] * 30), 1.0)


@pytest.mark.parametrize(("last", "keeps"), [(0.89, True), (0.91, False)])
def test_what_was_learned_is_kept_if_the_last_mean_is_below_too(last: float, keeps: bool) -> None:
    found = learning_of(steps_of([1.0] * 20 + [0.5] * 30 + [last] * 20), 1.0)
    assert (found.learned, found.keeps) == (True, keeps)
    losses = pd.Series([1.0] * 20 + [0.5] * 30 + [last] * 20)
    below = losses.rolling(20).mean() < 0.9
    assert found.relapse_step == (None if keeps else int(np.flatnonzero(below)[-1]))


def test_the_step_of_a_relapse_is_that_of_the_table_though_it_begins_later() -> None:
    steps = steps_of([0.5] * 30 + [1.0] * 30)
    first = learning_of(steps, 1.0).relapse_step
    assert first is not None
    assert learning_of(steps.assign(step=steps["step"] + 100), 1.0).relapse_step == first + 100


def test_nobody_knows_without_a_guess_whether_it_learned() -> None:
    found = learning_of(steps_of([1.0] * 200), math.nan)
    assert (found.learned, found.keeps, found.relapse_step) == (None, None, None)


@pytest.mark.parametrize(("num_steps", "is_short"), [(1, True), (99, True), (100, False)])
def test_fewer_than_a_hundred_steps_are_too_few(num_steps: int, is_short: bool) -> None:
    assert ENOUGH_STEPS == 100
    assert learning_of(steps_of([1.0] * num_steps), 1.0).is_short is is_short


def falling(total: float, scatter: float = 0.0, num_steps: int = 400, seed: int = 0) -> pd.Series:
    """Losses that fall in a line from 3 by this much, with normal noise about it."""
    noise = np.random.default_rng(seed).normal(0.0, scatter, num_steps) if scatter else 0.0
    return pd.Series(np.linspace(3.0, 3.0 - total, num_steps) + noise)


def test_a_quarter_has_to_bring_more_than_one_percent_of_a_guess() -> None:
    # From the middle of one quarter to that of the next it is a quarter of the fall.
    assert still_falls(falling(0.082), 2.0)
    assert not still_falls(falling(0.078), 2.0)
    assert learning_of(steps_of(falling(0.082)), 2.0).is_short
    assert not still_falls(falling(-0.5), 2.0), "it rises"
    assert not still_falls(falling(0.0), 0.0), "a constant loss does not fall"


@pytest.mark.parametrize("seed", range(20))
def test_the_scatter_of_batches_is_no_fall_and_hides_none_that_is_larger(seed: int) -> None:
    assert not still_falls(falling(0.0, scatter=0.3, seed=seed), 2.0)
    assert still_falls(falling(2.0, scatter=0.3, seed=seed), 2.0)


def test_a_fall_at_the_beginning_is_over_at_the_end() -> None:
    losses = np.concatenate([np.linspace(100.0, 2.3, 200), np.full(200, 2.3)])
    assert not still_falls(pd.Series(losses), 2.3)
    assert still_falls(pd.Series(losses[:200]), 2.3)


def test_single_spikes_make_no_fall_and_hide_none() -> None:
    losses = falling(0.0)
    losses[220:300:20] = 1e6
    assert not still_falls(losses, 2.0)
    losses = falling(0.5)
    losses[320:400:20] = 1e6
    assert still_falls(losses, 2.0)


def test_losses_too_few_or_not_finite_do_not_fall() -> None:
    assert not still_falls(pd.Series([9.0, 8.0, 7.0, 6.0, 5.0, 4.0, 3.0]), 2.0)
    assert still_falls(pd.Series([9.0, 9.0, 9.0, 9.0, 9.0, 9.0, 3.0, 3.0]), 2.0)
    assert not still_falls(pd.Series([9.0] * 6 + [math.inf, 3.0]), 2.0)
    assert not still_falls(pd.Series([], dtype="float64"), 2.0)


def test_where_no_guess_is_known_the_loss_itself_is_the_scale() -> None:
    assert still_falls(falling(0.2), math.nan)
    assert not still_falls(falling(0.1), math.nan)


@pytest.mark.parametrize(
    ("gap", "scatter", "num_steps", "is_below"),
    [
        (0.2, 0.06, 400, True),  # of a guess of 2.3: labels of which most are noise
        (0.2, 0.06, 90, False),
        (0.2, 1.0, 400, False),
        (0.015, 0.001, 400, False),  # less than 1 %
        (0.0, 0.06, 400, False),
        (-0.2, 0.06, 400, False),
    ],
)
def test_below_a_guess_is_what_the_mean_of_a_quarter_is_by_more_than_its_scatter(
    gap: float, scatter: float, num_steps: int, is_below: bool
) -> None:
    noise = np.random.default_rng(0).normal(0.0, scatter, num_steps)
    losses = np.where(np.arange(num_steps) < 30, 2.4, 2.3 - gap) + noise
    assert is_below_guess(pd.Series(losses), 2.3) is is_below
    assert not is_below_guess(pd.Series(losses), math.nan)


@pytest.mark.parametrize("seed", range(20))
def test_the_luckiest_window_is_no_fall_and_rise(seed: int) -> None:
    noise = np.random.default_rng(seed).normal(0.0, 0.1, 1000)
    level = np.where(np.arange(1000) < 50, 2.0, 1.0)
    assert not falls_and_rises(pd.Series(level + noise))
    assert falls_and_rises(pd.Series(np.where(np.arange(1000) > 900, 1.3, level) + noise))
    assert not falls_and_rises(pd.Series(np.where(np.arange(1000) > 900, 1.3, 1.0) + noise)), (
        "it never fell"
    )


def test_an_end_that_is_not_finite_is_a_rise() -> None:
    assert falls_and_rises(pd.Series([2.0] * 20 + [1.0] * 40 + [math.nan] * 20))
    assert falls_and_rises(pd.Series([2.0] * 20 + [1.0] * 40 + [2.0] * 20))
    assert not falls_and_rises(pd.Series([2.0] * 20 + [1.0] * 40))
    assert not falls_and_rises(pd.Series([], dtype="float64"))
