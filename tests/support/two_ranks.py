"""What two processes measure of one model, each with its part of a batch, by way of gloo."""

from __future__ import annotations

import os
import pickle
import warnings
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn import functional as F

from vgexp import Probe
from vgexp.probe.moments import ColumnCells
from vgexp.probe.sharded import join_shards, local_part
from vgexp.probe.taps import Taps

NUM_STEPS = 2
NUM_EXAMPLES = 8
METRICS = {"first": torch.max, "size": ("weight", torch.numel)}
TABLES = ("layers", "histograms", "parameters", "wiring", "steps")


def network() -> nn.Module:
    """One with dead units, a weight of fewer rows than there are ranks, and uneven shards."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 1, bias=False), nn.Tanh(), nn.Linear(1, 3)
    ).double()
    with torch.no_grad():
        # Dead for all examples; alive for few, so that one rank may see it dead.
        model[0].bias[0] -= 10  # type: ignore[operator,index,union-attr]
        model[0].bias[1] -= 1.2  # type: ignore[operator,index,union-attr]
    return model


def batch(step: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(step)
    return (
        torch.randn(NUM_EXAMPLES, 4, generator=generator, dtype=torch.float64),
        torch.randint(3, (NUM_EXAMPLES,), generator=generator),
    )


def share(rank: int, split: int) -> slice:
    """The examples of a rank of two: rank 0 has the first `split`."""
    return slice(0, split) if rank == 0 else slice(split, NUM_EXAMPLES)


def tables(
    model: nn.Module, given: nn.Module, examples: slice, *, num_parts: int = 1, **options: Any
) -> dict[str, Any]:
    """The tables of a plain loop on the mean of some examples' losses, and what is unseen.

    Args:
        model: what is called.
        given: what the probe is given.
        num_parts: micro-batches of an update.
    """
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    with Probe(
        given, optimizer, every=1, activations_every=1, histograms_every=1, **options
    ) as probe:
        for step in range(NUM_STEPS):
            x, y = (each[examples] for each in batch(step))
            optimizer.zero_grad()
            for part_x, part_y in zip(x.chunk(num_parts), y.chunk(num_parts), strict=True):
                (F.cross_entropy(model(part_x), part_y) / num_parts).backward()
            optimizer.step()
    named = {name: probe.to_frame(name) for name in TABLES}
    return {**named, "unseen": probe.unseen}


def measure(rank: int, rendezvous: str, folder: str) -> None:
    """Measures all scenarios in one of two processes, and pickles what it saw."""
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    dist.init_process_group(
        "gloo",
        init_method=f"file://{rendezvous}",
        rank=rank,
        world_size=2,
        timeout=timedelta(minutes=2),
    )
    found = {"shards": of_shards(rank), **of_ddp(rank), **of_fully_shard(rank), **of_flat(rank)}
    dist.destroy_process_group()
    Path(folder, f"{rank}.pickle").write_bytes(pickle.dumps(found))


def of_ddp(rank: int) -> dict[str, Any]:
    half, world = share(rank, NUM_EXAMPLES // 2), {"group": dist.group.WORLD}
    found = {}
    for name, examples, options in (
        ("ddp", half, world),
        ("ddp, micro-batches", half, {"num_parts": 2, **world}),
        ("ddp, uneven", share(rank, 5), world),
        ("ddp, no group", half, {}),
    ):
        model = nn.parallel.DistributedDataParallel(network())
        found[name] = tables(model, model, examples, **options)
    model = nn.parallel.DistributedDataParallel(network())
    with mock.patch.object(Taps, "reduce", fail) if rank == 1 else nullcontext():
        found["ddp, one fails"] = tables(model, model, half, **world)
    return found


def fail(_: Taps) -> None:
    raise RuntimeError("no luck")


def of_fully_shard(rank: int) -> dict[str, Any]:
    from torch.distributed.fsdp import fully_shard

    half = share(rank, NUM_EXAMPLES // 2)
    found: dict[str, Any] = {}
    for name, shape in (("sharded", (2,)), ("hybrid", (1, 2)), ("replicated", (2, 1))):
        names = ("replicate", "shard")[-len(shape) :]
        mesh = dist.init_device_mesh("cpu", shape, mesh_dim_names=names)
        model = network()
        for part in model.children():
            if isinstance(part, nn.Linear):
                fully_shard(part, mesh=mesh)
        fully_shard(model, mesh=mesh)
        try:
            model(batch(0)[0])
        except AttributeError as error:  # torch 2.6 runs it on CUDA only.
            found[name] = repr(error)
            continue
        found[name] = tables(model, model, half, group=dist.group.WORLD)
    return found


def of_flat(rank: int) -> dict[str, Any]:
    """Of FSDP1, with a flat parameter for each layer, and one for all of them."""
    from torch.distributed.fsdp import FullyShardedDataParallel, ShardingStrategy
    from torch.distributed.fsdp.wrap import ModuleWrapPolicy

    warnings.simplefilter("ignore", FutureWarning)
    half, world = share(rank, NUM_EXAMPLES // 2), dist.group.WORLD
    found: dict[str, Any] = {}
    for name, strategy, is_one, options in (
        ("flat", ShardingStrategy.FULL_SHARD, False, {}),
        ("flat, micro-batches", ShardingStrategy.SHARD_GRAD_OP, True, {"num_parts": 2}),
        ("flat, whole", ShardingStrategy.NO_SHARD, False, {}),
        ("flat, metrics", ShardingStrategy.FULL_SHARD, False, {"metrics": METRICS}),
    ):
        for keeps in (False, True):
            model = FullyShardedDataParallel(
                network(),
                sharding_strategy=strategy,
                auto_wrap_policy=None if is_one else ModuleWrapPolicy({nn.Linear}),
                use_orig_params=keeps,
                device_id=torch.device("cpu"),
            )
            found[f"{name}, {keeps}"] = tables(model, model, half, group=world, **options)
    return found


def placed() -> dict[str, tuple[Tensor, list[Any]]]:
    """Tensors, and how they are placed on a mesh of 1 by 2 ranks."""
    from torch.distributed.tensor import Replicate, Shard

    generator = torch.Generator().manual_seed(3)
    x = torch.randn(3, 4, generator=generator, dtype=torch.float64)
    not_finite = x.clone()
    not_finite[2, 3] = torch.inf
    not_a_number = x.clone()
    not_a_number[0, 0] = torch.nan
    with_zeros = x.relu()
    return {
        "rows": (with_zeros, [Replicate(), Shard(0)]),
        "columns": (with_zeros, [Replicate(), Shard(1)]),
        "two ways": (with_zeros, [Shard(0), Shard(1)]),
        "whole": (with_zeros, [Replicate(), Replicate()]),
        "one row": (with_zeros[:1], [Replicate(), Shard(0)]),
        "tiny": (1e-300 * x, [Replicate(), Shard(0)]),
        "huge": (1e300 * x, [Replicate(), Shard(0)]),
        "inf": (not_finite, [Replicate(), Shard(0)]),
        "nan": (not_a_number, [Replicate(), Shard(0)]),
        "plain": (with_zeros, []),
    }


def norm_of(x: Tensor) -> Tensor:
    """The norm of magnitudes, whose squares may leave float64."""
    scale = x.max() if x.max() > 0 else torch.ones(())
    return torch.linalg.vector_norm(x / scale) * scale


def of_shards(rank: int) -> dict[str, list[Any]]:
    """Norm, peak and share of zeros of each tensor, what is left out, and a gradient's part."""
    from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor

    mesh = dist.init_device_mesh("cpu", (1, 2), mesh_dim_names=("replicate", "shard"))
    weights = {
        row: distribute_tensor(x, mesh, placements) if placements else x
        for row, (x, placements) in enumerate(placed().values())
    }
    parts = [local_part(weight).abs() for weight in weights.values()]
    rows = tuple(weights)
    columns = {
        "weight_norm": [norm_of(part) for part in parts],
        "grad_max": [part.max() for part in parts],
        "grad_zero_fraction": [part.eq(0).double().mean() for part in parts],
    }
    cells = {
        name: ColumnCells(rows, tuple(x[None] for x in each)) for name, each in columns.items()
    }
    if rank == 1:
        # It failed to measure the last but one.
        short = cells["grad_max"]
        cells["grad_max"] = ColumnCells(rows[1:], short.values[1:])
    cells["of its own"] = ColumnCells(rows, tuple(torch.ones(1) for _ in rows))
    joined = join_shards(cells, weights)
    found = {name: torch.cat(joined[name].values).tolist() for name in columns}
    # A gradient that is still to be summed over the ranks, of a weight that is sharded.
    own = torch.full((2, 3), 1.0 + rank)
    unsummed = DTensor.from_local(own, mesh, [Replicate(), Partial()])
    weight = distribute_tensor(torch.zeros(2, 3), mesh, [Replicate(), Shard(0)])
    part = local_part(unsummed, weight).tolist()
    return {**found, "left out": sorted(joined["of its own"].missing), "part": part}
