"""The Hessian of the update's loss against exact ones, and that measuring it changes nothing.

Holds: training/curvature.py, training/trainer.py
"""

from __future__ import annotations

import copy
import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from vgexp import machine, runs
from vgexp.assembly import assemble
from vgexp.config import (
    CHOICES,
    AdamConfig,
    AddingConfig,
    CnnConfig,
    Config,
    CosineConfig,
    CustomConfig,
    DataConfig,
    DigitsConfig,
    GaussianConfig,
    LstmConfig,
    MlpConfig,
    MomentumConfig,
    OptimizerConfig,
    OutputConfig,
    ProbeConfig,
    RmspropConfig,
    SgdConfig,
    TrainConfig,
    VitConfig,
)
from vgexp.data.batches import Batch
from vgexp.errors import QuestionError
from vgexp.quantities import CURVATURE
from vgexp.records import Rows
from vgexp.sinks.csv_files import CsvFiles
from vgexp.training import Trainer
from vgexp.training.curvature import stability_limit

DATA = GaussianConfig(num_examples=120, features=4, num_classes=3, batch_size=15)
SMALL = MlpConfig(depth=2, width=5, activation="tanh", init="xavier_normal", bias_std=0.3)


def config_of(model: Any = SMALL, data: DataConfig = DATA, **changes: Any) -> Config:
    every = changes.pop("curvature_every", 1)
    probe = ProbeConfig(every=3, activations_every=3, curvature_every=every)
    changes = {"train": TrainConfig(steps=4, eval_every=2), "dtype": "float64"} | changes
    return Config(model=model, data=data, probe=probe, **changes)


def row_of(trainer: Trainer, batch: Batch) -> dict[str, Any]:
    """The row of an update, with the run's stream lent as it is in a run."""
    assert trainer.state.curvature is not None
    trainer.state.stream.begin()
    try:
        rows = trainer.state.curvature.rows(trainer.state, batch)
    finally:
        trainer.state.stream.end()
    assert list(rows.columns) == [column.name for column in CURVATURE]
    return {name: cells[0] for name, cells in rows.columns.items()}


def hessian_of(trainer: Trainer, batch: Batch) -> Tensor:
    """The exact Hessian by torch.func, over the trainable parameters, of the model as it is."""
    state = trainer.state
    model = copy.deepcopy(state.model)
    named = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}
    start, sizes = state.stream.state_dict()[0], [p.numel() for p in named.values()]

    def loss(flat_P: Tensor) -> Tensor:
        parts = flat_P.split(sizes)
        given = {n: part.view_as(p) for (n, p), part in zip(named.items(), parts, strict=True)}
        each = [
            state.loss.mean(torch.func.functional_call(model, given, (x,)), y) for x, y in batch
        ]
        return torch.stack(each).mean()

    outside = torch.get_rng_state()
    torch.set_rng_state(start)
    flat_P = torch.cat([p.flatten() for p in named.values()])
    exact = torch.autograd.functional.hessian(loss, flat_P)
    torch.set_rng_state(outside)
    return exact


def assert_is(row: dict[str, Any], exact_PP: Tensor) -> None:
    values = np.linalg.eigvalsh(exact_PP.numpy())
    assert row["hessian_max"] == pytest.approx(values[-1], rel=1e-5)
    assert np.abs(values - row["hessian_min"]).min() <= row["hessian_min_residual"] + 1e-12
    assert values[0] - 1e-12 <= row["hessian_min"] <= values[-1]
    assert abs(row["hessian_trace"] - values.sum()) <= 6 * row["hessian_trace_error"] + 1e-9


# ---------------------------------------------------------------- exact Hessians


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("activation", ["tanh", "gelu", "sigmoid"])
def test_a_small_nets_hessian_is_what_autograd_makes_in_full(activation: str, seed: int) -> None:
    model = dataclasses.replace(SMALL, activation=activation)
    trainer = assemble(config_of(model, seed=seed))
    batch = [trainer.state.batches.next()]
    assert_is(row_of(trainer, batch), hessian_of(trainer, batch))


def custom(target: str, **kwargs: Any) -> Config:
    return config_of(CustomConfig(target=target, kwargs=kwargs))


