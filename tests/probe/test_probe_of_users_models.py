"""The probe on other people's models and loops: each number against plain autograd in float64,
or the cell empty and the weight in `probe.unseen`; never an exception in the user's loop.

A `Road` computes a model's forward pass once more from its parameters and returns every z, by the
name of the weight. Axes: B examples, T positions, C channels.

Holds: probe/block.py, probe/blocks.py, probe/calls.py, probe/discovery.py, probe/examples.py,
probe/graph.py, probe/micro_batches.py, probe/passes.py, probe/plan.py, probe/taps.py,
probe/tied.py, probe/weights.py
"""

from __future__ import annotations

import contextlib
import itertools
import math
import warnings
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
import reference
import torch
import torch.nn.functional as F
from reference import flat, measured_rows, rms
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from users_rows import reasons

from vgexp import Probe, diagnose
from vgexp.probe import block
from vgexp.probe.plan import plan_of_module
from vgexp.probe.readouts import READ_OFF
from vgexp.probe.unseen import NO_ACTIVATION
from vgexp.probe.weights import DECLARED, WeightMeter
from vgexp.quantities import LAYERS, Measure, column_of

Parameters = Mapping[str, Tensor]
Zs = dict[str, list[Tensor]]
Road = Callable[[Parameters, Tensor], tuple[Zs, Tensor]]
Row = dict[str, Any]


GRADIENT_COLUMNS = ("grad_norm", "grad_max", "grad_zero_fraction", "grad_norm_clipped")


def data(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)


def drawn(model: nn.Module, dtype: torch.dtype = torch.float64) -> nn.Module:
    """The model with every parameter drawn anew from a generator of its own."""
    model = model.to(dtype)
    with torch.no_grad():
        for i, parameter in enumerate(model.parameters()):
            parameter.copy_(0.5 * data(*parameter.shape, seed=100 + i))
    return model


def loss_of(out: Tensor) -> Tensor:
    """Mean over examples of a sum over the rest that is not symmetric in the outputs."""
    weights = torch.linspace(0.5, 1.5, out[0].numel(), dtype=out.dtype).reshape(out[0].shape)
    return ((out - 0.3) ** 2 * weights).flatten(1).sum(1).mean()


def values_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().double().clone() for name, p in model.named_parameters()}


def expected(
    road: Road,
    values: Parameters,
    micro_batches: list[Tensor],
    loss: Callable[[Tensor], Tensor] = loss_of,
) -> dict[str, Row]:
    """Weight -> columns of an update on the mean of `loss` over micro-batches of equal size."""
    p = {name: value.clone().requires_grad_() for name, value in values.items()}
    forwards = [road(p, x if not x.is_floating_point() else x.double()) for x in micro_batches]
    num_examples = sum(len(x) for x in micro_batches)
    total = sum((loss(out) for _, out in forwards), torch.zeros(())) / len(micro_batches)
    grads = torch.autograd.grad(total, list(p.values()), retain_graph=True, allow_unused=True)
    grad_of = dict(zip(p, grads, strict=True))
    rows = {}
    for name in {name for zs, _ in forwards for name in zs}:
        zs = [z for seen, _ in forwards for z in seen.get(name, [])]
        deltas = torch.autograd.grad(total, zs, retain_graph=True, allow_unused=True)
        grad = grad_of[name]
        rows[name] = {
            "name": name,
            "weight_norm": math.hypot(*flat([values[name]])),
            "grad_norm": None if grad is None else math.hypot(*flat([grad])),
            "preact_mean": float(flat(zs).mean()),
            "preact_std": reference.std(flat(zs)),
            "delta_rms": num_examples * rms(flat([d for d in deltas if d is not None])),
        }
    return rows


def step_on(
    optimizer: torch.optim.Optimizer,
    micro_batches: list[Tensor],
    forward: Callable[[Tensor], Tensor],
) -> None:
    optimizer.zero_grad()
    for x in micro_batches:
        (loss_of(forward(x)) / len(micro_batches)).backward()
    optimizer.step()


def assert_rows_are(
    rows: list[Row], wanted: Mapping[str, Row], rtol: float = 1e-8, atol: float = 1e-13
) -> None:
    by_name = {row["name"]: row for row in rows}
    wrong = []
    for name, row in wanted.items():
        wrong += reference.differences(by_name[name], row, rtol, atol)
    assert wrong == []


def check(
    model: nn.Module,
    road: Road,
    *shape: int,
    accumulate: int = 1,
    steps: int = 3,
    forward: Callable[[Tensor], Tensor] | None = None,
    parameters: list[dict[str, Any]] | None = None,
) -> tuple[Probe, list[list[Row]]]:
    """Trains a few steps with a probe; every step's rows equal the road's."""
    optimizer = torch.optim.SGD(parameters or model.parameters(), lr=0.02)
    every = []
    with Probe(model, optimizer, every=1, activations_every=1) as probe:
        for step in range(steps):
            micro_batches = [data(*shape, seed=10 * step + i) for i in range(accumulate)]
            wanted = expected(road, values_of(model), micro_batches)
            step_on(optimizer, micro_batches, forward or model)
            every.append(measured_rows(probe))
            assert_rows_are(every[-1], wanted)
    return probe, every


def affine(p: Parameters, name: str, x: Tensor) -> Tensor:
    return x @ p[f"{name}.weight"].T + p[f"{name}.bias"]


def three_layers(phi: Callable[[], nn.Module] = nn.Tanh) -> nn.Sequential:
    model = nn.Sequential(nn.Linear(4, 5), phi(), nn.Linear(5, 6), phi(), nn.Linear(6, 3))
    drawn(model)
    return model


def three_roads(phi: Callable[[Tensor], Tensor] = torch.tanh) -> Road:
    def road(p: Parameters, x: Tensor) -> tuple[Zs, Tensor]:
        z1 = affine(p, "0", x)
        z2 = affine(p, "2", phi(z1))
        z3 = affine(p, "4", phi(z2))
        return {"0.weight": [z1], "2.weight": [z2], "4.weight": [z3]}, z3

    return road


# ---------------------------------------------------------------- plain


@pytest.mark.parametrize("accumulate", [1, 3])
def test_a_plain_sequential_has_its_numbers_layers_and_gains(accumulate: int) -> None:
    probe, every = check(three_layers(), three_roads(), 7, 4, accumulate=accumulate)
    assert probe.unseen == []
    for rows in every:
        assert [(r["layer"], r["kind"]) for r in rows] == [
            (1, "linear"),
            (2, "linear"),
            (3, "readout"),
        ]
        deltas = [r["delta_rms"] for r in rows]
        gains = [deltas[0] / deltas[1], deltas[1] / deltas[2], None]
        assert [r["backward_gain"] for r in rows] == [
            pytest.approx(g) if g else None for g in gains
        ]


@pytest.mark.parametrize("accumulate", [1, 2])
def test_activation_modules_give_h_and_shares_of_their_own_input(accumulate: int) -> None:
    model = nn.Sequential(
        nn.Linear(4, 6),
        nn.BatchNorm1d(6),
        nn.ReLU(),
        nn.Linear(6, 5),
        nn.Sigmoid(),
        nn.Linear(5, 2),
    )
    drawn(model)
    with torch.no_grad():
        model[1].bias[:2] = -20.0
        model[3].bias[0] = -9.0
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    micro_batches = [data(7, 4, seed=i) for i in range(accumulate)]
    with Probe(model, optimizer) as probe:
        step_on(optimizer, micro_batches, model)
        rows = measured_rows(probe)
    with torch.no_grad():
        u1 = torch.cat([model[1](model[0](x)) for x in micro_batches])
        h1 = torch.relu(u1)
        u2 = model[3](h1)
        h2 = torch.sigmoid(u2)
    slope = (h2 * (1 - h2)).numpy()
    assert_rows_are(
        rows,
        {
            "0.weight": {
                "act_mean": float(h1.mean()),
                "act_std": float(h1.std(correction=0)),
                "saturated_fraction": None,
                "dead_fraction": float((u1 <= 0).all(0).double().mean()),
            },
            "3.weight": {
                "act_mean": float(h2.mean()),
                "act_std": float(h2.std(correction=0)),
                "saturated_fraction": float((slope < 0.05 * 0.25).mean()),
                "dead_fraction": 0.0,
            },
            "5.weight": dict.fromkeys(("act_mean", "saturated_fraction", "dead_fraction")),
        },
    )
    assert 2 / 6 <= rows[0]["dead_fraction"] < 1


