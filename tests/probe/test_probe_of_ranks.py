"""The probe in several processes: the tables of two ranks are those of one process on the whole
batch, with DDP, `fully_shard` and FSDP1, in float64.

Holds: probe/ranks.py, probe/sharded.py, probe/flat.py
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import distributed as dist
from torch import nn
from torch.nn import functional as F
from two_ranks import (
    NUM_EXAMPLES,
    NUM_STEPS,
    TABLES,
    batch,
    measure,
    network,
    placed,
    share,
    tables,
)

from vgexp import Probe
from vgexp.errors import QuestionError
from vgexp.probe.flat import FLAT
from vgexp.probe.ranks import IN_PARTS, NOT_SEEN_TO_COME, OWN_UNTIL_LATER

pytestmark = pytest.mark.skipif(not dist.is_available(), reason="torch without distributed")


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two processes found."""
    folder = tmp_path_factory.mktemp("ranks")
    torch.multiprocessing.spawn(  # type: ignore[no-untyped-call]
        measure, (str(folder / "rendezvous"), str(folder)), nprocs=2
    )
    return [pickle.loads((folder / f"{rank}.pickle").read_bytes()) for rank in range(2)]


def whole(**options: Any) -> dict[str, Any]:
    """What one process measures of the whole batch."""
    model = network()
    return tables(model, model, slice(0, NUM_EXAMPLES), **options)


def assert_equal(found: pd.DataFrame, wanted: pd.DataFrame) -> None:
    assert len(found) == len(wanted) > 0
    for name in wanted:
        if wanted[name].dtype == "float64":
            # Some columns are empty in all rows, and in these of both.
            np.testing.assert_allclose(found[name], wanted[name], rtol=1e-9, atol=1e-15)
        else:
            pd.testing.assert_series_equal(found[name], wanted[name])


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("kind", ["ddp", "sharded", "hybrid", "replicated"])
def test_tables_of_two_ranks_are_those_of_one_process(
    kind: str, table: str, ranks: list[dict[str, Any]]
) -> None:
    if isinstance(ranks[0][kind], str):
        pytest.skip(f"this torch's fully_shard does not run on CPU: {ranks[0][kind]}")
    wanted = whole()
    for found in ranks:
        hidden = ["gradient_left"] if table == "wiring" else []
        assert_equal(found[kind][table].drop(columns=hidden), wanted[table].drop(columns=hidden))
        assert found[kind][table][hidden].isna().all(axis=None)
        assert found[kind]["unseen"] == [f"gradient_left: {OWN_UNTIL_LATER}"]
    dead = wanted["layers"].set_index("name")["dead_fraction"]["0.weight"]
    assert dead.iloc[0] == pytest.approx(0.2)


FLAT_UNSEEN = [f"gradient_kept, gradient_left: {NOT_SEEN_TO_COME}"]


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("keeps", [False, True])
@pytest.mark.parametrize("kind", ["flat", "flat, micro-batches", "flat, whole"])
def test_tables_of_flat_parameters_are_those_of_one_process(
    kind: str, keeps: bool, table: str, ranks: list[dict[str, Any]]
) -> None:
    wanted = whole(num_parts=2 if "micro" in kind else 1)[table]
    hidden = ["gradient_kept", "gradient_left"] if table == "wiring" else []
    for each in ranks:
        found = each[f"{kind}, {keeps}"]
        assert_equal(found[table].drop(columns=hidden), wanted.drop(columns=hidden))
        # What was kept from before an update is not known of any but the first.
        assert found[table].loc[found[table]["step"] > 0, hidden].isna().all(axis=None)
        assert found["unseen"] == FLAT_UNSEEN


@pytest.mark.parametrize("table", ["layers", "histograms"])
def test_micro_batches_of_two_ranks_are_those_of_one_process(
    table: str, ranks: list[dict[str, Any]]
) -> None:
    wanted = whole(num_parts=2)
    for found in ranks:
        assert_equal(found["ddp, micro-batches"][table], wanted[table])


