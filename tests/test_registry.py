"""Entries by name: what is found, what an unknown name is told, and the line of an entry.

Holds: registry.py
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from vgexp.errors import QuestionError
from vgexp.registry import Registry


class Named:
    summary = "Says its own line."


def first() -> None:
    """Does the first thing,
    over two lines.

    Args: none.
    """


def second() -> None:
    pass


def of_user(name: str) -> Callable[[], None]:
    assert name == "mine.second"
    return second


def test_an_entry_is_told_by_its_own_summary_or_the_first_paragraph_of_its_docstring() -> None:
    registry = Registry("thing", {"named": Named, "first": first, "second": second})
    assert [registry.summary(name) for name in registry] == [
        "Says its own line.",
        "Does the first thing, over two lines.",
        "",
    ]


def test_only_a_registry_that_takes_code_of_the_user_looks_up_a_name_with_a_dot() -> None:
    closed, opened = Registry("thing", {"first": first}), Registry("thing", {}, of_user)
    assert opened["mine.second"] is second
    assert "mine.second" not in opened
    with pytest.raises(QuestionError) as refused:
        closed["mine.second"]
    assert "package.module.name" not in str(refused.value)
    with pytest.raises(QuestionError, match=r"or your own: package\.module\.name"):
        opened["second"]


def test_an_unknown_name_is_told_the_nearest_and_an_entry_is_never_replaced() -> None:
    registry = Registry("thing", {"first": first})
    with pytest.raises(QuestionError, match=r"(?s)unknown thing: 'frist'.*nearest: first"):
        registry["frist"]
    registry.add("second", second)
    assert list(registry) == ["first", "second"]
    with pytest.raises(AssertionError, match="thing second is there already"):
        registry.add("second", first)
    assert registry["second"] is second
