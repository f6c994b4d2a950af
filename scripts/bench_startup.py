"""What stands between Enter and the first step: whole processes, as ratios to `import torch`.

python scripts/bench_startup.py --rounds 5
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import track

PYTHON = [sys.executable, "-c"]
VGEXP = [sys.executable, "-m", "vgexp"]
BASE = "import torch"


@dataclass(frozen=True)
class Case:
    """A command, and how many times `import torch` it may take."""

    words: Sequence[str]
    goal: float | None = None
    writes: bool = False


CASES: Mapping[str, Case] = {
    BASE: Case([*PYTHON, "import torch"]),
    "vgexp --help": Case([*VGEXP, "--help"], 0.1),
    "vgexp train --help": Case([*VGEXP, "train", "--help"], 0.4),
    "a run of one step, no figures": Case(
        [*VGEXP, "train", "train.steps=1", "output.figures=false"], 2.0, writes=True
    ),
    "a run of one step": Case([*VGEXP, "train", "train.steps=1"], 3.0, writes=True),
}


@dataclass(frozen=True)
class Seconds:
    """What one process took."""

    wall: float
    processor: float


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    took: dict[str, list[Seconds]] = {name: [] for name in CASES}
    with tempfile.TemporaryDirectory() as folder:
        # In turns, so that a slow minute of the machine makes all of them slow. The first round
        # fills the file cache and is not counted.
        for turn in track(range(args.rounds + 1), "starts", console=Console(stderr=True)):
            for place, (name, case) in enumerate(CASES.items()):
                seconds = measured(case, Path(folder) / f"{turn}_{place}")
                if turn:
                    took[name].append(seconds)
    print(table(took))
    return 0


def measured(case: Case, folder: Path) -> Seconds:
    """Runs the command once; what it writes goes into the folder."""
    words = [*case.words, f"hydra.run.dir={folder}"] if case.writes else case.words
    before, began = os.times(), time.perf_counter()
    subprocess.run(words, check=True, capture_output=True)
    wall, after = time.perf_counter() - began, os.times()
    processor = after.children_user - before.children_user
    return Seconds(wall, processor + after.children_system - before.children_system)


def table(took: Mapping[str, Sequence[Seconds]]) -> str:
    """Medians, and their ratios to those of `import torch`."""
    wall = {name: statistics.median(each.wall for each in every) for name, every in took.items()}
    processor = {
        name: statistics.median(each.processor for each in every) for name, every in took.items()
    }
    lines = [
        f"{'whole processes':31}{'wall':>8}{'ratio':>7}{'processor':>11}{'ratio':>7}{'goal':>6}"
    ]
    for name, case in CASES.items():
        goal = "" if case.goal is None else f"{case.goal:.1f}"
        lines.append(
            f"{name:31}{wall[name]:6.2f} s{wall[name] / wall[BASE]:7.2f}"
            f"{processor[name]:9.2f} s{processor[name] / processor[BASE]:7.2f}{goal:>6}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
