"""Greedy layer-wise pretraining against its equations, and what it leaves alone.

Axes: B examples, F features that a layer reads, W units.

Holds: training/pretraining.py, assembly/whole.py, training/trainer.py
"""

from __future__ import annotations

import copy
import math
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from trainers import BASE, Table, assert_same, changed, collected, tables_of

import vgexp
from vgexp import data
from vgexp.assembly import assemble
from vgexp.config import Config, OutputConfig, RunConfig
from vgexp.data.batches import Batches
from vgexp.errors import QuestionError
from vgexp.seeds import generator
from vgexp.training import Pretraining, step

PRETRAINED = changed(
    BASE,
    model={"activation": "sigmoid", "width": 7, "depth": 3, "bias_std": 0.3},
    train={"pretrain_steps": 9, "pretrain_lr": 0.02, "steps": 6},
)
PHI = {
    "sigmoid": lambda u: 1 / (1 + torch.exp(-u)),
    "tanh": lambda u: 1 - 2 / (torch.exp(2 * u) + 1),
    "relu": lambda u: torch.where(u > 0, u, 0 * u),
}
LOWEST = {"sigmoid": 0.0, "tanh": -1.0}


def error(r: Tensor, a: Tensor, lowest: float | None) -> Tensor:
    """The loss of a reconstruction, written out."""
    if lowest is None:
        return ((r - a) ** 2).mean() / ((a - a.mean(0)) ** 2).mean()
    share, p = (a - lowest) / (1 - lowest), 1 / (1 + torch.exp(-r))
    return -(share * p.log() + (1 - share) * (1 - p).log()).mean()


def by_hand(config: Config) -> tuple[list[float], dict[str, Tensor]]:
    """Every loss, and the weights after; Adam from its own equations."""
    phi, lowest = PHI[config.model.activation], LOWEST.get(config.model.activation)  # type: ignore[attr-defined]
    weights = copy.deepcopy(assemble(config).state.model.state_dict())
    split = data.load(config.data, config.seed, torch.float64).train
    drawn = generator(config.seed, "pretraining")
    lr, losses = config.train.pretrain_lr, []
    for layer in range(3):
        name = f"layers.{layer}.linear"
        w, b = weights[f"{name}.weight"], weights[f"{name}.bias"]
        trained = [w, b, torch.zeros(w.shape[1], dtype=torch.float64)]
        moments = [(torch.zeros_like(p), torch.zeros_like(p)) for p in trained]
        batches = Batches(split, config.data.batch_size, drawn)
        for t in range(1, config.train.pretrain_steps + 1):
            a, _ = batches.next()
            w, b, c = (p.clone().requires_grad_() for p in trained)
            loss = error(phi(a @ w.T + b) @ w + c, a, lowest if layer else None)
            losses.append(loss.item())
            gradients = torch.autograd.grad(loss, [w, b, c])
            for i, g in enumerate(gradients):
                m, v = 0.9 * moments[i][0] + 0.1 * g, 0.999 * moments[i][1] + 0.001 * g * g
                moments[i] = m, v
                move = (m / (1 - 0.9**t)) / ((v / (1 - 0.999**t)).sqrt() + 1e-8)
                trained[i] = trained[i] - lr * move
        weights[f"{name}.weight"], weights[f"{name}.bias"] = trained[:2]
        split = data.Split(phi(split.inputs @ trained[0].T + trained[1]), split.targets)
    return losses, weights


def pretraining_of(config: Config) -> tuple[Table, dict[str, Tensor]]:
    """The table, and the weights as the first update finds them."""
    trainer = assemble(config)
    found: list[dict[str, Tensor]] = []

    def note(*_: object) -> None:
        found.append(copy.deepcopy(trainer.state.model.state_dict()))

    trainer.state.optimizer.register_step_pre_hook(note)
    return collected(trainer.rows())["pretraining"], found[0]


@pytest.mark.parametrize("activation", PHI)
def test_each_layer_is_trained_as_its_equations_say(activation: str) -> None:
    config = changed(PRETRAINED, model={"activation": activation})
    table, weights = pretraining_of(config)
    losses, expected = by_hand(config)
    assert [float(loss) for loss in table["loss"]] == pytest.approx(losses, rel=1e-9)
    assert table["step"] == [*range(9)] * 3
    names = [f"layers.{i}.linear.weight" for i in range(3)]
    assert table["name"] == [name for name in names for _ in range(9)]
    for name, weight in expected.items():
        torch.testing.assert_close(weights[name], weight, rtol=1e-8, atol=1e-11)
    before = assemble(config).state.model.state_dict()
    assert torch.equal(weights["readout.weight"], before["readout.weight"])
    assert not torch.equal(weights[names[2]], before[names[2]])


def test_step_0_is_measured_on_the_pretrained_net() -> None:
    tables = tables_of(PRETRAINED)
    _, expected = by_hand(PRETRAINED)
    norms = [expected[name].norm().item() for name in tables["layers"]["name"][:3]]
    assert tables["layers"]["weight_norm"][:3] == pytest.approx(norms, rel=1e-9)
    plain = tables_of(changed(PRETRAINED, train={"pretrain_steps": 0}))
    assert tables["evals"]["loss"][0] != plain["evals"]["loss"][0]
    assert plain["pretraining"]["step"] == []


