"""Trains one loop of the zoo, and prints what came out of it as one JSON line.

    python scripts/zoo/one_loop.py NAME SEED [--cured]

Keys: `name`, `half`, `truth` (a list of ids, or `healthy`), `seed`, `cured`, `diagnosis`
(`Diagnosis.to_dict()`), `check` (`health`, `cause` before training, or null), `outcome`
(`learned`, `first`, `last`), `peers` (name -> alarms), and `seconds`.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from zoo.loops import LOOPS
from zoo.peers import alarms


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("name", choices=LOOPS, metavar="NAME")
    parser.add_argument("seed", type=int)
    parser.add_argument("--cured", action="store_true", help="the cured twin of a sick loop")
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    print(json.dumps(line_of(args.name, args.seed, cured=args.cured), allow_nan=True))


def line_of(name: str, seed: int, *, cured: bool) -> dict[str, Any]:
    """Trains a loop; returns what came out of it."""
    began = time.perf_counter()
    loop = LOOPS[name]
    result = loop.train(seed, cured=cured)
    return {
        "name": loop.name,
        "half": loop.half,
        "truth": [loop.truth] if loop.is_sick and isinstance(loop.truth, str) else loop.truth,
        "seed": seed,
        "cured": cured,
        "diagnosis": result.diagnosis,
        "check": result.check,
        "outcome": result.outcome,
        "peers": alarms(result.tables, result.facts),
        "seconds": round(time.perf_counter() - began, 2),
    }


if __name__ == "__main__":
    main()
