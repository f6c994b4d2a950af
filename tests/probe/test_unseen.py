"""What is empty is told: one line a reason, with the weights in it.

Holds: probe/strangers.py, probe/unseen.py, unseen.py
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from reference import measured_rows
from torch import Tensor, nn

from vgexp import Probe
from vgexp.errors import QuestionError
from vgexp.probe.strangers import Strangers
from vgexp.probe.unseen import (
    MOST_NAMES,
    NO_ACTIVATION,
    NO_CALL,
    NO_GRADIENT,
    NOT_HELD,
    lines,
)
from vgexp.unseen import (
    NO_STEP,
    RAN_SILENTLY,
    UNREGISTERED,
    saw_no_step,
    unregistered_weights,
    weights_that_ran_silently,
)


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.1)


def unseen_of(
    model: nn.Module,
    optimizer: torch.optim.Optimizer | None = None,
    prepare: Callable[[], Any] = lambda: None,
) -> tuple[list[str], list[dict[str, Any]]]:
    optimizer = optimizer or sgd(model)
    with Probe(model, optimizer) as probe:
        prepare()
        model(torch.randn(3, 4)).sum().backward()
        optimizer.step()
    return probe.unseen, measured_rows(probe)


def stacked(*layers: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(*layers)


def test_weights_that_no_activation_follows_share_a_line() -> None:
    model = stacked(nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 4), nn.Linear(4, 3))
    unseen, rows = unseen_of(model)
    assert unseen == [f"0.weight, 2.weight: {NO_ACTIVATION}"]
    assert [row["act_mean"] for row in rows] == [None] * 3


def test_modules_that_ran_under_no_grad_are_told_apart_from_those_that_did_not_run() -> None:
    class Fed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder, self.spare, self.head = (nn.Linear(4, 4) for _ in range(3))

        def forward(self, x: Tensor) -> Tensor:
            with torch.no_grad():
                h = self.encoder(x)
            return self.head(h)

    unseen, _ = unseen_of(Fed())
    assert f"encoder.weight: {RAN_SILENTLY}" in unseen
    assert f"spare.weight: {NO_CALL}" in unseen


def test_a_line_names_a_bounded_number_of_weights() -> None:
    model = stacked(*[nn.Linear(4, 4, bias=False) for _ in range(20)])
    unseen, _ = unseen_of(model)
    assert unseen == [f"*.weight (19): {NO_ACTIVATION}"]
    for p in model[0:12].parameters():
        p.requires_grad_(False)
    optimizer = torch.optim.SGD(model[12:15].parameters(), lr=0.1)
    unseen, _ = unseen_of(model, optimizer)
    assert unseen[0] == f"15.weight, 16.weight, 17.weight, 18.weight, 19.weight: {NOT_HELD}"
    reasons = {f"{i}.weight": NOT_HELD for i in range(20)}
    names = ", ".join(f"{i}.weight" for i in range(MOST_NAMES))
    assert lines({NOT_HELD: [*reasons]}) == [f"{names} and {20 - MOST_NAMES} more: {NOT_HELD}"]


def test_weights_of_repeated_blocks_that_no_activation_follows_are_named_once() -> None:
    names = [f"blocks.{i}.{part}" for i in range(12) for part in ("attn.qkv", "mlp.fc2")]
    every = [*names, "patch_embed.proj", "layer4.0.conv3", "head2"]
    wanted = (
        "blocks.*.attn.qkv (12), blocks.*.mlp.fc2 (12), patch_embed.proj, layer4.0.conv3, head2"
    )
    assert lines({NO_ACTIVATION: every}) == [f"{wanted}: {NO_ACTIVATION}"]
    assert len(f"{wanted}: {NO_ACTIVATION}") < 240


def test_what_keeps_weights_from_learning_is_told_first_and_missing_activations_last() -> None:
    given = {
        NO_ACTIVATION: ["a"],
        "a user's metric raised": ["metrics['k']"],
        NO_GRADIENT: ["b"],
        "it takes no hooks": ["the optimizer"],
        UNREGISTERED: ["the model"],
        NOT_HELD: ["c"],
    }
    told = [line.split(":", 1)[0] for line in lines(given)]
    assert told == ["b", "the optimizer", "the model", "c", "metrics['k']", "a"]
    assert lines({"why": [str(i) for i in range(MOST_NAMES + 1)]}) == [
        f"{', '.join(map(str, range(MOST_NAMES + 1)))}: why"
    ]


def test_weights_that_the_optimizer_does_not_hold_are_told() -> None:
    model = stacked(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 3))
    unseen, rows = unseen_of(model, sgd(model[2]))
    assert unseen == [f"0.weight: {NOT_HELD}"]
    assert rows[0]["grad_norm"] > 0
    assert rows[0]["update_ratio"] == 0
    model[0].requires_grad_(False)
    assert unseen_of(model, sgd(model[2]))[0] == []


def test_a_gradient_that_a_hook_freed_is_told() -> None:
    model = stacked(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 3))

    def free(parameter: Tensor) -> None:
        parameter.grad = None

    handle = model[0].weight.register_post_accumulate_grad_hook(free)
    unseen, rows = unseen_of(model)
    assert unseen == [f"0.weight: {NO_GRADIENT}"]
    assert rows[0]["grad_norm"] is None
    assert rows[0]["delta_rms"] > 0
    handle.remove()
    assert unseen_of(model)[0] == []


def test_an_optimizer_in_the_backward_pass_leaves_passes_measured() -> None:
    model = stacked(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 3))
    optimizer = sgd(model)
    of_each = {p: torch.optim.SGD([p], lr=0.1) for p in model.parameters()}

    def step(parameter: Tensor) -> None:
        of_each[parameter].step()
        parameter.grad = None

    for parameter in of_each:
        parameter.register_post_accumulate_grad_hook(step)
    unseen, rows = unseen_of(model, optimizer)
    assert unseen == [f"0.weight, 2.weight: {NO_GRADIENT}"]
    assert all(row["delta_rms"] > 0 and row["preact_std"] > 0 for row in rows)


def test_modules_that_are_not_registered_are_told() -> None:
    class Hidden(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = [nn.Linear(4, 6), nn.Conv1d(1, 2, 3)]
            self.head = nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            h = self.layers[1](torch.relu(self.layers[0](x))[:, None])
            return self.head(torch.relu(h).flatten(1))

    torch.manual_seed(0)
    unseen, rows = unseen_of(Hidden())
    assert unseen == ["the model: " + UNREGISTERED.format("[6, 4] in linear, [2, 1, 3] in conv1d")]
    assert [row["name"] for row in rows] == ["head.weight"]


def test_no_step_and_no_activation_are_two_reasons() -> None:
    model = stacked(nn.Linear(4, 3))
    probe = Probe(model, sgd(model))
    assert probe.unseen == ["the model: no optimizer step was seen in a `with`"]


@pytest.mark.parametrize("layers", [None, "2"])
def test_only_weights_that_are_wanted_are_named(layers: str | None) -> None:
    model = stacked(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 3))
    optimizer = sgd(model)
    with Probe(model, optimizer, layers=layers) as probe:
        model(torch.randn(3, 4)).sum().backward()
        optimizer.step()
    names = "0.weight, 1.weight, 2.weight" if layers is None else "2.weight"
    assert probe.unseen == [f"{names}: {NO_ACTIVATION}"]


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("time", "the probe has no table 'time': this model has no nn.RNN, nn.LSTM or nn.GRU"),
        ("attention", "no table 'attention': no call of torch's attention was seen"),
        ("loss", r"no table 'loss': no loss is watched \(probe.watch_loss\)"),
        ("evals", "no call of a watched loss without gradients was seen"),
        ("curvature", "no table 'curvature': only runs of vgexp train and vgexp signal have it"),
        ("tiem", "unknown table: 'tiem'"),
    ],
)
def test_a_table_that_a_model_has_not_is_refused_with_the_reason(table: str, words: str) -> None:
    model = stacked(nn.Linear(4, 3))
    with pytest.raises(QuestionError, match=words):
        Probe(model, sgd(model)).to_frame(table)


class Turned(nn.Module):
    """Keeps a view of a parameter, which is no parameter of the module."""

    def __init__(self) -> None:
        super().__init__()
        self.rest = nn.Linear(3, 2)
        self.weight = nn.Parameter(torch.randn(3, 4)).t()
        self.own = nn.Parameter(torch.randn(3, 4))

    def forward(self, x: Tensor) -> Tensor:
        return self.rest(torch.tanh(x @ self.weight) + x @ self.own.t())


def test_a_view_of_a_parameter_that_no_module_has_is_told() -> None:
    unseen, _ = unseen_of(Turned())
    assert unregistered_weights(unseen) == "[3, 4] in matmul"


class Scaled(nn.Module):
    """Scales by what became of a parameter, as `nn.Parameter(x).to(dtype)` does too."""

    def __init__(self, *, keeps: bool) -> None:
        super().__init__()
        self.rest = nn.Linear(4, 2)
        self.leaf = [nn.Parameter(torch.ones(2))]
        self.scale = nn.Parameter(torch.ones(2)) if keeps else 2 * self.leaf[0]

    def forward(self, x: Tensor) -> Tensor:
        return self.rest(x) * self.scale


@pytest.mark.parametrize(("keeps", "trains"), [(False, False), (True, False), (False, True)])
def test_a_parameter_behind_the_output_that_nobody_trains_is_told(
    keeps: bool, trains: bool
) -> None:
    model = Scaled(keeps=keeps)
    optimizer = torch.optim.SGD([*model.parameters(), *(model.leaf if trains else ())], lr=0.1)
    x = nn.Parameter(torch.randn(3, 4))  # what the model is given is none of it
    with Probe(model, optimizer) as probe:
        model(x * 2).sum().backward()
        optimizer.step()
    is_told = not (keeps or trains)
    expected = "[2] in what the model computes" if is_told else None
    assert unregistered_weights(probe.unseen) == expected


def test_what_a_line_says_is_read_again() -> None:
    told = lines(
        {
            NO_STEP: ["the model"],
            RAN_SILENTLY: [f"layers.{i}.weight" for i in range(MOST_NAMES + 2)],
            UNREGISTERED.format("[6, 4] in linear"): ["the model"],
        }
    )
    assert saw_no_step(told)
    assert unregistered_weights(told) == "[6, 4] in linear"
    assert weights_that_ran_silently(told) == {f"layers.{i}.weight" for i in range(MOST_NAMES)}
    others = lines({NO_CALL: ["layers.0.weight"]})
    assert not saw_no_step(others)
    assert unregistered_weights(others) is None
    assert not weights_that_ran_silently(others)


def test_no_graph_behind_the_inputs_is_kept() -> None:
    """As where the model raises."""
    strangers = Strangers(nn.Linear(4, 3))
    leaf = torch.ones(3, 4, requires_grad=True)
    kept = weakref.ref(leaf)  # its graph holds it
    strangers.on_call((leaf * 2,), {})
    del leaf
    assert kept() is not None
    strangers.drop()
    assert kept() is None
