"""Healthy loops of the set `forums`: losses that people asked about, and that were right."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch import Tensor, nn

from zoo.loops.batches import mean_goal
from zoo.loops.forum_data import explained, figures, fit, mlp, right, small_cnn, stream, waves
from zoo.loops.loop import FORUMS, HEALTHY, Batch, Parts, loops_of


class _Coupling(nn.Module):
    """Scales and shifts one half of the columns by what the other half says."""

    def __init__(self, turns: bool) -> None:
        super().__init__()
        self.net = mlp(1, 24, 2)
        nn.init.zeros_(self.net[-1].weight)
        nn.init.zeros_(self.net[-1].bias)
        self.turns = turns

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        kept, moved = x.flip(1).chunk(2, 1) if self.turns else x.chunk(2, 1)
        scale, shift = self.net(kept).chunk(2, 1)
        moved = moved * scale.exp() + shift
        both = torch.cat((kept, moved), 1)
        return both.flip(1) if self.turns else both, scale.sum(1)


class _Flow(nn.Module):
    """The log density of points of the plane."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_Coupling(turns=i % 2 == 1) for i in range(4))

    def forward(self, x: Tensor) -> Tensor:
        total = torch.zeros(len(x))
        for layer in self.layers:
            x, log_det = layer(x)
            total = total + log_det
        return total - 0.5 * x.square().sum(1) - math.log(math.tau)


def _density_above_one(_: bool) -> Parts:
    """The negative log likelihood of a flow falls below 0.

    GitHub google-deepmind/distrax, issue #202: "This is expected ... there is no requirement that
    p(x) < 1". Also bayesiains/nflows, issue #76; marco-rudolph/differnet, issue #42.
    """
    model = _Flow()
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)

    def draw(num: int) -> Batch:
        x = 0.1 * torch.randn(num, 2)
        x[:, 1] = 2 * x[:, 0].square() * 5 + 0.02 * torch.randn(num)
        return x, torch.zeros(num)

    def minus(log_p: Tensor, _zeros: Tensor) -> Tensor:
        return -log_p.mean()

    x, _ = draw(500)

    def bits(model: Any) -> Tensor:
        return -model(x).mean()

    goal = mean_goal(bits, -2.2, higher=False)
    return stream(draw, model, optimizer, minus, goal, 400)


