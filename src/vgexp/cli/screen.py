"""Where tables and sentences go: standard output, as wide as it is."""

from __future__ import annotations

from typing import NoReturn, final

from rich.console import Console

WIDEST = 500
"""Columns at the most, whatever `COLUMNS` says: no screen is wider, and no line is readable."""


@final
class Screen(Console):
    """A console whose reader may leave early (`| head`) without the work counting as failed."""

    def __init__(self) -> None:
        super().__init__(highlight=False)
        self.width = min(self.width, WIDEST)

    def on_broken_pipe(self) -> NoReturn:
        """Rich would leave the process with code 1."""
        raise BrokenPipeError
