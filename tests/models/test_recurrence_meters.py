"""`time.csv`, `recurrence.csv` and the rows of `layers.csv` of recurrent networks.

Holds: models/recurrence/meters.py, models/recurrence/segments.py
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from recurrent_reference import (
    GATES,
    INPUTS,
    OUTPUTS,
    TIMES,
    WIDTH,
    Config,
    drawn,
    inputs,
    looped,
    rms,
    sequences,
)
from reference import largest_slope, slope_at
from torch import Tensor

import vgexp
from vgexp import config as configuration
from vgexp import data
from vgexp.config import GruConfig, LstmConfig, ProbeConfig, RnnConfig, TrainConfig
from vgexp.data import Dataset, Split
from vgexp.diagnosis.signal import main_path, signal_of
from vgexp.errors import QuestionError
from vgexp.inits import initialise
from vgexp.models import Recurrent, build
from vgexp.models.recurrence.draws import spectral_radii
from vgexp.probe import Probe
from vgexp.quantities import TABLES
from vgexp.records import Rows
from vgexp.seeds import generator
from vgexp.tasks import Task

FAMILIES = (RnnConfig, LstmConfig, GruConfig)
Batches = Sequence[tuple[Tensor, Tensor]]
Row = dict[str, Any]

VARIANTS: list[Config] = [
    *(cls() for cls in FAMILIES),
    *(cls(norm="layer") for cls in FAMILIES),
    *(cls(truncation=3) for cls in FAMILIES),
    LstmConfig(skip="residual"),
    RnnConfig(activation="softplus", gain=0.5),
    RnnConfig(activation="hardtanh", norm="rms", skip="residual"),
]


def name_of(config: Config) -> str:
    fixed = ("norm", "truncation", "skip", "activation")
    values = [f"{key}={getattr(config, key)}" for key in fixed if hasattr(config, key)]
    return "-".join([type(config).__name__, *values])


def sized(config: Config, depth: int = 2) -> Config:
    return replace(config, depth=depth, width=WIDTH)


def batches(task: Task, sizes: Sequence[int] = (3,), seed: int = 5) -> Batches:
    """Micro-batches, inputs and classes."""
    source = torch.Generator().manual_seed(seed)
    made = []
    for index, size in enumerate(sizes):
        shape = (size, *task.shape[:1]) if task.per_position else (size,)
        targets = torch.randint(task.num_outputs, shape, generator=source)
        made.append((inputs(task, size, seed + index), targets))
    return made


def loss_of(outputs: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(outputs.flatten(0, -2), targets.flatten())


def measured(
    model: Recurrent, update: Batches, *, steps: int = 1, scale: float = 1.0
) -> dict[str, list[Row]]:
    """Trains some steps on one update's batches: table -> rows."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    examples = sum(len(x) for x, _ in update)
    meters = model.meters()
    found: dict[str, list[Row]] = {}
    with Probe(
        model, optimizer, every=1, activations_every=1, watches=model.watches(), meters=meters
    ) as probe:
        for _ in range(steps):
            optimizer.zero_grad()
            for x, y in update:
                (scale * loss_of(model(x), y) * len(x) / examples).backward()
            optimizer.step()
        for rows in probe.drain():
            found.setdefault(rows.table, []).extend(as_rows(rows))
    assert probe.unseen == []
    return found


def as_rows(rows: Rows) -> list[Row]:
    names = [column.name for column in TABLES[rows.table]]
    assert set(rows.columns) <= set(names)
    return [{n: c[i] for n, c in rows.columns.items()} for i in range(len(rows))]


def derivatives(
    model: Recurrent, config: Config, update: Batches
) -> tuple[dict[Any, Tensor], dict[Any, Tensor]]:
    """(layer, state, t) -> the states, and N dL/ds, of all examples of an update, by autograd."""
    total = sum(len(x) for x, _ in update)
    states: dict[Any, list[Tensor]] = {}
    deltas: dict[Any, list[Tensor]] = {}
    for x, y in update:
        run = looped(model, config, x)
        loss = loss_of(run.outputs, y) * len(x) / total
        wanted = {**run.states, **{(i, "stream", 0): s for i, s in enumerate(run.sequences)}}
        found = torch.autograd.grad(loss, list(wanted.values()), allow_unused=True)
        for (key, state), delta in zip(wanted.items(), found, strict=True):
            states.setdefault(key, []).append(state.detach())
            deltas.setdefault(key, []).append(torch.zeros_like(state) if delta is None else delta)
    return (
        {key: torch.cat(parts) for key, parts in states.items()},
        {key: total * torch.cat(parts) for key, parts in deltas.items()},
    )


