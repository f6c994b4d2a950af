"""What a probe costs in somebody's own loop: a GPT-2 of 4 blocks, and a ResNet-18.

`make bench`, or `python scripts/bench_guests.py --rounds 9`. A round trains the same network for
some steps in a bare loop and in the same loop with a probe, in turns in one process. A ratio is the
median over rounds of processor time a step. Recognition is what the first measured step costs
beyond the second, once.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext

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


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=40, help="a round, a multiple of 20")
    args = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{'network':<12} default cadence  every step  recognition, once")
    for name, make in (("GPT-2 4 x 64", gpt), ("ResNet-18", resnet)):
        default = _ratio(make, args.rounds, args.steps, every=20)
        full = _ratio(make, args.rounds, args.steps // 2, every=1)
        print(f"{name:<12} {default:<16.3f} {full:<11.3f} {_recognition(make) * 1e3:.1f} ms")


def _ratio(make: Callable[..., object], rounds: int, num_steps: int, *, every: int) -> float:
    ratios = []
    for _ in range(rounds):
        bare, probed = (_seconds(make, num_steps, of) for of in (None, every))
        ratios.append(probed / bare)
    return statistics.median(ratios)


def _seconds(make: Callable[..., object], num_steps: int, every: int | None) -> float:
    torch.manual_seed(0)
    model, update = make()  # type: ignore[misc]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    measuring = (
        nullcontext()
        if every is None
        else Probe(model, optimizer, every=every, activations_every=every)
    )
    with measuring:
        # The first measured step learns the model, which is counted by itself.
        for _ in range(every or 1):
            _step(update, model, optimizer)
        began = time.process_time()
        for _ in range(num_steps):
            _step(update, model, optimizer)
        return (time.process_time() - began) / num_steps


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
