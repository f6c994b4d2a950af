"""What a model will need of memory, known before any of it is asked for."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import torch
from torch import Tensor, nn

from vgexp.activations import ACTIVATIONS
from vgexp.config import (
    RESNET_STAGES,
    AttentionConfig,
    MlpConfig,
    ModelConfig,
    ResnetConfig,
    choice,
)
from vgexp.errors import QuestionError
from vgexp.models import MODELS
from vgexp.models.mlp import norms_the_sum
from vgexp.norms import NORMS
from vgexp.skips import SKIPS
from vgexp.tasks import Task

GIB = 2**30
MEMINFO = Path("/proc/meminfo")
OWN_CGROUPS = Path("/proc/self/cgroup")
CGROUPS = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Need:
    """How many numbers a training run holds at once."""

    num_parameters: int
    """Of the model; as many gradients, and as many again for each state of the optimizer."""
    num_activations: int
    """Kept by one forward pass for the backward pass."""

    def recomputing(self, num_blocks: int) -> Need:
        """With activations computed again: at once, of n blocks, the inputs of about sqrt(n)
        segments and what one segment of sqrt(n) blocks keeps."""
        share = min(1.0, 2 / math.sqrt(num_blocks))
        return Need(self.num_parameters, math.ceil(share * self.num_activations))

    def num_bytes(self, dtype: torch.dtype, num_states: int) -> int:
        """Bytes of parameters, gradients, optimizer states (adam: 2) and activations."""
        return dtype.itemsize * (self.num_parameters * (2 + num_states) + self.num_activations)


def need(config: ModelConfig, task: Task, batch_size: int) -> Need:
    """What training on batches of `batch_size` holds; nothing of it is allocated."""
    if isinstance(config, MlpConfig):
        return Need(
            num_parameters(config, task.num_features, task.num_outputs),
            num_activations(config, task.num_features, task.num_outputs, batch_size),
        )
    if isinstance(config, AttentionConfig):
        return _stretched(config, (1, 2), task, batch_size)
    if isinstance(config, ResnetConfig):
        period = RESNET_STAGES * config.block_layers
        return _stretched(config, (period + 2, 2 * period + 2), task, batch_size)
    return _rehearsed(config, task, batch_size)


def _stretched(
    config: AttentionConfig | ResnetConfig, depths: tuple[int, int], task: Task, batch_size: int
) -> Need:
    """Of equal blocks: the line through one of them and two, so that any depth is told at once."""
    one, two = (
        _rehearsed(dataclasses.replace(config, depth=depth), task, batch_size) for depth in depths
    )
    more = (config.depth - depths[0]) // (depths[1] - depths[0])
    return Need(
        one.num_parameters + more * (two.num_parameters - one.num_parameters),
        one.num_activations + more * (two.num_activations - one.num_activations),
    )


def _rehearsed(config: ModelConfig, task: Task, batch_size: int) -> Need:
    """By a forward pass without numbers, of two batches of few examples and the line through them.

    Two, since a part may not depend on the batch; few, for some kernels' sizes are limited.
    """
    with torch.device("meta"):
        model = MODELS[choice("model", config)](config, task)
        first, second = (_kept(model, task, examples) for examples in (2, 4))
    return Need(_count(model), first + (second - first) // 2 * (batch_size - 2))


def _kept(model: nn.Module, task: Task, num_examples: int) -> int:
    """Numbers that autograd keeps of a forward pass, parameters left out."""
    own = {id(p) for p in model.parameters()}
    kept: dict[int, Tensor] = {}

    def keep(x: Tensor) -> Tensor:
        base = x if x._base is None else x._base
        if id(base) not in own:
            kept[id(base)] = base
        return x

    dtype = torch.int64 if task.kind == "tokens" else None
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        model(torch.zeros(num_examples, *task.shape, dtype=dtype))
    return sum(x.numel() for x in kept.values())


def require(needed: Need, dtype: torch.dtype, device: torch.device, num_states: int) -> None:
    """Returns if the device has the memory; does so too where what it has is not known.

    Args:
        num_states: numbers that the optimizer keeps for each parameter.

    Raises:
        QuestionError: it has not; says the parameters, the bytes needed and available.
    """
    asked, available = needed.num_bytes(dtype, num_states), available_bytes(device)
    if available is not None and asked > available:
        raise QuestionError(
            f"the model has {needed.num_parameters:,} parameters and its training needs"
            f" {asked:,} bytes ({asked / GIB:,.1f} GiB)\n"
            f"allowed: {available:,} bytes ({available / GIB:,.1f} GiB) available on {device}\n"
            "remedy: a smaller model.width, model.depth or data.batch_size;"
            " train.checkpoint_activations=true"
        )


def num_parameters(config: MlpConfig, num_inputs: int, num_outputs: int) -> int:
    """Trainable numbers of the perceptron, in closed form over its depth."""
    width, depth = config.width, config.depth
    skip = SKIPS[config.skip]
    biases = depth * width + num_outputs if config.bias else 0
    readers = depth * (depth - 1) // 2 if skip.concatenates else depth - 1
    weights = width * (num_inputs + readers * width + num_outputs)
    num_norms = depth - 1 if norms_the_sum(config) else depth
    with torch.device("meta"):
        norm = _count(NORMS[config.norm](width, config))
        phi = _count(ACTIVATIONS[config.activation].build(config.negative_slope))
        combine = _count(skip.combine(width, depth) if skip.combine else None)
    return weights + biases + num_norms * norm + depth * phi + (depth - 1) * combine


def num_activations(config: MlpConfig, num_inputs: int, num_outputs: int, batch_size: int) -> int:
    """Numbers that one forward pass keeps: x, each z and h, sums, norms, concatenations, outputs.

    An estimate: what autograd keeps of an operation differs by operation and version.
    """
    width, depth = config.width, config.depth
    skip = SKIPS[config.skip]
    with torch.device("meta"):
        has_norm = NORMS[config.norm](width, config) is not None
    # h_1 alone is no copy; the concatenations of 2, 3, .. L - 1 are.
    concatenated = max(depth * (depth - 1) // 2 - 1, 0) if skip.concatenates else 0
    per_layer = 2 + has_norm + skip.adds + (config.dropout > 0)
    return batch_size * (num_inputs + num_outputs + width * (depth * per_layer + concatenated))


def available_bytes(device: torch.device) -> int | None:
    """Bytes that a new process could take on the device; None where that is not known.

    On CUDA all that the device has; on CPU the least of what is free and of what the control
    groups of this process allow, as in a container or a batch job.
    """
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[1])
    if device.type != "cpu":
        return None
    physical = _physical_bytes()
    limits = [*_cgroup_limits(), *([] if physical is None else [physical])]
    return min(limits, default=None)


def _physical_bytes() -> int | None:
    if MEMINFO.exists():
        for line in MEMINFO.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


def _cgroup_limits() -> Iterator[int]:
    """Bytes that each control group around this process allows, of both versions.

    A group's limit holds for those within it, and a container may see its own group as the root,
    so every folder from this process's group up to the root is asked.
    """
    for line in _text(OWN_CGROUPS).splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            root, name = CGROUPS, "memory.max"
        elif "memory" in controllers.split(","):
            root, name = CGROUPS / "memory", "memory.limit_in_bytes"
        else:
            continue
        group = PurePosixPath(path.lstrip("/"))
        for folder in (group, *group.parents):
            limit = _text(root / folder / name).strip()
            # "max", or no such file: no limit here.
            if limit.isdecimal():
                yield int(limit)


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _count(module: nn.Module | None) -> int:
    return sum(p.numel() for p in module.parameters()) if module is not None else 0
