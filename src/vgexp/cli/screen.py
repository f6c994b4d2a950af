"""The console on standard output that tables and sentences are printed to."""

from __future__ import annotations

from typing import NoReturn, final

from rich.console import Console

WIDEST = 500
"""The most columns, whatever `COLUMNS` says. No screen is wider."""


@final
class Screen(Console):
    """A console whose reader may stop reading (`| head`), which is no failure."""

    def __init__(self) -> None:
        super().__init__(highlight=False)
        self.width = min(self.width, WIDEST)

    def on_broken_pipe(self) -> NoReturn:
        """Raises an error that `main` catches, where rich would exit with code 1."""
        raise BrokenPipeError
