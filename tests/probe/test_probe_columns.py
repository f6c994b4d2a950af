"""Every column of `layers.csv` on the perceptron, against `reference` (float64, by definition).

Holds: probe/block.py, probe/moments.py, probe/weights.py, quantities/layers.py
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import reference
import torch
import torch.nn.functional as F
from reference import Batches, expected_rows, measured_rows, snapshot, vectors
from torch import Tensor, nn

from vgexp import quantities
from vgexp.activations import ACTIVATIONS
from vgexp.assembly import assemble
from vgexp.config import (
    Config,
    GaussianConfig,
    MlpConfig,
    NormClipConfig,
    ProbeConfig,
    TrainConfig,
)
from vgexp.models import Mlp, build
from vgexp.norms import NORMS
from vgexp.probe import Probe
from vgexp.skips import SKIPS

INPUTS, OUTPUTS, WIDTH, BATCH, GROUPS = 7, 3, 6, 5, 3
POSITIONS = ("pre", "post")
USABLE_NORMS = [name for name in NORMS if name not in reference.REFUSED_NORMS]
SHAPES = [
    (skip, norm, position)
    for skip, norm, position in itertools.product(SKIPS, USABLE_NORMS, POSITIONS)
    if norm != "none" or position == "pre"
]
MEETINGS = [
    (*shape, activation)
    for (row, shape), (column, activation) in itertools.product(
        enumerate(SHAPES), enumerate(ACTIVATIONS)
    )
    if (row + column) % 4 == 0
]
"""A quarter of all networks, in which every activation meets every skip, norm and position."""
FAR_BELOW = {"relu": -9.0, "hardtanh": -9.0, "sigmoid": -5.0}
"""Activation -> the bias of the first unit."""
Rows = list[dict[str, Any]]


def drawn(dtype: torch.dtype = torch.float64, **values: Any) -> tuple[MlpConfig, Mlp]:
    """A small perceptron with every parameter off its start and one unit far below 0."""
    given = {"depth": 3, "width": WIDTH, "norm_groups": GROUPS, "negative_slope": 0.3, **values}
    if given["activation"] not in ("leaky_relu", "prelu"):
        given["negative_slope"] = None
    config = MlpConfig(**given)
    model = build(config, vectors(INPUTS, OUTPUTS), dtype)
    generator = torch.Generator().manual_seed(11)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            drawn64 = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.copy_(0.1 + 0.4 * drawn64)
            if name.startswith("layers") and name.endswith(("linear.bias", "norm.bias")):
                # Where phi' has exact zeros, there; else where it is small.
                parameter[0] = FAR_BELOW.get(given["activation"], -2.5)
    return config, model


def batches(num: int, seed: int, dtype: torch.dtype = torch.float64) -> Batches:
    """Micro-batches whose first feature is 0 throughout."""
    generator = torch.Generator().manual_seed(seed)
    made = []
    for _ in range(num):
        x = torch.randn(BATCH, INPUTS, generator=generator, dtype=torch.float64)
        x[:, 0] = 0
        made.append((x.to(dtype), torch.randint(OUTPUTS, (BATCH,), generator=generator)))
    return made


def trained(
    config: MlpConfig,
    model: Mlp,
    updates: list[Batches],
    *,
    lr: float = 0.05,
    max_norm: float | None = None,
) -> tuple[list[Rows], list[Rows]]:
    """Trains on `updates`; what the probe says and what the reference says of each."""
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    measured, expected = [], []
    with Probe(model, optimizer, every=1, activations_every=1, watches=model.watches()) as probe:
        for update in updates:
            before = snapshot(model)
            optimizer.zero_grad()
            for x, y in update:
                (F.cross_entropy(model(x), y) / len(update)).backward()
            grads = {name: p.grad.clone() for name, p in model.named_parameters()}
            if max_norm is not None:
                probe.before_clip()
                nn.utils.clip_grad_norm_(model.parameters(), max_norm)
            optimizer.step()
            measured.append(measured_rows(probe))
            after = snapshot(model)
            expected.append(expected_rows(config, before, after, update, torch_grads=grads))
    return measured, expected


def all_differences(
    measured: list[Rows], expected: list[Rows], rtol: float, atol: float = 0.0
) -> list[str]:
    wrong = []
    for step, (rows, wanted_rows) in enumerate(zip(measured, expected, strict=True)):
        assert [row["name"] for row in rows] == [row["name"] for row in wanted_rows]
        for row, wanted in zip(rows, wanted_rows, strict=True):
            wrong += reference.differences(row, {"step": step, **wanted}, rtol, atol)
    return wrong


# ---------------------------------------------------------------- the reference is complete


def test_every_registry_entry_and_every_column_has_a_reference() -> None:
    assert set(reference.PHI) == set(ACTIVATIONS)
    assert set(reference.NORMALISED) | reference.REFUSED_NORMS == set(NORMS)
    config, model = drawn(activation="tanh")
    update = batches(1, 0)
    row = expected_rows(config, snapshot(model), snapshot(model), update)[0]
    assert ["step", *row] == [column.name for column in quantities.LAYERS]


def test_the_drawn_networks_have_dead_and_saturated_units_and_zero_gradients() -> None:
    config, model = drawn(activation="relu")
    relu = expected_rows(config, snapshot(model), snapshot(model), batches(3, 0))
    config, model = drawn(activation="sigmoid")
    sigmoid = expected_rows(config, snapshot(model), snapshot(model), batches(3, 0))
    assert all(1 / WIDTH <= row["dead_fraction"] < 1 for row in relu[:-1])
    assert all(0 < row["saturated_fraction"] < 1 for row in sigmoid[:-1])
    assert sigmoid[0]["grad_zero_fraction"] == pytest.approx(1 / INPUTS)


def test_every_activation_meets_every_skip_norm_and_position() -> None:
    assert {(skip, act) for skip, _, _, act in MEETINGS} == set(
        itertools.product(SKIPS, ACTIVATIONS)
    )
    normed = {(norm, position) for _, norm, position in SHAPES}
    met = {((norm, position), act) for _, norm, position, act in MEETINGS}
    assert met == set(itertools.product(normed, ACTIVATIONS))
    assert {(skip, norm, position) for skip, norm, position, _ in MEETINGS} == set(SHAPES)


# ---------------------------------------------------------------- every column, every network


@pytest.mark.parametrize(("skip", "norm", "position", "activation"), MEETINGS)
def test_every_column_follows_its_definition_at_the_first_and_at_a_later_step(
    skip: str, norm: str, position: str, activation: str
) -> None:
    config, model = drawn(activation=activation, skip=skip, norm=norm, norm_position=position)
    updates = [batches(1, 1), batches(3, 2)]
    measured, expected = trained(config, model, updates)
    assert all_differences(measured, expected, rtol=1e-8, atol=1e-13) == []


@pytest.mark.parametrize(("skip", "norm", "position"), SHAPES)
def test_accumulation_at_the_first_step_and_single_batches_later_count_their_own_examples(
    skip: str, norm: str, position: str
) -> None:
    config, model = drawn(activation="tanh", skip=skip, norm=norm, norm_position=position)
    updates = [batches(3, 1), batches(1, 2), batches(2, 3)]
    measured, expected = trained(config, model, updates)
    assert all_differences(measured, expected, rtol=1e-8, atol=1e-13) == []


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_in_float32_every_column_is_within_rounding_of_float64(activation: str) -> None:
    config, model = drawn(torch.float32, activation=activation, skip="residual", norm="layer")
    updates = [batches(1, 1, torch.float32), batches(3, 2, torch.float32)]
    measured, expected = trained(config, model, updates, lr=0.5)
    # update_ratio subtracts weights near 0.5 that moved by 1e-3: 1e-7 / 1e-3 of it is rounding.
    assert all_differences(measured, expected, rtol=5e-4, atol=1e-6) == []


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_the_copying_first_step_and_the_later_steps_measure_the_same(activation: str) -> None:
    _, model = drawn(activation=activation, skip="highway", norm="batch", norm_position="post")
    (update,) = [batches(2, 1)]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    with Probe(model, optimizer, every=1, activations_every=1, watches=model.watches()) as probe:
        for _ in range(3):
            optimizer.zero_grad()
            for x, y in update:
                (F.cross_entropy(model(x), y) / 2).backward()
            optimizer.step()
        rows = measured_rows(probe)
    by_step = [[{**r, "step": 0} for r in rows if r["step"] == step] for step in range(3)]
    assert by_step[0] == by_step[1] == by_step[2]


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("skip", SKIPS)
def test_the_shallowest_networks_have_right_rows_too(skip: str, depth: int) -> None:
    config, model = drawn(activation="tanh", skip=skip, depth=depth)
    measured, expected = trained(config, model, [batches(1, 1), batches(2, 2)])
    assert all_differences(measured, expected, rtol=1e-8, atol=1e-13) == []


def test_a_batch_of_one_example_has_right_rows() -> None:
    config, model = drawn(activation="tanh", skip="highway")
    (x, y), *_ = batches(1, 4)
    update = [(x[:1], y[:1])]
    measured, expected = trained(config, model, [update, update])
    assert all_differences(measured, expected, rtol=1e-8, atol=1e-13) == []


# ---------------------------------------------------------------- single definitions


@pytest.mark.parametrize("activation", ["sigmoid", "tanh"])
def test_a_unit_is_dead_where_the_slope_rounds_to_zero_as_in_torchs_backward(
    activation: str,
) -> None:
    _, model = drawn(torch.float32, activation=activation)
    with torch.no_grad():
        model.layers[1].linear.bias[:2] = 200.0
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    ((x, y),) = batches(1, 1, torch.float32)
    with Probe(model, optimizer, watches=model.watches()) as probe:
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
    row = measured_rows(probe)[1]
    assert row["dead_fraction"] == pytest.approx(2 / WIDTH)
    assert not model.layers[1].linear.weight.grad[:2].any()


def test_at_the_start_of_rezero_branches_get_no_gradient_and_every_delta_is_the_last() -> None:
    config, model = drawn(activation="tanh", skip="rezero")
    with torch.no_grad():
        for layer in list(model.layers)[1:]:
            layer.skip.alpha.zero_()
    measured, expected = trained(config, model, [batches(1, 1)])
    assert all_differences(measured, expected, rtol=1e-8, atol=1e-13) == []
    inner = [row for row in measured[0] if row["layer"] in (2, 3)]
    for row in inner:
        assert (row["grad_norm"], row["grad_zero_fraction"], row["update_ratio"]) == (0, 1, 0)
    assert measured[0][0]["backward_gain"] == pytest.approx(1, abs=0.7)
    assert measured[0][1]["backward_gain"] != 0


def test_norms_before_and_after_clipping_are_both_written() -> None:
    config, model = drawn(activation="relu")
    measured, expected = trained(
        config, model, [batches(1, 1), batches(3, 2)], max_norm=1e-2, lr=1.0
    )
    for rows, wanted in zip(measured, expected, strict=True):
        factor = rows[0]["grad_norm_clipped"] / rows[0]["grad_norm"]
        assert factor < 0.1
        for row, reference_row in zip(rows, wanted, strict=True):
            reference_row["grad_norm_clipped"] = reference_row["grad_norm"] * factor
            # SGD with lr 1: the weights move by the clipped gradient.
            moved = row["update_ratio"] * row["weight_norm"]
            assert moved == pytest.approx(row["grad_norm_clipped"], rel=1e-8)
    assert all_differences(measured, expected, rtol=1e-8, atol=1e-13) == []


def test_without_before_clip_the_gradient_is_what_the_optimizer_gets() -> None:
    _, model = drawn(activation="relu")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    ((x, y),) = batches(1, 1)
    with Probe(model, optimizer, watches=model.watches()) as probe:
        F.cross_entropy(model(x), y).backward()
        nn.utils.clip_grad_value_(model.parameters(), 1e-3)
        grads = [w.weight.grad.clone() for w in model.watches()]
        optimizer.step()
    for row, grad in zip(measured_rows(probe), grads, strict=True):
        assert row["grad_norm"] == row["grad_norm_clipped"]
        assert row["grad_norm"] == pytest.approx(float(grad.norm()))
        assert row["grad_max"] == pytest.approx(1e-3)


def test_backward_gain_is_to_the_next_main_path_layer_and_empty_at_the_read_out() -> None:
    _, model = drawn(activation="tanh", skip="highway", depth=4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    ((x, y),) = batches(1, 1)
    with Probe(model, optimizer, watches=model.watches()) as probe:
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
    rows = measured_rows(probe)
    main = {row["layer"]: row["delta_rms"] for row in rows if "gate" not in row["name"]}
    gates = [row for row in rows if "gate" in row["name"]]
    assert [row["layer"] for row in gates] == [2, 3, 4]
    for row in rows[:-1]:
        assert row["backward_gain"] == pytest.approx(row["delta_rms"] / main[row["layer"] + 1])
    last = rows[-1]
    assert last["kind"] == "readout"
    assert last["layer"] == 5
    empty = (*reference.ACT_COLUMNS, "backward_gain")
    assert [last[column] for column in empty] == [None] * len(empty)


def test_backward_gain_is_empty_where_the_next_delta_is_zero() -> None:
    _, model = drawn(activation="relu")
    with torch.no_grad():
        model.layers[2].linear.bias.fill_(-1000)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    ((x, y),) = batches(1, 1)
    with Probe(model, optimizer, watches=model.watches()) as probe:
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
    rows = measured_rows(probe)
    assert [row["delta_rms"] for row in rows[:3]] == [0, 0, 0]
    assert [row["backward_gain"] for row in rows[:2]] == [None, None]
    assert rows[2]["backward_gain"] == 0
    assert rows[2]["dead_fraction"] == 1


def test_update_ratio_of_a_zero_weight_is_empty() -> None:
    _, model = drawn(activation="tanh")
    with torch.no_grad():
        model.readout.weight.zero_()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    ((x, y),) = batches(1, 1)
    with Probe(model, optimizer, watches=model.watches()) as probe:
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
    last = measured_rows(probe)[-1]
    assert last["weight_norm"] == 0
    assert last["update_ratio"] is None
    assert last["grad_norm"] > 0


def test_delta_rms_does_not_depend_on_how_the_examples_are_split_into_micro_batches() -> None:
    config, whole = drawn(activation="gelu", skip="residual", norm="layer")
    _, split = drawn(activation="gelu", skip="residual", norm="layer")
    parts = batches(3, 1)
    joined = [(torch.cat([x for x, _ in parts]), torch.cat([y for _, y in parts]))]
    (rows,), _ = trained(config, whole, [joined])
    (split_rows,), _ = trained(config, split, [parts])
    for row, split_row in zip(rows, split_rows, strict=True):
        assert reference.differences(split_row, row, rtol=1e-10, atol=1e-14) == []


def test_micro_batches_of_unequal_size_count_by_their_examples() -> None:
    config, model = drawn(activation="tanh", skip="residual")
    (x, y), (x2, y2) = batches(2, 1)
    update = [(x, y), (x2[:2], y2[:2])]
    num_examples = len(y) + 2
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    before = snapshot(model)
    with Probe(model, optimizer, watches=model.watches()) as probe:
        for inputs, classes in update:
            (F.cross_entropy(model(inputs), classes, reduction="sum") / num_examples).backward()
        optimizer.step()
    grads = {name: p.grad for name, p in model.named_parameters()}
    expected = expected_rows(config, before, snapshot(model), update, torch_grads=grads)
    assert all_differences([measured_rows(probe)], [expected], rtol=1e-8, atol=1e-13) == []


# ---------------------------------------------------------------- through the trainer


@pytest.mark.parametrize("accumulate", [1, 3])
def test_the_trainer_with_clipping_and_accumulation_writes_the_same_numbers(
    accumulate: int,
) -> None:
    config = Config(
        model=MlpConfig(depth=3, width=6, activation="tanh", skip="highway", init="xavier_normal"),
        data=GaussianConfig(batch_size=5, num_examples=60, features=7, num_classes=3),
        clip=NormClipConfig(threshold=0.05),
        train=TrainConfig(steps=3, accumulate=accumulate, eval_every=1),
        probe=ProbeConfig(every=1, activations_every=1),
        dtype="float64",
        device="cpu",
    )
    trainer = assemble(config)
    state = trainer.state
    weights = [snapshot(state.model)]
    handle = state.optimizer.register_step_post_hook(
        lambda *_: weights.append(snapshot(state.model))
    )
    taken: list[tuple[Tensor, Tensor]] = []
    draw = state.batches.next

    def noted() -> tuple[Tensor, Tensor]:
        taken.append(draw())
        return taken[-1]

    state.batches.next = noted  # type: ignore[method-assign]
    tables = [*trainer.rows(), *trainer.flush()]
    handle.remove()
    layers = [rows.columns for rows in tables if rows.table == "layers"]
    assert len(layers) == 3
    for step, columns in enumerate(layers):
        update = taken[step * accumulate : (step + 1) * accumulate]
        rows = expected_rows(
            config.model, weights[step], weights[step + 1], update, lambda g: shrunk(g, 0.05)
        )
        for i, wanted in enumerate(rows):
            row = {name: values[i] for name, values in columns.items()}
            wanted = {"step": step, **wanted}
            assert reference.differences(row, wanted, rtol=1e-7, atol=1e-13) == []


def shrunk(grads: dict[str, Tensor], threshold: float) -> dict[str, Tensor]:
    total = math.hypot(*(float(g.norm()) for g in grads.values()))
    return {name: g * min(1.0, threshold / total) for name, g in grads.items()}


# ---------------------------------------------------------------- scales


def deep_linear(gain: float, dtype: torch.dtype, depth: int = 41) -> tuple[MlpConfig, Mlp]:
    """A deep linear net, weights near `gain` times a permutation, so that no cancellation
    hides what the measurement loses."""
    config = MlpConfig(depth=depth, width=WIDTH, activation="linear", bias=False)
    model = build(config, vectors(INPUTS, OUTPUTS), dtype)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for watch in model.watches():
            drawn64 = torch.randn(watch.weight.shape, generator=generator, dtype=torch.float64)
            rows, columns = watch.weight.shape
            diagonal = torch.eye(rows, columns, dtype=torch.float64)
            watch.weight.copy_(gain * (diagonal + 0.01 * drawn64))
    return config, model


@pytest.mark.parametrize("gain", [0.1, 10.0, 1.0])
def test_deltas_of_any_scale_that_float32_holds_equal_those_in_float64(gain: float) -> None:
    config, model = deep_linear(gain, torch.float32)
    x, y = batches(1, 1, torch.float32)[0]
    if gain > 1:
        x = x * 1e-40**0.5  # Forward stays finite, backward reaches 1e40 / N otherwise.
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    before = snapshot(model)
    factor = 1e-5 if gain > 1 else 1.0
    with Probe(model, optimizer, watches=model.watches()) as probe:
        (factor * F.cross_entropy(model(x), y)).backward()
        optimizer.step()
    expected = expected_rows(config, before, before, [(x, y)])
    rows = measured_rows(probe)
    reached = [row["delta_rms"] for row in expected]
    extreme = max if gain > 1 else min
    if gain != 1:
        assert abs(math.log10(extreme(reached) * factor)) > 30
    for row, wanted in zip(rows, expected, strict=True):
        delta = wanted["delta_rms"] * factor
        # Below 1e-38 float32 keeps multiples of 1.4e-45 only; N = 5 of them a unit.
        assert reference.close(row["delta_rms"], delta, 2e-4, 5 * 1.5e-45), row["name"]
        assert type(row["delta_rms"]) is np.float32


@pytest.mark.parametrize("scale", [1e-42, 1e-36, 1e-25, 1e20, 1e30, 1e36])
def test_gradient_norms_of_any_scale_are_those_of_the_scaled_loss(scale: float) -> None:
    config, model = drawn(torch.float32, activation="tanh", skip="highway")
    x, y = batches(1, 1, torch.float32)[0]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    before = snapshot(model)
    with Probe(model, optimizer, watches=model.watches()) as probe:
        (scale * F.cross_entropy(model(x), y)).backward()
        optimizer.step()
    expected = expected_rows(config, before, before, [(x, y)])
    for row, wanted in zip(measured_rows(probe), expected, strict=True):
        for column in ("grad_norm", "grad_max", "grad_norm_clipped", "delta_rms"):
            assert reference.close(row[column], wanted[column] * scale, 2e-4, 40 * 1.5e-45), column


@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("scale", [1e-200, 1e200])
def test_moments_and_deltas_of_several_parts_keep_the_range_of_float64(
    scale: float, accumulate: int
) -> None:
    config, model = deep_linear(1.0, torch.float64, depth=2)
    update = [(x * scale, y) for x, y in batches(accumulate, 1)]
    with torch.no_grad():
        model.readout.weight.mul_(1 / scale)
    measured, expected = trained(config, model, [update, update], lr=0.0)
    assert all_differences(measured, expected, rtol=1e-10) == []


# ---------------------------------------------------------------- laws


def slope_of_log_delta(model: Mlp, x: Tensor, y: Tensor) -> float:
    """Least-squares slope of ln delta_rms per layer towards the input, over layers 1..L."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    with Probe(model, optimizer, watches=model.watches()) as probe:
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
    rows = [row for row in measured_rows(probe) if row["kind"] != "readout"]
    logs = np.log([float(row["delta_rms"]) for row in rows])
    return -float(np.polyfit([row["layer"] for row in rows], logs, 1)[0])