def test_one_activation_module_shared_by_all_layers_belongs_to_the_weight_before_it() -> None:
    phi = nn.Tanh()
    model = nn.Sequential(nn.Linear(4, 5), phi, nn.Linear(5, 6), phi, nn.Linear(6, 3))
    drawn(model)
    _, every = check(model, three_roads(), 7, 4)
    x = data(7, 4, seed=0)
    drawn(model)
    with torch.no_grad():
        h1 = torch.tanh(model[0](x))
        h2 = torch.tanh(model[2](h1))
    means = {"0.weight": float(h1.mean()), "2.weight": float(h2.mean())}
    assert_rows_are(every[0], {name: {"act_mean": value} for name, value in means.items()})


def test_of_two_activations_in_a_row_the_first_is_the_weights_own() -> None:
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.GELU(), nn.Linear(5, 3))
    drawn(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x = data(7, 4)
    with torch.no_grad():
        h = torch.tanh(model[0](x))
    with Probe(model, optimizer) as probe:
        step_on(optimizer, [x], model)
    assert measured_rows(probe)[0]["act_mean"] == pytest.approx(float(h.mean()))


class ActivatedFirst(nn.Module):
    """Pre-activation order: phi stands before the weight."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.a, self.b = nn.ReLU(), nn.Linear(4, 5), nn.Linear(5, 3)
        self.second = nn.Tanh()

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.second(self.a(self.first(x))))


def test_an_activation_before_the_first_weight_belongs_to_none() -> None:
    def road(p: Parameters, x: Tensor) -> tuple[Zs, Tensor]:
        z1 = affine(p, "a", torch.relu(x))
        z2 = affine(p, "b", torch.tanh(z1))
        return {"a.weight": [z1], "b.weight": [z2]}, z2

    model = drawn(ActivatedFirst())
    _, every = check(model, road, 7, 4)
    for rows in every:
        assert rows[0]["saturated_fraction"] is not None
        assert rows[1]["act_mean"] is None


def test_several_parameter_groups_and_a_frozen_one_are_all_measured() -> None:
    model = three_layers()
    groups = [
        {"params": model[0].parameters(), "lr": 0.0},
        {"params": [*model[2].parameters(), *model[4].parameters()], "lr": 0.1},
    ]
    _, every = check(model, three_roads(), 7, 4, parameters=groups)
    assert every[0][0]["update_ratio"] == 0
    assert every[0][1]["update_ratio"] > 0


# ---------------------------------------------------------------- in place


def test_in_place_activation_modules_leave_z_as_it_was() -> None:
    model = three_layers(lambda: nn.ReLU(inplace=True))
    probe, every = check(model, three_roads(torch.relu), 7, 4, accumulate=2)
    assert probe.unseen == []
    assert all(row["act_mean"] is not None for rows in every for row in rows[:2])


@pytest.mark.parametrize(
    ("module", "phi"),
    [
        (lambda: nn.ELU(inplace=True), F.elu),
        (lambda: nn.Hardtanh(inplace=True), F.hardtanh),
        (lambda: nn.LeakyReLU(inplace=True), F.leaky_relu),
        (lambda: nn.SiLU(inplace=True), F.silu),
    ],
)
def test_in_place_activations_of_other_kinds_give_h_and_shares_of_u(
    module: Callable[[], nn.Module], phi: Callable[[Tensor], Tensor]
) -> None:
    _, in_place = check(three_layers(module), three_roads(phi), 7, 4)

    def plain() -> nn.Module:
        made = module()
        made.inplace = False
        return made

    _, out_of_place = check(three_layers(plain), three_roads(phi), 7, 4)
    for rows, wanted in zip(in_place, out_of_place, strict=True):
        assert_rows_are(rows, {row["name"]: row for row in wanted}, rtol=1e-12, atol=0)


class InPlace(nn.Module):
    """F.relu_ on a weight's output, and a weight's output that is added to."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu_(self.a(x))
        z = self.b(h)
        z += x
        z.mul_(2)
        return self.c(z)


def in_place_road(p: Parameters, x: Tensor) -> tuple[Zs, Tensor]:
    z1 = affine(p, "a", x)
    z2 = affine(p, "b", torch.relu(z1))
    z3 = affine(p, "c", (z2 + x) * 2)
    return {"a.weight": [z1], "b.weight": [z2], "c.weight": [z3]}, z3


@pytest.mark.parametrize("accumulate", [1, 2])
def test_functional_in_place_operations_on_a_weights_output_do_not_reach_its_row(
    accumulate: int,
) -> None:
    probe, every = check(drawn(InPlace()), in_place_road, 7, 4, accumulate=accumulate)
    assert reasons(probe) == {"b.weight": NO_ACTIVATION}
    assert all(rows[0]["act_mean"] > 0 for rows in every)


class InPlaceLater(nn.Module):
    """Overwrites z from the second step on, when the probe has learnt to keep references."""

    def __init__(self, num_calls: int = 1) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 3)
        self.num_calls, self.is_in_place = num_calls, False

    def forward(self, x: Tensor) -> Tensor:
        for call in range(self.num_calls):
            z = self.a(x)
            x = F.relu_(z) if self.is_in_place and call == 0 else torch.relu(z)
        return self.b(x)


@pytest.mark.parametrize(
    "num_calls",
    [1, (2)],
)
def test_a_z_that_is_overwritten_only_at_later_steps_is_empty_or_right(num_calls: int) -> None:
    def road(p: Parameters, x: Tensor) -> tuple[Zs, Tensor]:
        zs = []
        for _ in range(num_calls):
            zs.append(affine(p, "a", x))
            x = torch.relu(zs[-1])
        out = affine(p, "b", x)
        return {"a.weight": zs, "b.weight": [out]}, out

    model = drawn(InPlaceLater(num_calls))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
    with Probe(model, optimizer, every=1, activations_every=1) as probe:
        for step in range(4):
            model.is_in_place = step > 0
            x = data(7, 4, seed=step)
            wanted = expected(road, values_of(model), [x])
            step_on(optimizer, [x], model)
            rows = measured_rows(probe)
            if step == 1 and rows[0]["preact_mean"] is None:
                assert rows[0]["preact_std"] is None
                assert "a.weight" in reasons(probe)
                del wanted["a.weight"]
            assert_rows_are(rows, wanted)


# ---------------------------------------------------------------- used twice, tied


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.tanh = nn.Linear(4, 4), nn.Linear(4, 3), nn.Tanh()

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.tanh(self.a(self.tanh(self.a(x)))))


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_module_used_twice_has_one_row_over_both_calls(accumulate: int) -> None:
    def road(p: Parameters, x: Tensor) -> tuple[Zs, Tensor]:
        z1 = affine(p, "a", x)
        z2 = affine(p, "a", torch.tanh(z1))
        z3 = affine(p, "b", torch.tanh(z2))
        return {"a.weight": [z1, z2], "b.weight": [z3]}, z3

    _, every = check(drawn(Twice()), road, 7, 4, accumulate=accumulate)
    assert [row["layer"] for row in every[0]] == [1, 2]