def test_of_logistic_regression_it_is_the_covariance_of_the_softmax_times_that_of_the_inputs() -> (
    None
):
    """H = mean over examples of (diag p - p p^T) x (x, 1)(x, 1)^T, its largest eigenvalue by
    numpy."""
    trainer = assemble(custom("torch.nn.Linear", in_features=4, out_features=3))
    x_BI, y_B = trainer.state.batches.next()
    with torch.no_grad():
        p_BC = trainer.state.model(x_BI).softmax(1).numpy()
    x1_BI = np.hstack([x_BI.numpy(), np.ones((15, 1))])
    cov_BCC = np.einsum("bi,ij->bij", p_BC, np.eye(3)) - np.einsum("bi,bj->bij", p_BC, p_BC)
    h_PP = np.einsum("bij,bk,bl->ikjl", cov_BCC, x1_BI, x1_BI).reshape(15, 15) / 15
    row = row_of(trainer, [(x_BI, y_B)])
    assert row["hessian_max"] == pytest.approx(np.linalg.eigvalsh(h_PP)[-1], rel=1e-6)
    assert row["hessian_trace"] == pytest.approx(np.trace(h_PP), rel=1e-6) or (
        abs(row["hessian_trace"] - np.trace(h_PP)) <= 6 * row["hessian_trace_error"]
    )


@pytest.mark.parametrize("gain", [1e-8, 1e8])
def test_a_linear_nets_hessian_of_squared_error_is_that_of_its_inputs(gain: float) -> None:
    """Of mean squared error over N examples and K values H is 2/K mean x x^T, K times over."""
    torch.manual_seed(0)
    model = nn.Linear(6, 2, bias=False).double()
    x_BI, y_BK = gain * torch.randn(20, 6).double(), torch.randn(20, 2).double()
    trainer = assemble(config_of())
    trainer.state.model = model
    trainer.state.loss = dataclasses.replace(trainer.state.loss, mean=nn.functional.mse_loss)
    row = row_of(trainer, [(x_BI, y_BK)])
    inner_II = (x_BI.T @ x_BI / 20).numpy()
    assert row["hessian_max"] == pytest.approx(np.linalg.eigvalsh(inner_II)[-1], rel=1e-5)
    assert row["hessian_trace"] == pytest.approx(
        2 * np.trace(inner_II), abs=6 * row["hessian_trace_error"] + 1e-9 * gain**2
    )


@pytest.mark.parametrize("bias", [True, False])
def test_micro_batches_have_the_hessian_of_one_batch(bias: bool) -> None:
    trainer = assemble(config_of(dataclasses.replace(SMALL, bias=bias)))
    batch = [trainer.state.batches.next() for _ in range(3)]
    whole = [(torch.cat([x for x, _ in batch]), torch.cat([y for _, y in batch]))]
    parts = row_of(trainer, batch)
    trainer.state.curvature.load_state_dict(None)  # type: ignore[union-attr]
    expected = row_of(trainer, whole)
    assert parts.pop("name") == expected.pop("name") == "model"
    assert parts == pytest.approx(expected, rel=1e-6, abs=1e-9)
    assert_is(parts, hessian_of(trainer, batch))


@pytest.mark.parametrize("num_batches", [1, 2])
@pytest.mark.parametrize("changes", [{"dropout": 0.4}, {"norm": "batch"}])
def test_dropout_has_the_updates_masks_and_batch_norm_the_batchs_statistics(
    changes: dict[str, Any], num_batches: int
) -> None:
    trainer = assemble(config_of(dataclasses.replace(SMALL, **changes)))
    batch = [trainer.state.batches.next() for _ in range(num_batches)]
    exact_PP = hessian_of(trainer, batch)
    assert_is(row_of(trainer, batch), exact_PP)
    trainer.state.model.eval()
    assert not torch.allclose(hessian_of(trainer, batch), exact_PP, rtol=0.1)


def test_frozen_parameters_take_no_part() -> None:
    trainer = assemble(config_of())
    batch = [trainer.state.batches.next()]
    whole = row_of(trainer, batch)
    trainer.state.model.layers[0].linear.weight.requires_grad_(False)  # type: ignore[union-attr,index]
    trainer.state.curvature.load_state_dict(None)  # type: ignore[union-attr]
    row = row_of(trainer, batch)
    assert_is(row, hessian_of(trainer, batch))
    assert row["hessian_max"] < whole["hessian_max"]


