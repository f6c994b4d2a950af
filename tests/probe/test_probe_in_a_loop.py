"""Training with a probe is bit for bit training without it, and the probe leaves nothing behind,
whatever ends the `with`.

Holds: probe/hooks.py, probe/measuring.py, probe/plan.py, probe/probe.py, probe/taps.py
"""

from __future__ import annotations

import copy
import io
import random
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from columns import WEIGHT_COLUMNS
from reference import measured_rows, vectors
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vgexp import Probe, metrics, quantities
from vgexp.activations import ACTIVATIONS
from vgexp.config import MlpConfig
from vgexp.errors import QuestionError
from vgexp.models import build
from vgexp.probe.hooks import ignore
from vgexp.skips import SKIPS

Built = tuple[nn.Module, list[Any] | None]
"""A model and its watches."""


def seeded(make: Callable[[], nn.Module]) -> Callable[[], Built]:
    def built() -> Built:
        torch.manual_seed(5)
        return make(), None

    return built


def perceptron(**values: Any) -> Callable[[], Built]:
    def built() -> Built:
        model = build(MlpConfig(depth=3, width=6, **values), vectors(4, 3), torch.float32)
        generator = torch.Generator().manual_seed(5)
        for parameter in model.parameters():
            nn.init.normal_(parameter, 0.1, 0.4, generator=generator)
        return model, model.watches()

    return built


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.out = nn.LSTM(2, 5, batch_first=True), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.rnn(x.reshape(len(x), 2, 2))[0][:, -1])


class Checkpointing(nn.Module):
    def __init__(self, use_reentrant: bool) -> None:
        super().__init__()
        self.a, self.c = nn.Linear(4, 6), nn.Linear(6, 3)
        self.middle = nn.Sequential(nn.ReLU(), nn.Linear(6, 6), nn.Dropout(0.3), nn.Tanh())
        self.use_reentrant = use_reentrant

    def forward(self, x: Tensor) -> Tensor:
        return self.c(checkpoint(self.middle, self.a(x), use_reentrant=self.use_reentrant))


def in_place() -> nn.Module:
    hidden = [nn.Linear(4, 6), nn.ReLU(inplace=True), nn.Linear(6, 6), nn.ELU(inplace=True)]
    return nn.Sequential(*hidden, nn.Dropout(0.4), nn.Linear(6, 3))


def convolutional() -> nn.Module:
    return nn.Sequential(
        nn.Unflatten(1, (1, 4)), nn.Conv1d(1, 3, 2), nn.BatchNorm1d(3), nn.ReLU(), nn.Flatten(),
        nn.Dropout(0.2), nn.Linear(9, 3),
    )  # fmt: skip


def transformer() -> nn.Module:
    layer = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.1, batch_first=True)
    encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    return nn.Sequential(nn.Unflatten(1, (1, 4)), encoder, nn.Flatten(), nn.Linear(4, 3))


MODELS: Mapping[str, Callable[[], Built]] = {
    "in_place": seeded(in_place),
    "conv": seeded(convolutional),
    "transformer": seeded(transformer),
    "lstm": seeded(Recurrent),
    "checkpoint_reentrant": seeded(lambda: Checkpointing(True)),
    "checkpoint": seeded(lambda: Checkpointing(False)),
    **{f"mlp_{skip}": perceptron(skip=skip, norm="layer") for skip in SKIPS},
    **{f"mlp_{name}": perceptron(activation=name, norm="batch") for name in ACTIVATIONS},
}
OPTIMIZERS: Mapping[str, Callable[[Any], torch.optim.Optimizer]] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, weight_decay=0.01),
    "adam": lambda p: torch.optim.Adam(p, lr=0.01),
}
CADENCES = [(1, 1), (7, 7), (1, 3), (3, 1)]
STEPS = 8
OF_OTHERS = "activations of weights that were not chosen go to those that were"


def batch(step: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1000 + step)
    x = torch.randn(5, 4, generator=generator)
    return x, torch.randint(3, (5,), generator=generator)


