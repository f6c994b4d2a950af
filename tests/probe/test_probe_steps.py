"""The table of steps in somebody's own loop: losses, norms, rates, and what a loss is given.

Holds: probe/steps.py, probe/loss.py, probe/watched_function.py, probe/loss_arguments.py,
probe/given.py
"""

from __future__ import annotations

import copy
import functools
import inspect
import math
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from vgexp.errors import QuestionError
from vgexp.probe import Probe
from vgexp.quantities import STEPS

LIMITS = (0.4, 100.0, 0.4, 100.0)
"""Of the gradient's norm, at the steps of the first test."""


def _model() -> nn.Sequential:
    torch.manual_seed(0)
    layers = (nn.Linear(5, 7), nn.Tanh(), nn.LayerNorm(7), nn.Linear(7, 3))
    return nn.Sequential(*layers).double()


def _batches(num: int) -> list[tuple[Tensor, Tensor]]:
    drawn = torch.Generator().manual_seed(1)
    return [
        (
            torch.randn(6, 5, generator=drawn, dtype=torch.float64),
            torch.randint(3, (6,), generator=drawn),
        )
        for _ in range(num)
    ]


def _norm(model: nn.Module) -> float:
    grads = [p.grad.reshape(-1) for p in model.parameters() if p.grad is not None]
    return float(torch.cat(grads).norm())


def mean_cubed(output: Tensor, target: Tensor, *, power: int = 3) -> Tensor:
    """A loss function of the user's own."""
    return (output - functional.one_hot(target, 3)).abs().pow(power).mean()


def test_every_step_has_its_loss_rate_and_norms_before_and_after_clipping() -> None:
    model = _model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    wanted: list[tuple[float, ...]] = []
    with Probe(model, optimizer, every=3, activations_every=3) as probe:
        loss_of = probe.watch_loss(nn.CrossEntropyLoss())
        for limit, (x, y) in zip(LIMITS, _batches(4), strict=True):
            optimizer.zero_grad()
            loss = loss_of(model(x), y)
            loss.backward()
            before = _norm(model)
            probe.before_clip()
            nn.utils.clip_grad_norm_(model.parameters(), limit)
            after = _norm(model)
            wanted.append((optimizer.param_groups[0]["lr"], loss.item(), before, after))
            optimizer.step()
            schedule.step()
    steps = probe.to_frame("steps")
    assert list(steps.columns) == [column.name for column in STEPS]
    assert steps["step"].tolist() == [0, 1, 2, 3]
    measured = steps[["lr", "loss", "grad_norm", "grad_norm_clipped"]].to_numpy()
    np.testing.assert_allclose(measured, wanted, rtol=1e-12)
    assert steps["clipped"].tolist() == [1, 0, 1, 0]
    assert steps["skipped"].tolist() == [0] * 4
    assert steps[["epoch", "accuracy"]].isna().all(axis=None)


def test_without_a_loss_the_steps_have_norms_and_rates() -> None:
    model = _model()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    norms = []
    with Probe(model, optimizer, every=5) as probe:
        for x, y in _batches(3):
            optimizer.zero_grad()
            functional.cross_entropy(model(x), y).backward()
            norms.append(_norm(model))
            optimizer.step()
    steps = probe.to_frame("steps")
    np.testing.assert_allclose(steps["grad_norm"], norms, rtol=1e-12)
    assert steps["grad_norm_clipped"].equals(steps["grad_norm"])
    assert steps["clipped"].isna().all()
    assert steps["loss"].isna().all()
    assert "loss" not in probe.tables


@pytest.mark.parametrize("clips", [False, True])
@pytest.mark.parametrize("layers", [None, "3"])
@pytest.mark.parametrize("broken", [(), (math.nan,), (math.inf, math.nan)])
def test_the_norm_is_the_same_in_a_measured_step_and_in_another(
    clips: bool, layers: str | None, broken: tuple[float, ...]
) -> None:
    """In a measured one it is made of the norms of `layers` and `parameters`."""
    model = _model().float()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    ((x, y),) = _batches(1)
    with Probe(model, optimizer, every=2, layers=layers) as probe:
        for _ in range(2):
            optimizer.zero_grad()
            functional.cross_entropy(model(x.float()), y).backward()
            for parameter, value in zip((model[0].weight, model[3].bias), broken, strict=False):
                parameter.grad.view(-1)[0] = value
            if clips:
                probe.before_clip()
                for parameter in model.parameters():
                    parameter.grad *= 0.5
            optimizer.step()
    steps = probe.to_frame("steps")
    for column in ("grad_norm", "grad_norm_clipped"):
        assert steps[column][0] == pytest.approx(steps[column][1], rel=1e-6, nan_ok=True)
        assert math.isnan(steps[column][0]) == bool(broken)
    if clips and not broken:
        halves = steps["grad_norm_clipped"] / steps["grad_norm"]
        assert halves.tolist() == pytest.approx([0.5, 0.5], rel=1e-6)
        assert steps["clipped"].tolist() == [1, 1]


