"""Collects what is missing or damaged of a run folder, while its parts are read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from vgexp.errors import QuestionError

T = TypeVar("T")


class Problems:
    """The problems of one run folder, by file, in the order in which they were found."""

    def __init__(self, folder: Path, is_strict: bool) -> None:
        """Knows of none yet.

        Args:
            is_strict: whether what cannot be read is an error.
        """
        self._folder = folder
        self._is_strict = is_strict
        self._found: dict[str, list[str]] = {}
        self._lost: list[str] = []

    @property
    def told(self) -> list[str]:
        """All problems, a sentence for each."""
        return [words for found in self._found.values() for words in found]

    def of(self, file: str) -> list[str]:
        """Those of one file."""
        return self._found.get(file, [])

    @property
    def lost(self) -> list[str]:
        """The files that are missing, or cannot be read at all."""
        return list(dict.fromkeys(self._lost))

    def try_to_read(self, file: str, read: Callable[[], T]) -> T | None:
        """Reads something; where it cannot be read, notes why and returns None.

        Raises:
            QuestionError: it cannot be read, and that is an error.
        """
        try:
            return read()
        except QuestionError as error:
            if self._is_strict:
                raise
            self.note(file, self.words_of(error), is_lost=True)
            return None

    def note(self, file: str, words: str, *, is_lost: bool = False) -> None:
        """Adds a problem of a file, once.

        Args:
            is_lost: whether nothing of the file can be read.
        """
        if is_lost:
            self._lost.append(file)
        known = self._found.setdefault(file, [])
        if words not in known:
            known.append(words)

    def words_of(self, error: QuestionError) -> str:
        """Writes an error in one line, without the folder's name."""
        return "; ".join(str(error).replace(f"{self._folder}/", "").splitlines())
