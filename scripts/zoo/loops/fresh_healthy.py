"""Healthy loops of the fresh set: ways to train that look like a fault."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from zoo.loops.batches import batches_of, explained_goal, mean_goal
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
    spirals,
    stream,
    stripes,
)
from zoo.loops.fresh_nets import Factors, Reverser, Speller, mlp, stripes_net
from zoo.loops.loop import FRESH, HEALTHY, Batch, Goal, Parts, loops_of


def _warmup_and_average(_cured: bool) -> Parts:
    """OneCycleLR, and an average of the weights that is what counts in the end."""
    model = Reverser()
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=250)
    average = torch.optim.swa_utils.AveragedModel(
        model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.95)
    )

    def step(model: Any, optimizer: Any, loss: Any, batch: Any) -> None:
        value = loss(model(batch[0]), batch[1])
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        schedule.step()
        average.update_parameters(model)

    parts = stream(
        reversals,
        model,
        optimizer,
        cross_entropy_of_tokens,
        share_right,
        enough=0.8,
        step=step,
        steps=250,
    )
    score = parts.goal.score
    parts.goal = Goal(lambda _: score(average), 0.8)
    return parts


def _sparse_ratings(_cured: bool) -> Parts:
    """Sparse gradients of tables, of which most rows are never asked for, by SparseAdam."""
    model = Factors(users=600, items=400, sparse=True)
    optimizer = torch.optim.SparseAdam([*model.parameters()], lr=0.03)
    return stream(ratings, model, optimizer, nn.MSELoss(), share_explained, enough=0.6, steps=400)


def _bandit(_cured: bool) -> Parts:
    """A policy gradient: the loss goes anywhere, the reward goes up."""
    x, best = spirals()
    model = mlp(2, 48, 48, 3, act=nn.Tanh)

    def loss(logits: Tensor, y: Tensor) -> Tensor:
        policy = torch.distributions.Categorical(logits=logits)
        action = policy.sample()
        reward = (action == y).float()
        return -((reward - reward.mean()) * policy.log_prob(action)).mean()

    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    return classify((x, best), model, optimizer, loss, enough=0.6, steps=600)


class _Aided(nn.Module):
    """Two tasks of one trunk, and an auxiliary head that is not used yet."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = mlp(3, 48, 48, act=nn.SiLU)
        self.angle, self.sign, self.spare = nn.Linear(48, 1), nn.Linear(48, 1), nn.Linear(48, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = self.trunk(x).relu()
        return torch.cat((self.angle(h), self.sign(h)), 1)


def _two_tasks(_cured: bool) -> Parts:
    x, angle = pendulum()
    both = torch.cat((angle, (angle > 0).float()), 1)

    def loss(output: Tensor, y: Tensor) -> Tensor:
        says = nn.functional.binary_cross_entropy_with_logits(output[:, 1], y[:, 1])
        return nn.functional.mse_loss(output[:, 0], y[:, 0]) + 0.05 * says

    model = _Aided()
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    parts = regress((x, both), model, optimizer, loss, enough=0.7, steps=300)
    held_back, known = x[-300:], angle[-300:]
    parts.goal = mean_goal(
        lambda model: 1 - (model(held_back)[:, :1] - known).square().mean() / known.var(), 0.7
    )
    return parts


def _much_dropout(_cured: bool) -> Parts:
    """Dropout of 0.6 behind each of three layers."""
    layers = [
        part
        for inputs in (16, 96, 96)
        for part in (nn.Linear(inputs, 96), nn.ReLU(), nn.Dropout(0.6))
    ]
    model = nn.Sequential(*layers, nn.Linear(96, 5))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.1)
    return classify(customers(), model, optimizer, enough=0.65, steps=400)


def _saddle_at_first(_cured: bool) -> Parts:
    """Three linear layers drawn small: nothing happens for long, then all of it."""
    x = torch.randn(1500, 12)
    y = x @ torch.randn(12, 12) / 12**0.5
    model = nn.Sequential(nn.Linear(12, 24), nn.Linear(24, 24), nn.Linear(24, 12))
    for layer in model:
        nn.init.normal_(layer.weight, 0, 0.04)
        nn.init.zeros_(layer.bias)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.6, momentum=0.9)
    return regress((x, y), model, optimizer, enough=0.7, steps=450)