# ---------------------------------------------------------------- time.csv


@pytest.mark.parametrize("per_position", [False, True])
@pytest.mark.parametrize("config", VARIANTS, ids=name_of)
def test_the_derivatives_along_time_are_autograds(config: Config, per_position: bool) -> None:
    config, task = sized(config), sequences(per_position)
    update = batches(task, (3, 2))
    for points in (None, 3):
        model = drawn(config, task)
        model.time_points = points
        states, deltas = derivatives(model, config, update)
        rows = measured(model, update)["time"]
        times = range(TIMES) if points is None else (1, 3, 6)
        names = ["h", "c"] if isinstance(config, LstmConfig) else ["h"]
        keys = list(itertools.product(range(2), names, times))
        assert [(r["layer"] - 1, r["name"], r["t"]) for r in rows] == [
            (layer, f"layers.{layer}.{name}", t) for layer, name, t in keys
        ]
        for row, key in zip(rows, keys, strict=True):
            assert row["step"] == 0
            assert row["delta_rms"] == pytest.approx(rms(deltas[key]), rel=1e-9, abs=1e-15), key
            assert row["state_rms"] == pytest.approx(rms(states[key]), rel=1e-9), key


@pytest.mark.parametrize("factor", [0.5, 2.0, -0.25])
def test_a_linear_network_of_one_unit_passes_back_powers_of_its_weight(factor: float) -> None:
    config = RnnConfig(width=1, activation="linear", recurrent_init="identity", bias=False)
    task = Task("sequence", (12, 2), 1)
    model = build(config, task, torch.float64)
    assert isinstance(model, Recurrent)
    initialise(model, config, generator(0, "init"), torch.zeros(()))
    with torch.no_grad():
        model.get_parameter("layers.0.cell.weight_hh_l0").fill_(factor)
        model.get_parameter("readout.weight").fill_(4.0)
    model.time_points = None
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Probe(model, optimizer, watches=model.watches(), meters=model.meters()) as probe:
        model(inputs(task, 3)).mean().backward()
        optimizer.step()
        (rows,) = (rows for rows in probe.drain() if rows.table == "time")
    # Powers of two: every product is exact, but for the mean over three examples.
    wanted = [4 * abs(factor) ** (11 - t) for t in range(12)]
    assert [float(delta) for delta in rows.columns["delta_rms"]] == pytest.approx(wanted, rel=1e-15)


def test_an_orthogonal_linear_network_keeps_the_derivative_over_all_of_time() -> None:
    config = RnnConfig(width=6, activation="linear")
    task = sequences(times=40)
    model = drawn(config, task)
    rows = measured(model, batches(task))["time"]
    deltas = np.array([row["delta_rms"] for row in rows])
    assert [row["t"] for row in rows] == [3, 7, 11, 15, 19, 23, 27, 31, 35, 39]
    assert deltas[-1] > 0
    np.testing.assert_allclose(deltas, deltas[-1], rtol=1e-13)


def test_nothing_flows_back_over_a_cut() -> None:
    config = sized(GruConfig(truncation=3))
    model = drawn(config)
    model.time_points = None
    deltas = [row["delta_rms"] for row in measured(model, batches(sequences()))["time"]]
    # Seven steps: cut after the third and the sixth.
    for layer in (deltas[:TIMES], deltas[TIMES:]):
        assert layer[:6] == [0.0] * 6
        assert layer[6] > 0


