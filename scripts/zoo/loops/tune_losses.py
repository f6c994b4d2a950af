"""Sick loops of the half by which rules may be set: the loss and the data."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from zoo.loops.batches import explained_goal, split
from zoo.loops.data_tune import digits, fit_waves, read_digits, tell_tumours, waves
from zoo.loops.loop import TUNE, Batch, Parts, loops_of


def _cnn(*last: nn.Module) -> nn.Sequential:
    return nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)), nn.Conv2d(1, 12, 3, padding=1), nn.ReLU(),
        nn.Conv2d(12, 16, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(256, 10),
        *last,
    )  # fmt: skip


def _mlp(inputs: int, *last: nn.Module) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 1), *last
    )


def _softmax_twice(cured: bool) -> Parts:
    """The model ends in a softmax, the functional loss applies another."""
    model = _cnn(*(() if cured else (nn.Softmax(-1),)))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.08)
    return read_digits(model, optimizer, nn.functional.cross_entropy, steps=200)


def _sigmoid_and_logits(cured: bool) -> Parts:
    """A sigmoid in front of BCEWithLogitsLoss: no output says less than one half."""
    model = _mlp(30, *(() if cured else (nn.Sigmoid(),)))
    return tell_tumours(model, torch.optim.Adam(model.parameters(), lr=2e-3))


def _broadcast(cured: bool) -> Parts:
    """The head's axis of size 1 is squeezed away, the target's is not."""
    last = (nn.Identity(),) if cured else (nn.Flatten(0),)
    model = _mlp(3, *last)
    return fit_waves(model, torch.optim.Adam(model.parameters(), lr=4e-3))


def _tanh_last(cured: bool) -> Parts:
    """Targets are around 5, and the model ends in tanh."""
    model = _mlp(3, *(() if cured else (nn.Tanh(),)))
    return fit_waves(
        model, torch.optim.Adam(model.parameters(), lr=0.01), shift=5.0, steps=500, enough=0.5
    )


def _relu_last(cured: bool) -> Parts:
    """Every layer is followed by ReLU, the last one too; targets are mostly below 0."""
    model = _mlp(3, *(() if cured else (nn.ReLU(),)))
    return fit_waves(model, torch.optim.Adam(model.parameters(), lr=5e-3), shift=-1.0)


def _log_of_zero(cured: bool) -> Parts:
    """The binary cross-entropy by hand, of probabilities that become exactly 0 or 1."""

    def by_hand(p: Tensor, y: Tensor) -> Tensor:
        p = p.clamp(1e-6, 1 - 1e-6) if cured else p
        return -(y * p.log() + (1 - y) * (1 - p).log()).mean()

    model = _mlp(30, nn.Sigmoid())
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    return tell_tumours(model, optimizer, by_hand, middle=0.5)


def _empty_mask(cured: bool) -> Parts:
    """The mean over observed targets, in batches of which some have none: 0/0."""

    def masked(output: Tensor, y: Tensor) -> Tensor:
        is_observed = (y > 1.2).float()  # one in fifteen
        total = (is_observed * (output - y).square()).sum()
        return total / (is_observed.sum().clamp_min(1) if cured else is_observed.sum())

    model = _mlp(3)
    parts = fit_waves(model, torch.optim.Adam(model.parameters(), lr=5e-3), masked)
    parts.batches = [(x[:24], y[:24]) for x, y in parts.batches]
    x, y = waves(3000)
    observed = y[:, 0] > 1.2
    parts.goal = explained_goal(x[observed], y[observed], -1.0)  # it is off by 50 at first
    return parts


def _signed_root(cured: bool) -> Parts:
    """A signed root by `where`: the branch that is not chosen has the root of a negative number,
    whose gradient is nan even times 0."""

    def compressed(z: Tensor) -> Tensor:
        if cured:
            return z.sign() * (z.abs() + 1e-3).sqrt()
        return torch.where(z > 0, z.sqrt(), -((-z).sqrt()))

    def loss(output: Tensor, y: Tensor) -> Tensor:
        apart = compressed(output) - y.sign() * (y.abs() + 1e-3).sqrt()
        return ((output - y).square() + 0.1 * apart.square()).mean()

    model = _mlp(3)
    return fit_waves(model, torch.optim.Adam(model.parameters(), lr=5e-3), loss)


class _Padded(nn.Module):
    """Patches of an image, of which some are empty, each scaled to length 1; then a head."""

    def __init__(self, *, is_safe: bool) -> None:
        super().__init__()
        self.patches = nn.Linear(8, 24, bias=False)
        self.is_safe = is_safe
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(192, 10))

    def forward(self, x: Tensor) -> Tensor:
        pixels = (x - x.min()).reshape(-1, 8, 8).transpose(1, 2)
        rows = self.patches(pixels)  # the columns of an image, of which the outer ones are empty
        length = (rows.square().sum(-1, keepdim=True) + (1e-6 if self.is_safe else 0)).sqrt()
        return self.head(rows / length.clamp_min(1e-6))


def _norm_of_zero(cured: bool) -> Parts:
    model = _Padded(is_safe=cured)
    return read_digits(model, torch.optim.Adam(model.parameters(), lr=4e-3))


def _raw_measures(cured: bool) -> Parts:
    """Thirty measures in their own units, up to 4,000."""
    model = _mlp(30)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    return tell_tumours(model, optimizer, is_raw=not cured)


def _missing_values(cured: bool) -> Parts:
    """A table with missing values: one row in 400."""
    model = _mlp(30)
    parts = tell_tumours(model, torch.optim.Adam(model.parameters(), lr=2e-3))

    def with_gaps(batches: Any) -> Iterator[Batch]:
        for i, (x, y) in enumerate(batches):
            if i % 60 == 33 and not cured:
                x = x.clone()
                x[3, 7] = float("nan")
            yield x, y

    parts.batches = with_gaps(parts.batches)
    return parts


def _shuffled_labels(cured: bool) -> Parts:
    """Images are shuffled, and labels are not."""
    model = _cnn()
    parts = read_digits(model, torch.optim.Adam(model.parameters(), lr=2e-3), steps=400)
    (x, y), _ = split(*digits(), 300)

    def batches() -> Iterator[Batch]:
        for _ in range(400):
            index = torch.randint(len(x), (64,))
            yield x[index], y[index if cured else torch.randint(len(x), (64,))]

    parts.batches = batches()
    return parts


def _autoencoder_of_sigmoid(cured: bool) -> Parts:
    """Standardised pixels go from -0.8 to 1.9, and the decoder ends in a sigmoid."""
    x, _ = digits()
    model = nn.Sequential(
        nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, 32), nn.ReLU(),
        nn.Linear(32, 64), *(() if cured else (nn.Sigmoid(),)),
    )  # fmt: skip
    parts = read_digits(model, torch.optim.Adam(model.parameters(), lr=4e-3), nn.MSELoss())
    parts.batches = [(x[i], x[i]) for i in (torch.randint(1500, (64,)) for _ in range(400))]
    parts.goal = explained_goal(x[1500:], x[1500:], 0.45)
    parts.num_classes = None
    return parts


LOOPS = loops_of(
    TUNE,
    (
        ("loss_softmax_twice", "double_softmax", _softmax_twice),
        ("loss_sigmoid_and_logits", ("double_softmax", "output_range"), _sigmoid_and_logits),
        ("loss_broadcast", "target_shape", _broadcast),
        ("loss_tanh_last", "output_range", _tanh_last),
        ("loss_relu_last", "output_range", _relu_last),
        ("loss_autoencoder_of_sigmoid", "output_range", _autoencoder_of_sigmoid),
        ("loss_log_of_zero", "nan_from_loss", _log_of_zero),
        ("loss_empty_mask", "nan_from_loss", _empty_mask),
        ("loss_signed_root", "nan_in_backward", _signed_root),
        ("loss_norm_of_zero", "nan_in_backward", _norm_of_zero),
        ("data_raw_measures", "inputs_unscaled", _raw_measures),
        ("data_missing_values", "inputs_not_finite", _missing_values),
        ("data_shuffled_labels", "labels_unlearnable", _shuffled_labels),
    ),
)
