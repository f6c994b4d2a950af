"""What the parts of one command line that Hydra calls on its own have to know of each other."""

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
    """A sweep, if the command line is one."""

    command: tuple[str, ...] = ()
    """Words after `vgexp`."""
    replays: bool = False
    """Whether the jobs come from the plan, not from what was typed."""
    retries_failed: bool = False
    folder: Path | None = None
    """The sweep's; None: none has begun."""
    plan: Plan = field(default_factory=Plan)
    """As it was when the sweep began."""
    launcher: Any = None
    """Hydra's settings of the launcher that was chosen."""


_session: ContextVar[Session] = ContextVar("_session")


class Refused(BaseException):
    """An error that Hydra must not take for a warning or a failed job, as it does exceptions."""

    def __init__(self, error: QuestionError | LostError) -> None:
        super().__init__(error)  # its arguments, by which another process sends it to this one
        self.error = error


@contextmanager
def session(opened: Session) -> Iterator[Session]:
    """The session of what is done within."""
    token = _session.set(opened)
    try:
        yield opened
    finally:
        _session.reset(token)


def current() -> Session:
    """The session at hand; a new one where nothing opened one."""
    return _session.get(Session())


def answered(ask: Callable[[], T]) -> T:
    """What `ask` returns; its `QuestionError`, and what the disk refuses, as `Refused`."""
    try:
        return ask()
    except QuestionError as error:
        raise Refused(error) from None
    except OSError as error:
        refused = f"cannot write {error.filename}: {error.strerror}"
        raise Refused(QuestionError(f"{refused}\nallowed: a folder that can be written")) from None
