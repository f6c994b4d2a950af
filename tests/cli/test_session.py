"""What one command line knows of itself, and the errors that end all of it.

Holds: cli/session.py
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from vgexp.cli.session import (
    Refused,
    Session,
    call_or_refuse,
    current_session,
    open_session,
)
from vgexp.errors import QuestionError


@pytest.mark.parametrize("error", [None, KeyboardInterrupt])
def test_a_session_is_the_current_one_until_its_command_ends(
    error: type[BaseException] | None,
) -> None:
    outer, inner = Session(command=("train",)), Session(command=("signal",))
    with open_session(outer):
        try:
            with open_session(inner):
                assert current_session() is inner
                if error is not None:
                    raise error
        except KeyboardInterrupt:
            pass
        assert current_session() is outer
    assert current_session().command == ()


def _refuse() -> None:
    raise QuestionError("no such key")


def _cannot_write() -> None:
    raise PermissionError(13, "Permission denied", "/closed/plan.json")


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (_refuse, "no such key"),
        (_cannot_write, "cannot write /closed/plan.json: Permission denied"),
    ],
)
def test_what_is_refused_ends_the_whole_command(ask: Callable[[], None], said: str) -> None:
    with pytest.raises(Refused) as refused:
        call_or_refuse(ask)
    assert isinstance(refused.value.error, QuestionError)
    assert str(refused.value.error).splitlines()[0] == said


def test_what_is_not_refused_is_handed_on(tmp_path: Path) -> None:
    assert call_or_refuse(lambda: tmp_path) is tmp_path
    with pytest.raises(ZeroDivisionError):
        call_or_refuse(lambda: 1 // 0)
