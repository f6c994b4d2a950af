"""Sick loops of the half by which rules may be set: the optimizer, dtypes, adversaries."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from zoo.loops.batches import mean_goal
from zoo.loops.data_tune import fit_waves, read_digits, tell_tumours
from zoo.loops.loop import TUNE, Parts, loops_of


def _mlp(inputs: int, outputs: int, width: int = 48) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(),
        nn.Linear(width, outputs),
    )  # fmt: skip


def _rate_large(cured: bool) -> Parts:
    """SGD with momentum at a rate that was meant for a normalised net."""
    model = _mlp(64, 10)
    return read_digits(
        model, torch.optim.SGD(model.parameters(), lr=0.05 if cured else 5.0, momentum=0.9)
    )


def _rate_large_adam(cured: bool) -> Parts:
    """Adam with a rate of 1, copied from SGD."""
    model = _mlp(3, 1)
    return fit_waves(model, torch.optim.Adam(model.parameters(), lr=5e-3 if cured else 1.0))


def _rate_small(cured: bool) -> Parts:
    """A rate of 1e-6 that was meant for fine-tuning."""
    model = _mlp(64, 10)
    return read_digits(model, torch.optim.AdamW(model.parameters(), lr=2e-3 if cured else 1e-6))


def _rate_decays(cured: bool) -> Parts:
    """The schedule steps after every batch, with a factor that was meant for epochs."""
    model = _mlp(30, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.999 if cured else 0.5)

    def step(model: Any, optimizer: Any, loss: Any, batch: Any) -> None:
        value = loss(model(batch[0]), batch[1])
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        schedule.step()

    return tell_tumours(model, optimizer, step=step)


def _clipped(cured: bool) -> Parts:
    """Clipping to a norm of 1e-3, with plain SGD."""
    model = _mlp(64, 10)

    def step(model: Any, optimizer: Any, loss: Any, batch: Any) -> None:
        value = loss(model(batch[0]), batch[1])
        optimizer.zero_grad()
        value.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0 if cured else 1e-3)
        optimizer.step()

    return read_digits(model, torch.optim.SGD(model.parameters(), lr=0.1), step=step)


def _epsilon(cured: bool) -> Parts:
    """Adam with an epsilon of 10, far above every gradient."""
    model = _mlp(64, 10)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, eps=1e-8 if cured else 10.0)
    return read_digits(model, optimizer)


def _half_underflow(cured: bool) -> Parts:
    """Weights in float16; the loss is divided by 3e5 pixels, and gradients are below 6e-8."""
    model = _mlp(64, 10).half()
    divisor = 1.0 if cured else 3e5

    def loss(output: Tensor, y: Tensor) -> Tensor:
        return nn.functional.cross_entropy(output.float(), y) / divisor

    optimizer = torch.optim.SGD(model.parameters(), lr=0.2 * divisor)
    parts = read_digits(model, optimizer, loss)
    return _halved(parts)


class _Squared(nn.Module):
    """The square of ReLU, behind a norm or not."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, z: Tensor) -> Tensor:
        return self.norm(z).relu().square()


def _half_overflow(cured: bool) -> Parts:
    """Weights in float16 and squares of ReLU, without a norm: the third is beyond 65504."""
    layers: list[nn.Module] = []
    for _ in range(3):
        layer = nn.Linear(64, 64)
        nn.init.kaiming_normal_(layer.weight)
        layers += [layer, _Squared(nn.LayerNorm(64) if cured else nn.Identity())]
    model = nn.Sequential(*layers, nn.Linear(64, 10)).half()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    loss = _cross_entropy
    return _halved(read_digits(model, optimizer, loss, scale=1.0 if cured else 3.0))


def _cross_entropy(output: Tensor, y: Tensor) -> Tensor:
    return nn.functional.cross_entropy(output.float(), y)


def _halved(parts: Parts) -> Parts:
    """The same training, whose inputs are float16."""
    parts.batches = ((x.half(), y) for x, y in parts.batches)
    score = parts.goal.score

    def in_float32(model: nn.Module) -> float:
        kind = next(model.parameters()).dtype
        value = score(model.float())
        model.to(kind)
        return value

    parts.goal = mean_goal(lambda model: torch.tensor(in_float32(model)), parts.goal.enough)
    return parts


class _Pair(nn.Module):
    """A generator, called as the model, and the discriminator that judges it."""

    def __init__(self) -> None:
        super().__init__()
        self.generator = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 2))
        self.judge = nn.Sequential(
            nn.Linear(2, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1)
        )
        self.other = torch.optim.Adam(self.judge.parameters(), lr=0.01)

    def forward(self, noise: Tensor) -> Tensor:
        return self.generator(noise)


def _minimax(cured: bool) -> Parts:
    """A GAN by its first formula, log(1 - D(G)): where the discriminator is sure, it is flat."""
    model = _Pair()
    center = torch.tensor([6.0, -6.0])
    logits = nn.functional.binary_cross_entropy_with_logits

    def loss(fake: Tensor) -> Tensor:
        score = model.judge(fake)
        if cured:
            return logits(score, torch.ones_like(score))
        return (1 - score.sigmoid()).clamp_min(1e-7).log().mean()

    def step(model: Any, optimizer: Any, loss: Any, batch: Any) -> None:
        for _ in range(5):
            real, fake = center + torch.randn(64, 2), model.generator(batch[0]).detach()
            right, wrong = model.judge(real), model.judge(fake)
            value = logits(right, torch.ones_like(right)) + logits(wrong, torch.zeros_like(wrong))
            model.other.zero_grad()
            value.backward()
            model.other.step()
        value = loss(model(batch[0]))
        optimizer.zero_grad()
        value.backward()
        optimizer.step()

    noise = torch.randn(500, 8)
    goal = mean_goal(lambda m: (m(noise).mean(0) - center).norm(), 3.0, higher=False)
    optimizer = torch.optim.Adam(model.generator.parameters(), lr=2e-3)
    batches = ((torch.randn(64, 8),) for _ in range(300))
    return Parts(model, optimizer, loss, batches, goal, step=step)


LOOPS = loops_of(
    TUNE,
    (
        ("optim_rate_large", "rate_too_large", _rate_large),
        ("optim_rate_large_adam", "rate_too_large", _rate_large_adam),
        ("optim_rate_small", "rate_too_small", _rate_small),
        ("optim_rate_decays", "rate_too_small", _rate_decays),
        ("optim_clipped", "clip_throttles", _clipped),
        ("optim_epsilon", "optimizer_epsilon", _epsilon),
        ("dtype_half_underflow", "underflow", _half_underflow),
        ("dtype_half_overflow", "overflow", _half_overflow),
        ("gan_minimax", "saturated_loss", _minimax),
    ),
)