def test_where_no_gradient_bends_the_hessian_is_zero() -> None:
    """Two products of weights that are all 0: to second order nothing moves."""
    model = dataclasses.replace(SMALL, depth=3, init="normal", gain=0.0, bias=False, bias_std=0.0)
    row = row_of(trainer := assemble(config_of(model)), [trainer.state.batches.next()])
    zero = ("hessian_max", "hessian_min", "hessian_trace", "hessian_trace_error")
    assert [row[name] for name in zero] == [0, 0, 0, 0]


def test_a_hessian_that_is_not_finite_is_written_as_that_and_forgotten() -> None:
    trainer = assemble(config_of())
    batch = [trainer.state.batches.next()]
    with torch.no_grad():
        trainer.state.model.readout.weight.fill_(math.inf)  # type: ignore[operator,union-attr]
    row = row_of(trainer, batch)
    assert all(math.isnan(row[name]) for name in ("hessian_max", "hessian_min", "hessian_trace"))
    assert trainer.state.curvature.state_dict() is None  # type: ignore[union-attr]


DATA_OF: dict[str, DataConfig] = {
    "image": DigitsConfig(batch_size=4),
    "sequence": AddingConfig(batch_size=4, num_examples=40, seq_len=6),
}


@pytest.mark.parametrize("family", CHOICES["model"])
def test_of_every_family_the_gradient_bends_along_the_vector_as_much_as_it_says(
    family: str,
) -> None:
    """v.(g(w + e v) - g(w - e v)) / 2e by plain backward passes, fused kernels included."""
    cls = CHOICES["model"][family]
    if family in ("custom", "torchvision"):
        return
    data = DATA_OF["sequence" if "sequence" in cls.reads else "image"]
    small = {"resnet": {"depth": 8}, "densenet": {"depth": 7}}.get(family, {"width": 8})
    has_phi = "activation" in (field.name for field in dataclasses.fields(cls))
    smooth = {"activation": "tanh"} if has_phi else {}
    trainer = assemble(config_of(cls(**small, **smooth), data))
    state, batch = trainer.state, [trainer.state.batches.next()]
    row = row_of(trainer, batch)
    parameters = list(state.model.parameters())
    parts = state.curvature.state_dict().split([p.numel() for p in parameters])  # type: ignore[union-attr]
    v = [part.view_as(p) for part, p in zip(parts, parameters, strict=True)]

    def bent(step: float) -> Tensor:
        with torch.no_grad():
            torch._foreach_add_(parameters, v, alpha=step)
        loss = state.loss.mean(state.model(batch[0][0]), batch[0][1])
        grads = torch.autograd.grad(loss, parameters)
        with torch.no_grad():
            torch._foreach_add_(parameters, v, alpha=-step)
        return torch.stack([(g * d).sum() for g, d in zip(grads, v, strict=True)]).sum()

    along = float(bent(1e-5) - bent(-1e-5)) / 2e-5
    assert along == pytest.approx(row["hessian_max"], rel=1e-4)


# ---------------------------------------------------------------- a guest


GUESTS: dict[str, Config] = {
    "dropout": config_of(dataclasses.replace(SMALL, norm="batch", dropout=0.3)),
    "accumulate": config_of(
        dataclasses.replace(SMALL, dropout=0.3), train=TrainConfig(steps=4, accumulate=2)
    ),
    "cnn": config_of(CnnConfig(depth=2, width=4, norm="batch"), DATA_OF["image"], dtype="float32"),
    "lstm": config_of(LstmConfig(depth=1, width=6), DATA_OF["sequence"], dtype="bfloat16"),
    "vit": config_of(VitConfig(depth=1, width=8, dropout=0.2), DATA_OF["image"], dtype="float32"),
    "recomputed": config_of(
        dataclasses.replace(SMALL, norm="batch"),
        train=TrainConfig(steps=4, checkpoint_activations=True),
    ),
    "float16": config_of(dtype="float16", optimizer=AdamConfig(lr=0.01)),
    "noise": config_of(train=TrainConfig(steps=4, gradient_noise=0.1)),
}


def cells_of(config: Config) -> tuple[dict[str, list[Any]], list[Rows], Trainer]:
    """Every cell of every table but times and curvature; the rows of curvature."""
    trainer = assemble(config)
    cells: dict[str, list[Any]] = {}
    curvature = []
    for rows in trainer.rows():
        if rows.table == "curvature":
            curvature.append(rows)
        elif rows.table != "timing":
            for name, values in rows.columns.items():
                cells.setdefault(f"{rows.table}.{name}", []).extend(map(str, values))
    return cells, curvature, trainer


