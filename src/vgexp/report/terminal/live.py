"""Shows the progress of a run: a bar and the layers' gradient in a terminal, else plain lines."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, NoReturn, final

from rich.console import Console, Group
from rich.live import Live as Display
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column
from rich.text import Text

from vgexp.records import Rows
from vgexp.report.terminal.profile import Profile, profile_of

PLAIN_LINES = 10
"""Lines of progress of a run whose output is not a terminal."""
SILENT_SECONDS = 2.0
"""Work that takes less is not counted."""
REFRESH_SECONDS = 0.25
"""Seconds between two pictures at least; a fast run hands rows on far more often."""
_END_OF_FLUSH = "timing"
"""The table whose row comes last in a flush."""


@final
class Live:
    """Shows the latest row of `steps` and the latest gradients of `layers`, on standard error.

    It draws when rows come, without a thread of its own. When standard error can no longer be
    written (`2>&1 | head`, a terminal that was closed), the run goes on without it.

    Args:
        quiet: whether nothing is shown.
        first_step: where a resumed run starts.
    """

    def __init__(self, num_steps: int, quiet: bool, first_step: int = 0) -> None:
        self._num_steps = num_steps
        self._quiet = quiet
        self._last: dict[str, Any] | None = None
        self._profile: Profile | None = None
        self._next_line = float(first_step)
        self._next_picture = 0.0
        self._display: Display | None = None
        console = _Console()
        if quiet or not console.is_interactive:
            return
        self._progress = Progress(
            TextColumn("step {task.completed:.0f}/{task.total:.0f}"),
            # The colour stays the same; without colours the percentage says it.
            BarColumn(bar_width=None, finished_style="bar.complete"),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeRemainingColumn(table_column=Column(no_wrap=True)),
            console=console,
            auto_refresh=False,
        )
        # On a line of their own, since large numbers of steps leave no room for the time left.
        self._numbers = Text(no_wrap=True, overflow="ellipsis")
        self._task = self._progress.add_task("", total=num_steps, completed=first_step)
        self._display = Display(
            get_renderable=self._picture, console=console, auto_refresh=False, transient=True
        )
        try:
            self._display.start(refresh=True)
        except OSError:
            self._give_up()

    def __call__(self, rows: Rows) -> None:
        if self._quiet or not len(rows):
            return
        if rows.table == "steps":
            self._last = {name: values[-1] for name, values in rows.columns.items()}
        elif rows.table == "layers":
            self._profile = profile_of(rows) or self._profile
        elif rows.table == _END_OF_FLUSH and self._last is not None:
            try:
                self._show(self._last)
            except OSError:
                self._give_up()

    def close(self) -> None:
        display, self._display = self._display, None
        if display is not None:
            with suppress(OSError):
                display.stop()

    def _show(self, last: Mapping[str, Any]) -> None:
        done = last["step"] + 1
        right = f"accuracy {last['accuracy']:.3f}  " if "accuracy" in last else ""
        numbers = f"loss {last['loss']:.4g}  {right}gradient {last['grad_norm']:.3g}"
        if self._display is not None:
            if time.monotonic() >= self._next_picture or done == self._num_steps:
                self._progress.update(self._task, completed=done)
                self._numbers.plain = numbers
                self._display.refresh()
                self._next_picture = time.monotonic() + REFRESH_SECONDS
        elif done >= self._next_line:
            layer = "" if self._profile is None else f", of {self._profile.first}"
            text = f"step {done}/{self._num_steps}  {numbers}{layer}"
            print(text, file=sys.stderr, flush=True)
            self._next_line = done + max(1.0, self._num_steps / PLAIN_LINES)

    def _picture(self) -> Group:
        parts = [] if self._profile is None else [self._profile]
        return Group(self._progress.get_renderable(), self._numbers, *parts)

    def _give_up(self) -> None:
        self._quiet = True
        self.close()


@final
class Counting:
    """Counts equal pieces of work on standard error: after two seconds, then at every tenth."""

    def __init__(self, what: str, num: int, *, is_quiet: bool) -> None:
        self._what = what
        self._num = num
        self._is_quiet = is_quiet
        self._next_line = 0.0
        self._until = time.monotonic() + SILENT_SECONDS

    def __call__(self, num_done: int) -> None:
        is_due = num_done >= self._next_line or num_done == self._num
        if self._is_quiet or not is_due or time.monotonic() < self._until:
            return
        try:
            text = f"{self._what} {num_done}/{self._num}"
            print(text, file=sys.stderr, flush=True)
            self._next_line = num_done + max(1.0, self._num / PLAIN_LINES)
        except OSError:
            self._is_quiet = True


@final
class _Console(Console):
    """Standard error; a reader that has left is an `OSError` like any other."""

    def __init__(self) -> None:
        super().__init__(file=sys.stderr)

    def on_broken_pipe(self) -> NoReturn:
        """Rich would leave the process."""
        raise BrokenPipeError
