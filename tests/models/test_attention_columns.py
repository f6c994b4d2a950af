"""`layers.csv` of the families of attention, against autograd through plain operations in float64,
at unequal sizes and in several micro-batches.

Holds: models/attention/blocks.py, models/attention/stack.py
"""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import reference
import torch
import torch.nn.functional as F
from reference import Site, flat, measured_rows, rms, slope_at
from reference_attention import Equations
from small_transformers import (
    IMAGES,
    LABELLED,
    LENGTH,
    NUM_TOKENS,
    ONE_ANSWER,
    SAME,
    STEPS,
    TOKENS,
    drawn,
    inputs,
)
from torch import Tensor

from vgexp.config import TransformerConfig, VitConfig
from vgexp.models import Network
from vgexp.probe import Probe
from vgexp.tasks import Task

CASES: list[tuple[type[Any], dict[str, Any], Task]] = [
    (TransformerConfig, {}, TOKENS),
    (TransformerConfig, {"norm_position": "post"}, TOKENS),
    (TransformerConfig, {"positions": "rotary", "norm": "rms", "activation": "relu"}, ONE_ANSWER),
    (TransformerConfig, {"positions": "sinusoidal", "skip": "scaled_residual"}, LABELLED),
    (TransformerConfig, {"positions": "none", "skip": "none", "norm": "none"}, STEPS),
    (TransformerConfig, {"tied": True, "skip": "rezero", "activation": "gelu"}, SAME),
    (VitConfig, {"patch": 2}, IMAGES),
    (VitConfig, {"patch": 2, "pool": "mean", "norm_position": "post", "bias": False}, IMAGES),
]
Batch = list[tuple[Tensor, Tensor]]


def batches(task: Task, num: int, seed: int) -> Batch:
    """Micro-batches of one size."""
    made = torch.Generator().manual_seed(seed)
    size = (4, LENGTH) if task.per_position else (4,)
    return [
        (inputs(task, seed + i), torch.randint(task.num_outputs, size, generator=made))
        for i in range(num)
    ]


def mean_loss(outputs: Tensor, classes: Tensor) -> Tensor:
    """Mean over all targets of -ln softmax(out)[class]."""
    logits, picked = outputs.flatten(0, -2), classes.flatten()
    chosen = logits[torch.arange(len(picked)), picked]
    return (torch.logsumexp(logits, 1) - chosen).sum() / len(picked)


def expected(
    config: Any, task: Task, before: dict[str, Tensor], batch: Batch
) -> list[dict[str, Any]]:
    """The rows of an update, columns of weights and gradients and of z, h and dL/dz."""
    p = {name: value.clone().requires_grad_() for name, value in before.items()}
    seen = [Equations(config, task, p)(x) for x, _ in batch]
    losses = [mean_loss(one.output, y) for one, (_, y) in zip(seen, batch, strict=True)]
    loss = torch.stack(losses).sum() / len(batch)
    zs = [site.z for one in seen for site in one.sites]
    deltas = torch.autograd.grad(loss, zs, retain_graph=True)
    delta_of = dict(zip(map(id, zs), deltas, strict=True))
    gradients = dict(zip(p, torch.autograd.grad(loss, list(p.values())), strict=True))
    num_examples = sum(len(x) for x, _ in batch)
    rows: list[dict[str, Any]] = []
    for sites in zip(*(one.sites for one in seen), strict=True):
        site = sites[0]
        row: dict[str, Any] = {"layer": site.layer, "name": site.name, "kind": site.kind}
        row |= weight_numbers(before.get(site.name), gradients.get(site.name))
        row |= activation_numbers(sites)
        row["delta_rms"] = num_examples * rms(flat([delta_of[id(s.z)] for s in sites]))
        rows.append(row)
    return with_gains(rows)


def weight_numbers(weight: Tensor | None, gradient: Tensor | None) -> dict[str, float | None]:
    if weight is None or gradient is None:
        return dict.fromkeys(("weight_norm", "grad_norm", "grad_max", "grad_norm_clipped"))
    norm = float(gradient.square().sum().sqrt())
    return {
        "weight_norm": float(weight.square().sum().sqrt()),
        "grad_norm": norm,
        "grad_max": float(gradient.abs().max()),
        "grad_norm_clipped": norm,
    }


def activation_numbers(sites: tuple[Site, ...]) -> dict[str, float | None]:
    z = flat([site.z for site in sites])
    row: dict[str, float | None] = {"preact_mean": float(z.mean()), "preact_std": float(z.std())}
    row |= dict.fromkeys(reference.ACT_COLUMNS)
    phi = sites[0].phi
    if phi is not None:
        h = flat([site.h for site in sites if site.h is not None])
        slopes = torch.cat([torch.tensor(slope_at(phi, site.u, 0.01)) for site in sites])
        peak = reference.largest_slope(phi)
        row |= reference.act_numbers(h)
        row["dead_fraction"] = float((slopes == 0).all(0).all(0).double().mean())
        if peak is not None:
            row["saturated_fraction"] = float((slopes < 0.05 * peak).double().mean())
    return row


