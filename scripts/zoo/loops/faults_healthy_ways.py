"""Healthy loops of the set `faults`: units, losses and ways to train that alarm, and learn."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from zoo.loops.batches import accuracy_goal, mean_goal
from zoo.loops.faults_data import (
    WORDS,
    digits,
    discs,
    explained,
    fit,
    mlp,
    moons,
    prices,
    reviews,
    right,
    stream,
)
from zoo.loops.loop import FAULTS, HEALTHY, Batch, Goal, Parts, loops_of


class _Sparse(nn.Module):
    """An autoencoder of which only the eight largest of 128 hidden values are kept."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Linear(64, 128), nn.Linear(128, 64)

    def forward(self, x: Tensor) -> Tensor:
        h = self.encoder(x).relu()
        top = h.topk(8, 1)
        return self.decoder(torch.zeros_like(h).scatter(1, top.indices, top.values))


def _most_units_off(_cured: bool) -> Parts:
    """A top-k sparse autoencoder: many units are never among the eight, and are dead.

    Looks like AUTOTRAINER's "dying ReLU".
    """
    (x, _), (x_test, _) = digits()
    data = (x, x), (x_test, x_test)
    model = _Sparse()
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    return fit(data, model, optimizer, nn.MSELoss(), explained(data, 0.6), steps=350)


class _Probabilities(nn.Module):
    """Ends in a softmax, and says the logarithm by itself in the loss."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.EmbeddingBag(WORDS, 16)
        self.read = nn.Linear(16, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.read(self.embed(x)).softmax(1)


def _softmax_and_logarithm(_cured: bool) -> Parts:
    """The model ends in a softmax, and the loss is `nll_loss` of its logarithm: only one softmax.

    Looks like Humbatova et al.'s "redundant softmax layer".
    """
    model = _Probabilities()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)

    def loss(output: Tensor, y: Tensor) -> Tensor:
        return nn.functional.nll_loss((output + 1e-9).log(), y)

    goal = accuracy_goal(*reviews(600), 0.88)
    return stream(reviews, model, optimizer, loss, goal, steps=300)


class _Density(nn.Module):
    """A mixture of eight narrow bells."""

    def __init__(self) -> None:
        super().__init__()
        self.net = mlp(1, 32, 3 * 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


def _loss_below_zero(_cured: bool) -> Parts:
    """A mixture density network: the negative log-likelihood of narrow bells goes below 0.

    Looks like Humbatova et al.'s "wrong loss function calculation".
    """

    def draw(num: int) -> Batch:
        x = 2 * torch.rand(num, 1) - 1
        side = torch.randint(2, (num, 1)) * 2.0 - 1
        return x, side * (0.3 + 0.2 * x) + 0.02 * torch.randn(num, 1)

    model = _Density()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)

    def likelihood(output: Tensor, y: Tensor) -> Tensor:
        weight, mean, log_std = output.chunk(3, 1)
        log_std = log_std.clamp(-5, 2)
        each = -0.5 * ((y - mean) / log_std.exp()).square() - log_std - 0.919
        return -(weight.log_softmax(1) + each).logsumexp(1).mean()

    x, y = draw(500)
    goal = mean_goal(lambda model: likelihood(model(x), y), -0.6, higher=False)
    return stream(draw, model, optimizer, likelihood, goal, steps=500)


def _four_micro_batches(_cured: bool) -> Parts:
    """Gradients of four micro-batches add up before each step, and are cleared after it.

    Looks like NeuraLint's "gradients are not cleared".
    """
    data = moons()
    model = mlp(2, 32, 32, 2)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    count = [0]

    def step(model: Any, optimizer: Any, loss: Any, batch: Any) -> None:
        count[0] += 1
        (loss(model(batch[0]), batch[1]) / 4).backward()
        if count[0] % 4 == 0:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    loss = nn.CrossEntropyLoss()
    goal = right(data, 0.93)
    return fit(data, model, optimizer, loss, goal, steps=800, size=16, step=step)


class _TwoHeads(nn.Module):
    """A trunk, the head that is trained, and one that waits for a later task."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Conv2d(1, 8, 5, padding=2), nn.ReLU())
        self.mask = nn.Conv2d(8, 1, 5, padding=2)
        self.later = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.mask(self.trunk(x))


def _head_for_later(_cured: bool) -> Parts:
    """A head for a later task has no gradient; most pixels are background.

    Looks like a redundant layer, and like DeepCrime's "unbalance training data" (TUD).
    """
    data = discs()
    model = _TwoHeads()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)

    def score(model: nn.Module) -> float:
        x, mask = data[1]
        found = (model(x) > 0).float()
        return float((found * mask).sum() / (found + mask).clamp_max(1).sum())

    loss = nn.BCEWithLogitsLoss()
    return fit(data, model, optimizer, loss, Goal(score, 0.6), steps=200, size=32)