def test_the_norm_is_over_the_parameters_that_the_optimizer_holds() -> None:
    model = _model()
    optimizer = torch.optim.SGD(model[3].parameters(), lr=0.1)
    ((x, y),) = _batches(1)
    with Probe(model, optimizer) as probe:
        functional.cross_entropy(model(x), y).backward()
        optimizer.step()
        optimizer.add_param_group({"params": list(model[0].parameters())})
        optimizer.zero_grad()
        model[2].zero_grad()
        functional.cross_entropy(model(x), y).backward()
        model[2].zero_grad()
        norms = [_norm(model[3]), _norm(model)]
        optimizer.step()
    measured = probe.to_frame("steps")["grad_norm"].tolist()
    assert measured[1] == pytest.approx(norms[1], rel=1e-12)
    assert norms[0] < norms[1]


# torch 2.11 says of the first sparse tensor that its entries are not checked.
@pytest.mark.filterwarnings("ignore:Sparse invariant checks")
@pytest.mark.parametrize("form", ["float32", "bfloat16", "mixed", "sparse", "complex", "huge"])
def test_norms_of_every_kind_of_gradient_are_right(form: str) -> None:
    from vgexp.probe.steps import total_norm

    x = torch.linspace(-2, 3, 12, dtype=torch.float64).reshape(4, 3)
    tensors: list[Tensor] = [x.float(), 2 * x.float()]
    if form == "bfloat16":
        tensors = [x.bfloat16(), (x * 1e25).bfloat16()]
    elif form == "mixed":
        tensors = [x.float(), x, x.half()]
    elif form == "sparse":
        place = torch.tensor([[0, 0, 2]])
        tensors = [torch.sparse_coo_tensor(place, x[:3], (4, 3), check_invariants=True), x]
    elif form == "complex":
        tensors = [torch.complex(x, -x)]
    elif form == "huge":
        tensors = [(1e30 * x).float(), (1e-30 * x).float()]
    dense = [t.to_dense() if t.is_sparse else t for t in tensors]
    wanted = math.sqrt(sum(float(t.abs().double().square().sum()) for t in dense))
    assert float(total_norm(tensors)) == pytest.approx(wanted, rel=1e-6)


def test_a_loss_counts_if_a_backward_pass_goes_through_it_and_means_are_over_passes() -> None:
    model = _model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    batches = _batches(6)
    wanted = []
    with Probe(model, optimizer) as probe:
        loss_of = probe.watch_loss(mean_cubed)
        for update in (batches[:2], batches[2:4]):
            optimizer.zero_grad()
            losses = []
            for x, y in update:
                loss = loss_of(model(x), y)
                losses.append(loss.item())
                loss /= 2
                loss.backward()
            wanted.append(np.mean(losses))
            with torch.no_grad():
                loss_of(model(batches[4][0]), batches[4][1])
            loss_of(model(batches[5][0]), batches[5][1])  # a validation with gradients
            optimizer.step()
        # Gradients that were thrown away, as those of a step that a scaler skips.
        x, y = batches[0]
        optimizer.zero_grad()
        loss_of(model(x), y).backward()
        optimizer.zero_grad()
        loss = loss_of(model(batches[1][0]), batches[1][1])
        wanted.append(loss.item())
        loss.backward()
        optimizer.step()
    np.testing.assert_allclose(probe.to_frame("steps")["loss"], wanted, rtol=1e-12)


def test_losses_may_be_noted_and_then_count_alone() -> None:
    model = _model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    ((x, y),) = _batches(1)
    with Probe(model, optimizer) as probe:
        loss_of = probe.watch_loss(functional.cross_entropy)
        for noted in ([torch.tensor(2.0)], [1, torch.tensor([3.0])], []):
            optimizer.zero_grad()
            loss = loss_of(model(x), y)
            loss.backward()
            for value in noted:
                probe.note_loss(value)
            optimizer.step()
    assert probe.to_frame("steps")["loss"].tolist() == [2.0, 2.0, loss.item()]
    with pytest.raises(QuestionError, match=r"note_loss: given a str\nallowed: a tensor or"):
        probe.note_loss("0.5")  # type: ignore[arg-type]
    with pytest.raises(QuestionError, match=r"watch_loss: given a Tensor\nallowed: a module or"):
        probe.watch_loss(torch.zeros(()))  # type: ignore[type-var]


