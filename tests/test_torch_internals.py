"""Private names of torch taken away one by one: the same numbers, or a loss that is named.

Holds: torch_internals.py
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from small_runs import CONFIG
from torch import Tensor, nn
from trainers import changed

import vgexp
from vgexp import Probe, clips, metrics, torch_internals
from vgexp.errors import QuestionError
from vgexp.probe import compiled

TENSORS = [torch.tensor([[3.0, -4.0]]), torch.tensor([2.0, 1.0, -2.0])]


def imported_again() -> ModuleType:
    """The module as it is where names were gone when it was imported."""
    spec = importlib.util.spec_from_file_location("again", Path(torch_internals.__file__))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def without(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> ModuleType:
    with monkeypatch.context() as patch:
        patch.delattr(owner, name)
        return imported_again()


def test_every_name_is_there_in_this_torch() -> None:
    assert torch_internals.LOST_PASSES == ""
    assert torch_internals.LOST_SCALER == ""
    assert torch_internals.backward_task is torch._C._current_graph_task_id
    assert torch_internals.norm_each is torch._foreach_norm
    assert torch_internals.multiply_each is torch._foreach_mul_
    assert torch_internals.flatten is torch._C._nn.flatten_dense_tensors


# ---------------------------------------------------------------- many tensors at a time


def test_tensors_are_flattened_in_order_without_the_private_function(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    again = without(monkeypatch, torch._C._nn, "flatten_dense_tensors")
    assert again.flatten is not torch_internals.flatten
    assert again.flatten(TENSORS).tolist() == [3.0, -4.0, 2.0, 1.0, -2.0]


def test_norms_are_the_same_without_the_private_function(monkeypatch: pytest.MonkeyPatch) -> None:
    again = without(monkeypatch, torch, "_foreach_norm")
    assert again.norm_each is not torch_internals.norm_each
    assert [float(x) for x in again.norm_each(TENSORS)] == [5.0, 3.0]
    assert [float(x) for x in again.norm_each(TENSORS, torch.inf)] == [4.0, 2.0]
    (wide,) = again.norm_each([torch.tensor([3e30, 4e30])], 2, torch.float64)
    assert wide.dtype is torch.float64
    assert float(wide) == pytest.approx(5e30)


def test_tensors_are_multiplied_in_place_without_the_private_function(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    again = without(monkeypatch, torch, "_foreach_mul_")
    assert again.multiply_each is not torch_internals.multiply_each
    tensors = [x.clone() for x in TENSORS]
    again.multiply_each(tensors, [2.0, torch.tensor(-1.0)])
    assert [x.tolist() for x in tensors] == [[[6.0, -8.0]], [-2.0, -1.0, 2.0]]


@pytest.mark.parametrize("size", [3, metrics.SMALL_TENSOR + 1])
def test_total_norm_and_clipping_are_the_same_without_private_functions(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def clipped() -> tuple[float, list[Tensor]]:
        generator = torch.Generator().manual_seed(0)
        grads = [torch.randn(n, generator=generator) for n in (size, 2, 5)]
        norm = metrics.total_norm(grads)
        clips._scale_each(grads, metrics.norms(grads), 1.0)
        return float(norm), grads

    norm, grads = clipped()
    monkeypatch.setattr(metrics, "flatten", torch_internals._concatenate)
    monkeypatch.setattr(metrics, "norm_each", torch_internals._norm_one_by_one)
    monkeypatch.setattr(clips, "multiply_each", torch_internals._multiply_one_by_one)
    again, grads_again = clipped()
    assert again == norm
    assert all(map(torch.equal, grads_again, grads))


# ---------------------------------------------------------------- kinds of modules


@pytest.mark.parametrize(
    ("module", "base", "kind", "member", "other"),
    [
        ("conv", "_ConvNd", "CONVOLUTIONS", nn.ConvTranspose2d(1, 1, 1), nn.Linear(1, 1)),
        ("batchnorm", "_BatchNorm", "BATCH_NORMS", nn.SyncBatchNorm(1), nn.InstanceNorm1d(1)),
        ("batchnorm", "_NormBase", "BATCH_AND_INSTANCE_NORMS", nn.InstanceNorm2d(1), nn.Tanh()),
        ("dropout", "_DropoutNd", "DROPOUTS", nn.AlphaDropout(), nn.Identity()),
    ],
)
def test_kinds_of_modules_are_known_without_their_base_class(
    module: str,
    base: str,
    kind: str,
    member: nn.Module,
    other: nn.Module,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    owner = getattr(nn.modules, module)
    of_a_user = type("OfAUser", (getattr(owner, base),), {})
    assert issubclass(of_a_user, getattr(torch_internals, kind))
    again = without(monkeypatch, owner, base)
    for classes in (getattr(torch_internals, kind), getattr(again, kind)):
        assert isinstance(member, classes)
        assert not isinstance(other, classes)


@pytest.mark.parametrize(
    ("module", "base", "kind"),
    [
        ("conv", "_ConvNd", "CONVOLUTIONS"),
        ("batchnorm", "_BatchNorm", "BATCH_NORMS"),
        ("batchnorm", "_NormBase", "BATCH_AND_INSTANCE_NORMS"),
        ("dropout", "_DropoutNd", "DROPOUTS"),
    ],
)
def test_every_public_class_of_a_kind_is_known_without_their_base_class(
    module: str, base: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = getattr(nn.modules, module)
    members = [
        found
        for name, found in vars(nn).items()
        if isinstance(found, type)
        and issubclass(found, getattr(owner, base))
        # A lazy module becomes one of the others when it is first called.
        and not name.startswith("Lazy")
    ]
    assert len(members) >= 4
    again = without(monkeypatch, owner, base)
    assert [found for found in members if not issubclass(found, getattr(again, kind))] == []


# ---------------------------------------------------------------- forward and backward passes


@pytest.mark.parametrize(
    ("owner", "name", "said"),
    [
        (torch._C, "_current_graph_task_id", "the number of the running backward pass"),
        (torch.autograd.Variable, "_execution_engine", "when a backward pass ends"),
    ],
)
def test_a_lost_name_of_passes_is_said(
    owner: Any, name: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert said in without(monkeypatch, owner, name).LOST_PASSES


def test_where_passes_are_lost_weights_and_gradients_are_measured_and_the_rest_is_unseen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = probed(lambda model, optimizer: Probe(model, optimizer, histograms_every=1))
    monkeypatch.setattr(torch_internals, "LOST_PASSES", "torch 9 does not show them")
    lost = probed(lambda model, optimizer: Probe(model, optimizer, histograms_every=1))
    assert lost.unseen == ["z, h and dL/dz: torch 9 does not show them"]
    rows, rows_lost = (probe.to_frame().set_index("name") for probe in (whole, lost))
    for column in ("weight_norm", "grad_norm", "grad_max", "update_ratio"):
        assert rows_lost[column].to_dict() == rows[column].to_dict()
    assert rows_lost[["preact_std", "delta_rms", "dead_fraction"]].isna().all(axis=None)
    assert rows["delta_rms"].notna().all()
    assert lost.to_frame("histograms").empty


def test_a_run_is_trained_where_passes_are_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch_internals, "LOST_PASSES", "torch 9 does not show them")
    run = vgexp.run(changed(CONFIG, train={"steps": 2}), tmp_path / "run")
    assert run.summary["status"] == "completed"
    assert run.layers["grad_norm"].notna().all()
    assert run.layers["delta_rms"].isna().all()


# ---------------------------------------------------------------- loss scales


def probed(
    make: Callable[[nn.Module, torch.optim.Optimizer], Probe],
    scaler: torch.amp.GradScaler | None = None,
) -> Probe:
    """A probe of two steps, scaled if there is a scaler."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with make(model, optimizer) as probe:
        for _ in range(2):
            probe.want_step()
            optimizer.zero_grad()
            loss = model(torch.linspace(-1, 1, 28).reshape(7, 4)).square().mean()
            if scaler is None:
                loss.backward()
                optimizer.step()
                continue
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
    return probe