def with_gains(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """`backward_gain` from the first row of each layer."""
    main: dict[int, float] = {}
    for row in rows:
        main.setdefault(row["layer"], row["delta_rms"])
    for row in rows:
        after = main.get(row["layer"] + 1)
        row["backward_gain"] = None if after is None else row["delta_rms"] / after
    return rows


def measured(model: Network, batch: Batch, **options: Any) -> list[dict[str, Any]]:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    with Probe(model, optimizer, watches=model.watches(), **options) as probe:
        for x, y in batch:
            outputs = model(x)
            (F.cross_entropy(outputs.flatten(0, -2), y.flatten()) / len(batch)).backward()
        optimizer.step()
        rows = measured_rows(probe)
        assert probe.unseen == []
    return rows


def push_down(config: Any, model: Network) -> None:
    """The first hidden unit of each block's perceptron is below 0: dead where phi' is 0 there."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("mlp.hidden.bias"):
                parameter[0] = -60.0 if config.activation == "relu" else -2.5


@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize(("cls", "values", "task"), CASES)
def test_every_row_is_what_autograd_says(
    cls: type[Any], values: dict[str, Any], task: Task, accumulate: int
) -> None:
    config, model = drawn(cls, values, task)
    push_down(config, model)
    before = reference.snapshot(model)
    batch = batches(task, accumulate, 20)
    wanted_rows = expected(config, task, before, batch)
    rows = measured(model, batch)
    assert [row["name"] for row in rows] == [row["name"] for row in wanted_rows]
    wrong = []
    for row, wanted in zip(rows, wanted_rows, strict=True):
        wrong += reference.differences(row, wanted, 1e-8, 1e-12)
    assert wrong == []


def test_the_rows_stand_in_forward_order_with_the_blocks_number() -> None:
    _, model = drawn(TransformerConfig, {"depth": 2}, TOKENS)
    watches = [(watch.layer, watch.name, watch.kind) for watch in model.watches()]
    block = [
        ("", "stream"),
        (".attention.query.weight", "attention"),
        (".attention.key.weight", "attention"),
        (".attention.value.weight", "attention"),
        (".attention.output.weight", "attention"),
        (".mlp.hidden.weight", "linear"),
        (".mlp.output.weight", "linear"),
    ]
    assert watches == [
        (1, "embedding.read.weight", "linear"),
        *[(2, f"blocks.0{name}", kind) for name, kind in block],
        *[(3, f"blocks.1{name}", kind) for name, kind in block],
        (4, "readout.weight", "readout"),
    ]
    _, vit = drawn(VitConfig, {"patch": 2}, IMAGES)
    assert vit.watches()[0].kind == "conv"


def test_the_dead_unit_is_found() -> None:
    config, model = drawn(TransformerConfig, {"activation": "relu"}, TOKENS)
    push_down(config, model)
    rows = measured(model, batches(TOKENS, 2, 3))
    dead = [row["dead_fraction"] for row in rows if row["name"].endswith("mlp.hidden.weight")]
    assert all(share >= 1 / 24 for share in dead)


def test_backward_gain_and_attenuation_follow_the_stream() -> None:
    _, model = drawn(TransformerConfig, {"depth": 3}, TOKENS)
    rows = measured(model, batches(TOKENS, 1, 3))
    streams = [row for row in rows if row["kind"] == "stream"]
    path = [rows[0]["delta_rms"], *(row["delta_rms"] for row in streams), rows[-1]["delta_rms"]]
    gains = [rows[0]["backward_gain"], *(row["backward_gain"] for row in streams)]
    assert gains == pytest.approx([a / b for a, b in itertools.pairwise(path)])


def test_a_tied_read_out_has_the_columns_of_z_and_its_weight_one_row_with_both_gradients() -> None:
    _, model = drawn(TransformerConfig, {"tied": True}, SAME)
    rows = measured(model, batches(SAME, 1, 3))
    weights = ("weight_norm", "grad_norm", "grad_max", "grad_norm_clipped", "update_ratio")
    assert rows[-1]["name"] == "readout.weight"
    assert all(rows[-1][column] is None for column in weights)
    assert rows[-1]["delta_rms"] > 0
    weight = model.embedding.read.weight
    assert weight.shape == (NUM_TOKENS, 12)
    assert rows[0]["grad_norm"] == pytest.approx(float(weight.grad.norm()))


def test_the_rows_of_some_weights_are_those_of_all() -> None:
    _, model = drawn(TransformerConfig, {}, TOKENS)
    _, twin = drawn(TransformerConfig, {}, TOKENS)
    batch = batches(TOKENS, 1, 3)
    every = {row["name"]: row for row in measured(model, batch)}
    some = measured(twin, batch, layers=r"blocks\.0$|mlp\.hidden")
    assert [row["name"] for row in some] == [
        "blocks.0",
        "blocks.0.mlp.hidden.weight",
        "blocks.1.mlp.hidden.weight",
    ]
    assert all(row == every[row["name"]] for row in some)
