"""What made the first value that is not finite: one network for each kind, on both ways of looking.

Holds: training/origin.py
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from deferred_runs import trained
from small_runs import CONFIG, summary_of
from torch import Tensor, nn
from trainers import changed

import vgexp
from vgexp.assembly import assemble
from vgexp.cli.main import main
from vgexp.config import AdamConfig, Config, SgdConfig
from vgexp.training.origin import Origin, find_origin
from vgexp.training.state import TrainState

INF, NAN = torch.inf, torch.nan


def state_of(
    model: nn.Module, loss: Callable[[Tensor, Tensor], Tensor] | None = None
) -> TrainState:
    """The state of a run that trains this model of 6 features to 3 outputs."""
    made = assemble(CONFIG).state
    loss_of = made.loss if loss is None else dataclasses.replace(made.loss, mean=loss)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    return dataclasses.replace(made, model=model, loss=loss_of, optimizer=optimizer)


def origin_of(
    *between: nn.Module, loss: Callable[[Tensor, Tensor], Tensor] | None = None, **changes: Any
) -> Origin | None:
    """The origin in a step of a network that has these modules between two linear ones."""
    torch.manual_seed(0)
    first, last = nn.Linear(6, 8), nn.Linear(8, 3)
    state = state_of(nn.Sequential(first, *between, last), loss)
    state.step = changes.get("step", 0)
    return find_origin(state, state.next_batch(), [])


class Applied(nn.Module):
    """A function, as a module that calls no other."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class Sandwich(nn.Module):
    """A module whose own code stands before, between and after the modules that it calls."""

    def __init__(self, *functions: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.functions = functions
        self.one, self.two = nn.Tanh(), nn.Tanh()

    def forward(self, x: Tensor) -> Tensor:
        before, between, after = self.functions
        return after(self.two(between(self.one(before(x)))))


def same(x: Tensor) -> Tensor:
    return x.clone()


def overflow(x: Tensor) -> Tensor:
    return torch.exp(x.abs() + 100)


def masked_root(x: Tensor) -> Tensor:
    """0 where x is below 0, else its root: finite, but the root's slope at 0 is not."""
    return torch.where(x > 0, x.clamp(min=0).sqrt(), torch.zeros_like(x))


# ---------------------------------------------------------------- the kinds


def test_a_forward_pass_that_overflows_is_told_with_its_module() -> None:
    assert origin_of(nn.Tanh(), Applied(overflow)) == Origin("forward", "2 (Applied)")


@pytest.mark.parametrize(
    ("functions", "place"),
    [
        ((overflow, same, same), "what precedes 1.one (Tanh)"),
        ((same, overflow, same), "what follows 1.one (Tanh)"),
        ((same, same, overflow), "what follows 1.two (Tanh)"),
    ],
)
def test_code_between_modules_is_told_by_the_modules_beside_it(
    functions: tuple[Callable[[Tensor], Tensor], ...], place: str
) -> None:
    assert origin_of(Sandwich(*functions)) == Origin("forward", place)


def test_a_value_that_is_overwritten_in_place_is_the_one_that_was_there() -> None:
    spoiling = Applied(lambda x: x.mul_(INF))
    assert origin_of(nn.Identity(), spoiling) == Origin("forward", "2 (Applied)")


def log_of_zero(outputs: Tensor, _: Tensor) -> Tensor:
    return -torch.log(torch.relu(outputs - 1e6)).mean()


def root_at_zero(outputs: Tensor, _: Tensor) -> Tensor:
    return torch.sqrt(torch.relu(outputs - 1e6)).mean()


def test_a_loss_that_is_not_finite_though_the_outputs_are_made_it() -> None:
    assert origin_of(nn.Tanh(), loss=log_of_zero) == Origin("loss", "")


def test_a_finite_loss_whose_own_gradient_is_not_finite_made_it_too() -> None:
    assert origin_of(nn.Tanh(), loss=root_at_zero) == Origin("loss", "sqrt")


def test_a_branch_of_the_backward_pass_is_told_with_operation_and_module() -> None:
    found = origin_of(nn.ReLU(), Applied(masked_root))
    assert found == Origin("backward", "sqrt in 2 (Applied)")


def test_an_operation_outside_of_all_inner_modules_is_told_with_the_module_around_it() -> None:
    found = origin_of(nn.ReLU(), Sandwich(masked_root, same, same))
    assert found == Origin("backward", "sqrt in 2 (Sandwich)")


@pytest.mark.parametrize(("step", "maker"), [(0, "initialisation"), (7, "update")])
def test_weights_that_are_not_finite_were_made_by_the_update_before(step: int, maker: str) -> None:
    state = state_of(nn.Sequential(nn.Linear(6, 8), nn.Linear(8, 3)))
    state.step = step
    with torch.no_grad():
        state.model[1].bias[2] = NAN  # type: ignore[index,operator]
    assert find_origin(state, state.next_batch(), []) == Origin(maker, "1.bias")


def test_a_batch_that_is_not_finite_is_told() -> None:
    state = state_of(nn.Sequential(nn.Linear(6, 3)))
    ((x, y),) = state.next_batch()
    assert find_origin(state, [(x.index_fill(0, torch.tensor([1]), NAN), y)], []) == Origin(
        "data", ""
    )


def test_masks_of_minus_infinity_are_no_origin() -> None:
    def masked(x: Tensor) -> Tensor:
        return x.masked_fill(torch.arange(8) > 3, -INF)

    attention = (Applied(masked), nn.Softmax(-1))
    assert origin_of(*attention, loss=log_of_zero) == Origin("loss", "")
    assert origin_of(*attention) is None
    # Where they reach the outputs they are one.
    assert origin_of(Applied(masked)) is not None


def test_minus_infinity_that_a_weight_made_is_one_though_a_relu_hides_it() -> None:
    huge = nn.Linear(8, 8)
    with torch.no_grad():
        huge.weight.fill_(-1e38)
        huge.bias.fill_(-3.4e38)
    assert origin_of(Applied(torch.exp), huge, nn.ReLU()) == Origin("forward", "2 (Linear)")


def test_a_gradient_that_only_a_hook_made_is_told_by_its_parameter() -> None:
    state = state_of(nn.Sequential(nn.Linear(6, 8), nn.Linear(8, 3)))
    state.model[0].weight.grad = torch.full((8, 6), INF)  # type: ignore[index,union-attr]
    assert find_origin(state, state.next_batch(), []) == Origin("backward", "0.weight")


def test_nothing_is_told_of_a_step_that_is_finite_or_of_a_model_that_fails() -> None:
    assert origin_of(nn.Tanh()) is None

    def fail(_: Tensor) -> Tensor:
        raise RuntimeError("not twice")

    assert origin_of(Applied(fail)) is None


def test_looking_changes_neither_gradients_nor_buffers_nor_random_numbers() -> None:
    norm = nn.BatchNorm1d(8)
    model = nn.Sequential(nn.Linear(6, 8), norm, nn.Dropout(), Applied(overflow), nn.Linear(8, 3))
    state = state_of(model)
    batch, drawn_before = state.next_batch(), state.stream.state_dict()
    with state.stream.lend():
        model(batch[0][0])
        gradient = torch.ones(8, 6)
        model[0].weight.grad = gradient
        buffers = [buffer.clone() for buffer in model.buffers()]
        drawn = [each.clone() for each in state.stream.state_dict()]
        assert find_origin(state, batch, drawn_before) == Origin("forward", "3 (Applied)")
        assert model[0].weight.grad is gradient
        assert all(map(torch.equal, buffers, model.buffers()))
        assert all(map(torch.equal, drawn, state.stream.state_dict()))
    assert not any(module._forward_hooks for module in model.modules())


def test_dropout_drops_again_what_it_dropped() -> None:
    """A loss that is infinite for one mask alone is found with that mask."""
    model = nn.Sequential(nn.Linear(6, 64), nn.Dropout(), nn.Linear(64, 3))
    state = state_of(model)
    batch, drawn_before = state.next_batch(), state.stream.state_dict()
    seen: list[Tensor] = []

    def infinite_again(outputs: Tensor, _: Tensor) -> Tensor:
        seen.append(outputs.detach())
        is_same = torch.equal(seen[0], seen[-1])
        return outputs.mean() * (INF if is_same else 1.0)

    state.loss = dataclasses.replace(state.loss, mean=infinite_again)
    with state.stream.lend():
        state.loss.mean(model(batch[0][0]), batch[0][1])
        assert find_origin(state, batch, drawn_before) == Origin("loss", "")
    assert len(seen) == 2


# ---------------------------------------------------------------- runs


LINEAR = changed(CONFIG, model={"activation": "linear", "init": "he_normal"})
RUNS: dict[str, tuple[Config, str]] = {
    "forward": (changed(LINEAR, model={"gain": 1e20}), "forward"),
    "update": (changed(LINEAR, optimizer=SgdConfig(lr=1e39), dtype="float32"), "update"),
    "adam": (changed(LINEAR, optimizer=AdamConfig(lr=1e39)), "update"),
}


@pytest.mark.parametrize("stop", [True, False], ids=["stops", "goes on"])
@pytest.mark.parametrize("name", RUNS)
def test_a_flush_later_the_same_is_found(name: str, stop: bool) -> None:
    config, maker = RUNS[name]
    config = changed(config, train={"stop_on_divergence": stop})
    found = [trained(config, deferred=deferred)[0].first_not_finite for deferred in (False, True)]
    assert found[0] == found[1]
    assert found[0]["nonfinite_maker"] == maker


def test_what_was_found_outlasts_a_checkpoint() -> None:
    config = changed(RUNS["forward"][0], train={"stop_on_divergence": False})
    first, _ = trained(config, deferred=False)
    second = assemble(config)
    assert second.first_not_finite["nonfinite_maker"] is None
    second.load_state_dict(first.state_dict())
    assert second.first_not_finite == first.first_not_finite
    assert second.divergence == first.divergence
    # A checkpoint of an earlier version holds the words alone.
    second = assemble(config)
    second.load_state_dict({**first.state_dict(), "divergence": "step 3: z of layer 1"})
    assert second.divergence == "step 3: z of layer 1"
    assert second.first_not_finite["nonfinite_step"] is None


def test_the_summary_keeps_it_and_show_says_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    done = vgexp.run(RUNS["update"][0], tmp_path / "run")
    summary = summary_of(done.folder)
    assert summary["verdict"] == "diverged"
    assert summary["nonfinite_step"] == 1
    assert (summary["nonfinite_maker"], summary["nonfinite_place"]) == (
        "update",
        "layers.0.linear.weight",
    )
    assert main(["show", str(done.folder)]) == 0
    page = " ".join(capsys.readouterr().out.split())
    assert (
        "The optimizer's update at step 0 made it: since then layers.0.linear.weight is not finite."
        in page
    )
