"""Numbers of calls, kept with the pass in which a call was made, until it is known what counts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from vgexp.probe.passes import Pass
from vgexp.probe.taps import Taps

Number = TypeVar("Number")
Unseen = Callable[[str, str], object]
"""A function of a module's name and the reason why it could not be measured; the first stays."""


class OfPasses(Generic[Number]):
    """What was measured in a step, of which only the passes of the update are handed on."""

    def __init__(self, taps: Taps) -> None:
        self._taps = taps
        self._kept: list[tuple[Pass, Number]] = []

    def current(self) -> Pass | None:
        """The pass to which a call belongs that is made now; None: to none that is measured."""
        return self._taps.current_pass()

    def keep(self, of: Pass, number: Number) -> None:
        """Keeps what was measured in a pass."""
        self._kept.append((of, number))

    def of_update(self) -> list[Number]:
        """Ends the step; returns what was measured in passes whose gradients are the update's."""
        kept, self._kept = self._kept, []
        return [number for one, number in kept if self._taps.counts(one)]

    def forget(self) -> None:
        """Forgets all that was kept."""
        self._kept = []
