"""The table of causes, and which follows from which.

Holds: diagnosis/causes.py
"""

from __future__ import annotations

import pytest

from vgexp.diagnosis.causes import CAUSES, explains, list_groups
from vgexp.errors import QuestionError


def test_what_a_cause_explains_is_a_cause_that_is_no_note_but_overfitting() -> None:
    for cause in CAUSES.values():
        for following in cause.explains:
            assert not CAUSES[following].is_note or following == "overfitting"
            assert following != cause.id


def test_groups_hold_every_cause_once() -> None:
    listed = [cause.id for _, causes in list_groups() for cause in causes]

    assert listed == list(CAUSES)


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("rate_too_large", "dead_units", True),
        ("rate_too_large", "rate_too_small", True),  # by way of dead units
        ("dead_units", "rate_too_large", False),
        ("unknown", "dead_units", False),
    ],
)
def test_what_follows_from_what(one: str, other: str, expected: bool) -> None:
    assert explains(one, other) is expected


def test_an_unknown_cause_names_the_nearest() -> None:
    with pytest.raises(QuestionError, match="nearest: dead_units"):
        CAUSES["dead_unit"]
