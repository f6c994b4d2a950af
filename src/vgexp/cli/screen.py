"""Where tables and sentences go: standard output, as wide as it is."""

from __future__ import annotations

from typing import NoReturn, final

from rich.console import Console


@final
class Screen(Console):
    """A console whose reader may leave early (`| head`) without the work counting as failed."""

    def __init__(self) -> None:
        super().__init__(highlight=False)

    def on_broken_pipe(self) -> NoReturn:
        """Rich would leave the process with code 1."""
        raise BrokenPipeError