class Tied(nn.Module):
    """An embedding whose matrix is the read-out's too."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.mid = nn.Embedding(9, 4), nn.Linear(4, 4)
        self.readout = nn.Linear(4, 9, bias=False)
        self.readout.weight = self.embedding.weight

    def forward(self, tokens_BT: Tensor) -> Tensor:
        return self.readout(torch.tanh(self.mid(self.embedding(tokens_BT))))


def tokens(seed: int, *shape: int) -> Tensor:
    return torch.randint(9, shape, generator=torch.Generator().manual_seed(seed))


def check_tokens(model: nn.Module, road: Road, *shape: int) -> tuple[Probe, list[list[Row]]]:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
    every = []
    with Probe(model, optimizer, every=1, activations_every=1) as probe:
        for step in range(3):
            x = tokens(step, *shape)
            wanted = expected(road, values_of(model), [x])
            step_on(optimizer, [x], model)
            every.append(measured_rows(probe))
            assert_rows_are(every[-1], wanted)
    return probe, every


def test_uses_of_a_tied_weight_as_vectors_and_as_logits_have_rows_of_their_own() -> None:
    def road(p: Parameters, x: Tensor) -> tuple[Zs, Tensor]:
        z1 = p["embedding.weight"][x]
        z2 = affine(p, "mid", z1)
        z3 = torch.tanh(z2) @ p["embedding.weight"].T
        return {"embedding.weight": [z1], "mid.weight": [z2], "readout.weight": [z3]}, z3

    model = drawn(Tied())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
    with Probe(model, optimizer, every=1, activations_every=1) as probe:
        for step in range(3):
            x = tokens(step, 5, 3)
            values = values_of(model)
            wanted = expected(road, values | {"readout.weight": values["embedding.weight"]}, [x])
            for column in ("weight_norm", "grad_norm", "update_ratio"):
                wanted["readout.weight"][column] = None
            step_on(optimizer, [x], model)
            rows = measured_rows(probe)
            assert_rows_are(rows, wanted)
            assert [(row["layer"], row["name"], row["kind"]) for row in rows] == [
                (1, "embedding.weight", "linear"),
                (2, "mid.weight", "linear"),
                (3, "readout.weight", "readout"),
            ]
    assert probe.unseen == []


def by_keywords(h: Tensor, weight: Tensor) -> Tensor:
    return F.linear(input=h, weight=weight)


class TiedByFunction(nn.Module):
    """An embedding whose matrix a function reads as well, for logits or for something else."""

    def __init__(self, call: Callable[[Tensor, Tensor], Tensor], *, is_readout: bool) -> None:
        super().__init__()
        self.embedding, self.mid = nn.Embedding(9, 4), nn.Linear(4, 4)
        self.head = None if is_readout else nn.Linear(4, 2)
        self.call = call

    def forward(self, tokens_BT: Tensor) -> Tensor:
        h = torch.tanh(self.mid(self.embedding(tokens_BT)))
        logits = self.call(h, self.embedding.weight)
        return logits if self.head is None else self.head(h + logits.argmax(-1, keepdim=True))


@pytest.mark.parametrize(
    "call",
    [
        F.linear,
        by_keywords,
        lambda h, w: h @ w.T,
        lambda h, w: torch.matmul(h, w.t()),
        lambda h, w: torch.einsum("btd,vd->btv", h, w),
        lambda h, w: torch.addmm(h.new_zeros(9), h.flatten(0, 1), w.T).unflatten(0, h.shape[:2]),
        lambda h, w: torch.bmm(h, w.T.expand(len(h), -1, -1)),
        lambda h, w: torch.tensordot(h, w, dims=([2], [1])),
        lambda h, w: F.linear(h, w.clone()),
        lambda h, w: F.linear(h / 3, 3 * w),
    ],
)
def test_a_read_out_by_a_function_of_a_tied_weight_has_a_row(
    call: Callable[[Tensor, Tensor], Tensor],
) -> None:
    def road(p: Parameters, x: Tensor) -> tuple[Zs, Tensor]:
        z1 = p["embedding.weight"][x]
        z2 = affine(p, "mid", z1)
        z3 = torch.tanh(z2) @ p["embedding.weight"].T
        return {"embedding.weight": [z1], "mid.weight": [z2], "embedding.weight.T": [z3]}, z3

    model = drawn(TiedByFunction(call, is_readout=True))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
    with Probe(model, optimizer, every=1, activations_every=1) as probe:
        for step in range(3):
            x = tokens(step, 5, 3)
            values = values_of(model)
            values |= {"embedding.weight.T": values["embedding.weight"]}
            wanted = expected(road, values, [x])
            for column in ("weight_norm", "grad_norm", "update_ratio"):
                wanted["embedding.weight.T"][column] = None
            step_on(optimizer, [x], model)
            rows = measured_rows(probe)
            assert_rows_are(rows, wanted)
            assert [(row["layer"], row["name"], row["kind"]) for row in rows] == [
                (1, "embedding.weight", "linear"),
                (2, "mid.weight", "linear"),
                (3, "embedding.weight.T", "readout"),
            ]
    assert probe.unseen == []


class ReadByParameter(nn.Module):
    """The output is a product with a parameter that no module within has."""

    def __init__(self, call: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.out = nn.Linear(4, 5), nn.Parameter(torch.zeros(5, 3))
        self.call = call

    def forward(self, x: Tensor) -> Tensor:
        return self.call(torch.tanh(self.first(x)), self.out)


def test_a_parameter_that_the_output_is_read_off_has_z_in_its_row() -> None:
    def road(p: Parameters, x: Tensor) -> tuple[Zs, Tensor]:
        z1 = affine(p, "first", x)
        z2 = torch.tanh(z1) @ p["out"]
        return {"first.weight": [z1], "out": [z2]}, z2

    probe, every = check(drawn(ReadByParameter(torch.matmul)), road, 9, 4)
    for rows in every:
        assert [(row["layer"], row["name"], row["kind"]) for row in rows] == [
            (1, "first.weight", "linear"),
            (2, "out", "readout"),
        ]
    assert probe.unseen == []


def test_a_read_out_by_a_function_that_is_not_known_is_listed_and_no_other_weight_is_one() -> None:
    def call(h: Tensor, w: Tensor) -> Tensor:
        return F.conv1d(h.transpose(1, 2), w[:, :, None]).transpose(1, 2)

    model = drawn(TiedByFunction(call, is_readout=True))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
    with Probe(model, optimizer, every=1, activations_every=1) as probe:
        step_on(optimizer, [tokens(0, 5, 3)], model)
    assert [row["kind"] for row in measured_rows(probe)] == ["linear", "linear"]
    assert reasons(probe)["embedding.weight"] == READ_OFF


def test_a_function_of_an_embeddings_matrix_that_is_no_read_out_has_none() -> None:
    def road(p: Parameters, x: Tensor) -> tuple[Zs, Tensor]:
        z1 = p["embedding.weight"][x]
        z2 = affine(p, "mid", z1)
        h = torch.tanh(z2)
        nearest = (h @ p["embedding.weight"].T).argmax(-1, keepdim=True)
        z3 = affine(p, "head", h + nearest)
        return {"embedding.weight": [z1], "mid.weight": [z2], "head.weight": [z3]}, z3

    probe, _ = check_tokens(drawn(TiedByFunction(F.linear, is_readout=False)), road, 5, 3)
    assert not any(line.startswith("embedding") for line in probe.unseen)


class TiedActivated(nn.Module):
    """One matrix in two modules of other output widths, each with an activation."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.readout = nn.Embedding(9, 4), nn.Linear(4, 9, bias=False)
        self.readout.weight = self.embedding.weight
        self.tanh, self.sigmoid = nn.Tanh(), nn.Sigmoid()

    def forward(self, tokens_BT: Tensor) -> Tensor:
        return self.sigmoid(self.readout(self.tanh(self.embedding(tokens_BT))))


def test_a_tied_weight_with_activations_of_two_widths_does_not_stop_the_measurement() -> None:
    def road(p: Parameters, x: Tensor) -> tuple[Zs, Tensor]:
        z1 = p["embedding.weight"][x]
        z2 = torch.tanh(z1) @ p["embedding.weight"].T
        return {"embedding.weight": [z1]}, torch.sigmoid(z2)

    probe, every = check_tokens(drawn(TiedActivated()), road, 5, 3)
    assert [rows[0]["step"] for rows in every] == [0, 1, 2]
    assert probe.step == 3


def four_layers_with(tied: int) -> tuple[nn.Sequential, Road]:
    """Four hidden layers, of which a later one has the first one's weight, and a read-out; and the
    same by hand."""
    model = nn.Sequential(
        *[module for _ in range(4) for module in (nn.Linear(6, 6), nn.Tanh())], nn.Linear(6, 6)
    )
    drawn(model)
    model[tied].weight = model[0].weight

    def road(p: Parameters, x: Tensor) -> tuple[Zs, Tensor]:
        zs: Zs = {}
        h = x
        for index in (0, 2, 4, 6, 8):
            name = f"{0 if index == tied else index}.weight"
            z = h @ p[name].T + p[f"{index}.bias"]
            zs.setdefault(name, []).append(z)
            h = torch.tanh(z)
        return zs, z

    return model, road


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("tied", [2, 4, 6])
def test_a_weight_of_two_layers_keeps_its_first_place_and_leaves_no_hole(
    tied: int, accumulate: int
) -> None:
    model, road = four_layers_with(tied)
    probe, every = check(model, road, 9, 6, accumulate=accumulate)
    names = [f"{index}.weight" for index in (0, 2, 4, 6, 8) if index != tied]
    kinds = ["linear", "linear", "linear", "readout"]
    for rows in every:
        assert [row["name"] for row in rows] == names
        assert [row["layer"] for row in rows] == [1, 2, 3, 4]
        assert [row["kind"] for row in rows] == kinds
        for here, after in itertools.pairwise(rows):
            gain = here["delta_rms"] / after["delta_rms"]
            assert here["backward_gain"] == pytest.approx(gain, rel=1e-12)
    assert list(reasons(probe)) == ["0.weight"]
    assert reasons(probe)["0.weight"].startswith("used 2 times in a forward pass: one row over all")


@pytest.mark.parametrize("tied", [2, 4, 6])
def test_layers_of_a_model_with_a_shared_weight_can_be_compared(tied: int) -> None:
    model, _ = four_layers_with(tied)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
    with Probe(model, optimizer) as probe:
        step_on(optimizer, [data(9, 6)], model)
    said = diagnose(probe.to_frame()).sentence
    assert "layer 1 gets" in said
    assert "cannot be compared" not in said
    assert "not measured" not in said


