"""Training loops in plain PyTorch whose health is known by construction and by outcome.

    from zoo.loops import LOOPS
    result = LOOPS["wiring_forgotten_head"].train(0, cured=False)

`python scripts/zoo/one_loop.py NAME SEED [--cured]` prints one JSON line of the same.
"""

from zoo.loops.loop import FAULTS, FORUMS, FRESH, HEALTHY, HELD, REPORTS, TUNE, Loop, Result
from zoo.loops.registry import LOOPS

__all__ = [
    "FAULTS", "FORUMS", "FRESH", "HEALTHY", "HELD", "LOOPS", "REPORTS", "TUNE", "Loop", "Result",
]  # fmt: skip
