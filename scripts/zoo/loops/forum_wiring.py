"""Sick loops of the set `forums`: what the optimizer has."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from zoo.loops.forum_data import (
    covered,
    explained,
    figures,
    fit,
    masks,
    mlp,
    next_batch,
    next_goal,
    next_loss,
    right,
    small_cnn,
    spirals,
    stream,
)
from zoo.loops.loop import FORUMS, Parts, loops_of


def _schedule_ends_at_zero(cured: bool) -> Parts:
    """The rate falls linearly to 0 within a number of steps that is far too small.

    GitHub determined-ai/determined, pull request #711: "if this value is too low, we end up with a
    LR of zero pretty quickly, and this was causing the learning to basically stop".
    """
    data = spirals()
    model = mlp(2, 32, 32, 2, act=nn.Tanh)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.02)
    total = 600 if cured else 8

    def factor(step: int) -> float:
        return max(0.0, 1 - step / total)

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)

    def step(model: Any, optimizer: Any, loss: Any, batch: Any) -> None:
        value = loss(model(batch[0]), batch[1])
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        schedule.step()

    loss = nn.CrossEntropyLoss()
    return fit(data, model, optimizer, loss, right(data, 0.85), 600, step=step)


def _resumed_at_rate_zero(cured: bool) -> Parts:
    """A checkpoint's optimizer is loaded for new data, and its schedule had ended at 0.

    GitHub facebookresearch/DPR, issue #99: "zero learning rate when resume training"; the
    checkpoint's schedule is loaded "and thinking it should already be zero". The cure does not load
    the optimizer.
    """
    model = small_cnn(10)
    before = torch.optim.Adam(model.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.LinearLR(before, 1.0, 0.0, 20)
    (old_x, old_y), _ = figures(as_images=True)
    for i in range(20):
        before.zero_grad()
        nn.functional.cross_entropy(model(old_x[i::20]), 9 - old_y[i::20]).backward()
        before.step()
        schedule.step()
    saved = copy.deepcopy(before.state_dict())
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    if not cured:
        optimizer.load_state_dict(saved)
    data = figures(as_images=True)
    return fit(data, model, optimizer, nn.CrossEntropyLoss(), right(data, 0.85), 400)


def _pruned_behind_the_optimizer(cured: bool) -> Parts:
    """A speed-up replaces layers by narrower ones when the optimizer has the old ones.

    GitHub microsoft/nni, issue #4521: "replace the layers in the original model with smaller ones
    ... So the parameters registered in the optimizer are outdated"; "I solved this problem by
    redefining an optimizer".
    """
    data = figures()
    model = mlp(64, 64, 64, 10)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    kept = torch.randperm(64)[:24]
    narrow = mlp(64, 24, 24, 10)
    with torch.no_grad():
        narrow[0].weight.copy_(model[0].weight[kept])
        narrow[2].weight.copy_(model[2].weight[:24][:, kept])
        narrow[4].weight.copy_(model[4].weight[:, :24])
    for index in (0, 2, 4):
        model[index] = narrow[index]
    if cured:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    return fit(data, model, optimizer, nn.CrossEntropyLoss(), right(data, 0.85), 300)


class _BuiltLate(nn.Module):
    """Its hidden layers are made by `build`, once the number of inputs is known."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden: Any = None
        self.readout = nn.Linear(12, 2)

    def build(self, inputs: int) -> None:
        self.hidden = mlp(inputs, 24, 24, 12, act=nn.Tanh)

    def forward(self, x: Tensor) -> Tensor:
        if self.hidden is None:
            self.build(x.shape[1])
        return self.readout(self.hidden(x).tanh())


def _built_at_the_first_call(cured: bool) -> Parts:
    """The optimizer is made before the hidden layers are.

    GitHub LaurentMazare/ocaml-torch, issue #36: the optimizer is created, then the layer, and "it
    kept printing the same, initial loss value"; "the problem was" the order. Here a read-out was
    there already, as in models that build themselves when they see the first batch.
    """
    data = spirals()
    model = _BuiltLate()
    if cured:
        model.build(2)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    return fit(data, model, optimizer, nn.CrossEntropyLoss(), right(data, 0.85), 600)


class _Experts(nn.Module):
    """Linear experts whose outputs are weighted by a gate, which starts at 0."""

    def __init__(self, *, moves: bool) -> None:
        super().__init__()
        self.experts = nn.ModuleList(nn.Linear(6, 1) for _ in range(4))
        if moves:
            self.gate: Any = nn.Parameter(torch.zeros(6, 4, dtype=torch.float64)).to(torch.float32)
        else:
            self.gate = nn.Parameter(torch.zeros(6, 4))

    def forward(self, x: Tensor) -> Tensor:
        said = torch.cat([expert(x) for expert in self.experts], 1)
        return ((x @ self.gate).softmax(1) * said).sum(1, keepdim=True)


