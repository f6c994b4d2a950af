"""The state of one command line, shared by the callback, the launcher and the sweeper."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from vgexp.errors import LostError, QuestionError
from vgexp.sweep.plan import Plan

T = TypeVar("T")


@dataclass
class Session:
    """The state of a command line; of a sweep, its folder and plan."""

    command: tuple[str, ...] = ()
    """The words after `vgexp`."""
    replays: bool = False
    """Whether the jobs come from the plan and not from the command line."""
    retries_failed: bool = False
    folder: Path | None = None
    """The sweep's folder; None: no sweep has begun."""
    plan: Plan = field(default_factory=Plan)
    """The plan when the sweep began."""
    launcher: Any = None
    """Hydra's settings of the launcher that the user chose."""


_session: ContextVar[Session] = ContextVar("_session")


class Refused(BaseException):
    """An error that ends the whole command. Hydra makes warnings or failed jobs of exceptions."""

    def __init__(self, error: QuestionError | LostError) -> None:
        super().__init__(error)  # its arguments, by which another process sends it to this one
        self.error = error


@contextmanager
def open_session(opened: Session) -> Iterator[Session]:
    """Within, makes a session the current one."""
    token = _session.set(opened)
    try:
        yield opened
    finally:
        _session.reset(token)


def current_session() -> Session:
    """The current session; a new one where none was opened."""
    return _session.get(Session())


def call_or_refuse(ask: Callable[[], T]) -> T:
    """Calls a function. Raises `Refused` for its `QuestionError` and its `OSError`."""
    try:
        return ask()
    except QuestionError as error:
        raise Refused(error) from None
    except OSError as error:
        refused = f"cannot write {error.filename}: {error.strerror}"
        raise Refused(QuestionError(f"{refused}\nallowed: a folder that can be written")) from None
