"""bfloat16 and float16 against loops by hand under the same autocast, and against float32.

Axes: B examples, W units.

Holds: training/half.py, training/step.py
"""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from columns import ACTIVATION_COLUMNS, WEIGHT_COLUMNS
from deferred_runs import trained
from small_runs import require_same_bytes_after_a_cut
from torch import Tensor, nn
from trainers import Table, assert_same, changed, collected, tables_of

import vgexp
from vgexp.assembly import assemble
from vgexp.config import (
    AdamConfig,
    AgcClipConfig,
    AutoClipConfig,
    Config,
    GaussianConfig,
    MlpConfig,
    MomentumConfig,
    NormClipConfig,
    OptimizerConfig,
    OutputConfig,
    ProbeConfig,
    RmspropConfig,
    RunConfig,
    SgdConfig,
    TrainConfig,
    ValueClipConfig,
)
from vgexp.diagnosis import sentence, underflow
from vgexp.errors import QuestionError
from vgexp.training import Trainer, step

DATA = GaussianConfig(num_examples=160, features=6, num_classes=3, batch_size=16, val_fraction=0.2)
MODEL = MlpConfig(depth=3, width=7, activation="tanh", init="xavier_normal", bias_std=0.1)
BASE = Config(
    model=MODEL,
    data=DATA,
    optimizer=SgdConfig(lr=0.1),
    train=TrainConfig(steps=12, eval_every=5),
    probe=ProbeConfig(every=1, activations_every=1),
    dtype="float16",
)
LOUD = changed(BASE, model={"gain": 6.0, "activation": "relu"}, optimizer=SgdConfig(lr=1e-4))
"""Its gradients overflow at the first scale and not at a few halvings of it."""

HALVES = {"bfloat16": torch.bfloat16, "float16": torch.float16}
EPSILON = {"bfloat16": 2.0**-8, "float16": 2.0**-11}
"""Half the distance from 1 to the next number."""

OPTIMIZERS: dict[str, tuple[OptimizerConfig, Callable[[Any], torch.optim.Optimizer]]] = {
    "sgd": (SgdConfig(lr=1e-4), lambda p: torch.optim.SGD(p, 1e-4)),
    "momentum": (
        MomentumConfig(lr=1e-4, momentum=0.8),
        lambda p: torch.optim.SGD(p, 1e-4, momentum=0.8),
    ),
    "rmsprop": (RmspropConfig(lr=1e-3), lambda p: torch.optim.RMSprop(p, 1e-3)),
    "adam": (AdamConfig(lr=1e-3), lambda p: torch.optim.Adam(p, 1e-3)),
}
"""Ours, and torch's as a user writes it, of which none is fused."""


def network_of(trainer: Trainer) -> nn.Sequential:
    """A plain perceptron with the trainer's weights."""
    weights = copy.deepcopy(trainer.state.model.state_dict())
    phi = {"tanh": nn.Tanh, "relu": nn.ReLU}[trainer.state.model.activation_name]  # type: ignore[index]
    layers: list[nn.Module] = []
    for index in range(3):
        layers += [_linear(weights, f"layers.{index}.linear"), phi()]
    return nn.Sequential(*layers, _linear(weights, "readout"))


def _linear(weights: dict[str, Tensor], name: str) -> nn.Linear:
    weight, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
    linear = nn.Linear(weight.shape[1], weight.shape[0])
    linear.load_state_dict({"weight": weight, "bias": bias})
    return linear


def by_hand(config: Config, make_optimizer: Callable[[Any], Any]) -> tuple[Table, nn.Sequential]:
    """The steps of a loop as the documentation of torch.amp writes it."""
    trainer = assemble(config)
    model, batches = network_of(trainer), trainer.state.batches
    optimizer = make_optimizer(model.parameters())
    scaler = torch.amp.GradScaler("cpu", enabled=config.dtype == "float16")
    limit = config.clip.threshold if isinstance(config.clip, NormClipConfig) else math.inf
    columns = ("loss", "grad_norm", "grad_norm_clipped", "skipped", "loss_scale")
    steps: Table = {name: [] for name in columns}
    for _ in range(trainer.facts.num_steps):
        optimizer.zero_grad()
        total = 0.0
        for _ in range(config.train.accumulate):
            x, y = batches.next()
            with torch.autocast("cpu", dtype=HALVES[config.dtype]):
                logits = model(x)
            loss = nn.functional.cross_entropy(logits.float(), y) / config.train.accumulate
            scaler.scale(loss).backward()
            total += loss.item()
        scale = scaler.get_scale()
        scaler.unscale_(optimizer)
        norm = nn.utils.clip_grad_norm_(model.parameters(), limit).item()
        is_finite = math.isfinite(norm)
        if not is_finite:  # torch's clipping makes nan of it
            assert config.clip == BASE.clip
        scaler.step(optimizer)
        scaler.update()
        skipped = int(not is_finite and config.dtype == "float16")
        for name, value in zip(
            columns, (total, norm, min(norm, limit), skipped, scale), strict=True
        ):
            steps[name].append(value)
    return steps, model