def _derivatives(_cured: bool) -> Parts:
    """A net has to fulfil u'' = -9 u: the loss asks for second derivatives by its inputs."""
    model = mlp(1, 32, 32, 1, act=nn.Tanh)

    def loss(u: Tensor, t: Tensor) -> Tensor:
        slope = torch.autograd.grad(u.sum(), t, create_graph=True)[0]
        bend = torch.autograd.grad(slope.sum(), t, create_graph=True)[0]
        start = t.new_zeros(1, 1).requires_grad_()
        first = model(start)
        speed = torch.autograd.grad(first.sum(), start, create_graph=True)[0]
        at_start = (first - 1).square().sum() + speed.square().sum()
        return (bend + 9 * u).square().mean() / 20 + 5 * at_start

    def times() -> Iterator[Batch]:
        for _ in range(600):
            t = torch.rand(64, 1).requires_grad_()
            yield t, t

    t = torch.linspace(0, 1, 100)[:, None]
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    return Parts(model, optimizer, loss, times(), explained_goal(t, (3 * t).cos(), 0.9))


def _margins(_cured: bool) -> Parts:
    """A hinge: near the end, most batches have a loss and a gradient of exactly 0."""
    x = torch.randn(1200, 6)
    kind = (x[:, 0] + x[:, 1] > 0).long() + 2 * (x[:, 2] > 0).long()
    x = x + 2.0 * nn.functional.one_hot(kind, 6).float() * 2
    model = mlp(6, 48, 4)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    loss = nn.MultiMarginLoss(margin=0.5)
    return classify((x, kind), model, optimizer, loss, enough=0.9, steps=400)


def _pieces_of_text(_cured: bool) -> Parts:
    """Truncated backpropagation: the state goes from piece to piece, without its history."""
    model = Speller(nn.GRU)

    def step(model: Any, optimizer: Any, loss: Any, batch: Any) -> None:
        state = None
        for x, y in zip(batch[0].chunk(3, 1), batch[1].chunk(3, 1), strict=True):
            h, state = model.cell(model.embedding(x), state)
            state = state.detach()
            value = loss(model.readout(h), y)
            optimizer.zero_grad()
            value.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 0.25)
            optimizer.step()

    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    return stream(
        lambda steps: keyword_text(steps, length=36),
        model,
        optimizer,
        cross_entropy_of_tokens,
        share_right,
        enough=0.6,
        step=step,
        steps=80,
    )


def _scaled_half(_cured: bool) -> Parts:
    """Autocast to float16 with GradScaler: the first updates overflow and are left out."""
    model = mlp(16, 64, 64, 5)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**22)

    def step(model: Any, optimizer: Any, loss: Any, batch: Any) -> None:
        with torch.autocast("cpu", torch.float16):
            output = model(batch[0])
        value = loss(output.float(), batch[1])
        optimizer.zero_grad()
        scaler.scale(value).backward()
        scaler.step(optimizer)
        scaler.update()

    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    return classify(customers(), model, optimizer, enough=0.68, step=step)


def _fine_tuned(_cured: bool) -> Parts:
    """A net that has learned grey images goes on with coloured ones at a rate of 3e-4."""
    images, kind = stripes()
    model = stripes_net(act=nn.SiLU)
    before = torch.optim.Adam(model.parameters(), lr=4e-3)
    for x, y in batches_of(images[:-300], kind[:-300], 15):
        grey = x.mean(1, keepdim=True).expand(-1, 3, -1, -1)
        before.zero_grad()
        nn.functional.cross_entropy(model(grey), y).backward()
        before.step()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4)
    return classify((images, kind), model, optimizer, enough=0.9, steps=150)


LOOPS = loops_of(
    FRESH,
    [
        ("fresh_healthy_warmup_and_average", HEALTHY, _warmup_and_average),
        ("fresh_healthy_sparse_ratings", HEALTHY, _sparse_ratings),
        ("fresh_healthy_bandit", HEALTHY, _bandit),
        ("fresh_healthy_two_tasks", HEALTHY, _two_tasks),
        ("fresh_healthy_much_dropout", HEALTHY, _much_dropout),
        ("fresh_healthy_saddle_at_first", HEALTHY, _saddle_at_first),
        ("fresh_healthy_derivatives", HEALTHY, _derivatives),
        ("fresh_healthy_margins", HEALTHY, _margins),
        ("fresh_healthy_pieces_of_text", HEALTHY, _pieces_of_text),
        ("fresh_healthy_scaled_half", HEALTHY, _scaled_half),
        ("fresh_healthy_fine_tuned", HEALTHY, _fine_tuned),
    ],
)
