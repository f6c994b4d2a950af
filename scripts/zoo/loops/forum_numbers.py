"""Sick loops of the set `forums`: what is not a number."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from zoo.loops.batches import accuracy_goal, mean_goal
from zoo.loops.forum_data import (
    covered,
    dense_cnn,
    figures,
    fit,
    masks,
    mlp,
    next_goal,
    spoken,
    stream,
)
from zoo.loops.loop import FORUMS, Batch, Parts, loops_of


def _advantage_of_one(cured: bool) -> Parts:
    """Advantages are divided by their deviation, and the last batch of a rollout has one.

    GitHub DLR-RM/stable-baselines3, pull request #1028: "Fix bug in PPO where a batch of size 1
    from the rollout buffer results in ppo outputs becoming nan"; a length above 1 is asked for now.
    """
    model = mlp(6, 32, 4)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    best = torch.randn(6, 4)
    count = [0]

    def draw(num: int) -> Batch:
        count[0] += 1
        x = torch.randn(1 if count[0] % 9 == 0 else num, 6)
        return x, (x @ best).argmax(1)

    def policy_loss(logits: Tensor, paid: Tensor) -> Tensor:
        log_probs = logits.log_softmax(1)
        noise = -(-torch.rand_like(logits).log()).log()
        actions = (log_probs + noise).argmax(1)
        advantages = (actions == paid).float()
        if len(advantages) > 1 or not cured:
            advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
        return -(log_probs.gather(1, actions[:, None])[:, 0] * advantages).mean()

    x = torch.randn(500, 6)
    goal = accuracy_goal(x, (x @ best).argmax(1), 0.75)
    return stream(draw, model, optimizer, policy_loss, goal, 500)


class _Chat(nn.Module):
    """Tells the next token from this and the last."""

    def __init__(self) -> None:
        super().__init__()
        self.embeddings = nn.Embedding(11, 24)
        self.net = mlp(48, 64, 11)

    def forward(self, tokens: Tensor) -> Tensor:
        here = self.embeddings(tokens)
        last = torch.cat((torch.zeros_like(here[:, :1]), here[:, :-1]), 1)
        return self.net(torch.cat((here, last), 2))


def _all_labels_ignored(cured: bool) -> Parts:
    """A packed batch holds prompts alone: all its labels are -100, and a mean by hand is 0 / 0.

    GitHub allenai/OLMo-core, pull request #657: "batch_num_tokens_for_loss = (labels !=
    label_ignore_index).sum()  # == 0", "0/0"; the fix is a divisor above 0. Also OpenRLHF/OpenRLHF,
    pull request #583, merged.
    """
    model = _Chat()
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    count = [0]

    def draw(num: int) -> Batch:
        count[0] += 1
        tokens = spoken(num)
        labels = tokens[:, 1:].clone()
        labels[:, : 15 if count[0] % 25 == 0 else 5] = -100
        return tokens[:, :-1], labels

    def answers(logits: Tensor, labels: Tensor) -> Tensor:
        logits, labels = logits.flatten(0, 1), labels.flatten()
        counts = (labels != -100).float()
        each = nn.functional.cross_entropy(logits, labels.clamp(min=0), reduction="none")
        return (each * counts / counts.sum().clamp(min=1 if cured else 0)).sum()

    return stream(draw, model, optimizer, answers, next_goal(0.85), 400, size=32)


class _Reader(nn.Module):
    """Reads a line of symbols of four columns each; says (T, N, 5) log probabilities."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(6, 32, 5, 2, 2)
        self.gru = nn.GRU(32, 24, bidirectional=True)
        self.readout = nn.Linear(48, 5)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv(x).relu().permute(2, 0, 1)
        return self.readout(self.gru(h)[0]).log_softmax(-1)


_SHAPES = torch.tensor(
    [[1, 0, 0, 1, 0, 1], [0, 1, 0, 1, 1, 0], [0, 0, 1, 0, 1, 1], [1, 1, 0, 0, 1, 0]]
)


