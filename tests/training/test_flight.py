"""The flight recorder: the last steps in full, made again from a copy of the state.

Holds: training/flight.py, training/trainer.py
"""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from deferred_runs import trained
from trainers import BASE, Table, assert_same, changed, collected

from vgexp.assembly import assemble
from vgexp.config import (
    AdamConfig,
    Config,
    MomentumConfig,
    NormClipConfig,
    PlateauConfig,
    ProbeConfig,
    SgdConfig,
    StepConfig,
)
from vgexp.quantities import LAYERS
from vgexp.training import Trainer, flight

SEVEN = ProbeConfig(every=9, activations_every=9, histograms_every=0, flight=7)
FULL = ProbeConfig(every=1, activations_every=1, histograms_every=0, flight=0)
STOPPED = changed(BASE, probe=SEVEN, optimizer=MomentumConfig(lr=0.2), train={"steps": 60})
"""A run that a judge ends long before its last step."""
DIVERGED = changed(
    STOPPED,
    model={"activation": "linear", "init": "he_normal"},
    optimizer=SgdConfig(lr=0.01),
    scheduler=StepConfig(interval_fraction=0.4, factor=1000),
)
VARIANTS: dict[str, Config] = {
    "plain": STOPPED,
    "dropout": changed(STOPPED, model={"dropout": 0.3}),
    "adam and micro-batches": changed(
        STOPPED, optimizer=AdamConfig(lr=0.01), train={"accumulate": 3}
    ),
    "clip and noise": changed(
        STOPPED, clip=NormClipConfig(threshold=0.1), train={"gradient_noise": 0.1}
    ),
    "a schedule that hears evaluations": changed(
        STOPPED, scheduler=PlateauConfig(patience=1, factor=0.5), train={"eval_every": 2}
    ),
    "batch norm": changed(STOPPED, model={"norm": "batch"}),
    "bfloat16": changed(STOPPED, dtype="bfloat16"),
}


class EndAt:
    """A judge that ends the run after so many updates."""

    def __init__(self, num_steps: int, every: int = 10) -> None:
        self.every, self.num_steps = every, num_steps
        self.asked: list[int] = []

    def __call__(self, num_steps: int) -> str | None:
        self.asked.append(num_steps)
        return "enough" if num_steps >= self.num_steps else None


def ended(config: Config, num_steps: int = 40) -> tuple[Trainer, dict[str, Table]]:
    trainer = assemble(config)
    return trainer, collected(trainer.rows(judge=EndAt(num_steps)))


def last_steps(table: Table, num_steps: int) -> dict[str, list[Any]]:
    steps = sorted({*table["step"]})[-num_steps:]
    kept = [i for i, step in enumerate(table["step"]) if step in steps]
    return {column.name: [table[column.name][i] for i in kept] for column in LAYERS}


@pytest.mark.parametrize("name", VARIANTS)
def test_the_last_steps_are_those_of_a_run_that_measures_every_step(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flight, "SNAPSHOT_STEPS", 8)
    _, tables = ended(VARIANTS[name])
    _, whole = ended(changed(VARIANTS[name], probe=FULL))
    assert sorted({*tables["flight"]["step"]}) == list(range(34, 41))
    assert_same({"flight": tables["flight"]}, {"flight": last_steps(whole["layers"], 7)})


def test_recording_changes_no_other_table() -> None:
    trainer, tables = ended(STOPPED)
    other, plain = ended(changed(STOPPED, probe={"flight": 0}))
    assert "flight" in trainer.facts.tables
    assert "flight" not in other.facts.tables
    assert plain["flight"]["step"] == []
    assert len(tables.pop("flight")["step"]) == 7 * 4
    del plain["flight"]
    assert_same(tables, plain)


def test_the_state_is_afterwards_what_it_was() -> None:
    trainer, _ = ended(STOPPED)
    other, _ = ended(changed(STOPPED, probe={"flight": 0}))
    assert trainer.state.step == other.state.step == 41
    pairs = zip(trainer.state.parameters, other.state.parameters, strict=True)
    assert all(torch.equal(one, two) for one, two in pairs)
    assert torch.equal(trainer.state.next_batch()[0][0], other.state.next_batch()[0][0])


@pytest.mark.parametrize("ends_run", [True, False], ids=["ends", "goes on"])
@pytest.mark.parametrize("deferred", [False, True], ids=["cpu", "cuda"])
def test_a_run_that_diverges_has_its_last_steps_up_to_that_one(
    deferred: bool, ends_run: bool
) -> None:
    config = changed(DIVERGED, train={"stop_on_divergence": ends_run})
    trainer, tables = trained(config, deferred=deferred)
    _, whole = trained(changed(config, probe=FULL), deferred=deferred)
    assert trainer.first_not_finite["nonfinite_step"] is not None
    bad = trainer.first_not_finite["nonfinite_step"]
    assert bad > 7
    assert sorted({*tables["flight"]["step"]}) == list(range(bad - 6, bad + 1))
    upto = [i for i, step in enumerate(whole["layers"]["step"]) if step <= bad]
    layers = {name: [cells[i] for i in upto] for name, cells in whole["layers"].items()}
    assert_same({"flight": tables["flight"]}, {"flight": last_steps(layers, 7)})
    assert tables["steps"]["step"][-1] == (bad if ends_run else 59)