class _Coder(nn.Module):
    """A variational autoencoder of digits."""

    def __init__(self, code: int = 8) -> None:
        super().__init__()
        self.encoder, self.decoder = mlp(64, 64, 2 * code), mlp(code, 64, 64)
        self.code = code

    def forward(self, x: Tensor) -> Tensor:
        mean, log_var = self.encoder(x).chunk(2, 1)
        z = mean + (0.5 * log_var).exp() * torch.randn_like(mean)
        return torch.cat((self.decoder(z), mean, log_var), 1)

    def parts(self, output: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """How far the digits are, and the divergence, each a mean over the batch."""
        made, mean, log_var = output.split([64, self.code, self.code], 1)
        divergence = 0.5 * (mean.square() + log_var.exp() - 1 - log_var).sum(1).mean()
        return (made - x).square().sum(1).mean(), divergence


def _loss_rises_with_the_weight(_: bool) -> Parts:
    """The weight of the divergence grows from 1e-4 to 0.3, and the whole loss rises with it.

    GitHub nv-tlabs/LION, issue #17: "this is expected since we 1) increase KL loss weight ... 2)
    initialize the VAE as an identity mapping ... the loss curve will keep increasing". A trained
    autoencoder is what it starts from.
    """
    (x, _), (kept, _) = figures()
    model = _Coder()
    before = torch.optim.Adam(model.parameters(), lr=5e-3)
    for _ in range(150):
        rows = x[torch.randint(len(x), (128,))]
        before.zero_grad()
        model.parts(model(rows), rows)[0].backward()
        before.step()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    weight = [1e-4]

    def elbo(output: Tensor, x: Tensor) -> Tensor:
        far, divergence = model.parts(output, x)
        return far + weight[0] * divergence

    def step(model: Any, optimizer: Any, loss: Any, batch: Any) -> None:
        value = loss(model(batch[0]), batch[1])
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        weight[0] = min(0.3, weight[0] * 1.03)

    def bound(model: Any) -> Tensor:
        far, divergence = model.parts(model(kept), kept)
        return far + 0.3 * divergence

    data = (x, x), (kept, kept)
    goal = mean_goal(bound, 4.6, higher=False)
    return fit(data, model, optimizer, elbo, goal, 400, step=step)


def _values_grow_with_rewards(_: bool) -> Parts:
    """The loss of a Q network rises at times, since its values rise with what the policy gets.

    GitHub werner-duvaud/muzero-general, issue #96: "Why does the reward reach 500, but loss is on
    the rise"; "The losses in RL are not necessarily decreasing". Also seohongpark/fql, issue #10. A
    walk on eleven places, paid at its end.
    """
    model = nn.Sequential(nn.Embedding(11, 24), *mlp(24, 48, 2))
    target = copy.deepcopy(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    count = [0]

    def draw(num: int) -> Batch:
        return torch.randint(10, (num,)), torch.randint(2, (num,))

    def step(model: Any, optimizer: Any, loss: Any, batch: Any) -> None:
        place, action = batch
        to = (place + 2 * action - 1).clamp(min=0)
        with torch.no_grad():
            later = target(to).max(1).values
        aim = 10.0 * (to == 10) + 0.9 * later * (to < 10)
        value = loss(model(place).gather(1, action[:, None])[:, 0], aim)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        count[0] += 1
        if count[0] % 20 == 0:
            target.load_state_dict(model.state_dict())

    def forward_steps(model: Any) -> Tensor:
        return (model(torch.arange(10)).argmax(1) == 1).float().mean()

    goal = mean_goal(forward_steps, 0.95)
    return stream(draw, model, optimizer, nn.SmoothL1Loss(), goal, 600, step=step)


def _critic_below_zero(_: bool) -> Parts:
    """The loss of a Wasserstein critic is negative, and rises towards 0 as the generator learns.

    GitHub igul222/improved_wgan_training, issue #44: "You in fact want D loss to be a large
    negative value within the first ~1000 iters, and then want it to increase steadily". Also
    DegardinBruno/Kinetic-GAN, issue #1. Watched is the critic, whose weights are clipped.
    """
    model = mlp(2, 48, 48, 1)
    maker = mlp(4, 32, 2)
    makes = torch.optim.RMSprop(maker.parameters(), lr=1e-3)
    optimizer = torch.optim.RMSprop(model.parameters(), lr=1e-3)
    centre = torch.tensor([2.0, -1.5])

    def draw(num: int) -> Batch:
        return centre + 0.5 * torch.randn(num, 2), torch.randn(num, 4)

    def critic(of_real: Tensor, of_made: Tensor) -> Tensor:
        return of_made.mean() - of_real.mean()

    def step(model: Any, optimizer: Any, loss: Any, batch: Any) -> None:
        real, noise = batch
        of_both = model(torch.cat((real, maker(noise).detach())))
        value = loss(*of_both.chunk(2))
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        with torch.no_grad():
            for each in model.parameters():
                each.clamp_(-0.1, 0.1)
        if torch.rand(()) < 0.3:
            makes.zero_grad()
            given = torch.autograd.grad(-model(maker(noise)).mean(), list(maker.parameters()))
            for each, grad in zip(maker.parameters(), given, strict=True):
                each.grad = grad
            makes.step()

    def apart(_model: nn.Module) -> Tensor:
        return (maker(torch.randn(500, 4)).mean(0) - centre).norm()

    goal = mean_goal(apart, 1.0, higher=False)
    return stream(draw, model, optimizer, critic, goal, 900, step=step)


def _log_softmax_twice(_: bool) -> Parts:
    """`CrossEntropyLoss` behind a `LogSoftmax`, which changes nothing the second time.

    After the kind of answers "do not use LogSoftmax with CrossEntropyLoss" to those whose net
    trained well: the logarithm of a softmax of log probabilities are those log probabilities.
    """
    data = figures(as_images=True)
    model = small_cnn(10).append(nn.LogSoftmax(1))
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    return fit(data, model, optimizer, nn.CrossEntropyLoss(), right(data, 0.85), 350)


def _all_pairs_on_purpose(_: bool) -> Parts:
    """Scores (N, 1) and ratings (N,) are broadcast against each other: a loss of all pairs.

    After the kind of ranking losses that are written as a difference of a column and a row, and
    are warned of as a wrong shape.
    """
    data = waves()
    data = (data[0][0], data[0][1][:, 0]), (data[1][0], data[1][1][:, 0])
    model = mlp(8, 48, 48, 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)

    def pairs(scores: Tensor, ratings: Tensor) -> Tensor:
        apart = scores - scores[:, 0]
        is_more = (ratings[:, None] > ratings).float()
        return nn.functional.binary_cross_entropy_with_logits(apart, is_more)

    x, ratings = data[1]

    def ordered(model: Any) -> Tensor:
        scores = model(x)
        return ((scores > scores[:, 0]) == (ratings[:, None] > ratings)).float().mean()

    return fit(data, model, optimizer, pairs, mean_goal(ordered, 0.85), 400)


def _missing_targets(_: bool) -> Parts:
    """A third of the targets of six tasks are nan, and a mask leaves them out.

    GitHub BLAST-AI-ML/synapse, pull request #237: "NaNs correspond to missing values in the dataset
    and should be simply ignored in the loss function". They are taken out before the difference,
    so that none comes back.
    """
    (x, y), (kept_x, kept_y) = waves()
    y, kept_y = torch.cat((y, -y, x[:, :4]), 1), torch.cat((kept_y, -kept_y, kept_x[:, :4]), 1)
    y = y.masked_fill(torch.rand_like(y) < 0.33, torch.nan)
    data = (x, y), (kept_x, kept_y)
    model = mlp(8, 64, 64, 6)
    optimizer = torch.optim.Adam(model.parameters(), lr=4e-3)

    def known(said: Tensor, y: Tensor) -> Tensor:
        there = y.isfinite()
        return nn.functional.mse_loss(said[there], y[there])

    return fit(data, model, optimizer, known, explained(data, 0.75), 400)


def _linear_from_zeros(_: bool) -> Parts:
    """A linear model of notes begins at zeros, and nothing else.

    GitHub jthickstun/pytorch_musicnet, issue #4: "This is a linear model, so zero-initialization is
    fine because there are no symmetries in the loss surface that need to be broken". Many labels,
    each of its own.
    """
    (x, y), (kept_x, kept_y) = figures()
    wanted = torch.stack([y < 3, y % 2 == 0, (y == 1) | (y == 7)], 1).float()
    kept = torch.stack([kept_y < 3, kept_y % 2 == 0, (kept_y == 1) | (kept_y == 7)], 1)
    model = nn.Linear(64, 3)
    nn.init.zeros_(model.weight)
    nn.init.zeros_(model.bias)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3, momentum=0.9)

    def share(model: Any) -> Tensor:
        return ((model(kept_x) > 0) == kept).float().mean()

    data = (x, wanted), (kept_x, kept.float())
    return fit(data, model, optimizer, nn.BCEWithLogitsLoss(), mean_goal(share, 0.85), 400)


LOOPS = loops_of(
    FORUMS,
    [
        ("forum_density_above_one", HEALTHY, _density_above_one),
        ("forum_loss_rises_with_the_weight", HEALTHY, _loss_rises_with_the_weight),
        ("forum_values_grow_with_rewards", HEALTHY, _values_grow_with_rewards),
        ("forum_critic_below_zero", HEALTHY, _critic_below_zero),
        ("forum_log_softmax_twice", HEALTHY, _log_softmax_twice),
        ("forum_all_pairs_on_purpose", HEALTHY, _all_pairs_on_purpose),
        ("forum_missing_targets", HEALTHY, _missing_targets),
        ("forum_linear_from_zeros", HEALTHY, _linear_from_zeros),
    ],
)
