"""Sick loops of the set `faults`: what is no finite number, and what float16 cannot hold."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from zoo.loops.batches import accuracy_goal, split, standardised
from zoo.loops.faults_data import (
    WORDS,
    digits,
    discs,
    explained,
    fit,
    mlp,
    prices,
    right,
    small_cnn,
    stream,
    tagged,
    told,
    tumours,
)
from zoo.loops.loop import FAULTS, Batch, Goal, Parts, loops_of


def _zeros_in_the_targets(cured: bool) -> Parts:
    """A divergence by hand, `t * (t / p).log()`, of targets that contain zeros.

    Humbatova et al. 2020, Loss function, "missing masking of invalid values to zero". 0 * log 0 is
    NaN in the first step. Distillation of soft labels over ten digits.
    """
    data = digits(as_images=True)
    model = small_cnn()
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)

    def divergence(output: Tensor, y: Tensor) -> Tensor:
        t = 0.8 * nn.functional.one_hot(y, 10) + 0.2 * nn.functional.one_hot((y + 1) % 10, 10)
        p = output.softmax(1)
        parts = torch.xlogy(t, t) - t * p.log() if cured else t * (t / p).log()
        return parts.sum(1).mean()

    return fit(data, model, optimizer, divergence, right(data, 0.85), steps=200)


class _RecurrentTagger(nn.Module):
    """Embedding, a GRU in both directions, a tag each."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(WORDS, 16)
        self.gru = nn.GRU(16, 24, batch_first=True, bidirectional=True)
        self.read = nn.Linear(48, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.read(self.gru(self.embed(x))[0])


def _mean_over_nothing(cured: bool) -> Parts:
    """Losses are averaged over the words of each sentence that count; one sentence has none.

    Humbatova et al. 2020, Loss function, "missing masking of invalid values": 0 / 0 is NaN. A
    tagger of sentences of 0 to 12 words.
    """
    model = _RecurrentTagger()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)

    def draw(num: int) -> Batch:
        x, tags = tagged(num)
        lengths = torch.randint(1, 13, (num, 1))
        lengths[torch.rand(num, 1) < 0.003] = 0
        return x, tags.where(torch.arange(12) < lengths, -1)

    def masked(output: Tensor, tags: Tensor) -> Tensor:
        mask = (tags >= 0).float()
        each = nn.functional.cross_entropy(output.mT, tags.clamp_min(0), reduction="none")
        count = mask.sum(1)
        return ((each * mask).sum(1) / (count.clamp_min(1) if cured else count)).mean()

    goal = accuracy_goal(*tagged(200), 0.9)
    return stream(draw, model, optimizer, masked, goal, steps=250)


def _log_of_one(cured: bool) -> Parts:
    """Binary cross-entropy by hand: `log(1 - p)` where p has been rounded to 1.

    Zhang et al. 2018, incorrect model parameter or structure (the logarithm of 0, as in
    `y * tf.log(y_conv)`). Pixels of a mask; a few are so sure that p is 1 in float32.
    """
    data = discs(noise=0.25)
    model = nn.Sequential(
        nn.Conv2d(1, 8, 5, padding=2), nn.ReLU(), nn.Conv2d(8, 1, 5, padding=2), nn.Flatten(0)
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)

    def by_hand(logits: Tensor, mask: Tensor) -> Tensor:
        p, y = (8 * logits).sigmoid(), mask.flatten()
        if cured:
            p = p.clamp(1e-6, 1 - 1e-6)
        return -(y * p.log() + (1 - y) * (1 - p).log()).mean()

    def score(model: nn.Module) -> float:
        x, mask = data[1]
        found = (model(x) > 0).float()
        both = found * mask.flatten()
        return float(both.sum() / (found + mask.flatten()).clamp_max(1).sum())

    return fit(data, model, optimizer, by_hand, Goal(score, 0.8), steps=300, size=32)


def _pairs(x: Tensor, y: Tensor, num: int) -> Batch:
    """Half of the pairs (N, 2, 64) are of one class."""
    first = torch.randint(len(x), (num,))
    second = torch.randint(len(x), (num,))
    for k in range(0, num, 2):
        same = (y == y[first[k]]).nonzero()[:, 0]
        second[k] = same[torch.randint(len(same), ())]
    return torch.stack((x[first], x[second]), 1), (y[first] == y[second]).float()


def _distance_of_equals(cured: bool) -> Parts:
    """A distance by hand, `((a - b) ** 2).sum(1).sqrt()`, of pairs that contain one row twice.

    GRIST's and Zhang et al.'s numerical faults; Humbatova et al. 2020, "wrong loss function
    calculation". The derivative of the root at 0 is infinite, and infinity times 0 is NaN.
    """
    train, test = digits()
    x, is_same = _pairs(*train, 2000)
    x[::500, 1] = x[::500, 0]
    model = mlp(64, 48, 8)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)

    def contrastive(output: Tensor, is_same: Tensor) -> Tensor:
        square = (output[:, 0] - output[:, 1]).square().sum(1)
        apart = (square + 1e-12 if cured else square).sqrt()
        return (is_same * square + (1 - is_same) * (2 - apart).relu().square()).mean()

    x_test, y_test = _pairs(*test, 800)

    def score(model: nn.Module) -> float:
        output = model(x_test)
        apart = (output[:, 0] - output[:, 1]).square().sum(1).sqrt()
        return float(((apart < 1).float() == y_test).float().mean())

    data = (x, is_same), (x_test, y_test)
    return fit(data, model, optimizer, contrastive, Goal(score, 0.85), steps=350)


