"""Sick loops of the fresh set: wiring."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from zoo.loops.fresh_data import (
    classify,
    cross_entropy_of_tokens,
    customers,
    first_signs,
    keyword_text,
    pendulum,
    ratings,
    regress,
    share_explained,
    share_of_signs,
    share_right,
    spirals,
    stream,
    stripes,
)
from zoo.loops.fresh_nets import Factors, Speller, mlp, stripes_net
from zoo.loops.loop import FRESH, Parts, loops_of


def _only_the_schedule_steps(cured: bool) -> Parts:
    """`scheduler.step()` is called at each update, `optimizer.step()` was forgotten."""
    model = stripes_net()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 250)

    def step(model: Any, optimizer: Any, loss: Any, batch: Any) -> None:
        optimizer.zero_grad()
        loss(model(batch[0]), batch[1]).backward()
        if cured:
            optimizer.step()
        schedule.step()

    return classify(stripes(), model, optimizer, enough=0.8, step=step)


def _integer_warmup(cured: bool) -> Parts:
    """A warm-up divides whole numbers: the rate is 0 for 1,000 updates."""
    model = mlp(3, 48, 48, 1, act=nn.Tanh)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda i: min(1, i / 50) if cured else min(1, i // 1000)
    )

    def step(model: Any, optimizer: Any, loss: Any, batch: Any) -> None:
        value = loss(model(batch[0]), batch[1])
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        schedule.step()

    return regress(pendulum(), model, optimizer, enough=0.7, step=step)


def _tables_replaced(cured: bool) -> Parts:
    """Both tables of a recommender are made anew, to add rows, once the optimizer has the old."""
    model = Factors(50, 30)
    parameters = [*model.parameters()]
    model.users, model.items = nn.Embedding(60, 8), nn.Embedding(40, 8)
    model.bias = nn.Embedding.from_pretrained(torch.zeros(40, 1), freeze=False)
    kept = [model.bias.weight, *parameters[:2]]
    optimizer = torch.optim.Adam(model.parameters() if cured else kept, lr=0.02)
    return stream(ratings, model, optimizer, nn.MSELoss(), share_explained, enough=0.6, steps=400)


def _unfrozen_too_late(cured: bool) -> Parts:
    """The optimizer got what needed a gradient; the trunk was unfrozen only behind that."""
    trunk = mlp(2, 24, 24, 3, act=nn.Tanh)
    model = nn.Sequential(trunk, nn.Tanh(), nn.Linear(3, 3))
    if not cured:
        trunk.requires_grad_(False)
    wanted = [each for each in model.parameters() if each.requires_grad]
    optimizer = torch.optim.Adam(wanted, lr=0.02)
    trunk.requires_grad_(True)
    return classify(spirals(), model, optimizer, enough=0.85, steps=500)


class _Experts(nn.Module):
    """Six narrow towers in a list, each of one number; a read-out of the six."""

    def __init__(self, *, is_registered: bool) -> None:
        super().__init__()
        towers = [mlp(16, 12, 12, 1) for _ in range(6)]
        self.towers: Any = nn.ModuleList(towers) if is_registered else towers
        self.readout = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.readout(torch.cat([tower(x) for tower in self.towers], 1))


def _list_of_towers(cured: bool) -> Parts:
    model = _Experts(is_registered=cured)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    return classify(customers(), model, optimizer, enough=0.7, steps=400)


class _WithoutGrad(nn.Module):
    """A decorator of evaluation was left on `encode`."""

    def __init__(self, *, with_grad: bool) -> None:
        super().__init__()
        self.encoder = Speller(width=32)
        self.encoder.readout = nn.Linear(32, 6)
        self.readout = nn.Linear(6, self.encoder.embedding.num_embeddings)
        self.with_grad = with_grad

    def forward(self, x: Tensor) -> Tensor:
        with torch.set_grad_enabled(self.with_grad and torch.is_grad_enabled()):
            h = self.encoder(x)
        return self.readout(h)


def _encoder_without_grad(cured: bool) -> Parts:
    model = _WithoutGrad(with_grad=cured)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    return stream(keyword_text, model, optimizer, cross_entropy_of_tokens, share_right, enough=0.5)


class _Steps(nn.Module):
    """A cell by hand, whose state is detached at each step to save memory."""

    def __init__(self, *, is_cut: bool) -> None:
        super().__init__()
        self.cell, self.readout = nn.GRUCell(1, 24), nn.Linear(24, 1)
        self.is_cut = is_cut

    def forward(self, x: Tensor) -> Tensor:
        state = x.new_zeros(len(x), 24)
        for value in x.unbind(1):
            state = self.cell(value, state.detach() if self.is_cut else state)
        return self.readout(state)[:, 0]


def _detached_state(cured: bool) -> Parts:
    model = _Steps(is_cut=not cured)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    loss = nn.BCEWithLogitsLoss()
    return stream(
        lambda steps: first_signs(steps, 14),
        model,
        optimizer,
        loss,
        share_of_signs,
        enough=0.9,
        steps=250,
    )


def _loss_made_anew(cured: bool) -> Parts:
    """`torch.tensor(loss.item(), requires_grad=True)`, to make an error message go away."""
    model = stripes_net(act=nn.SiLU)

    def step(model: Any, optimizer: Any, loss: Any, batch: Any) -> None:
        value = loss(model(batch[0]), batch[1])
        if not cured:
            value = torch.tensor(value.item(), requires_grad=True)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()

    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    return classify(stripes(), model, optimizer, enough=0.8, step=step)


class _Gated(nn.Module):
    """Units that are 0 or 1 by a comparison, through which no gradient goes."""

    def __init__(self, *, is_soft: bool) -> None:
        super().__init__()
        self.body, self.readout = mlp(16, 32, 6), nn.Linear(6, 5)
        self.is_soft = is_soft

    def forward(self, x: Tensor) -> Tensor:
        h = self.body(x)
        return self.readout(h.sigmoid() if self.is_soft else (h > 0).float())


def _comparison(cured: bool) -> Parts:
    model = _Gated(is_soft=cured)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    return classify(customers(), model, optimizer, enough=0.68, steps=300)


def _number_of_a_task(cured: bool) -> Parts:
    """Two tasks are summed: the one that counts as `.item()`, the penalty as a tensor."""

    def loss(output: Tensor, y: Tensor) -> Tensor:
        error = nn.functional.mse_loss(output, y)
        return (error if cured else error.item()) + 1e-3 * output.square().mean()

    model = mlp(3, 48, 48, 1, act=nn.Tanh)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    return regress(pendulum(), model, optimizer, loss, enough=0.7)


def _from_pretrained(cured: bool) -> Parts:
    """Tables of random numbers by `Embedding.from_pretrained`, which freezes unless told not to."""
    model = Factors()
    model.users = nn.Embedding.from_pretrained(torch.randn(60, 8), freeze=not cured)
    model.items = nn.Embedding.from_pretrained(torch.randn(40, 8), freeze=not cured)
    wanted = [each for each in model.parameters() if each.requires_grad]
    optimizer = torch.optim.Adam(wanted, lr=0.02)
    return stream(ratings, model, optimizer, nn.MSELoss(), share_explained, enough=0.6, steps=400)


def _cleared_before_the_step(cured: bool) -> Parts:
    """Four parts of a batch are accumulated, and cleared just before they are used."""
    model = mlp(16, 32, 32, 5, act=nn.ELU)

    def step(model: Any, optimizer: Any, loss: Any, batch: Any) -> None:
        if cured:
            optimizer.zero_grad()
        for x, y in zip(batch[0].chunk(4), batch[1].chunk(4), strict=True):
            (loss(model(x), y) / 4).backward()
        if not cured:
            model.zero_grad()
        optimizer.step()

    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    return classify(customers(), model, optimizer, enough=0.68, step=step)


def _never_cleared(cured: bool) -> Parts:
    """A loop without `zero_grad`, by SGD: each update makes all former ones again."""
    model = mlp(16, 32, 32, 5, act=nn.ELU)

    def step(model: Any, optimizer: Any, loss: Any, batch: Any) -> None:
        value = loss(model(batch[0]), batch[1])
        if cured:
            optimizer.zero_grad()
        value.backward()
        optimizer.step()

    optimizer = torch.optim.SGD(model.parameters(), lr=0.3)
    return classify(customers(), model, optimizer, enough=0.68, step=step, steps=300)


LOOPS = loops_of(
    FRESH,
    [
        ("fresh_only_the_schedule_steps", "no_update", _only_the_schedule_steps),
        ("fresh_integer_warmup", "no_update", _integer_warmup),
        ("fresh_tables_replaced", "not_in_optimizer", _tables_replaced),
        ("fresh_unfrozen_too_late", "not_in_optimizer", _unfrozen_too_late),
        ("fresh_list_of_towers", "not_registered", _list_of_towers),
        ("fresh_encoder_without_grad", "graph_cut", _encoder_without_grad),
        ("fresh_detached_state", "graph_cut", _detached_state),
        ("fresh_loss_made_anew", "graph_cut", _loss_made_anew),
        ("fresh_comparison", "graph_cut", _comparison),
        ("fresh_number_of_a_task", "graph_cut", _number_of_a_task),
        ("fresh_from_pretrained", "frozen", _from_pretrained),
        ("fresh_cleared_before_the_step", "gradient_cleared", _cleared_before_the_step),
        ("fresh_never_cleared", "gradient_kept", _never_cleared),
    ],
)