def doubling_scaler() -> torch.amp.GradScaler:
    return torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=1)


def deltas(probe: Probe) -> list[float]:
    return list(probe.to_frame()["delta_rms"])


def test_a_given_scaler_and_one_that_is_found_give_the_deltas_of_the_unscaled_loss() -> None:
    plain = deltas(probed(Probe))
    found = deltas(probed(Probe, doubling_scaler()))
    scaler = doubling_scaler()
    given = deltas(probed(lambda *both: Probe(*both, scaler=scaler), scaler))
    assert len(plain) == 4
    assert found == given
    assert given == pytest.approx(plain, rel=1e-5)


def test_the_scale_of_a_given_scaler_is_divided_out_where_the_loop_steps_itself() -> None:
    class Unscaling(torch.amp.GradScaler):
        """Of a loop that calls `optimizer.step` itself, so that nothing is found on the stack."""

        def step(self, optimizer: torch.optim.Optimizer, *_args: Any, **_kwargs: Any) -> None:
            self.unscale_(optimizer)
            optimizer.step()

    scaler = Unscaling("cpu", init_scale=2.0**10)
    given = deltas(probed(lambda *both: Probe(*both, scaler=scaler), scaler))
    assert given == pytest.approx(deltas(probed(Probe)), rel=1e-5)


