"""A file's text, and what is wrong with a file, as questions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vgexp import files
from vgexp.errors import QuestionError

MOST_LINE = 2**20
"""Characters of a line of a table: what is longer is no table, and is not read to its end."""


def text_of(path: Path, most_bytes: int) -> str:
    """The whole text of a file."""
    with readable(path):
        return files.read(path, most_bytes).decode("utf-8")


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Errors of reading a file as questions."""
    try:
        yield
    except UnicodeDecodeError:
        raise broken(path, "is not text") from None
    except OSError as error:
        raise QuestionError(f"cannot read {path}: {error.strerror}") from None


def broken(path: Path, problem: str) -> QuestionError:
    """The error for a file that holds something else than it should."""
    return QuestionError(f"{path} {problem}")
