"""Sick loops of the set `forums`: losses, and outputs that do not fit them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from zoo.loops.batches import explained_goal, mean_goal
from zoo.loops.forum_data import (
    boards,
    explained,
    figures,
    fit,
    mlp,
    right,
    stream,
    waves,
)
from zoo.loops.loop import FORUMS, Batch, Parts, loops_of


class _Factors(nn.Module):
    """Whether a user likes an item: the product of two embeddings, and a sigmoid or not."""

    def __init__(self, *, ends_in_sigmoid: bool) -> None:
        super().__init__()
        self.users, self.items = nn.Embedding(80, 12), nn.Embedding(120, 12)
        self.bias = nn.Parameter(torch.zeros(()))
        for table in (self.users, self.items):
            nn.init.normal_(table.weight, std=0.3)
        self.ends_in_sigmoid = ends_in_sigmoid

    def forward(self, pairs: Tensor) -> Tensor:
        said = (self.users(pairs[:, 0]) * self.items(pairs[:, 1])).sum(1) + self.bias
        return said.sigmoid() if self.ends_in_sigmoid else said


def _recommender_ends_in_sigmoid(cured: bool) -> Parts:
    """A recommender ends in a sigmoid, and `BCEWithLogitsLoss` has one of its own.

    GitHub yudi-mars/daisyRec, pull request #15: "Do not need sigmoid because there is sigmoid in
    BCEWithLogitsLoss. Otherwise loss does not converge." One pair of eight is liked.
    """
    model = _Factors(ends_in_sigmoid=not cured)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    kind_of_user, kind_of_item = torch.randint(8, (80,)), torch.randint(8, (120,))

    def draw(num: int) -> Batch:
        pairs = torch.stack((torch.randint(80, (num,)), torch.randint(120, (num,))), 1)
        liked = kind_of_user[pairs[:, 0]] == kind_of_item[pairs[:, 1]]
        return pairs, liked.float()

    pairs, liked = draw(2000)

    def found(model: Any) -> Tensor:
        """The mean of the shares of the liked and of the others that are told rightly."""
        said = model(pairs) > (0 if cured else 0.5)
        return 0.5 * (said[liked == 1].float().mean() + (~said[liked == 0]).float().mean())

    loss = nn.BCEWithLogitsLoss()
    return stream(draw, model, optimizer, loss, mean_goal(found, 0.93), 500, size=256)


class _ReverseGradient(torch.autograd.Function):
    @staticmethod
    def forward(_ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(_ctx: Any, *grads: Tensor) -> Tensor:
        return -0.02 * grads[0]


class _TwoDomains(nn.Module):
    """Tells digits, and from the same features whether an image is inverted."""

    def __init__(self, *, ends_in_softmax: bool) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Flatten(), *mlp(64, 64, 32))
        self.classifier = nn.Sequential(nn.ReLU(), nn.Linear(32, 10))
        self.discriminator = nn.Sequential(nn.ReLU(), nn.Linear(32, 2))
        if ends_in_softmax:
            self.classifier.append(nn.Softmax(1))
            self.discriminator.append(nn.Softmax(1))

    def forward(self, x: Tensor) -> Tensor:
        features = self.features(x)
        reversed_features: Tensor = _ReverseGradient.apply(features)
        return torch.cat((self.classifier(features), self.discriminator(reversed_features)), 1)


def _domains_end_in_softmax(cured: bool) -> Parts:
    """Classifier and discriminator of two domains end in a softmax before the cross-entropies.

    GitHub NaJaeMin92/pytorch-DANN, issue #7: "The softmax layer makes models hard to train ... try
    to remove the last softmax layer in Classifier and Discriminator"; done. The gradient of the
    discriminator is turned around on purpose.
    """
    (x, y), (kept_x, kept_y) = figures(as_images=True)
    data = (2 * x - 1, y), (2 * kept_x - 1, kept_y)
    model = _TwoDomains(ends_in_softmax=not cured)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)

    def both(output: Tensor, y: Tensor) -> Tensor:
        digits, domains = output.split([10, 2], 1)
        domain = torch.arange(len(y)) % 2
        return nn.functional.cross_entropy(digits, y) + nn.functional.cross_entropy(domains, domain)

    def step(model: Any, optimizer: Any, loss: Any, batch: Any) -> None:
        x, y = batch
        x = torch.where((torch.arange(len(x)) % 2 == 1)[:, None, None, None], -x, x)
        value = loss(model(x), y)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()

    def share(model: Any) -> Tensor:
        return (model(data[1][0])[:, :10].argmax(1) == kept_y).float().mean()

    return fit(data, model, optimizer, both, mean_goal(share, 0.8), 350, step=step)


def _squeezed_predictions(cured: bool) -> Parts:
    """A head for regression squeezes its output to (N,), and labels are (N, 1).

    GitHub deepset-ai/FARM, issue #229: "the logits were squeezed and therefore didn't match the
    current implementation of labels"; fixed. Labels are from 0 to 16.
    """
    (x, y), (kept_x, kept_y) = waves()
    data = (x, 8 + 3 * y), (kept_x, 8 + 3 * kept_y)
    trunk = mlp(8, 48, 48, 1)
    model = trunk if cured else nn.Sequential(trunk, nn.Flatten(0))
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    return fit(data, model, optimizer, nn.MSELoss(), explained(data, 0.75), 600)


def _depth_without_channel(cured: bool) -> Parts:
    """Depth maps are (N, H, W), and what is said of them (N, 1, H, W).

    GitHub jiwei0921/CoNet, issue #3: "Using a target size (torch.Size([2, 256, 256])) that is
    different to the input size (torch.Size([2, 1, 256, 256]))", by `smooth_l1_loss`; the answer:
    `target.unsqueeze(1)`.
    """
    x, mask, _ = boards(600)
    depth = mask + torch.linspace(0, 1, 12)
    data = (x[:450], depth[:450]), (x[450:], depth[450:])
    model = nn.Sequential(
        nn.Conv2d(1, 8, 5, padding=2), nn.ReLU(), nn.Conv2d(8, 8, 5, padding=2), nn.ReLU()
    )
    model.extend([nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 1, 3, padding=1)])
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)

    def apart(output: Tensor, depth: Tensor) -> Tensor:
        return nn.functional.smooth_l1_loss(output, depth if cured else depth.squeeze(1))

    return fit(data, model, optimizer, apart, explained(data, 0.6), 200, size=32)


def _sigmoid_of_standardised(cured: bool) -> Parts:
    """An autoencoder of standardised columns ends in a sigmoid.

    GitHub yzhao062/pyod, issue #314: "the output layer has the sigmoid activation function whose
    values are within 0 and 1, but the input data are scaled with StandardScaler"; "I think your
    concern makes sense". Also mikesj-public/convolutional_autoencoder, pull request #9.
    """
    hidden = torch.randn(1500, 3)
    x = (hidden @ torch.randn(3, 12)).tanh() + 0.05 * torch.randn(1500, 12)
    x = (x - x.mean(0)) / x.std(0)
    model = mlp(12, 32, 6, 32, 12)
    if not cured:
        model.append(nn.Sigmoid())
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    rows = (x[:1200], x[:1200]), (x[1200:], x[1200:])
    return fit(rows, model, optimizer, nn.MSELoss(), explained_goal(x[1200:], x[1200:], 0.7), 500)


def _relu_behind_the_logits(cured: bool) -> Parts:
    """The last layer's logits go through a ReLU before the cross-entropy.

    GitHub hunkim/PyTorchZeroToAll, pull request #4: "Remove relu in the final layer"; merged. A
    class whose logit is below 0 for all is never found again.
    """
    data = figures()
    model = mlp(64, 32, 10)
    if not cured:
        model.append(nn.ReLU())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3, momentum=0.9)
    return fit(data, model, optimizer, nn.CrossEntropyLoss(), right(data, 0.88), 300)


class _Peptides(nn.Module):
    """A property of a sequence, read off its last state; a ReLU keeps it from going below 0."""

    def __init__(self, *, ends_in_relu: bool) -> None:
        super().__init__()
        self.embeddings = nn.Embedding(20, 12)
        self.lstm = nn.LSTM(12, 24, batch_first=True)
        self.readout = nn.Linear(24, 1)
        nn.init.constant_(self.readout.bias, -1.0)
        self.ends_in_relu = ends_in_relu

    def forward(self, tokens: Tensor) -> Tensor:
        said = self.readout(self.lstm(self.embeddings(tokens))[0][:, -1])
        return said.relu() if self.ends_in_relu else said


def _peptides_all_zero(cured: bool) -> Parts:
    """The read-out of a regression ends in a ReLU, and is below 0 for all inputs from the start.

    GitHub ProteomicsML/ProteomicsML, pull request #203: "returning constantly 0 ... In case of
    unlucky initialization the (pre-ReLU) output of the final linear layer can be always or almost
    always negative". The luck is a bias of -1.
    """
    weights = torch.rand(20)

    def draw(num: int) -> Batch:
        tokens = torch.randint(20, (num, 8))
        return tokens, weights[tokens].sum(1, keepdim=True) / 4

    model = _Peptides(ends_in_relu=not cured)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    goal = explained_goal(*draw(400), 0.7)
    return stream(draw, model, optimizer, nn.MSELoss(), goal, 500)


class _Boxes(nn.Module):
    """Left and top of a box, and from its size right and bottom; at first far outside."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 8, 3, 2, 1), nn.ReLU())
        self.features.extend([nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU(), nn.Flatten()])
        self.head = mlp(144, 48, 4)
        with torch.no_grad():
            self.head[-1].weight.mul_(0.1)
            self.head[-1].bias.copy_(torch.tensor([1.2, 1.2, -1.5, -1.5]))

    def forward(self, x: Tensor) -> Tensor:
        start, size = self.head(self.features(x)).chunk(2, 1)
        return torch.cat((start, start + nn.functional.softplus(size)), 1)


