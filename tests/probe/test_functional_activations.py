"""Activations called as functions, subclasses and formulas have the columns that modules have.

Each net is measured twice: as somebody writes it, and with torch's own module in the place of its
activation, or against phi and autograd in float64.

Holds: probe/functional.py, probe/free_activations.py
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import reference
import torch
import torch.nn.functional as F
from reference import act_numbers, flat, measured_rows
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vgexp import Probe
from vgexp.probe import tied
from vgexp.probe.free_activations import FreeActivations
from vgexp.probe.functions import FunctionWatcher
from vgexp.probe.meters import uses
from vgexp.probe.unseen import NO_ACTIVATION

Phi = Callable[[Tensor], Tensor]
Row = dict[str, Any]
COLUMNS = reference.ACT_COLUMNS


class Net(nn.Module):
    """Two hidden layers, phi after each; of the first, z is normalised."""

    def __init__(self, phi: Phi) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.norm, self.b = nn.Linear(4, 6), nn.LayerNorm(6), nn.Linear(6, 5)
        self.head = nn.Linear(5, 3)
        self.phi = phi
        with torch.no_grad():
            self.b.bias[0], self.b.bias[1] = -30, 9

    def forward(self, x: Tensor) -> Tensor:
        h = self.phi(self.norm(self.a(x)))
        return self.head(self.phi(self.b(h)))


def inputs(seed: int = 0, *shape: int) -> Tensor:
    return torch.randn(*(shape or (8, 4)), generator=torch.Generator().manual_seed(seed))


def trained(
    model: nn.Module,
    xs: list[Tensor] | None = None,
    steps: int = 1,
    forward: Phi | None = None,
    **more: Any,
) -> tuple[list[Row], Probe]:
    """The rows of the last of some steps, each of one or more micro-batches."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    rows: list[Row] = []
    with Probe(model, optimizer, every=1, activations_every=1, **more) as probe:
        for _ in range(steps):
            optimizer.zero_grad()
            for x in xs or [inputs()]:
                (forward or model)(x).square().sum(1).mean().backward()
            optimizer.step()
            rows = measured_rows(probe)
    return rows, probe


def acts_of(rows: list[Row]) -> dict[str, Row]:
    return {row["name"]: {column: row[column] for column in COLUMNS} for row in rows}


def assert_alike(rows: list[Row], wanted: list[Row], rtol: float = 1e-5) -> None:
    for name, row in acts_of(wanted).items():
        assert reference.differences(acts_of(rows)[name], row, rtol, 1e-7) == [], name


PHIS: dict[str, tuple[Phi, Callable[[], nn.Module]]] = {
    "F.relu": (F.relu, nn.ReLU),
    "torch.relu": (torch.relu, nn.ReLU),
    "x.relu()": (lambda x: x.relu(), nn.ReLU),
    "clamp(min=0)": (lambda x: x.clamp(min=0), nn.ReLU),
    "F.relu(inplace)": (lambda x: F.relu(x * 1, inplace=True), nn.ReLU),
    "torch.tanh": (torch.tanh, nn.Tanh),
    "x.tanh()": (lambda x: x.tanh(), nn.Tanh),
    "F.tanh": (F.tanh, nn.Tanh),
    "x.sigmoid()": (lambda x: x.sigmoid(), nn.Sigmoid),
    "torch.special.expit": (torch.special.expit, nn.Sigmoid),
    "F.gelu": (F.gelu, nn.GELU),
    "F.gelu tanh": (lambda x: F.gelu(x, approximate="tanh"), lambda: nn.GELU("tanh")),
    "F.silu": (F.silu, nn.SiLU),
    "x * sigmoid(x)": (lambda x: x * torch.sigmoid(x), nn.SiLU),
    "sigmoid(x).mul(x)": (lambda x: x.sigmoid().mul(x), nn.SiLU),
    "F.mish": (F.mish, nn.Mish),
    "F.leaky_relu": (lambda x: F.leaky_relu(x, 0.3), lambda: nn.LeakyReLU(0.3)),
    "F.leaky_relu name": (
        lambda x: F.leaky_relu(input=x, negative_slope=0.2),
        lambda: nn.LeakyReLU(0.2),
    ),
    "F.elu": (lambda x: F.elu(x, 0.7), lambda: nn.ELU(0.7)),
    "F.elu(inplace)": (lambda x: F.elu(x * 1, 0.7, True), lambda: nn.ELU(0.7)),
    "F.celu": (lambda x: F.celu(x, alpha=2.0), lambda: nn.CELU(2.0)),
    "F.selu": (F.selu, nn.SELU),
    "F.softplus": (lambda x: F.softplus(x, 2.0), lambda: nn.Softplus(2.0)),
    "F.hardtanh": (lambda x: F.hardtanh(x, -0.5, 0.5), lambda: nn.Hardtanh(-0.5, 0.5)),
    "F.relu6": (F.relu6, nn.ReLU6),
    "F.hardswish": (F.hardswish, nn.Hardswish),
    "F.hardsigmoid": (F.hardsigmoid, nn.Hardsigmoid),
    "F.logsigmoid": (F.logsigmoid, nn.LogSigmoid),
    "F.softsign": (F.softsign, nn.Softsign),
    "F.tanhshrink": (F.tanhshrink, nn.Tanhshrink),
    "F.softshrink": (F.softshrink, nn.Softshrink),
    "F.threshold": (lambda x: F.threshold(x, 0.2, 0.0), lambda: nn.Threshold(0.2, 0.0)),
}


