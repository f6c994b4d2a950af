"""Sick loops of the set `reports`: losses and what is given to them."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from zoo.loops.batches import mean_goal
from zoo.loops.loop import REPORTS, Batch, Parts, loops_of
from zoo.loops.report_data import (
    arms,
    bandit,
    blobs,
    digits,
    explained,
    fit,
    friedman,
    mlp,
    overlap,
    right,
    stream,
    tells,
)

# ---------------------------------------------------------------- probabilities


class _Bigram(nn.Module):
    """Says the next of thirty characters from the one before."""

    def __init__(self, *, is_softmaxed: bool) -> None:
        super().__init__()
        self.embedding = nn.Embedding(30, 64)
        self.linear = mlp(64, 64, 30)
        self.is_softmaxed = is_softmaxed

    def forward(self, idx: Tensor) -> Tensor:
        a = self.linear(self.embedding(idx))
        return a.softmax(-1) if self.is_softmaxed else a


def _characters(num: int) -> Batch:
    generator = torch.Generator().manual_seed(8)
    follows = torch.stack([torch.randperm(30, generator=generator) for _ in range(2)])
    tokens = [torch.randint(30, (num,))]
    for _ in range(8):
        tokens.append(follows[(torch.rand(num) < 0.15).long(), tokens[-1]])
    tokens_ = torch.stack(tokens, 1)
    return tokens_[:, :-1].flatten(), tokens_[:, 1:].flatten()


def _softmax_of_characters(cured: bool) -> Parts:
    """A language model gives softmaxed "logits" to `F.cross_entropy`.

    GitHub bkitano/llama-from-scratch, issue #5: "no need to softmax before cross_entropy".
    """
    model = _Bigram(is_softmaxed=not cured)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    loss = nn.CrossEntropyLoss()
    x, y = _characters(200)
    goal = mean_goal(lambda model: loss(model(x), y), 1.2, higher=False)
    return stream(_characters, model, optimizer, loss, goal, steps=250, size=32)


class _Unet(nn.Module):
    """One level down, one up, with a connection across."""

    def __init__(self, *, ends_in_sigmoid: bool) -> None:
        super().__init__()
        self.into = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU())
        self.down = nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(8, 16, 3, padding=1), nn.ReLU())
        self.up = nn.ConvTranspose2d(16, 8, 2, 2)
        self.out = nn.Conv2d(16, 1, 3, padding=1)
        self.ends_in_sigmoid = ends_in_sigmoid

    def forward(self, x: Tensor) -> Tensor:
        h = self.into(x)
        d1 = self.out(torch.cat((h, self.up(self.down(h))), 1))
        return d1.sigmoid() if self.ends_in_sigmoid else d1


def _sigmoid_twice(cured: bool) -> Parts:
    """A U-net ends in a sigmoid and is trained by `BCEWithLogitsLoss`.

    GitHub avBuffer/UNet3plus_pth, issue #23: "you're applying sigmoid twice and the loss may not
    decrease". Its masks are what is above half after the sigmoid of the loss.
    """
    data = blobs()
    model = _Unet(ends_in_sigmoid=not cured)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    loss = nn.BCEWithLogitsLoss()
    return fit(data, model, optimizer, loss, overlap(data, 0.7), steps=150, size=32)


def _softmax_of_one(cured: bool) -> Parts:
    """A softmax over one unit, which is 1 whatever comes in, and a binary cross-entropy.

    Stack Overflow 42800203, as the benchmark of DeepFD records it: `Dense(1, activation='softmax')`
    repaired to `'sigmoid'`.
    """
    x, y = arms()[0]
    data = ((x[:-300], y[:-300, None].float()), (x[-300:], y[-300:, None].float()))
    model = mlp(2, 32, 32, 1, act=nn.Tanh)
    model.append(nn.Sigmoid() if cured else nn.Softmax(dim=1))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    return fit(data, model, optimizer, nn.BCELoss(), tells(data, 0.85, middle=0.5), steps=400)


# ---------------------------------------------------------------- shapes and ranges


def _sum_of_three(cured: bool) -> Parts:
    """`MSELoss` of an output of (1024, 1) and targets of (1024,).

    discuss.pytorch.org/t/148155: "Using a target size (torch.Size([1024])) that is different to the
    input size"; after `y.unsqueeze(1)` it learns. A linear layer, here with its bias, has to sum
    three numbers.
    """
    x = torch.rand(1024, 3)
    y = x[:, 0] + x[:, 1] + x[:, 2]
    model = nn.Sequential(nn.Linear(3, 1))
    nn.init.zeros_(model[0].weight)
    optimizer = torch.optim.SGD(model.parameters(), lr=10e-2)
    shown = y.unsqueeze(1) if cured else y

    def value(model: nn.Module) -> Tensor:
        return 1 - (model(x)[:, 0] - y).square().mean() / y.var()

    batches = ((x, shown) for _ in range(500))
    return Parts(model, optimizer, nn.MSELoss(), batches, mean_goal(value, 0.9))


def _values_against_a_row(cured: bool) -> Parts:
    """Values of the actions taken, (B, 1), against `r + gamma * max Q`, (B,).

    GitHub hungtuchen/pytorch-dqn, issue #3: "the size of `target_Q_values` and that of
    `current_Q_values` does not matched well. I have changed to `next_max_q.unsqueeze(-1)`".
    """
    model = mlp(6, 48, 48, 4)
    target = copy.deepcopy(model)
    optimizer = torch.optim.RMSprop(model.parameters(), lr=2e-3)
    count = [0]

    def step(model: Any, optimizer: Any, loss: Any, batch: Any) -> None:
        x, best = batch
        action = torch.randint(4, (len(x), 1))
        reward = (action[:, 0] == best).float()
        with torch.no_grad():
            wanted = reward + 0.3 * target(x.roll(1, 0)).amax(1)
        value = loss(model(x).gather(1, action), wanted.unsqueeze(-1) if cured else wanted)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        count[0] += 1
        if count[0] % 50 == 0:
            target.load_state_dict(model.state_dict())

    x, best = bandit(500)
    goal = mean_goal(lambda model: (model(x).argmax(1) == best).float().mean(), 0.65)
    loss = nn.SmoothL1Loss()
    return stream(bandit, model, optimizer, loss, goal, steps=500, size=64, step=step)


def _ten_labels_one_sigmoid(cured: bool) -> Parts:
    """Labels from 0 to 9, one sigmoid, and binary cross-entropy: the loss falls below 0.

    datascience.stackexchange.com/questions/38604: "loss doesn't change at all", -55.0, and an
    accuracy of 11 %. `binary_crossentropy` as Keras computes it.
    """
    data = digits()
    loss: Any
    if cured:
        model, loss = mlp(64, 64, 10), nn.CrossEntropyLoss()
    else:
        model = mlp(64, 64, 1).append(nn.Sigmoid())

        def loss(output: Tensor, y: Tensor) -> Tensor:
            p, y = output[:, 0].clamp(1e-7, 1 - 1e-7), y.float()
            return -(y * p.log() + (1 - y) * (1 - p).log()).mean()

    x, y = data[1]

    def value(model: nn.Module) -> Tensor:
        said = model(x)
        return ((said.argmax(1) if cured else said[:, 0].round()) == y).float().mean()

    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    return fit(data, model, optimizer, loss, mean_goal(value, 0.8), steps=300)


def _sigmoid_for_quantities(cured: bool) -> Parts:
    """A net for quantities from 0 to 30 ends in a sigmoid.

    Stack Overflow 48221692, as the benchmark of DeepFD records it: `Dense(1,
    activation='sigmoid')` repaired to `'linear'`.
    """
    data = friedman()
    model = mlp(10, 64, 64, 1)
    if not cured:
        model.append(nn.Sigmoid())
    optimizer = torch.optim.RMSprop(model.parameters(), lr=5e-3)
    return fit(data, model, optimizer, nn.MSELoss(), explained(data, 0.7), steps=400)


def _rectified_returns(cured: bool) -> Parts:
    """Targets that are mostly below 0, and a ReLU at the end.

    Stack Overflow 48251943, as the benchmark of DeepFD records it: `Dense(1, activation='relu')`
    repaired to `'tanh'`.
    """
    x = torch.randn(1200, 6)
    y = (0.6 * (x[:, 0] * x[:, 1] + x[:, 2]) - 1.6).tanh()[:, None]
    data = ((x[:-240], y[:-240]), (x[-240:], y[-240:]))
    model = mlp(6, 32, 32, 1).append(nn.Tanh() if cured else nn.ReLU())
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    return fit(data, model, optimizer, nn.MSELoss(), explained(data, 0.6), steps=400)


# ---------------------------------------------------------------- not finite


def _log_of_softmax(cured: bool) -> Parts:
    """`-sum(y * log(softmax))` of one-hot targets: 0 times minus infinity, once a class is sure.

    GitHub aymericdamien/TensorFlow-Examples, issue #383: "After some iterations, it is found that
    the training loss becomes NAN"; repaired by `tf.clip_by_value(pred, 1e-10, 1.0)`.
    """
    data = digits(scale=1.0)
    model = mlp(64, 128, 128, 10)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)

    def loss(output: Tensor, y: Tensor) -> Tensor:
        pred = output.softmax(1)
        if cured:
            pred = pred.clamp(1e-10, 1.0)
        return -(nn.functional.one_hot(y, 10) * pred.log()).sum(1).mean()

    return fit(data, model, optimizer, loss, right(data, 0.85), steps=400)


def _backgrounds(num: int, *, size: int, steps: int) -> Iterator[Batch]:
    x, mask = (torch.cat(each) for each in zip(*blobs(num), strict=True))
    cells = (nn.functional.avg_pool2d(mask, 4) > 0.3).float()
    is_empty = torch.rand(num, 1, 1, 1) < 0.5
    x = torch.where(is_empty, 0.7 * torch.randn_like(x), x)
    cells = cells * ~is_empty
    for _ in range(steps):
        index = torch.randint(len(x), (size,))
        yield x[index], cells[index]


def _no_object_in_the_batch(cured: bool) -> Parts:
    """A detector's loss is divided by the sum of the target scores, which is 0 for backgrounds.

    GitHub ultralytics/ultralytics, pull request #490: "the `target_scores_sum` we're using in loss
    calculation could be 0 if there're no objects in targets"; now at least 1.
    """
    model = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2))
    model.extend([nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2)])
    model.append(nn.Conv2d(16, 1, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)

    def loss(output: Tensor, cells: Tensor) -> Tensor:
        total = nn.functional.binary_cross_entropy_with_logits(output, cells, reduction="sum")
        count = cells.sum()
        return total / (count.clamp_min(1) if cured else count)

    x, cells = next(_backgrounds(400, size=300, steps=1))

    def value(model: nn.Module) -> Tensor:
        found = (model(x) > 0).float()
        return (found * cells).sum() / (found + cells).clamp_max(1).sum()

    batches = _backgrounds(1200, size=3, steps=500)
    return Parts(model, optimizer, loss, batches, mean_goal(value, 0.5))


def _inverse(num: int) -> Batch:
    y = torch.rand(num, 1)
    x = y + 0.25 * (2 * math.pi * y).sin() + 0.02 * torch.randn(num, 1)
    return 4 * x - 2, 40 * y


def _density_underflows(cured: bool) -> Parts:
    """The mixture's density is summed and then goes into a logarithm: far from all means it is 0.

    GitHub keras-team/keras, issue #1061 (Mixture Density Network: loss inf, then nan) and
    mlberkeley/scae-pytorch, pull request #4: "fix loss nan bug by using logsumexp()".
    """
    model = mlp(1, 48, 48, 9, act=nn.Tanh)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)

    def loss(output: Tensor, y: Tensor) -> Tensor:
        means, scales, weights = output.chunk(3, 1)
        each = -0.5 * ((y - 10 * means) / scales.exp()).square() - scales - 0.919
        if cured:
            return -(weights.log_softmax(1) + each).logsumexp(1).mean()
        return -(weights.softmax(1) * each.exp()).sum(1).log().mean()

    x, y = _inverse(500)
    goal = mean_goal(lambda model: loss(model(x), y), 3.2, higher=False)
    return stream(_inverse, model, optimizer, loss, goal, steps=500)


def _anchor_without_partner(cured: bool) -> Parts:
    """A supervised contrastive loss is divided by how many partners an anchor has: some have none.

    GitHub HobbitLong/SupContrast, issue #50: "mask.sum(1) has the number 0 so the loss is nan"; it
    "should be at least 1".
    """
    data = digits()
    model = mlp(64, 64, 16)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)

    def loss(output: Tensor, y: Tensor) -> Tensor:
        h = nn.functional.normalize(output)
        logits = (h @ h.T / 0.2).masked_fill(torch.eye(len(h), dtype=torch.bool), -1e4)
        mask = (y[:, None] == y[None]).float().fill_diagonal_(0)
        log_prob = logits.log_softmax(1)
        count = mask.sum(1).clamp_min(1) if cured else mask.sum(1)
        return -((mask * log_prob).sum(1) / count).mean()

    (x, y), (shown, labels) = data

    def value(model: nn.Module) -> Tensor:
        near = nn.functional.normalize(model(shown)) @ nn.functional.normalize(model(x[:300])).T
        return (y[:300][near.argmax(1)] == labels).float().mean() * near.isfinite().all()

    return fit(data, model, optimizer, loss, mean_goal(value, 0.85), steps=250, size=40)


class _Enhancer(nn.Module):
    """Says for each cell of a spectrogram which share of it to keep."""

    def __init__(self) -> None:
        super().__init__()
        self.gru, self.mask = nn.GRU(8, 32, batch_first=True), nn.Linear(32, 8)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.mask(self.gru(x)[0]).sigmoid()


def _spoken(num: int) -> Batch:
    """Spectrograms (N, 12, 8) with noise, silent at first, and the same without the noise."""
    band = torch.randint(6, (num, 1, 1))
    place = torch.arange(8)
    clean = torch.exp(-(place - band - 0.5).square() / 2.0) * (0.3 + torch.rand(num, 12, 1))
    noise = 0.6 * torch.rand(num, 12, 8)
    silence = torch.arange(12)[None, :, None] < torch.randint(0, 4, (num, 1, 1))
    return (clean + noise) * ~silence, clean * ~silence


def _envelope_of_silence(cured: bool) -> Parts:
    """A measure of speech divides frames by their norm, the root of a sum that is 0 in silence.

    GitHub mpariente/pytorch_stoi, issue #7: "the sqrt of 0 might lead to a NaN problem", and pull
    request #14: "Sum EPS just before applying sqrt".
    """

    def unit(x: Tensor) -> Tensor:
        squares = x.square().sum(2, keepdim=True)
        return x / ((squares + 1e-6).sqrt() if cured else squares.sqrt() + 1e-6)

    def loss(output: Tensor, clean: Tensor) -> Tensor:
        return (unit(output) - unit(clean)).square().sum(2).mean()

    model = _Enhancer()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    noisy, clean = _spoken(300)

    def value(model: nn.Module) -> Tensor:
        said, meant = model(noisy), clean
        return (said * meant).sum() / (said.norm() * meant.norm() + 1e-9)

    return stream(_spoken, model, optimizer, loss, mean_goal(value, 0.95), steps=250, size=48)


_RADII = torch.linspace(0.15, 3.0, 14)


def _profile(log_radius: Tensor, log_mass: Tensor, *, is_safe: bool) -> Tensor:
    """A projected halo: one formula within the scale radius, another outside."""
    x = _RADII / log_radius.exp()
    inner = torch.where(x < 1, x, 0.5) if is_safe else x
    outer = torch.where(x < 1, 2.0, x) if is_safe else x
    within = (1 / inner).acosh() / (1 - inner.square()).sqrt()
    beyond = (1 / outer).acos() / (outer.square() - 1).sqrt()
    return log_mass.exp() * torch.where(x < 1, within, beyond)


def _haloes(num: int) -> Batch:
    radius, mass = 0.5 * torch.randn(num, 1), 0.4 * torch.randn(num, 1)
    curve = _profile(radius, mass, is_safe=True)
    return curve + 0.02 * torch.randn_like(curve), curve


def _branch_that_is_not_taken(cured: bool) -> Parts:
    """`torch.where` of two formulas, each nan where the other is taken: so is its gradient.

    GitHub Ciela-Institute/caustics, pull request #83: "It turns out that `torch.where` does not
    protect from nans in the off branch". A net finds radius and mass of a halo through the physics.
    """

    class Finder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = mlp(14, 48, 2, act=nn.Tanh)

        def forward(self, curve: Tensor) -> Tensor:
            return _profile(*self.net(curve).split(1, 1), is_safe=cured)

    model = Finder()
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    curve, clean = _haloes(400)

    def value(model: nn.Module) -> Tensor:
        return 1 - (model(curve) - clean).square().mean() / clean.var()

    return stream(_haloes, model, optimizer, nn.MSELoss(), mean_goal(value, 0.9), steps=350)


# ---------------------------------------------------------------- nothing is sent back


class _Gan(nn.Module):
    """Called as the generator; holds the discriminator and what steps it."""

    def __init__(self) -> None:
        super().__init__()
        self.generator = mlp(6, 48, 48, 2)
        self.discriminator = mlp(2, 48, 48, 1, act=lambda: nn.LeakyReLU(0.2))
        self.steps = torch.optim.Adam(self.discriminator.parameters(), lr=2e-2)

    def forward(self, noise: Tensor) -> Tensor:
        return self.generator(noise)


def _real(num: int) -> Batch:
    return torch.randn(num, 6), torch.tensor([14.0, -12.0]) + torch.randn(num, 2)


def _judge_is_sure(cured: bool) -> Parts:
    """The generator minimises log(1 - D), and a discriminator that is ahead says 0 exactly.

    GitHub soumith/ganhacks, issue #36 (a discriminator at loss 0, "no more learning happened"; "I
    was using a sigmoid layer at the discriminator output"; with logits "it worked like a charm").
    """
    model = _Gan()
    optimizer = torch.optim.SGD(model.generator.parameters(), lr=0.03, momentum=0.5)
    bce = nn.functional.binary_cross_entropy_with_logits
    is_first = [True]

    def fooled(fake: Tensor, _: Tensor) -> Tensor:
        logit = model.discriminator(fake)
        if cured:
            return bce(logit, torch.ones_like(logit))
        return (1 - logit.sigmoid() + 1e-12).log().mean()

    def step(model: Any, optimizer: Any, loss: Any, batch: Any) -> None:
        noise, real = batch
        for _ in range(200 if is_first[0] else 2):
            right, wrong = model.discriminator(real), model.discriminator(model(noise).detach())
            value = bce(right, torch.ones_like(right)) + bce(wrong, torch.zeros_like(wrong))
            model.steps.zero_grad()
            value.backward()
            model.steps.step()
        is_first[0] = False
        value = loss(model(noise), real)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()

    def value(model: Any) -> Tensor:
        noise, real = _real(400)
        return (model(noise).mean(0) - real.mean(0)).norm()

    goal = mean_goal(value, 6.0, higher=False)
    return stream(_real, model, optimizer, fooled, goal, steps=260, step=step)


LOOPS = loops_of(
    REPORTS,
    [
        ("report_softmax_of_characters", "double_softmax", _softmax_of_characters),
        ("report_sigmoid_twice", ("double_softmax", "output_range"), _sigmoid_twice),
        ("report_softmax_of_one", ("output_range", "saturated_loss"), _softmax_of_one),
        ("report_sum_of_three", "target_shape", _sum_of_three),
        ("report_values_against_a_row", "target_shape", _values_against_a_row),
        ("report_ten_labels_one_sigmoid", "output_range", _ten_labels_one_sigmoid),
        ("report_sigmoid_for_quantities", "output_range", _sigmoid_for_quantities),
        ("report_rectified_returns", "output_range", _rectified_returns),
        ("report_log_of_softmax", "nan_from_loss", _log_of_softmax),
        ("report_no_object_in_the_batch", "nan_from_loss", _no_object_in_the_batch),
        ("report_density_underflows", "nan_from_loss", _density_underflows),
        ("report_anchor_without_partner", "nan_from_loss", _anchor_without_partner),
        ("report_envelope_of_silence", "nan_in_backward", _envelope_of_silence),
        ("report_branch_that_is_not_taken", "nan_in_backward", _branch_that_is_not_taken),
        ("report_judge_is_sure", "saturated_loss", _judge_is_sure),
    ],
)