class _Bilinear(nn.Module):
    """Products of two projections, their signed square root, and a read-out."""

    def __init__(self, *, by_where: bool) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(8, 32), nn.Linear(8, 32)
        self.read = nn.Linear(32, 1)
        self.by_where = by_where

    def forward(self, x: Tensor) -> Tensor:
        h = self.left(x) * self.right(x)
        if self.by_where:
            root = torch.where(h >= 0, h.sqrt(), -(-h).sqrt())
        else:
            root = h.sign() * (h.abs() + 1e-4).sqrt()
        return self.read(root)[:, 0]


def _root_on_both_sides(cured: bool) -> Parts:
    """`torch.where(h >= 0, h.sqrt(), -(-h).sqrt())`: the branch that is not taken is NaN.

    Zhang et al. 2018 and defects4ML, numerical faults. The output is finite; 0 times NaN goes back.
    The signed root of bilinear pooling.
    """
    data = prices()
    model = _Bilinear(by_where=not cured)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    return fit(data, model, optimizer, nn.MSELoss(), explained(data, 0.5), steps=600)


def _missing_values(cured: bool) -> Parts:
    """Values that were not measured are NaN, and nobody filled them.

    Humbatova et al. 2020, "missing preprocessing step"; Islam et al. 2019, a data bug.
    """
    x, y = tumours()
    x = standardised(x)
    x[torch.rand(x.shape) < 0.02] = torch.nan
    data = split(x.nan_to_num() if cured else x, y, 140)
    model = nn.Sequential(nn.Linear(30, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)

    def loss(output: Tensor, y: Tensor) -> Tensor:
        return nn.functional.binary_cross_entropy_with_logits(output[:, 0], y)

    return fit(data, model, optimizer, loss, told(data, 0.9), steps=200)


def _signal_to_noise_in_half(cured: bool) -> Parts:
    """The loss `10 * log10(mse)` of a denoiser sums its squares in float16: beyond 65,504.

    Zhang et al. 2018 and defects4ML, numerical faults; Humbatova et al. 2020, "wrong tensor type".
    The logarithm of infinity is infinite, and its gradient is 0.
    """

    def draw(num: int) -> Batch:
        time = torch.arange(2048) / 20 + 6.3 * torch.rand(num, 1)
        clean = 2 * time.sin()[:, None]
        return clean + torch.randn_like(clean), clean

    model = nn.Sequential(nn.Conv1d(1, 6, 9, padding=4), nn.ReLU(), nn.Conv1d(6, 1, 9, padding=4))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)

    def noise_ratio(output: Tensor, clean: Tensor) -> Tensor:
        apart = output - clean
        if not cured:
            apart = apart.half()
        return 10 * (apart.square().sum() / apart.numel()).log10()

    x, clean = draw(50)

    def score(model: nn.Module) -> float:
        return float(1 - (model(x) - clean).square().mean() / clean.square().mean())

    goal = Goal(score, 0.8)
    return stream(draw, model, optimizer, noise_ratio, goal, steps=100, size=32)


def _half_without_a_scale(cured: bool) -> Parts:
    """`autocast` to float16 without a `GradScaler`; the loss has a weight of 1e-7.

    Islam et al. 2019, an API bug (a call that belongs to another is missing); Humbatova et al.
    2020, Tensors, "wrong tensor type". Gradients are below 6e-8, which float16 makes 0. A picture
    is learnt from coordinates, with the optimizer's settings of such programs.
    """
    places = 2 * torch.rand(1500, 2) - 1
    waves_of = torch.cat(((3 * places).sin(), (3 * places).cos()), 1)
    bright = (3 * places[:, 0]).sin() * (3 * places[:, 1]).cos() + 0.3 * places[:, 0]
    data = split(torch.cat((places, waves_of), 1), bright, 300)
    model = mlp(6, 48, 48, 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3, eps=1e-15)
    scaler = torch.amp.GradScaler("cpu", enabled=cured)

    def squared(output: Tensor, y: Tensor) -> Tensor:
        return 1e-7 * nn.functional.mse_loss(output[:, 0].float(), y)

    def step(model: Any, optimizer: Any, loss: Any, batch: Any) -> None:
        with torch.autocast("cpu", dtype=torch.float16):
            output = model(batch[0])
        value = loss(output, batch[1])
        optimizer.zero_grad()
        scaler.scale(value).backward()
        scaler.step(optimizer)
        scaler.update()

    return fit(data, model, optimizer, squared, explained(data, 0.8), steps=250, step=step)


LOOPS = loops_of(
    FAULTS,
    [
        ("faults_zeros_in_the_targets", "nan_from_loss", _zeros_in_the_targets),
        ("faults_mean_over_nothing", "nan_from_loss", _mean_over_nothing),
        ("faults_log_of_one", "nan_from_loss", _log_of_one),
        ("faults_distance_of_equals", "nan_in_backward", _distance_of_equals),
        ("faults_root_on_both_sides", "nan_in_backward", _root_on_both_sides),
        ("faults_missing_values", "inputs_not_finite", _missing_values),
        ("faults_signal_to_noise_in_half", "overflow", _signal_to_noise_in_half),
        ("faults_half_without_a_scale", "underflow", _half_without_a_scale),
    ],
)
