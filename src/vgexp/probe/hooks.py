"""Hooks on modules and tensors that never raise an error in the user's training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Note = Callable[[int | None, str], None]
"""A function of a row (None: the model) and the reason why it could not be measured."""


class Hook:
    """A hook that notes its errors instead of raising them, and is not copied with the model."""

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

    def note_refusal(self, error: Exception) -> None:
        """Notes that the hook could not be set."""
        self._note(self._row, f"it takes no hook: {type(error).__name__}: {error}")

    def __deepcopy__(self, memo: object) -> Callable[..., None]:
        return ignore

    def __reduce__(self) -> tuple[Callable[[], Callable[..., None]], tuple[()]]:
        return _return_ignore, ()


def ignore(*_: Any) -> None:
    """Does nothing; it takes the place of a hook in a copied or saved model."""


def _return_ignore() -> Callable[..., None]:
    return ignore
