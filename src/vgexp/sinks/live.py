"""Progress while a run goes: a bar in a terminal, plain lines elsewhere, nothing when quiet."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import final

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from vgexp.records import Rows

PLAIN_LINES = 10
"""Lines of progress in a run whose output is no terminal."""


@final
class Live:
    """Shows the latest row of `steps`, on standard error so that output stays clean.

    Where nobody can be shown anything any more (`2>&1 | head`), the run goes on without.
    """

    def __init__(self, num_steps: int, quiet: bool) -> None:
        self._num_steps = num_steps
        self._quiet = quiet
        self._next_line = 0.0
        self._progress: Progress | None = None
        console = Console(file=sys.stderr)
        if not quiet and console.is_terminal:
            self._progress = Progress(
                TextColumn("step {task.completed:.0f}/{task.total:.0f}"),
                BarColumn(bar_width=None),
                TextColumn("{task.description}"),
                TimeRemainingColumn(),
                console=console,
                transient=True,
            )
            self._task = self._progress.add_task("", total=num_steps)
            self._progress.start()

    def __call__(self, rows: Rows) -> None:
        if self._quiet or rows.table != "steps":
            return
        last = {name: values[-1] for name, values in rows.columns.items()}
        done = last["step"] + 1
        right = f"accuracy {last['accuracy']:.3f}  " if "accuracy" in last else ""
        numbers = f"loss {last['loss']:.4g}  {right}gradient {last['grad_norm']:.3g}"
        try:
            self._show(done, numbers)
        except OSError:
            self._quiet = True

    def close(self) -> None:
        if self._progress is not None:
            with suppress(OSError):
                self._progress.stop()
            self._progress = None

    def _show(self, done: int, numbers: str) -> None:
        if self._progress is not None:
            self._progress.update(self._task, completed=done, description=numbers)
        elif done >= self._next_line:
            print(f"step {done}/{self._num_steps}  {numbers}", file=sys.stderr, flush=True)
            self._next_line = done + max(1.0, self._num_steps / PLAIN_LINES)