# ---------------------------------------------------------------- steps


@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("dtype", HALVES)
def test_steps_are_those_of_a_loop_by_hand(dtype: str, optimizer: str, accumulate: int) -> None:
    ours, make_theirs = OPTIMIZERS[optimizer]
    config = changed(LOUD, dtype=dtype, optimizer=ours, train={"accumulate": accumulate})
    trainer = assemble(config)
    steps = collected(trainer.rows())["steps"]
    expected, model = by_hand(config, make_theirs)
    assert steps["skipped"] == expected["skipped"]
    if dtype == "float16":
        assert set(steps["skipped"]) == {0, 1}, "the case says nothing unless some are skipped"
        assert steps["skipped"][0] == 1, "an optimizer makes its states in the first step"
        assert steps["loss_scale"] == expected["loss_scale"]
    else:
        assert steps["loss_scale"] == [None] * 12
    for name in ("loss", "grad_norm", "grad_norm_clipped"):
        assert steps[name] == pytest.approx(expected[name], rel=2e-5, nan_ok=True), name
    for mine, theirs in zip(trainer.state.model.parameters(), model.parameters(), strict=True):
        assert mine.dtype == torch.float32
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", HALVES)
def test_clipping_works_on_gradients_without_the_scale(dtype: str) -> None:
    config = changed(BASE, dtype=dtype, clip=NormClipConfig(threshold=0.4))
    steps = collected(assemble(config).rows())["steps"]
    expected, _ = by_hand(config, lambda p: torch.optim.SGD(p, 0.1))
    assert 1 in steps["clipped"]
    for name in ("loss", "grad_norm", "grad_norm_clipped"):
        assert steps[name] == pytest.approx(expected[name], rel=1e-4), name


@pytest.mark.parametrize("clip", [ValueClipConfig(), AgcClipConfig(), AutoClipConfig()])
def test_a_skipped_step_is_left_as_it_is_by_every_clip(clip: Any) -> None:
    steps = tables_of(changed(LOUD, clip=clip))["steps"]
    assert {0, 1} == set(steps["skipped"])
    for norm, skipped in zip(steps["grad_norm_clipped"], steps["skipped"], strict=True):
        assert math.isfinite(norm) == (not skipped)


