"""Dropout: its law, its stream, and where it is not.

Holds: models/mlp.py, seeds.py
"""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from trainers import (
    BASE,
    changed,
    require_going_on,
    tables_of,
)

from vgexp.assembly import assemble
from vgexp.config import Config, ProbeConfig
from vgexp.skips import SKIPS

DROPPING = changed(BASE, model={"dropout": 0.3, "width": 40}, train={"steps": 6})

Seen = list[tuple[Tensor, Tensor]]


def seen_by_dropout(config: Config) -> tuple[Seen, Seen]:
    """What goes into and comes out of the first layer's dropout, in training and in evaluation."""
    trainer = assemble(config)
    training: Seen = []
    evaluation: Seen = []

    def note(_: nn.Module, args: tuple[Tensor], output: Tensor) -> None:
        (training if torch.is_grad_enabled() else evaluation).append(
            (args[0].detach().clone(), output.detach().clone())
        )

    trainer.state.model.layers[0].dropout.register_forward_hook(note)  # type: ignore[union-attr,index]
    list(trainer.rows())
    return training, evaluation


def masks_of(config: Config) -> list[Tensor]:
    return [output != 0 for _, output in seen_by_dropout(config)[0]]


@pytest.mark.parametrize("probability", [0.1, 0.5, 0.9])
def test_each_h_is_0_with_its_probability_and_else_divided_by_the_rest(probability: float) -> None:
    config = changed(DROPPING, model={"dropout": probability, "width": 100})
    training, _ = seen_by_dropout(config)
    inputs, outputs = (torch.cat([pair[i] for pair in training]) for i in (0, 1))
    kept = outputs != 0
    error = math.sqrt(probability * (1 - probability) / kept.numel())
    assert abs(1 - kept.double().mean().item() - probability) < 5 * error
    torch.testing.assert_close(outputs[kept], inputs[kept] / (1 - probability))


def test_an_evaluation_drops_nothing() -> None:
    training, evaluation = seen_by_dropout(DROPPING)
    assert len(training) == 6
    assert len(evaluation) == 7
    assert all(torch.equal(given, output) for given, output in evaluation)


def test_masks_differ_from_step_to_step_and_from_unit_to_unit() -> None:
    masks = masks_of(DROPPING)
    assert not any(torch.equal(masks[0], mask) for mask in masks[1:])
    assert len({tuple(row) for row in masks[0].tolist()}) == len(masks[0])


def test_one_seed_gives_one_sequence_of_masks() -> None:
    torch.manual_seed(1)
    one = masks_of(DROPPING)
    torch.manual_seed(2)
    assert all(map(torch.equal, one, masks_of(DROPPING)))
    assert not torch.equal(one[0], masks_of(changed(DROPPING, seed=1))[0])


@pytest.mark.parametrize(
    "other",
    [
        {"model": {"init": "orthogonal"}},
        {"optimizer": {"lr": 0.01}},
        {"data": {"num_examples": 400}},
    ],
    ids=str,
)
def test_masks_are_independent_of_what_else_is_drawn(other: dict[str, Any]) -> None:
    assert all(map(torch.equal, masks_of(DROPPING), masks_of(changed(DROPPING, **other))))


def test_dropout_moves_neither_the_order_of_the_data_nor_the_weights() -> None:
    seen = []
    for probability in (0.0, 0.3, 0.5):
        trainer = assemble(changed(DROPPING, model={"dropout": probability}))
        weights = copy.deepcopy(trainer.state.model.state_dict())
        list(trainer.rows())
        seen.append((weights, trainer.state.batches.next()))
    for weights, (x, y) in seen[1:]:
        assert all(torch.equal(weights[name], seen[0][0][name]) for name in weights)
        assert torch.equal(x, seen[0][1][0])
        assert torch.equal(y, seen[0][1][1])


@pytest.mark.parametrize("skip", SKIPS)
def test_h_is_measured_before_dropout(skip: str) -> None:
    # relu: a share of zeros would show in the mean, and dividing by the rest in the deviation.
    model = {"dropout": 0.6, "skip": skip, "activation": "sigmoid", "depth": 2}
    dropped, whole = (
        tables_of(changed(DROPPING, model={**model, "dropout": p}, train={"steps": 1}))["layers"]
        for p in (0.6, 0.0)
    )
    assert dropped["act_mean"][0] == whole["act_mean"][0]
    assert dropped["act_std"][0] == whole["act_std"][0]
    last = dropped["name"].index("readout.weight")
    assert dropped["preact_std"][last] != whole["preact_std"][last]


@pytest.mark.parametrize("stop_after", [3, 7])
def test_a_loaded_state_goes_on_with_the_masks_that_follow(stop_after: int) -> None:
    config = changed(DROPPING, probe=ProbeConfig(every=4, activations_every=4, histograms_every=0))
    config = changed(config, train={"steps": 9})
    require_going_on(config, stop_after)