class _Adversary(nn.Module):
    """A generator of points on a ring; its critic is trained by an optimizer of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.generator, self.critic = mlp(4, 32, 32, 2), mlp(2, 32, 32, 1, act=nn.LeakyReLU)

    def forward(self, z: Tensor) -> Tensor:
        return self.generator(z)


def _two_optimizers(_cured: bool) -> Parts:
    """A GAN with two optimizers: its losses do not fall, and the critic's steps detach.

    Looks like AUTOTRAINER's "oscillating loss".
    """
    model = _Adversary()
    of_generator = torch.optim.Adam(model.generator.parameters(), lr=1e-3, betas=(0.5, 0.99))
    of_critic = torch.optim.Adam(model.critic.parameters(), lr=2e-3, betas=(0.5, 0.99))

    def draw(num: int) -> Batch:
        turn = 2 * torch.pi * torch.rand(num)
        ring = torch.stack((turn.cos(), turn.sin()), 1) + 0.05 * torch.randn(num, 2)
        return torch.randn(num, 4), ring

    def step(model: Any, optimizer: Any, loss: Any, batch: Any) -> None:
        made, real = model(batch[0]), batch[1]
        said = model.critic(torch.cat((made.detach(), real)))
        is_real = torch.cat((torch.zeros(len(made), 1), torch.ones(len(real), 1)))
        of_critic.zero_grad()
        nn.functional.binary_cross_entropy_with_logits(said, is_real).backward()
        of_critic.step()
        optimizer.zero_grad()
        loss(model.critic(made), torch.ones(len(made), 1)).backward()
        optimizer.step()

    z = torch.randn(400, 4)
    goal = mean_goal(lambda model: (model(z).norm(dim=1) - 1).abs().mean(), 0.25, higher=False)
    loss = nn.BCEWithLogitsLoss()
    return stream(draw, model, of_generator, loss, goal, steps=600, step=step)


def _next_room(state: Tensor, action: Tensor) -> Tensor:
    return (state + 2 * action - 1).clamp(0, 7)


def _target_network(_cured: bool) -> Parts:
    """Q-learning in a corridor: targets are of a frozen copy, the loss goes up as values grow.

    Looks like frozen parameters and a loss that rises (AUTOTRAINER, "oscillating loss").
    """
    model = mlp(8, 32, 2)
    target = copy.deepcopy(model).requires_grad_(False)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    count = [0]

    def draw(num: int) -> Batch:
        return torch.randint(7, (num,)), torch.randint(2, (num,))

    def step(model: Any, optimizer: Any, loss: Any, batch: Any) -> None:
        state, action = batch
        following = _next_room(state, action)
        with torch.no_grad():
            ahead = target(_one_hot(following)).amax(1)
            wanted = torch.where(following == 7, 10.0, 0.9 * ahead)
        value = loss(model(_one_hot(state)).gather(1, action[:, None])[:, 0], wanted)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        count[0] += 1
        if count[0] % 25 == 0:
            target.load_state_dict(model.state_dict())

    def error(model: nn.Module) -> Tensor:
        room = torch.arange(7)
        return (model(_one_hot(room)).amax(1) - 10 * 0.9 ** (6 - room)).abs().mean()

    goal = mean_goal(error, 0.5, higher=False)
    return stream(draw, model, optimizer, nn.SmoothL1Loss(), goal, steps=500, step=step)


def _one_hot(state: Tensor) -> Tensor:
    return nn.functional.one_hot(state, 8).float()


def _sigmoid_of_a_share(_cured: bool) -> Parts:
    """A regression ends in a sigmoid, and its targets are shares between 0 and 1.

    Looks like NeuraLint's rule on the last layer. The read-out begins at 0 on purpose.
    """
    (x, y), (x_test, y_test) = prices()
    data = (x, y.sigmoid()), (x_test, y_test.sigmoid())
    model = mlp(8, 48, 48, 1).append(nn.Sigmoid())
    nn.init.zeros_(model[-2].weight)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)

    def loss(output: Tensor, y: Tensor) -> Tensor:
        return nn.functional.mse_loss(output[:, 0], y)

    return fit(data, model, optimizer, loss, explained(data, 0.7), steps=500)


LOOPS = loops_of(
    FAULTS,
    [
        ("faults_fine_most_units_off", HEALTHY, _most_units_off),
        ("faults_fine_softmax_and_logarithm", HEALTHY, _softmax_and_logarithm),
        ("faults_fine_loss_below_zero", HEALTHY, _loss_below_zero),
        ("faults_fine_four_micro_batches", HEALTHY, _four_micro_batches),
        ("faults_fine_head_for_later", HEALTHY, _head_for_later),
        ("faults_fine_two_optimizers", HEALTHY, _two_optimizers),
        ("faults_fine_target_network", HEALTHY, _target_network),
        ("faults_fine_sigmoid_of_a_share", HEALTHY, _sigmoid_of_a_share),
    ],
)
