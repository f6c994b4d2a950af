"""Recurrent networks: equations against a loop and torch's own modules, draws, what is refused.

Holds: config/recurrence.py, models/recurrence/cells.py, models/recurrence/draws.py,
models/recurrence/network.py, models/recurrence/segments.py
"""

from __future__ import annotations

import copy
import itertools
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from recurrent_reference import (
    BATCH,
    GATES,
    INPUTS,
    OUTPUTS,
    TIMES,
    WIDTH,
    Config,
    drawn,
    inputs,
    looped,
    sequences,
)
from torch import Tensor, nn

from vgexp import config as configuration
from vgexp.activations import ACTIVATIONS
from vgexp.assembly import assemble
from vgexp.config import GruConfig, LstmConfig, RnnConfig
from vgexp.errors import QuestionError
from vgexp.inits import INITS, initialise
from vgexp.models import RECURRENT_INITS, build, memory
from vgexp.models.recurrence.cells import EQUATIONS, Unrolled, run_cell
from vgexp.models.recurrence.segments import segments
from vgexp.seeds import generator
from vgexp.tasks import Task

FAMILIES = (RnnConfig, LstmConfig, GruConfig)
TOKENS = Task("tokens", (TIMES,), OUTPUTS, num_tokens=6, per_position=True)
VARIANTS: list[Config] = [
    RnnConfig(),
    RnnConfig(activation="relu"),
    LstmConfig(),
    GruConfig(),
    RnnConfig(bias=False),
    LstmConfig(bias=False),
    GruConfig(bias=False, norm="layer"),
    *(cls(norm=norm) for cls in FAMILIES for norm in ("layer", "rms")),
    *(cls(skip="residual") for cls in FAMILIES),
    *(cls(truncation=k) for cls in FAMILIES for k in (1, 3, TIMES, 50)),
    LstmConfig(truncation=2, norm="layer", skip="residual"),
]


def name_of(config: Config) -> str:
    """The family and what is not its default."""
    changed = {
        key: value for key, value in vars(config).items() if value != getattr(type(config), key)
    }
    return "-".join([type(config).__name__, *(f"{k}={v}" for k, v in changed.items())])


def sized(config: Config, depth: int = 3) -> Config:
    return replace(config, depth=depth, width=WIDTH)


def gradients(outputs: Tensor, model: nn.Module) -> dict[str, Tensor]:
    """Of an uneven function of the outputs."""
    weights = torch.linspace(-1, 2, outputs.numel(), dtype=outputs.dtype).view_as(outputs)
    loss = (outputs * weights).sum() + outputs.square().sum()
    names, parameters = zip(*model.named_parameters(), strict=True)
    found = torch.autograd.grad(loss, parameters, retain_graph=True)
    return dict(zip(names, found, strict=True))


def assert_equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    assert first.keys() == second.keys()
    for name in first:
        torch.testing.assert_close(first[name], second[name], rtol=1e-9, atol=1e-12, msg=name)


# ---------------------------------------------------------------- equations


@pytest.mark.parametrize("config", VARIANTS, ids=name_of)
def test_the_network_is_its_equations_in_a_loop(config: Config) -> None:
    config = sized(config)
    for per_position in (False, True):
        model = drawn(config, sequences(per_position))
        x = inputs()
        run = looped(model, config, x)
        outputs = model(x)
        assert outputs.shape == ((BATCH, TIMES, OUTPUTS) if per_position else (BATCH, OUTPUTS))
        torch.testing.assert_close(outputs, run.outputs, rtol=1e-10, atol=1e-12)
        assert_equal(gradients(outputs, model), gradients(run.outputs, model))


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_plain_network_has_any_activation(activation: str) -> None:
    config = sized(RnnConfig(activation=activation, gain=0.7), depth=2)
    model, x = drawn(config), inputs()
    run = looped(model, config, x)
    torch.testing.assert_close(model(x), run.outputs, rtol=1e-10, atol=1e-12)
    assert_equal(gradients(model(x), model), gradients(run.outputs, model))
    fused = activation in ("tanh", "relu")
    assert isinstance(model.layers[0].cell, nn.RNN if fused else Unrolled)