@pytest.mark.parametrize("name", GUESTS)
def test_a_run_is_the_same_with_it_and_without(name: str) -> None:
    config = GUESTS[name]
    never = dataclasses.replace(config.probe, curvature_every=0)
    cells, curvature, with_it = cells_of(config)
    plain, none, without = cells_of(dataclasses.replace(config, probe=never))
    assert cells == plain
    assert (len(curvature), len(none)) == (4, 0)
    one, other = with_it.state.model.state_dict(), without.state.model.state_dict()
    assert all(torch.equal(one[key], other[key]) for key in one)
    assert "curvature" in with_it.facts.tables
    assert "curvature" not in without.facts.tables


def test_callers_generators_and_kernels_are_left_alone() -> None:
    trainer = assemble(GUESTS["vit"])
    before, kernels = torch.get_rng_state(), torch.backends.cuda.flash_sdp_enabled()
    row_of(trainer, [trainer.state.batches.next()])
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.backends.cuda.flash_sdp_enabled() == kernels


@pytest.mark.parametrize(("every", "steps"), [(3, [0, 3, 6, 7]), (7, [0, 7]), (100, [0, 7])])
def test_it_is_measured_at_its_cadence_and_at_both_ends(every: int, steps: list[int]) -> None:
    config = config_of(curvature_every=every, train=TrainConfig(steps=8))
    _, curvature, _ = cells_of(config)
    assert [rows.columns["step"][0] for rows in curvature] == steps


def test_half_precision_is_measured_in_the_dtype_of_the_parameters() -> None:
    _, half, _ = cells_of(config_of(dtype="bfloat16"))
    _, single, _ = cells_of(config_of(dtype="float32"))
    _, double, _ = cells_of(config_of(dtype="float64"))
    assert half[0] == single[0]
    assert half[0].columns["hessian_max"] == pytest.approx(
        double[0].columns["hessian_max"], rel=1e-4
    )


def test_a_run_that_goes_on_measures_what_it_would_have_measured(tmp_path: Path) -> None:
    config = config_of(
        dataclasses.replace(SMALL, dropout=0.2),
        train=TrainConfig(steps=9),
        output=OutputConfig(quiet=True),
        curvature_every=2,
    )
    config.run.checkpoint_every = 3
    whole = runs.run(config, tmp_path / "whole").folder

    class Torn(BaseException):
        pass

    def tear(rows: Rows) -> None:
        if rows.table == "curvature" and rows.columns["step"] == [6]:
            raise Torn

    with pytest.MonkeyPatch.context() as patch:
        write = CsvFiles.__call__

        def write_or_tear(files: CsvFiles, rows: Rows) -> None:
            tear(rows)
            write(files, rows)

        patch.setattr(CsvFiles, "__call__", write_or_tear)
        with pytest.raises(Torn):
            runs.run(config, tmp_path / "torn")
    said: list[str] = []
    runs.resume(tmp_path / "torn", said.append)
    assert "going on from step 6" in said[0]
    for table in ("curvature", "steps", "layers"):
        torn, file = tmp_path / "torn" / f"{table}.csv", whole / f"{table}.csv"
        assert torn.read_bytes() == file.read_bytes()
    assert file.read_bytes().count(b"\n") > 1


def test_the_start_is_the_last_vector_without_which_the_digits_differ() -> None:
    trainer = assemble(config_of(dataclasses.replace(SMALL, width=40)))
    batch = [trainer.state.batches.next()]
    cold = row_of(trainer, batch)
    warm = row_of(trainer, batch)
    assert warm["hessian_max"] == pytest.approx(cold["hessian_max"], rel=1e-4)
    assert warm["hessian_max_residual"] < cold["hessian_max_residual"]


def test_each_step_and_each_seed_draws_its_own() -> None:
    config = config_of(dataclasses.replace(SMALL, width=40), optimizer=SgdConfig(lr=0.0))
    trainer = assemble(config)
    batch = [trainer.state.batches.next()]
    traces = []
    for step in (0, 1, 0):
        trainer.state.step = step
        trainer.state.curvature.load_state_dict(None)  # type: ignore[union-attr]
        traces.append(row_of(trainer, batch)["hessian_trace"])
    assert traces[0] == traces[2] != traces[1]


