"""Sick loops of the set `faults`: what is updated, and what nobody registered."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from zoo.loops.batches import accuracy_goal
from zoo.loops.faults_data import (
    WORDS,
    digits,
    discs,
    explained,
    fit,
    mlp,
    moons,
    reviews,
    right,
    small_cnn,
    stream,
)
from zoo.loops.loop import FAULTS, Goal, Parts, loops_of


def _warmup_by_whole_division(cured: bool) -> Parts:
    """The factor of a warm-up is made with `//`: it is 0 until the warm-up is over.

    Humbatova et al. 2020, Training, Hyperparameters, "suboptimal learning rate"; Islam et al. 2019,
    a logic bug. The warm-up is as long as the training.
    """
    data = digits(as_images=True)
    model = small_cnn()
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    total = 250

    def factor(step: int) -> float:
        return (step + 1) / total if cured else (step + 1) // (total + 1)

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)

    def step(model: Any, optimizer: Any, loss: Any, batch: Any) -> None:
        optimizer.zero_grad()
        loss(model(batch[0]), batch[1]).backward()
        optimizer.step()
        schedule.step()

    loss = nn.CrossEntropyLoss()
    return fit(data, model, optimizer, loss, right(data, 0.85), steps=total, step=step)


class _HandSgd(torch.optim.Optimizer):
    """SGD by hand."""

    def __init__(self, parameters: Any, lr: float, *, in_place: bool) -> None:
        super().__init__(parameters, {"lr": lr})
        self.in_place = in_place

    @torch.no_grad()
    def step(self, _closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                if self.in_place:
                    p -= group["lr"] * p.grad
                else:
                    p = p - group["lr"] * p.grad


def _name_bound_anew(cured: bool) -> Parts:
    """The optimizer by hand writes `p = p - lr * p.grad`, which changes no parameter.

    Islam et al. 2019, a data flow bug; Humbatova et al. 2020, Training, Optimiser.
    """
    data = moons()
    model = mlp(2, 24, 24, 2, act=nn.Tanh)
    optimizer = _HandSgd(model.parameters(), 0.3, in_place=cured)
    return fit(data, model, optimizer, nn.CrossEntropyLoss(), right(data, 0.93), steps=500)


class _Extractor(nn.Module):
    """A frozen body of random convolutions, and a head of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 24, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2))
        self.fc = nn.Linear(24 * 16, 1000)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.body(x).flatten(1))


def _head_replaced_afterwards(cured: bool) -> Parts:
    """The head of a frozen net is replaced after the optimizer was made of the old one.

    Humbatova et al. 2020, Model, "wrong model initialization"; defects4ML, a wrong order of API
    calls.
    """
    data = digits(as_images=True)
    model = _Extractor()
    model.body.requires_grad_(False)
    if cured:
        model.fc = nn.Linear(24 * 16, 10)
    optimizer = torch.optim.Adam(model.fc.parameters(), lr=0.01)
    if not cured:
        model.fc = nn.Linear(24 * 16, 10)
    return fit(data, model, optimizer, nn.CrossEntropyLoss(), right(data, 0.8), steps=200)


