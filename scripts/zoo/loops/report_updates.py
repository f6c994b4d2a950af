"""Sick loops of the set `reports`: optimizers, number formats and flat landscapes."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from zoo.loops.batches import accuracy_goal, mean_goal
from zoo.loops.loop import REPORTS, Batch, Parts, loops_of
from zoo.loops.report_data import (
    bandit,
    digits,
    explained,
    fit,
    friedman,
    language,
    mlp,
    next_token_goal,
    next_token_loss,
    stream,
)
from zoo.loops.report_nets import Gpt, GruModel, denoising_goal, noised

# ---------------------------------------------------------------- rates


def _celsius(cured: bool) -> Parts:
    """One unit learns Fahrenheit of Celsius by RMSprop at its default rate.

    Stack Overflow 51181393, as the benchmark of DeepFD records it: `'rmsprop'` repaired to
    `RMSprop(lr=0.1)`.
    """
    x = torch.tensor([[-40.0], [-10], [0], [8], [15], [22], [38]])
    y = 1.8 * x + 32
    model = nn.Sequential(nn.Linear(1, 1))
    optimizer = torch.optim.RMSprop(model.parameters(), lr=0.1 if cured else 0.001)

    def value(model: nn.Module) -> Tensor:
        return 1 - (model(x) - y).square().mean() / (y - y.mean()).square().mean()

    batches = ((x, y) for _ in range(700))
    return Parts(model, optimizer, nn.MSELoss(), batches, mean_goal(value, 0.9))


def _exclusive_or(cured: bool) -> Parts:
    """The exclusive or by SGD with a rate of 0.001.

    Stack Overflow 34311586, as the benchmark of DeepFD records it ("(1) Learning rate"):
    `SGD(lr=0.001, momentum=0.9, nesterov=True)`; the twin has a larger rate.
    """
    x = torch.tensor([[0.0, 0], [0, 1], [1, 0], [1, 1]])
    y = torch.tensor([[0.0], [1], [1], [0]])
    model = mlp(2, 16, 1, act=nn.Tanh)
    optimizer = torch.optim.SGD(
        model.parameters(), lr=0.2 if cured else 0.001, momentum=0.9, nesterov=True
    )
    loss = nn.BCEWithLogitsLoss()
    goal = mean_goal(lambda model: loss(model(x), y), 0.3, higher=False)
    return Parts(model, optimizer, loss, ((x, y) for _ in range(600)), goal)


def _rate_of_two(cured: bool) -> Parts:
    """A language model's rate is 2, as is right where a schedule divides it, and here none does.

    GitHub OpenNMT/OpenNMT-tf, issue #744 ("Model diverged with loss = NaN"): "the default learning
    rate in GPT2Small is `2.5e-4` but you then set `2`".
    """
    model = Gpt()
    optimizer = torch.optim.Adam(model.parameters(), lr=4e-3 if cured else 2.0)
    goal = next_token_goal(0.8)
    return stream(language, model, optimizer, next_token_loss, goal, steps=200, size=48)


def _keypoints_at_a_tenth(cured: bool) -> Parts:
    """Coordinates of a point in an image, by convolutions and Adam at 0.1.

    GitHub project FacialKeypointsDetection, as the benchmark of DeepFD records it:
    `Adam(lr=0.1)` repaired to SGD; the twin has a smaller rate.
    """

    def draw(num: int) -> Batch:
        centre = 2 + 8 * torch.rand(num, 2)
        place = torch.arange(12.0)
        down = (place[None, :, None] - centre[:, 0, None, None]).square()
        along = (place[None, None, :] - centre[:, 1, None, None]).square()
        bump = torch.exp(-(down + along) / 3)[:, None]
        return bump + 0.1 * torch.randn(num, 1, 12, 12), (centre - 6) / 6

    model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.MaxPool2d(2))
    model.extend([nn.Conv2d(8, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 64), nn.ReLU()])
    model.extend(mlp(64, 128, 128, 128, 2))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.002 if cured else 0.1)
    x, y = draw(300)

    def value(model: nn.Module) -> Tensor:
        return 1 - (model(x) - y).square().mean() / y.var()

    return stream(draw, model, optimizer, nn.MSELoss(), mean_goal(value, 0.8), steps=250, size=32)


def _prices_at_a_tenth(cured: bool) -> Parts:
    """A regression on quantities up to 30 by SGD at 0.1.

    Stack Overflow 48934338, as the benchmark of DeepFD records it: `SGD(lr=0.1)` repaired to
    `SGD(lr=0.0001)`; the twin has 0.002.
    """
    data = friedman()
    model = mlp(10, 64, 64, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.002 if cured else 0.1)
    return fit(data, model, optimizer, nn.MSELoss(), explained(data, 0.6), steps=500)


def _triplets_collapse(cured: bool) -> Parts:
    """The loss of the hardest triplets stays at its margin: all embeddings are one point.

    GitHub omoindrot/tensorflow-triplet-loss, issues #6 and #38: "if the loss gets stuck at exactly
    the margin ... One solution is to reduce the learning rate until training does not collapse."
    """
    (x, y), (shown, labels) = digits()
    data = ((x, y), (shown, labels))
    model = mlp(64, 64, 64, 8)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3 if cured else 0.1)

    def loss(h: Tensor, y: Tensor) -> Tensor:
        apart = ((h[:, None] - h[None]).square().sum(2) + 1e-8).sqrt()
        same = y[:, None] == y[None]
        farthest = (apart * same).amax(1)
        nearest = (apart + 1e4 * same).amin(1)
        return (farthest - nearest + 0.5).relu().mean()

    def value(model: nn.Module) -> Tensor:
        return loss(model(shown[:64]), labels[:64])

    goal = mean_goal(value, 0.4, higher=False)
    return fit(data, model, optimizer, loss, goal, steps=450, size=64)


# ---------------------------------------------------------------- clips


class _Policy(nn.Module):
    """Logits of four actions, and a value."""

    def __init__(self) -> None:
        super().__init__()
        self.body = mlp(6, 48, 48, act=nn.Tanh)
        self.actor, self.critic = nn.Linear(48, 4), nn.Linear(48, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.body(x).tanh()
        return self.actor(h), self.critic(h)[:, 0]


def _policy_gradient(
    model: _Policy, optimizer: torch.optim.Optimizer, clip: float, enough: float
) -> Parts:
    def loss(outputs: tuple[Tensor, Tensor], played: tuple[Tensor, Tensor]) -> Tensor:
        (logits, value), (action, reward) = outputs, played
        log_p = logits.log_softmax(1).gather(1, action)[:, 0]
        advantage = (reward - value).detach()
        return -(advantage * log_p).mean() + 0.5 * (reward - value).square().mean()

    def step(model: Any, optimizer: Any, loss: Any, batch: Any) -> None:
        x, best = batch
        outputs = model(x)
        action = torch.distributions.Categorical(logits=outputs[0].detach()).sample()
        value = loss(outputs, (action[:, None], (action == best).float()))
        optimizer.zero_grad()
        value.backward()
        nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()

    x, best = bandit(500)
    goal = mean_goal(lambda model: (model(x)[0].argmax(1) == best).float().mean(), enough)
    return stream(bandit, model, optimizer, loss, goal, steps=500, size=64, step=step)


def _no_clip_meant(cured: bool) -> Parts:
    """`max_grad_norm=0` was to switch clipping off, and makes every gradient 0.

    GitHub strands-labs/robots, pull request #2028: with `0`, "0 of 34,701 parameters moved". A
    policy with a critic.
    """
    model = _Policy()
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    return _policy_gradient(model, optimizer, math.inf if cured else 0.0, 0.65)


def _clip_by_the_fourth_power(cured: bool) -> Parts:
    """A clip by hand squares norms that are squares already.

    GitHub paiml/entrenar, issue #311: "computing ||g||^4 instead of ||g||^2 ... gradients are
    clipped much more aggressively than intended".
    """
    data = friedman()
    model = mlp(10, 64, 64, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)

    def step(model: Any, optimizer: Any, loss: Any, batch: Any) -> None:
        value = loss(model(batch[0]), batch[1])
        optimizer.zero_grad()
        value.backward()
        squares = [each.grad.square().sum() for each in model.parameters()]
        total_sq = sum(each if cured else each * each for each in squares)
        factor = 1.0 / (total_sq**0.5 + 1e-6)
        for parameter in model.parameters():
            parameter.grad.mul_(min(1.0, float(factor)))
        optimizer.step()

    return fit(data, model, optimizer, nn.MSELoss(), explained(data, 0.6), steps=500, step=step)


# ---------------------------------------------------------------- epsilon


def _epsilon_of_a_tenth(cured: bool) -> Parts:
    """The default eps of Adam in a program was 0.1.

    GitHub mlpnlp/mlpnlp-nmt, pull request #4: "the default eps value of the Adam optimizer (0.1) is
    too large ... the training does not work well when using eps=0.1"; merged.
    """
    model = GruModel()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3, eps=1e-8 if cured else 0.1)
    goal = next_token_goal(0.8)
    return stream(language, model, optimizer, next_token_loss, goal, steps=350)


def _epsilon_of_half(cured: bool) -> Parts:
    """A regression in float16 by Adam with its default eps, which is 0 there.

    GitHub keras-team/keras, issue #11860 ("adam optimizer does not work with FP16": mse, loss nan;
    sgd works) and afiaka87/glide-finetune, pull request #6: "setting the eps variable to 1e-4".
    """
    (x, y), (shown, kept) = friedman()
    y, kept = (y - 14) / 5, (kept - 14) / 5
    data = ((x.half(), y.half()), (shown.half(), kept))
    model = mlp(10, 48, 48, 1).half()
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3, eps=1e-4 if cured else 1e-8)
    return fit(data, model, optimizer, nn.MSELoss(), explained(data, 0.6), steps=400)


# ---------------------------------------------------------------- number formats


def _no_scaler(cured: bool) -> Parts:
    """Half precision without a scaler, and a small weight on the loss: gradients round to 0.

    GitHub engichang1467/Open-Rig3R, issue #35: "autocast defaults to fp16 with no GradScaler -
    gradients can silently underflow to zero". The twin scales by 2 ** 14.
    """
    model = mlp(65, 96, 96, 64, act=nn.SiLU)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**14, enabled=cured)

    def loss(output: Tensor, noise: Tensor) -> Tensor:
        return 1e-5 * (output.float() - noise).square().mean()

    def step(model: Any, optimizer: Any, loss: Any, batch: Any) -> None:
        with torch.autocast("cpu", torch.float16):
            value = loss(model(batch[0]), batch[1])
        optimizer.zero_grad()
        scaler.scale(value).backward()
        scaler.step(optimizer)
        scaler.update()

    goal = denoising_goal(0.4)
    return stream(noised, model, optimizer, loss, goal, steps=300, step=step)


class _MaskedReader(nn.Module):
    """Attention of a learned query over tokens of which some are padding, in float16."""

    def __init__(self, huge: float) -> None:
        super().__init__()
        self.embedding, self.query = nn.Embedding(12, 24), nn.Linear(24, 1)
        self.value, self.readout = nn.Linear(24, 24), mlp(24, 32, 4)
        self.huge = huge

    def forward(self, tokens: Tensor) -> Tensor:
        h = self.embedding(tokens)
        score = self.query(h)[..., 0]
        mask = (tokens == 0).to(score.dtype)
        score = score - torch.tensor(self.huge, dtype=score.dtype) * mask
        return self.readout((score.softmax(1)[..., None] * self.value(h)).sum(1))


def _padded(num: int) -> Batch:
    y = torch.randint(4, (num,))
    tokens = torch.randint(5, 12, (num, 9))
    tokens[torch.arange(num), torch.randint(5, (num,))] = 1 + y
    length = 5 + torch.randint(5, (num, 1))
    return tokens.masked_fill(torch.arange(9) >= length, 0), y


def _mask_of_1e30(cured: bool) -> Parts:
    """What is masked loses 1e30, which is infinite in float16, and infinity times 0 is nan.

    GitHub huggingface/transformers, pull request #1154: "fp16 max number is 65504, the original
    1e30 will cause Nan in fp16"; merged.
    """
    model = _MaskedReader(65000.0 if cured else 1e30).half()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.9)

    def loss(output: Tensor, y: Tensor) -> Tensor:
        return nn.functional.cross_entropy(output.float(), y)

    goal = accuracy_goal(*_padded(400), 0.8)
    return stream(_padded, model, optimizer, loss, goal, steps=400)


def _count_is_infinite(cured: bool) -> Parts:
    """A mean by hand divides by the number of pixels, which float16 does not know: the loss is 0.

    GitHub chelsea0x3b/dfdx, issue #748: "the division denominator was > 65_000 so it was inf,
    therefore the loss was always 0, which I fixed by simply clipping the denominator".
    """
    (x, _), (shown, _) = digits()
    x, shown = x.half(), shown.half()
    data = ((x, x), (shown, shown))
    model = mlp(64, 32, 64).half()
    optimizer = torch.optim.SGD(model.parameters(), lr=3.0, momentum=0.9)

    def loss(output: Tensor, target: Tensor) -> Tensor:
        count = torch.tensor(output.numel(), dtype=output.dtype)
        if cured:
            count = count.clamp_max(65000)
        return (output - target).square().sum() / count

    return fit(data, model, optimizer, loss, explained(data, 0.3), steps=150, size=1100)


# ---------------------------------------------------------------- landscapes


def _far_flag(cured: bool) -> Parts:
    """The only reward is at the flag, no episode gets there, and all returns are the same.

    GitHub germain-hug/Deep-RL-Keras, issue #24 (mountain car, "always -200"): "the agent
    essentially has nothing beneficial to learn until it randomly happens across the finish line";
    others shape the reward by the position, as the twin does.
    """
    model = mlp(2, 24, 2, act=nn.Tanh)
    model[2].weight.data.mul_(0.1)
    model[2].bias.data.zero_()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)

    def episodes(num: int) -> tuple[Tensor, Tensor, Tensor]:
        place, states, actions = torch.zeros(num), [], []
        for now in range(24):
            state = torch.stack((place / 24, torch.full((num,), now / 24)), 1)
            with torch.no_grad():
                action = torch.distributions.Categorical(logits=model(state)).sample()
            place = (place + 2 * action - 1).clamp_min(-3)
            states.append(state)
            actions.append(action)
        return torch.stack(states, 1), torch.stack(actions, 1), place

    def loss(logits: Tensor, played: tuple[Tensor, Tensor]) -> Tensor:
        actions, returns = played
        log_p = logits.log_softmax(2).gather(2, actions[..., None])[..., 0]
        return -(log_p.sum(1) * (returns - returns.mean())).mean()

    def step(model: Any, optimizer: Any, loss: Any, batch: Any) -> None:
        states, actions, place = episodes(len(batch[0]))
        returns = place / 5 if cured else torch.where(place >= 24, 0.0, -24.0)
        value = loss(model(states), (actions, returns))
        optimizer.zero_grad()
        value.backward()
        optimizer.step()

    def value(_: nn.Module) -> Tensor:
        return (episodes(100)[2] >= 22).float().mean()

    def draw(num: int) -> Batch:
        return torch.zeros(num, 1), torch.zeros(num)

    return stream(
        draw, model, optimizer, loss, mean_goal(value, 0.5), steps=200, size=32, step=step
    )


def _second_derivative_of_relu(cured: bool) -> Parts:
    """A net of ReLU is to solve an equation of second order: its second derivative is 0.

    GitHub lululxvi/deepxde, issue #80: "Don't use relu, which is not second order differentiable.
    Use smooth activations, e.g., tanh"; "Getting quite good results now."
    """
    model = mlp(1, 24, 24, 1, act=nn.Tanh if cured else nn.ReLU)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)

    def residual(x: Tensor) -> Tensor:
        (first,) = torch.autograd.grad(model(x).sum(), x, create_graph=True)
        (second,) = torch.autograd.grad(
            first.sum(), x, create_graph=True, allow_unused=True, materialize_grads=True
        )
        return second + math.pi**2 * (math.pi * x).sin()

    def loss(ends: Tensor, inside: Tensor) -> Tensor:
        return 0.01 * inside.square().mean() + ends.square().mean()

    def step(model: Any, optimizer: Any, loss: Any, batch: Any) -> None:
        inside = residual(batch[0].requires_grad_(True))
        value = loss(model(torch.tensor([[-1.0], [1.0]])), inside)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()

    x = torch.linspace(-1, 1, 101)[:, None]

    def value(model: nn.Module) -> Tensor:
        return 1 - (model(x) - (math.pi * x).sin()).square().mean() / 0.5

    def draw(num: int) -> Batch:
        return 2 * torch.rand(num, 1) - 1, torch.zeros(num)

    return stream(draw, model, optimizer, loss, mean_goal(value, 0.8), steps=500, step=step)


LOOPS = loops_of(
    REPORTS,
    [
        ("report_celsius", "rate_too_small", _celsius),
        ("report_exclusive_or", "rate_too_small", _exclusive_or),
        ("report_rate_of_two", "rate_too_large", _rate_of_two),
        ("report_keypoints_at_a_tenth", "rate_too_large", _keypoints_at_a_tenth),
        ("report_prices_at_a_tenth", "rate_too_large", _prices_at_a_tenth),
        ("report_triplets_collapse", "rate_too_large", _triplets_collapse),
        ("report_no_clip_meant", "clip_throttles", _no_clip_meant),
        ("report_clip_by_the_fourth_power", "clip_throttles", _clip_by_the_fourth_power),
        ("report_epsilon_of_a_tenth", "optimizer_epsilon", _epsilon_of_a_tenth),
        ("report_epsilon_of_half", "optimizer_epsilon", _epsilon_of_half),
        ("report_no_scaler", "underflow", _no_scaler),
        ("report_mask_of_1e30", "overflow", _mask_of_1e30),
        ("report_count_is_infinite", "overflow", _count_is_infinite),
        ("report_far_flag", "flat_landscape", _far_flag),
        (
            "report_second_derivative_of_relu",
            ("flat_landscape", "graph_cut"),
            _second_derivative_of_relu,
        ),
    ],
)
