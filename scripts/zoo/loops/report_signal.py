"""Sick loops of the set `reports`: initialisation, depth and units."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from zoo.loops.batches import accuracy_goal, mean_goal
from zoo.loops.loop import REPORTS, Batch, Parts, loops_of, usual_step
from zoo.loops.report_data import (
    digits,
    explained,
    fit,
    friedman,
    language,
    mlp,
    next_token_goal,
    next_token_loss,
    recall,
    right,
    rings,
    stream,
)
from zoo.loops.report_nets import Gpt

# ---------------------------------------------------------------- initialisation


class _Lora(nn.Module):
    """A frozen layer and a product of two thin matrices beside it."""

    def __init__(self, base: nn.Linear, *, is_random: bool) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        a = (
            torch.randn(base.in_features, 6) / 6**0.5
            if is_random
            else torch.zeros(base.in_features, 6)
        )
        self.lora_a = nn.Parameter(a)
        self.lora_b = nn.Parameter(torch.zeros(6, base.out_features))

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + x @ self.lora_a @ self.lora_b


def _both_matrices_zero(cured: bool) -> Parts:
    """Both matrices of an adapter begin at 0, and neither sends the other a gradient.

    GitHub circle-hit/SAPT, issue #11: "I got the grad of LoRALayer all zero. I checked ... both
    lora_A and lora_B is all zero. Things are solved after I modified the defination of lora_A".
    """
    (x, y), (shown, labels) = digits()
    base = mlp(64, 64, 64, 10)
    before = torch.optim.Adam(base.parameters(), lr=3e-3)
    for _ in range(120):
        index = torch.randint(len(x), (64,))
        usual_step(base, before, nn.functional.cross_entropy, (x[index], y[index]))
    data = ((x, (y + 3) % 10), (shown, (labels + 3) % 10))
    layers = [
        _Lora(each, is_random=cured) if isinstance(each, nn.Linear) else each for each in base
    ]
    model = nn.Sequential(*layers)
    wanted = [each for each in model.parameters() if each.requires_grad]
    optimizer = torch.optim.AdamW(wanted, lr=5e-3)
    return fit(data, model, optimizer, nn.CrossEntropyLoss(), right(data, 0.8), steps=300)


class _Unset(nn.Module):
    """A layer by hand that was given memory and no values, which mostly are 0."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(outputs, inputs))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.weight, self.bias)


def _never_reset(cured: bool) -> Parts:
    """A layer's `reset_parameters` was left out.

    GitHub mattiasegu/uncertainty_estimation_deep_learning, pull request #7: "the weights and biases
    of the ADF Linear layer implementation get initialized with mostly zeroes for me"; merged.
    """
    data = digits()
    layer: Any = nn.Linear if cured else _Unset
    model = nn.Sequential(layer(64, 64), nn.ReLU(), layer(64, 32), nn.ReLU(), layer(32, 10))
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    return fit(data, model, optimizer, nn.CrossEntropyLoss(), right(data, 0.8), steps=300)


def _vgg(*, depth: int, width: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    channels = 1
    for place in range(depth):
        layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
        channels = width
        if place == 2:
            layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(16 * width, 10))


def _no_norm_left(cured: bool) -> Parts:
    """A VGG net without its batch normalisation keeps the default initialisation.

    GitHub kuangliu/pytorch-cifar, issue #28: "the acc always keep 10%"; solved when "I manually
    initialize the weight and bias", by a deviation of sqrt(2 / n).
    """
    data = digits(as_images=True, scale=1 / 8)
    model = _vgg(depth=10, width=12)
    if cured:
        for m in model:
            if isinstance(m, nn.Conv2d):
                n = m.kernel_size[0] * m.kernel_size[1] * m.out_channels
                m.weight.data.normal_(0, math.sqrt(2.0 / n))
                m.bias.data.zero_()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9, weight_decay=5e-4)
    loss = nn.CrossEntropyLoss()
    return fit(data, model, optimizer, loss, right(data, 0.7), steps=220, size=40)


def _relu_for_sigmoid(cured: bool) -> Parts:
    """A program whose weights and biases are `randn` had sigmoids; they were replaced by ReLU.

    GitHub MichalDanielDobrzanski/DeepLearningPython, issue #13: an accuracy of 0.095; "Use a
    learning rate of 0.01 and initialize weights and biases to a much smaller value ( * 0.1)". The
    rate is that one here, with the sick loop too.
    """
    (x, y), kept = digits()
    data = ((x, nn.functional.one_hot(y, 10).float()), kept)
    model = mlp(64, 100, 30, 10).append(nn.ReLU())
    for m in model:
        if isinstance(m, nn.Linear):
            nn.init.normal_(m.weight, 0, 0.1 if cured else 1.0)
            nn.init.normal_(m.bias, 0, 0.1 if cured else 1.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)

    def cost(output: Tensor, y: Tensor) -> Tensor:
        return 0.5 * (output - y).square().sum(1).mean()

    return fit(data, model, optimizer, cost, right(data, 0.4), steps=1500, size=10)