def test_h_and_shares_of_a_weight_of_two_layers_are_over_both_uses() -> None:
    model, road = four_layers_with(4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
    x = 3 * data(9, 6)
    zs, _ = road(values_of(model), x)
    h = flat([torch.tanh(z) for z in zs["0.weight"]])
    with Probe(model, optimizer, every=1, activations_every=1) as probe:
        step_on(optimizer, [x], model)
    row = measured_rows(probe)[0]
    assert row["act_mean"] == pytest.approx(float(h.mean()), rel=1e-10)
    assert row["act_std"] == pytest.approx(reference.std(h), rel=1e-10)
    saturated = float(((1 - h**2) < 0.05).mean())
    assert 0 < saturated < 1
    assert row["saturated_fraction"] == pytest.approx(saturated, rel=1e-10)


def test_a_module_called_twice_is_listed_as_one_row_over_both_calls() -> None:
    model = drawn(nn.Sequential(*[nn.Linear(4, 4)] * 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
    with Probe(model, optimizer, every=1, activations_every=1) as probe:
        step_on(optimizer, [data(5, 4)], model)
    assert reasons(probe)["0.weight"].startswith("used 2 times")
    assert [row["kind"] for row in measured_rows(probe)] == ["linear"]


class SharedAcross(nn.Module):
    """q and k have one weight, v another; then a branch reads what a tied layer reads."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.side = (nn.Linear(4, 4) for _ in range(4))
        self.k.weight = self.q.weight

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.q(x)) + self.k(x) + self.v(x)
        return self.k(h) + self.side(h)


def test_neighbours_of_a_later_use_stand_side_by_side_only_where_they_read_the_same() -> None:
    model = drawn(SharedAcross())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
    with Probe(model, optimizer, every=1, activations_every=1) as probe:
        step_on(optimizer, [data(5, 4)], model)
    layers = {row["name"]: row["layer"] for row in measured_rows(probe)}
    assert layers == {"q.weight": 1, "v.weight": 1, "side.weight": 2}


# ---------------------------------------------------------------- outputs that are no tensor


@dataclass
class Output:
    logits: Tensor
    extra: str


class Structured(nn.Module):
    """Blocks and a model that return what `wrap` makes of a tensor."""

    def __init__(self, wrap: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.a, self.b = WrappedLinear(4, 5, wrap), WrappedLinear(5, 3, wrap)
        self.wrap = wrap

    def forward(self, x: Tensor) -> Any:
        return self.wrap(tensor_in(self.b(torch.tanh(tensor_in(self.a(x))))))


class WrappedLinear(nn.Linear):
    def __init__(self, inputs: int, outputs: int, wrap: Callable[[Tensor], Any]) -> None:
        super().__init__(inputs, outputs)
        self.wrap = wrap

    def forward(self, x: Tensor) -> Any:
        return self.wrap(super().forward(x))


def tensor_in(value: Any) -> Tensor:
    while not isinstance(value, Tensor):
        value = (
            value.logits
            if isinstance(value, Output)
            else value[0 if 0 in value else "z"]
            if (isinstance(value, dict))
            else value[0]
        )
    return value


WRAPS: Mapping[str, Callable[[Tensor], Any]] = {
    "tuple": lambda z: (z, None),
    "list": lambda z: [z],
    "dict": lambda z: {"z": z, "extra": 3},
    "dataclass": lambda z: Output(z, "text"),
    "nested": lambda z: ({"z": [z]}, 1),
}


@pytest.mark.parametrize("kind", WRAPS)
def test_tuple_dict_and_dataclass_outputs_are_looked_into(kind: str) -> None:
    def road(p: Parameters, x: Tensor) -> tuple[Zs, Tensor]:
        z1 = affine(p, "a", x)
        z2 = affine(p, "b", torch.tanh(z1))
        return {"a.weight": [z1], "b.weight": [z2]}, z2

    model = drawn(Structured(WRAPS[kind]))
    probe, _ = check(model, road, 7, 4, forward=lambda x: tensor_in(model(x)))
    assert probe.unseen == []


class Silent(nn.Module):
    """A weight whose module returns nothing that the probe can read."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.out = nn.Linear(4, 5), nn.Linear(5, 3)
        self.hidden = HidingLinear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.hidden(x).value)


class Opaque:
    def __init__(self, value: Tensor) -> None:
        self.value = value


class HidingLinear(nn.Linear):
    def forward(self, x: Tensor) -> Any:
        return Opaque(super().forward(x))


def test_an_output_that_cannot_be_read_is_an_empty_cell_and_unseen() -> None:
    model = drawn(Silent())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Probe(model, optimizer) as probe:
        step_on(optimizer, [data(7, 4)], model)
        rows = {row["name"]: row for row in measured_rows(probe)}
    assert rows["hidden.weight"]["preact_mean"] is None
    assert rows["hidden.weight"]["delta_rms"] is None
    assert rows["hidden.weight"]["grad_norm"] > 0
    assert {"hidden.weight", "inner.weight"} <= set(reasons(probe))


def test_keyword_and_dictionary_inputs_give_the_number_of_examples() -> None:
    class Keyword(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(4, 3)

        def forward(self, *, batch: dict[str, Tensor]) -> Tensor:
            return self.a(batch["x"])

    def road(p: Parameters, x: Tensor) -> tuple[Zs, Tensor]:
        z = affine(p, "a", x)
        return {"a.weight": [z]}, z

    model = drawn(Keyword())
    check(model, road, 7, 4, forward=lambda x: model(batch={"x": x}))


# ---------------------------------------------------------------- frozen, unused, dynamic


@pytest.mark.parametrize("frozen", ["0", "2", "4"])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_frozen_weight_keeps_its_norm_and_has_empty_gradient_columns(
    frozen: str, accumulate: int
) -> None:
    model = three_layers()
    model.get_submodule(frozen).requires_grad_(False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Probe(model, optimizer, every=1, activations_every=1) as probe:
        for step in range(2):
            micro_batches = [data(7, 4, seed=step + i) for i in range(accumulate)]
            wanted = expected(three_roads(), values_of(model), micro_batches)
            wanted[f"{frozen}.weight"]["grad_norm"] = None
            if frozen == "0":
                wanted["0.weight"]["delta_rms"] = None
            step_on(optimizer, micro_batches, model)
            rows = measured_rows(probe)
            assert_rows_are(rows, wanted)
            row = next(row for row in rows if row["name"] == f"{frozen}.weight")
            assert [row[c] for c in (*GRADIENT_COLUMNS, "update_ratio")] == [None] * 5


class WithUnused(nn.Module):
    """The head that no forward pass uses is registered last."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.unused = nn.Linear(4, 5), nn.Linear(5, 3), nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(torch.tanh(self.a(x)))


def with_unused_road(p: Parameters, x: Tensor) -> tuple[Zs, Tensor]:
    z1 = affine(p, "a", x)
    z2 = affine(p, "b", torch.tanh(z1))
    return {"a.weight": [z1], "b.weight": [z2]}, z2


@pytest.mark.parametrize(
    "accumulate",
    [
        1,
        (3),
    ],
)
def test_an_unused_weight_keeps_its_norm_and_its_neighbours_their_numbers(accumulate: int) -> None:
    model = drawn(WithUnused())
    probe, every = check(model, with_unused_road, 7, 4, accumulate=accumulate)
    for rows in every:
        row = next(row for row in rows if row["name"] == "unused.weight")
        assert row["weight_norm"] == pytest.approx(float(model.unused.weight.detach().norm()))
        for column in (*GRADIENT_COLUMNS, "update_ratio", "preact_mean", "delta_rms"):
            assert row[column] is None
    assert "unused.weight" in reasons(probe)


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.left, self.right = nn.Linear(4, 5), nn.Linear(5, 5), nn.Linear(5, 5)
        self.out, self.goes_right = nn.Linear(5, 3), False

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.a(x))
        return self.out(torch.tanh((self.right if self.goes_right else self.left)(h)))


def test_a_branch_taken_on_some_steps_has_numbers_on_these_and_empty_cells_on_others() -> None:
    def road_of(taken: str) -> Road:
        def road(p: Parameters, x: Tensor) -> tuple[Zs, Tensor]:
            z1 = affine(p, "a", x)
            z2 = affine(p, taken, torch.tanh(z1))
            z3 = affine(p, "out", torch.tanh(z2))
            return {"a.weight": [z1], f"{taken}.weight": [z2], "out.weight": [z3]}, z3

        return road

    model = drawn(Branching())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
    with Probe(model, optimizer, every=1, activations_every=1) as probe:
        for step, goes_right in enumerate([False, True, True, False]):
            model.goes_right = goes_right
            taken, other = ("right", "left") if goes_right else ("left", "right")
            x = data(7, 4, seed=step)
            wanted = expected(road_of(taken), values_of(model), [x])
            step_on(optimizer, [x], model)
            rows = measured_rows(probe)
            assert_rows_are(rows, wanted)
            left_out = next(row for row in rows if row["name"] == f"{other}.weight")
            assert left_out["weight_norm"] > 0
            assert [left_out[c] for c in (*GRADIENT_COLUMNS, "delta_rms")] == [None] * 5


def test_a_branch_first_taken_at_a_later_step_gets_its_layer_then() -> None:
    model = drawn(Branching())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
    with Probe(model, optimizer, every=1, activations_every=1) as probe:
        for step in range(2):
            model.goes_right = step == 1
            step_on(optimizer, [data(7, 4, seed=step)], model)
        rows = measured_rows(probe)
    later = next(row for row in rows if row["step"] == 1 and row["name"] == "right.weight")
    assert later["layer"] == 2
    assert later["backward_gain"] is not None


# ---------------------------------------------------------------- checkpointing


class Checkpointed(nn.Module):
    """Three layers whose middle one is recomputed in the backward pass."""

    def __init__(self, use_reentrant: bool) -> None:
        super().__init__()
        self.a, self.c = nn.Linear(4, 5), nn.Linear(6, 3)
        self.middle = nn.Sequential(nn.Tanh(), nn.Linear(5, 6), nn.Tanh())
        self.use_reentrant = use_reentrant

    def forward(self, x: Tensor) -> Tensor:
        h = checkpoint(self.middle, self.a(x), use_reentrant=self.use_reentrant)
        return self.c(h)


def checkpointed_road(p: Parameters, x: Tensor) -> tuple[Zs, Tensor]:
    z1 = affine(p, "a", x)
    z2 = affine(p, "middle.1", torch.tanh(z1))
    z3 = affine(p, "c", torch.tanh(z2))
    return {"a.weight": [z1], "middle.1.weight": [z2], "c.weight": [z3]}, z3


@pytest.mark.parametrize("use_reentrant", [True, False])
@pytest.mark.parametrize("accumulate", [1, 3])
def test_a_checkpointed_block_is_counted_once(use_reentrant: bool, accumulate: int) -> None:
    model = drawn(Checkpointed(use_reentrant))
    probe, every = check(model, checkpointed_road, 7, 4, accumulate=accumulate)
    # Reentrant checkpointing hands the block a tensor that no graph joins to z.
    assert reasons(probe) == ({"a.weight": NO_ACTIVATION} if use_reentrant else {})
    for rows in every:
        assert (rows[0]["act_mean"] is None) == use_reentrant
        assert [row["name"] for row in rows] == ["a.weight", "middle.1.weight", "c.weight"]
        assert rows[1]["act_mean"] is not None


@pytest.mark.parametrize("use_reentrant", [True, False])
def test_an_activation_that_begins_a_checkpointed_block_is_not_given_to_a_later_weight(
    use_reentrant: bool,
) -> None:
    model = drawn(Checkpointed(use_reentrant))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x = data(7, 4)
    with torch.no_grad():
        h = torch.tanh(model.a(x))
    with Probe(model, optimizer) as probe:
        step_on(optimizer, [x], model)
    first, _, last = measured_rows(probe)
    assert last["act_mean"] is None
    assert first["act_mean"] in (None, pytest.approx(float(h.mean())))


@pytest.mark.parametrize(
    ("use_reentrant", "accumulate"),
    [
        (True, 1),
        (True, 3),
        (False, 1),
        (False, 3),
    ],
)
def test_a_wholly_checkpointed_model_is_counted_once(use_reentrant: bool, accumulate: int) -> None:
    model = three_layers()

    def forward(x: Tensor) -> Tensor:
        x = x.requires_grad_()
        return checkpoint(model, x, use_reentrant=use_reentrant)

    probe, every = check(model, three_roads(), 7, 4, accumulate=accumulate, forward=forward)
    assert probe.unseen == []
    assert [row["layer"] for row in every[0]] == [1, 2, 3]


def test_a_block_used_twice_under_checkpointing_is_counted_twice() -> None:
    class Repeated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = x.requires_grad_()
            for _ in range(2):
                x = checkpoint(lambda v: torch.tanh(self.a(v)), x, use_reentrant=True)
            return self.b(x)

    def road(p: Parameters, x: Tensor) -> tuple[Zs, Tensor]:
        z1 = affine(p, "a", x)
        z2 = affine(p, "a", torch.tanh(z1))
        z3 = affine(p, "b", torch.tanh(z2))
        return {"a.weight": [z1, z2], "b.weight": [z3]}, z3

    check(drawn(Repeated()), road, 7, 4)


# ---------------------------------------------------------------- kinds of layers


def test_channels_are_the_units_of_a_convolution_and_positions_count() -> None:
    model = nn.Sequential(
        nn.Conv2d(2, 5, 3), nn.ReLU(), nn.Conv2d(5, 4, 2, stride=2), nn.Flatten(), nn.Linear(16, 3)
    )
    drawn(model)
    with torch.no_grad():
        model[0].bias[:2] = -100.0

    def road(p: Parameters, x: Tensor) -> tuple[Zs, Tensor]:
        z1 = F.conv2d(x, p["0.weight"], p["0.bias"])
        z2 = F.conv2d(torch.relu(z1), p["2.weight"], p["2.bias"], stride=2)
        z3 = affine(p, "4", z2.flatten(1))
        return {"0.weight": [z1], "2.weight": [z2], "4.weight": [z3]}, z3

    _, every = check(model, road, 7, 2, 6, 6, accumulate=2)
    assert [row["kind"] for row in every[0]] == ["conv", "conv", "readout"]
    assert every[0][0]["dead_fraction"] == pytest.approx(2 / 5)


def test_a_prelu_with_a_slope_for_each_channel_is_measured() -> None:
    model = nn.Sequential(nn.Conv1d(2, 3, 2), nn.PReLU(3), nn.Flatten(), nn.Linear(12, 2))
    drawn(model)
    with torch.no_grad():
        model[0].bias[0] = -100.0
        model[1].weight[0] = 0.0

    def road(p: Parameters, x: Tensor) -> tuple[Zs, Tensor]:
        z1 = F.conv1d(x, p["0.weight"], p["0.bias"])
        h = torch.where(z1 > 0, z1, z1 * p["1.weight"][:, None])
        z2 = affine(p, "3", h.flatten(1))
        return {"0.weight": [z1], "3.weight": [z2]}, z2

    _, every = check(model, road, 7, 2, 5, steps=1)
    assert every[0][0]["dead_fraction"] == pytest.approx(1 / 3)


def test_positions_of_a_sequence_count_and_features_are_the_units() -> None:
    model = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3))
    drawn(model)
    with torch.no_grad():
        model[0].bias[:1] = -100.0

    def road(p: Parameters, x: Tensor) -> tuple[Zs, Tensor]:
        z1 = affine(p, "0", x)
        z2 = affine(p, "2", torch.relu(z1))
        return {"0.weight": [z1], "2.weight": [z2]}, z2

    _, every = check(model, road, 7, 6, 4)
    assert every[0][0]["dead_fraction"] == pytest.approx(1 / 5)


@pytest.mark.parametrize("sparse", [True, False])
def test_an_embeddings_output_is_its_z(sparse: bool) -> None:
    model = nn.Sequential(nn.Embedding(9, 4, sparse=sparse), nn.Tanh(), nn.Linear(4, 3))
    drawn(model)

    def road(p: Parameters, x: Tensor) -> tuple[Zs, Tensor]:
        z1 = p["0.weight"][x]
        z2 = affine(p, "2", torch.tanh(z1))
        return {"0.weight": [z1], "2.weight": [z2]}, z2

    _, every = check_tokens(model, road, 5, 3)
    assert every[0][0]["grad_zero_fraction"] > 0


@pytest.mark.parametrize("cls", [nn.LSTM, nn.GRU, nn.RNN])
def test_recurrent_nets_have_gradient_columns_and_are_otherwise_unseen(cls: type) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn, self.out = cls(4, 5, num_layers=2, batch_first=True), nn.Linear(5, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(self.rnn(x)[0][:, -1])

    model = drawn(Net())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Probe(model, optimizer, every=1, activations_every=1) as probe:
        for step in range(2):
            step_on(optimizer, [data(7, 6, 4, seed=step)], model)
            rows = {row["name"]: row for row in measured_rows(probe)}
            for name, parameter in model.named_parameters():
                if parameter.ndim >= 2:
                    norm = float(parameter.grad.norm())
                    assert rows[name]["grad_norm"] == pytest.approx(norm, rel=1e-10)
    recurrent = [name for name in rows if name.startswith("rnn")]
    assert set(recurrent) <= set(reasons(probe))
    for name in recurrent:
        assert rows[name]["kind"] == "recurrent"
        assert rows[name]["delta_rms"] is None
        assert rows[name]["preact_mean"] is None
    assert rows["out.weight"]["delta_rms"] > 0


def test_stacked_recurrent_layers_are_numbered_one_by_one() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn, self.out = nn.LSTM(4, 5, num_layers=2, batch_first=True), nn.Linear(5, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(self.rnn(x)[0][:, -1])

    model = drawn(Net())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Probe(model, optimizer) as probe:
        step_on(optimizer, [data(7, 6, 4)], model)
    assert {row["name"]: row["layer"] for row in measured_rows(probe)} == {
        "rnn.weight_ih_l0": 1,
        "rnn.weight_hh_l0": 1,
        "rnn.weight_ih_l1": 2,
        "rnn.weight_hh_l1": 2,
        "out.weight": 3,
    }


def test_attention_has_gradient_columns_and_what_is_not_seen_is_listed() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.out = nn.Linear(4, 6), nn.Linear(6, 3)
            self.attention = nn.MultiheadAttention(6, 2, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            h = self.inner(x)
            return self.out(h + self.attention(h, h, h, need_weights=False)[0])

    model = drawn(Net())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Probe(model, optimizer, every=1, activations_every=1) as probe:
        for step in range(2):
            step_on(optimizer, [data(7, 5, 4, seed=step)], model)
            rows = {row["name"]: row for row in measured_rows(probe)}
            for name, row in rows.items():
                norm = float(model.get_parameter(name).grad.norm())
                assert row["grad_norm"] == pytest.approx(norm, rel=1e-10)
    assert rows["attention.in_proj_weight"]["kind"] == "attention"
    assert set(reasons(probe)) == {
        *("attention.in_proj_weight", "attention.out_proj.weight", "inner.weight")
    }
    assert reasons(probe)["inner.weight"] == NO_ACTIVATION
    assert rows["inner.weight"]["delta_rms"] > 0


class Gated(nn.Module):
    """A gated feed-forward block in the order that calls both weights before phi."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.up, self.down = nn.Linear(4, 5), nn.Linear(4, 5), nn.Linear(5, 3)
        self.tanh = nn.Tanh()

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.gate(x), self.up(x)
        return self.down(self.tanh(gate) * up)


def test_side_by_side_weights_share_a_layer_and_have_their_own_numbers() -> None:
    def road(p: Parameters, x: Tensor) -> tuple[Zs, Tensor]:
        gate, up = affine(p, "gate", x), affine(p, "up", x)
        out = affine(p, "down", torch.tanh(gate) * up)
        return {"gate.weight": [gate], "up.weight": [up], "down.weight": [out]}, out

    _, every = check(drawn(Gated()), road, 7, 4)
    assert [row["layer"] for row in every[0]] == [1, 1, 2]


def test_an_activation_belongs_to_the_weight_whose_output_it_reads() -> None:
    model = drawn(Gated())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x = data(7, 4)
    with torch.no_grad():
        h = torch.tanh(model.gate(x))
    with Probe(model, optimizer) as probe:
        step_on(optimizer, [x], model)
    rows = {row["name"]: row for row in measured_rows(probe)}
    assert rows["up.weight"]["act_mean"] is None
    assert rows["gate.weight"]["act_mean"] == pytest.approx(float(h.mean()))


def test_reparametrised_weights_do_not_disturb_their_neighbours() -> None:
    normed = nn.utils.parametrizations.weight_norm(nn.Linear(4, 5))
    model = nn.Sequential(normed, nn.Tanh(), nn.Linear(5, 3))
    drawn(model)

    def road(p: Parameters, x: Tensor) -> tuple[Zs, Tensor]:
        g, v = (p[f"0.parametrizations.weight.original{i}"] for i in (0, 1))
        z1 = x @ (g * v / v.norm(dim=1, keepdim=True)).T + p["0.bias"]
        z2 = affine(p, "2", torch.tanh(z1))
        return {"2.weight": [z2]}, z2

    probe, _ = check(model, road, 7, 4)
    assert any("original" in name for name in reasons(probe))


def test_lazy_modules_that_have_no_shape_yet_have_rows() -> None:
    model = nn.Sequential(nn.LazyConv1d(5, 1), nn.Tanh(), nn.Flatten(), nn.LazyLinear(3)).double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Probe(model, optimizer, every=1, activations_every=1) as probe:
        for step in range(2):
            step_on(optimizer, [data(7, 4, 6, seed=step)], model)
            rows = measured_rows(probe)
            assert [(row["layer"], row["name"], row["kind"]) for row in rows] == [
                (1, "0.weight", "conv"),
                (2, "3.weight", "readout"),
            ]
            for row in rows:
                norm = model.get_parameter(row["name"]).grad.norm().item()  # type: ignore[union-attr]
                assert row["grad_norm"] == pytest.approx(norm, rel=1e-12)
                assert row["delta_rms"] is not None
    assert probe.unseen == []


# ---------------------------------------------------------------- precision and loss scaling


def test_under_autocast_numbers_are_those_of_the_half_precision_pass() -> None:
    model = drawn(three_layers(), torch.float32)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    x = data(64, 4, dtype=torch.float32)

    def forward(x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return model(x).float()

    with Probe(model, optimizer, every=1, activations_every=1) as probe:
        for _ in range(2):
            wanted = expected(three_roads(), values_of(model), [x])
            step_on(optimizer, [x], forward)
            rows = measured_rows(probe)
            # bfloat16 keeps 8 bits: 4e-3 an operation, averaged over hundreds of entries.
            assert_rows_are(rows, wanted, rtol=2e-2, atol=1e-2)
            assert rows[0]["saturated_fraction"] is not None
    assert probe.unseen == []


def scaled_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    micro_batches: list[Tensor],
    *,
    unscale: bool = False,
    to_none: bool = True,
) -> None:
    optimizer.zero_grad(set_to_none=to_none)
    for x in micro_batches:
        scaler.scale(loss_of(model(x)) / len(micro_batches)).backward()
    if unscale:
        scaler.unscale_(optimizer)
    scaler.step(optimizer)
    scaler.update()


@pytest.mark.parametrize("unscale", [True, False])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_loss_scale_is_divided_out_of_deltas_and_gradients(
    unscale: bool, accumulate: int
) -> None:
    model = drawn(three_layers(), torch.float32)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=1)
    with Probe(model, optimizer, every=1, activations_every=1) as probe:
        for step in range(3):
            micro = [data(7, 4, seed=step + i, dtype=torch.float32) for i in range(accumulate)]
            wanted = expected(three_roads(), values_of(model), micro)
            scaled_step(model, optimizer, scaler, micro, unscale=unscale)
            assert_rows_are(measured_rows(probe), wanted, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "to_none",
    [True, (False)],
)
def test_a_step_that_the_scaler_skips_leaves_no_trace_in_the_next(to_none: bool) -> None:
    model = drawn(three_layers(), torch.float32)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127, backoff_factor=2.0**-110)
    first, second = (data(7, 4, seed=i, dtype=torch.float32) for i in range(2))
    with Probe(model, optimizer, every=1, activations_every=1) as probe:
        scaled_step(model, optimizer, scaler, [first * 100], to_none=to_none)
        assert measured_rows(probe) == []
        wanted = expected(three_roads(), values_of(model), [second])
        scaled_step(model, optimizer, scaler, [second], to_none=to_none)
        assert_rows_are(measured_rows(probe), wanted, rtol=1e-4, atol=1e-6)


# ---------------------------------------------------------------- loops


def test_with_a_summed_loss_the_deltas_are_those_of_the_sum() -> None:
    model = three_layers()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.001)
    with Probe(model, optimizer, every=1, activations_every=1, loss_reduction="sum") as probe:
        for step in range(2):
            micro_batches = [data(7, 4, seed=step), data(5, 4, seed=step + 9)]
            p = values_of(model)
            optimizer.zero_grad()
            wanted_delta: list[Tensor] = []
            for x in micro_batches:
                zs, out = three_roads()({k: v.requires_grad_() for k, v in p.items()}, x)
                wanted_delta += torch.autograd.grad(loss_of(out) * len(x), zs["2.weight"])
                (loss_of(model(x)) * len(x)).backward()
            optimizer.step()
            row = measured_rows(probe)[1]
            assert row["delta_rms"] == pytest.approx(rms(flat(wanted_delta)), rel=1e-8)


ZERO_GRADS = ["before_forward", "before_backward", "after_step", "zeros", "model"]


@pytest.mark.parametrize("place", ZERO_GRADS)
def test_zero_grad_may_stand_anywhere_in_the_loop(place: str) -> None:
    model = three_layers()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
    with Probe(model, optimizer, every=1, activations_every=1) as probe:
        for step in range(3):
            x = data(7, 4, seed=step)
            wanted = expected(three_roads(), values_of(model), [x])
            if place == "before_forward":
                optimizer.zero_grad()
            loss = loss_of(model(x))
            if place == "before_backward":
                optimizer.zero_grad()
            if place == "zeros":
                optimizer.zero_grad(set_to_none=False)
            if place == "model":
                model.zero_grad()
            loss.backward()
            optimizer.step()
            if place == "after_step":
                optimizer.zero_grad()
            assert_rows_are(measured_rows(probe), wanted)


def test_a_loop_that_never_clears_gradients_shows_the_sum_and_the_updates_own_deltas() -> None:
    model = three_layers()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    with Probe(model, optimizer, every=1, activations_every=1) as probe:
        for step in range(3):
            x = data(7, 4)
            wanted = expected(three_roads(), values_of(model), [x])
            for row in wanted.values():
                row["grad_norm"] *= step + 1
            loss_of(model(x)).backward()
            optimizer.step()
            assert_rows_are(measured_rows(probe), wanted)


@pytest.mark.parametrize(
    "set_to_none",
    [
        True,
        (False),
    ],
)
def test_a_backward_whose_gradients_are_thrown_away_leaves_no_trace(set_to_none: bool) -> None:
    model = three_layers()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
    with Probe(model, optimizer, every=1, activations_every=1) as probe:
        for step in range(3):
            x = data(7, 4, seed=step)
            wanted = expected(three_roads(), values_of(model), [x])
            loss_of(model(100 * x)).backward()
            optimizer.zero_grad(set_to_none=set_to_none)
            loss_of(model(x)).backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=set_to_none)
            assert_rows_are(measured_rows(probe), wanted)