@pytest.mark.parametrize(
    "config", [RnnConfig(activation="relu"), *(c() for c in FAMILIES)], ids=name_of
)
def test_the_unrolled_cell_is_torchs_with_its_weights(config: Config) -> None:
    equations = EQUATIONS[type(config)](sized(config))
    fused = equations.fused(INPUTS).to_empty(device="cpu").double()
    unrolled = Unrolled(equations, INPUTS).double()
    for parameter in fused.parameters():
        nn.init.normal_(parameter, std=0.5)
    unrolled.load_state_dict(fused.state_dict())
    x_BSI = inputs()
    results = []
    for cell in (fused, unrolled):
        h_BSH, states = run_cell(cell, x_BSI[:, :3], ())
        more_BSH, last = run_cell(cell, x_BSI[:, 3:], states)
        results.append((torch.cat((h_BSH, more_BSH), 1), *states, *last))
    for ours, torchs in zip(results[1], results[0], strict=True):
        assert ours.shape == torchs.shape
        torch.testing.assert_close(ours, torchs, rtol=1e-10, atol=1e-12)
    found = [
        gradients(torch.cat([r.flatten() for r in result]), cell)
        for result, cell in zip(results, (fused, unrolled), strict=True)
    ]
    assert_equal(*found)


def test_stacked_layers_are_those_of_torchs_stacked_module() -> None:
    config = sized(LstmConfig())
    model, x = drawn(config, sequences(per_position=True)), inputs()
    stacked = nn.LSTM(INPUTS, WIDTH, 3, batch_first=True, dtype=torch.float64)
    for layer, ours in enumerate(model.layers):
        for name, value in ours.cell.named_parameters():
            stacked.get_parameter(name.replace("_l0", f"_l{layer}")).data.copy_(value)
    torch.testing.assert_close(model(x), model.readout(stacked(x)[0]), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("config", [*(c() for c in FAMILIES), GruConfig(norm="rms")], ids=name_of)
def test_a_token_is_a_column_of_the_input_weight(config: Config) -> None:
    config = sized(config, depth=2)
    model, tokens = drawn(config, TOKENS), inputs(TOKENS)
    one_hot = torch.zeros(BATCH, TIMES, 6, dtype=torch.float64)
    for b, t in itertools.product(range(BATCH), range(TIMES)):
        one_hot[b, t, tokens[b, t]] = 1
    run = looped(model, config, one_hot)
    torch.testing.assert_close(model(tokens), run.outputs, rtol=1e-10, atol=1e-12)
    assert_equal(gradients(model(tokens), model), gradients(run.outputs, model))


def test_a_cut_changes_gradients_only_and_one_beyond_the_end_nothing() -> None:
    whole, x = drawn(sized(GruConfig())), inputs()
    uncut = gradients(whole(x), whole)
    for k in (1, 4, TIMES, 99):
        model = drawn(sized(GruConfig(truncation=k)))
        torch.testing.assert_close(model(x), whole(x), rtol=1e-12, atol=0)
        cut = gradients(model(x), model)
        same = torch.allclose(
            cut["layers.0.cell.weight_hh_l0"], uncut["layers.0.cell.weight_hh_l0"]
        )
        assert same == (k >= TIMES)


def test_dropout_is_between_layers_and_only_in_training() -> None:
    config = replace(sized(RnnConfig(), depth=2), dropout=0.5)
    model, x = drawn(config, sequences(per_position=True)), inputs(batch=40)
    below = model.layers[0](x)
    torch.manual_seed(3)
    trained = model(x)
    torch.manual_seed(3)
    dropped = nn.functional.dropout(below, 0.5)
    torch.testing.assert_close(trained, model.readout(model.layers[1](dropped)))
    kept = float((dropped != 0).double().mean())
    assert 0.4 < kept < 0.6
    model.eval()
    torch.testing.assert_close(model(x), model.readout(model.layers[1](below)))


def test_segments_cover_time_and_end_where_states_are_watched() -> None:
    for times, points, cut in itertools.product(
        range(1, 14), (None, 0, 1, 2, 3, 5, 20), (None, 1, 4)
    ):
        plan = segments(times, points, cut)
        assert sum(s.num_steps for s in plan) == times
        assert all(s.num_steps > 0 for s in plan)
        ends = list(itertools.accumulate(s.num_steps for s in plan))
        watched = [s.watched_t for s in plan if s.watched_t is not None]
        wanted = times if points is None else min(points, times)
        assert len(watched) == wanted
        assert watched == [
            end - 1 for end, s in zip(ends, plan, strict=True) if s.watched_t is not None
        ]
        if wanted:
            assert watched[-1] == times - 1
            # t + 1 is k T / P, rounded down.
            assert watched[0] + 1 == int(times / wanted)
            steps = np.diff([-1, *watched])
            assert steps.max() - steps.min() <= 1
        assert [end for end, s in zip(ends, plan, strict=True) if s.is_cut] == (
            list(range(cut, times, cut)) if cut else []
        )


def test_a_copy_computes_with_its_own_cells() -> None:
    model, x = drawn(sized(LstmConfig())), inputs()
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert other(x).any()
    assert not model(x).any()


# ---------------------------------------------------------------- draws


def initialised(
    config: Config, seed: int = 0, dtype: torch.dtype = torch.float64
) -> dict[str, Tensor]:
    model = build(config, Task("sequence", (TIMES, 30), OUTPUTS), dtype)
    initialise(model, config, generator(seed, "init"), torch.zeros(()))
    return {name: p.detach() for name, p in model.named_parameters()}


def blocks(config: Config, weight: Tensor) -> tuple[Tensor, ...]:
    return weight.split(config.width)


@pytest.mark.parametrize("family", FAMILIES)
def test_each_gate_is_drawn_as_a_matrix_of_its_own(family: type[Config]) -> None:
    config = family(depth=2, width=20, gain=1.5)
    drawn_ = initialised(config)
    for layer in (0, 1):
        recurrent = blocks(config, drawn_[f"layers.{layer}.cell.weight_hh_l0"])
        assert len(recurrent) == len(GATES[family])
        for block in recurrent:
            torch.testing.assert_close(block @ block.T, 2.25 * torch.eye(20).double())
        assert len({float(block[0, 0]) for block in recurrent}) == len(recurrent)
    for block in blocks(config, drawn_["layers.0.cell.weight_ih_l0"]):
        # The fans of one gate: 30 inputs, 20 units.
        bound = 1.5 * math.sqrt(6 / 50)
        assert 0.95 * bound < float(block.abs().max()) <= bound


@pytest.mark.parametrize("name", RECURRENT_INITS)
def test_a_spectral_radius_is_met_from_every_init(name: str) -> None:
    config = LstmConfig(width=12, recurrent_init=name, spectral_radius=0.9, gain=0.3)
    for block in blocks(config, initialised(config)["layers.0.cell.weight_hh_l0"]):
        assert np.abs(np.linalg.eigvals(block.numpy())).max() == pytest.approx(0.9, rel=1e-9)
    zero = replace(config, gain=0.0)
    assert not initialised(zero)["layers.0.cell.weight_hh_l0"].any()


def test_the_identity_is_each_gates_times_the_gain() -> None:
    config = GruConfig(width=4, recurrent_init="identity", gain=0.5)
    for block in blocks(config, initialised(config)["layers.0.cell.weight_hh_l0"]):
        assert torch.equal(block, 0.5 * torch.eye(4).double())


@pytest.mark.parametrize("init", ["orthogonal", "torch_default"])
def test_the_forget_bias_is_put_in_once(init: str) -> None:
    config = LstmConfig(width=6, forget_bias=2.5, init=init)
    found = initialised(config)
    total = found["layers.0.cell.bias_ih_l0"] + found["layers.0.cell.bias_hh_l0"]
    by_gate = dict(zip(GATES[LstmConfig], total.split(6), strict=True))
    assert by_gate.pop("forget").tolist() == [2.5] * 6
    for bias in by_gate.values():
        assert bias.any() == (init == "torch_default")


def test_bias_std_is_that_of_the_sum_of_both_biases() -> None:
    found = initialised(GruConfig(width=800, bias_std=0.3, recurrent_init="normal"))
    total = found["layers.0.cell.bias_ih_l0"] + found["layers.0.cell.bias_hh_l0"]
    assert float(total.std()) == pytest.approx(0.3, rel=0.06)
    assert not found["layers.0.cell.bias_hh_l0"].any()


@pytest.mark.parametrize("family", FAMILIES)
def test_torch_default_is_that_of_torchs_recurrent_modules(family: type[Config]) -> None:
    config = family(width=50, init="torch_default", recurrent_init="torch_default")
    if isinstance(config, LstmConfig):
        config.forget_bias = 0.0
    module = {RnnConfig: nn.RNN, LstmConfig: nn.LSTM, GruConfig: nn.GRU}[family](30, 50)
    found = initialised(config)
    for name, torchs in module.named_parameters():
        ours = found[f"layers.0.cell.{name}"]
        assert float(ours.abs().max()) <= 1 / math.sqrt(50)
        assert float(torchs.detach().abs().max()) <= 1 / math.sqrt(50)
        if ours.ndim == 2:
            assert float(ours.std()) == pytest.approx(float(torchs.detach().std()), rel=0.1)


def test_one_seed_gives_one_network_in_every_dtype_and_draws_nothing_else() -> None:
    before = torch.get_rng_state()
    for config in (sized(LstmConfig(bias_std=0.1)), sized(RnnConfig(norm="layer"))):
        wide, narrow = initialised(config), initialised(config, dtype=torch.float32)
        other = initialised(config, seed=1)
        for name in wide:
            assert torch.equal(wide[name].float(), narrow[name])
        assert not torch.equal(wide["readout.weight"], other["readout.weight"])
    assert torch.equal(before, torch.get_rng_state())


# ---------------------------------------------------------------- questions


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (LstmConfig(init="lsuv"), r"model\.init is 'lsuv'\nallowed: "),
        (RnnConfig(recurrent_init="identiti"), r"unknown recurrent_init: 'identiti'.*nearest: id"),
        (RnnConfig(recurrent_init="lsuv"), r"unknown recurrent_init: 'lsuv'"),
        (GruConfig(init="he"), r"unknown init: 'he'"),
        (LstmConfig(norm="batch"), r"unknown model\.norm: 'batch'\nallowed: layer, none, rms"),
        (LstmConfig(skip="dense"), r"unknown model\.skip: 'dense'\nallowed: none, residual"),
    ],
)
def test_what_a_recurrent_network_does_not_know_is_refused(config: Config, message: str) -> None:
    with pytest.raises(QuestionError, match=f"(?s){message}"):
        build(config, sequences(), torch.float32)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"truncation": 0}, "model.truncation is 0"),
        ({"spectral_radius": -1.0}, "model.spectral_radius is -1.0"),
        ({"dropout": 1.0}, "model.dropout is 1.0"),
        ({"forget_bias": math.nan}, "model.forget_bias is nan"),
    ],
)
def test_an_impossible_value_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(QuestionError, match=message):
        LstmConfig(**values)