def trained(
    make: Callable[[], Built], optimizer: str, cadence: tuple[int, int] | None
) -> tuple[list[Tensor], list[Tensor], list[Any]]:
    """Losses, then weights, buffers and gradients, then the states of the global generators."""
    model, watches = make()
    random.seed(1)
    np.random.seed(2)  # noqa: NPY002
    torch.manual_seed(3)
    opt = OPTIMIZERS[optimizer](model.parameters())
    losses = []

    def loop(probe: Probe | None) -> None:
        for step in range(STEPS):
            x, y = batch(step)
            opt.zero_grad()
            for half in (slice(0, 2), slice(2, 5)):
                loss = nn.functional.cross_entropy(model(x[half]), y[half]) / 2
                loss.backward()
                losses.append(loss.detach().clone())
            if probe is not None:
                probe.before_clip()
            nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            opt.step()

    if cadence is None:
        loop(None)
    else:
        every, activations_every = cadence
        with Probe(
            model, opt, every=every, activations_every=activations_every, watches=watches
        ) as probe:
            loop(probe)
        assert len(probe.to_frame()) > 0
    state = [*model.parameters(), *model.buffers()]
    state += [p.grad for p in model.parameters() if p.grad is not None]
    generators = [torch.get_rng_state(), random.getstate(), np.random.get_state()]  # noqa: NPY002
    return losses, [t.detach().clone() for t in state], generators


def equal_generators(first: list[Any], second: list[Any]) -> bool:
    return (
        torch.equal(first[0], second[0])
        and first[1] == second[1]
        and all(np.array_equal(a, b) for a, b in zip(first[2], second[2], strict=True))
    )


# ---------------------------------------------------------------- bit for bit


@pytest.mark.parametrize("name", MODELS)
def test_losses_weights_gradients_and_generators_are_bit_identical_with_and_without(
    name: str,
) -> None:
    optimizer = "adam" if name in ("conv", "mlp_tanh") else "sgd"
    losses, state, generators = trained(MODELS[name], optimizer, None)
    assert all(loss.isfinite() for loss in losses)
    for cadence in CADENCES:
        seen_losses, seen_state, seen_generators = trained(MODELS[name], optimizer, cadence)
        assert all(torch.equal(a, b) for a, b in zip(losses, seen_losses, strict=True)), cadence
        assert all(torch.equal(a, b) for a, b in zip(state, seen_state, strict=True)), cadence
        assert equal_generators(generators, seen_generators), cadence


def test_making_a_probe_draws_no_random_number_and_changes_no_weight() -> None:
    model = in_place()
    before = [p.detach().clone() for p in model.parameters()]
    state = torch.get_rng_state()
    Probe(model, torch.optim.SGD(model.parameters(), lr=0.1))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_evaluations_are_bit_identical_on_measured_and_unmeasured_steps() -> None:
    model = transformer()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x, _ = batch(0)

    def evaluated() -> Tensor:
        model.eval()
        with torch.no_grad():
            out = model(x)
        model.train()
        return out

    without = evaluated()
    with Probe(model, optimizer):
        assert torch.equal(evaluated(), without)


# ---------------------------------------------------------------- nothing stays behind

HOOKS = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_backward_hooks",
    "_backward_pre_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_pre_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_state_dict_hooks",
    "_state_dict_pre_hooks",
)


