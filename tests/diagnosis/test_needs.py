"""Why a rule was not checked: in words, and no name of a metric where a reader knows none.

Holds: diagnosis/needs.py
"""

from __future__ import annotations

import pytest

from vgexp.diagnosis import CAUSE_RULES
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