@pytest.mark.parametrize("key", ["norm_position", "norm_groups", "activation", "forget_bias"])
def test_a_key_that_means_nothing_to_a_family_is_unknown(key: str) -> None:
    chosen = configuration.choices(configuration.Config()) | {"model": "gru"}
    with pytest.raises(QuestionError, match=f"unknown key of model: '{key}'"):
        configuration.from_dict({"model": {key: 1}}, chosen)


def test_a_recurrent_network_does_not_read_vectors() -> None:
    config = configuration.Config(model=LstmConfig(), data=configuration.GaussianConfig())
    with pytest.raises(QuestionError, match="model=lstm reads sequence or tokens; the data are"):
        assemble(config)


def test_every_init_but_those_fitted_to_outputs_draws_recurrent_weights() -> None:
    fitted = {name for name in INITS if INITS[name].fit is not None}
    assert set(RECURRENT_INITS) == (set(INITS) - fitted) | {"identity"}


# ---------------------------------------------------------------- memory, half precision


@pytest.mark.parametrize("task", [sequences(), TOKENS], ids=["sequence", "tokens"])
@pytest.mark.parametrize(
    "config",
    [*(cls() for cls in FAMILIES), LstmConfig(norm="layer"), GruConfig(truncation=2)],
    ids=str,
)
def test_the_memory_is_rehearsed(config: Config, task: Task) -> None:
    config = sized(config)
    model = build(config, task, torch.float32)
    asked = [memory.need(config, task, batch) for batch in (8, 16)]
    assert asked[0].num_parameters == sum(p.numel() for p in model.parameters())
    states = config.depth * TIMES * WIDTH * 8
    assert states < asked[0].num_activations < 60 * states
    grown = asked[1].num_activations / asked[0].num_activations
    assert 1.3 < grown <= 2


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    "config",
    [*(cls(truncation=3) for cls in FAMILIES), LstmConfig(norm="layer"), GruConfig(norm="rms")],
    ids=str,
)
def test_autocast_passes_through_every_cell(config: Config, dtype: torch.dtype) -> None:
    config = replace(sized(config), skip="residual")
    for task in (sequences(per_position=True), TOKENS):
        model = drawn(config, task).float()
        given = inputs(task)
        x = given if task.kind == "tokens" else given.float()
        exact = model(x)
        with torch.autocast("cpu", dtype=dtype):
            outputs = model(x)
        assert outputs.dtype == dtype
        torch.testing.assert_close(outputs.float(), exact, rtol=0.1, atol=0.1)
        outputs.float().square().sum().backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
