"""Watches `sweep.csv` for the rows of jobs that end in other processes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from vgexp import sweep
from vgexp.errors import QuestionError

PAUSE_SECONDS = 1.0

Ending = tuple[str, str]
"""(job, status)"""


@contextmanager
def watch_jobs(folder: Path, tell: Callable[[dict[str, str]], None]) -> Iterator[None]:
    """Within, and once at the end, calls `tell` with each new row of `sweep.csv`."""
    known = {_ending(row) for row in sweep.read(folder)}
    over = threading.Event()

    def look() -> None:
        # What cannot be read or shown now is in the table for later.
        with suppress(OSError, QuestionError):
            for row in sweep.read(folder):
                if _ending(row) not in known:
                    known.add(_ending(row))
                    tell(row)

    def keep_looking() -> None:
        while not over.wait(PAUSE_SECONDS):
            look()

    thread = threading.Thread(target=keep_looking, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        look()


def _ending(row: dict[str, str]) -> Ending:
    return row["job"], row["status"]