def test_the_size_of_the_derivatives_does_not_depend_on_loss_scale_or_batch_size() -> None:
    task, config = sequences(per_position=True), sized(LstmConfig())
    model = drawn(config, task)
    update = batches(task, (4,))
    once = measured(drawn(config, task), update)["time"]
    twice = measured(drawn(config, task), [*update, *update])["time"]
    for first, second in zip(once, twice, strict=True):
        assert second["delta_rms"] == pytest.approx(first["delta_rms"], rel=1e-12)
    for meter in (meters := model.meters()):
        meter.arm()
    (1024 * loss_of(model(update[0][0]), update[0][1])).backward()
    rows = meters[0].take(7, 4, torch.tensor(1024.0))
    assert rows is not None
    for scaled, first in zip(as_rows(rows()), once, strict=True):
        assert scaled == {**first, "step": 7, "delta_rms": pytest.approx(first["delta_rms"])}


def test_derivatives_far_below_what_squares_hold_are_measured() -> None:
    config, task = sized(RnnConfig()), sequences()
    rows = {}
    for scale in (1.0, 1e-30):
        model = drawn(config, task).float()
        update = [(x.float(), y) for x, y in batches(task, (3, 2))]
        rows[scale] = measured(model, update, scale=scale)["time"]
    for large, small in zip(rows[1.0], rows[1e-30], strict=True):
        assert small["delta_rms"].dtype == np.float32
        assert float(small["delta_rms"]) == pytest.approx(
            1e-30 * float(large["delta_rms"]), rel=1e-4
        )


# ---------------------------------------------------------------- recurrence.csv


