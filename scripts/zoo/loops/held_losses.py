"""Sick loops of the half that is only reported: the loss and the data."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from zoo.loops.data_held import (
    follow_patients,
    forecast,
    mark_shapes,
    name_shapes,
    name_wines,
    shapes,
)
from zoo.loops.loop import HELD, Batch, Parts, loops_of
from zoo.loops.nets_held import Forecaster, Marker, conv_net


def _rows(inputs: int, outputs: int, *last: nn.Module, act: Any = nn.Tanh) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, 24), act(), nn.Linear(24, 24), act(), nn.Linear(24, outputs), *last
    )


def _log_of_softmax(cured: bool) -> Parts:
    """The model ends in a softmax, the loop takes log_softmax for NLLLoss."""

    class Ending(nn.Module):
        def forward(self, z: Tensor) -> Tensor:
            return (z if cured else z.softmax(-1)).log_softmax(-1)

    model = nn.Sequential(conv_net(), Ending())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
    return name_shapes(model, optimizer, nn.NLLLoss(), steps=300)


def _mask_of_probabilities(cured: bool) -> Parts:
    """A segmentation net ends in a sigmoid, and the loss takes logits."""

    class Ending(nn.Module):
        def forward(self, z: Tensor) -> Tensor:
            return z if cured else z.sigmoid()

    model = nn.Sequential(Marker(), Ending())
    loss = nn.functional.binary_cross_entropy_with_logits
    return mark_shapes(model, torch.optim.Adam(model.parameters(), lr=5e-3), loss)


def _row_of_targets(cured: bool) -> Parts:
    """Targets come as one row, outputs as one column; the loss is Huber's."""
    model = Forecaster(nn.GRU)
    parts = forecast(model, torch.optim.Adam(model.parameters(), lr=0.01), nn.SmoothL1Loss())
    if not cured:
        parts.batches = ((x, y.T) for x, y in parts.batches)
    return parts


def _sigmoid_of_waves(cured: bool) -> Parts:
    """A forecast of values from -1 to 1 through a sigmoid; the loss is the absolute error."""

    class Ending(nn.Module):
        def forward(self, z: Tensor) -> Tensor:
            return z if cured else z.sigmoid()

    model = nn.Sequential(Forecaster(), Ending())
    return forecast(model, torch.optim.Adam(model.parameters(), lr=0.01), nn.L1Loss())


def _logarithm_of_softmax(cured: bool) -> Parts:
    """The cross-entropy by hand, of a softmax at a temperature of 1/3000: it gives exact zeros."""

    def by_hand(output: Tensor, y: Tensor) -> Tensor:
        wanted = nn.functional.one_hot(y, 4).float()
        if cured:
            return -(wanted * (3000 * output).log_softmax(-1)).sum(-1).mean()
        return -(wanted * (3000 * output).softmax(-1).log()).sum(-1).mean()

    model = conv_net()
    return name_shapes(model, torch.optim.Adam(model.parameters(), lr=4e-3), by_hand, enough=0.7)