def _gate_was_moved(cured: bool) -> Parts:
    """The gate of a mixture of experts is `nn.Parameter(...).to(...)`: a tensor, no parameter.

    GitHub davidmrau/mixture-of-experts, issue #12: "applying `.to(self.device)` to a `nn.Parameter`
    returns a `nn.Tensor`, so the weights are not learned". Here `.to` changes the dtype, which does
    the same where there is one device.
    """
    x = torch.randn(1500, 6)
    y = torch.where(x[:, :1] > 0, x[:, 1:2] + x[:, 2:3], -x[:, 1:2] - x[:, 2:3])
    data = (x[:-300], y[:-300]), (x[-300:], y[-300:])
    model = _Experts(moves=not cured)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.03)
    return fit(data, model, optimizer, nn.MSELoss(), explained(data, 0.8), 500)


class _DecodesByNewLayers(nn.Module):
    """A segmenter whose decoder is made by its `forward`."""

    def __init__(self, *, makes_once: bool) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU())
        self.encoder.append(nn.Conv2d(8, 8, 5, padding=2))
        self.makes_once = makes_once
        if makes_once:
            self.decoder = self.new_decoder()

    @staticmethod
    def new_decoder() -> nn.Sequential:
        layers = [nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 1, 1)]
        return nn.Sequential(nn.ReLU(), *layers)

    def forward(self, x: Tensor) -> Tensor:
        decoder = self.decoder if self.makes_once else self.new_decoder()
        return decoder(self.encoder(x))


def _decoder_made_in_forward(cured: bool) -> Parts:
    """Layers of the decoder are made anew at each call of `forward`.

    GitHub gupta-abhay/setr-pytorch, issue #4: "these layers will be initialized every time the
    model is feed data. Therefore, these layers' weight are not trained at all"; fixed.
    """
    data = masks()
    model = _DecodesByNewLayers(makes_once=cured)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    loss = nn.BCEWithLogitsLoss()
    return fit(data, model, optimizer, loss, covered(data, 0.7), 200, size=32)


class _MaskedBody(nn.Module):
    """What a pretrained body is here: embeddings and random features of this and the last word."""

    def __init__(self) -> None:
        super().__init__()
        self.embeddings = nn.Embedding(11, 160)
        self.now, self.before = nn.Linear(160, 160), nn.Linear(160, 160)

    def forward(self, tokens: Tensor) -> Tensor:
        here = self.embeddings(tokens)
        last = torch.cat((torch.zeros_like(here[:, :1]), here[:, :-1]), 1)
        return (self.now(here) + self.before(last)).relu()


class _TiedHead(nn.Module):
    """A body and a decoder that shares the body's embeddings."""

    def __init__(self, *, is_tied: bool) -> None:
        super().__init__()
        self.body = _MaskedBody()
        self.decoder = nn.Linear(160, 11)
        if is_tied:
            self.decoder.weight = self.body.embeddings.weight
        for parameter in self.body.parameters():
            parameter.requires_grad = False

    def forward(self, tokens: Tensor) -> Tensor:
        return self.decoder(self.body(tokens))


def _tied_decoder_is_frozen(cured: bool) -> Parts:
    """The body is frozen, and with it the decoder, whose weight is the body's embedding.

    GitHub huggingface/transformers, issue #8907: after freezing `model.bert`, "print(model.cls
    .predictions.decoder.weight.requires_grad)" says False: they are tied. The cure unties them.
    """
    model = _TiedHead(is_tied=not cured)
    trained = [each for each in model.parameters() if each.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=3e-3)
    return stream(next_batch, model, optimizer, next_loss, next_goal(0.85), 350, size=32)


LOOPS = loops_of(
    FORUMS,
    [
        ("forum_schedule_ends_at_zero", ("no_update", "rate_too_small"), _schedule_ends_at_zero),
        ("forum_resumed_at_rate_zero", "no_update", _resumed_at_rate_zero),
        ("forum_pruned_behind_the_optimizer", "not_in_optimizer", _pruned_behind_the_optimizer),
        ("forum_built_at_the_first_call", "not_in_optimizer", _built_at_the_first_call),
        ("forum_gate_was_moved", "not_registered", _gate_was_moved),
        ("forum_decoder_made_in_forward", "not_registered", _decoder_made_in_forward),
        ("forum_tied_decoder_is_frozen", "frozen", _tied_decoder_is_frozen),
    ],
)
