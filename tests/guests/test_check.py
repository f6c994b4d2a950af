"""The check before training: what it finds, and that it leaves everything as it was.

Holds: guests/check.py, guests/trial.py, guests/calls.py, guests/copies.py, docs/check.md
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import json
import math
import random
import re
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import vgexp
from vgexp.diagnosis import Diagnosis
from vgexp.errors import QuestionError
from vgexp.guests.calls import call_of, guess_of, kind_of
from vgexp.guests.copies import copy_together, rebound

pytestmark = pytest.mark.usefixtures("seeded")

CE = nn.CrossEntropyLoss()


def mlp(
    out: int = 5, act: Callable[[], nn.Module] = nn.ReLU, depth: int = 2, last: Any = ()
) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Linear(8, 16), act()]
    for _ in range(depth - 1):
        layers += [nn.Linear(16, 16), act()]
    return nn.Sequential(*layers, nn.Linear(16, out), *last)


def adam(model: nn.Module, lr: float = 1e-3) -> torch.optim.Optimizer:
    return torch.optim.Adam(model.parameters(), lr=lr)


def batch(size: int = 16) -> tuple[Tensor, Tensor]:
    return torch.randn(size, 8), torch.randint(5, (size,))


# ---------------------------------------------------------------- it changes nothing


class _Everything(nn.Module):
    """Has buffers, draws numbers, keeps what it computed, and calls itself by a closure."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.5))
        self.head = nn.Linear(16, 5)
        self.read_out = lambda h: self.head(h)
        self.kept: Tensor | None = None
        self.num_calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.num_calls += 1
        x.add_(random.random() + np.random.rand())  # noqa: NPY002
        self.kept = self.body(x)
        out: Tensor = self.read_out(self.kept)
        return out


def _all_of(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """What must not change, copied."""
    gradients = {n: p.grad for n, p in model.named_parameters()}
    return copy.deepcopy(
        {
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "gradients": gradients,
            "torch": torch.get_rng_state(),
            "python": random.getstate(),
            "numpy": np.random.get_state()[1:],  # noqa: NPY002
            "training": [m.training for m in model.modules()],
            "trained": [p.requires_grad for p in model.parameters()],
            "calls": model.num_calls,
        }
    )


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor):
        return torch.equal(one, other) and one.dtype == other.dtype
    if isinstance(one, np.ndarray):
        return bool((one == other).all())
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_same(one[k], other[k]) for k in one)
    if isinstance(one, tuple | list):
        return len(one) == len(other) and all(map(_same, one, other))
    return bool(one == other)


@pytest.mark.parametrize("is_training", [True, False])
@pytest.mark.parametrize("fails", [False, True])
def test_everything_stays_as_it_is(is_training: bool, fails: bool) -> None:
    model = _Everything()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    x, y = batch()
    CE(model(x.clone()), y).backward()
    optimizer.step()
    CE(model(x.clone()), y).backward()  # gradients are there, and a tensor with a graph
    model.train(is_training)

    def loss_fn(output: Tensor, target: Tensor) -> Tensor:
        penalty = model.head.weight.square().sum()
        if fails:
            raise RuntimeError("no loss")
        return F.cross_entropy(output, target) + 1e-3 * penalty

    before, kept = _all_of(model, optimizer), (x.clone(), y.clone())
    held = [(p, p.grad, p.data_ptr()) for p in model.parameters()]
    if fails:
        with pytest.raises(QuestionError, match="no loss"):
            vgexp.check(model, loss_fn, (x, y), optimizer)
    else:
        assert vgexp.check(model, loss_fn, (x, y), optimizer).health == "healthy"
    assert _same(_all_of(model, optimizer), before)
    assert _same((x, y), kept)
    assert all(p.grad is g and p.data_ptr() == place for p, g, place in held)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_training_after_a_check_is_training_without_one() -> None:
    losses = []
    for is_checked in (False, True):
        torch.manual_seed(3)
        model = _Everything()
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        x, y = batch()
        random.seed(0)
        np.random.seed(0)  # noqa: NPY002
        if is_checked:
            vgexp.check(model, CE, (x, y), optimizer)
        for _ in range(3):
            optimizer.zero_grad()
            loss = CE(model(x.clone()), y)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    assert losses[:3] == losses[3:]