def hooks_on(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[str]:
    left = []
    for name, module in model.named_modules():
        left += [f"{name}.{kind}" for kind in HOOKS if getattr(module, kind, None)]
    for name, parameter in model.named_parameters():
        left += [name] if parameter._backward_hooks or _accumulates_with_hooks(parameter) else []
    kinds = ("_optimizer_step_pre_hooks", "_optimizer_step_post_hooks")
    return left + [kind for kind in kinds if getattr(optimizer, kind)]


def _accumulates_with_hooks(parameter: Tensor) -> bool:
    return bool(getattr(parameter, "_post_accumulate_grad_hooks", None))


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("fails", [False, True])
def test_no_hook_is_left_after_the_with_even_after_an_exception(name: str, fails: bool) -> None:
    model, watches = MODELS[name]()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    outputs: list[Tensor] = []
    keep = model.register_forward_hook(lambda _m, _a, out: outputs.append(out))

    def loop() -> None:
        with Probe(model, optimizer, every=1, activations_every=1, watches=watches):
            for step in range(3):
                x, y = batch(step)
                nn.functional.cross_entropy(model(x), y).backward()
                if fails and step == 1:
                    raise KeyError("the user's own")
                optimizer.step()

    if fails:
        with pytest.raises(KeyError, match="the user's own"):
            loop()
    else:
        loop()
    keep.remove()
    assert hooks_on(model, optimizer) == []
    assert not any(out._backward_hooks for out in outputs)


def test_tensor_hooks_are_gone_even_where_a_forward_pass_had_no_backward() -> None:
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Probe(model, optimizer):
        hidden = model[0](batch(0)[0])
        out = model[2](model[1](hidden))
    assert not hidden._backward_hooks
    assert not out._backward_hooks
    out.sum().backward()


def hooks_that_do_something(model: nn.Module) -> list[object]:
    kinds = ("_forward_hooks", "_forward_pre_hooks")
    hooks = [hook for m in model.modules() for kind in kinds for hook in getattr(m, kind).values()]
    assert hooks
    return [hook for hook in hooks if hook is not ignore]


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is")
def test_a_copy_of_the_model_made_within_the_with_has_no_hook() -> None:
    model = in_place()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Probe(model, optimizer, every=1, activations_every=1) as probe:
        average = copy.deepcopy(model)
        assert hooks_on(average, optimizer) == hooks_on(nn.Module(), optimizer)
        model(batch(0)[0]).sum().backward()
        optimizer.step()
        later = copy.deepcopy(nn.ModuleList([model]))
    assert hooks_on(average, optimizer) == hooks_on(later, optimizer) == []
    scripted = torch.jit.script(average.eval())
    assert torch.equal(scripted(batch(0)[0]), average(batch(0)[0]))
    assert all(row["preact_mean"] is not None for row in measured_rows(probe))


def test_a_copy_keeps_the_users_own_hooks() -> None:
    model = in_place()
    calls: list[str] = []
    model[0].register_forward_hook(lambda *_: calls.append("own"))
    with Probe(model, torch.optim.SGD(model.parameters(), lr=0.1)):
        average = copy.deepcopy(model)
    average(batch(0)[0])
    assert calls == ["own"]


def test_the_whole_model_can_be_saved_within_the_with() -> None:
    model = in_place()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    file = io.BytesIO()
    with Probe(model, optimizer):
        torch.save(model, file)
    file.seek(0)
    assert hooks_that_do_something(torch.load(file, weights_only=False)) == []


def test_the_users_own_hooks_stay_and_still_fire() -> None:
    model = in_place()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    calls: list[str] = []
    model[0].register_forward_hook(lambda *_: calls.append("module"))
    optimizer.register_step_pre_hook(lambda *_: calls.append("optimizer"))
    with Probe(model, optimizer):
        model(batch(0)[0]).sum().backward()
        optimizer.step()
    model(batch(0)[0])
    optimizer.step()
    assert calls == ["module", "optimizer", "module", "optimizer"]


def test_after_the_with_training_is_not_measured_and_a_second_with_goes_on() -> None:
    model = in_place()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    probe = Probe(model, optimizer, every=1, activations_every=1)

    def steps(num: int) -> None:
        for step in range(num):
            optimizer.zero_grad()
            model(batch(step)[0]).sum().backward()
            optimizer.step()

    with probe:
        steps(2)
    steps(3)
    with probe:
        steps(1)
    assert list(probe.to_frame()["step"].unique()) == [0, 1, 2]


# ---------------------------------------------------------------- the frame and the cadence


def test_the_frame_has_the_columns_and_types_of_the_table() -> None:
    model = in_place()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Probe(model, optimizer) as probe:
        model(batch(0)[0]).sum().backward()
        optimizer.step()
    for frame in (probe.to_frame(), probe.to_frame()):
        assert list(frame.columns) == [column.name for column in quantities.LAYERS]
        assert len(frame) == 3
        for column in quantities.LAYERS:
            wanted = {"int": "Int64", "float": "float64", "text": "str"}[column.kind]
            assert str(frame[column.name].dtype) in (wanted, "object", "string"), column.name
            assert wanted == "str" or str(frame[column.name].dtype) == wanted


def test_a_probe_that_measured_nothing_has_an_empty_frame_with_all_columns() -> None:
    model = in_place()
    frame = Probe(model, torch.optim.SGD(model.parameters(), lr=0.1)).to_frame()
    assert len(frame) == 0
    assert list(frame.columns) == [column.name for column in quantities.LAYERS]


@pytest.mark.parametrize(
    ("every", "activations_every"), [(1, 1), (3, 2), (2, 3), (7, 1), (1, 7), (20, 20)]
)
def test_rows_stand_at_the_steps_of_both_cadences_with_the_columns_of_each(
    every: int, activations_every: int
) -> None:
    model = in_place()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with Probe(model, optimizer, every=every, activations_every=activations_every) as probe:
        for step in range(10):
            optimizer.zero_grad()
            model(batch(step)[0]).sum().backward()
            optimizer.step()
    rows = [row for row in measured_rows(probe) if row["name"] == "0.weight"]
    steps = [s for s in range(10) if s % every == 0 or s % activations_every == 0]
    assert [row["step"] for row in rows] == steps
    for row in rows:
        for column in WEIGHT_COLUMNS:
            assert (row[column] is not None) == (row["step"] % every == 0), column
        for column in ("preact_mean", "act_std", "dead_fraction", "delta_rms", "backward_gain"):
            assert (row[column] is not None) == (row["step"] % activations_every == 0), column


def test_a_wanted_step_is_measured_whole_whatever_the_cadence() -> None:
    model = in_place()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with Probe(model, optimizer, every=100, activations_every=100) as probe:
        for step in range(6):
            if step == 4:
                probe.want_step()
            optimizer.zero_grad()
            model(batch(step)[0]).sum().backward()
            optimizer.step()
    rows = measured_rows(probe)
    assert [row["step"] for row in rows if row["name"] == "0.weight"] == [0, 4]
    assert all(row["delta_rms"] is not None and row["grad_norm"] is not None for row in rows)


def test_rows_can_be_drained_as_the_run_goes_and_each_comes_once() -> None:
    model = in_place()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    steps = []
    with Probe(model, optimizer, every=1, activations_every=1) as probe:
        for step in range(5):
            model(batch(step)[0]).sum().backward()
            optimizer.step()
            if step % 2 == 1:
                steps += sorted({row["step"] for row in measured_rows(probe)})
        steps += sorted({row["step"] for row in measured_rows(probe)})
    assert steps == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        pytest.param(r"^0\.", ["0.weight"]),
        pytest.param("0|5", ["0.weight", "5.weight"]),
        (None, ["0.weight", "2.weight", "5.weight"]),
    ],
)
def test_a_pattern_chooses_weights_and_leaves_their_numbers_as_they_were(
    pattern: str | None, names: list[str]
) -> None:
    def rows(layers: str | None) -> dict[str, dict[str, Any]]:
        torch.manual_seed(0)
        model = in_place()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        with Probe(model, optimizer, layers=layers) as probe:
            model(batch(0)[0]).sum().backward()
            optimizer.step()
        return {row["name"]: row for row in measured_rows(probe)}

    everything, chosen = rows(None), rows(pattern)
    assert list(chosen) == names
    same = ("weight_norm", "grad_norm", "update_ratio", "preact_mean", "act_mean", "delta_rms")
    for name, row in chosen.items():
        for column in same:
            assert row[column] == everything[name][column], (name, column)


