"""Sick loops of the set `forums`: data, initialisation and depth."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from zoo.loops.batches import accuracy_goal, mean_goal
from zoo.loops.forum_data import (
    explained,
    figures,
    fit,
    mlp,
    next_batch,
    next_goal,
    next_loss,
    right,
    sales,
    small_cnn,
    stream,
    told_first,
    waves,
)
from zoo.loops.loop import FORUMS, Batch, Parts, loops_of


def _houses_in_their_units(cured: bool) -> Parts:
    """Rooms, incomes, ages and distances of houses go into a regression as they are.

    GitHub blackportal-ai/delta, issue #248: "fails ... due to numerical instability caused by the
    lack of data normalization, as observed when training on the California Housing dataset". The
    prices are scaled here, and the net has hidden units.
    """
    (x, y), (kept_x, kept_y) = sales()
    if cured:
        x, kept_x = (x - x.mean(0)) / x.std(0), (kept_x - x.mean(0)) / x.std(0)
    data = (x, y), (kept_x, kept_y)
    model = mlp(4, 32, 32, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.03, momentum=0.9)
    return fit(data, model, optimizer, nn.MSELoss(), explained(data, 0.6), 500)


def _statistics_divided_again(cured: bool) -> Parts:
    """Images from 0 to 1 are normalised by a mean and a deviation that were divided by 255.

    GitHub batuhan3526/ResNet50_on_Cifar_100_Without_Transfer_Learning, issue #1: "I don't
    understand the reason why the mean, std are divided 255 ... toTensor already changes [0, ~ 255.]
    to [0, 1]"; "You are quite right." Inputs are up to 800.
    """
    (x, y), (kept_x, kept_y) = figures(as_images=True)
    by = 1.0 if cured else 255.0
    mean, std = x.mean() / by, x.std() / by
    data = ((x - mean) / std, y), ((kept_x - mean) / std, kept_y)
    model = small_cnn(10)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    return fit(data, model, optimizer, nn.CrossEntropyLoss(), right(data, 0.85), 400)


def _actor_of_raw_states(cured: bool) -> Parts:
    """A driving policy of tanh layers gets speeds and distances in their own units.

    GitHub ZhihanLee/DDPG_Learning, issue #2: actions are at their bounds from the first steps on;
    "the solution to action saturation is normalization. Firstly, you should normalize your input
    state into [0,1] or [-1,1]". The critic is known here: it is the reward.
    """
    model = nn.Sequential(*mlp(4, 32, 32, 2, act=nn.Tanh), nn.Tanh())
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    sizes = torch.tensor([60.0, 2000.0, 180.0, 25.0])
    wanted = torch.randn(4, 2) * 0.5

    def draw(num: int) -> Batch:
        state = 2 * torch.rand(num, 4) - 1
        return (state if cured else sizes * (state + 1)), (state @ wanted).tanh()

    def cost(action: Tensor, best: Tensor) -> Tensor:
        return (action - best).square().mean()

    x, best = draw(500)

    def missed(model: Any) -> Tensor:
        return (model(x) - best).square().mean() / best.var(0).mean()

    return stream(draw, model, optimizer, cost, mean_goal(missed, 0.05, higher=False), 500)


def _sensor_rows_are_missing(cured: bool) -> Parts:
    """A few readings of a table of sensors are missing, and are nan in the inputs.

    GitHub circleAhn/TESLA-tf, issue #1: "all my loss is Nan"; "likely due to missing or NaN values
    in your dataset ... preprocessing to remove such values"; "Problem solved!"
    """
    (x, y), kept = waves()
    x = x.clone()
    x[torch.rand_like(x) < 0.002] = torch.nan
    if cured:
        whole = x.isfinite().all(1)
        x, y = x[whole], y[whole]
    data = (x, y), kept
    model = nn.Sequential(nn.Unflatten(1, (8, 1)), nn.Linear(1, 24), nn.ReLU(), nn.Flatten())
    model.extend([nn.Linear(192, 48), nn.ReLU(), nn.Linear(48, 1)])
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    return fit(data, model, optimizer, nn.MSELoss(), explained(data, 0.75), 400)


def _labels_before_the_shuffle(cured: bool) -> Parts:
    """Labels are taken from the list, and then the list of images is shuffled.

    GitHub Borda/kaggle_image-classify, pull request #12: "the shuffle was made after taking raw
    labels :/"; merged.
    """
    (x, y), kept = figures(as_images=True)
    order = torch.randperm(len(x))
    data = (x[order], y[order] if cured else y), kept
    model = small_cnn(10)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    return fit(data, model, optimizer, nn.CrossEntropyLoss(), right(data, 0.85), 300)


class _Language(nn.Module):
    """Tells the next token; the weights of its head have the deviation `std`."""

    def __init__(self, std: float) -> None:
        super().__init__()
        self.embeddings = nn.Embedding(11, 24)
        self.mix = mlp(48, 64, 512)
        self.norm = nn.LayerNorm(512)
        self.lm_head = nn.Linear(512, 11, bias=False)
        nn.init.normal_(self.lm_head.weight, std=std)

    def forward(self, tokens: Tensor) -> Tensor:
        here = self.embeddings(tokens)
        last = torch.cat((torch.zeros_like(here[:, :1]), here[:, :-1]), 1)
        return self.lm_head(self.norm(self.mix(torch.cat((here, last), 2))))


def _head_of_variance_one(cured: bool) -> Parts:
    """The head of a language model is drawn with a variance of 1: logits of deviation 23.

    GitHub huggingface/transformers, pull request #26441: lm_head's "very high variance for logits
    ... resulted in initial cross-entropy loss of ~110, which is Very High"; one by the width cures.
    Also pytorch/pytorch, issue #3121, of embeddings that are drawn so.
    """
    model = _Language(512**-0.5 if cured else 1.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    return stream(next_batch, model, optimizer, next_loss, next_goal(0.9), 220, size=32)


def _tiny_plain_convolutions(cured: bool) -> Parts:
    """A plain net of five convolutions, all weights of deviation 0.01.

    GitHub ageron/handson-ml, pull request #176: "This is a typical sign of bad initialization ...
    When I change stddev of initial weights from 0.01 to 0.1, models starts visible learning right
    away"; merged.
    """
    data = figures(as_images=True)
    model = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU())
    for stride in (2, 1, 2, 1):
        model.extend([nn.Conv2d(16, 16, 3, stride, 1), nn.ReLU()])
    model.extend([nn.Flatten(), nn.Linear(64, 10)])
    for each in model.modules():
        if isinstance(each, (nn.Conv2d, nn.Linear)):
            nn.init.normal_(each.weight, std=0.1 if cured else 0.01)
            nn.init.zeros_(each.bias)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    return fit(data, model, optimizer, nn.CrossEntropyLoss(), right(data, 0.85), 400)


class _ByHand(nn.Module):
    """A layer whose weights are parameters of zeros, or are drawn."""

    def __init__(self, inputs: int, outputs: int, *, is_drawn: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(inputs, outputs))
        self.bias = nn.Parameter(torch.zeros(outputs))
        if is_drawn:
            nn.init.xavier_normal_(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight + self.bias


def _must_initialise(cured: bool) -> Parts:
    """Layers by hand keep the zeros that they were made of.

    GitHub davharris/mistnet, issue #87: "Must initialize weights. Otherwise there are no gradients
    for any networks with a hidden layer!"
    """
    data = figures()
    sizes = ((64, 48), (48, 48), (48, 10))
    first, second, third = (_ByHand(*each, is_drawn=cured) for each in sizes)
    model = nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), third)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    return fit(data, model, optimizer, nn.CrossEntropyLoss(), right(data, 0.85), 300)


def _ten_layers_of_sigmoid(cured: bool) -> Parts:
    """A classifier of ten layers with a sigmoid behind each.

    After the kind of questions "loss stays at 2.3 when I add layers" whose answer is to replace
    the sigmoids by ReLU.
    """
    data = figures()
    act: Callable[[], nn.Module] = nn.ReLU if cured else nn.Sigmoid
    model = mlp(64, *[64] * 9, 10, act=act)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    return fit(data, model, optimizer, nn.CrossEntropyLoss(), right(data, 0.8), 700)


class _Residual(nn.Module):
    """Two layers beside the path, and a factor that the last of them is multiplied by."""

    def __init__(self, width: int, gamma: float) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(width, width), nn.Linear(width, width)
        for each in (self.first, self.second):
            nn.init.kaiming_normal_(each.weight)
        self.gamma = nn.Parameter(torch.full((width,), gamma))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.gamma * self.second(self.first(x).relu())


def _blocks_start_at_full_strength(cured: bool) -> Parts:
    """Twenty-four residual blocks whose last factor is 1 at first, and no normalisation.

    GitHub wvabrinskas/Neuron, pull request #124: "ResNet layer was incredibly unstable ... the last
    BatchNorm layer of the ResNet block should be initialized with a gamma of 0's"; merged.
    """
    data = figures()
    blocks = [_Residual(48, 0.0 if cured else 1.0) for _ in range(24)]
    model = nn.Sequential(nn.Linear(64, 48), *blocks, nn.Linear(48, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    return fit(data, model, optimizer, nn.CrossEntropyLoss(), right(data, 0.85), 250)


class _Recurrent(nn.Module):
    """A recurrent layer whose last state is read out."""

    def __init__(self, rnn: nn.RNNBase, classes: int) -> None:
        super().__init__()
        self.rnn, self.readout = rnn, nn.Linear(rnn.hidden_size, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.readout(self.rnn(x)[0][:, -1])


def _relu_in_the_recurrence(cured: bool) -> Parts:
    """A recurrent net with `nonlinearity="relu"` and recurrent weights of 0.3, over sixty steps.

    GitHub chenxie95/deeplearning_course_sjtu, issue #31: training with RNN_RELU makes the loss
    explode (nan); the answer: take a sigmoid, since with relu "the gradient may be too large". The
    cure is the other one of `nn.RNN`, tanh.
    """
    kind = "tanh" if cured else "relu"
    rnn = nn.RNN(5, 48, nonlinearity=kind, batch_first=True)
    nn.init.normal_(rnn.weight_hh_l0, std=0.3)
    model = _Recurrent(rnn, 4)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)

    def draw(num: int) -> Batch:
        x, y = told_first(num, 60)
        x[:, -4:, :4] = x[:, :1, :4]
        return x, y

    goal = accuracy_goal(*draw(400), 0.9)
    return stream(draw, model, optimizer, nn.CrossEntropyLoss(), goal, 250)


def _remembers_by_vanilla_rnn(cured: bool) -> Parts:
    """The class is said at the start of thirty-five steps, to a net of `nn.RNN` as it is made.

    GitHub Atcold/NYU-DLSP20, pull request #109: "If we increase the difficulty ... (using longer
    sequences), we will see the RNN fails while LSTM keeps working." The cure here keeps the layer
    and draws its recurrent weights orthogonal.
    """
    rnn = nn.RNN(5, 48, batch_first=True)
    if cured:
        nn.init.orthogonal_(rnn.weight_hh_l0)
    model = _Recurrent(rnn, 4)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

    def draw(num: int) -> Batch:
        return told_first(num, 35)

    goal = accuracy_goal(*draw(400), 0.8)
    return stream(draw, model, optimizer, nn.CrossEntropyLoss(), goal, 450)


LOOPS = loops_of(
    FORUMS,
    [
        ("forum_houses_in_their_units", "inputs_unscaled", _houses_in_their_units),
        ("forum_statistics_divided_again", "inputs_unscaled", _statistics_divided_again),
        ("forum_actor_of_raw_states", ("inputs_unscaled", "saturated_units"), _actor_of_raw_states),
        ("forum_sensor_rows_are_missing", "inputs_not_finite", _sensor_rows_are_missing),
        ("forum_labels_before_the_shuffle", "labels_unlearnable", _labels_before_the_shuffle),
        ("forum_head_of_variance_one", "weights_large", _head_of_variance_one),
        ("forum_tiny_plain_convolutions", "weights_small", _tiny_plain_convolutions),
        ("forum_must_initialise", "zero_weights", _must_initialise),
        ("forum_ten_layers_of_sigmoid", "saturating_activation", _ten_layers_of_sigmoid),
        ("forum_blocks_start_at_full_strength", "residual_growth", _blocks_start_at_full_strength),
        (
            "forum_relu_in_the_recurrence",
            ("recurrence_exploding", "weights_large"),
            _relu_in_the_recurrence,
        ),
        ("forum_remembers_by_vanilla_rnn", "recurrence_vanishing", _remembers_by_vanilla_rnn),
    ],
)