SCALE = nn.Linear(5, 5)


def _through_a_global(output: Tensor, target: Tensor) -> Tensor:
    return F.cross_entropy(SCALE(output), target)


def test_a_loss_that_reaches_modules_by_name_reaches_copies() -> None:
    model = mlp()
    assert vgexp.check(model, _through_a_global, batch(), adam(model)).health == "healthy"
    assert all(p.grad is None for p in (*SCALE.parameters(), *model.parameters()))


def test_gradients_that_reach_originals_do_not_stay() -> None:
    model = mlp()
    hidden = SimpleNamespace(model=model)  # no copy is made of what nobody knows

    def loss_fn(output: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(output + hidden.model(torch.ones(16, 8)), target)

    vgexp.check(model, loss_fn, batch(), adam(model))
    assert all(p.grad is None for p in model.parameters())


def test_a_copied_optimizer_holds_copies_of_the_same_parameters() -> None:
    model = mlp()
    stale = nn.Parameter(torch.ones(3))
    optimizer = torch.optim.LBFGS([*model.parameters(), stale], lr=0.5)
    copied, own, _, _ = copy_together(model, optimizer, CE)
    held = own.param_groups[0]["params"]
    assert [id(p) for p in held[:-1]] == [id(p) for p in copied.parameters()]
    assert held[-1] is not stale
    assert not {id(p) for p in held} & {id(p) for p in optimizer.param_groups[0]["params"]}
    assert own.param_groups[0]["lr"] == 0.5
    assert vgexp.check(model, CE, batch(), optimizer).cause != "unknown"


def test_a_function_is_rebound_only_where_it_reaches_what_was_copied() -> None:
    model, other = mlp(), 3

    def inner(x: Tensor) -> Any:
        return model(x)

    def outer(x: Tensor, scale: float = 2.0) -> Any:
        return inner(x) * scale

    def apart(x: Tensor) -> Any:
        return x * other

    copied, _, found, memo = copy_together(model, None, outer)
    with torch.no_grad():
        next(copied.parameters()).zero_()
    x = torch.randn(2, 8)
    assert torch.equal(found(x), copied(x) * 2)
    assert not torch.equal(found(x), outer(x))
    assert found.__name__ == "outer"
    assert rebound(apart, memo) is apart
    part = functools.partial(outer, scale=3.0)
    assert copy_together(model, None, part)[2].keywords == {"scale": 3.0}


# ---------------------------------------------------------------- what it finds


class _Sign(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.sign()


class _Detached(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.detach()


class _Listed(nn.Module):
    """Keeps layers in a plain list."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(8, 16), nn.Linear(16, 5)
        self.hidden = [nn.Linear(16, 16), nn.Linear(16, 16)]

    def forward(self, x: Tensor) -> Any:
        x = self.first(x).relu()
        for layer in self.hidden:
            x = layer(x).relu()
        return self.last(x)


class _Nan(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return (-x.abs() - 1).log()


def _filled(model: nn.Module, fill: Callable[[nn.Linear], Any]) -> nn.Module:
    for module in model.modules():
        if isinstance(module, nn.Linear):
            fill(module)
    return model


def _values(size: int = 16) -> tuple[Tensor, Tensor]:
    return torch.randn(size, 8), torch.randn(size, 1)


def _scaled(factor: float, offset: float = 0.0) -> tuple[Tensor, Tensor]:
    x, y = batch()
    return x * factor + offset, y


def _sparse(factor: float) -> tuple[Tensor, Tensor]:
    """Inputs of which one in eight is not 0."""
    x, y = batch()
    return F.one_hot(x.argmax(1), 8) * factor, y


def _one_hot() -> tuple[Any, ...]:
    """A network that reads rows as those of a bag of 10,000 words."""
    x = F.one_hot(torch.randint(10_000, (16,)), 10_000).float()
    model = nn.Sequential(nn.Linear(10_000, 16), nn.ReLU(), nn.Linear(16, 5))
    return model, CE, (x, batch()[1]), None


def _squeezed(output: Tensor, target: Tensor) -> Tensor:
    return F.mse_loss(output.squeeze(-1), target)


def _with_bad_input(value: float) -> tuple[Tensor, Tensor]:
    x, y = batch()
    x[2, 3] = value
    return x, y


def _binary() -> tuple[Tensor, Tensor]:
    return torch.randn(16, 8), (torch.arange(16).reshape(16, 1) % 2).float()


def _stale() -> tuple[nn.Module, torch.optim.Optimizer]:
    model = mlp()
    optimizer = adam(model)
    model[2] = nn.Linear(16, 16)
    return model, optimizer


def _frozen() -> nn.Module:
    return mlp().requires_grad_(False)


SICK: dict[str, tuple[str, Callable[[], tuple[Any, ...]]]] = {
    "a rate of 0": ("no_update", lambda: (m := mlp(), CE, batch(), adam(m, 0.0))),
    "replaced": ("not_in_optimizer", lambda: ((s := _stale())[0], CE, batch(), s[1])),
    "a plain list": ("not_registered", lambda: (m := _Listed(), CE, batch(), adam(m))),
    "frozen": ("frozen", lambda: (_frozen(), CE, batch(), None)),
    "sign": ("graph_cut", lambda: (mlp(act=_Sign), CE, batch(), None)),
    "detached": ("graph_cut", lambda: (mlp(last=[_Detached()]), CE, batch(), None)),
    "argmax": (
        "graph_cut",
        lambda: (mlp(), lambda o, y: (o.argmax(1) != y).float().mean(), batch(), None),
    ),
    "softmax": ("double_softmax", lambda: (mlp(last=[nn.Softmax(1)]), CE, batch(), None)),
    "softmax in a lambda": (
        "double_softmax",
        lambda: (mlp(last=[nn.Softmax(1)]), lambda o, y: F.cross_entropy(o, y), batch(), None),
    ),
    "sigmoid": (
        "double_softmax",
        lambda: (
            mlp(1, last=[nn.Sigmoid()]),
            lambda o, y: F.binary_cross_entropy_with_logits(o, y),
            _binary(),
            None,
        ),
    ),
    "shapes": (
        "target_shape",
        lambda: (mlp(1), nn.MSELoss(), ((b := _values())[0], b[1][:, 0]), None),
    ),
    "range": ("output_range", lambda: (mlp(1, last=[nn.ReLU()]), nn.MSELoss(), _values(), None)),
    "log of 0": (
        "nan_from_loss",
        lambda: (mlp(1), lambda o, _: (o * 0).log().mean(), _values(), None),
    ),
    "root of 0": (
        "nan_in_backward",
        lambda: (mlp(1), lambda o, _: (o * 0).sqrt().mean(), _values(), None),
    ),
    "nan": ("inputs_not_finite", lambda: (mlp(), CE, _with_bad_input(math.nan), None)),
    "inf": ("inputs_not_finite", lambda: (mlp(), CE, _with_bad_input(math.inf), None)),
    "pixels": ("inputs_unscaled", lambda: (mlp(), CE, _scaled(60, 127), None)),
    "tiny sparse inputs": ("inputs_unscaled", lambda: (mlp(), CE, _sparse(1e-3), None)),
    "tiny inputs": ("inputs_unscaled", lambda: (mlp(), CE, _scaled(1e-3), None)),
    "zeros": (
        "zero_weights",
        lambda: (_filled(mlp(), lambda m: nn.init.zeros_(m.weight)), CE, batch(), None),
    ),
    "small weights": (
        "weights_small",
        lambda: (_filled(mlp(depth=9), lambda m: m.weight.data.mul_(0.05)), CE, batch(), None),
    ),
    "large weights": (
        "weights_large",
        lambda: (
            _filled(mlp(act=nn.Tanh, depth=5), lambda m: m.weight.data.mul_(20)),
            CE,
            batch(),
            None,
        ),
    ),
    "sigmoids": (
        "saturating_activation",
        lambda: (mlp(act=nn.Sigmoid, depth=16), CE, batch(), None),
    ),
    "dead": (
        "dead_at_start",
        lambda: (_filled(mlp(), lambda m: nn.init.constant_(m.bias, -9.0)), CE, batch(), None),
    ),
    "a long step": ("rate_too_large", lambda: (m := mlp(), CE, batch(), adam(m, 1.0))),
    "flat": (
        "saturated_loss",
        lambda: (
            _filled(mlp(1, last=[nn.Sigmoid()]), lambda m: nn.init.constant_(m.bias, 200.0)),
            nn.BCELoss(),
            (torch.randn(16, 8), torch.zeros(16, 1)),
            None,
        ),
    ),
    "half": (
        "optimizer_epsilon",
        lambda: (
            m := mlp().half(),
            lambda o, y: F.cross_entropy(o.float(), y),
            ((b := batch())[0].half(), b[1]),
            adam(m),
        ),
    ),
    "nan within": ("unknown", lambda: (mlp(act=_Nan), CE, batch(), None)),
}


@pytest.mark.parametrize("name", SICK)
def test_a_sick_start_is_named(name: str) -> None:
    cause, make = SICK[name]
    made = make()
    found = vgexp.check(*made)
    assert (found.health, found.cause) == ("sick", cause), str(found)


class _Beside(nn.Module):
    """Has a head whose output no loss uses, as the pooler of an encoder."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head, self.pooler = nn.Linear(8, 16), nn.Linear(16, 5), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Any:
        h = self.body(x).relu()
        self.pooler(h).tanh()
        return self.head(h)


class _Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell, self.head = nn.LSTM(8, 16, batch_first=True), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Any:
        return self.head(self.cell(x)[0][:, -1])


class _Gan(nn.Module):
    """Called as its generator; the loss function calls the critic, which has its own optimizer."""

    def __init__(self) -> None:
        super().__init__()
        self.generator, self.critic = mlp(8), mlp(1)

    def forward(self, x: Tensor) -> Any:
        return self.generator(x)


def _of_gan() -> tuple[Any, ...]:
    model = _Gan()
    return (
        model,
        lambda fake, _: F.softplus(-model.critic(fake)).mean(),
        batch(),
        adam(model.generator),
    )


def _with_warm_up() -> tuple[Any, ...]:
    model = mlp()
    optimizer = adam(model)
    torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: step / 100)
    return model, CE, batch(), optimizer


def _partly_frozen() -> nn.Module:
    model = mlp()
    model[0].requires_grad_(False)
    return model


SOUND: dict[str, Callable[[], tuple[Any, ...]]] = {
    "classes": lambda: (m := mlp(), CE, batch(), adam(m)),
    "no optimizer": lambda: (mlp(), CE, batch()),
    "log probabilities": lambda: (mlp(last=[nn.LogSoftmax(1)]), nn.NLLLoss(), batch()),
    "probabilities": lambda: (
        mlp(last=[nn.Softmax(1)]),
        lambda p, y: F.nll_loss(p.log(), y),
        batch(),
    ),
    "values": lambda: (mlp(1), nn.MSELoss(), _values()),
    "sigmoid": lambda: (mlp(1, last=[nn.Sigmoid()]), nn.BCELoss(), _binary()),
    "a part frozen": lambda: (_partly_frozen(), CE, batch()),
    "a head aside": lambda: (m := _Beside(), CE, batch(), adam(m)),
    "a generator": _of_gan,
    "warm-up": _with_warm_up,
    "recurrent": lambda: (_Recurrent(), CE, (torch.randn(16, 12, 8), batch()[1])),
    "normalised pixels": lambda: (
        nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 5)),
        CE,
        _scaled(60, 127),
    ),
    "not made yet": lambda: (
        nn.Sequential(nn.LazyLinear(16), nn.ReLU(), nn.LazyLinear(5)),
        CE,
        batch(),
    ),
    "weight norm": lambda: (
        nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(8, 16)), nn.Linear(16, 5)),
        CE,
        batch(),
    ),
    "squeezed outputs": lambda: (mlp(1), _squeezed, ((b := _values())[0], b[1][:, 0])),
    "softmax regression from 0": lambda: (
        _filled(nn.Sequential(nn.Linear(8, 5)), lambda m: nn.init.zeros_(m.weight)),
        CE,
        batch(),
    ),
    "one-hot": _one_hot,
    "10 layers with Adam": lambda: (m := mlp(depth=10), CE, batch(), adam(m)),
}


