"""The table of all loops."""

from __future__ import annotations

from zoo.loops import (
    fresh_data_faults,
    fresh_healthy,
    fresh_healthy_ways,
    fresh_losses,
    fresh_signal,
    fresh_updates,
    fresh_wiring,
    held_healthy,
    held_losses,
    held_signal,
    held_updates,
    held_wiring,
    report_data_faults,
    report_healthy,
    report_losses,
    report_signal,
    report_updates,
    report_wiring,
    tune_healthy,
    tune_losses,
    tune_signal,
    tune_updates,
    tune_wiring,
)
from zoo.loops.loop import Loop

_MODULES = (
    tune_wiring,
    tune_losses,
    tune_signal,
    tune_updates,
    tune_healthy,
    held_wiring,
    held_healthy,
    held_losses,
    held_signal,
    held_updates,
    fresh_data_faults,
    fresh_healthy,
    fresh_healthy_ways,
    fresh_losses,
    fresh_signal,
    fresh_updates,
    fresh_wiring,
    report_data_faults,
    report_healthy,
    report_losses,
    report_signal,
    report_updates,
    report_wiring,
)

LOOPS: dict[str, Loop] = {loop.name: loop for module in _MODULES for loop in module.LOOPS}
