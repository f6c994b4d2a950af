"""Sick loops of the set `faults`: inputs and labels, and losses that are flat where they begin."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from zoo.loops.batches import accuracy_goal, split, standardised
from zoo.loops.faults_data import (
    WORDS,
    digits,
    explained,
    fit,
    mlp,
    prices,
    reviews,
    right,
    small_cnn,
    stream,
    tagged,
    told,
    tumours,
)
from zoo.loops.loop import FAULTS, Batch, Goal, Parts, loops_of


def _columns_as_measured(cured: bool) -> Parts:
    """A network with sigmoid units gets columns from 0.001 to 4,000.

    UMLAUT, "input data exceeds limits"; Humbatova et al. 2020, "missing preprocessing step (input
    scaling)".
    """
    x, y = tumours()
    data = split(standardised(x) if cured else x, y, 140)
    model = mlp(30, 24, 24, 1, act=nn.Sigmoid)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3, momentum=0.9)

    def loss(output: Tensor, y: Tensor) -> Tensor:
        return nn.functional.binary_cross_entropy_with_logits(output[:, 0], y)

    return fit(data, model, optimizer, loss, told(data, 0.94), steps=300)


def _a_column_of_seconds(cured: bool) -> Parts:
    """Of nine columns one is a time in seconds, about 1.6e9; it says nothing of the price.

    Islam et al. 2019, a data bug; Humbatova et al. 2020, "missing preprocessing step
    (normalization)".
    """
    (x, y), (x_test, y_test) = prices()

    def stamped(x: Tensor) -> Tensor:
        seconds = 1.6e9 + 3e7 * torch.rand(len(x), 1)
        return torch.cat((x, (seconds - 1.615e9) / 8.7e6 if cured else seconds), 1)

    data = (stamped(x), y), (stamped(x_test), y_test)
    model = mlp(9, 48, 48, 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)

    def loss(output: Tensor, y: Tensor) -> Tensor:
        return nn.functional.mse_loss(output[:, 0], y)

    return fit(data, model, optimizer, loss, explained(data, 0.6), steps=500)


def _rows_shuffled_alone(cured: bool) -> Parts:
    """The images are shuffled, and the labels are not.

    Humbatova et al. 2020, API, "wrong position of data shuffle operation"; Islam et al. 2019, a
    data bug.
    """
    (x, y), test = digits(as_images=True)
    if not cured:
        x = x[torch.randperm(len(x))]
    data = (x, y), test
    model = small_cnn()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    return fit(data, model, optimizer, nn.CrossEntropyLoss(), right(data, 0.85), steps=300)


def _telling_columns_dropped(cured: bool) -> Parts:
    """The columns that tell the price were dropped with those that do not.

    Humbatova et al. 2020, Training data quality, "discarding important features".
    """
    (x, y), (x_test, y_test) = prices()
    kept = slice(0, 8) if cured else slice(5, 8)
    data = (x[:, kept], y), (x_test[:, kept], y_test)
    model = mlp(8 if cured else 3, 32, 32, 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)

    def loss(output: Tensor, y: Tensor) -> Tensor:
        return nn.functional.mse_loss(output[:, 0], y)

    return fit(data, model, optimizer, loss, explained(data, 0.6), steps=500)


def _divided_as_integers(cured: bool) -> Parts:
    """`pixels // 255` of unsigned bytes below 255: every image is black.

    Humbatova et al. 2020, "wrong preprocessing step (pixel encoding)".
    """
    (x, y), (x_test, y_test) = digits(as_images=True, top=254.0)

    def scaled(x: Tensor) -> Tensor:
        pixels = x.to(torch.uint8)
        return pixels / 255 if cured else (pixels // 255).float()

    data = (scaled(x), y), (scaled(x_test), y_test)
    model = small_cnn()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    return fit(data, model, optimizer, nn.CrossEntropyLoss(), right(data, 0.85), steps=250)


class _WordTagger(nn.Module):
    """Embedding, a convolution over neighbours, a tag each."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(WORDS, 24)
        self.conv = nn.Conv1d(24, 32, 3, padding=1)
        self.read = nn.Linear(32, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.read(self.conv(self.embed(x).mT).relu().mT)


def _tags_shifted(cured: bool) -> Parts:
    """Padding was put before the tags and behind the words: a word has another word's tag.

    Humbatova et al. 2020, "wrong preprocessing step (padding)"; DeepCrime, "change labels" (TCL).
    The tags are those of five words earlier, which the convolution does not see.
    """

    def draw(num: int) -> Batch:
        x, tags = tagged(num, 24)
        return x, tags if cured else tags.roll(5, 1)

    model = _WordTagger()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    goal = accuracy_goal(*tagged(300, 24), 0.85)

    def loss(output: Tensor, tags: Tensor) -> Tensor:
        return nn.functional.cross_entropy(output.flatten(0, 1), tags.flatten())

    return stream(draw, model, optimizer, loss, goal, steps=250)


class _Bag(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.EmbeddingBag(WORDS, 12)
        self.read = nn.Linear(12, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.read(self.embed(x))[:, 0]


def _far_from_the_threshold(cured: bool) -> Parts:
    """Reviews get a rating, and `sigmoid(rating - 50)` is compared with "liked" by a squared error.

    Humbatova et al. 2020, Loss function, "wrong selection of loss function"; DeepDiagnosis has the
    symptom, a saturated activation. Ratings begin at 0, where this sigmoid is flat.
    """
    model = _Bag()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    threshold = 0.5 if cured else 50.0

    def squared(rating: Tensor, liked: Tensor) -> Tensor:
        return ((rating - threshold).sigmoid() - liked).square().mean()

    x_test, y_test = reviews(600)

    def score(model: nn.Module) -> float:
        return float(((model(x_test) > threshold).long() == y_test).float().mean())

    return stream(reviews, model, optimizer, squared, Goal(score, 0.85), steps=300)


def _loss_capped(cured: bool) -> Parts:
    """Every example's squared error is cut at 1 against outliers, and targets are about 30.

    DeepCrime, "change loss function" (LCH); Humbatova et al. 2020, "wrong loss function
    calculation". Beyond the cap nothing is sent back.
    """
    (x, y), (x_test, y_test) = prices()
    data = (x, 30 + 4 * y), (x_test, 30 + 4 * y_test)
    model = mlp(8, 48, 48, 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)

    def capped(output: Tensor, y: Tensor) -> Tensor:
        each = (output[:, 0] - y).square()
        return (each if cured else each.clamp_max(1.0)).mean()

    return fit(data, model, optimizer, capped, explained(data, 0.7), steps=600)


LOOPS = loops_of(
    FAULTS,
    [
        ("faults_columns_as_measured", "inputs_unscaled", _columns_as_measured),
        ("faults_a_column_of_seconds", "inputs_unscaled", _a_column_of_seconds),
        ("faults_rows_shuffled_alone", "labels_unlearnable", _rows_shuffled_alone),
        ("faults_telling_columns_dropped", "labels_unlearnable", _telling_columns_dropped),
        (
            "faults_divided_as_integers",
            ("labels_unlearnable", "inputs_unscaled"),
            _divided_as_integers,
        ),
        ("faults_tags_shifted", "labels_unlearnable", _tags_shifted),
        ("faults_far_from_the_threshold", "saturated_loss", _far_from_the_threshold),
        ("faults_loss_capped", ("saturated_loss", "flat_landscape"), _loss_capped),
    ],
)