def test_a_chosen_weight_keeps_its_place_among_all_layers() -> None:
    model = in_place()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with Probe(model, optimizer, layers=r"^2\.") as probe:
        model(batch(0)[0]).sum().backward()
        optimizer.step()
    assert [row["layer"] for row in measured_rows(probe)] == [2]


# ---------------------------------------------------------------- questions that are wrong


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"every": 0}, "every"),
        ({"every": -3}, "every"),
        ({"activations_every": 0}, "activations_every"),
        ({"loss_reduction": "avg"}, "loss_reduction"),
        ({"every": "3"}, "every is '3'"),
        ({"activations_every": 2.5}, "activations_every is 2.5"),
        ({"layers": 3}, "layers is 3"),
        ({"layers": "("}, "regular expression"),
        ({"layers": "nothing_like_this"}, "matches no weight"),
    ],
)
def test_an_impossible_question_is_refused_with_what_is_allowed(
    arguments: dict[str, Any], words: str
) -> None:
    model = in_place()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(QuestionError, match=words):
        Probe(model, optimizer, **arguments)
    assert hooks_on(model, optimizer) == []


def test_model_and_optimizer_in_the_wrong_places_are_refused_by_name() -> None:
    model = in_place()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    swapped: tuple[Any, Any] = (optimizer, model)
    with pytest.raises(QuestionError, match=r"model is of type SGD\nallowed: a torch\.nn\.Module"):
        Probe(*swapped)
    parameters: Any = model.parameters()
    with pytest.raises(QuestionError, match="optimizer is of type generator"):
        Probe(model, parameters)
    assert hooks_on(model, optimizer) == []


