"""What `docs/reliability.md` promises, tried: kills, signals, full and closed disks, broken files.

`make faults`, or `python scripts/faults.py --help`. Everything is drawn from a seed. Prints a line
a kind of fault, and what was broken; exit 1 when a promise was not kept.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from fault_cases import broken_files, disks, kills, sweeps
from fault_cases.children import Result, within_a_fork

Suite = Callable[[Path, random.Random, float], list[Result]]

SUITES: dict[str, Suite] = {
    "kills": lambda work, rng, size: [
        kills.kills(work, rng, round(40 * size)),
        kills.kills(work, rng, round(10 * size), new=True),
    ],
    "signals": lambda work, rng, size: kills.signals(work, rng, round(12 * size)),
    "processes": lambda work, _rng, size: [
        kills.two_processes(work, round(5 * size)),
        kills.begun_at_once(work, round(20 * size)),
    ],
    "disks": lambda work, rng, size: [
        *disks.full(work, rng, round(24 * size)),
        disks.closed(work, rng, round(12 * size)),
    ],
    "damage": lambda work, rng, size: within_a_fork(
        lambda: broken_files.damaged(work, rng, round(1600 * size)), work / "all"
    ),
    "malice": lambda work, _rng, _size: within_a_fork(
        lambda: [
            broken_files.hostile(work),
            broken_files.names(work),
            broken_files.planted(work),
        ],
        work / "all",
    ),
    "sweeps": lambda work, rng, size: [
        sweeps.killed(work, rng, round(30 * size)),
        sweeps.killed_in_parallel(work, rng, round(9 * size)),
    ],
    "power": lambda work, rng, size: within_a_fork(
        lambda: [disks.power(work, rng, 3 * size)], work / "all"
    ),
}


def main() -> int:
    """Runs the suites that were asked for; 1 when a promise was broken."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("suites", nargs="*", choices=[*SUITES, []], help="default: all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--size", type=float, default=1.0, help="share of the usual cases")
    args = parser.parse_args()
    print(f"{'':48} {'cases':>6} {'broken':>6} {'seconds':>8}")
    broken: list[str] = []
    for name in args.suites or SUITES:
        rng = random.Random(f"{args.seed} {name}")
        with tempfile.TemporaryDirectory(prefix="vgexp_faults_") as work:
            start = time.monotonic()
            results = SUITES[name](Path(work).resolve(), rng, args.size)
            _show(results, time.monotonic() - start)
        broken += [line for result in results for line in result.broken]
    for line in broken[:20]:
        print(f"broken: {line}")
    return 1 if broken else 0


def _show(results: Sequence[Result], seconds: float) -> None:
    for number, result in enumerate(results):
        took = f"{seconds:8.1f}" if number == 0 else ""
        if result.skipped:
            print(f"{result.name:48} skipped: {result.skipped}", flush=True)
            continue
        print(f"{result.name:48} {result.num_cases:6} {len(result.broken):6} {took}")
        if result.note:
            print(f"    {result.note}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