class _LooksUp(nn.Module):
    """Reads numbers beside what it looks up."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.look_up, self.read, self.scale = nn.Embedding(10, 8), mlp(), scale
        self.first = nn.Linear(13, 8)

    def forward(self, numbers: Tensor, ids: Tensor) -> Tensor:
        both = torch.cat([numbers, self.scale * self.look_up(ids)], 1)
        out: Tensor = self.read(self.first(both))
        return out


@pytest.mark.parametrize(
    ("of_numbers", "of_embeddings", "cause"),
    [(1.0, 1.0, None), (1e4, 1.0, "inputs_unscaled"), (1.0, 30.0, None)],
)
def test_inputs_beside_an_embedding_are_looked_at(
    of_numbers: float, of_embeddings: float, cause: str | None
) -> None:
    inputs = {"numbers": of_numbers * torch.randn(16, 5), "ids": torch.randint(10, (16,))}
    found = vgexp.check(_LooksUp(of_embeddings), CE, (inputs, torch.randint(5, (16,))))
    assert found.cause == cause, str(found)


@pytest.mark.parametrize("name", SOUND)
def test_a_sound_start_is_healthy(name: str) -> None:
    found = vgexp.check(*SOUND[name]())
    assert (found.health, found.cause) == ("healthy", None), str(found)


def test_what_one_update_cannot_tell_is_unchecked_with_the_reason() -> None:
    found = vgexp.check(mlp(), CE, batch())
    assert "one update" in found.unchecked["gradient_kept"]
    assert found.unchecked["no_update"] == "no optimizer was given"
    assert {"graph_cut", "double_softmax", "inputs_unscaled"} <= {*found.checked}
    page = str(found)
    assert page.startswith("Health: healthy, as far as one update shows\n")
    assert "guessing among 5 classes gives log 5 = 1.61" in page
    assert json.loads(json.dumps(found.to_dict()))["health"] == "healthy"


def test_the_page_has_every_field_of_a_diagnosis() -> None:
    page = (Path(__file__).parents[2] / "docs" / "check.md").read_text()
    table = page.partition("## What it returns\n")[2].partition("\n## ")[0]
    named = set(re.findall(r"`(\w+)(?:\(\))?`", "".join(re.findall(r"^\| `.*?\|", table, re.M))))
    public = {field.name for field in dataclasses.fields(Diagnosis)}
    inner = {"first_step", "last_step", "first", "last", "is_check", "depths"}
    assert named == public - inner | {"checked", "to_dict"}


def test_the_example_of_the_page_is_what_it_prints(capsys: pytest.CaptureFixture[str]) -> None:
    page = Path(__file__).parents[2] / "docs" / "check.md"
    code, shown = re.findall(r"```(?:python)?\n(.*?)```", page.read_text(), flags=re.DOTALL)[:2]
    exec(code, {})
    assert capsys.readouterr().out == shown


def test_the_place_of_the_first_value_that_is_not_finite_is_told() -> None:
    found = vgexp.check(nn.Sequential(nn.Linear(8, 16), _Nan(), nn.Linear(16, 5)), CE, batch())
    assert found.layer == "1"
    model = mlp()
    nn.init.constant_(model[2].weight, math.nan)
    assert vgexp.check(model, CE, batch()).layer == "2.weight"


# ---------------------------------------------------------------- what it is called with


class _Own(nn.Module):
    """Makes its own loss, as models of transformers do."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(11, 16), nn.Linear(16, 11)

    def forward(self, input_ids: Tensor, labels: Tensor) -> Any:
        logits = self.head(self.embedding(input_ids).relu())
        loss = F.cross_entropy(logits.flatten(0, 1), labels.flatten())
        return SimpleNamespace(loss=loss, logits=logits)