def test_a_probe_is_in_one_with_at_a_time_and_the_first_goes_on() -> None:
    model = in_place()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Probe(model, optimizer) as probe:
        with pytest.raises(QuestionError), probe:
            pass
        model(batch(0)[0]).sum().backward()
        optimizer.step()
    assert len(measured_rows(probe)) == 3
    assert hooks_on(model, optimizer) == []


def test_two_probes_on_one_model_measure_the_same() -> None:
    model = in_place()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Probe(model, optimizer) as one, Probe(model, optimizer) as other:
        model(batch(0)[0]).sum().backward()
        optimizer.step()
    assert measured_rows(one) == measured_rows(other)


def test_a_model_without_weight_matrices_trains_and_has_no_rows() -> None:
    model = nn.LayerNorm(4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Probe(model, optimizer) as probe:
        model(batch(0)[0]).sum().backward()
        optimizer.step()
    assert len(probe.to_frame()) == 0


# ---------------------------------------------------------------- when measuring itself fails


def loop_of(num_steps: int) -> tuple[Probe, list[float]]:
    """Losses of a fixed network, and its probe."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    losses = []
    with Probe(model, optimizer, every=1, activations_every=1) as probe:
        for step in range(num_steps):
            optimizer.zero_grad()
            loss = model(batch(step)[0]).square().mean()
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
    return probe, losses


def broken(*_: Any, **__: Any) -> Any:
    raise RuntimeError("no luck")


def test_an_exception_inside_a_hook_is_noted_and_training_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _, wanted = loop_of(3)
    monkeypatch.setattr(Tensor, "register_hook", broken)
    probe, losses = loop_of(3)
    assert losses == wanted
    assert any("no luck" in line for line in probe.unseen)
    assert probe.step == 3


@pytest.mark.parametrize("function", ["row_moments", "row_norms"])
def test_an_exception_while_numbers_are_made_is_noted_and_the_steps_still_count(
    function: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, wanted = loop_of(3)
    monkeypatch.setattr(metrics, function, broken)
    probe, losses = loop_of(3)
    assert losses == wanted
    assert any("no luck" in line for line in probe.unseen)
    assert probe.step == 3
    probe.to_frame()


def test_measuring_recovers_after_one_failed_step(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Probe(model, optimizer, every=1, activations_every=1) as probe:
        for step in range(3):
            with monkeypatch.context() as patch:
                if step == 1:
                    patch.setattr(metrics, "row_moments", broken)
                optimizer.zero_grad()
                model(batch(step)[0]).square().mean().backward()
                optimizer.step()
    rows = [row for row in measured_rows(probe) if row["name"] == "0.weight"]
    assert rows[-1]["step"] == 2
    assert rows[-1]["preact_mean"] is not None


def test_a_failure_before_clipping_does_not_reach_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: object) -> None:
        raise RuntimeError("stack expects each tensor to be equal size")

    monkeypatch.setattr("vgexp.probe.weights.WeightMeter.before_clip", broken)
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Probe(model, optimizer, every=1) as probe:
        model(torch.ones(4, 3)).sum().backward()
        probe.before_clip()
        optimizer.step()
    assert any("equal size" in line for line in probe.unseen)


def test_a_wish_outside_of_the_probe_leaves_no_hook() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Tanh())
    probe = Probe(model, torch.optim.SGD(model.parameters(), lr=0.1))
    probe.want_step()
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_a_paused_probe_neither_measures_nor_counts_and_goes_on_afterwards() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Tanh())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    probe = Probe(model, optimizer, every=1, activations_every=1)

    def step() -> None:
        optimizer.zero_grad()
        model(torch.ones(4, 3)).sum().backward()
        optimizer.step()

    with probe:
        step()
        with probe.paused():
            step()
            assert probe.step == 1
        step()
    assert [row["step"] for row in measured_rows(probe)] == [0, 1]
    with probe.paused():
        step()
    step()
    assert probe.step == 2, "outside of the with it stays outside"


def test_a_probe_measures_again_after_what_it_was_paused_for_has_failed() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Tanh())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def fail(probe: Probe) -> None:
        with probe.paused():
            raise MemoryError

    with Probe(model, optimizer, every=1) as probe:
        with pytest.raises(MemoryError):
            fail(probe)
        model(torch.ones(4, 3)).sum().backward()
        optimizer.step()
    assert [row["step"] for row in measured_rows(probe)] == [0]
