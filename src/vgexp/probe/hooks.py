"""A hook that never breaks the user's training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Note = Callable[[int | None, str], None]
"""Takes a row (None: the model) and what could not be measured of it."""


class Hook:
    """A hook that never breaks the user's training, and that no copy of the model takes along."""

    __slots__ = ("_do", "_note", "_row")

    def __init__(self, note: Note, row: int | None, do: Callable[..., None]) -> None:
        self._note = note
        self._row = row
        self._do = do

    def __call__(self, *arguments: Any) -> None:
        try:
            self._do(*arguments)
        except Exception as error:
            self._note(self._row, f"measuring it raised {type(error).__name__}: {error}")

    def refused(self, error: Exception) -> None:
        """Notes that the hook could not be set."""
        self._note(self._row, f"it takes no hook: {type(error).__name__}: {error}")

    def __deepcopy__(self, memo: object) -> Callable[..., None]:
        return ignore

    def __reduce__(self) -> tuple[Callable[[], Callable[..., None]], tuple[()]]:
        return _ignoring, ()


def ignore(*_: Any) -> None:
    """What stands for a hook in a copied or saved model."""


def _ignoring() -> Callable[..., None]:
    return ignore
