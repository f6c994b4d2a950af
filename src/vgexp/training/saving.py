"""When a run is saved, so that it can go on from there."""

from __future__ import annotations

import time
from collections.abc import Callable

PAUSE_SECONDS = 1.0
"""Between saves at least, where no number of steps is given."""
SHARE = 100
"""A save is followed by this many times its own duration without one, or more: it costs 1 %."""
BYTES_PER_SECOND = 200e6
"""What the first save is taken to do, before it is known."""


class Saving:
    """Every so many steps; by None, as often as it costs little; by 0, never.

    Args:
        every: steps.
        num_bytes: about what a save writes.
    """

    def __init__(self, every: int | None, num_bytes: int = 0) -> None:
        self._every = every
        self._rests_until = time.perf_counter() + _pause(num_bytes / BYTES_PER_SECOND)

    def wants_step(self, step: int) -> bool:
        """Whether the rows up to `step` have to be handed on because a save comes after it."""
        return bool(self._every) and step % (self._every or 1) == 0

    def wants(self, step: int, *, handed_on: bool) -> bool:
        """Whether to save after `step`, whose rows were handed on, or wait for more."""
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
    """How long not to save for one save of so many seconds."""
    return max(PAUSE_SECONDS, SHARE * seconds)
