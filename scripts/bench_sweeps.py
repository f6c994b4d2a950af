"""What a second process is worth: a sweep by joblib against the same sweep one job after another.

`python scripts/bench_sweeps.py`. Whole commands, starts included; takes some minutes.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time


def main() -> None:
    """Prints seconds of both, and their ratio, a line a round."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=16)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=2)
    arguments = parser.parse_args()
    grid = (f"train.steps={arguments.steps}", f"seed=range(0,{arguments.jobs})")
    pool = ("hydra/launcher=joblib", f"hydra.launcher.n_jobs={arguments.processes}")
    print(f"{'jobs':>5} {'one by one':>11} {f'{arguments.processes} processes':>12} {'ratio':>6}")
    for _ in range(arguments.rounds):
        alone, together = seconds_of(*grid), seconds_of(*grid, *pool)
        ratio = alone / together
        print(f"{arguments.jobs:5} {alone:9.1f} s {together:10.1f} s {ratio:6.2f}", flush=True)


def seconds_of(*words: str) -> float:
    """How long one sweep takes."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "vgexp", "train", "-m", "+experiment=sigmoid_deep"]
        start = time.perf_counter()
        subprocess.run(
            [*command, *words, f"hydra.sweep.dir={folder}"], check=True, stdout=subprocess.DEVNULL
        )
        return time.perf_counter() - start


if __name__ == "__main__":
    main()