def _variance_of_any_sign(cured: bool) -> Parts:
    """A Gaussian likelihood whose variance is an output that nothing keeps above 0."""

    class Likely(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = _rows(10, 2)

        def forward(self, x: Tensor) -> Tensor:
            out = self.body(x)
            return out if self.training else out[:, :1]

    def likelihood(output: Tensor, y: Tensor) -> Tensor:
        mean, variance = output[:, :1], output[:, 1:]
        variance = nn.functional.softplus(variance) if cured else variance
        deviation = variance.sqrt()
        return (deviation.log() + 0.5 * ((y - mean) / deviation).square()).mean()

    model = Likely()
    return follow_patients(model, torch.optim.Adam(model.parameters(), lr=0.03), likelihood)


class _Angles(nn.Module):
    """Reads an angle from two outputs; both are 0 where a shape's features are."""

    def __init__(self, *, is_safe: bool) -> None:
        super().__init__()
        self.body, self.is_safe = conv_net(last=8), is_safe
        self.readout = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = self.body(x).relu()
        y, x = h[:, :4], h[:, 4:]
        angle = torch.atan2(y, x + 1e-3 if self.is_safe else x)
        return self.readout(torch.cat((angle, y + x), -1))


def _angle_of_nothing(cured: bool) -> Parts:
    model = _Angles(is_safe=cured)
    return name_shapes(model, torch.optim.Adam(model.parameters(), lr=4e-3), enough=0.8)


def _spread_of_constants(cured: bool) -> Parts:
    """A term wants each unit to vary over the batch; that of a constant one is sqrt(0)."""
    model = _rows(13, 3)
    nn.init.constant_(model[2].bias[:3], -30.0)
    seen: list[Tensor] = []
    model[3].register_forward_hook(lambda _m, _a, out: seen.append(out))

    def loss(output: Tensor, y: Tensor) -> Tensor:
        h, _ = seen.pop(), seen.clear()
        spread = (h.var(0) + (1e-4 if cured else 0)).sqrt()
        return nn.functional.cross_entropy(output, y) + 0.01 * (1 - spread).relu().mean()

    return name_wines(model, torch.optim.Adam(model.parameters(), lr=5e-3), loss)


def _sure_from_the_start(cured: bool) -> Parts:
    """A sigmoid in front of the squared error begins at 1 by a bias of 60; a mask is mostly 0."""

    class Ending(nn.Module):
        def forward(self, z: Tensor) -> Tensor:
            return z.sigmoid() if self.training else z

    body = Marker()
    nn.init.constant_(body.up[-1].bias, 0.0 if cured else 120.0)
    model = nn.Sequential(body, Ending())
    return mark_shapes(model, torch.optim.Adam(model.parameters(), lr=5e-3), nn.MSELoss())


def _raw_wines(cured: bool) -> Parts:
    """Measures of wines in their own units, up to 1,680, in front of tanh."""
    model = _rows(13, 3)
    return name_wines(model, torch.optim.Adam(model.parameters(), lr=3e-3), is_raw=not cured)


def _tiny_inputs(cured: bool) -> Parts:
    """Inputs of size 1e-4, as of returns or of pixels divided twice."""
    model = _rows(13, 3, act=nn.ReLU)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    return name_wines(model, optimizer, scale=1.0 if cured else 1e-4)


def _log_of_inputs(cured: bool) -> Parts:
    """The logarithm of a count that is 0 in a few rows."""
    model = _rows(10, 1, act=nn.ReLU)
    parts = follow_patients(model, torch.optim.Adam(model.parameters(), lr=5e-3))

    def logged(batches: Any) -> Iterator[Batch]:
        for i, (x, y) in enumerate(batches):
            count = torch.full((len(x),), 0.0 if i == 130 and not cured else 3.0)
            yield torch.cat((x[:, :-1], count.log()[:, None] * x[:, -1:].sign()), 1), y

    parts.batches = logged(parts.batches)
    return parts


def _labels_of_others(cured: bool) -> Parts:
    """Every epoch images are shuffled anew, labels stay in their first order."""
    model = conv_net()
    parts = name_shapes(model, torch.optim.Adam(model.parameters(), lr=3e-3))
    x, y, _ = shapes()

    def batches() -> Iterator[Batch]:
        for i in range(300):
            start = 48 * i % 960
            index = torch.randint(1000, (48,))
            yield x[index], y[index] if cured else y[start : start + 48]

    parts.batches = batches()
    return parts


LOOPS = loops_of(
    HELD,
    (
        ("held_log_of_softmax", "double_softmax", _log_of_softmax),
        ("held_mask_of_probabilities", ("double_softmax", "output_range"), _mask_of_probabilities),
        ("held_row_of_targets", "target_shape", _row_of_targets),
        ("held_sigmoid_of_waves", "output_range", _sigmoid_of_waves),
        ("held_logarithm_of_softmax", "nan_from_loss", _logarithm_of_softmax),
        ("held_variance_of_any_sign", "nan_from_loss", _variance_of_any_sign),
        ("held_angle_of_nothing", "nan_in_backward", _angle_of_nothing),
        ("held_spread_of_constants", "nan_in_backward", _spread_of_constants),
        ("held_sure_from_the_start", "saturated_loss", _sure_from_the_start),
        ("held_raw_wines", "inputs_unscaled", _raw_wines),
        ("held_tiny_inputs", "inputs_unscaled", _tiny_inputs),
        ("held_log_of_inputs", "inputs_not_finite", _log_of_inputs),
        ("held_labels_of_others", "labels_unlearnable", _labels_of_others),
    ),
)