def _negative_biases(cured: bool) -> Parts:
    """Biases are drawn too, of a layer of few units with a deviation near 1; the draw is negative.

    GitHub facebookresearch/dlrm, pull request #358: "the bias may be initialized to a large
    negative value, leading to a negative input to Relu. This prevents any training".
    """
    data = friedman()
    model = mlp(10, 32, 16, 8, 1)
    for m in model:
        if isinstance(m, nn.Linear):
            fan_in, fan_out = m.in_features, m.out_features
            m.weight.data.normal_(0, (2 / (fan_in + fan_out)) ** 0.5)
            m.bias.data.normal_(0, (1 / fan_out) ** 0.5)
            if cured:
                m.bias.data.zero_()
    if not cured:
        model[4].bias.data = -4 - model[4].bias.data.abs()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    return fit(data, model, optimizer, nn.MSELoss(), explained(data, 0.4), steps=900)


# ---------------------------------------------------------------- depth


def _six_sigmoids(cured: bool) -> Parts:
    """Hidden layers of sigmoid, one behind the other.

    After the kind of Stack Overflow 39217567 (in the benchmark of DeepFD: sigmoid repaired to
    ReLU), with more layers.
    """
    data = rings()
    model = mlp(2, 24, 24, 24, 24, 24, 24, 3, act=nn.ReLU if cured else nn.Sigmoid)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    return fit(data, model, optimizer, nn.CrossEntropyLoss(), right(data, 0.85), steps=500)


class _Residual(nn.Module):
    """`x + f(x)` with no norm."""

    def __init__(self, width: int, gain: float) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(width, width), nn.Linear(width, width)
        for layer in (self.first, self.second):
            nn.init.orthogonal_(layer.weight, gain)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(self.first(x).relu())


