"""When a checkpoint of a run is due."""

from __future__ import annotations

import time
from collections.abc import Callable

PAUSE_SECONDS = 1.0
"""Seconds between checkpoints at least, where no number of steps is given."""
SHARE = 100
"""After a checkpoint, the run goes on without for this many times its duration: it costs 1 %."""
BYTES_PER_SECOND = 200e6
"""How fast the first checkpoint is expected to be written, before anything is known."""


class Saving:
    """Decides when checkpoints are made, and learns what they cost.

    Args:
        every: steps between them; None: as often as it costs little; 0: there are none.
        num_bytes: about the size of a checkpoint.
    """

    def __init__(self, every: int | None, num_bytes: int = 0) -> None:
        self._every = every
        self._rests_until = time.perf_counter() + _pause(num_bytes / BYTES_PER_SECOND)

    def wants_step(self, step: int) -> bool:
        """Whether a checkpoint follows `step`, so that the rows up to it have to be flushed."""
        return bool(self._every) and step % (self._every or 1) == 0

    def wants(self, step: int, *, handed_on: bool) -> bool:
        """Whether to save after `step`.

        Args:
            handed_on: whether all rows up to the step were handed on.
        """
        if self._every is None:
            return handed_on and time.perf_counter() >= self._rests_until
        return self.wants_step(step)

    def done_by(self, save: Callable[[], None]) -> None:
        """Saves, and notes what it cost."""
        start = time.perf_counter()
        save()
        end = time.perf_counter()
        self._rests_until = end + _pause(end - start)


def _pause(seconds: float) -> float:
    """How long not to save after a checkpoint that took so many seconds."""
    return max(PAUSE_SECONDS, SHARE * seconds)
