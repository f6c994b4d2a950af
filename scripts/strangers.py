"""Checks what the probe says of models of well-known packages: one line a model.

    python scripts/strangers.py [--only REGEX] [--details]

Each model has random weights. It is trained for two steps with and without a probe, on equal
batches. A line says whether losses, weights and the generator are bit-identical, how many
`grad_norm` agree with `p.grad` and how many `delta_rms` with hooks of the script's own, which
read-out and how many blocks were found of those that its source has, and the verdict beside the
true ratio of the gradients at the outputs of the first and the last block.

Ends with 1 if anything is wrong. A package that is not installed is left out, and named.
"""

from __future__ import annotations

import argparse
import importlib.util
import re
import sys
import time
import warnings

import torch
from stranger_models.checks import Result, check
from stranger_models.hugging_face import HUGGING_FACE
from stranger_models.images import TIMM, TORCHVISION
from stranger_models.model import Stranger

PACKAGES: dict[str, tuple[Stranger, ...]] = {
    "transformers": HUGGING_FACE,
    "timm": TIMM,
    "torchvision": TORCHVISION,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", default="", help="a regular expression on the models' names")
    parser.add_argument("--details", action="store_true", help="what is wrong, and what is unseen")
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    num_right = num_checked = 0
    print(f"{'model':<44} same  grad_norm  delta_rms  read-out  blocks  signal")
    for package, strangers in PACKAGES.items():
        if importlib.util.find_spec(package) is None:
            print(f"{package} is not installed: {len(strangers)} models are left out")
            continue
        for stranger in strangers:
            if re.search(args.only, stranger.name):
                num_checked += 1
                num_right += _show(stranger, has_details=args.details)
    print(f"{num_right} of {num_checked} right")
    return 0 if num_right == num_checked else 1


def _show(stranger: Stranger, *, has_details: bool) -> bool:
    began = time.perf_counter()
    try:
        result = check(stranger)
    except Exception as error:
        print(f"{stranger.name:<44} {type(error).__name__}: {str(error)[:200]}", flush=True)
        if has_details:
            raise
        return False
    print(_line(result), f"({time.perf_counter() - began:.0f} s)", flush=True)
    if has_details:
        for line in (*result.wrong[:6], *result.unseen[:6]):
            print(f"    {line}")
        if sorted(result.blocks) != sorted(result.expected_blocks):
            print(f"    blocks {result.blocks}\n    expected {result.expected_blocks}")
        if sorted(result.readouts) != sorted(result.expected_readouts):
            print(f"    read-out {result.readouts}, expected {result.expected_readouts}")
        print(f"    {result.said}")
    return result.is_right


def _line(result: Result) -> str:
    grads, deltas = (f"{a}/{b}" for a, b in (result.gradients, result.deltas))
    is_found = sorted(result.readouts) == sorted(result.expected_readouts)
    num_blocks = len(set(result.blocks) & set(result.expected_blocks))
    extra = len(result.blocks) - num_blocks
    blocks = f"{num_blocks}/{len(result.expected_blocks)}" + (f"+{extra}" if extra else "")
    verdict = re.search("steady|vanishes|explodes", result.said)
    said = verdict.group() if verdict else "not compared"
    truth = f"{result.true_attenuation:.2g}" if result.true_attenuation > 0 else "-"
    mark = "" if result.is_right else "  WRONG"
    return (
        f"{result.name:<44} {'yes' if result.is_identical else 'NO':<5} {grads:<10} {deltas:<10} "
        f"{'found' if is_found else 'missed':<9} {blocks:<7} {said} (true {truth}){mark}"
    )


if __name__ == "__main__":
    sys.exit(main())