def test_a_model_may_make_its_own_loss() -> None:
    tokens = torch.randint(11, (4, 6))
    found = vgexp.check(_Own(), None, {"input_ids": tokens, "labels": tokens})
    assert found.health == "healthy"
    assert "log 11 = 2.40" in found.sentence
    assert vgexp.check(_Own(), None, (tokens, tokens)).health == "healthy"


class _Two(nn.Module):
    def forward(self, x: Tensor, scale: Any) -> Any:
        return x, scale


def test_inputs_are_given_as_the_model_takes_them() -> None:
    x, y = batch()
    assert call_of(mlp(), (x, y), has_loss=True).args[0].shape == x.shape
    assert len(call_of(_Two(), (x, x, y), has_loss=True).args) == 2
    assert len(call_of(_Two(), ((x, x), y), has_loss=True).args) == 2
    assert len(call_of(mlp(), ([x, x], y), has_loss=True).args) == 1
    assert [*call_of(_Two(), ({"x": x, "scale": x}, y), has_loss=True).kwargs] == ["x", "scale"]
    nested = call_of(_Two(), ((x, {"a": (x, "word")}), y), has_loss=True)
    assert nested.args[1]["a"][1] == "word"
    assert nested.args[1]["a"][0] is not x


def test_the_kind_of_a_loss_is_told_by_its_value() -> None:
    output, labels = torch.randn(8, 5), torch.randint(5, (8,))
    loss = F.cross_entropy(output, labels).item()
    assert (kind_of(output, labels, loss), guess_of(output, labels, loss)) == (
        "cross_entropy",
        pytest.approx(math.log(5)),
    )
    assert kind_of(output, labels, loss * 1.01) is None
    spread = output.reshape(2, 4, 5)
    assert guess_of(spread, labels.reshape(2, 4), loss) == pytest.approx(math.log(5))
    evenly = torch.full((8, 5), 0.2)  # two losses have this value
    assert kind_of(evenly, labels, math.log(5)) is None
    values = torch.randn(8, 1)
    assert guess_of(output[:, :1], values, F.mse_loss(output[:, :1], values).item()) == (
        pytest.approx(values.double().var(correction=0).item())
    )
    assert guess_of(output, torch.full((8,), 9), 1.0) is None