def test_of_a_closure_the_first_call_is_the_updates() -> None:
    model = _model()
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=4)
    ((x, y),) = _batches(1)
    losses = []
    with Probe(model, optimizer) as probe:
        loss_of = probe.watch_loss(functional.cross_entropy)

        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = loss_of(model(x), y)
            losses.append(loss.item())
            loss.backward()
            return loss

        optimizer.step(closure)  # type: ignore[no-untyped-call]
        norm = _norm(model)
    steps = probe.to_frame("steps")
    assert steps["loss"].tolist() == losses[:1]
    assert steps["grad_norm"].tolist() == pytest.approx([norm], rel=1e-12)


def test_several_functions_add_up_and_results_of_other_forms_are_found() -> None:
    model = _model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    ((x, y),) = _batches(1)

    def as_dict(output: Tensor) -> dict[str, Tensor]:
        return {"size": output.abs().max(), "loss": output.square().mean()}

    def as_tuple(output: Tensor) -> tuple[str, Tensor]:
        return "named", output.square().sum(1)

    with Probe(model, optimizer) as probe:
        one, two, three = (
            probe.watch_loss(nn.CrossEntropyLoss()),
            probe.watch_loss(as_dict),
            probe.watch_loss(as_tuple),
        )
        output = model(x)
        losses = [one(output, y), two(output)["loss"], three(output)[1].mean()]
        sum(losses).backward()
        optimizer.step()
    wanted = sum(loss.item() for loss in losses)
    assert probe.to_frame("steps")["loss"].tolist() == pytest.approx([wanted], rel=1e-12)


def _square(output: Tensor) -> Tensor:
    return output.square().mean()


def _weighted(
    model: nn.Module, entropy: Any, size: Any, x: Tensor, y: Tensor, form: str
) -> list[Tensor]:
    """The losses that one update passes backward, one after another."""
    output = model(x)
    if form == "two functions":
        return [entropy(output, y) + 0.1 * size(output)]
    if form == "in place":
        total = entropy(output, y)
        total *= 3
        return [total - size(output)]
    if form == "two backward passes":
        return [entropy(output, y), 0.1 * size(model(x))]
    if form == "one function, twice in a pass":
        return [size(output) + size(model[0](x)) / 4]
    if form == "micro-batches of two functions":
        return [(entropy(model(p), y[:3]) + 0.1 * size(model(p))) / 2 for p in (x[:3], x[3:])]
    assert form == "micro-batches in one pass"
    return [(size(model(x[:2])) + size(model(x[2:])) + size(output)) / 3]


@pytest.mark.parametrize("scale", [1.0, 2.0**10])
@pytest.mark.parametrize(
    "form",
    [
        *("two functions", "in place", "two backward passes", "one function, twice in a pass"),
        *("micro-batches of two functions", "micro-batches in one pass"),
    ],
)
def test_the_loss_of_a_weighted_sum_is_the_sum_that_the_gradient_is_of(
    form: str, scale: float
) -> None:
    model = _model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=scale)
    wanted = []
    with Probe(model, optimizer, scaler=scaler) as probe:
        entropy, size = probe.watch_loss(nn.CrossEntropyLoss()), probe.watch_loss(_square)
        for x, y in _batches(2):
            optimizer.zero_grad()
            losses = _weighted(model, entropy, size, x, y, form)
            wanted.append(sum(loss.item() for loss in losses))
            for loss in losses:
                scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
    assert probe.to_frame("steps")["loss"].tolist() == pytest.approx(wanted, rel=1e-12)


def test_a_loss_of_each_example_counts_by_the_weights_of_a_mask() -> None:
    model = _model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    ((x, y),) = _batches(1)
    mask = torch.tensor([1.0, 0, 1, 0, 0, 1], dtype=torch.float64)
    with Probe(model, optimizer) as probe:
        loss_of = probe.watch_loss(nn.CrossEntropyLoss(reduction="none"))
        each = loss_of(model(x), y)
        (0.5 * (each * mask).sum() / mask.sum()).backward()
        optimizer.step()
        optimizer.zero_grad()
        unweighted = loss_of(model(x), y)
        (unweighted * 0).sum().backward()
        optimizer.step()
    wanted = [each[mask > 0].mean().item(), unweighted.mean().item()]
    assert probe.to_frame("steps")["loss"].tolist() == pytest.approx(wanted, rel=1e-12)