def _resnet_without_norm(cured: bool) -> Parts:
    """A residual net whose norms were taken out; its branches begin as large as its path.

    GitHub huangleiBuaa/ONI, issue #1: "ResNet18 (Without BatchNorm) ... always goes to NaN"; "use
    the smaller scale (which is set to sqrt(2) ...)".
    """
    data = digits(scale=1 / 8)
    gain = 0.25 if cured else 2**0.5
    model = nn.Sequential(nn.Linear(64, 32), *(_Residual(32, gain) for _ in range(18)))
    model.append(nn.Linear(32, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    return fit(data, model, optimizer, nn.CrossEntropyLoss(), right(data, 0.85), steps=200)


def _plain_net_of_batchnorms(cured: bool) -> Parts:
    """Sixty layers with batch normalisation and no connection across.

    After the kind of reports that a very deep plain net with batch normalisation does not train
    where the one with connections across does.
    """

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.linear = nn.BatchNorm1d(24), nn.Linear(24, 24)

        def forward(self, x: Tensor) -> Tensor:
            h = self.linear(self.norm(x).relu())
            return x + 0.2 * h if cured else h

    data = digits(scale=1 / 8)
    model = nn.Sequential(nn.Linear(64, 24), *(Block() for _ in range(60)), nn.Linear(24, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    loss = nn.CrossEntropyLoss()
    return fit(data, model, optimizer, loss, right(data, 0.7), steps=120, size=64)


class _Reader(nn.Module):
    """An LSTM whose last state is read out."""

    def __init__(self, forget: float) -> None:
        super().__init__()
        self.lstm, self.readout = nn.LSTM(5, 24, batch_first=True), nn.Linear(24, 4)
        self.lstm.bias_hh_l0.data[24:48] += forget

    def forward(self, x: Tensor) -> Tensor:
        return self.readout(self.lstm(x)[0][:, -1])


def _small_forget_bias(cured: bool) -> Parts:
    """What decides stands at the start of a long sequence; forget gates begin at one half.

    GitHub craffel/nntools, issue #19, quoting the thesis: a bias of about 5, "it will be harder to
    learn long range dependencies because the smaller values of the forget gates".
    """
    model = _Reader(5.0 if cured else 0.0)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)

    def draw(num: int) -> Batch:
        return recall(num, 45)

    goal = accuracy_goal(*draw(300), 0.6)
    return stream(draw, model, optimizer, nn.CrossEntropyLoss(), goal, steps=300, size=48)


class _LstmOf(nn.Module):
    """An LSTM by hand, with an activation of one's own."""

    def __init__(self, act: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.cell = nn.Linear(3 + 32, 4 * 32)
        nn.init.normal_(self.cell.weight, 0, 0.25)
        self.readout = nn.Linear(32, 3)
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        h = c = x.new_zeros(len(x), 32)
        for value in x.unbind(1):
            i, f, g, o = self.cell(torch.cat((value, h), 1)).chunk(4, 1)
            c = (f + 1).sigmoid() * c + i.sigmoid() * self.act(g)
            h = o.sigmoid() * self.act(c)
        return self.readout(h)


def _relu_in_the_cell(cured: bool) -> Parts:
    """The activation of an LSTM's cell is ReLU: its state has no bound.

    Stack Overflow, "Why am I getting Nan after adding relu activation in LSTM?": with tanh it
    works; the answer: all outputs and the state are >= 0, and gradients grow until they explode.
    """
    model = _LstmOf(torch.tanh if cured else torch.relu)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def draw(num: int) -> Batch:
        y = torch.randint(3, (num,))
        x = torch.randn(num, 45, 3)
        x[torch.arange(num), :, y] += 0.5
        return x, y

    goal = accuracy_goal(*draw(300), 0.85)
    return stream(draw, model, optimizer, nn.CrossEntropyLoss(), goal, steps=120, size=32)


def _post_norm_at_once(cured: bool) -> Parts:
    """A post-norm transformer is trained at its full rate from the first update.

    GitHub pytorch/pytorch, issue #55270: post norm "doesn't work on deeper transformers with the
    specific Xavier-uniform initialization ... requires precise initialization and a good LR
    schedule". The twin warms up.
    """
    model = Gpt(depth=6, norm_first=False)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            nn.init.xavier_uniform_(parameter)
    optimizer = torch.optim.Adam(model.parameters(), lr=4e-3, betas=(0.9, 0.98))
    factor: Callable[[int], float] = (lambda i: min(1.0, (i + 1) / 100)) if cured else (lambda _: 1)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)

    def step(model: Any, optimizer: Any, loss: Any, batch: Any) -> None:
        value = loss(model(batch[0]), batch[1])
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        schedule.step()

    goal = next_token_goal(0.7)
    return stream(language, model, optimizer, next_token_loss, goal, steps=160, size=32, step=step)


# ---------------------------------------------------------------- units


def _crowd(num: int) -> Batch:
    x = 0.3 * torch.randn(num, 1, 10, 10)
    heads = (torch.rand(num, 1, 10, 10) < 0.04).float()
    density = nn.functional.avg_pool2d(heads, 3, 1, 1)
    return x + 2 * heads, density


def _last_rectifier_dies(cured: bool) -> Parts:
    """A map of densities, nearly all 0, ends in a ReLU: one update too far, and all of it is 0.

    GitHub xiaochus/MSCNN, pull request #3 (a counter of crowds): "the activation cannot be relu,
    else ... predictions are all 0".
    """
    model = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 1, 3, padding=1))
    if not cured:
        model.append(nn.ReLU())
    nn.init.constant_(model[2].bias, 0.2)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    x, density = _crowd(200)

    def value(model: nn.Module) -> Tensor:
        return 1 - (model(x) - density).square().mean() / density.var()

    return stream(_crowd, model, optimizer, nn.MSELoss(), mean_goal(value, 0.6), steps=300, size=16)


LOOPS = loops_of(
    REPORTS,
    [
        ("report_both_matrices_zero", "zero_weights", _both_matrices_zero),
        ("report_never_reset", "zero_weights", _never_reset),
        ("report_no_norm_left", "weights_small", _no_norm_left),
        ("report_relu_for_sigmoid", "weights_large", _relu_for_sigmoid),
        ("report_negative_biases", "dead_at_start", _negative_biases),
        ("report_six_sigmoids", "saturating_activation", _six_sigmoids),
        ("report_resnet_without_norm", ("residual_growth", "weights_large"), _resnet_without_norm),
        ("report_plain_net_of_batchnorms", "batchnorm_depth", _plain_net_of_batchnorms),
        ("report_small_forget_bias", "recurrence_vanishing", _small_forget_bias),
        ("report_relu_in_the_cell", "recurrence_exploding", _relu_in_the_cell),
        ("report_post_norm_at_once", "no_warmup", _post_norm_at_once),
        ("report_last_rectifier_dies", "dead_units", _last_rectifier_dies),
    ],
)