EVALUATIONS: Mapping[str, Callable[[], contextlib.AbstractContextManager[Any]]] = {
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "grad": torch.enable_grad,
}


@pytest.mark.parametrize("mode", EVALUATIONS)
@pytest.mark.parametrize("when", ["before_step", "after_forward", "after_backward"])
def test_evaluation_forwards_between_steps_do_not_count(mode: str, when: str) -> None:
    model = three_layers()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02)

    def evaluate(here: str) -> None:
        if here == when:
            with EVALUATIONS[mode]():
                model.eval()
                model(data(11, 4, seed=77) * 50)
                model.train()

    with Probe(model, optimizer, every=1, activations_every=1) as probe:
        for step in range(3):
            x = data(7, 4, seed=step)
            wanted = expected(three_roads(), values_of(model), [x])
            evaluate("before_step")
            optimizer.zero_grad()
            loss = loss_of(model(x))
            evaluate("after_forward")
            loss.backward()
            evaluate("after_backward")
            optimizer.step()
            assert_rows_are(measured_rows(probe), wanted)


def test_long_evaluations_before_the_first_step_are_not_kept_in_memory() -> None:
    model = three_layers()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
    inputs = []
    with Probe(model, optimizer), torch.no_grad():
        for _ in range(50):
            x = data(7, 4)
            inputs.append(weakref.ref(x))
            model(x)
        del x
        assert sum(ref() is not None for ref in inputs) <= 2