@pytest.mark.parametrize("is_given", [True, False])
def test_a_disabled_scaler_scales_by_one(is_given: bool) -> None:
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    assert torch_internals.scale_of(scaler) == 1
    probe = probed(lambda *both: Probe(*both, scaler=scaler if is_given else None), scaler)
    assert deltas(probe) == deltas(probed(Probe))
    assert probe.unseen == []


def test_a_given_scaler_that_scaled_nothing_is_one_and_stays_unused() -> None:
    scaler = doubling_scaler()
    probe = probed(lambda *both: Probe(*both, scaler=scaler))
    assert deltas(probe) == deltas(probed(Probe))
    assert scaler._scale is None


def test_the_scale_is_asked_for_in_public_where_its_tensor_is_not_found() -> None:
    scaler = doubling_scaler()
    scaler.scale(torch.ones(()))
    hidden = type("Hidden", (), {"is_enabled": scaler.is_enabled, "scale": scaler.scale})()
    assert float(torch_internals.scale_of(hidden)) == float(torch_internals.scale_of(scaler))
    assert float(torch_internals.scale_of(scaler)) == 2.0**10


def test_where_no_scaler_can_be_found_the_probe_asks_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patch:
        # A function without `__code__`, as a compiled one is.
        patch.setattr(torch.amp.GradScaler, "step", len)
        again = imported_again()
    assert "Probe(..., scaler=scaler)" in again.LOST_SCALER
    monkeypatch.setattr(torch_internals, "_SCALER_STEP", again._SCALER_STEP)
    monkeypatch.setattr(torch_internals, "LOST_SCALER", again.LOST_SCALER)
    assert probed(Probe, doubling_scaler()).unseen == [f"the loss scale: {again.LOST_SCALER}"]
    scaler = doubling_scaler()
    given = probed(lambda *both: Probe(*both, scaler=scaler), scaler)
    assert given.unseen == []
    assert deltas(given) == pytest.approx(deltas(probed(Probe)), rel=1e-5)


@pytest.mark.parametrize("scaler", [1024.0, "auto", torch.ones(()), torch.amp.GradScaler])
def test_what_is_no_scaler_is_refused(scaler: Any) -> None:
    model = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(QuestionError, match=r"allowed: a torch\.amp\.GradScaler"):
        Probe(model, optimizer, scaler=scaler)


# ---------------------------------------------------------------- the compiler, and hooks


def test_a_stance_that_is_not_shown_is_brought_back_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import torch._dynamo

    shown = torch_internals.compiler_stance
    before = shown()
    assert before is torch._dynamo.eval_frame._stance
    with monkeypatch.context() as patch:
        patch.delattr(torch._dynamo.eval_frame, "_stance")
        assert torch_internals.compiler_stance() is None
    monkeypatch.setattr(compiled, "compiler_stance", lambda: None)
    model = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    stances = []
    with Probe(model, optimizer, activations_every=3), Probe(model, optimizer, activations_every=2):
        for _ in range(4):
            stances.append(shown().stance)  # type: ignore[attr-defined]
            optimizer.step()
    assert stances == ["force_eager", "default", "force_eager", "force_eager"]
    assert shown() == before


def test_a_compiled_module_is_taken_as_it_is_where_its_own_is_not_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = nn.Linear(2, 2)
    wrapped: Any = torch.compile(model, backend="eager")
    assert torch_internals.uncompiled(wrapped) is model
    assert torch_internals.uncompiled(model) is model
    monkeypatch.delattr(torch._dynamo.eval_frame, "OptimizedModule")
    assert torch_internals.uncompiled(wrapped) is wrapped


def test_a_hook_that_is_kept_elsewhere_is_not_missed() -> None:
    model = nn.Linear(2, 2)
    kept = model.register_forward_hook(lambda *_: None)
    gone = model.register_forward_pre_hook(lambda *_: None, with_kwargs=True)
    torch_internals.remove_forward_hook(model, gone.id)
    assert not model._forward_pre_hooks
    assert not model._forward_pre_hooks_with_kwargs
    assert list(model._forward_hooks) == [kept.id]
    del model._forward_pre_hooks
    torch_internals.remove_forward_hook(model, gone.id)
    assert list(model._forward_hooks) == [kept.id]
