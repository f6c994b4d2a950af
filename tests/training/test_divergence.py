"""Runs that become non-finite: seen at once on CPU, at a flush on CUDA, with equal tables.

Holds: training/divergence.py, training/state.py
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from columns import WEIGHT_COLUMNS
from deferred_runs import trained
from trainers import Table, assert_same, changed, collected

from vgexp.assembly import assemble
from vgexp.config import (
    AdamConfig,
    AgcClipConfig,
    AutoClipConfig,
    Config,
    GaussianConfig,
    LayerClipConfig,
    MlpConfig,
    MomentumConfig,
    NormClipConfig,
    PlateauConfig,
    ProbeConfig,
    SgdConfig,
    StepConfig,
    TrainConfig,
)
from vgexp.records import Rows
from vgexp.training import Trainer, divergence
from vgexp.training.divergence import layer_of_divergence
from vgexp.training.state import TrainState

DATA = GaussianConfig(num_examples=160, features=6, num_classes=3, batch_size=16, val_fraction=0.2)
BASE = Config(
    model=MlpConfig(depth=4, width=8, activation="linear", init="he_normal"),
    data=DATA,
    optimizer=SgdConfig(lr=0.5),
    train=TrainConfig(steps=40, eval_every=3),
)
"""Diverges within its first steps."""

LATER = changed(
    BASE,
    optimizer=SgdConfig(lr=0.01),
    scheduler=StepConfig(interval_fraction=0.33, factor=100),
    train={"steps": 400, "eval_every": 50},
)
"""Diverges somewhere after a hundred steps."""


def step_of_divergence(trainer: Trainer) -> int:
    assert trainer.divergence is not None
    return int(trainer.divergence.split(":")[0].removeprefix("step "))


def rows_at(layers: Table, step: int) -> list[int]:
    return [i for i, s in enumerate(layers["step"]) if s == step]


# ---------------------------------------------------------------- where it stops


@pytest.mark.parametrize("deferred", [False, True], ids=["cpu", "cuda"])
@pytest.mark.parametrize("every", [1, 2, 3, 20])
def test_a_run_ends_at_its_first_non_finite_step_with_all_its_columns(
    every: int, deferred: bool
) -> None:
    probe = ProbeConfig(every=every, activations_every=2 * every)
    trainer, tables = trained(changed(BASE, probe=probe), deferred=deferred)
    step = step_of_divergence(trainer)
    assert 1 < step < 39
    steps, layers = tables["steps"], tables["layers"]
    assert steps["step"] == list(range(step + 1))
    assert all(map(math.isfinite, steps["loss"][:-1]))
    assert not math.isfinite(steps["loss"][-1])
    assert max(layers["step"]) == step
    last = rows_at(layers, step)
    assert len(last) == 5
    assert last == sorted(last) == list(range(last[0], len(layers["step"])))
    for column in (*WEIGHT_COLUMNS, "preact_mean", "preact_std", "delta_rms"):
        if column != "update_ratio":
            assert all(layers[column][i] is not None for i in last), column
    assert all(layers["update_ratio"][i] is None for i in last), "there was no update"
    assert max(tables["evals"]["step"]) <= step
    assert "test" not in tables["evals"]["split"]
    assert trainer.state.step == step
    assert trainer.flush() == []


@pytest.mark.parametrize("deferred", [False, True], ids=["cpu", "cuda"])
def test_the_layer_named_is_the_first_whose_z_is_not_finite(deferred: bool) -> None:
    trainer, tables = trained(BASE, deferred=deferred)
    layers = tables["layers"]
    last = rows_at(layers, step_of_divergence(trainer))
    std = [layers["preact_std"][i] for i in last]
    first = next(k for k, value in enumerate(std) if not math.isfinite(value))
    assert all(map(math.isfinite, std[:first]))
    name = layers["name"][last[first]]
    assert trainer.divergence is not None
    assert trainer.divergence.endswith(
        f"z of layer {first + 1} ({name}) is the first that is not finite"
    )


def infinite_gradient(trainer: Trainer) -> None:
    """Weights whose forward pass is tame and whose backward pass exceeds float32 at layer 2."""
    with torch.no_grad():
        for layer, factor in zip(
            trainer.state.model.layers,
            (1e-20, 1e-20, 1e20, 1e20),
            strict=True,  # type: ignore[arg-type]
        ):
            layer.linear.weight.mul_(factor)


@pytest.mark.parametrize("deferred", [False, True], ids=["cpu", "cuda"])
def test_a_gradient_that_is_not_finite_is_divergence_though_the_loss_is(deferred: bool) -> None:
    config = changed(BASE, model={"init": "orthogonal"})
    trainer = assemble(config, is_deferred=deferred)
    infinite_gradient(trainer)
    tables = collected(trainer.rows())
    assert trainer.divergence == (
        "step 0: the gradient of layer 2 (layers.1.linear.weight) is the last that is not finite"
    )
    assert tables["steps"]["step"] == [0]
    assert math.isfinite(tables["steps"]["loss"][0])
    assert not math.isfinite(tables["steps"]["grad_norm"][0])
    assert tables["layers"]["step"] == [0] * 5
    assert not math.isfinite(tables["layers"]["grad_max"][1])


@pytest.mark.parametrize("deferred", [False, True], ids=["cpu", "cuda"])
def test_a_network_that_is_not_finite_at_the_start_ends_at_step_0(deferred: bool) -> None:
    config = changed(BASE, model={"gain": 1e10})
    trainer, tables = trained(config, deferred=deferred)
    assert step_of_divergence(trainer) == 0
    assert tables["steps"]["step"] == [0]
    assert tables["layers"]["step"] == [0] * 5
    assert tables["evals"]["step"] == [0, 0]
    assert trainer.state.step == 0


# ---------------------------------------------------------------- going on


@pytest.mark.parametrize("deferred", [False, True], ids=["cpu", "cuda"])
def test_a_run_that_is_not_to_stop_goes_on_to_its_end(deferred: bool) -> None:
    config = changed(BASE, train={"stop_on_divergence": False})
    trainer, tables = trained(config, deferred=deferred)
    step = step_of_divergence(trainer)
    assert tables["steps"]["step"] == list(range(40))
    assert trainer.state.step == 40
    measured = sorted(set(tables["layers"]["step"]))
    assert measured == sorted({0, step, 20, 39})
    assert tables["layers"]["step"] == sorted(tables["layers"]["step"])
    last = rows_at(tables["layers"], step)
    assert all(tables["layers"]["update_ratio"][i] is not None for i in last)
    assert tables["evals"]["split"][-1] == "test"


def test_looking_again_at_the_step_of_divergence_changes_no_later_number(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = changed(
        BASE,
        model={"norm": "batch", "activation": "relu"},
        train={"stop_on_divergence": False, "eval_every": 1},
    )
    looked: list[int] = []
    again = divergence.repeat_passes

    def noted(state: TrainState, *passes: Any) -> None:
        looked.append(state.step)
        again(state, *passes)

    monkeypatch.setattr(divergence, "repeat_passes", noted)
    runs, statistics = [], []
    for every, looks in ((1, []), (1000, [5])):
        probe = ProbeConfig(every=every, activations_every=every, histograms_every=every)
        trainer = assemble(changed(config, probe=probe))
        once = infinite_once(trainer, step=5)
        looked.clear()
        runs.append(collected(trainer.rows()))
        assert step_of_divergence(trainer) == 5
        assert once
        assert looked == looks, "the one run repeats the passes of that step, the other does not"
        statistics.append(dict(trainer.state.model.named_buffers()))
    for table in ("steps", "evals"):
        assert_same({table: runs[0][table]}, {table: runs[1][table]})
    assert math.isfinite(float(runs[0]["evals"]["loss"][-1]))
    assert statistics[0]
    for name, value in statistics[0].items():
        assert torch.equal(value, statistics[1][name]), name


def infinite_once(trainer: Trainer, step: int) -> list[int]:
    """Makes one gradient infinite at one step; the update is then undone by a zero rate."""
    weight = trainer.state.model.readout.bias
    seen: list[int] = []

    def hook(grad: torch.Tensor) -> torch.Tensor:
        if trainer.state.step != step:
            return grad
        seen.append(step)
        return torch.full_like(grad, torch.inf)

    weight.register_hook(hook)  # type: ignore[operator,union-attr]

    def forget(*_: Any) -> None:
        if trainer.state.step == step:
            for parameter in trainer.state.model.parameters():
                parameter.grad = None

    trainer.state.optimizer.register_step_pre_hook(forget)
    return seen


# ---------------------------------------------------------------- both paths agree


CASES: dict[str, Config] = {
    "plain": BASE,
    "accumulated": changed(BASE, train={"accumulate": 2}),
    "adam": changed(BASE, optimizer=AdamConfig(lr=1e20)),
    "momentum and step": changed(BASE, optimizer=MomentumConfig(lr=0.5), scheduler=StepConfig()),
    "plateau": changed(
        BASE,
        scheduler=PlateauConfig(patience=0, factor=0.5),
        train={"eval_every": 3},
    ),
    "every step": changed(BASE, probe=ProbeConfig(every=1, activations_every=1)),
    "every third": changed(BASE, probe=ProbeConfig(every=3, activations_every=2)),
    "histograms": changed(BASE, probe=ProbeConfig(every=3, histograms_every=1)),
    "histograms at times": changed(LATER, probe=ProbeConfig(histograms_every=3)),
    "no histograms": changed(BASE, probe=ProbeConfig(histograms_every=0)),
    "long": LATER,
    "one layer only": changed(BASE, probe=ProbeConfig(layers="readout")),
    "clipped by layer": changed(BASE, model={"gain": 1e10}, clip=LayerClipConfig(threshold=1e-3)),
    "clipped by row": changed(BASE, model={"gain": 1e10}, clip=AgcClipConfig()),
    "clipped by norm": changed(BASE, clip=NormClipConfig(threshold=1e30)),
    "clipped by history": changed(BASE, clip=AutoClipConfig(threshold=100.0)),
    "batch norm": changed(BASE, model={"norm": "batch"}, optimizer=SgdConfig(lr=1e30)),
    "none": changed(BASE, optimizer=SgdConfig(lr=0.01)),
}


@pytest.mark.parametrize("stop", [True, False], ids=["stops", "goes on"])
@pytest.mark.parametrize("case", CASES)
def test_a_check_at_each_flush_gives_the_tables_of_a_check_at_each_step(
    case: str, stop: bool
) -> None:
    config = changed(CASES[case], train={"stop_on_divergence": stop})
    at_once, expected = trained(config, deferred=False)
    late, tables = trained(config, deferred=True)
    assert (at_once.divergence is None) == (case == "none")
    assert late.divergence == at_once.divergence
    assert late.first_not_finite == at_once.first_not_finite
    assert (at_once.first_not_finite["nonfinite_maker"] is None) == (case == "none")
    assert late.state.step == at_once.state.step
    assert_same(tables, expected)
    assert late.flush() == at_once.flush() == []


def test_the_late_case_is_late() -> None:
    trainer, _ = trained(LATER, deferred=False)
    assert step_of_divergence(trainer) > 110


def test_of_the_plateau_case_the_rate_falls_between_the_flush_and_the_divergence() -> None:
    trainer, tables = trained(CASES["plateau"], deferred=False)
    last = step_of_divergence(trainer)
    before, *after = tables["steps"]["lr"][last - 2 :]
    assert after == [before / 2] * 2


def test_a_flush_after_the_run_has_ended_leaves_no_probe_behind() -> None:
    going_on = {"stop_on_divergence": False, "eval_every": 0}
    config = changed(CASES["every third"], train=going_on)
    trainer = assemble(config, is_deferred=True)
    steps = step_of_divergence(trained(config, deferred=False)[0]) + 3

    def fail(*_: object) -> None:
        if trainer.state.step == steps:
            raise MemoryError

    trainer.state.optimizer.register_step_pre_hook(fail)
    with pytest.raises(MemoryError):
        list(trainer.rows())
    assert trainer.divergence is None, "it was not looked for yet"
    tables = collected(iter(trainer.flush()))
    assert step_of_divergence(trainer) == steps - 3
    assert tables["steps"]["step"] == list(range(steps + 1))
    assert trainer.state.step == steps
    assert not any(m._forward_hooks for m in trainer.state.model.modules())
    assert len(trainer.state.optimizer._optimizer_step_pre_hooks) == 1


# ---------------------------------------------------------------- the words


def named(**columns: list[Any]) -> str:
    return layer_of_divergence(
        Rows("layers", {"layer": [1, 2, 3], "name": ["a", "b", "c"], **columns})
    )


INF, NAN = math.inf, math.nan
NAMES: list[tuple[Callable[[], str], str]] = [
    (lambda: named(preact_mean=[0.0, NAN, NAN], preact_std=[1.0, NAN, NAN]), "z of layer 2 (b)"),
    (lambda: named(preact_mean=[0.0, 0.0, INF], preact_std=[INF, 1.0, 1.0]), "z of layer 1 (a)"),
    (
        lambda: named(preact_std=[1.0, 1.0, 1.0], grad_max=[INF, NAN, 1.0]),
        "gradient of layer 2 (b)",
    ),
    (lambda: named(preact_std=[None, 1.0, 1.0], grad_max=[None, None, None]), "the loss is not"),
    (lambda: named(), "the loss is not finite"),
]


@pytest.mark.parametrize(("name", "said"), NAMES)
def test_the_first_z_else_the_last_gradient_is_named(name: Callable[[], str], said: str) -> None:
    assert said in name()
