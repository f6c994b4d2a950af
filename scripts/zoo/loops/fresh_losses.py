"""Sick loops of the fresh set: the loss."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from zoo.loops.batches import batches_of, mean_goal, sign_goal
from zoo.loops.fresh_data import (
    classify,
    cross_entropy_of_tokens,
    customers,
    keyword_text,
    pendulum,
    regress,
    share_right,
    spots,
    stream,
    stripes,
)
from zoo.loops.fresh_nets import Speller, mlp, stripes_net
from zoo.loops.loop import FRESH, Parts, loops_of


def _softmax_of_tokens(cured: bool) -> Parts:
    """A language model ends in a softmax over characters, the loss is cross_entropy."""
    model = Speller(nn.GRU)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
    if not cured:
        model.readout = nn.Sequential(model.readout, nn.Softmax(-1))
    return stream(keyword_text, model, optimizer, cross_entropy_of_tokens, share_right, enough=0.6)


class _Values(nn.Module):
    """The value of each of three actions, of a state."""

    def __init__(self) -> None:
        super().__init__()
        self.values = mlp(3, 32, 32, 3, act=nn.Tanh)

    def forward(self, x: Tensor) -> Tensor:
        state, action = x[:, :3], x[:, 3:].long()
        return self.values(state).gather(1, action)


def _values_of_actions(cured: bool) -> Parts:
    """`gather` gives a column, rewards are a row: their difference is a square."""
    state, angle = pendulum()
    action = torch.randint(3, (len(state), 1))
    x, reward = torch.cat((state, action.float()), 1), (angle * (action - 1))[:, 0]

    def loss(output: Tensor, reward: Tensor) -> Tensor:
        return (output - (reward[:, None] if cured else reward)).square().mean()

    model = _Values()
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    return regress((x, reward), model, optimizer, loss, enough=0.7, steps=300)


def _pixels_of_sigmoid(cured: bool) -> Parts:
    """A decoder ends in a sigmoid, the pixels that it should make go up to 255."""
    images = spots()
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3, 2, 1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(200, 12),
        nn.ReLU(),
        nn.Linear(12, 100),
        nn.Unflatten(1, (1, 10, 10)),
        nn.Sigmoid(),
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    pixels = images if cured else 255 * images
    return regress((images, pixels), model, optimizer, enough=0.4, steps=300)


def _negative_prices(cured: bool) -> Parts:
    """Logarithms of prices below 1 are negative, the last layer is a ReLU."""
    x, angle = pendulum()
    model = mlp(3, 32, 32, 1)
    if not cured:
        model.append(nn.ReLU())
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    return regress((x, angle - 2.5), model, optimizer, enough=0.7, steps=300)


def _divergence_by_hand(cured: bool) -> Parts:
    """q log(q / p), where p are one-hot labels: the logarithm of 0."""

    def loss(output: Tensor, y: Tensor) -> Tensor:
        p, log_q = nn.functional.one_hot(y, 4).float(), output.log_softmax(-1)
        if cured:
            p = 0.96 * p + 0.01
        return (log_q.exp() * (log_q - p.log())).sum(-1).mean()

    model = stripes_net(act=nn.GELU)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    return classify(stripes(), model, optimizer, loss, enough=0.8)


def _percentages(cured: bool) -> Parts:
    """A relative error of amounts, of which some are 0."""
    x, angle = pendulum()

    def loss(output: Tensor, y: Tensor) -> Tensor:
        return ((output - y).abs() / (y.abs() + 1 if cured else y.abs())).mean()

    model = mlp(3, 32, 32, 1, act=nn.SiLU)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    return regress((x, angle.relu()), model, optimizer, loss, enough=0.5, steps=300)


def _distances_to_itself(cured: bool) -> Parts:
    """A loss of all distances within a batch, by hand: a row is at 0 from itself."""

    def loss(output: Tensor, y: Tensor) -> Tensor:
        squares = (output[:, None] - output[None]).square().sum(-1)
        apart = (squares + (1e-6 if cured else 0.0)).sqrt()
        same = y[:, None] == y[None]
        return torch.where(same, apart, (2 - apart).relu()).mean()

    x, y = customers()
    model = mlp(16, 48, 8)

    def score(model: nn.Module) -> Tensor:
        said, known = model(x[-300:]), model(x[:-300])
        return (y[torch.cdist(said, known).argmin(1)] == y[-300:]).float().mean()

    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    batches = batches_of(x[:-300], y[:-300], 250)
    return Parts(model, optimizer, loss, batches, mean_goal(score, 0.5))


class _MeanOfNeighbours(nn.Module):
    """The mean of what is marked, or zeros where nothing is: `torch.where` behind the division."""

    def __init__(self, *, is_safe: bool) -> None:
        super().__init__()
        self.value, self.weight = mlp(3, 24, 24), nn.Linear(3, 24)
        self.readout = mlp(24, 24, 1)
        self.is_safe = is_safe

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight(x).relu()
        total = weight.sum(1, keepdim=True) * (x[:, 2:] > -0.9)
        divisor = total.clamp_min(1e-3) if self.is_safe else total
        h = torch.where(total > 0, self.value(x) * weight / divisor, 0.0)
        return self.readout(h)


def _where_behind_division(cured: bool) -> Parts:
    model = _MeanOfNeighbours(is_safe=cured)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    return regress(pendulum(), model, optimizer, enough=0.6, steps=400)


def _steep_steps(cured: bool) -> Parts:
    """A soft count of errors: a sigmoid as steep as a step asks whether a cost is above 5."""
    slope = 1.0 if cured else 100.0

    def loss(cost: Tensor, y: Tensor) -> Tensor:
        return ((slope * (cost[:, 0] - 5)).sigmoid() - y).square().mean()

    x, kind = customers(kinds=2)
    model = mlp(16, 32, 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    parts = classify((x, kind), model, optimizer, loss, enough=0.8)
    parts.goal = sign_goal(x[-300:], kind[-300:].float(), 0.75, middle=5.0)
    return parts


def _product_of_chances(cured: bool) -> Parts:
    """The likelihood of whole lines, multiplied up; some are 0 in float32, and so is the log."""

    def loss(output: Tensor, y: Tensor) -> Tensor:
        chosen = output.log_softmax(-1).gather(2, y[:, :, None])[:, :, 0]
        if cured:
            return -chosen.sum(1).mean() / y.shape[1]
        return -chosen.exp().prod(1).log().mean() / y.shape[1]

    model = Speller(nn.GRU)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)

    def make(steps: int) -> Any:
        return keyword_text(steps, length=36)

    return stream(make, model, optimizer, loss, share_right, enough=0.5, steps=150)


LOOPS = loops_of(
    FRESH,
    [
        ("fresh_softmax_of_tokens", "double_softmax", _softmax_of_tokens),
        ("fresh_values_of_actions", "target_shape", _values_of_actions),
        ("fresh_pixels_of_sigmoid", "output_range", _pixels_of_sigmoid),
        ("fresh_negative_prices", "output_range", _negative_prices),
        ("fresh_divergence_by_hand", "nan_from_loss", _divergence_by_hand),
        ("fresh_percentages", "nan_from_loss", _percentages),
        ("fresh_distances_to_itself", "nan_in_backward", _distances_to_itself),
        ("fresh_where_behind_division", "nan_in_backward", _where_behind_division),
        ("fresh_steep_steps", "saturated_loss", _steep_steps),
        ("fresh_product_of_chances", ("nan_from_loss", "underflow"), _product_of_chances),
    ],
)