class _RowsAttend(nn.Module):
    """The eight rows of a digit are tokens of two layers of attention."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(8, 24)
        self.place = nn.Embedding(8, 24)
        layer = nn.TransformerEncoderLayer(24, 2, 48, 0.0, batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.read = nn.Linear(24, 10)

    def forward(self, x: Tensor) -> Tensor:
        h = self.layers(self.embed(x[:, 0]) + self.place.weight)
        return self.read(h.mean(1))


def _group_forgotten(cured: bool) -> Parts:
    """Two groups are made for weight decay, and only the one without decay is given.

    Islam et al. 2019, a bug of incorrect model parameter or structure: only biases and norms train.
    """
    data = digits(as_images=True)
    model = _RowsAttend()
    decay = [p for p in model.parameters() if p.dim() > 1]
    plain = [p for p in model.parameters() if p.dim() <= 1]
    groups: list[dict[str, Any]] = [{"params": plain, "weight_decay": 0.0}]
    if cured:
        groups.append({"params": decay, "weight_decay": 0.01})
    optimizer = torch.optim.AdamW(groups, lr=3e-3)
    return fit(data, model, optimizer, nn.CrossEntropyLoss(), right(data, 0.85), steps=300)


class _LateProjection(nn.Module):
    """Makes its first layer when it has seen how wide an input is."""

    def __init__(self) -> None:
        super().__init__()
        self.project: nn.Linear | None = None
        self.rest = nn.Sequential(nn.Tanh(), *mlp(3, 32, 10))

    def forward(self, x: Tensor) -> Tensor:
        if self.project is None:
            self.project = nn.Linear(x.shape[1], 3)
        return self.rest(self.project(x))


def _made_in_the_first_call(cured: bool) -> Parts:
    """The first layer is made in `forward`, after the optimizer has taken the parameters.

    Zhang et al. 2018, confusion with the computation model; Humbatova et al. 2020, API, "missing
    global variables initialization".
    """
    data = digits()
    model = _LateProjection()
    if cured:
        model(data[0][0][:1])
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    return fit(data, model, optimizer, nn.CrossEntropyLoss(), right(data, 0.8), steps=400)


class _Experts(nn.Module):
    """A gate weighs what experts say; they have 2 hidden units each, and a read-out in common."""

    def __init__(self, *, is_registered: bool) -> None:
        super().__init__()
        experts = {f"expert_{k}": nn.Sequential(nn.Linear(2, 12), nn.Tanh()) for k in range(3)}
        self.experts: Any = nn.ModuleDict(experts) if is_registered else experts
        self.gate = nn.Linear(2, 3)
        self.bottleneck = nn.Linear(12, 1)

    def forward(self, x: Tensor) -> Tensor:
        weights = self.gate(x).softmax(1)
        said = torch.stack([expert(x) for expert in self.experts.values()], 1)
        return self.bottleneck((weights[..., None] * said).mean(1))


def _experts_in_a_dict(cured: bool) -> Parts:
    """Experts are kept in a plain `dict`.

    Islam et al. 2019, a structural bug (initialization); defects4ML has it as `nn.ModuleDict`
    missing.
    """
    data = _stripes()
    model = _Experts(is_registered=cured)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)

    def loss(output: Tensor, y: Tensor) -> Tensor:
        return nn.functional.mse_loss(output[:, 0], y)

    return fit(data, model, optimizer, loss, explained(data, 0.85), steps=600)


def _stripes() -> Any:
    x = 2 * torch.rand(1200, 2) - 1
    y = (4 * x[:, 0]).sin() * (3 * x[:, 1]).cos()
    return (x[:900], y[:900]), (x[900:], y[900:])


class _Memory(nn.Module):
    """A layer by hand whose matrix is kept as it is multiplied: transposed."""

    def __init__(self, *, as_parameter: bool) -> None:
        super().__init__()
        start = 0.6 * torch.randn(24, 2)
        weight = nn.Parameter(start)
        self.weight: Any = weight if as_parameter else weight.t()
        self.rest = nn.Sequential(nn.Tanh(), *mlp(2, 24, 2))
        self.as_parameter = as_parameter

    def forward(self, x: Tensor) -> Tensor:
        return self.rest(x @ self.weight if self.as_parameter else x @ self.weight.t())


def _parameter_transposed(cured: bool) -> Parts:
    """`self.weight = nn.Parameter(...).t()` is a tensor, and no parameter of the module.

    Zhang et al. 2018, API misuse. The layer takes 24 columns to 2, and the label is in two of them.
    """
    (x, y), (x_test, y_test) = moons()
    turn = torch.randn(2, 24) * 0.2

    def widened(x: Tensor) -> Tensor:
        return torch.cat((x, 1.5 * torch.randn(len(x), 22)), 1) + x @ turn

    data = (widened(x), y), (widened(x_test), y_test)
    model = _Memory(as_parameter=cured)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    return fit(data, model, optimizer, nn.CrossEntropyLoss(), right(data, 0.8), steps=400)


class _Bag(nn.Module):
    """Word vectors, their mean, and a read-out."""

    def __init__(self, vectors: Tensor, **settings: bool) -> None:
        super().__init__()
        self.embed = nn.Embedding.from_pretrained(vectors, **settings)
        self.read = nn.Linear(vectors.shape[1], 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.read(self.embed(x).mean(1))


def _from_pretrained(cured: bool) -> Parts:
    """`nn.Embedding.from_pretrained` freezes by default, and the vectors are only drawn.

    Zhang et al. 2018, API misuse; Islam et al. 2019, an API bug (a default that was not known).
    """
    vectors = torch.randn(WORDS, 3)
    model = _Bag(vectors, freeze=False) if cured else _Bag(vectors)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    goal = accuracy_goal(*reviews(600), 0.85)
    return stream(reviews, model, optimizer, nn.CrossEntropyLoss(), goal, steps=300)


def _copied_with_its_flags(cured: bool) -> Parts:
    """The student is a `deepcopy` of a teacher whose parameters were frozen, and is frozen too.

    Islam et al. 2019, a bug of initialization; Humbatova et al. 2020, "wrong model initialization".
    Only the new read-out is trained.
    """
    data = discs()
    teacher = nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 2, 5, padding=2), nn.Tanh()
    )
    teacher.requires_grad_(False).eval()
    student = copy.deepcopy(teacher)
    if cured:
        student.requires_grad_(True)
    model = student.append(nn.Conv2d(2, 1, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)

    def score(model: nn.Module) -> float:
        x, mask = data[1]
        found = (model(x) > 0).float()
        return float((found * mask).sum() / (found + mask).clamp_max(1).sum())

    loss = nn.BCEWithLogitsLoss()
    return fit(data, model, optimizer, loss, Goal(score, 0.6), steps=250, size=32)


LOOPS = loops_of(
    FAULTS,
    [
        ("faults_warmup_by_whole_division", "no_update", _warmup_by_whole_division),
        ("faults_name_bound_anew", "no_update", _name_bound_anew),
        ("faults_head_replaced_afterwards", "not_in_optimizer", _head_replaced_afterwards),
        ("faults_group_forgotten", "not_in_optimizer", _group_forgotten),
        ("faults_made_in_the_first_call", "not_in_optimizer", _made_in_the_first_call),
        ("faults_experts_in_a_dict", "not_registered", _experts_in_a_dict),
        (
            "faults_parameter_transposed",
            ("not_registered", "not_in_optimizer"),
            _parameter_transposed,
        ),
        ("faults_from_pretrained", "frozen", _from_pretrained),
        ("faults_copied_with_its_flags", "frozen", _copied_with_its_flags),
    ],
)