def two_part_road(p: Parameters, x: Tensor) -> tuple[Zs, Tensor]:
    """Both halves of the batch through the model one by one."""
    zs: Zs = {}
    outs = []
    for part in x.chunk(2):
        seen, out = three_roads()(p, part)
        outs.append(out)
        for name, values in seen.items():
            zs.setdefault(name, []).extend(values)
    return zs, torch.cat(outs)


def test_two_forwards_before_one_backward_count_as_micro_batches_of_one_update() -> None:
    model = three_layers()
    check(model, two_part_road, 8, 4, forward=lambda x: torch.cat([model(v) for v in x.chunk(2)]))


def test_two_forwards_before_two_backwards_count_as_micro_batches_of_one_update() -> None:
    model = three_layers()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
    with Probe(model, optimizer, every=1, activations_every=1) as probe:
        for step in range(2):
            x = data(8, 4, seed=step)
            wanted = expected(two_part_road, values_of(model), [x])
            optimizer.zero_grad()
            losses = [loss_of(model(part)) / 2 for part in x.chunk(2)]
            for loss in losses:
                loss.backward()
            optimizer.step()
            assert_rows_are(measured_rows(probe), wanted)


def test_two_backwards_through_one_graph_add_up() -> None:
    model = three_layers()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
    with Probe(model, optimizer, every=1, activations_every=1) as probe:
        for step in range(3):
            x = data(7, 4, seed=step)
            wanted = expected(three_roads(), values_of(model), [x])
            optimizer.zero_grad()
            out = model(x)
            (0.25 * loss_of(out)).backward(retain_graph=True)
            (0.75 * loss_of(out)).backward()
            optimizer.step()
            assert_rows_are(measured_rows(probe), wanted)


