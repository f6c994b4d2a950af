"""Sick loops of the set `faults`: rates, clipping and other settings of optimizers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from zoo.loops.batches import accuracy_goal
from zoo.loops.faults_data import (
    digits,
    explained,
    first_of,
    fit,
    mlp,
    moons,
    prices,
    reviews,
    right,
    small_cnn,
    stream,
    waves,
)
from zoo.loops.loop import FAULTS, Batch, Parts, loops_of


def _rate_of_a_millionth(cured: bool) -> Parts:
    """SGD with a learning rate of 1e-6.

    DeepCrime, "decrease learning rate" (HLR); AUTOTRAINER, "slow convergence"; UMLAUT, "learning
    rate too low".
    """
    data = digits(as_images=True)
    model = small_cnn()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05 if cured else 1e-6, momentum=0.9)
    return fit(data, model, optimizer, nn.CrossEntropyLoss(), right(data, 0.85), steps=250)


def _wave_net() -> nn.Sequential:
    """Two convolutions over signals (N, 1, T), the largest value of each channel, three classes."""
    return nn.Sequential(
        nn.Conv1d(1, 12, 5, padding=2),
        nn.ReLU(),
        nn.Conv1d(12, 12, 5, padding=2),
        nn.ReLU(),
        nn.AdaptiveMaxPool1d(1),
        nn.Flatten(),
        nn.Linear(12, 3),
    )


def _schedule_of_epochs_each_batch(cured: bool) -> Parts:
    """`StepLR(step_size=10)` was meant for epochs, and is called after each batch.

    Humbatova et al. 2020, Hyperparameters, "suboptimal learning rate"; Islam et al. 2019, a control
    and sequence bug. After 60 batches the rate is a millionth of what it was.
    """
    model = _wave_net()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, step_size=10, gamma=0.1)
    count = [0]

    def step(model: Any, optimizer: Any, loss: Any, batch: Any) -> None:
        optimizer.zero_grad()
        loss(model(batch[0]), batch[1]).backward()
        optimizer.step()
        count[0] += 1
        if not cured or count[0] % 50 == 0:
            schedule.step()

    goal = accuracy_goal(*waves(300), 0.85)
    return stream(waves, model, optimizer, nn.CrossEntropyLoss(), goal, steps=300, step=step)


def _adadelta_with_the_rate_of_adam(cured: bool) -> Parts:
    """Adam was changed for Adadelta, and the rate of 0.003 was kept; Adadelta's own is 1.

    DeepCrime, "change optimisation function" (OCH); Humbatova et al. 2020, "wrong optimisation
    function".
    """
    data = prices()
    model = mlp(8, 48, 48, 1)
    kind = torch.optim.Adam if cured else torch.optim.Adadelta
    optimizer = kind(model.parameters(), lr=3e-3)

    def loss(output: Tensor, y: Tensor) -> Tensor:
        return nn.functional.mse_loss(output[:, 0], y)

    return fit(data, model, optimizer, loss, explained(data, 0.6), steps=500)


def _adam_with_a_rate_of_one(cured: bool) -> Parts:
    """Adam with a learning rate of 1, for digits.

    UMLAUT, "learning rate too high"; DeepCrime, HLR.
    """
    data = digits(as_images=True)
    model = small_cnn()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3 if cured else 1.0)
    return fit(data, model, optimizer, nn.CrossEntropyLoss(), right(data, 0.85), steps=250)


def _sum_over_the_batch(cured: bool) -> Parts:
    """`reduction="sum"` over 256 rows with a rate that was found for the mean.

    DeepCrime, "change loss function" (LCH); AUTOTRAINER, "oscillating loss" and "gradient explode".
    """
    data = prices()
    model = mlp(8, 48, 48, 1, act=nn.Tanh)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)

    def loss(output: Tensor, y: Tensor) -> Tensor:
        reduction = "mean" if cured else "sum"
        return nn.functional.mse_loss(output[:, 0], y, reduction=reduction)

    return fit(data, model, optimizer, loss, explained(data, 0.6), steps=500, size=256)


class _Lstm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(5, 24, batch_first=True)
        self.read = nn.Linear(24, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.read(self.lstm(x)[0][:, -1])


def _oscillates(cured: bool) -> Parts:
    """RMSprop with a rate of 0.5 in an LSTM.

    AUTOTRAINER, "oscillating loss", whose repair is a smaller rate.
    """
    model = _Lstm()
    optimizer = torch.optim.RMSprop(model.parameters(), lr=5e-3 if cured else 0.5)

    def draw(num: int) -> Batch:
        return first_of(num, 10)

    goal = accuracy_goal(*draw(400), 0.85)
    return stream(draw, model, optimizer, nn.CrossEntropyLoss(), goal, steps=300)


def _clipped_to_nothing(cured: bool) -> Parts:
    """`clip_grad_norm_(..., 1e-4)` with SGD.

    DeepCrime, "change gradient clip" (OCG).
    """
    data = digits()
    model = mlp(64, 48, 10)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

    def step(model: Any, optimizer: Any, loss: Any, batch: Any) -> None:
        optimizer.zero_grad()
        loss(model(batch[0]), batch[1]).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0 if cured else 1e-4)
        optimizer.step()

    loss = nn.CrossEntropyLoss()
    return fit(data, model, optimizer, loss, right(data, 0.85), steps=300, step=step)


def _epsilon_of_adam(cured: bool) -> Parts:
    """`eps=1.0`, as a note on Inception says, with Adam's usual rate: steps are lr times gradient.

    Humbatova et al. 2020, Training, Optimiser, "epsilon for Adam optimiser", the leaf on its size.
    """
    model = nn.Sequential(nn.Embedding(40, 16), nn.Flatten(), nn.Linear(256, 2))
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3, eps=1e-8 if cured else 1.0)
    goal = accuracy_goal(*reviews(600), 0.9)
    return stream(reviews, model, optimizer, nn.CrossEntropyLoss(), goal, steps=300)


def _decay_of_one(cured: bool) -> Parts:
    """`weight_decay=1.0` with SGD: weights shrink faster than they are learnt.

    DeepCrime, "add weights regularisation" (RAW); Humbatova et al. 2020, Loss function, "missing
    regularisation", the other way round.
    """
    data = moons()
    model = mlp(2, 32, 32, 2)
    decay = 1e-4 if cured else 1.0
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=decay)
    return fit(data, model, optimizer, nn.CrossEntropyLoss(), right(data, 0.93), steps=400)


def _sign_of_the_reward(cured: bool) -> Parts:
    """REINFORCE without the minus: `(log_p * advantage).mean()` is made small.

    Humbatova et al. 2020, Loss function, "wrong loss function calculation"; Islam et al. 2019, a
    logic bug. Which of four arms pays depends on the place.
    """
    model = mlp(2, 32, 4, act=nn.Tanh)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)

    def best(places: Tensor) -> Tensor:
        return (places[:, 0] > 0).long() * 2 + (places[:, 1] > 0).long()

    def draw(num: int) -> Batch:
        places = 2 * torch.rand(num, 2) - 1
        return places, best(places)

    def gain(logits: Tensor, arm: Tensor, paid: Tensor) -> Tensor:
        log_p = logits.log_softmax(1).gather(1, arm[:, None])[:, 0]
        expected = (log_p * (paid - paid.mean())).mean()
        return -expected if cured else expected

    def step(model: Any, optimizer: Any, loss: Any, batch: Any) -> None:
        places, pays = batch
        logits = model(places)
        arm = torch.distributions.Categorical(logits=logits).sample()
        value = loss(logits, arm, (arm == pays).float())
        optimizer.zero_grad()
        value.backward()
        optimizer.step()

    goal = accuracy_goal(*draw(400), 0.85)
    return stream(draw, model, optimizer, gain, goal, steps=350, size=128, step=step)


LOOPS = loops_of(
    FAULTS,
    [
        ("faults_rate_of_a_millionth", "rate_too_small", _rate_of_a_millionth),
        ("faults_schedule_each_batch", "rate_too_small", _schedule_of_epochs_each_batch),
        ("faults_adadelta_as_adam", "rate_too_small", _adadelta_with_the_rate_of_adam),
        ("faults_adam_with_a_rate_of_one", "rate_too_large", _adam_with_a_rate_of_one),
        ("faults_sum_over_the_batch", "rate_too_large", _sum_over_the_batch),
        ("faults_oscillates", "rate_too_large", _oscillates),
        ("faults_clipped_to_nothing", "clip_throttles", _clipped_to_nothing),
        ("faults_epsilon_of_adam", "optimizer_epsilon", _epsilon_of_adam),
        ("faults_decay_of_one", "unknown", _decay_of_one),
        ("faults_sign_of_the_reward", "unknown", _sign_of_the_reward),
    ],
)