def test_the_loss_of_a_gradient_penalty_has_the_weights_of_the_whole() -> None:
    model = _model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    ((x, y),) = _batches(1)
    with Probe(model, optimizer) as probe:
        entropy, size = probe.watch_loss(functional.cross_entropy), probe.watch_loss(_square)
        x.requires_grad_()
        first = entropy(model(x), y)
        (slope,) = torch.autograd.grad(first, x, create_graph=True)
        total = first / 2 + 3 * size(slope)
        total.backward()
        optimizer.step()
    assert probe.to_frame("steps")["loss"].tolist() == pytest.approx([total.item()], rel=1e-12)


def test_a_watched_module_is_itself_and_keeps_no_hook() -> None:
    module = nn.MSELoss(reduction="sum")
    model = _model()
    probe = Probe(model, torch.optim.SGD(model.parameters(), lr=0.1))
    assert probe.watch_loss(module) is module
    with probe:
        assert len(module._forward_hooks) == 1
        pickle.loads(pickle.dumps(module))
    assert not module._forward_hooks


def test_a_watched_function_is_like_the_function() -> None:
    model = _model()
    probe = Probe(model, torch.optim.SGD(model.parameters(), lr=0.1))
    watched: Any = probe.watch_loss(mean_cubed)
    assert inspect.signature(watched) == inspect.signature(mean_cubed)
    assert watched.__name__ == "mean_cubed"
    assert watched.__doc__ == mean_cubed.__doc__
    assert pickle.loads(pickle.dumps(watched)) is mean_cubed
    assert copy.deepcopy(watched) is mean_cubed
    assert copy.copy(watched) is mean_cubed
    partial: Any = probe.watch_loss(functools.partial(mean_cubed, power=2))
    assert isinstance(partial, functools.partial)
    assert partial.keywords == {"power": 2}
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'target'"):
        watched(torch.zeros(2, 3))


def test_training_is_the_same_with_a_watched_loss() -> None:
    weights = []
    for is_watched in (False, True):
        model = _model()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        probe = Probe(model, optimizer, every=2, activations_every=2)
        loss_of = probe.watch_loss(mean_cubed) if is_watched else mean_cubed
        with probe if is_watched else torch.enable_grad():
            for x, y in _batches(5):
                optimizer.zero_grad()
                loss_of(model(x), y, power=2).backward()
                optimizer.step()
        weights.append(torch.cat([p.detach().reshape(-1) for p in model.parameters()]))
    assert torch.equal(*weights)


def test_what_a_loss_is_given_is_described_at_measured_steps() -> None:
    model = _model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    outputs = []
    with Probe(model, optimizer, activations_every=2) as probe:
        loss_of = probe.watch_loss(mean_cubed)
        for x, y in _batches(3):
            optimizer.zero_grad()
            output = model(x).softmax(1)
            outputs.append(output.detach())
            loss_of(target=y, output=output).backward()
            loss_of(model(x) * 9, y).backward()  # a second pass is not described
            optimizer.step()
    table = probe.to_frame("loss").set_index(["step", "name"])
    assert [*table.index] == [
        (step, name) for step in (0, 2) for name in ("output", "target", "result")
    ]
    assert set(table["function"]) == {"mean_cubed"}
    row, x = table.loc[(2, "output")], outputs[2].numpy()
    assert (row["role"], row["shape"], row["dtype"]) == ("output", "6x3", "float64")
    assert row["made_by"] == "SoftmaxBackward0"
    wanted = (x.min(), x.max(), x.mean(), x.std(), 0, 1, 1)
    numbers = ["min", "max", "mean", "std", "not_finite", "row_sum_min", "row_sum_max"]
    assert row[numbers].tolist() == pytest.approx(wanted, rel=1e-12)
    target = table.loc[(0, "target")]
    assert (target["role"], target["shape"], target["dtype"]) == ("target", "6", "int64")
    assert target[["row_sum_min", "row_sum_max", "made_by"]].isna().all()
    result = table.loc[(0, "result")]
    assert (result["role"], result["shape"], result["std"]) == ("loss", "scalar", 0)