def _lines_longer_than_outputs(cured: bool) -> Parts:
    """Some texts are too long for the columns that pooling leaves: their CTC loss is infinite.

    GitHub ypwhs/captcha_break, issue #29: the loss is nan because the targets are too long for the
    inputs; wenet-e2e/wenet, pull request #2299 sets `zero_infinity=True`, which is the cure here.
    """
    model = _Reader()
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)

    def draw(num: int) -> Batch:
        symbols = torch.randint(4, (num, 4))
        x = _SHAPES[symbols].float().repeat_interleave(4, 1).transpose(1, 2)
        texts = torch.cat((symbols + 1, torch.zeros(num, 6, dtype=torch.long)), 1)
        torn = torch.rand(num) < 0.02
        texts[torn] = torch.randint(1, 5, (10,))
        return x + 0.2 * torch.randn_like(x), texts

    ctc = nn.CTCLoss(zero_infinity=cured)

    def loss(log_probs: Tensor, texts: Tensor) -> Tensor:
        lengths = (texts > 0).sum(1)
        times = torch.full((len(texts),), len(log_probs))
        return ctc(log_probs, texts, times, lengths)

    x, texts = draw(300)
    x, texts = x[texts[:, -1] == 0], texts[texts[:, -1] == 0]

    def share(model: Any) -> Tensor:
        """Of the lines, those in which each symbol is said at one of its two columns."""
        said = model(x).argmax(2).reshape(4, 2, -1)
        return (said == texts[:, :4].T[:, None]).any(1).all(0).float().mean()

    return stream(draw, model, optimizer, loss, mean_goal(share, 0.7), 250, size=32)


def _features_of_norm_zero(cured: bool) -> Parts:
    """Features are divided by the root of a sum of squares, which is 0 where an image is empty.

    GitHub richzhang/PerceptualSimilarity, issue #69: "Function 'SqrtBackward' returned nan values";
    "add the epsilon under the sqrt in the norm function". A segmenter whose images have an empty
    margin.
    """
    (x, mask), (kept_x, kept_mask) = masks()
    for each in (x, kept_x):
        each[..., :2] = 0

    class Normalised(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.features = nn.Conv2d(1, 12, 3, padding=1, bias=False)
            self.head = nn.Sequential(nn.Conv2d(12, 12, 5, padding=2), nn.ReLU())
            self.head.append(nn.Conv2d(12, 1, 1))

        def forward(self, x: Tensor) -> Tensor:
            h = self.features(x)
            squares = h.square().sum(1, keepdim=True)
            norm = (squares + 1e-8).sqrt() if cured else squares.sqrt() + 1e-8
            return self.head(h / norm + 0.1 * h)

    data = (x, mask), (kept_x, kept_mask)
    model = Normalised()
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    loss = nn.BCEWithLogitsLoss()
    return fit(data, model, optimizer, loss, covered(data, 0.6), 200, size=32)


def _focal_loss_of_certain_pixels(cured: bool) -> Parts:
    """A focal loss with an exponent of one half: what is told for certain is 0 to the power 0.5.

    GitHub kornia/kornia, issue #918: "I got `nan` gradients on backward pass when torch.sig(...)
    equals 1. or 0. and 0.<gamma<1."; `eps` within `pow` is the fix. Some pixels are far too bright.
    """
    (x, mask), (kept_x, kept_mask) = masks()
    for images, true in ((x, mask), (kept_x, kept_mask)):
        images[(torch.rand_like(images) < 0.02) & (true == 1)] = 60.0
    model = dense_cnn()
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)

    def focal(logits: Tensor, mask: Tensor) -> Tensor:
        p = logits.sigmoid()
        eps = 1e-6 if cured else 0.0
        ones = (1 - p + eps).pow(0.5) * mask * (p + 1e-6).log()
        zeros = (p + eps).pow(0.5) * (1 - mask) * (1 - p + 1e-6).log()
        return -(ones + zeros).mean()

    data = (x, mask), (kept_x, kept_mask)
    return fit(data, model, optimizer, focal, covered(data, 0.6), 250, size=32)