def test_a_run_shorter_than_the_recorder_has_all_of_its_steps() -> None:
    _, tables = ended(changed(STOPPED, probe={"flight": 50}), num_steps=10)
    assert sorted({*tables["flight"]["step"]}) == list(range(11))


def test_a_run_that_comes_to_its_end_has_an_empty_table() -> None:
    trainer = assemble(changed(STOPPED, train={"steps": 12}))
    tables = collected(trainer.rows())
    assert "flight" in trainer.facts.tables
    assert tables["flight"]["step"] == []


def test_at_most_two_copies_are_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flight, "SNAPSHOT_STEPS", 8)
    trainer, held = assemble(STOPPED), []
    for _ in trainer.rows():
        held.append([copy["step"] for copy in trainer._flight._snapshots])
    assert max(map(len, held)) == 2
    assert held[-1][-1] % 8 == 0


def test_a_model_that_cannot_go_back_loses_the_recording_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("no way back")

    monkeypatch.setattr(flight.FlightRecorder, "_make_again", refuse)
    trainer, tables = ended(STOPPED)
    assert tables["flight"]["step"] == []
    assert trainer.unseen == ["flight.csv: RuntimeError: no way back"]
    assert tables["steps"]["step"] == list(range(41))


# ---------------------------------------------------------------- the judge


def test_a_judge_is_asked_between_steps_and_never_at_the_last() -> None:
    judge, trainer = EndAt(1000), assemble(STOPPED)
    collected(trainer.rows(judge=judge))
    assert judge.asked == [10, 20, 30, 40, 50]
    assert trainer.stopped_by is None


def test_a_run_that_a_judge_ends_has_its_last_step_in_full_and_is_evaluated() -> None:
    trainer, tables = ended(STOPPED)
    assert trainer.stopped_by == "enough"
    assert trainer.state.step == 41
    assert tables["layers"]["step"][-1] == 40
    assert None not in [
        tables["layers"][name][-1] for name in ("grad_norm", "delta_rms", "update_ratio")
    ]
    last = [
        split
        for step, split in zip(tables["evals"]["step"], tables["evals"]["split"], strict=True)
        if step == 41
    ]
    assert last == ["train", "val", "test"]


def test_a_run_cut_short_where_a_judge_had_ended_it_ends_there_again() -> None:
    saved: list[dict[str, Any]] = []
    first = assemble(STOPPED)
    collected(first.rows(lambda: saved.append(copy.deepcopy(first.state_dict())), EndAt(40)))
    second = assemble(STOPPED)
    second.load_state_dict(saved[-1])
    tables = collected(second.rows(judge=EndAt(40)))
    assert second.stopped_by == "enough"
    assert tables["steps"]["step"] == [40]


# ---------------------------------------------------------------- resumed


@pytest.mark.parametrize("name", ["plain", "adam and micro-batches", "dropout"])
@pytest.mark.parametrize("at", [5, 17, 32, 38, 40])
def test_a_resumed_run_has_the_last_steps_of_one_that_was_not_interrupted(
    name: str, at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flight, "SNAPSHOT_STEPS", 8)
    _, whole = ended(VARIANTS[name])
    assert_same({"flight": resumed(VARIANTS[name], at)["flight"]}, {"flight": whole["flight"]})


def test_what_the_schedule_was_told_is_told_again_after_resuming(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(flight, "SNAPSHOT_STEPS", 8)
    config = VARIANTS["a schedule that hears evaluations"]
    _, whole = ended(config)
    assert_same({"flight": resumed(config, 37)["flight"]}, {"flight": whole["flight"]})


def test_a_checkpoint_of_an_earlier_version_has_the_steps_since_it() -> None:
    state = state_at(STOPPED, 38)
    del state["flight"]
    trainer = assemble(STOPPED)
    trainer.load_state_dict(state)
    tables = collected(trainer.rows(judge=EndAt(40)))
    assert sorted({*tables["flight"]["step"]}) == [38, 39, 40]


def test_a_copy_of_a_later_step_is_refused() -> None:
    state = state_at(STOPPED, 38)
    state["flight"]["snapshot"]["step"] = 39
    with pytest.raises(ValueError, match="later step"):
        assemble(STOPPED).load_state_dict(state)


def test_a_run_without_a_recorder_has_no_copy_in_its_checkpoint() -> None:
    assert "flight" not in state_at(changed(STOPPED, probe={"flight": 0}), 20)


def resumed(config: Config, at: int) -> dict[str, Table]:
    """The tables of a run that goes on after so many steps, until a judge ends it at 40."""
    trainer = assemble(config)
    trainer.load_state_dict(state_at(config, at))
    return collected(trainer.rows(judge=EndAt(40)))


def state_at(config: Config, at: int) -> dict[str, Any]:
    """What a checkpoint after so many steps holds."""
    trainer = assemble(changed(config, run={"checkpoint_every": at}))
    saved: list[dict[str, Any]] = []
    for _ in trainer.rows(lambda: saved.append(copy.deepcopy(trainer.state_dict()))):
        if saved:
            break
    assert saved[0]["training"]["step"] == at
    return saved[0]
