"""`attention.csv` against numpy, and that measuring it leaves training as it is.

Holds: models/attention/meter.py, models/attention/stack.py
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from reference_attention import Equations
from small_transformers import IMAGES, ONE_ANSWER, TOKENS, drawn, inputs
from torch import Tensor, nn

import vgexp
from vgexp import quantities, records
from vgexp.config import AdamConfig, Config, ProbeConfig, RunConfig, TrainConfig, VitConfig
from vgexp.config import TransformerConfig as Causal
from vgexp.errors import QuestionError
from vgexp.models import Network
from vgexp.models.attention import meter as meter_room
from vgexp.models.attention.blocks import Attend
from vgexp.models.attention.meter import AttentionMeter, MeteredHeads, ceiling
from vgexp.probe import Probe
from vgexp.tasks import Task

CASES: list[tuple[type[Any], dict[str, Any], Task]] = [
    (Causal, {}, TOKENS),
    (Causal, {"positions": "rotary", "norm_position": "post"}, ONE_ANSWER),
    (VitConfig, {"patch": 2}, IMAGES),
]
RUN = Config(
    model=VitConfig(depth=5, width=8, heads=2, patch=2, dropout=0.2),
    optimizer=AdamConfig(lr=0.003),
    train=TrainConfig(steps=5, eval_every=2),
    probe=ProbeConfig(every=2, activations_every=2),
    run=RunConfig(checkpoint_every=0),
)
Heads = dict[tuple[str, int], dict[str, Any]]


def heads_of(rows: records.Rows) -> Heads:
    """(name, head) -> the other cells."""
    cells = [{name: values[i] for name, values in rows.columns.items()} for i in range(len(rows))]
    return {(row["name"], row["head"]): row for row in cells}


def measured(
    model: Network, batch: Sequence[Tensor], meter: Any = None, **options: Any
) -> list[records.Rows]:
    """The rows of `attention.csv` of one update in several micro-batches."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    meters = model.meters() if meter is None else [meter]
    with Probe(model, optimizer, watches=model.watches(), meters=meters, **options) as probe:
        for x in batch:
            model(x).square().mean().backward()
        optimizer.step()
        return [rows for rows in probe.drain() if rows.table == "attention"]


def by_numpy(logits: list[np.ndarray]) -> dict[str, float]:
    """Of one head, from the logits [B, T, S] of each micro-batch."""
    entropies, ceilings = [], []
    for logits_BTS in logits:
        for logits_TS in logits_BTS:
            for logits_S in logits_TS:
                seen = logits_S[np.isfinite(logits_S)]
                weights = np.exp(seen - seen.max())
                weights = weights / weights.sum()
                entropies.append(-(weights * np.log(weights)).sum())
                ceilings.append(np.log(len(seen)))
    largest = max(np.abs(v[np.isfinite(v)]).max() for v in logits)
    return {
        "entropy": float(np.mean(entropies)),
        "entropy_fraction": float(np.mean(entropies) / np.mean(ceilings)),
        "logit_max": float(largest),
    }


# ---------------------------------------------------------------- the numbers