def test_an_uneven_batch_has_the_signals_of_the_mean_of_the_ranks_losses(
    ranks: list[dict[str, Any]],
) -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    with Probe(model, optimizer, every=1, activations_every=1) as probe:
        for step in range(NUM_STEPS):
            x, y = batch(step)
            out = model(x)
            optimizer.zero_grad()
            parts = [share(rank, 5) for rank in range(2)]
            torch.stack([F.cross_entropy(out[part], y[part]) for part in parts]).mean().backward()
            optimizer.step()
    for found in ranks:
        assert_equal(found["ddp, uneven"]["layers"], probe.to_frame())


def test_without_a_group_a_rank_has_its_own_signals_and_says_so(
    ranks: list[dict[str, Any]],
) -> None:
    wanted = whole()["layers"]
    for rank, found in enumerate(ranks):
        model = network()
        own = tables(model, model, share(rank, NUM_EXAMPLES // 2))["layers"]
        layers = found["ddp, no group"]["layers"]
        first = layers["step"] == 0
        for name in ("delta_rms", "preact_mean", "act_std", "dead_fraction"):
            np.testing.assert_allclose(layers[name][first], own[name][first], rtol=1e-9)
        np.testing.assert_allclose(layers["grad_norm"], wanted["grad_norm"], rtol=1e-9)
        line, _ = found["ddp, no group"]["unseen"]
        assert f"this process's own examples (rank {rank} of 2)" in line


def test_a_rank_that_cannot_measure_does_not_stop_the_others(ranks: list[dict[str, Any]]) -> None:
    model = network()
    alone = tables(model, model, share(0, NUM_EXAMPLES // 2))["layers"]
    for found, reason in zip(ranks, ("rank 1 measured no pass", "no luck"), strict=True):
        layers = found["ddp, one fails"]["layers"]
        first = layers["step"] == 0
        np.testing.assert_allclose(layers["preact_std"][first], alone["preact_std"][first], 1e-9)
        assert any(reason in line for line in found["ddp, one fails"]["unseen"])


def test_numbers_of_parts_are_joined_to_those_of_whole_tensors(ranks: list[dict[str, Any]]) -> None:
    tensors = {name: x.abs() for name, (x, _) in placed().items()}
    scales = [x[torch.isfinite(x)].max() for x in tensors.values()]
    norms = [
        float(torch.linalg.vector_norm(x / scale) * scale)
        for x, scale in zip(tensors.values(), scales, strict=True)
    ]
    peaks = [float(x.max()) for x in tensors.values()]
    zeros = [float(x.eq(0).double().mean()) for x in tensors.values()]
    for rank, found in enumerate(ranks):
        shards = found["shards"]
        is_finite = [name not in ("inf", "nan") for name in tensors]
        got, wanted = (np.array(x)[is_finite] for x in (shards["weight_norm"], norms))
        np.testing.assert_allclose(got, wanted, rtol=1e-12)
        assert not np.isfinite(np.array(shards["weight_norm"])[np.logical_not(is_finite)]).any()
        np.testing.assert_allclose(shards["grad_zero_fraction"], zeros, rtol=1e-12)
        # One rank did not measure the first tensor, so that no rank has its peak.
        of_all = shards["grad_max"] if rank == 0 else [np.nan, *shards["grad_max"]]
        np.testing.assert_array_equal(of_all[1:], peaks[1:])
        assert np.isnan(of_all[0])
        sharded = [row for row, name in enumerate(tensors) if name not in ("whole", "plain")]
        assert shards["left out"] == sharded
        assert shards["part"] == [[3.0, 3.0, 3.0]]


def test_a_group_that_is_none_is_refused_with_what_is_allowed() -> None:
    model = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(QuestionError, match=r"group is of type bool\nallowed: a process group"):
        Probe(model, optimizer, group=True)


@pytest.fixture
def one_rank(tmp_path: Path) -> Iterator[None]:
    """A process group of this process alone."""
    store = f"file://{tmp_path / 'rendezvous'}"
    dist.init_process_group("gloo", init_method=store, rank=0, world_size=1)
    try:
        yield
    finally:
        dist.destroy_process_group()


class Tied(nn.Module):
    """Reads its output off the embeddings, which a flat parameter holds."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.hidden = nn.Embedding(6, 4), nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(torch.tanh(self.hidden(self.tokens(x))), self.tokens.weight)


def trained(model: nn.Module, given: nn.Module | None, **options: Any) -> tuple[Any, Probe | None]:
    """The losses of a few updates, and the probe that was given a module, if it was."""
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    probe = None if given is None else Probe(given, optimizer, every=1, **options)
    losses = []
    with probe or nullcontext():
        for _ in range(3):
            optimizer.zero_grad()
            x = torch.arange(6)
            loss = F.cross_entropy(model(x), x.flip(0))
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    return losses, probe


def flat(keeps: bool) -> tuple[nn.Module, nn.Module]:
    """The wrapper, and the module in it. One process shards nothing: its pieces are whole."""
    from torch.distributed.fsdp import FullyShardedDataParallel

    torch.manual_seed(0)
    inner = Tied()
    wrapper = FullyShardedDataParallel(inner, use_orig_params=keeps, device_id=torch.device("cpu"))
    return wrapper, inner


of_one_rank = pytest.mark.usefixtures("one_rank")
with_warnings = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")


@with_warnings
@of_one_rank
@pytest.mark.parametrize("keeps", [False, True])
def test_flat_parameters_have_the_rows_of_their_weights_and_train_as_without_a_probe(
    keeps: bool,
) -> None:
    model, _ = flat(keeps)
    metrics = {"first": lambda g: g[0, 0], "size": ("weight", torch.numel)}
    losses, probe = trained(model, model, metrics=metrics)
    assert losses == trained(flat(keeps)[0], None)[0]
    torch.manual_seed(0)
    plain = Tied()
    wanted = trained(plain, plain, metrics=metrics)[1]
    assert probe is not None
    assert wanted is not None
    for table in ("layers", "parameters"):
        pd.testing.assert_frame_equal(probe.to_frame(table), wanted.to_frame(table), rtol=1e-5)
    assert probe.to_frame()["name"][:3].tolist() == [
        "tokens.weight",
        "hidden.weight",
        "tokens.weight.T",
    ]
    assert probe.unseen == FLAT_UNSEEN


@with_warnings
@of_one_rank
@pytest.mark.parametrize("keeps", [False, True])
def test_what_is_in_a_flat_parameter_is_not_known_of_the_module_within_the_wrapper(
    keeps: bool,
) -> None:
    model, inner = flat(keeps)
    losses, probe = trained(model, inner)
    assert losses == trained(flat(keeps)[0], None)[0]
    assert probe is not None
    assert probe.unseen == [f"the model: {FLAT}"]
    assert len(probe.to_frame()) == 0


@with_warnings
@of_one_rank
def test_where_torch_does_not_tell_what_is_in_a_flat_parameter_there_is_no_row(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, _ = flat(False)
    monkeypatch.delattr(type(model._handle.flat_param), "_shapes", raising=False)  # type: ignore[union-attr]
    del model._handle.flat_param._shapes  # type: ignore[union-attr]
    probe = Probe(model, torch.optim.SGD(model.parameters(), lr=0.1))
    with probe:
        pass
    assert f"the model: {FLAT}" in probe.unseen


def test_metrics_of_what_no_rank_holds_whole_are_named(ranks: list[dict[str, Any]]) -> None:
    for found in ranks:
        assert (
            f"metrics['first'], metrics['size']: {IN_PARTS}"
            in found["flat, metrics, True"]["unseen"]
        )
        assert "first" not in found["flat, metrics, True"]["layers"].dropna(axis=1, how="all")
