"""The table of all loops."""

from __future__ import annotations

from zoo.loops import tune_healthy
from zoo.loops.loop import Loop

_MODULES = (tune_healthy,)

LOOPS: dict[str, Loop] = {loop.name: loop for module in _MODULES for loop in module.LOOPS}