def _uncopied() -> nn.Module:
    model = mlp()
    model.lock = threading.Lock()
    return model


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: ("model.pt", CE, batch()), ["check: model is 'model.pt'", "torch.nn.Module"]),
        (lambda: (nn.ReLU(), CE, batch()), ["ReLU has no parameters"]),
        (lambda: (mlp(), nn.MSELoss, batch()), ["loss_fn is the class MSELoss"]),
        (lambda: (mlp(), "mse", batch()), ["loss_fn is not callable"]),
        (lambda: (mlp(), CE, batch(), "adam"), ["optimizer is of type str"]),
        (lambda: (mlp(), CE, batch(0)), ["batch has no entries: (float32 0x8, int64 0)"]),
        (lambda: (mlp(), CE, "data.csv"), ["batch is of type str", "(inputs, target)"]),
        (lambda: (mlp(), CE, batch()[0]), ["a Tensor, and a loss function needs"]),
        (lambda: (mlp(), CE, {"x": batch()[0]}), ["a dict, and a loss function needs"]),
        (lambda: (mlp(), None, batch()[0]), ["returned float32 16x5, and a loss is one number"]),
        (
            lambda: (mlp(), nn.CrossEntropyLoss(reduction="none"), batch()),
            ["returned float32 16", "loss.mean()"],
        ),
        (lambda: (mlp(), lambda *_: None, batch()), ["returned a NoneType, no loss"]),
        (
            lambda: (mlp(), CE, (torch.randn(4, 9), torch.zeros(4, dtype=torch.long))),
            ["the model's forward pass raised RuntimeError", "inputs: float32 4x9"],
        ),
        (
            lambda: (mlp(), CE, (torch.randn(4, 8), torch.full((4,), 7))),
            ["the loss function raised IndexError", "output: float32 4x5", "target: int64 4"],
        ),
        (lambda: (_uncopied(), CE, batch()), ["cannot be copied", "__deepcopy__"]),
    ],
)
def test_what_is_no_question_is_one_readable_error(
    make: Callable[[], tuple[Any, ...]], words: list[str]
) -> None:
    with pytest.raises(QuestionError) as caught:
        vgexp.check(*make())
    text = str(caught.value)
    assert all(word in text for word in words), text
    assert len(text.splitlines()) <= 5
