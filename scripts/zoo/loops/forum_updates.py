"""Sick loops of the set `forums`: rates, clips and warm-up."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from zoo.loops.batches import accuracy_goal, mean_goal
from zoo.loops.forum_data import (
    covered,
    dense_cnn,
    explained,
    figures,
    fit,
    masks,
    mlp,
    next_goal,
    right,
    small_cnn,
    spoken,
    stream,
    tagged,
    waves,
)
from zoo.loops.loop import FORUMS, Batch, Parts, loops_of


class _Words(nn.Module):
    """A language model of one LSTM."""

    def __init__(self) -> None:
        super().__init__()
        self.embeddings = nn.Embedding(11, 24)
        self.lstm = nn.LSTM(24, 48, batch_first=True)
        self.readout = nn.Linear(48, 11)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.readout(self.lstm(self.embeddings(tokens))[0])


def _adam_at_one(cured: bool) -> Parts:
    """A language model is trained by Adam at a rate of 1.

    GitHub rajveermalviya/language-modeling, issue #3: "the loss during training didn't really went
    down even after many epochs ... because you use learning rate of 1.0 in the config file. After I
    use Adam optimizer with it's default learning rate ... much better"; taken over. The cure is
    0.01, since this training is short.
    """
    model = _Words()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01 if cured else 1.0)

    def draw(num: int) -> Batch:
        tokens = spoken(num, 12)
        return tokens[:, :-1], tokens[:, 2:]

    def loss(logits: Tensor, follows: Tensor) -> Tensor:
        return nn.functional.cross_entropy(logits[:, 1:].flatten(0, 1), follows.flatten())

    return stream(draw, model, optimizer, loss, next_goal(0.9), 350, size=32)


def _client_at_three(cured: bool) -> Parts:
    """The classifier of a client of federated learning is trained by SGD at a rate of 3.

    GitHub CharlieDinh/pFedMe, issue #11: "why train loss will be nan?"; "the training loss is nan
    when the learning rate is large".
    """
    data = figures()
    model = mlp(64, 64, 32, 10)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2 if cured else 3.0, momentum=0.5)
    return fit(data, model, optimizer, nn.CrossEntropyLoss(), right(data, 0.85), 300, size=32)


def _schedule_of_epochs_each_batch(cured: bool) -> Parts:
    """A schedule that is meant for epochs goes on at each batch: the rate is soon next to nothing.

    GitHub Lornatang/SRGAN-PyTorch, issue #1: "they are called at each training step which means
    that learning rate is quickly becoming zero after a few training steps. The SRGAN does not seem
    to train"; "Yeah, I found it. I will fix it." An epoch has fifty batches here.
    """
    data = masks()
    model = dense_cnn()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 3, 0.3)
    count = [0]

    def step(model: Any, optimizer: Any, loss: Any, batch: Any) -> None:
        value = loss(model(batch[0]), batch[1])
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        count[0] += 1
        if not cured or count[0] % 50 == 0:
            schedule.step()

    loss = nn.BCEWithLogitsLoss()
    return fit(data, model, optimizer, loss, covered(data, 0.7), 250, size=32, step=step)


def _rate_of_the_raw_columns(cured: bool) -> Parts:
    """The rate had suited columns of the size of hundreds, and is left as they are normalised.

    GitHub Smadx/USTC-ML24-Fall, issue #47: without normalisation the loss went down slowly, with it
    not at all; the answer: "then your `lr` is too small".
    """
    data = waves()
    model = mlp(8, 48, 48, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05 if cured else 1e-5, momentum=0.9)
    return fit(data, model, optimizer, nn.MSELoss(), explained(data, 0.7), 500)


def _gradients_clamped_to_a_hundredth(cured: bool) -> Parts:
    """Each gradient of a loss that is a sum is clamped to 0.01 before SGD.

    GitHub lksshw/SRNet, issue #18: "clamping the gradient to -0.01 to 0.01 seems to be too much and
    training stuck with loss not decreasing. After changing it to -1 to 1, loss started decreasing".
    """
    data = figures(as_images=True)
    model = small_cnn(10)
    optimizer = torch.optim.SGD(model.parameters(), lr=3e-3)
    limit = 1.0 if cured else 0.01

    def step(model: Any, optimizer: Any, loss: Any, batch: Any) -> None:
        value = loss(model(batch[0]), batch[1])
        optimizer.zero_grad()
        value.backward()
        for parameter in model.parameters():
            parameter.grad.data.clamp_(-limit, limit)
        optimizer.step()

    loss = nn.CrossEntropyLoss(reduction="sum")
    return fit(data, model, optimizer, loss, right(data, 0.8), 500, size=32, step=step)


class _Encoder(nn.Module):
    """A post-norm encoder that tags words."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(24, 32)
        self.places = nn.Parameter(0.5 * torch.randn(8, 32))
        layer = nn.TransformerEncoderLayer(32, 2, 64, 0.0, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, 6, enable_nested_tensor=False)
        self.readout = nn.Linear(32, 6)
        for each in self.layers.parameters():
            if each.dim() > 1:
                nn.init.xavier_uniform_(each)

    def forward(self, words: Tensor) -> Tensor:
        return self.readout(self.layers(self.words(words) + self.places))


