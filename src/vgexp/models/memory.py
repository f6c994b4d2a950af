"""The memory that training a model needs, known before any of it is allocated."""

from __future__ import annotations

import torch
from torch import nn

from vgexp import machine
from vgexp.activations import ACTIVATIONS
from vgexp.config import MlpConfig, ModelConfig
from vgexp.models.mlp import norms_the_sum
from vgexp.models.rehearsal import Need, estimate
from vgexp.norms import NORMS
from vgexp.skips import SKIPS
from vgexp.tasks import Task

_LARGEST_TENSOR = 2**63
"""Number of bytes that no tensor can have, not even one on the meta device."""
_REMEDY = "a smaller model.width, model.depth or data.batch_size; train.checkpoint_activations=true"


def need(config: ModelConfig, task: Task, batch_size: int) -> Need:
    """Estimates what training on batches of `batch_size` holds, without allocating it.

    Raises:
        OverflowError: a single tensor of it would be larger than any can be.
    """
    try:
        return estimate(config, task, batch_size)
    except (RuntimeError, TypeError) as error:
        # torch has no kind of its own for numbers beyond 64 bits.
        if "overflow" in str(error).lower():
            raise OverflowError(str(error)) from error
        raise


@estimate.register
def _perceptron(config: MlpConfig, task: Task, batch_size: int) -> Need:
    """Computes the need of a perceptron in closed form."""
    return Need(
        num_parameters(config, task.num_features, task.num_outputs),
        num_activations(config, task.num_features, task.num_outputs, batch_size),
    )


def require(needed: Need, dtype: torch.dtype, device: torch.device, num_states: int) -> None:
    """Requires that the device has the memory; passes if its memory is not known.

    Args:
        num_states: numbers that the optimizer keeps for each parameter.

    Raises:
        QuestionError: it has not; says the parameters, the bytes needed and available.
    """
    what = f"the model has {needed.num_parameters:,} parameters and its training needs"
    machine.require_bytes(needed.num_bytes(dtype, num_states), device, what, _REMEDY)


def refuse_largest(device: torch.device) -> None:
    """Refuses a model with a tensor that is larger than any can be.

    Raises:
        QuestionError: always.
    """
    machine.refuse_bytes(_LARGEST_TENSOR, device, "one tensor of the model needs at least", _REMEDY)


def num_parameters(config: MlpConfig, num_inputs: int, num_outputs: int) -> int:
    """Counts the trainable numbers of the perceptron, in closed form over its depth."""
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
    """Counts what one forward pass keeps: x, each z and h, sums, norms, concatenations, outputs.

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


def _count(module: nn.Module | None) -> int:
    return sum(p.numel() for p in module.parameters()) if module is not None else 0
