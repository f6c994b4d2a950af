"""Why a rule was not checked: in words, and no name of a metric where a reader knows none.

Holds: diagnosis/needs.py
"""

from __future__ import annotations

import pytest
from layer_tables import steps_of
from test_cause_rules import loss, of

from vgexp.diagnosis import CAUSE_RULES, conclude
from vgexp.diagnosis.needs import say_lacking


@pytest.mark.parametrize("is_trained_here", [True, False])
def test_no_rule_names_a_metric_as_what_it_needs(is_trained_here: bool) -> None:
    for rule in CAUSE_RULES.values():
        for need in rule.needs:
            said = say_lacking([need], is_trained_here=is_trained_here)
            assert need.endswith(".csv") or not said.startswith("needs"), (rule.id, said)


def test_of_a_loss_of_vgexps_own_no_probe_is_asked_for() -> None:
    assert "watch_loss" in say_lacking(["loss.csv"], is_trained_here=False)
    assert "vgexp's own" in say_lacking(["loss.csv"], is_trained_here=True)


def test_missing_tables_are_named() -> None:
    said = say_lacking(["steps.csv", "layers.csv", "dtype"], is_trained_here=True)
    assert said == "needs steps.csv, layers.csv"
    assert say_lacking([], is_trained_here=True) == ""


@pytest.mark.parametrize(
    ("cause", "needed"),
    [("rate_too_small", 100), ("labels_unlearnable", 100), ("clip_throttles", 25)],
)
def test_a_rule_that_too_few_steps_silence_is_not_checked(cause: str, needed: int) -> None:
    enough, few = (of(steps=steps_of([2.3] * num)) for num in (needed, needed - 1))
    assert CAUSE_RULES[cause].reason_unchecked(enough) is None
    assert CAUSE_RULES[cause].reason_unchecked(few) == f"needs {needed} steps"
    diagnosis = conclude(few)
    assert diagnosis.unchecked[cause] == f"needs {needed} steps"
    assert cause not in diagnosis.checked


def test_the_hessian_tells_of_a_flat_landscape_in_few_steps() -> None:
    rule, table = CAUSE_RULES["flat_landscape"], loss()
    steps = steps_of([2.3] * 30)
    by_loss = of(steps=steps, loss=table)
    assert rule.reason_unchecked(by_loss) == "needs 100 steps"
    by_curvature = of(steps=steps, loss=table, extra={"curvature_over_limit_max": 1e-4})
    assert rule.reason_unchecked(by_curvature) is None
    assert rule(by_curvature) is not None
