"""Since when two runs part.

Holds: diagnosis/parting.py
"""

from __future__ import annotations

import math

from layer_tables import steps_of

from vgexp.diagnosis.parting import find_parting


def test_runs_part_where_their_mean_losses_are_a_tenth_apart() -> None:
    good = steps_of([2.0] * 30 + [1.0] * 30)
    found = find_parting(steps_of([2.0] * 60), good)
    assert found is not None
    # Four of 20 losses are 1 then: the mean is 1.8, and 2 is a tenth above.
    assert (found.step, found.here, found.baseline) == (33, 2.0, 1.8)


def test_runs_that_are_alike_do_not_part() -> None:
    assert find_parting(steps_of([2.0] * 40), steps_of([1.9] * 40)) is None
    assert find_parting(steps_of([]), steps_of([1.0])) is None


def test_a_loss_that_is_not_finite_parts() -> None:
    found = find_parting(steps_of([2.0] * 25 + [math.nan] * 5), steps_of([2.0] * 30))
    assert found is not None
    assert found.step == 25
