"""Takes z, h and dL/dz over the examples of all ranks of a process group."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist

from vgexp.errors import QuestionError
from vgexp.probe.flat import FLAT, FlatWeight, Members, is_in_parts
from vgexp.probe.hooks import Note
from vgexp.probe.moments import GroupNumbers, Parts
from vgexp.probe.own_metrics import OwnMetrics
from vgexp.torch_internals import flat_kind, uncompiled

Lost = dict[tuple[str, int], str]
"""(quantity, row) -> why part of it was not seen."""

OWN_EXAMPLES = (
    "z, h and dL/dz are those of this process's own examples (rank {} of {}), N is their number;"
    " Probe(..., group=process_group) takes them over all ranks"
)
OWN_UNTIL_LATER = (
    "how much clipping leaves of a gradient is not known, since each rank has its own as it comes"
)
NOT_SEEN_TO_COME = (
    "FullyShardedDataParallel shows gradients when all have come: whether those of the update"
    " before were cleared, and how much clipping leaves of them, is not known"
)
IN_PARTS = "no rank of FullyShardedDataParallel holds a whole weight or gradient to call them with"
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


def has_other_ranks() -> bool:
    """Whether this process is one of several that train together."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def unseen_of_ranks(model: nn.Module, ranks: Ranks | None, own: OwnMetrics) -> dict[str, str]:
    """What of several processes is not measured, and why."""
    found: dict[str, str] = {}
    if not (dist.is_available() and dist.is_initialized()):
        return found
    if ranks is None and has_other_ranks():
        found["the other ranks"] = OWN_EXAMPLES.format(dist.get_rank(), dist.get_world_size())
    if has_other_ranks():
        found["gradient_left"] = OWN_UNTIL_LATER
    if flat_kind() is not None:
        members = Members(model)
        if members.has_lost:
            found["the model"] = FLAT
        every = [p for _, p in members.parameters() if isinstance(p, FlatWeight)]
        if any(map(is_in_parts, every)):
            found |= dict.fromkeys(own.names_of("weight", "gradient"), IN_PARTS)
        if every:
            found.pop("gradient_left", None)
            found["gradient_kept, gradient_left"] = NOT_SEEN_TO_COME
    return found


def _moved(parts: Parts, device: torch.device) -> Parts:
    return {quantity: [_moved_part(part, device) for part in each]
            for quantity, each in parts.items()}  # fmt: skip


def _moved_part(part: GroupNumbers, device: torch.device) -> GroupNumbers:
    values: tuple[Tensor, ...] = tuple([value.to(device) for value in part.values])
    return part._replace(values=values)
