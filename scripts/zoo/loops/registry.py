"""The table of all loops."""

from __future__ import annotations

from zoo.loops import tune_healthy, tune_losses, tune_signal, tune_updates, tune_wiring
from zoo.loops.loop import Loop

_MODULES = (tune_wiring, tune_losses, tune_signal, tune_updates, tune_healthy)

LOOPS: dict[str, Loop] = {loop.name: loop for module in _MODULES for loop in module.LOOPS}
