"""What a probe costs in somebody's own loop: a GPT-2 of 4 blocks, and a ResNet-18.

`make bench`, or `python scripts/bench_guests.py --rounds 31`. Two copies of a network train in one
process, one in a bare loop and one in the same loop with a probe, in short turns: so both meet the
same load of the machine. A ratio is the median over rounds of processor time a step, with its
quartiles. Recognition is what the first measured step costs beyond the others, once.

The C library's allocator returns memory to the system by rules that depend on what was freed
before, so that the page faults of a step (up to 4,600, a tenth of its time) come and go with the
probe, in the bare loop as well. Here it keeps all memory; with `--system-allocator` it does not.
"""

from __future__ import annotations

import argparse
import ctypes
import resource
import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vgexp import Probe


class Gpt(nn.Module):
    """4 pre-norm blocks of width 64 over 128 tokens."""

    def __init__(self, width: int = 64, num_blocks: int = 4, vocabulary: int = 256) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width)
        self.positions = nn.Parameter(torch.randn(1, 128, width) * 0.02)
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(
                width, 4, 4 * width, 0.0, "gelu", batch_first=True, norm_first=True
            )
            for _ in range(num_blocks)
        )
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocabulary)
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(128))

    def forward(self, ids_BT: Tensor) -> Tensor:
        x_BTW = self.tokens(ids_BT) + self.positions
        for block in self.blocks:
            x_BTW = block(x_BTW, src_mask=self.mask, is_causal=True)
        return self.head(self.norm(x_BTW))


def gpt() -> tuple[nn.Module, Callable[[nn.Module], Tensor]]:
    ids = torch.randint(256, (8, 129))
    return Gpt(), lambda net: F.cross_entropy(net(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())


def resnet() -> tuple[nn.Module, Callable[[nn.Module], Tensor]]:
    from torchvision.models import resnet18

    x, y = torch.randn(16, 3, 32, 32), torch.arange(16) % 10
    return resnet18(num_classes=10), lambda net: F.cross_entropy(net(x), y)


class Turn(NamedTuple):
    """A few steps of one loop."""

    seconds: float
    """Of processor time, a step."""
    page_faults: float
    """A step."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--system-allocator", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if not args.system_allocator:
        _keep_memory()
    print(f"{'network':<13}{'measured':<15}{'bare':<9}ratio (quartiles)    faults, bare and probed")
    for name, make in (("GPT-2 4 x 64", gpt), ("ResNet-18", resnet)):
        for what, every, num_steps in (("every 20 steps", 20, 20), ("every step", 1, 4)):
            print(
                f"{name:<13}{what:<15}{_compare(make, args.rounds, num_steps, every)}", flush=True
            )
        print(f"{name:<13}{'recognition, once':<24}{_recognition(make) * 1e3:.1f} ms", flush=True)


def _keep_memory() -> None:
    """Has glibc's allocator return no memory to the system; of other C libraries as it is."""
    try:
        set_option = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    trim_threshold, top_pad, mmap_threshold = -1, -2, -3
    for option, value in ((trim_threshold, 2**31 - 1), (top_pad, 2**28), (mmap_threshold, 2**30)):
        set_option(option, value)


def _compare(make: Callable[..., object], rounds: int, num_steps: int, every: int) -> str:
    loops = []
    for _ in range(2):
        torch.manual_seed(0)
        model, update = make()  # type: ignore[misc]
        loops.append((update, model, torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)))
    bare, probed = loops
    with Probe(probed[1], probed[2], every=every, activations_every=every):
        # The first measured step learns the model, which is counted by itself.
        for loop in loops * 2:
            _turn(loop, every)
        pairs = []
        for index in range(rounds):
            first, second = (bare, probed) if index % 2 else (probed, bare)
            pair = _turn(first, num_steps), _turn(second, num_steps)
            pairs.append(pair if index % 2 else pair[::-1])
    ratios = [after.seconds / before.seconds for before, after in pairs]
    low, median, high = statistics.quantiles(ratios, n=4)
    seconds = statistics.median(before.seconds for before, _ in pairs)
    faults = [statistics.median(pair[which].page_faults for pair in pairs) for which in (0, 1)]
    return (
        f"{seconds * 1e3:5.1f} ms {median:.3f} ({low:.3f}-{high:.3f})  "
        f"{faults[0]:.0f} and {faults[1]:.0f}"
    )


def _turn(loop: tuple[Callable[..., Tensor], nn.Module, torch.optim.SGD], num_steps: int) -> Turn:
    faults, began = resource.getrusage(resource.RUSAGE_SELF).ru_minflt, time.process_time()
    for _ in range(num_steps):
        _step(*loop)
    seconds = time.process_time() - began
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults
    return Turn(seconds / num_steps, faults / num_steps)


def _recognition(make: Callable[..., object]) -> float:
    found = []
    for _ in range(5):
        torch.manual_seed(0)
        model, update = make()  # type: ignore[misc]
        _step(update, model, torch.optim.SGD(model.parameters(), lr=0.01))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        with Probe(model, optimizer, every=1, activations_every=1):
            times = []
            for _ in range(4):
                began = time.process_time()
                _step(update, model, optimizer)
                times.append(time.process_time() - began)
        found.append(times[0] - statistics.median(times[1:]))
    return statistics.median(found)


def _step(update: Callable[..., Tensor], model: nn.Module, optimizer: torch.optim.SGD) -> None:
    optimizer.zero_grad()
    update(model).backward()
    optimizer.step()


if __name__ == "__main__":
    main()
