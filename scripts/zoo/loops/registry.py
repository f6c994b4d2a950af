"""The table of all loops."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

from zoo.loops.loop import Loop

_SETS = ("tune", "held", "fresh", "report", "faults", "forum")
"""How the names of the modules of each set begin, in the order of the table."""


def _loops() -> Iterator[Loop]:
    """The loops of all modules of the sets; those that make data have none."""
    for name in _SETS:
        for path in sorted(Path(__file__).parent.glob(f"{name}_*.py")):
            yield from getattr(import_module(f"zoo.loops.{path.stem}"), "LOOPS", ())


LOOPS: dict[str, Loop] = {loop.name: loop for loop in _loops()}