@pytest.mark.parametrize("name", PHIS)
def test_a_function_gives_what_its_module_gives(name: str) -> None:
    function, module = PHIS[name]
    xs = [inputs(1), inputs(2, 3, 4)]
    rows, probe = trained(Net(function), xs, steps=3)
    wanted, known = trained(Net(module()), xs, steps=3)
    assert_alike(rows, wanted)
    assert rows[0]["act_mean"] is not None
    assert rows[1]["dead_fraction"] is not None
    assert probe.unseen == known.unseen == []


def test_h_and_shares_are_those_of_autograd_in_float64() -> None:
    model = Net(torch.tanh).double()
    x = inputs().double()
    rows, _ = trained(model, [x])
    model = Net(torch.tanh).double()
    z = model.b(torch.tanh(model.norm(model.a(x)))).detach().requires_grad_()
    h = torch.tanh(z)
    (slope,) = torch.autograd.grad(h.sum(), z)
    wanted = act_numbers(flat([h]))
    wanted["saturated_fraction"] = float((slope < 0.05).double().mean())
    wanted["dead_fraction"] = float((slope == 0).all(0).double().mean())
    assert wanted["saturated_fraction"] > 0
    assert reference.differences(acts_of(rows)["b.weight"], wanted, 1e-10) == []


# ---------------------------------------------------------------- modules


class Inherited(nn.ReLU):
    """A subclass that adds a name."""


class InheritedSlope(nn.LeakyReLU):
    def __init__(self) -> None:
        super().__init__(0.2)


class CallsSuper(nn.GELU):
    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input)


class CallsFunction(nn.Module):
    """As transformers' GELUActivation: an object that calls a function."""

    def __init__(self) -> None:
        super().__init__()
        self.act = F.gelu

    def forward(self, input: Tensor) -> Tensor:
        return self.act(input)