def test_numbers_of_large_outputs_are_taken_in_parts_and_leave_out_what_is_not_finite(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("vgexp.probe.loss_arguments._MOST_ENTRIES", 7)
    model = nn.Sequential(nn.Linear(2, 5))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    drawn = torch.randn(6, 5, generator=torch.Generator().manual_seed(2))
    drawn[1, 2], drawn[3, 0], drawn[5, 4] = math.nan, math.inf, -math.inf
    with Probe(model, optimizer) as probe:
        loss_of = probe.watch_loss(lambda output, target: output.sum() * 0 + target.sum())
        loss_of(model(torch.ones(3, 2)), drawn).backward()
        optimizer.step()
    row = probe.to_frame("loss").set_index("name").loc["target"]
    finite = drawn[torch.isfinite(drawn)].double().numpy()
    wanted = (finite.min(), finite.max(), finite.mean(), finite.std(), 3 / 30)
    measured = row[["min", "max", "mean", "std", "not_finite"]].tolist()
    assert measured == pytest.approx(wanted, rel=1e-12)


def test_the_first_loss_that_is_not_finite_is_described_at_any_step() -> None:
    model = nn.Sequential(nn.Linear(2, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Probe(model, optimizer, activations_every=20) as probe:
        loss_of = probe.watch_loss(lambda output, target: (output.abs() * target.log()).mean())
        for step in range(6):
            target = torch.ones(3, 1) * (step < 3)
            optimizer.zero_grad()
            loss_of(model(torch.ones(3, 2)), target).backward()
            optimizer.step()
    table = probe.to_frame("loss").set_index(["step", "name"])
    assert [*dict.fromkeys(step for step, _ in table.index)] == [0, 3]
    given = {"output": 0, "target": 0, "result": 1}
    assert table.loc[3, "not_finite"].to_dict() == {**given, "input": 0, "0.weight": 0}
    assert "0.weight" not in table.loc[0].index


@pytest.mark.parametrize("what", ["input", "weight", "nothing"])
def test_of_the_first_loss_that_is_not_finite_it_is_known_what_the_model_read(what: str) -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Probe(model, optimizer) as probe:
        loss_of = probe.watch_loss(lambda output: output.mean() / (0.0 if what == "nothing" else 1))
        for step in range(4):
            x = torch.ones(4, 2)
            if step == 2 and what == "input":
                x[1, 0] = math.nan
            if step == 2 and what == "weight":
                nn.init.constant_(model[1].weight, math.inf)
            optimizer.zero_grad()
            loss_of(model(x)).backward()
            optimizer.step()
    table = probe.to_frame("loss")
    step = 0 if what == "nothing" else 2
    rows = table[table["step"] == step].set_index("role")
    assert rows.loc["input", ["function", "name", "shape"]].tolist() == [
        "Sequential",
        "input",
        "4x2",
    ]
    assert rows.loc["input", "not_finite"] == (1 / 8 if what == "input" else 0)
    weight = "1.weight" if what == "weight" else "0.weight"
    assert rows.loc["weight", ["name", "not_finite"]].tolist() == [weight, what == "weight"]
    assert set(table["step"]) == {0, step}
    assert not model._forward_pre_hooks


def test_a_step_without_an_update_is_a_skipped_one() -> None:
    model = _model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    ((x, y),) = _batches(1)
    with Probe(model, optimizer) as probe:
        functional.cross_entropy(model(x), y).backward()
        probe.end_step_without_update(torch.tensor(8.0))
    steps = probe.to_frame("steps")
    assert steps["skipped"].tolist() == [1]
    assert steps["loss_scale"].tolist() == [8.0]
    assert steps["grad_norm"].tolist() == pytest.approx([_norm(model)], rel=1e-12)


def test_scales_of_a_scaler_are_recorded_and_divided_out() -> None:
    norms, wanted = [], []
    for scale in (1.0, 2.0**12):
        model = _model().float()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        scaler = torch.amp.GradScaler("cpu", init_scale=scale)
        with Probe(model, optimizer, scaler=scaler) as probe:
            loss_of = probe.watch_loss(functional.cross_entropy)
            for x, y in _batches(2):
                optimizer.zero_grad()
                loss = loss_of(model(x.float()), y)
                scaler.scale(loss).backward()
                scaler.step(optimizer)
                scaler.update()
                wanted.append(loss.item())
        steps = probe.to_frame("steps")
        assert steps["loss_scale"].tolist() == [scale, scale]
        assert steps["loss"].tolist() == wanted[-2:]
        norms.append(steps["grad_norm"].to_numpy())
    np.testing.assert_allclose(norms[0], norms[1], rtol=1e-5)