@pytest.mark.parametrize(("points", "times"), [(3, (1, 3, 6)), (None, range(TIMES))])
@pytest.mark.parametrize("config", VARIANTS, ids=name_of)
def test_the_gates_are_those_of_the_equations(
    config: Config, points: int | None, times: Sequence[int]
) -> None:
    config = sized(config)
    model = drawn(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter *= 3  # so that some gates saturate
    model.time_points = points
    update = batches(sequences(), (3, 2))
    runs = [looped(model, config, x) for x, _ in update]
    weights = {n: p.detach().numpy().copy() for n, p in model.named_parameters()}
    rows = measured(model, update)["recurrence"]
    keys = list(itertools.product(range(2), GATES[type(config)]))
    assert [(r["layer"] - 1, r["name"]) for r in rows] == [
        (layer, f"layers.{layer}.{gate}") for layer, gate in keys
    ]
    shares = []
    for row, (layer, gate) in zip(rows, keys, strict=True):
        u = torch.cat([run.gates[layer, gate, t].flatten() for run in runs for t in times])
        phi = getattr(config, "activation", "sigmoid" if gate not in ("cell", "new") else "tanh")
        y = model.layers[layer].cell.activation(u) if phi == "softplus" else PHI_OF[phi](u)
        assert row["gate_mean"] == pytest.approx(float(y.detach().mean()), rel=1e-9, abs=1e-12)
        peak = largest_slope(phi)
        if peak is None:
            assert row["saturated_fraction"] is None
        else:
            share = float(np.mean(slope_at(phi, u, None) < 0.05 * peak))
            assert row["saturated_fraction"] == pytest.approx(share, abs=1e-12)
            shares.append(share)
        number = GATES[type(config)].index(gate)
        weight = weights[f"layers.{layer}.cell.weight_hh_l0"]
        block = weight[number * WIDTH : (number + 1) * WIDTH]
        radius = np.abs(np.linalg.eigvals(block)).max()
        assert row["spectral_radius"] == pytest.approx(radius, rel=1e-9)
    if config.norm == "none" and peak is not None:
        assert max(shares) > 0


PHI_OF = {
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "hardtanh": lambda u: u.clamp(-1, 1),
}


def test_a_spectral_radius_of_what_is_not_finite_is_nan() -> None:
    weight_GHH = torch.eye(3).repeat(3, 1, 1) * torch.tensor([2.0, 1.0, 0.5])[:, None, None]
    weight_GHH[1, 0, 1] = torch.inf
    radii = spectral_radii(weight_GHH)
    assert radii[0] == 2
    assert radii[1].isnan()
    assert radii[2] == 0.5


def test_gates_of_states_that_are_not_finite_are_nan() -> None:
    model = drawn(sized(LstmConfig(), depth=1))
    with torch.no_grad():
        model.get_parameter("layers.0.cell.weight_ih_l0")[0] = torch.nan
    rows = measured(model, batches(sequences()))["recurrence"]
    assert np.isnan(rows[0]["gate_mean"])
    assert np.isnan(rows[0]["saturated_fraction"])


# ---------------------------------------------------------------- layers.csv


@pytest.mark.parametrize("per_position", [False, True])
@pytest.mark.parametrize("config", VARIANTS[:4] + VARIANTS[-3:], ids=name_of)
def test_a_stream_is_what_a_layer_hands_up_and_what_comes_to_it_from_above(
    config: Config, per_position: bool
) -> None:
    config, task = sized(config, depth=3), sequences(per_position)
    model, update = drawn(config, task), batches(task, (3, 2))
    states, deltas = derivatives(model, config, update)
    rows = measured(model, update)["layers"]
    assert [(r["layer"], r["name"], r["kind"]) for r in rows] == [
        *(
            (layer, f"layers.{layer - 1}{name}", kind)
            for layer in (1, 2, 3)
            for name, kind in (
                ("", "stream"),
                (".cell.weight_ih_l0", "recurrent"),
                (".cell.weight_hh_l0", "recurrent"),
            )
        ),
        (4, "readout.weight", "readout"),
    ]
    for row in rows:
        is_recurrent = row["kind"] == "recurrent"
        assert (row["delta_rms"] is None) == (row["preact_std"] is None) == is_recurrent
        assert (row["weight_norm"] is None) == (row["kind"] == "stream")
        assert (row["grad_norm"] is None) == (row["kind"] == "stream")
    for row in rows[:-1:3]:
        key = (row["layer"] - 1, "stream", 0)
        assert row["preact_mean"] == pytest.approx(float(states[key].mean()), rel=1e-9, abs=1e-12)
        assert row["preact_std"] == pytest.approx(float(states[key].std(correction=0)), rel=1e-9)
        assert row["delta_rms"] == pytest.approx(rms(deltas[key]), rel=1e-9)
    streams = [row["delta_rms"] for row in rows if row["kind"] == "stream"]
    assert rows[0]["backward_gain"] == pytest.approx(streams[0] / streams[1], rel=1e-12)
    assert rows[6]["backward_gain"] == pytest.approx(streams[2] / rows[-1]["delta_rms"], rel=1e-12)


def test_the_signal_over_stacked_layers_is_that_of_their_streams() -> None:
    import pandas as pd

    task = sequences()
    rows = measured(drawn(sized(GruConfig(), depth=3), task), batches(task))["layers"]
    frame = pd.DataFrame(rows)
    assert main_path(frame)["kind"].tolist() == ["stream"] * 3
    found = signal_of(frame)
    assert found.num_layers == found.num_layers_used == 3
    assert found.attenuation == pytest.approx(rows[0]["delta_rms"] / rows[6]["delta_rms"])


# ---------------------------------------------------------------- training is as it is


@pytest.mark.parametrize("config", [*VARIANTS[:4], VARIANTS[7]], ids=name_of)
def test_measuring_changes_no_bit_of_training(config: Config) -> None:
    config, task = replace(sized(config), dropout=0.3), sequences(per_position=True)
    update = [(x.float(), y) for x, y in batches(task, (3, 2))]
    ends = []
    for measures in (False, True):
        model = drawn(config, task).float()
        torch.manual_seed(3)
        if measures:
            measured(model, update, steps=4)
        else:
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
            for _ in range(4):
                optimizer.zero_grad()
                for x, y in update:
                    (1.0 * loss_of(model(x), y) * len(x) / 5).backward()
                optimizer.step()
        ends.append(model.state_dict())
        assert not any(p._backward_hooks for p in model.parameters())
        assert not any(module._forward_hooks for module in model.modules())
    for name, value in ends[0].items():
        assert torch.equal(value, ends[1][name]), name


@pytest.mark.parametrize("config", [*VARIANTS[:4], VARIANTS[7]], ids=name_of)
def test_computing_activations_again_changes_no_cell(config: Config) -> None:
    config, task = replace(sized(config, depth=5), dropout=0.3), sequences()
    update = [(x.float(), y) for x, y in batches(task, (3, 2))]
    found = []
    for recomputes in (False, True):
        model = drawn(config, task).float()
        model.recomputes = recomputes
        torch.manual_seed(3)
        found.append(measured(model, update, steps=3))
    assert found[0].keys() == {"layers", "steps", "time", "recurrence"}
    np.testing.assert_equal(found[1], found[0])


def test_evaluations_and_passes_that_are_made_again_do_not_count() -> None:
    task = sequences()
    model = drawn(sized(LstmConfig()), task)
    (x, y), (other, _) = batches(task, (3, 2))
    meters = model.meters()
    rows = []
    for passes in ([x], [other, x]):
        for meter in meters:
            meter.arm()
            meter.arm()
        for given in passes:
            loss_of(model(given), y[: len(given)]).backward()
        with torch.no_grad():
            model(other)
        taken = [meter.take(0, 3, 1.0) for meter in meters]
        rows.append([as_rows(table()) for table in taken if table is not None])
    assert len(rows[0]) == 2
    assert rows[0] == rows[1]
    assert [meter.take(1, 3, 1.0) for meter in meters] == [None, None]
    for meter in meters:
        meter.disarm()
        meter.disarm()
    loss_of(model(x), y).backward()
    assert [meter.take(1, 3, 1.0) for meter in meters] == [None, None]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("config", VARIANTS[:6], ids=name_of)
def test_half_precision_is_measured_in_float32(config: Config, dtype: torch.dtype) -> None:
    config, task = sized(config), sequences(per_position=True)
    ((x, y),) = [(x.float(), y) for x, y in batches(task)]
    tables = []
    for enabled in (False, True):
        model = drawn(config, task).float()
        for meter in (meters := model.meters()):
            meter.arm()
        with torch.autocast("cpu", dtype=dtype, enabled=enabled):
            outputs = model(x)
        loss_of(outputs.float(), y).backward()
        taken = [meter.take(0, 3, 1.0) for meter in meters]
        tables.append([as_rows(table()) for table in taken if table is not None])
    for exact, half in zip(itertools.chain(*tables[0]), itertools.chain(*tables[1]), strict=True):
        for column, value in half.items():
            if isinstance(value, np.floating) and column != "saturated_fraction":
                assert value.dtype == np.float32
                assert value == pytest.approx(exact[column], rel=0.1, abs=0.01), column


# ---------------------------------------------------------------- a run


def made_dataset(*_: object) -> Dataset:
    source = torch.Generator().manual_seed(0)
    x = torch.randn(60, 9, INPUTS, generator=source)
    split = Split(x, (x[:, 0, 0] > 0).long())
    parts = [Split(split.inputs[a:b], split.targets[a:b]) for a, b in ((0, 40), (40, 50), (50, 60))]
    return Dataset("made", *parts, Task("sequence", (9, INPUTS), OUTPUTS))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_run_writes_its_tables_and_they_read_back(
    family: type[Config], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(data, "load", made_dataset)
    base = configuration.Config(
        model=family(depth=2, width=4),
        train=TrainConfig(steps=25, eval_every=0),
        probe=ProbeConfig(time_points=3),
    )
    base.data.batch_size = 8
    base.output.quiet = True
    run = vgexp.run(base, tmp_path / "run")
    num_states, num_gates = (2 if family is LstmConfig else 1), len(GATES[family])
    assert run.time["step"].unique().tolist() == [0, 20, 24]
    assert len(run.time) == 3 * 2 * num_states * 3
    assert run.time["t"].unique().tolist() == [2, 5, 8]
    assert len(run.recurrence) == 3 * 2 * num_gates
    assert run.table("recurrence").equals(run.recurrence)
    assert run.recurrence["spectral_radius"].iloc[0] == pytest.approx(1, abs=1e-5)
    assert run.time["delta_rms"].notna().all()
    assert run.summary["status"] == "completed"
    assert np.isfinite(run.summary["attenuation"])


def test_a_run_without_states_in_time_has_no_such_table(tmp_path: Path) -> None:
    base = configuration.Config(train=TrainConfig(steps=1))
    base.output.quiet = True
    run = vgexp.run(base, tmp_path / "run")
    with pytest.raises(QuestionError, match=r"time\.csv"):
        _ = run.time