class NewGelu(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        cubic = x + 0.044715 * torch.pow(x, 3.0)
        return 0.5 * x * (1.0 + torch.tanh(math.sqrt(2.0 / math.pi) * cubic))


class QuickGelu(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


class Swish(nn.Module):
    """With a module of torch's in it, as in many vision nets."""

    def __init__(self) -> None:
        super().__init__()
        self.sigmoid = nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        return x * self.sigmoid(x)


class SquaredRelu(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x).square()


@pytest.mark.parametrize(
    ("written", "known"),
    [
        (Inherited, nn.ReLU),
        (InheritedSlope, lambda: nn.LeakyReLU(0.2)),
        (CallsSuper, nn.GELU),
        (CallsFunction, nn.GELU),
        (NewGelu, lambda: nn.GELU("tanh")),
        (Swish, nn.SiLU),
    ],
)
def test_a_module_of_somebodys_gives_what_torchs_gives(
    written: Callable[[], nn.Module], known: Callable[[], nn.Module]
) -> None:
    for steps in (1, 3):
        rows, probe = trained(Net(written()), steps=steps)
        wanted, _ = trained(Net(known()), steps=steps)
        assert_alike(rows, wanted, 1e-4)
        assert rows[1]["act_mean"] is not None
        assert probe.unseen == []


@pytest.mark.parametrize("phi", [QuickGelu, SquaredRelu])
def test_a_formula_that_torch_does_not_have_is_differentiated(phi: type[nn.Module]) -> None:
    rows, _ = trained(Net(phi()), steps=2, forward=None)
    model = Net(phi())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    model(inputs()).square().sum(1).mean().backward()
    optimizer.step()
    z = model.b(model.phi(model.norm(model.a(inputs())))).detach().requires_grad_()
    h = phi()(z)
    (slope,) = torch.autograd.grad(h.sum(), z)
    wanted: Row = act_numbers(flat([h]))
    wanted |= {
        "saturated_fraction": None,
        "dead_fraction": float((slope == 0).all(0).double().mean()),
    }
    assert reference.differences(acts_of(rows)["b.weight"], wanted, 1e-4) == []


class Masked(nn.Module):
    """Stochastic depth: linear, and random."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.empty(len(x), 1).bernoulli_(0.5) / 0.5


class NoisyRelu(nn.Module):
    """Elementwise and nonlinear, but random."""

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x) * (1 + torch.rand_like(x))


class Pooled(nn.Module):
    """No activation itself; it has one in it."""

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x) - F.relu(x).mean(-1, keepdim=True)


def test_what_is_linear_is_no_activation() -> None:
    rows, _ = trained(Net(nn.Sequential(Masked(), nn.Tanh())))
    assert rows[1]["saturated_fraction"] is not None
    rows, probe = trained(Net(Masked()))
    assert rows[1]["act_mean"] is None
    assert probe.unseen == [f"a.weight, b.weight: {NO_ACTIVATION}"]


@pytest.mark.parametrize("phi", [NoisyRelu(), Pooled()])
def test_a_function_within_what_is_no_formula_is_found(phi: nn.Module) -> None:
    rows, _ = trained(Net(phi))
    model = Net(phi)
    h = torch.relu(model.norm(model.a(inputs()))).detach()
    assert rows[0]["act_mean"] == pytest.approx(float(h.mean()), rel=1e-5)
    assert rows[0]["dead_fraction"] is not None
    assert rows[0]["saturated_fraction"] is None


# ---------------------------------------------------------------- whose it is


class Mixed(nn.Module):
    """Functions that are no weight's activation, beside some that are."""

    def __init__(self, case: str) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.a, self.b, self.c = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)
        self.gate = nn.Parameter(torch.zeros(4))
        self.head = nn.Linear(4, 3)
        self.case = case

    def forward(self, x: Tensor) -> Tensor:
        z = self.a(x)
        match self.case:
            case "parameter":
                h = z * torch.sigmoid(self.gate)
            case "data":
                h = z * torch.sigmoid(x)
            case "polynomial":
                h = 0.5 * z * (1 + torch.tanh(0.8 * (z + 0.04 * z**3)))
            case "quick":
                h = z * torch.sigmoid(1.7 * z)
            case "state":
                i, f = z.unflatten(1, (2, 2)).unbind(1)
                h = torch.tanh(i * f + f).repeat(1, 2)
            case "attention":
                h = torch.tanh(torch.softmax(z, -1) @ x.T @ x)
            case "second":
                h = torch.relu(torch.tanh(z))
            case "side by side":
                h = torch.relu(self.c(x)) + self.b(x) * z
            case "gated":
                h = F.silu(self.a(x)) * self.b(x)
            case "views":
                h = torch.tanh(z.view(-1, 2, 2).transpose(1, 2)).flatten(1)
            case "residual":
                h = torch.tanh(x + 0.3 * self.b(torch.relu(z)))
        return self.head(h)


@pytest.mark.parametrize(
    ("case", "owners"),
    [
        ("parameter", []),
        ("data", []),
        ("polynomial", []),
        ("quick", []),
        ("state", []),
        ("attention", []),
        ("second", ["a"]),
        ("side by side", ["c"]),
        ("gated", ["a"]),
        ("views", ["a"]),
        ("residual", ["a", "b"]),
    ],
)
def test_an_activation_belongs_to_the_weight_whose_z_it_reads(case: str, owners: list[str]) -> None:
    rows, _ = trained(Mixed(case), steps=2)
    have = [row["name"].split(".")[0] for row in rows if row["act_mean"] is not None]
    assert sorted(have) == owners
    if case == "second":
        h = torch.tanh(Mixed(case).a(inputs()))
        (row,) = (r for r in trained(Mixed(case))[0] if r["name"] == "a.weight")
        assert row["act_std"] == pytest.approx(float(h.detach().std(correction=0)), rel=1e-5)


def test_frozen_weights_have_activations_too() -> None:
    model = Net(F.relu)
    model.a.requires_grad_(False)
    model.norm.requires_grad_(False)
    wanted = Net(nn.ReLU())
    wanted.a.requires_grad_(False)
    wanted.norm.requires_grad_(False)
    assert_alike(trained(model)[0], trained(wanted)[0])
    assert trained(model)[0][0]["act_mean"] is not None


# ---------------------------------------------------------------- training as it was


def losses(model: nn.Module, probed: bool, forward: Phi | None = None) -> list[float]:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.001)
    torch.manual_seed(3)
    told = []
    probe = Probe(model, optimizer, every=1, activations_every=2)
    if probed:
        probe.__enter__()
    for _ in range(4):
        loss = (forward or model)(inputs()).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        told.append(loss.item())
    told.append(float(torch.rand(())))
    if probed:
        probe.__exit__(None, None, None)
    return told