@pytest.mark.parametrize("chunk", [1, 200, 2**22])
@pytest.mark.parametrize(("cls", "values", "task"), CASES)
def test_each_heads_entropy_and_largest_logit_are_those_of_numpy(
    cls: type[Any], values: dict[str, Any], task: Task, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(meter_room, "CHUNK_ENTRIES", chunk)
    config, model = drawn(cls, values, task)
    batch = [inputs(task, seed, batch=size) for seed, size in ((1, 4), (2, 3))]
    p = {name: value.detach().clone() for name, value in model.named_parameters()}
    logits = [Equations(config, task, p)(x).logits for x in batch]
    (rows,) = measured(model, batch)
    assert list(rows.columns)[:4] == [column.name for column in quantities.ATTENTION][:4]
    assert set(rows.columns) == {column.name for column in quantities.ATTENTION}
    found = heads_of(rows)
    assert len(found) == config.depth * config.heads
    for block in range(config.depth):
        for head in range(config.heads):
            row = found[f"blocks.{block}.attention", head]
            wanted = by_numpy([one[block][head].numpy() for one in logits])
            assert (row["step"], row["layer"]) == (0, block + 2)
            for name, value in wanted.items():
                assert float(row[name]) == pytest.approx(value, rel=1e-9), name


def attended(q: Tensor, k: Tensor, *, causal: bool) -> Heads:
    """The rows of a layer whose queries and keys are these."""
    attend = Attend(causal=causal)
    meter = AttentionMeter([MeteredHeads("here", 2, attend)])
    meter.arm()
    attend(q.requires_grad_(), k, k)
    rows = meter.take(7, len(q), 1.0)
    meter.disarm()
    assert rows is not None
    return heads_of(rows())


@pytest.mark.parametrize("causal", [True, False])
def test_equal_keys_are_looked_at_alike(causal: bool) -> None:
    q = torch.randn(3, 2, 5, 4)
    k = torch.randn(3, 2, 1, 4).expand(-1, -1, 5, -1)
    for row in attended(q, k, causal=causal).values():
        assert row["entropy_fraction"] == pytest.approx(1, rel=1e-6)
        assert row["entropy"] == pytest.approx(ceiling(5, causal=causal), rel=1e-6)
        assert row["step"] == 7


@pytest.mark.parametrize("scale", [1e4, 1e15])
def test_one_key_far_above_the_others_leaves_no_entropy(scale: float) -> None:
    q, k = torch.ones(2, 1, 4, 3), torch.zeros(2, 1, 4, 3)
    k[:, :, 0] = scale
    (row,) = attended(q, k, causal=True).values()
    assert row["entropy"] == row["entropy_fraction"] == 0
    assert row["logit_max"] == pytest.approx(scale * math.sqrt(3), rel=1e-6)


def test_a_logit_that_the_mask_hides_is_no_heads_largest() -> None:
    q, k = torch.ones(1, 1, 3, 1), torch.tensor([1.0, 2.0, -9.0]).view(1, 1, 3, 1)
    k_hidden = k.clone()
    q[0, 0, 2] = 0.0
    (row,) = attended(q, k_hidden, causal=True).values()
    assert row["logit_max"] == 2
    (row,) = attended(q, k, causal=False).values()
    assert row["logit_max"] == 9


def test_of_one_position_the_share_is_not_defined() -> None:
    (row,) = attended(torch.ones(2, 1, 1, 3), torch.ones(2, 1, 1, 3), causal=True).values()
    assert row["entropy"] == 0
    assert "entropy_fraction" not in row


def test_what_is_not_finite_is_told_as_such() -> None:
    q = torch.full((1, 1, 2, 2), 3e38)
    (row,) = attended(q, q.clone(), causal=False).values()
    assert math.isinf(row["logit_max"])
    assert math.isnan(row["entropy"])


@pytest.mark.parametrize("positions", ["learned", "rotary"])
def test_under_autocast_logits_are_measured_in_float32(positions: str) -> None:
    _, model = drawn(Causal, {"positions": positions}, TOKENS, torch.float32)
    x = inputs(TOKENS)
    (full,) = measured(model, [x])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    with Probe(model, optimizer, watches=model.watches(), meters=model.meters()) as probe:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            model(x).float().square().mean().backward()
        optimizer.step()
        half = next(rows for rows in probe.drain() if rows.table == "attention")
    assert half.columns["entropy"].values.dtype == np.float32
    np.testing.assert_allclose(
        half.columns["entropy"].values, full.columns["entropy"].values, rtol=0.05
    )
    assert all(p.grad.dtype == torch.float32 for p in model.parameters())


# ---------------------------------------------------------------- which passes count


def test_passes_without_gradients_and_outside_of_measured_steps_are_not_seen() -> None:
    _, model = drawn(Causal, {}, TOKENS)
    (meter,) = model.meters()
    x = inputs(TOKENS)
    model(x)
    meter.arm()
    with torch.no_grad():
        model(x)
    assert meter.take(0, 4, 1.0) is None
    meter.disarm()
    meter.disarm()
    model(x)
    assert meter.take(0, 4, 1.0) is None
    assert all(not module._forward_hooks for module in model.modules())


def test_a_step_that_is_begun_again_forgets_its_first_pass() -> None:
    _, model = drawn(Causal, {}, TOKENS)
    (meter,) = model.meters()
    meter.arm()
    model(inputs(TOKENS, 1))
    meter.arm()
    model(inputs(TOKENS, 2))
    again = meter.take(3, 4, 1.0)
    meter.disarm()
    (alone,) = measured(model, [inputs(TOKENS, 2)])
    assert again is not None
    for name in ("entropy", "logit_max"):
        np.testing.assert_array_equal(again().columns[name].values, alone.columns[name].values)


def test_each_measured_step_has_rows_of_its_own() -> None:
    _, model = drawn(Causal, {}, TOKENS)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    options: dict[str, Any] = {"watches": model.watches(), "meters": model.meters()}
    with Probe(model, optimizer, activations_every=2, **options) as probe:
        for _ in range(5):
            optimizer.zero_grad()
            model(inputs(TOKENS)).square().mean().backward()
            optimizer.step()
        tables = [rows for rows in probe.drain() if rows.table == "attention"]
    assert [rows.columns["step"][0] for rows in tables] == [0, 2, 4]
    assert tables[0].columns["entropy"][0] != tables[1].columns["entropy"][0]


def test_no_graph_is_kept_alive() -> None:
    _, model = drawn(Causal, {}, TOKENS)
    (meter,) = model.meters()
    meter.arm()
    model(inputs(TOKENS))
    kept = [x for one in meter._seen for pair in one.sums for x in pair]
    assert kept
    assert all(x.grad_fn is None and x.numel() == 3 for x in kept)


# ---------------------------------------------------------------- whole runs


def tables_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.csv")} | {"timing.csv": b""}


def test_a_run_has_the_table_and_reads_it_back(tmp_path: Path) -> None:
    run = vgexp.run(RUN, tmp_path / "a")
    assert list(run.attention.columns) == [column.name for column in quantities.ATTENTION]
    assert len(run.attention) == 3 * 5 * 2
    assert set(run.attention["step"]) == {0, 2, 4}
    assert run.attention["entropy_fraction"].between(0, 1).all()
    assert run.table("attention").equals(run.attention)
    assert run.layers.groupby("layer")["kind"].first().tolist() == [
        "conv",
        *["stream"] * 5,
        "readout",
    ]
    assert run.summary["num_layers"] == 6


def test_a_run_of_another_family_has_no_such_table(tmp_path: Path) -> None:
    run = vgexp.run(Config(train=TrainConfig(steps=1, eval_every=0)), tmp_path / "a")
    assert not (run.folder / "attention.csv").exists()
    with pytest.raises(QuestionError, match="attention"):
        _ = run.attention


@pytest.mark.parametrize("accumulate", [1, 2])
def test_recomputed_activations_leave_every_table_as_it_is(accumulate: int, tmp_path: Path) -> None:
    kept = dataclasses.replace(RUN.train, accumulate=accumulate)
    again = dataclasses.replace(kept, checkpoint_activations=True)
    for name, train in (("kept", kept), ("again", again)):
        vgexp.run(dataclasses.replace(RUN, train=train), tmp_path / name)
    assert tables_of(tmp_path / "kept") == tables_of(tmp_path / "again")
    assert "attention.csv" in tables_of(tmp_path / "kept")


def test_activations_are_really_computed_again() -> None:
    calls = 0

    def count(*_: Any) -> None:
        nonlocal calls
        calls += 1

    _, model = drawn(Causal, {"depth": 4}, TOKENS)
    model.recomputes = True
    for block in model.blocks:
        assert isinstance(block, nn.Module)
        block.register_forward_pre_hook(count)
    F.cross_entropy(model(inputs(TOKENS))[:, 0], torch.zeros(4, dtype=torch.int64)).backward()
    assert calls == 2 * 4


def test_measuring_changes_no_bit_of_training() -> None:
    def losses(*, measuring: bool) -> list[float]:
        _, model = drawn(Causal, {"dropout": 0.3}, TOKENS, torch.float32)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        options: dict[str, Any] = {"watches": model.watches(), "meters": model.meters()}
        torch.manual_seed(3)
        found = []
        probe = Probe(model, optimizer, every=1, activations_every=1, **options)
        if measuring:
            probe.__enter__()
        for step in range(4):
            optimizer.zero_grad()
            loss = model(inputs(TOKENS, step)).square().mean()
            loss.backward()
            optimizer.step()
            found.append(loss.item())
        probe.__exit__(None, None, None)
        return found

    assert losses(measuring=True) == losses(measuring=False)