@pytest.mark.parametrize("gain", [0.5, 0.9, 1.0, 1.7])
def test_law_orthogonal_linear_nets_multiply_the_delta_by_their_gain_at_every_layer(
    gain: float,
) -> None:
    config = MlpConfig(depth=30, width=16, activation="linear")
    model = build(config, vectors(INPUTS, OUTPUTS), torch.float64)
    generator = torch.Generator().manual_seed(0)
    for watch in model.watches():
        nn.init.orthogonal_(watch.weight, gain, generator=generator)
    x, y = batches(1, 1)[0]
    assert slope_of_log_delta(model, x, y) == pytest.approx(math.log(gain), abs=1e-12)


def test_law_wide_relu_nets_drawn_after_he_keep_the_delta() -> None:
    depth, width = 20, 400
    config = MlpConfig(depth=depth, width=width, activation="relu")
    model = build(config, vectors(INPUTS, OUTPUTS), torch.float32)
    generator = torch.Generator().manual_seed(0)
    for watch in model.watches():
        nn.init.kaiming_normal_(watch.weight, generator=generator)
    x = torch.randn(64, INPUTS, generator=generator)
    y = torch.randint(OUTPUTS, (64,), generator=generator)
    # One layer's mean-square factor has variance 5/width (2/width of chi-square, 3/width of the
    # mask), so ln rms walks with steps of sqrt(5/width)/2 = 0.056; the slope of a line through a
    # walk of L steps has standard deviation 0.056 sqrt(6/(5 L)) = 0.014. Four of these.
    step = math.sqrt(5 / width) / 2
    assert abs(slope_of_log_delta(model, x, y)) < 4 * step * math.sqrt(6 / (5 * depth))