def _boxes_that_do_not_meet(cured: bool) -> Parts:
    """Boxes are learnt by their intersection over union, and at first none meets its target.

    GitHub lilanxiao/Rotated_IoU, issue #9: "if there is no intersection, there is no gradient and
    the learnable parameters would not be updated. And that's why people use generalized IoU".
    """
    x, _, box = boards(900)
    data = (x[:700], box[:700]), (x[700:], box[700:])
    model = _Boxes()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)

    def overlaps(said: Tensor, box: Tensor) -> Tensor:
        start, end = torch.maximum(said, box)[:, :2], torch.minimum(said, box)[:, 2:]
        both = (end - start).clamp(min=0).prod(1)
        areas = (said[:, 2:] - said[:, :2]).clamp(min=0).prod(1) + (box[:, 2:] - box[:, :2]).prod(1)
        iou = both / (areas - both + 1e-6)
        if not cured:
            return iou
        least, most = torch.minimum(said, box)[:, :2], torch.maximum(said, box)[:, 2:]
        around = (most - least).clamp(min=0).prod(1)
        return iou - (around - areas + both) / (around + 1e-6)

    def loss(said: Tensor, box: Tensor) -> Tensor:
        return 1 - overlaps(said, box).mean()

    kept_x, kept_box = data[1]

    def near(model: Any) -> Tensor:
        return (model(kept_x) - kept_box).abs().mean()

    goal = mean_goal(near, 0.15, higher=False)
    return fit(data, model, optimizer, loss, goal, 500)


LOOPS = loops_of(
    FORUMS,
    [
        ("forum_recommender_ends_in_sigmoid", "double_softmax", _recommender_ends_in_sigmoid),
        ("forum_domains_end_in_softmax", "double_softmax", _domains_end_in_softmax),
        ("forum_squeezed_predictions", "target_shape", _squeezed_predictions),
        ("forum_depth_without_channel", "target_shape", _depth_without_channel),
        ("forum_sigmoid_of_standardised", "output_range", _sigmoid_of_standardised),
        ("forum_relu_behind_the_logits", ("output_range", "dead_units"), _relu_behind_the_logits),
        ("forum_peptides_all_zero", "dead_at_start", _peptides_all_zero),
        (
            "forum_boxes_that_do_not_meet",
            ("saturated_loss", "flat_landscape"),
            _boxes_that_do_not_meet,
        ),
    ],
)