def test_gradients_taken_by_autograd_grad_are_not_the_updates() -> None:
    model = three_layers()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
    with Probe(model, optimizer, every=1, activations_every=1) as probe:
        x = data(7, 4)
        wanted = expected(three_roads(), values_of(model), [x])
        optimizer.zero_grad()
        loss = loss_of(model(x))
        torch.autograd.grad(loss, list(model.parameters()), retain_graph=True)
        loss.backward()
        optimizer.step()
        assert_rows_are(measured_rows(probe), wanted)


def test_a_closure_that_the_optimizer_calls_is_measured_as_it_ran() -> None:
    model = three_layers()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
    with Probe(model, optimizer, every=1, activations_every=1) as probe:
        for step in range(3):
            x = data(7, 4, seed=step)
            wanted = expected(three_roads(), values_of(model), [x])

            def closure(x: Tensor = x) -> Tensor:
                optimizer.zero_grad()
                loss = loss_of(model(x))
                loss.backward()
                return loss

            optimizer.step(closure)
            rows = measured_rows(probe)
            assert_rows_are(rows, wanted)
            moved = 0.02 * rows[0]["grad_norm"]
            assert rows[0]["update_ratio"] * rows[0]["weight_norm"] == pytest.approx(moved)


def test_lbfgs_trains_under_a_probe_and_its_rows_are_right_or_empty() -> None:
    model = three_layers()
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=3)
    with Probe(model, optimizer, every=1, activations_every=1) as probe:
        for step in range(3):
            norms: list[float] = []

            def closure(step: int = step, norms: list[float] = norms) -> Tensor:
                optimizer.zero_grad()
                loss = loss_of(model(data(7, 4, seed=step)))
                loss.backward()
                norms.append(float(model[0].weight.grad.norm()))
                return loss

            optimizer.step(closure)
            row = measured_rows(probe)[0]
            assert row["step"] == step
            assert row["grad_norm"] is None or any(
                row["grad_norm"] == pytest.approx(norm) for norm in norms
            )
            if row["grad_norm"] is None:
                assert "0.weight" in reasons(probe)


def test_an_optimizer_without_any_gradient_gets_rows_of_weight_norms() -> None:
    model = three_layers()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Probe(model, optimizer, every=1, activations_every=1) as probe:
        optimizer.step()
        optimizer.step()
    rows = measured_rows(probe)
    assert [row["step"] for row in rows] == [0, 0, 0, 1, 1, 1]
    for row in rows:
        assert row["weight_norm"] > 0
        assert [row[c] for c in (*GRADIENT_COLUMNS, "delta_rms")] == [None] * 5


def test_clipping_through_data_is_seen_as_clipping() -> None:
    model = three_layers()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Probe(model, optimizer) as probe:
        loss_of(model(data(7, 4))).backward()
        probe.before_clip()
        for parameter in model.parameters():
            parameter.grad.data.clamp_(-1e-3, 1e-3)
        optimizer.step()
        rows = measured_rows(probe)
    for row in rows:
        seen = float(model.get_parameter(row["name"]).grad.norm())
        assert row["grad_norm_clipped"] == pytest.approx(seen)
        assert row["grad_norm"] > row["grad_norm_clipped"]


@pytest.mark.parametrize("in_place", [True, False])
def test_clipping_after_before_clip_is_seen_whether_in_place_or_by_new_tensors(
    in_place: bool,
) -> None:
    model = three_layers()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Probe(model, optimizer) as probe:
        loss_of(model(data(7, 4))).backward()
        probe.before_clip()
        for parameter in model.parameters():
            if in_place:
                parameter.grad.mul_(0.5)
            else:
                parameter.grad = parameter.grad * 0.5
        optimizer.step()
    for row in measured_rows(probe):
        assert row["grad_norm_clipped"] == pytest.approx(row["grad_norm"] / 2)


