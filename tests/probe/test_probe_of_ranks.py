"""The probe in several processes: the tables of two ranks are those of one process on the whole
batch, with DDP and `fully_shard`, in float64.

Holds: probe/ranks.py, probe/sharded.py
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from contextlib import nullcontext
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import distributed as dist
from torch import nn
from torch.nn import functional as F
from two_ranks import NUM_EXAMPLES, NUM_STEPS, batch, measure, network, placed, share, tables

from vgexp import Probe
from vgexp.errors import QuestionError
from vgexp.probe.ranks import FLAT

pytestmark = [
    pytest.mark.skipif(not dist.is_available(), reason="torch without distributed"),
    # Of Python 3.12 on; what is forked here has no threads of its own that hold a lock.
    pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning"),
]


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two processes found: forks, which have loaded all that they need already.

    Behind a test of CUDA they are new processes: autograd's threads of a device outlive no fork.
    """
    method = "spawn" if torch.cuda.is_initialized() else "fork"
    for name in ("fsdp", "tensor"):
        import_module(f"torch.distributed.{name}")
    folder = tmp_path_factory.mktemp("ranks")
    torch.multiprocessing.start_processes(  # type: ignore[no-untyped-call]
        measure, (str(folder / "rendezvous"), str(folder)), nprocs=2, start_method=method
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
            assert found[name].tolist() == wanted[name].tolist()


@pytest.mark.parametrize("table", ["layers", "histograms"])
@pytest.mark.parametrize("kind", ["ddp", "sharded", "hybrid", "replicated"])
def test_tables_of_two_ranks_are_those_of_one_process(
    kind: str, table: str, ranks: list[dict[str, Any]]
) -> None:
    if isinstance(ranks[0][kind], str):
        pytest.skip(f"this torch's fully_shard does not run on CPU: {ranks[0][kind]}")
    wanted = whole()
    for found in ranks:
        assert_equal(found[kind][table], wanted[table])
        assert found[kind]["unseen"] == []
    dead = wanted["layers"].set_index("name")["dead_fraction"]["0.weight"]
    assert dead.iloc[0] == pytest.approx(0.2)


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
        (line,) = found["ddp, no group"]["unseen"]
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


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
@pytest.mark.usefixtures("one_rank")
@pytest.mark.parametrize("keeps_shapes", [False, True])
def test_flat_pieces_of_weights_have_no_rows_and_the_reason_says_what_to_do(
    keeps_shapes: bool,
) -> None:
    from torch.distributed.fsdp import FullyShardedDataParallel

    def trained(measures: bool) -> tuple[list[torch.Tensor], Probe]:
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))
        # One process shards nothing: where shapes are kept, its weights are whole.
        model = FullyShardedDataParallel(
            net, use_orig_params=keeps_shapes, device_id=torch.device("cpu")
        )
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        probe = Probe(model, optimizer, every=1)
        with probe if measures else nullcontext():
            for _ in range(2):
                optimizer.zero_grad()
                model(torch.randn(5, 4)).square().mean().backward()
                optimizer.step()
        return [p.detach().clone() for p in model.parameters()], probe

    weights, probe = trained(True)
    assert all(map(torch.equal, weights, trained(False)[0]))
    assert probe.unseen == ([] if keeps_shapes else [f"the model: {FLAT}"])
    assert len(probe.to_frame()) == (4 if keeps_shapes else 0)
