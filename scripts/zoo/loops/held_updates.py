"""Sick loops of the half that is only reported: the optimizer, dtypes, adversaries."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from zoo.loops.batches import mean_goal
from zoo.loops.data_held import count_on, forecast, mark_shapes, name_shapes, name_wines
from zoo.loops.loop import HELD, Parts, loops_of
from zoo.loops.nets_held import Counter, Forecaster, Marker, conv_net


def _rate_large(cured: bool) -> Parts:
    """A recurrence, by SGD at a rate of 30."""
    model = Forecaster(nn.GRU)
    rate = 0.3 if cured else 30.0
    return forecast(model, torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9), enough=0.7)


def _rate_large_adamw(cured: bool) -> Parts:
    """A recurrence with gates, by AdamW at a rate of 30."""
    model = Forecaster()
    return forecast(model, torch.optim.AdamW(model.parameters(), lr=5e-3 if cured else 30.0))


def _rate_large_masks(cured: bool) -> Parts:
    """A segmentation net, by RMSprop at a rate of 1."""
    model = Marker()
    return mark_shapes(model, torch.optim.RMSprop(model.parameters(), lr=2e-3 if cured else 1.0))


def _rate_small(cured: bool) -> Parts:
    """A transformer at a rate of 1e-7."""
    model = Counter()
    return count_on(model, torch.optim.AdamW(model.parameters(), lr=3e-3 if cured else 1e-7))


def _rate_divided(cured: bool) -> Parts:
    """The rate is divided by the number of examples, of a loss that is a mean already."""
    model = conv_net()
    rate = 0.1 if cured else 0.1 / 50_000
    return name_shapes(model, torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9))


def _clipped_values(cured: bool) -> Parts:
    """Every entry of the gradient is clipped to 1e-6."""
    model = conv_net()

    def step(model: Any, optimizer: Any, loss: Any, batch: Any) -> None:
        value = loss(model(batch[0]), batch[1])
        optimizer.zero_grad()
        value.backward()
        nn.utils.clip_grad_value_(model.parameters(), 1.0 if cured else 1e-6)
        optimizer.step()

    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    return name_shapes(model, optimizer, step=step)


def _epsilon(cured: bool) -> Parts:
    """RMSprop with an epsilon of 100."""
    model = Forecaster()
    eps = 1e-8 if cured else 100.0
    return forecast(model, torch.optim.RMSprop(model.parameters(), lr=4e-3, eps=eps))


def _half_epsilon(cured: bool) -> Parts:
    """AdamW in float16, whose usual epsilon is 0 there."""
    model = nn.Sequential(
        nn.Linear(13, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 3)
    )
    eps = 1e-4 if cured else 1e-8
    optimizer = torch.optim.AdamW(model.half().parameters(), lr=3e-3, eps=eps)
    return _halved(name_wines(model, optimizer, _cross_entropy))


def _half_underflow(cured: bool) -> Parts:
    """The mean is divided by 2e6 tokens of an update that has 32 examples, in float16."""
    model = nn.Sequential(
        nn.Linear(13, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 3)
    )
    divisor = 1.0 if cured else 2e6

    def loss(output: Tensor, y: Tensor) -> Tensor:
        return _cross_entropy(output, y) / divisor

    optimizer = torch.optim.SGD(model.half().parameters(), lr=0.1 if cured else 6e4)
    return _halved(name_wines(model, optimizer, loss))


def _half_overflow(cured: bool) -> Parts:
    """A score of two features of size 400 each, in float16, is beyond 65504."""

    class Pairs(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(13, 32), nn.Linear(13, 32)
            self.readout = nn.Linear(32, 3)
            for layer in (self.one, self.two):
                nn.init.normal_(layer.weight, 0, 0.3 if cured else 90.0)

        def forward(self, x: Tensor) -> Tensor:
            return self.readout(self.one(x) * self.two(x))

    model = Pairs()
    optimizer = torch.optim.SGD(model.half().parameters(), lr=0.02)
    return _halved(name_wines(model, optimizer, _cross_entropy))


def _cross_entropy(output: Tensor, y: Tensor) -> Tensor:
    return nn.functional.cross_entropy(output.float(), y)


def _halved(parts: Parts) -> Parts:
    """The same training, whose inputs are float16."""
    parts.batches = ((x.half(), y) for x, y in parts.batches)
    score = parts.goal.score

    def in_float32(model: nn.Module) -> Tensor:
        value = score(model.float())
        model.half()
        return torch.tensor(value)

    parts.goal = mean_goal(in_float32, parts.goal.enough)
    return parts


class _Series(nn.Module):
    """Makes series of 16 values, and judges them by a probability or by a logit."""

    def __init__(self, *, as_probability: bool) -> None:
        super().__init__()
        self.maker = nn.Sequential(nn.Linear(6, 32), nn.LeakyReLU(0.1), nn.Linear(32, 16))
        self.judge = nn.Sequential(nn.Linear(16, 48), nn.ReLU(), nn.Linear(48, 1))
        if as_probability:
            self.judge.append(nn.Sigmoid())
        self.other = torch.optim.Adam(self.judge.parameters(), lr=0.05)

    def forward(self, noise: Tensor) -> Tensor:
        return self.maker(noise)


def _sure_judge(cured: bool) -> Parts:
    """A judge, trained first, whose sigmoid is exactly 0 on what is made."""
    model = _Series(as_probability=not cured)
    criterion = nn.BCEWithLogitsLoss() if cured else nn.BCELoss()

    def loss(made: Tensor) -> Tensor:
        score = model.judge(made)
        return criterion(score, torch.ones_like(score))

    def teach(noise: Tensor) -> None:
        real, made = 9 + torch.randn(48, 16), model.maker(noise).detach()
        right, wrong = model.judge(real), model.judge(made)
        value = criterion(right, torch.ones_like(right)) + criterion(wrong, torch.zeros_like(wrong))
        model.other.zero_grad()
        value.backward()
        model.other.step()

    for _ in range(150):
        teach(torch.randn(48, 6))

    def step(model: Any, optimizer: Any, loss: Any, batch: Any) -> None:
        teach(batch[0])
        value = loss(model(batch[0]))
        optimizer.zero_grad()
        value.backward()
        optimizer.step()

    noise = torch.randn(300, 6)
    goal = mean_goal(lambda m: (m(noise).mean() - 9).abs(), 3.0, higher=False)
    optimizer = torch.optim.Adam(model.maker.parameters(), lr=4e-3)
    return Parts(
        model, optimizer, loss, ((torch.randn(48, 6),) for _ in range(400)), goal, step=step
    )


LOOPS = loops_of(
    HELD,
    (
        ("held_rate_large", "rate_too_large", _rate_large),
        ("held_rate_large_adamw", "rate_too_large", _rate_large_adamw),
        ("held_rate_large_masks", "rate_too_large", _rate_large_masks),
        ("held_rate_small", "rate_too_small", _rate_small),
        ("held_rate_divided", "rate_too_small", _rate_divided),
        ("held_clipped_values", "clip_throttles", _clipped_values),
        ("held_epsilon", "optimizer_epsilon", _epsilon),
        ("held_half_epsilon", "optimizer_epsilon", _half_epsilon),
        ("held_half_underflow", "underflow", _half_underflow),
        ("held_half_overflow", ("overflow", "weights_large"), _half_overflow),
        ("held_sure_judge", "saturated_loss", _sure_judge),
    ),
)