def spare_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes every tensor a large one, reduced as soon as it comes."""
    monkeypatch.setattr("vgexp.probe.stacks.HOST_ENTRIES", 1)
    monkeypatch.setattr("vgexp.probe.stacks.HOST_WAITING", 1)


def test_two_backwards_through_one_graph_leave_delta_empty_where_the_first_was_reduced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spare_memory(monkeypatch)
    model = three_layers()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
    with Probe(model, optimizer) as probe:
        x = data(7, 4)
        wanted = expected(three_roads(), values_of(model), [x])
        out = model(x)
        (0.25 * loss_of(out)).backward(retain_graph=True)
        (0.75 * loss_of(out)).backward()
        optimizer.step()
    for row in wanted.values():
        row["delta_rms"] = None
    assert_rows_are(measured_rows(probe), wanted)
    assert set(reasons(probe)) == set(wanted)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_what_is_reduced_early_to_spare_memory_gives_the_same_rows(
    accumulate: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    spare_memory(monkeypatch)
    check(three_layers(), three_roads(), 7, 4, accumulate=accumulate)


def test_in_place_models_are_right_or_empty_when_memory_is_spared(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spare_memory(monkeypatch)
    check(drawn(InPlace()), in_place_road, 7, 4)


def test_a_model_compiled_before_the_probe_trains_and_what_is_not_seen_is_listed() -> None:
    model = three_layers()
    try:
        compiled = torch.compile(model, backend="eager")
        compiled(data(7, 4))
    except Exception as error:  # A machine without what dynamo needs.
        pytest.skip(f"torch.compile does not work here: {error}")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
    with Probe(compiled, optimizer, every=1, activations_every=1) as probe:
        for step in range(2):
            x = data(7, 4, seed=step)
            wanted = expected(three_roads(), values_of(model), [x])
            step_on(optimizer, [x], compiled)
            for row in measured_rows(probe):
                name = row["name"].removeprefix("_orig_mod.")
                assert row["grad_norm"] == pytest.approx(wanted[name]["grad_norm"])
                if row.get("delta_rms") is None:
                    assert row["name"] in reasons(probe)
                else:
                    assert row["delta_rms"] == pytest.approx(wanted[name]["delta_rms"])


def test_calls_of_submodules_instead_of_the_model_are_measured() -> None:
    model = three_layers()

    def forward(x: Tensor) -> Tensor:
        for module in model:
            x = module(x)
        return x

    check(model, three_roads(), 7, 4, forward=forward, accumulate=2)


def test_a_model_compiled_within_the_with_has_right_numbers_or_is_listed_as_unseen() -> None:
    model = three_layers()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
    with Probe(model, optimizer, every=1, activations_every=2) as probe:
        compiled = torch.compile(model, backend="eager")
        for step in range(4):
            x = data(7, 4, seed=step)
            wanted = expected(three_roads(), values_of(model), [x])
            try:
                step_on(optimizer, [x], compiled)
            except torch._dynamo.exc.TorchDynamoException as error:
                pytest.skip(f"torch.compile does not work here: {error}")
            rows = measured_rows(probe)
            for row in rows:
                # Whether dynamo traces the hooks depends on what it compiled before.
                if row["preact_mean"] is None:
                    assert step % 2 == 1 or row["name"] in reasons(probe)
                    wanted[row["name"]] |= dict.fromkeys(("preact_mean", "preact_std", "delta_rms"))
            assert_rows_are(rows, wanted)


def test_where_only_biases_are_trained_the_deltas_are_measured_all_the_same() -> None:
    model = three_layers()
    for parameter in model.parameters():
        parameter.requires_grad = parameter.ndim == 1
    optimizer = torch.optim.SGD((p for p in model.parameters() if p.requires_grad), lr=0.02)
    with Probe(model, optimizer, every=1, activations_every=1) as probe:
        for step in range(3):
            x = data(7, 4, seed=step)
            wanted = expected(three_roads(), values_of(model), [x])
            optimizer.zero_grad()
            loss_of(model(x)).backward()
            optimizer.step()
            deltas = {row["name"]: row["delta_rms"] for row in measured_rows(probe)}
            assert deltas == pytest.approx({k: row["delta_rms"] for k, row in wanted.items()})
    assert probe.unseen == []


def rows_under_a_scaler(fused: bool) -> list[dict[str, Any]]:
    """Of one step with losses scaled by 1024."""
    model = drawn(three_layers(), torch.float32)
    optimizer = torch.optim.Adam(model.parameters(), fused=fused)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    with Probe(model, optimizer) as probe:
        scaler.scale(loss_of(model(data(7, 4, dtype=torch.float32)))).backward()
        scaler.step(optimizer)
        scaler.update()
    return measured_rows(probe)


@pytest.mark.parametrize("column", [c.name for c in LAYERS if c.role == "value"])
def test_no_column_is_of_another_size_under_a_fused_optimizer_with_a_scaler(column: str) -> None:
    plain, fused = ([row[column] for row in rows_under_a_scaler(f)] for f in (False, True))
    assert [cell is None for cell in fused] == [cell is None for cell in plain]
    pairs = [(one, other) for one, other in zip(fused, plain, strict=True) if other is not None]
    assert [one for one, _ in pairs] == pytest.approx([other for _, other in pairs], rel=1e-5)


def test_a_new_column_is_computed_and_unscaled_by_its_declaration_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, of in (("grad_sum", "gradient"), ("weight_sum", "weight")):
        measure = Measure(of, lambda x_RN: x_RN.abs().sum(1))
        monkeypatch.setitem(DECLARED, name, measure)
    with pytest.raises(KeyError, match="weight_sum"):
        rows_under_a_scaler(fused=True)
    for like, name in (("grad_max", "grad_sum"), ("weight_norm", "weight_sum")):
        new = column_of("layers", like).like(name, "sum of magnitudes")
        monkeypatch.setattr(block, "LAYERS", (*block.LAYERS, new))
        monkeypatch.setitem(block._SCALES_WITH, new.name, new.scales_with)
    plain, fused = (rows_under_a_scaler(f) for f in (False, True))
    for name in ("grad_sum", "weight_sum"):
        assert [row[name] for row in fused] == pytest.approx([row[name] for row in plain], rel=1e-5)


def test_a_declared_measure_is_that_of_each_weight_stacked_or_alone() -> None:
    model = drawn(nn.Sequential(nn.Linear(5, 5), nn.Linear(5, 5), nn.Linear(5, 3)))
    loss_of(model(data(7, 5))).backward()
    linear = [module for module in model if isinstance(module, nn.Linear)]
    plan = plan_of_module(model, None)
    square = {
        "weight_squares": Measure("weight", lambda x_RN: x_RN.square().sum(1)),
        "grad_squares": Measure("gradient", lambda x_RN: x_RN.square().sum(1)),
    }
    meter = WeightMeter(plan.rows, measures=square)
    with torch.no_grad():
        meter.copy_weights()
        meter.take_gradients()
    cells = meter.collect()
    for name, values in (
        ("weight_squares", [float(m.weight.detach().square().sum()) for m in linear]),
        ("grad_squares", [float(m.weight.grad.square().sum()) for m in linear]),
    ):
        assert cells[name].rows == (0, 1, 2)
        assert torch.cat(cells[name].values).tolist() == pytest.approx(values, rel=1e-12)


def test_norms_over_several_axes_have_no_rows_and_take_no_numbers() -> None:
    model = nn.Sequential(nn.Conv1d(2, 3, 2), nn.LayerNorm((3, 4)), nn.Flatten(), nn.Linear(12, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Probe(model, optimizer) as probe:
        step_on(optimizer, [torch.randn(7, 2, 5)], model)
    rows = measured_rows(probe)
    assert [(row["name"], row["layer"], row["kind"]) for row in rows] == [
        ("0.weight", 1, "conv"),
        ("3.weight", 2, "readout"),
    ]
    assert rows[0]["backward_gain"] is not None


def test_a_scripted_module_takes_no_hook_and_is_listed() -> None:
    class WithScript(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(4, 5)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self.second = torch.jit.script(nn.Linear(5, 3))

        def forward(self, x: Tensor) -> Tensor:
            return self.second(self.first(x))

    model = WithScript()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Probe(model, optimizer) as probe:
        step_on(optimizer, [torch.randn(7, 4)], model)
    assert any("second" in reason or "no hook" in reason for reason in probe.unseen)
    assert measured_rows(probe)[0]["preact_std"] is not None
