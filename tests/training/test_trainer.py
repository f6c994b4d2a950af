"""The trainer against a loop written by hand, and the laws that its tables obey.

Holds: training/trainer.py, assembly/networks.py, training/evaluation.py, training/facts.py,
training/state.py, training/step.py
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from columns import ACTIVATION_COLUMNS, WEIGHT_COLUMNS
from torch import Tensor, nn
from trainers import (
    BASE,
    MODEL,
    NEVER,
    Table,
    assert_same,
    changed,
    collected,
    require_going_on,
    stopped_during,
    tables_of,
)

from vgexp import data
from vgexp.assembly import assemble
from vgexp.config import (
    AdamConfig,
    AdamwConfig,
    AutoClipConfig,
    Config,
    ConstantConfig,
    CosineConfig,
    MlpConfig,
    MomentumConfig,
    NormClipConfig,
    OptimizerConfig,
    PlateauConfig,
    ProbeConfig,
    RmspropConfig,
    SchedulerConfig,
    SgdConfig,
    StepConfig,
    TrainConfig,
    WarmupCosineConfig,
)
from vgexp.errors import QuestionError
from vgexp.training import Trainer, evaluation, history

# ---------------------------------------------------------------- by hand


@dataclass
class Plateau:
    """The rate falls after more evaluations without a clearly better loss than are patient."""

    factor: float
    patience: int
    best: float = math.inf
    bad: int = 0
    rate: float = 1.0

    def hear(self, loss: float) -> None:
        self.bad = 0 if loss < self.best * (1 - 1e-4) else self.bad + 1
        self.best = min(self.best, loss)
        if self.bad > self.patience:
            self.rate, self.bad = self.rate * self.factor, 0


def rate_at(config: SchedulerConfig, s: int, num_steps: int) -> float:
    """The schedule's factor at update s, from its definition."""
    if isinstance(config, StepConfig):
        return config.factor ** (s // round(config.interval_fraction * num_steps))
    if isinstance(config, CosineConfig):
        return (1 + math.cos(math.pi * s / num_steps)) / 2
    if isinstance(config, WarmupCosineConfig):
        rise = round(config.warmup_fraction * num_steps)
        if s < rise:
            return (s + 1) / (rise + 1)
        return (1 + math.cos(math.pi * (s - rise) / (num_steps - rise))) / 2
    return 1.0


def torch_optimizer(config: OptimizerConfig, parameters: list[nn.Parameter]) -> Any:
    """The optimizer as a user of torch would write it."""
    plain: dict[type, Any] = {
        SgdConfig: lambda: torch.optim.SGD(parameters, 0.3),
        MomentumConfig: lambda: torch.optim.SGD(parameters, 0.1, momentum=0.8),
        RmspropConfig: lambda: torch.optim.RMSprop(parameters, 0.01),
        AdamConfig: lambda: torch.optim.Adam(parameters, 0.02),
        AdamwConfig: lambda: torch.optim.AdamW(parameters, 0.02, weight_decay=0.1),
    }
    return plain[type(config)]()


OPTIMIZERS: list[OptimizerConfig] = [
    SgdConfig(lr=0.3),
    MomentumConfig(lr=0.1, momentum=0.8),
    RmspropConfig(lr=0.01),
    AdamConfig(lr=0.02),
    AdamwConfig(lr=0.02, weight_decay=0.1),
]
SCHEDULERS: list[SchedulerConfig] = [
    ConstantConfig(),
    StepConfig(interval_fraction=0.25, factor=0.3),
    CosineConfig(),
    WarmupCosineConfig(warmup_fraction=0.2),
    PlateauConfig(factor=0.5, patience=0),
]


def network_of(trainer: Trainer) -> nn.Sequential:
    """A plain perceptron with the trainer's first weights."""
    weights = copy.deepcopy(trainer.state.model.state_dict())
    layers: list[nn.Module] = []
    for index in range(MODEL.depth):
        layers += [_linear(weights, f"layers.{index}.linear"), nn.Tanh()]
    return nn.Sequential(*layers, _linear(weights, "readout"))


def _linear(weights: dict[str, Tensor], name: str) -> nn.Linear:
    weight, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
    linear = nn.Linear(weight.shape[1], weight.shape[0], dtype=torch.float64)
    linear.load_state_dict({"weight": weight, "bias": bias})
    return linear


def log_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Minus the mean log probability of the right class, from its definition."""
    probability = logits.exp() / logits.exp().sum(1, keepdim=True)
    return -probability[torch.arange(len(targets)), targets].log().mean()


def by_hand(config: Config) -> tuple[list[dict[str, float]], list[dict[str, Any]]]:
    """`steps` and `evals` of a loop as a student writes it: one forward pass an update."""
    trainer = assemble(config)
    model, batches = network_of(trainer), trainer.state.batches
    splits = data.load(config.data, config.seed, torch.float64)
    optimizer = torch_optimizer(config.optimizer, list(model.parameters()))
    base = optimizer.param_groups[0]["lr"]
    plateau = None
    if isinstance(config.scheduler, PlateauConfig):
        plateau = Plateau(config.scheduler.factor, config.scheduler.patience)
    limit = config.clip.threshold if isinstance(config.clip, NormClipConfig) else math.inf
    per_epoch = len(splits.train) // config.data.batch_size
    steps: list[dict[str, float]] = []
    evals: list[dict[str, Any]] = []
    num_batches = 0

    def evaluate(split: str) -> float:
        examples = getattr(splits, split)
        if not len(examples):
            return math.nan
        with torch.no_grad():
            logits = model(examples.inputs)
        right = (logits.argmax(1) == examples.targets).double().mean()
        loss = float(log_loss(logits, examples.targets))
        evals.append({"step": len(steps), "split": split, "loss": loss, "accuracy": float(right)})
        return loss

    evaluate("train"), evaluate("val")
    assert config.train.steps is not None
    for s in range(config.train.steps):
        drawn = [batches.next() for _ in range(config.train.accumulate)]
        inputs, targets = torch.cat([x for x, _ in drawn]), torch.cat([y for _, y in drawn])
        rate = plateau.rate if plateau else rate_at(config.scheduler, s, config.train.steps)
        optimizer.param_groups[0]["lr"] = base * rate
        logits = model(inputs)
        loss = log_loss(logits, targets)
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        norm = math.sqrt(sum(g.square().sum().item() for g in gradients))
        factor = min(1.0, limit / norm)
        for parameter, gradient in zip(model.parameters(), gradients, strict=True):
            parameter.grad = gradient * factor
        optimizer.step()
        steps.append(
            {
                "step": s,
                "epoch": num_batches // per_epoch,
                "lr": base * rate,
                "loss": loss.item(),
                "accuracy": float((logits.argmax(1) == targets).double().mean()),
                "grad_norm": norm,
                "grad_norm_clipped": norm * factor,
                "clipped": int(factor < 1),
                "skipped": 0,
            }
        )
        num_batches += config.train.accumulate
        is_last = s == config.train.steps - 1
        if is_last or (config.train.eval_every and (s + 1) % config.train.eval_every == 0):
            evaluate("train")
            val_loss = evaluate("val")
            if plateau and math.isfinite(val_loss):
                plateau.hear(val_loss)
    if len(splits.test):
        evaluate("test")
    return steps, evals


def assert_close(table: Table, rows: list[dict[str, Any]]) -> None:
    for name in rows[0]:
        expected = [row[name] for row in rows]
        if isinstance(expected[0], str):
            assert table[name] == expected
            continue
        measured = [math.nan if cell is None else float(cell) for cell in table[name]]
        wanted = [math.nan if cell is None else float(cell) for cell in expected]
        np.testing.assert_allclose(measured, wanted, rtol=1e-9, atol=1e-13, err_msg=name)


def assert_as_by_hand(config: Config) -> dict[str, Table]:
    tables = tables_of(config)
    steps, evals = by_hand(config)
    assert_close(tables["steps"], steps)
    assert_close(tables["evals"], evals)
    return tables


@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda o: type(o).__name__)
def test_steps_and_evals_are_those_of_a_loop_by_hand(
    optimizer: OptimizerConfig, accumulate: int
) -> None:
    assert_as_by_hand(changed(BASE, optimizer=optimizer, train={"accumulate": accumulate}))


def test_an_evaluation_in_several_batches_is_that_of_the_whole_split(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(evaluation, "EVAL_BATCH", 7)
    assert_as_by_hand(BASE)


@pytest.mark.parametrize("scheduler", SCHEDULERS, ids=lambda s: type(s).__name__)
def test_every_schedule_gives_each_update_the_rate_of_its_formula(
    scheduler: SchedulerConfig,
) -> None:
    tables = assert_as_by_hand(changed(BASE, scheduler=scheduler, train={"eval_every": 2}))
    if not isinstance(scheduler, ConstantConfig):
        assert len(set(tables["steps"]["lr"])) > 1, "the case says nothing unless the rate moves"


@pytest.mark.parametrize("accumulate", [1, 3])
def test_clipping_to_a_norm_is_recorded_before_and_after(accumulate: int) -> None:
    config = changed(BASE, clip=NormClipConfig(threshold=0.4), train={"accumulate": accumulate})
    steps = assert_as_by_hand(config)["steps"]
    assert set(steps["clipped"]) == {0, 1}, "the case says nothing unless some are clipped"


# ---------------------------------------------------------------- what is evaluated when


@pytest.mark.parametrize(
    ("eval_every", "evaluated"),
    [(0, [0, 23]), (5, [0, 5, 10, 15, 20, 23]), (23, [0, 23]), (100, [0, 23]), (1, range(24))],
)
def test_an_evaluation_at_step_s_is_after_s_updates(eval_every: int, evaluated: list[int]) -> None:
    evals = assert_as_by_hand(changed(BASE, train={"eval_every": eval_every}))["evals"]
    for split in ("train", "val"):
        rows = [i for i, name in enumerate(evals["split"]) if name == split]
        assert [evals["step"][i] for i in rows] == list(evaluated)
    assert [i for i, name in enumerate(evals["split"]) if name == "test"] == [
        len(evals["step"]) - 1
    ]
    assert evals["step"][-1] == 23


def test_a_split_without_examples_has_no_rows() -> None:
    evals = assert_as_by_hand(changed(BASE, data={"val_fraction": 0.0}))["evals"]
    assert evals["split"] == ["train"] * 6
    assert None not in evals["loss"]


@pytest.mark.parametrize(
    ("epochs", "accumulate", "num_steps"), [(1, 1, 6), (4, 1, 24), (4, 3, 8), (4, 5, 4), (1, 50, 1)]
)
def test_epochs_are_passes_over_the_training_split(
    epochs: int, accumulate: int, num_steps: int
) -> None:
    # 96 training examples: 6 batches of 16.
    train = TrainConfig(epochs=epochs, accumulate=accumulate)
    tables = tables_of(changed(BASE, train=train))
    assert tables["steps"]["step"] == list(range(num_steps))
    if epochs * 6 % accumulate == 0:
        assert tables["evals"]["epoch"][-1] == epochs


# ---------------------------------------------------------------- which rows there are


@pytest.mark.parametrize("steps", [1, 2, 20, 21, 30])
def test_the_first_and_the_last_step_have_every_column(steps: int) -> None:
    probe = ProbeConfig(every=7, activations_every=9)
    layers = tables_of(changed(BASE, train={"steps": steps}, probe=probe))["layers"]
    for first_or_last in (0, steps - 1):
        rows = [i for i, step in enumerate(layers["step"]) if step == first_or_last]
        assert [layers["layer"][i] for i in rows] == [1, 2, 3, 4]
        for column in (*WEIGHT_COLUMNS, "preact_std", "act_std", "saturated_fraction", "delta_rms"):
            hidden = rows[:-1] if column in ("act_std", "saturated_fraction") else rows
            assert all(layers[column][i] is not None for i in hidden), column


def test_columns_are_empty_where_their_cadence_leaves_them_out() -> None:
    probe = ProbeConfig(every=4, activations_every=6)
    layers = tables_of(changed(BASE, probe=probe))["layers"]
    measured = {
        group: sorted(
            {s for s, cell in zip(layers["step"], layers[column], strict=True) if cell is not None}
        )
        for group, column in (("weights", "grad_norm"), ("activations", "delta_rms"))
    }
    assert measured["weights"] == [0, 4, 8, 12, 16, 20, 22]
    assert measured["activations"] == [0, 6, 12, 18, 22]


@pytest.mark.parametrize(("norm", "dtype"), [("none", "float32"), ("batch", "float64")])
def test_losses_are_bit_identical_whether_measured_or_not(norm: str, dtype: str) -> None:
    config = changed(BASE, model={"norm": norm}, dtype=dtype, optimizer=AdamConfig())
    every = tables_of(changed(config, probe=ProbeConfig(every=1, activations_every=1)))
    never = tables_of(changed(config, probe=ProbeConfig(every=NEVER, activations_every=NEVER)))
    for table in ("steps", "evals"):
        assert_same({table: every[table]}, {table: never[table]})
    assert len(every["layers"]["step"]) == 23 * 4
    assert set(never["layers"]["step"]) == {0, 22}


# ---------------------------------------------------------------- randomness


def test_a_run_draws_from_its_own_generators_only() -> None:
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002 - the global state is what must not move
    before = torch.get_rng_state(), np.random.get_state()  # noqa: NPY002
    one = tables_of(changed(BASE, model={"init": "lsuv"}))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert str(np.random.get_state()) == str(before[1])  # noqa: NPY002
    torch.manual_seed(6)
    assert_same(one, tables_of(changed(BASE, model={"init": "lsuv"})))


def first_weight(config: Config) -> Tensor:
    return next(assemble(config).state.model.parameters()).detach()


def test_what_is_drawn_for_one_use_leaves_the_others_alone() -> None:
    other_data = changed(BASE, data={"num_examples": 400})
    assert torch.equal(first_weight(BASE), first_weight(other_data))
    deeper = changed(BASE, model={"width": 9, "depth": 5})
    one, other = (assemble(c).state.batches.next()[0] for c in (BASE, deeper))
    assert torch.equal(one, other)
    assert not torch.equal(first_weight(BASE), first_weight(changed(BASE, seed=1)))
    # What training draws (order) moves nothing that a later assembly draws.
    trainer = assemble(BASE)
    list(trainer.rows())
    assert torch.equal(first_weight(BASE), first_weight(BASE))
    assert_same(tables_of(BASE), tables_of(BASE))


def test_the_dtype_does_not_change_the_order_of_the_data() -> None:
    single = changed(BASE, dtype="float32")
    for _ in range(2):
        one, other = (assemble(config).state.batches.next() for config in (BASE, single))
        assert torch.equal(one[1], other[1])
        assert torch.equal(one[0].float(), other[0])


# ---------------------------------------------------------------- state


RESUMED = [
    changed(BASE, optimizer=AdamConfig(lr=0.02), scheduler=WarmupCosineConfig()),
    changed(
        BASE, optimizer=MomentumConfig(lr=0.1), scheduler=StepConfig(), model={"norm": "batch"}
    ),
    changed(BASE, scheduler=PlateauConfig(patience=0, factor=0.5), clip=AutoClipConfig()),
    changed(BASE, optimizer=RmspropConfig(), scheduler=CosineConfig(), train={"accumulate": 3}),
    changed(BASE, optimizer=AdamwConfig(), dtype="float32", clip=NormClipConfig(threshold=0.4)),
]


@pytest.mark.parametrize("stop_after", [3, 10, 12])
@pytest.mark.parametrize("config", RESUMED, ids=lambda c: type(c.optimizer).__name__)
def test_a_loaded_state_goes_on_with_exactly_the_rows_that_follow(
    config: Config, stop_after: int
) -> None:
    probe = ProbeConfig(every=2, activations_every=3, histograms_every=5)
    config = changed(config, probe=probe)
    require_going_on(config, stop_after)


@pytest.mark.parametrize("probe", [ProbeConfig(), ProbeConfig(every=1), ProbeConfig(every=2)])
def test_stop_ends_after_one_more_step_that_has_every_column(probe: ProbeConfig) -> None:
    trainer = assemble(changed(BASE, probe=probe))
    tables = stopped_during(trainer, 2)
    assert tables["steps"]["step"] == [0, 1, 2, 3]
    layers = tables["layers"]
    assert layers["layer"][-4:] == [1, 2, 3, 4]
    assert layers["step"][-4:] == [3] * 4
    assert all(layers[name][-4:].count(None) == 0 for name in ("grad_norm", "delta_rms"))
    assert tables["evals"]["split"] == ["train", "val"]
    assert trainer.flush() == []


@pytest.mark.parametrize("step", [0, 12, 22])
@pytest.mark.parametrize("histograms_every", [0, 4])
def test_stop_within_a_step_that_has_everything_ends_after_it(
    step: int, histograms_every: int
) -> None:
    probe = ProbeConfig(every=2, activations_every=3, histograms_every=histograms_every)
    trainer = assemble(changed(BASE, probe=probe))
    tables = stopped_during(trainer, step)
    assert tables["steps"]["step"] == list(range(step + 1))
    assert tables["layers"]["step"][-4:] == [step] * 4


def test_stop_before_the_first_step_leaves_the_evaluation_of_step_0() -> None:
    trainer = assemble(BASE)
    trainer.stop()
    tables = collected(trainer.rows())
    assert tables["steps"]["step"] == tables["layers"]["step"] == []
    assert tables["evals"]["step"] == [0, 0]


def test_rows_come_in_bounded_batches_and_no_hook_is_left() -> None:
    trainer = assemble(changed(BASE, train={"steps": 450, "eval_every": 0}))
    sizes = [len(rows) for rows in trainer.rows() if rows.table == "steps"]
    assert sum(sizes) == 450
    assert max(sizes) <= 100
    for module in trainer.state.model.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
        assert not module._backward_hooks
    assert not trainer.state.optimizer._optimizer_step_post_hooks


def test_an_iteration_that_is_given_up_leaves_its_rest_to_flush(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # However long the steps take, nothing is handed on before.
    monkeypatch.setattr(history, "FLUSH_SECONDS", math.inf)
    trainer = assemble(changed(BASE, train={"eval_every": 0}))
    optimizer, calls = trainer.state.optimizer, []

    def failing(*_: object) -> None:
        calls.append(1)
        if len(calls) == 8:
            raise MemoryError("out of memory")

    optimizer.register_step_pre_hook(failing)
    with pytest.raises(MemoryError):
        list(trainer.rows())
    tables = collected(iter(trainer.flush()))
    assert tables["steps"]["step"] == list(range(8))
    assert trainer.state.step == 7
    assert not optimizer._optimizer_step_post_hooks


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"data": {"batch_size": 97}}, "data.batch_size is 97\nallowed: at most 96"),
        ({"probe": {"layers": "("}}, "probe.layers is '\\('"),
        ({"probe": {"layers": "nothing"}}, "matches no weight"),
        ({"device": "cuda:77"}, "device is 'cuda:77'\nallowed here: auto, cpu"),
        ({"device": "gpu"}, "device is 'gpu'"),
        ({"model": {"activation": "sigmod"}}, "nearest: sigmoid"),
        ({"model": {"init": "he_norml"}}, "nearest: he_normal"),
        ({"model": {"norm": "instance"}}, "instance"),
        ({"model": {"norm": "btch"}}, "nearest: batch"),
        ({"model": {"skip": "resdual"}}, "nearest: residual"),
        ({"model": {"norm": "batch"}, "data": {"batch_size": 1}}, "data.batch_size is 1"),
        ({"model": {"norm": "group", "norm_groups": 4}}, "norm_groups"),
        *(
            ({"scheduler": PlateauConfig(), "data": {"val_fraction": share}}, f"{share}\nallowed: ")
            for share in (0.0, 0.003)
        ),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(
    sections: dict[str, Any], said: str
) -> None:
    with pytest.raises(QuestionError, match=said):
        assemble(changed(BASE, **sections))


def test_a_dense_net_beyond_memory_is_refused_with_its_number_of_parameters() -> None:
    huge = MlpConfig(depth=2000, width=4096, skip="dense")
    with pytest.raises(QuestionError, match=r"the model has [\d,]{18,} parameters"):
        assemble(changed(BASE, model=huge))


@pytest.mark.parametrize(
    "skip", ["none", "residual", "scaled_residual", "rezero", "highway", "dense"]
)
def test_one_layer_trains_with_every_skip(skip: str) -> None:
    layers = tables_of(changed(BASE, model={"depth": 1, "skip": skip}))["layers"]
    kinds = [k for s, k in zip(layers["step"], layers["kind"], strict=True) if s == 0]
    assert kinds[0] == "linear"
    assert kinds[-1] == "readout"


def test_the_columns_of_the_tables_are_all_filled_somewhere() -> None:
    layers = tables_of(BASE)["layers"]
    for column in (*WEIGHT_COLUMNS, *ACTIVATION_COLUMNS):
        assert any(cell is not None for cell in layers[column]), column
