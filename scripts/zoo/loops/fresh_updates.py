"""Sick loops of the fresh set: the optimizer, dtypes, adversaries, units that died."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from zoo.loops.batches import mean_goal
from zoo.loops.fresh_data import (
    classify,
    cross_entropy_of_tokens,
    customers,
    keyword_text,
    pendulum,
    ratings,
    regress,
    reversals,
    share_explained,
    share_right,
    spots,
    stream,
    stripes,
)
from zoo.loops.fresh_nets import Factors, Reverser, Speller, mlp, stripes_net
from zoo.loops.loop import FRESH, Batch, Parts, loops_of


def _rate_large_sgd(cured: bool) -> Parts:
    """A recommender, by SGD at a rate of 1,000 (of a mean over 128 pairs and 100 rows)."""
    model = Factors()
    optimizer = torch.optim.SGD(model.parameters(), lr=10.0 if cured else 1000.0)
    return stream(ratings, model, optimizer, nn.MSELoss(), share_explained, enough=0.5, steps=400)


def _half_by_adam(cured: bool) -> Parts:
    """Images, by Adam at a rate of 0.5."""
    model = stripes_net()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3 if cured else 0.5)
    return classify(stripes(), model, optimizer, enough=0.8)


def _rate_of_sgd_for_adam(cured: bool) -> Parts:
    """A transformer by Adam, at the rate of 1 that was right for SGD."""
    model = Reverser()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3 if cured else 1.0)
    return stream(
        reversals, model, optimizer, cross_entropy_of_tokens, share_right, enough=0.8, steps=150
    )


def _ten_millionth(cured: bool) -> Parts:
    """Rows, by Adam at a rate of 1e-7."""
    model = mlp(16, 48, 5, act=nn.GELU)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01 if cured else 1e-7)
    return classify(customers(), model, optimizer, enough=0.65)


def _plateau_each_batch(cured: bool) -> Parts:
    """ReduceLROnPlateau is stepped at each batch: the rate is gone within 50 updates."""
    model = mlp(3, 48, 48, 1, act=nn.Tanh)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, patience=100 if cured else 0, factor=0.1, min_lr=1e-9
    )

    def step(model: Any, optimizer: Any, loss: Any, batch: Any) -> None:
        value = loss(model(batch[0]), batch[1])
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        schedule.step(value.item())

    return regress(pendulum(), model, optimizer, enough=0.7, step=step, steps=400)


def _clipped_norm(cured: bool) -> Parts:
    """The norm of all gradients is clipped to 1e-4, for a language model by SGD."""
    model = Speller(nn.GRU)

    def step(model: Any, optimizer: Any, loss: Any, batch: Any) -> None:
        value = loss(model(batch[0]), batch[1])
        optimizer.zero_grad()
        value.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0 if cured else 1e-4)
        optimizer.step()

    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
    return stream(
        keyword_text, model, optimizer, cross_entropy_of_tokens, share_right, enough=0.5, step=step
    )


def _epsilon_of_one(cured: bool) -> Parts:
    """Adam with an epsilon of 1, as for some large nets of images, at a rate of 3e-3."""
    model = stripes_net()
    eps = 1e-8 if cured else 1.0
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3, eps=eps)
    return classify(stripes(), model, optimizer, enough=0.8)


def _large_first_steps(cured: bool) -> Parts:
    """A schedule begins at 2,000 times its rate for three updates: ReLU units die, for good."""
    model = mlp(3, 48, 48, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda i: 1.0 if cured or i >= 3 else 2000.0
    )

    def step(model: Any, optimizer: Any, loss: Any, batch: Any) -> None:
        value = loss(model(batch[0]), batch[1])
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        schedule.step()

    loss = nn.SmoothL1Loss()
    return regress(pendulum(), model, optimizer, loss, enough=0.6, step=step, steps=400)


def _in_half(parts: Parts) -> Parts:
    """The same training with a model and inputs in float16, whose score is of float32."""
    score = parts.goal.score

    def halved(batches: Any) -> Iterator[Batch]:
        for x, y in batches:
            yield (x.half() if x.is_floating_point() else x), y

    def in_float32(model: nn.Module) -> Tensor:
        value = score(model.float())
        model.half()
        return torch.tensor(value)

    parts.batches = halved(parts.batches)
    parts.goal = mean_goal(in_float32, parts.goal.enough)
    return parts


def _small_part_in_half(cured: bool) -> Parts:
    """An autoencoder in float16, whose mean over all pixels has a weight of 1e-4."""
    images = spots().flatten(1)
    weight = 1.0 if cured else 1e-4

    def loss(output: Tensor, y: Tensor) -> Tensor:
        return weight * nn.functional.mse_loss(output, y.half())

    model = mlp(100, 48, 12, 48, 100, act=nn.Tanh)
    optimizer = torch.optim.SGD(model.half().parameters(), lr=4.0 / weight)
    return _in_half(regress((images, images), model, optimizer, loss, enough=0.2, steps=400))


class _Attention(nn.Module):
    """One attention over a set of columns, whose softmax is by hand."""

    def __init__(self, *, by_hand: bool) -> None:
        super().__init__()
        self.columns = nn.Parameter(torch.randn(16, 32))
        self.query, self.key = nn.Linear(32, 64), nn.Linear(32, 64)
        self.value, self.readout = nn.Linear(32, 32), nn.Linear(512, 5)
        self.by_hand = by_hand

    def forward(self, x: Tensor) -> Tensor:
        tokens = x[:, :, None] * self.columns
        scores = 1.5 * self.query(tokens) @ self.key(tokens).transpose(1, 2)
        if self.by_hand:
            weights = scores.exp() / scores.exp().sum(-1, keepdim=True)
        else:
            weights = scores.softmax(-1)
        return self.readout((tokens + weights @ self.value(tokens)).flatten(1))


def _exponentials_in_half(cured: bool) -> Parts:
    """exp of scores of attention in float16, without their largest subtracted: inf over inf."""
    model = _Attention(by_hand=not cured).half()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def loss(output: Tensor, y: Tensor) -> Tensor:
        return nn.functional.cross_entropy(output.float(), y)

    return _in_half(classify(customers(), model, optimizer, loss, enough=0.5, steps=100))


def _adam_in_half(cured: bool) -> Parts:
    """`model.half()` and Adam: its epsilon of 1e-8 is 0 in float16."""
    model = Speller(nn.GRU).half()
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3, eps=1e-4 if cured else 1e-8)

    def loss(output: Tensor, y: Tensor) -> Tensor:
        return cross_entropy_of_tokens(output.float(), y)

    return _in_half(
        stream(keyword_text, model, optimizer, loss, share_right, enough=0.4, steps=100)
    )


class _Ring(nn.Module):
    """Makes points on a ring."""

    def __init__(self) -> None:
        super().__init__()
        self.maker = mlp(4, 48, 48, 2, act=lambda: nn.LeakyReLU(0.2))
        self.judge = mlp(2, 48, 48, 1, act=lambda: nn.LeakyReLU(0.2))
        self.other = torch.optim.Adam(self.judge.parameters(), lr=2e-3, betas=(0.5, 0.99))

    def forward(self, noise: Tensor) -> Tensor:
        return self.maker(noise)


def _too_good_a_judge(cured: bool) -> Parts:
    """log(1 - D(G(z))), and a judge that is trained to its end before the maker begins."""
    model = _Ring()

    def real(num: int) -> Tensor:
        x = torch.randn(num, 2)
        return 10 * x / x.norm(dim=1, keepdim=True) + 20

    def loss(made: Tensor) -> Tensor:
        score = model.judge(made)
        softplus = nn.functional.softplus
        return softplus(-score).mean() if cured else -softplus(score).mean()

    def teach(noise: Tensor) -> None:
        made = model.maker(noise).detach()
        softplus = nn.functional.softplus
        wrong = softplus(-model.judge(real(64))).mean() + softplus(model.judge(made)).mean()
        model.other.zero_grad()
        wrong.backward()
        model.other.step()

    def step(model: Any, optimizer: Any, loss: Any, batch: Any) -> None:
        teach(batch[0])
        value = loss(model(batch[0]))
        optimizer.zero_grad()
        value.backward()
        optimizer.step()

    noise = torch.randn(400, 4)
    optimizer = torch.optim.SGD(model.maker.parameters(), lr=0.2)
    for _ in range(400):
        teach(torch.randn(64, 4))
    batches = ((torch.randn(64, 4),) for _ in range(300))

    def score(model: nn.Module) -> Tensor:
        return (model(noise).mean(0) - 20).norm()

    return Parts(model, optimizer, loss, batches, mean_goal(score, 12.0, higher=False), step=step)


LOOPS = loops_of(
    FRESH,
    [
        ("fresh_rate_large_sgd", "rate_too_large", _rate_large_sgd),
        ("fresh_half_by_adam", "rate_too_large", _half_by_adam),
        ("fresh_rate_of_sgd_for_adam", "rate_too_large", _rate_of_sgd_for_adam),
        ("fresh_ten_millionth", "rate_too_small", _ten_millionth),
        ("fresh_plateau_each_batch", "rate_too_small", _plateau_each_batch),
        ("fresh_clipped_norm", "clip_throttles", _clipped_norm),
        ("fresh_epsilon_of_one", "optimizer_epsilon", _epsilon_of_one),
        ("fresh_large_first_steps", ("rate_too_large", "dead_units"), _large_first_steps),
        ("fresh_small_part_in_half", "underflow", _small_part_in_half),
        ("fresh_exponentials_in_half", "overflow", _exponentials_in_half),
        ("fresh_adam_in_half", "optimizer_epsilon", _adam_in_half),
        ("fresh_too_good_a_judge", "saturated_loss", _too_good_a_judge),
    ],
)
