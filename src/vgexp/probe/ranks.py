"""Takes z, h and dL/dz over the examples of all ranks of a process group."""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist

from vgexp.errors import QuestionError
from vgexp.probe.hooks import Note
from vgexp.probe.moments import GroupNumbers, Parts
from vgexp.probe.plan import WEIGHING
from vgexp.torch_internals import uncompiled

Lost = dict[tuple[str, int], str]
"""(quantity, row) -> why part of it was not seen."""

OWN_EXAMPLES = (
    "z, h and dL/dz are those of this process's own examples (rank {} of {}), N is their number;"
    " Probe(..., group=process_group) takes them over all ranks"
)
FLAT = (
    "FullyShardedDataParallel keeps weights as flat pieces, of which no row can be made; shard the"
    " model with torch.distributed.fsdp.fully_shard instead, whose weights have rows"
)
NOTHING_SEEN = "in a step rank {} measured no pass: z, h and dL/dz are over the other ranks"


class Ranks:
    """The ranks of a group, each with its part of a batch.

    The update's loss is the mean of the ranks' losses, whose gradient DDP and `fully_shard` make.
    What is exchanged is what each rank's forward and backward passes were reduced to, as if the
    passes of the others were micro-batches of one's own. It waits for the device.

    Every rank has to measure the same steps.
    """

    def __init__(self, group: Any, note: Note) -> None:
        if not (dist.is_available() and isinstance(group, dist.ProcessGroup)):
            raise QuestionError(
                f"Probe: group is of type {type(group).__name__}\n"
                "allowed: a process group, such as torch.distributed.group.WORLD once"
                " torch.distributed.init_process_group was called; or None"
            )
        self._group = group
        self._note = note
        self.size = dist.get_world_size(group)

    def join(self, parts: Parts, lost: Lost, examples: int) -> tuple[Parts, Lost, int]:
        """The parts, losses and examples of all ranks together. Every rank has to call it."""
        device = next((v.device for each in parts.values() for p in each for v in p.values), None)
        own = _moved(parts, torch.device("cpu")), lost, examples
        gathered: list[Any] = [None] * self.size
        dist.all_gather_object(gathered, own, group=self._group)
        joined: Parts = {}
        all_lost: Lost = {}
        total = 0
        for rank, (their_parts, their_lost, their_examples) in enumerate(gathered):
            if not their_examples or not their_parts:
                self._note(None, NOTHING_SEEN.format(rank))
            for quantity, more in _moved(their_parts, device or torch.device("cpu")).items():
                joined.setdefault(quantity, []).extend(more)
            all_lost.update(their_lost)
            total += their_examples
        return joined, all_lost, total


def unwrapped(model: nn.Module) -> nn.Module:
    """The module within what `torch.compile` and DDP put around it, whose names are the user's."""
    while True:
        inner = uncompiled(model)
        if isinstance(inner, nn.parallel.DistributedDataParallel):
            inner = inner.module
        if inner is model:
            return model
        model = inner


def unseen_of_ranks(model: nn.Module, ranks: Ranks | None) -> dict[str, str]:
    """What of several processes is not measured, and why."""
    found: dict[str, str] = {}
    if not (dist.is_available() and dist.is_initialized()):
        return found
    if ranks is None and dist.get_world_size() > 1:
        found["the other ranks"] = OWN_EXAMPLES.format(dist.get_rank(), dist.get_world_size())
    kind = getattr(sys.modules.get("torch.distributed.fsdp"), "FullyShardedDataParallel", None)
    sharding = [
        module for module in model.modules() if kind is not None and isinstance(module, kind)
    ]
    if any(_is_flat(inner) for module in sharding for inner in module.modules()):
        found["the model"] = FLAT
    return found


def _is_flat(module: nn.Module) -> bool:
    """Whether a module that weighs has a part of a flat piece in the place of its weight."""
    weight = getattr(module, "weight", None)
    is_whole = isinstance(weight, nn.Parameter) and weight.ndim > 1
    return isinstance(module, WEIGHING) and not is_whole


def _moved(parts: Parts, device: torch.device) -> Parts:
    return {quantity: [_moved_part(part, device) for part in each]
            for quantity, each in parts.items()}  # fmt: skip


def _moved_part(part: GroupNumbers, device: torch.device) -> GroupNumbers:
    values: tuple[Tensor, ...] = tuple([value.to(device) for value in part.values])
    return part._replace(values=values)
