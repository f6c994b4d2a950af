"""Sick loops of the set `forums`: number formats."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from zoo.loops.batches import explained_goal, mean_goal
from zoo.loops.forum_data import figures, fit, mlp, right, stream
from zoo.loops.loop import FORUMS, Batch, Parts, loops_of


def _updates_round_away(cured: bool) -> Parts:
    """Weights are bfloat16, and the steps of a small rate are less than they can hold.

    GitHub NVIDIA-NeMo/Automodel, pull request #3444: "directly updating BF16-resident parameters
    causes many optimizer steps to round back to the same BF16 value"; the fix keeps weights in
    float32. Random features of deviation 1, so that their weights are not small, are tuned.
    """
    dtype = torch.float32 if cured else torch.bfloat16
    model = nn.Sequential(nn.Embedding(200, 16), nn.Flatten(), nn.Linear(32, 1))
    nn.init.normal_(model[2].weight, std=0.5)
    optimizer = torch.optim.Adam(model.to(dtype).parameters(), lr=2e-3)
    worth = torch.randn(200)

    def draw(num: int) -> Batch:
        pairs = torch.randint(200, (num, 2))
        return pairs, (worth[pairs[:, 0]] - worth[pairs[:, 1]])[:, None]

    def apart(said: Tensor, worth: Tensor) -> Tensor:
        return nn.functional.mse_loss(said.float(), worth)

    goal = explained_goal(*draw(500), 0.8)
    return stream(draw, model, optimizer, apart, goal, 1100, size=256)


class _GatedBlock(nn.Module):
    """The gated feed-forward of T5, on a stream that grew large before."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(64, 32)
        self.gate, self.up, self.down = nn.Linear(32, 64), nn.Linear(32, 64), nn.Linear(64, 32)
        self.norm, self.readout = nn.LayerNorm(32), nn.Linear(32, 10)
        with torch.no_grad():
            self.gate.weight.mul_(40)
            self.up.weight.mul_(40)

    def forward(self, x: Tensor) -> Tensor:
        h = 8 * self.stem(x.to(self.stem.weight.dtype))
        h = h + self.down(nn.functional.gelu(self.gate(h)) * self.up(h))
        return self.readout(self.norm(h)).float()


def _feed_forward_overflows(cured: bool) -> Parts:
    """A model that was trained in bfloat16 is tuned in float16: its feed-forward is above 65504.

    GitHub huggingface/transformers, issue #5651: "an overflow that happens in `T5DenseReluDense`
    ... a value of 66246.3906, which is over the maximum value of 65504 in fp16".
    """
    data = figures()
    model = _GatedBlock().to(torch.bfloat16 if cured else torch.float16)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    return fit(data, model, optimizer, nn.CrossEntropyLoss(), right(data, 0.8), 300)


def _soft_prompt_in_half(cured: bool) -> Parts:
    """A soft prompt has the half precision of the frozen model; Adam's eps is 0 there.

    GitHub matanbt/TROPT, pull request #8: "in fp16 both `grad ** 2` and the default `eps=1e-8`
    flush to zero"; merged. The cure gives an eps that float16 knows.
    """
    reader = mlp(32, 64, 8, act=nn.Tanh).requires_grad_(False).half()
    wanted = torch.randn(8) * 0.3

    class Prompted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.prompt = nn.Parameter(torch.zeros(32, dtype=torch.float16))

        def forward(self, x: Tensor) -> Tensor:
            return reader(self.prompt + 0.05 * x.half()).float()

    model = Prompted()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02, eps=1e-4 if cured else 1e-8)

    def draw(num: int) -> Batch:
        return torch.randn(num, 32), wanted.expand(num, 8)

    def small(said: Tensor, wanted: Tensor) -> Tensor:
        return 0.01 * nn.functional.mse_loss(said, wanted)

    def apart(model: Any) -> Tensor:
        return (model(torch.zeros(1, 32)) - wanted).square().mean().sqrt()

    goal = mean_goal(apart, 0.12, higher=False)
    return stream(draw, model, optimizer, small, goal, 250)


LOOPS = loops_of(
    FORUMS,
    [
        ("forum_updates_round_away", ("underflow", "rate_too_small"), _updates_round_away),
        ("forum_feed_forward_overflows", "overflow", _feed_forward_overflows),
        ("forum_soft_prompt_in_half", ("optimizer_epsilon", "underflow"), _soft_prompt_in_half),
    ],
)