def test_it_moves_neither_the_order_of_the_data_nor_the_masks_nor_the_weights_drawn() -> None:
    with_and_without = []
    for num_steps in (0, 9):
        config = changed(PRETRAINED, train={"pretrain_steps": num_steps}, model={"dropout": 0.4})
        trainer = assemble(config)
        first = copy.deepcopy(trainer.state.model.state_dict())
        list(trainer.rows())
        masks = trainer.state.stream.state_dict()[0]
        with_and_without.append((first, trainer.state.batches.next()[0], masks))
    (first, batch, masks), (first_too, batch_too, masks_too) = with_and_without
    assert all(torch.equal(first[name], first_too[name]) for name in first)
    assert torch.equal(batch, batch_too)
    assert torch.equal(masks, masks_too)


def test_equal_runs_are_equal_and_another_seed_is_another() -> None:
    assert_same(tables_of(PRETRAINED), tables_of(PRETRAINED))
    one, other = (pretraining_of(changed(PRETRAINED, seed=seed))[0] for seed in (0, 1))
    assert one["loss"] != other["loss"]


def test_what_a_unit_reads_may_be_constant() -> None:
    # Every relu is off: the next layer reads zeros, whose variance is 0.
    config = changed(PRETRAINED, model={"activation": "relu", "bias_std": 0.0, "gain": 0.0})
    losses = pretraining_of(config)[0]["loss"]
    assert all(map(math.isfinite, losses))
    assert losses[-1] == 0


# ---------------------------------------------------------------- stopping and going on

QUIET = changed(PRETRAINED, output=OutputConfig(quiet=True), run=RunConfig(checkpoint_every=2))
FILES = ("layers.csv", "steps.csv", "evals.csv", "pretraining.csv")


def same_files(one: Path, other: Path) -> bool:
    return all((one / name).read_bytes() == (other / name).read_bytes() for name in FILES)


def test_a_run_that_goes_on_from_a_checkpoint_does_not_pretrain_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vgexp.run(QUIET, tmp_path / "whole")
    take_step, taken = step.take_step, []

    def torn(state: Any) -> None:
        taken.append(1)
        if len(taken) == 4:
            raise RuntimeError("the node is gone")
        take_step(state)

    monkeypatch.setattr(step, "take_step", torn)
    with pytest.raises(RuntimeError, match="the node is gone"):
        vgexp.run(QUIET, tmp_path / "cut")
    monkeypatch.undo()

    def never(*_: object) -> Any:
        raise AssertionError("pretrained again")

    monkeypatch.setattr(Pretraining, "rows", never)
    vgexp.resume(tmp_path / "cut")
    assert same_files(tmp_path / "cut", tmp_path / "whole")


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_pretraining_that_is_torn_off_is_done_anew(
    error: type[BaseException], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vgexp.run(QUIET, tmp_path / "whole")
    next_batch, drawn = Batches.next, []

    def torn(self: Batches) -> Any:
        drawn.append(1)
        if len(drawn) == 13:
            raise error
        return next_batch(self)

    monkeypatch.setattr(Batches, "next", torn)
    with pytest.raises(error):
        vgexp.run(QUIET, tmp_path / "cut")
    monkeypatch.undo()
    status = vgexp.load(tmp_path / "cut").summary["status"]
    assert status == ("interrupted" if error is KeyboardInterrupt else "failed")
    vgexp.resume(tmp_path / "cut")
    assert same_files(tmp_path / "cut", tmp_path / "whole")


def test_a_stop_in_the_middle_ends_the_run_as_interrupted_and_it_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vgexp.run(QUIET, tmp_path / "whole")
    next_batch, drawn = Batches.next, []

    def interrupted(self: Batches) -> Any:
        drawn.append(1)
        if len(drawn) == 13:
            os.kill(os.getpid(), signal.SIGINT)
        return next_batch(self)

    monkeypatch.setattr(Batches, "next", interrupted)
    with pytest.raises(KeyboardInterrupt):
        vgexp.run(QUIET, tmp_path / "cut")
    monkeypatch.undo()
    assert len(drawn) == 13, "it ends after the step at hand"
    run = vgexp.load(tmp_path / "cut")
    assert run.summary["status"] == "interrupted"
    assert len(run.steps) == len(run.layers) == len(run.evals) == 0
    assert len((tmp_path / "cut" / "pretraining.csv").read_text().splitlines()) == 1 + 13
    vgexp.resume(tmp_path / "cut")
    assert same_files(tmp_path / "cut", tmp_path / "whole")


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"model": {"skip": "residual"}}, r"model\.skip=residual model\.norm=none\nallowed: "),
        ({"model": {"norm": "batch"}}, r"model\.skip=none model\.norm=batch\nallowed: model=mlp"),
        ({"train": {"pretrain_steps": -1}}, r"train\.pretrain_steps is -1"),
        ({"train": {"pretrain_lr": -0.1}}, r"train\.pretrain_lr is -0\.1"),
        ({"train": {"pretrain_lr": math.nan}}, r"train\.pretrain_lr is nan"),
    ],
)
def test_what_cannot_be_pretrained_is_refused(sections: dict[str, Any], said: str) -> None:
    with pytest.raises(QuestionError, match=said):
        assemble(changed(PRETRAINED, **sections))