def _angle_to_oneself(cured: bool) -> Parts:
    """Angles of all pairs of embeddings by `acos`, of which those to themselves are masked out.

    GitHub papagina/RotationContinuity, issue #11: cosines are limited by `torch.min(cos, 1)`, and
    by 0.9999 "in order to avoid loss is Nan". Also pytorch/pytorch, issue #8069: "I solved this by
    limiting input from -1 + eps to 1-eps".
    """
    data = figures()
    model = mlp(64, 64, 16)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)

    def angles(output: Tensor, y: Tensor) -> Tensor:
        unit = nn.functional.normalize(output)
        limit = torch.tensor(0.9999 if cured else 1.0)
        angle = torch.min(torch.max(unit @ unit.T, -limit), limit).acos()
        same = y[:, None] == y
        other = ~torch.eye(len(y), dtype=torch.bool)
        near = (angle * (same & other)).sum() / (same & other).sum()
        return near + ((1.2 - angle).relu() * ~same).sum() / (~same).sum()

    (x, y), (kept_x, kept_y) = data

    def nearest(model: Any) -> Tensor:
        known, asked = (nn.functional.normalize(model(each)) for each in (x[:500], kept_x))
        return (y[:500][(asked @ known.T).argmax(1)] == kept_y).float().mean()

    return fit(data, model, optimizer, angles, mean_goal(nearest, 0.85), 250)


class _MaskedAttention(nn.Module):
    """One head of attention over up to eight words, and the mean of what it finds."""

    def __init__(self, *, lowest: float) -> None:
        super().__init__()
        self.words = nn.Embedding(12, 24)
        self.query, self.key, self.value = (nn.Linear(24, 24) for _ in range(3))
        self.readout = mlp(24, 24, 3)
        self.lowest = lowest

    def forward(self, tokens: Tensor) -> Tensor:
        h = self.words(tokens)
        is_pad = tokens == 0
        scores = self.query(h) @ self.key(h).transpose(1, 2) / 24**0.5
        mask = torch.zeros_like(scores).masked_fill(
            is_pad[:, None] | is_pad[:, :, None], self.lowest
        )
        scores = scores + mask
        weights = scores.softmax(2).masked_fill(is_pad[:, :, None], 0.0)
        found = (weights @ self.value(h)).sum(1) / (~is_pad).sum(1, keepdim=True)
        return self.readout(found)


def _rows_of_padding(cured: bool) -> Parts:
    """Rows of attention that belong to padding are masked whole; what comes out is set to 0.

    GitHub pytorch/pytorch, issue #41508: removing the nan later "does not work" (pull request
    #42323), since 0 times nan is nan on the way back. The cure masks by -1e9.
    """
    model = _MaskedAttention(lowest=-1e9 if cured else -torch.inf)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)

    def draw(num: int) -> Batch:
        tokens = torch.randint(1, 12, (num, 8))
        tokens[torch.arange(8) >= torch.randint(4, 9, (num, 1))] = 0
        first = (tokens == 3).any(1).long()
        return tokens, first + (tokens == 7).any(1).long()

    goal = accuracy_goal(*draw(500), 0.7)
    return stream(draw, model, optimizer, nn.CrossEntropyLoss(), goal, 400)


LOOPS = loops_of(
    FORUMS,
    [
        ("forum_advantage_of_one", "nan_from_loss", _advantage_of_one),
        ("forum_all_labels_ignored", "nan_from_loss", _all_labels_ignored),
        ("forum_lines_longer_than_outputs", "nan_from_loss", _lines_longer_than_outputs),
        ("forum_features_of_norm_zero", "nan_in_backward", _features_of_norm_zero),
        ("forum_focal_loss_of_certain_pixels", "nan_in_backward", _focal_loss_of_certain_pixels),
        ("forum_angle_to_oneself", "nan_in_backward", _angle_to_oneself),
        ("forum_rows_of_padding", "nan_in_backward", _rows_of_padding),
    ],
)