def _post_norm_at_once(cured: bool) -> Parts:
    """A post-norm encoder of six layers is trained at its full rate from the first update.

    GitHub LiyuanLucasLiu/Transformer-Clinic, issue #16: "training the Post-LN Transformer without
    learning rate warmup ... the model does not seem to converge". Also lucidrains/vit-pytorch,
    issue #56: "this type of post-normalization transformer was hard to train, often diverging.
    People soon figured out that you need to warmup".
    """
    model = _Encoder()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01, betas=(0.9, 0.98))
    warm = 150 if cured else 1

    def factor(step: int) -> float:
        return min(1.0, (step + 1) / warm)

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)

    def step(model: Any, optimizer: Any, loss: Any, batch: Any) -> None:
        value = loss(model(batch[0]), batch[1])
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        schedule.step()

    def loss(logits: Tensor, tags: Tensor) -> Tensor:
        return nn.functional.cross_entropy(logits.flatten(0, 1), tags.flatten())

    def draw(num: int) -> Batch:
        return tagged(num, 8)

    goal = accuracy_goal(*draw(200), 0.85)
    return stream(draw, model, optimizer, loss, goal, 300, size=32, step=step)


class _Actor(nn.Module):
    """A deterministic policy within its bounds, by a tanh."""

    def __init__(self) -> None:
        super().__init__()
        self.net = mlp(6, 32, 32, 2)

    def forward(self, state: Tensor) -> Tensor:
        return 2 * self.net(state).tanh()


def _actor_leaves_for_its_bounds(cured: bool) -> Parts:
    """The actor of DDPG takes one large step, and its tanh is flat from then on.

    After the kind of questions about DDPG that thu-ml/tianshou, issue #1268, is one of ("the actor
    network's gradients become completely zero after the first update step"), with the answer that
    most got: a smaller rate. The critic is known here.
    """
    model = _Actor()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3 if cured else 0.3)
    wanted = torch.randn(6, 2) * 0.4

    def draw(num: int) -> Batch:
        state = torch.randn(num, 6)
        return state, 1.5 * (state @ wanted).sin()

    def minus_q(action: Tensor, best: Tensor) -> Tensor:
        return (action - best).square().sum(1).mean()

    x, best = draw(500)

    def missed(model: Any) -> Tensor:
        return (model(x) - best).square().mean() / best.square().mean()

    return stream(draw, model, optimizer, minus_q, mean_goal(missed, 0.2, higher=False), 400)


LOOPS = loops_of(
    FORUMS,
    [
        ("forum_adam_at_one", "rate_too_large", _adam_at_one),
        ("forum_client_at_three", "rate_too_large", _client_at_three),
        (
            "forum_schedule_of_epochs_each_batch",
            ("rate_too_small", "no_update"),
            _schedule_of_epochs_each_batch,
        ),
        ("forum_rate_of_the_raw_columns", "rate_too_small", _rate_of_the_raw_columns),
        (
            "forum_gradients_clamped_to_a_hundredth",
            "clip_throttles",
            _gradients_clamped_to_a_hundredth,
        ),
        ("forum_post_norm_at_once", ("no_warmup", "rate_too_large"), _post_norm_at_once),
        (
            "forum_actor_leaves_for_its_bounds",
            ("rate_too_large", "saturated_units"),
            _actor_leaves_for_its_bounds,
        ),
    ],
)