def ignore_the_mark(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has `GradScaler` treat every optimizer as one that does not look at `found_inf`."""
    step = torch.amp.GradScaler.step

    def step_of_any(self: torch.amp.GradScaler, optimizer: Any) -> None:
        optimizer._step_supports_amp_scaling = False
        step(self, optimizer)

    monkeypatch.setattr(torch.amp.GradScaler, "step", step_of_any)


@pytest.mark.parametrize("reads_mark", [True, False])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_skipped_step_changes_neither_weights_nor_optimizer_and_halves_the_scale(
    optimizer: str, reads_mark: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not reads_mark:
        ignore_the_mark(monkeypatch)
    config = changed(LOUD, optimizer=OPTIMIZERS[optimizer][0], train={"steps": 14})
    trainer = assemble(config)
    take_step, moved, halved = step.take_step, [], []

    def watched(state: Any) -> None:
        before = numbers_of(state)
        scale = scale_of(trainer)
        take_step(state)
        moved.append(not equal(before, numbers_of(state)))
        halved.append(scale_of(trainer) == scale / 2)
        if state.step == 11:
            set_scale(trainer, 2.0**30)

    monkeypatch.setattr(step, "take_step", watched)
    tables = collected(trainer.rows())
    skipped = tables["steps"]["skipped"]
    assert skipped[0] == skipped[11] == 1
    assert skipped[10] == 0
    assert moved == [not cell for cell in skipped]
    assert halved == [bool(cell) for cell in skipped]
    rows = list(zip(tables["layers"]["step"], tables["layers"]["update_ratio"], strict=True))
    assert all((ratio == 0) == bool(skipped[step]) for step, ratio in rows)
    assert trainer.probe.unseen == []


def numbers_of(state: Any) -> list[Tensor]:
    """Copies of all weights, and of the optimizer's states that are not all 0."""
    states = [x for s in state.optimizer.state.values() for x in s.values() if torch.is_tensor(x)]
    return [x.detach().clone() for x in (*state.model.parameters(), *states) if x.any()]


def equal(one: list[Tensor], other: list[Tensor]) -> bool:
    return len(one) == len(other) and all(map(torch.equal, one, other))


def scale_of(trainer: Trainer) -> float:
    assert trainer.state.half is not None
    return float(trainer.state.half.state_dict()["scaler"]["scale"])


def set_scale(trainer: Trainer, scale: float) -> None:
    half = trainer.state.half
    assert half is not None
    state = half.state_dict()
    state["scaler"]["scale"] = scale
    half.load_state_dict(state)


def test_a_skipped_first_step_of_momentum_leaves_no_memory_as_it_was_found() -> None:
    # What a kernel leaves unwritten is mostly 0 in a fresh process: put something there.
    for _ in range(3):
        torch.full((7, 7), 1e30)
    trainer = assemble(changed(LOUD, optimizer=OPTIMIZERS["momentum"][0], train={"steps": 1}))
    assert collected(trainer.rows())["steps"]["skipped"] == [1]
    for states in trainer.state.optimizer.state.values():
        assert not states["momentum_buffer"].any()


def test_the_scale_doubles_after_two_thousand_steps_in_a_row() -> None:
    trainer = assemble(changed(BASE, train={"steps": 3}))
    half = trainer.state.half
    assert half is not None
    state = half.state_dict()
    state["scaler"]["_growth_tracker"] = 1998
    state["scaler"]["scale"] = 16.0
    half.load_state_dict(state)
    assert collected(trainer.rows())["steps"]["loss_scale"] == [16.0, 16.0, 32.0]


# ---------------------------------------------------------------- layers


@pytest.mark.parametrize("dtype", HALVES)
def test_every_column_is_what_autograd_gives_under_the_same_autocast(dtype: str) -> None:
    trainer = assemble(changed(BASE, dtype=dtype, train={"steps": 1}))
    model = network_of(trainer)
    x, y = copy.deepcopy(trainer.state.batches).next()
    layers = collected(trainer.rows())["layers"]
    scale = 65536.0 if dtype == "float16" else 1.0
    zs, hs, h = [], [], x
    with torch.autocast("cpu", dtype=HALVES[dtype]):
        for module in model:
            h = module(h)
            (zs if isinstance(module, nn.Linear) else hs).append(h)
            h.retain_grad()
    (scale * nn.functional.cross_entropy(h.float(), y)).backward()
    linears = [module for module in model if isinstance(module, nn.Linear)]
    for row, (linear, z) in enumerate(zip(linears, zs, strict=True)):
        assert z.dtype == HALVES[dtype]
        gradient = linear.weight.grad
        assert gradient is not None
        delta = len(x) * z.grad.double() / scale  # type: ignore[union-attr]
        expected = {
            "weight_norm": linear.weight.double().norm(),
            "grad_norm": gradient.double().norm() / scale,
            "grad_max": gradient.double().abs().max() / scale,
            "grad_zero_fraction": (gradient == 0).double().mean(),
            "preact_mean": z.double().mean(),
            "preact_std": z.double().std(correction=0),
            "delta_rms": delta.square().mean().sqrt(),
        }
        if row < 3:
            expected["act_mean"] = hs[row].double().mean()
            expected["act_std"] = hs[row].double().std(correction=0)
            slope = 1 - hs[row].double().square()
            expected["saturated_fraction"] = (slope < 0.05).double().mean()
        for name, value in expected.items():
            cell = layers[name][row]
            assert cell.dtype == "float32"
            assert cell == pytest.approx(value.item(), rel=1e-5, abs=1e-7), (name, row)


@pytest.mark.parametrize(
    "model",
    [
        {},
        {"norm": "batch"},
        {"norm": "layer"},
        {"norm": "group", "norm_groups": 2, "width": 8},
        {"norm": "rms", "norm_position": "post"},
        {"skip": "residual"},
        {"skip": "highway"},
        {"skip": "rezero", "activation": "relu"},
        {"skip": "dense", "dropout": 0.2},
        {"init": "lsuv", "activation": "gelu"},
    ],
    ids=str,
)
@pytest.mark.parametrize("dtype", HALVES)
def test_tables_are_those_of_float32_to_the_precision_of_the_dtype(
    dtype: str, model: dict[str, Any]
) -> None:
    config = changed(BASE, model={"width": 12, **model}, train={"steps": 2})
    half, single = (tables_of(changed(config, dtype=d)) for d in (dtype, "float32"))
    columns = {name for name in (*WEIGHT_COLUMNS, *ACTIVATION_COLUMNS) if "fraction" not in name}
    # Roundings of a few operations a layer, and their sum over four layers and back.
    close = 60 * EPSILON[dtype]
    for name in columns:
        mine, other = (t["layers"][name] for t in (half, single))
        assert [cell is None for cell in mine] == [cell is None for cell in other]
        pairs = [(a, b) for a, b in zip(mine, other, strict=True) if a is not None]
        assert [a for a, _ in pairs] == pytest.approx([b for _, b in pairs], rel=close, abs=close)
        if name not in ("weight_norm", "preact_mean", "act_mean"):
            assert any(a != b for a, b in pairs), f"{name}: was anything in half precision?"
    for table in ("steps", "evals"):
        mine, other = half[table]["loss"], single[table]["loss"]
        assert mine == pytest.approx(other, rel=close)
        assert mine != other


def test_the_weights_at_the_start_are_those_of_float32() -> None:
    one, *others = (
        assemble(changed(BASE, dtype=dtype, model={"init": "lsuv"})).state.model.state_dict()
        for dtype in ("float32", "bfloat16", "float16")
    )
    for other in others:
        assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("dtype", HALVES)
def test_losses_are_bit_identical_whether_measured_or_not(dtype: str) -> None:
    config = changed(LOUD, dtype=dtype, model={"norm": "batch", "dropout": 0.1})
    never = changed(config, probe=ProbeConfig(every=10**9, activations_every=10**9))
    one, other = tables_of(config), tables_of(never)
    for table in ("steps", "evals"):
        assert_same({table: one[table]}, {table: other[table]})


@pytest.mark.parametrize("dtype", HALVES)
def test_recomputed_activations_give_equal_tables(dtype: str) -> None:
    config = changed(LOUD, dtype=dtype, model={"dropout": 0.1, "depth": 6})
    again = changed(config, train={"checkpoint_activations": True})
    assert_same(tables_of(config), tables_of(again))


# ---------------------------------------------------------------- divergence


@pytest.mark.parametrize("deferred", [False, True], ids=["cpu", "cuda"])
@pytest.mark.parametrize("every", [1, 7])
@pytest.mark.parametrize(("power", "step"), [(60, 19), (17, None)])
def test_twenty_skips_in_a_row_are_divergence_and_fewer_are_not(
    power: int, step: int | None, every: int, deferred: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_first = torch.amp.GradScaler.__init__
    monkeypatch.setattr(
        torch.amp.GradScaler,
        "__init__",
        lambda self, device: at_first(self, device, init_scale=2.0**power),
    )
    probe = ProbeConfig(every=every, activations_every=every)
    config = changed(LOUD, train={"steps": 30}, probe=probe)
    trainer, tables = trained(config, deferred=deferred)
    if step is None:
        assert trainer.divergence is None
        assert sum(tables["steps"]["skipped"]) > 1
        return
    assert tables["steps"]["skipped"] == [1] * (step + 1)
    assert all(map(math.isfinite, tables["steps"]["loss"]))
    assert trainer.divergence is not None
    assert trainer.divergence.startswith(f"step {step}: 20 steps in a row were skipped")
    last = [i for i, s in enumerate(tables["layers"]["step"]) if s == step]
    assert len(last) == 4
    assert not any(math.isfinite(tables["layers"]["grad_max"][i]) for i in last)


@pytest.mark.parametrize("deferred", [False, True], ids=["cpu", "cuda"])
@pytest.mark.parametrize("dtype", HALVES)
def test_a_loss_that_is_not_finite_is_divergence_at_once(dtype: str, deferred: bool) -> None:
    wild = changed(BASE, dtype=dtype, model={"activation": "linear"}, optimizer=SgdConfig(lr=1e8))
    wild = changed(wild, probe=ProbeConfig(every=9, activations_every=9))
    trainer, tables = trained(wild, deferred=deferred)
    assert trainer.divergence is not None
    assert "is the first that is not finite" in trainer.divergence
    loss = tables["steps"]["loss"]
    assert 1 < len(loss) < 12
    assert [math.isfinite(x) for x in loss] == [True] * (len(loss) - 1) + [False]


@pytest.mark.parametrize("deferred", [False, True], ids=["cpu", "cuda"])
def test_a_diverged_run_that_goes_on_records_on_though_its_scale_falls_to_0(deferred: bool) -> None:
    wild = changed(BASE, model={"activation": "linear"}, optimizer=SgdConfig(lr=1e8))
    wild = changed(wild, train={"steps": 190, "stop_on_divergence": False, "eval_every": 0})
    _, tables = trained(wild, deferred=deferred)
    assert tables["steps"]["step"] == list(range(190))
    assert tables["steps"]["loss_scale"][-1] == 0
    assert len(tables["layers"]["step"]) == 190 * 4


def test_the_signal_of_a_step_that_was_not_taken_is_without_the_scale() -> None:
    config = changed(BASE, train={"steps": 1})
    trainer = assemble(config)
    set_scale(trainer, 64.0)
    state, probe = trainer.state, trainer.probe
    with probe:
        step.forward_backward(state, state.next_batch())
        assert state.half is not None
        probe.end_step_without_update(state.half.loss_scale)
    (rows,) = [each for each in probe.drain() if each.table == "layers"]
    expected = tables_of(config)["layers"]["delta_rms"]
    assert rows.columns["delta_rms"][:] == pytest.approx(expected, rel=1e-2)


# ---------------------------------------------------------------- going on


@pytest.mark.parametrize("stop_after", [2, 7])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_run_that_was_cut_short_ends_with_the_same_bytes(
    optimizer: str, stop_after: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = changed(
        LOUD,
        optimizer=OPTIMIZERS[optimizer][0],
        model={"dropout": 0.1},
        run=RunConfig(checkpoint_every=2),
        output=OutputConfig(quiet=True),
    )
    require_same_bytes_after_a_cut(config, tmp_path, stop_after, monkeypatch)
    summary = vgexp.load(tmp_path / "cut").summary
    assert summary["dtype"] == "float16"


def test_skips_in_a_row_are_counted_over_a_checkpoint() -> None:
    config = changed(LOUD, train={"steps": 30})
    first = assemble(config)
    set_scale(first, 2.0**60)
    for _ in range(12):
        step.one_step(first.state, first.state.next_batch())
    second = assemble(config)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    steps = collected(second.rows())["steps"]
    assert steps["step"] == list(range(12, 20))
    assert second.divergence is not None


# ---------------------------------------------------------------- underflow


def test_a_deep_sigmoid_net_underflows_in_float16_only(tmp_path: Path) -> None:
    deep = MlpConfig(depth=12, width=16, activation="sigmoid", init="xavier_normal")
    found = {}
    for dtype in ("float32", "bfloat16", "float16"):
        config = changed(BASE, model=deep, dtype=dtype, output=OutputConfig(quiet=True))
        found[dtype] = vgexp.run(config, tmp_path / dtype)
    assert found["float32"].summary["underflow"] == 0
    assert found["bfloat16"].summary["underflow"] == 0
    # The scaled rms of dL/dz against the smallest normal number, from the single-precision run.
    layers = found["float32"].layers
    delta = layers[(layers["step"] == 0) & (layers["kind"] != "readout")]["delta_rms"]
    below = int((delta / 16 * 65536 < 2.0**-14).sum())
    assert 0 < below < 12
    assert abs(found["float16"].summary["underflow"] - below) <= 1
    assert "number of float16 (6.1e-05), the loss scale multiplied in" in sentence(
        found["float16"].summary
    )


def test_underflow_looks_at_the_signal_that_the_scale_of_its_step_made() -> None:
    layers = pd.DataFrame(
        {
            "step": [0, 0, 0, 5, 5, 5],
            "layer": [1, 2, 3] * 2,
            "name": ["a", "b", "c"] * 2,
            "kind": ["linear", "linear", "readout"] * 2,
            "weight_norm": [1.0] * 6,
            "delta_rms": [1e-4, 1e-2, 1.0, 1e-6, 1e-3, 1.0],
            "dead_fraction": [0.0] * 6,
        }
    )
    # 6.1e-5 times 8 examples, over the scale: 4.9e-4, or 6.1e-8 at a scale of 8,000.
    assert underflow(layers, 8, "float16") == 1
    assert underflow(layers, 8, "float16", pd.Series({0: 8e3, 5: 8e3})) == 0
    assert underflow(layers, 8, "float16", pd.Series({0: 8e3, 5: 1.0})) == 1
    assert underflow(layers, 8, "float16", pd.Series({0: 8e3, 5: 0.25})) == 2
    assert underflow(layers, 8, "float16", pd.Series({0: math.nan, 5: 8e3})) == 1


def test_the_dtypes_are_those_that_there_are() -> None:
    with pytest.raises(QuestionError, match="float32, float64, bfloat16, float16"):
        dataclasses.replace(BASE, dtype="half")