# ---------------------------------------------------------------- refusals


class Once(torch.autograd.Function):
    """Twice its input, with a derivative that has none."""

    @staticmethod
    def forward(_ctx: Any, x: Tensor) -> Tensor:
        return 2 * x

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(_ctx: Any, grad: Tensor) -> Tensor:
        return 2 * grad


class OnceOnly(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return Once.apply(super().forward(x))  # type: ignore[no-untyped-call,no-any-return]


class NeverCopied(nn.Linear):
    def __deepcopy__(self, memo: object) -> NeverCopied:
        raise TypeError("it holds a lock")


@pytest.mark.parametrize(
    ("model", "words"),
    [(OnceOnly(4, 3), "second derivative: trying to diff"), (NeverCopied(4, 3), "holds a lock")],
)
def test_a_model_that_has_no_hessian_is_refused_in_one_block(model: nn.Module, words: str) -> None:
    trainer = assemble(config_of())
    trainer.state.model = model.double()
    with pytest.raises(QuestionError, match=words) as caught:
        row_of(trainer, [trainer.state.batches.next()])
    assert "probe.curvature_every=0" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 2


def test_another_failure_is_none_of_ours() -> None:
    trainer = assemble(config_of())
    trainer.state.model = nn.Linear(5, 3).double()
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        row_of(trainer, [trainer.state.batches.next()])


def test_what_it_keeps_of_each_parameter_counts_as_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    num_parameters = 4 * 5 + 5 * 5 + 5 * 3 + 5 + 5 + 3
    lent = 8 * num_parameters * 10 + 10_000
    monkeypatch.setattr(machine, "available_bytes", lambda _device: lent)
    assemble(config_of(curvature_every=0))
    with pytest.raises(QuestionError, match="its training needs"):
        assemble(config_of())


def test_a_negative_cadence_is_impossible() -> None:
    with pytest.raises(QuestionError, match=r"probe.curvature_every is -1"):
        ProbeConfig(curvature_every=-1)


# ---------------------------------------------------------------- the stability limit


BEARING: dict[str, OptimizerConfig] = {
    "sgd": SgdConfig(lr=0.05),
    "decayed": SgdConfig(lr=0.05, weight_decay=8.0),
    "momentum": MomentumConfig(lr=0.02, momentum=0.8),
    "decayed momentum": MomentumConfig(lr=0.02, momentum=0.5, weight_decay=3.0),
}


@pytest.mark.parametrize("name", BEARING)
@pytest.mark.parametrize("over", [0.99, 1.01])
def test_on_a_quadratic_an_update_grows_exactly_above_the_limit(name: str, over: float) -> None:
    optimizer = assemble(config_of(optimizer=BEARING[name])).state.optimizer
    limit = stability_limit(optimizer)
    assert limit is not None
    w_P = nn.Parameter(torch.tensor([1.0, 1.0]).double())
    h_P = torch.tensor([over * limit, 0.3]).double()
    settings = {k: v for k, v in optimizer.param_groups[0].items() if k != "params"}
    stepped = torch.optim.SGD([w_P], **settings)
    for _ in range(2000):
        w_P.grad = (h_P * w_P).detach()
        stepped.step()
    length = abs(w_P[0].item())
    assert length > 1e3 if over > 1 else length < 1e-3


@pytest.mark.parametrize("optimizer", [AdamConfig(), RmspropConfig()])
def test_of_optimizers_with_a_number_for_each_entry_no_limit_is_told(
    optimizer: OptimizerConfig,
) -> None:
    _, curvature, _ = cells_of(config_of(optimizer=optimizer, train=TrainConfig(steps=2)))
    assert [rows.columns["stability_limit"] for rows in curvature] == [[None], [None]]


def test_the_limit_follows_the_schedule() -> None:
    config = config_of(optimizer=SgdConfig(lr=0.2), scheduler=CosineConfig())
    _, curvature, _ = cells_of(config)
    lrs = [0.2 * (1 + math.cos(math.pi * s / 4)) / 2 for s in range(4)]
    limits = [rows.columns["stability_limit"][0] for rows in curvature]
    assert [rows.columns["lr"][0] for rows in curvature] == pytest.approx(lrs)
    assert limits == pytest.approx([2 / lr for lr in lrs])
