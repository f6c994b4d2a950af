"""Reads the text of a file; what is wrong with it becomes a `QuestionError`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vgexp import files
from vgexp.errors import QuestionError

MOST_LINE = 2**20
"""Characters of a line of a table: what is longer is no table, and is not read to its end."""


def text_of(path: Path, most_bytes: int) -> str:
    """Reads the whole text of a file."""
    with readable(path):
        return files.read(path, most_bytes).decode("utf-8")


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turns errors of reading a file into a `QuestionError`."""
    try:
        yield
    except UnicodeDecodeError:
        raise broken(path, "is not text") from None
    except OSError as error:
        raise QuestionError(f"cannot read {path}: {error.strerror}") from None


def broken(path: Path, problem: str) -> QuestionError:
    """Makes the error for a file that does not hold what it should."""
    return QuestionError(f"{path} {problem}")