@pytest.mark.parametrize("phi", [F.gelu, NewGelu(), NoisyRelu(), Masked(), Swish()])
def test_losses_and_random_numbers_are_the_same_bits(phi: Phi) -> None:
    assert losses(Net(phi), probed=True) == losses(Net(phi), probed=False)


@pytest.mark.parametrize("use_reentrant", [True, False])
def test_under_checkpointing_numbers_are_the_same_or_empty(use_reentrant: bool) -> None:
    def forward(model: Net, x: Tensor) -> Tensor:
        return checkpoint(model, x.requires_grad_(), use_reentrant=use_reentrant)

    model = Net(F.gelu)
    rows, _ = trained(model, forward=lambda x: forward(model, x), steps=2)
    wanted, _ = trained(Net(nn.GELU()), steps=2)
    if use_reentrant:
        # What is repeated within the backward pass calls no function that is seen.
        assert all(row["act_mean"] is None for row in rows)
    else:
        assert_alike(rows, wanted)
    again = Net(F.gelu)
    assert losses(again, True, lambda x: forward(again, x)) == losses(Net(F.gelu), False)


def test_in_half_precision_h_is_that_of_autocast() -> None:
    def forward(model: Net, x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return model(x).float()

    written, known = Net(F.gelu), Net(nn.GELU())
    rows, _ = trained(written, forward=lambda x: forward(written, x))
    wanted, _ = trained(known, forward=lambda x: forward(known, x))
    assert_alike(rows, wanted)


def test_after_an_error_in_the_forward_pass_the_next_step_is_measured() -> None:
    fails = [True]

    def phi(x: Tensor) -> Tensor:
        if fails.pop() if fails else False:
            raise ValueError("not today")
        return torch.tanh(x)

    model = Net(phi)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with Probe(model, optimizer) as probe:
        with pytest.raises(ValueError, match="not today"):
            model(inputs())
        assert torch.overrides._get_current_function_mode_stack() == []
        model(inputs()).sum().backward()
        optimizer.step()
    assert_alike(measured_rows(probe), trained(Net(nn.Tanh()))[0])


_OF_ATTENTION = (F.scaled_dot_product_attention, F.multi_head_attention_forward)


def test_functions_are_watched_on_only_where_they_are_needed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[int] = []
    end = FreeActivations.end_learning

    def count(self: FreeActivations, watcher: FunctionWatcher) -> None:
        end(self, watcher)
        # Without those of attention, of matrices and of recurrences, which others ask for.
        others = {id(each) for each in (*tied.FUNCTIONS, *_OF_ATTENTION, *uses.FUNCTIONS)}
        seen.append(len(watcher._watched.keys() - others))

    monkeypatch.setattr(FreeActivations, "end_learning", count)
    for phi in (nn.ReLU(), CallsFunction(), NewGelu(), nn.Sigmoid()):
        trained(Net(phi))
    assert seen == [0, 0, 0, 0]
    trained(Net(F.relu))
    assert seen[-1] > 0
    assert np.isfinite(trained(Net(F.relu), steps=4)[0][0]["act_mean"])


class Scheduled(nn.Module):
    """An activation that changes with every call."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return torch.tanh(x * (1 + self.calls / 10))


class PythonsDice(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x * (1 + random.random()))


class NumpysDice(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x * (1 + np.random.rand()))  # noqa: NPY002


class Wrapped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Tanh()

    def forward(self, x: Tensor) -> Tensor:
        return 1.5 * self.inner(x)


@pytest.mark.parametrize("make", [Scheduled, PythonsDice, NumpysDice, Wrapped])
def test_a_formula_with_a_state_trains_as_without_a_probe(make: Callable[[], nn.Module]) -> None:
    found = []
    for is_probed in (False, True):
        random.seed(0)
        np.random.seed(0)  # noqa: NPY002
        torch.manual_seed(0)
        phi = make()
        model = nn.Sequential(nn.Linear(4, 6), phi, nn.Linear(6, 6), phi, nn.Linear(6, 3))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        calls: list[None] = []
        for module in phi.modules():
            if module is not phi:
                module.register_forward_hook(lambda *_, seen=calls: seen.append(None))
        probe = Probe(model, optimizer, every=1, activations_every=1) if is_probed else None
        with probe or nullcontext():
            for _ in range(3):
                optimizer.zero_grad()
                model(torch.randn(5, 4)).square().mean().backward()
                optimizer.step()
        found.append([*(p.detach() for p in model.parameters()), torch.tensor(len(calls))])
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)
