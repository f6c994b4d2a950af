"""Builds the model of a run and draws its weights; a user's model is tried first."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vgexp import inits, losses, models, optimizers, user_code
from vgexp.config import (
    HALF_DTYPES,
    Config,
    CustomConfig,
    ModelConfig,
    NetConfig,
    RecurrentConfig,
    TorchvisionConfig,
    choice,
    targets,
)
from vgexp.data import Dataset
from vgexp.errors import QuestionError, impossible
from vgexp.lookup import call, is_dotted
from vgexp.models import Network, memory
from vgexp.models.recurrence import fused
from vgexp.models.user_code import Tried, misfit, try_model
from vgexp.probe.plan import plan_of_module
from vgexp.seeds import generator
from vgexp.tasks import Task
from vgexp.torch_internals import BATCH_NORMS
from vgexp.training import curvature
from vgexp.watch import Meter, Watch


@dataclass(frozen=True)
class Model:
    """A model with its weights drawn, and what the probe has to know of it."""

    module: nn.Module
    watches: list[Watch] | None
    """Where to measure; None: the model does not say."""
    matrices: Sequence[nn.Parameter]
    """Its weights without the read-out's."""
    batch: tuple[Tensor, Tensor]
    """The first training examples, on the CPU, which it was built with."""
    meters: Sequence[Meter] = ()


def model_of(config: Config, dataset: Dataset, device: torch.device, dtype: torch.dtype) -> Model:
    """Builds the configured model on its device.

    Raises:
        QuestionError: values that do not go together, a model beyond the memory there is, or a
            user's model that does not do what a model does.
    """
    _require_memory(config, dataset.task, device, dtype)
    module = models.build(config.model, dataset.task, dtype)
    is_batch_norm = any(isinstance(m, BATCH_NORMS) for m in module.modules())
    if is_batch_norm and config.data.batch_size < 2:
        allowed = "at least 2 with batch norm (model.norm=batch, or in the model)"
        raise impossible("data.batch_size", config.data.batch_size, allowed)
    # Weights are drawn on the CPU, so that one seed gives one network on every device.
    x, y = (part.cpu() for part in dataset.train.part(0, config.data.batch_size))
    if isinstance(module, Network):
        assert isinstance(config.model, NetConfig | RecurrentConfig)
        module.recomputes = config.train.checkpoint_activations
        module.time_points = config.probe.time_points
        drawn = generator(config.seed, "init")
        module.fitted_variances = inits.initialise(module, config.model, drawn, x)
        watches = module.watches()
        weights = [w.weight for w in watches if w.weight is not None and w.kind != "readout"]
        made = Model(module, watches, weights, (x, y), module.meters())
    else:
        matrices = _try_model(config, module, dataset.task, x, y)
        if config.dtype in HALF_DTYPES:
            fused.make_work(module)
        made = Model(module, None, matrices, (x, y))
    module.to(device)
    return made


def _require_memory(config: Config, task: Task, device: torch.device, dtype: torch.dtype) -> None:
    """Requires enough memory for training, unless the model is the user's.

    What such a model needs is not known before it runs.
    """
    model = _with_known_parts(config)
    if isinstance(model, CustomConfig):
        return
    try:
        needed = memory.need(model, task, config.data.batch_size)
    except OverflowError:
        memory.refuse_largest(device)
    except QuestionError:
        raise
    except NotImplementedError:  # a model that looks at numbers as it is built (regnet)
        return
    except Exception as error:
        if isinstance(model, TorchvisionConfig):
            raise misfit(model, task, error) from error
        raise
    if config.train.checkpoint_activations and isinstance(model, NetConfig | RecurrentConfig):
        needed = needed.recomputing(model.depth)
    kept = curvature.NUM_KEPT if config.probe.curvature_every else 0
    memory.require(needed, dtype, device, optimizers.num_states(config.optimizer) + kept)


def _with_known_parts(config: Config) -> ModelConfig:
    """Replaces the user's own parts of a model by vgexp's, which need about as much memory."""
    plain = {"activation": "relu", "init": "he_normal", "norm": "none"}
    of_user = {key.removeprefix("model.") for key, _ in targets(config) if key.startswith("model.")}
    return dataclasses.replace(config.model, **{key: plain[key] for key in of_user & plain.keys()})


def _try_model(
    config: Config, module: nn.Module, task: Task, x: Tensor, y: Tensor
) -> list[nn.Parameter]:
    """Tries a user's model on a batch; returns its weights without the read-out's.

    Raises:
        QuestionError: it raises something, its output is not what the loss needs, or it has
            nothing to train.
    """
    if config.train.checkpoint_activations:
        raise QuestionError(
            f"train.checkpoint_activations is true, but model={choice('model', config.model)} does"
            " not say what its blocks are\nallowed: false, or a model of vgexp's own"
        )
    if isinstance(config.model, CustomConfig):
        key, name = "model.target", str(config.model.target)
        if any(isinstance(m, torch.jit.ScriptModule) for m in module.modules()):
            raise QuestionError(
                f"{key} is {name!r}: it is a ScriptModule, or holds one, whose layers cannot be"
                " measured\nallowed: the module as it is before torch.jit.script"
            )
        shown: Tried = call(key, name, try_model, module, x)
    elif isinstance(config.model, TorchvisionConfig):
        key, name = "model.arch", config.model.arch
        try:
            shown = try_model(module, x)
        except Exception as error:
            raise misfit(config.model, task, error) from error
    else:
        key, name, shown = "model", choice("model", config.model), try_model(module, x)
    loss = config.train.loss
    for when, output in (("", shown.output), (" in training", shown.output_in_training)):
        _require_output(f"{key} is {name!r}: its output{when}", output, x, y, task, loss)
    if not any(p.requires_grad for p in module.parameters()):
        raise QuestionError(f"{key} is {name!r}: it has no parameter to train")
    readouts = {id(p) for last in shown.last for p in last.parameters(recurse=False)}
    rows = plan_of_module(module, None).rows
    return [
        row.weight
        for row in rows
        if row.weight is not None and not (row.kind == "linear" and id(row.weight) in readouts)
    ]


def _require_output(
    what: str, output: object, x: Tensor, y: Tensor, task: Task, loss: str | None
) -> None:
    """Requires a tensor, and the shape that a loss of ours needs; of another, examples first."""
    wanted = [len(x), *y.shape[1:], task.num_outputs] if y.dtype == torch.int64 else list(y.shape)
    if not isinstance(output, Tensor):
        kind = type(output).__name__
        raise QuestionError(f"{what} is a {kind}\nallowed: one tensor {wanted}")
    if is_dotted(loss) and output.ndim > 1 and len(output) == len(x):
        return
    if list(output.shape) != wanted:
        why = "a logit a class" if y.dtype == torch.int64 else "a value for each of the target's"
        raise QuestionError(
            f"{what} is {list(output.shape)} for inputs {list(x.shape)}\nallowed: {wanted}, {why}"
        )


@torch.no_grad()
def tried_loss(
    config: Config, module: nn.Module, loss: losses.Loss, dataset: Dataset
) -> losses.Loss:
    """A user's loss, tried on a batch; what is right is known only of a logit a class.

    Raises:
        QuestionError: it raises something, or what it returns cannot be minimised.
    """
    x, y = dataset.train.part(0, config.data.batch_size)
    module.eval()
    outputs = module(x)
    module.train()
    user_code.require_loss(str(config.train.loss), loss.mean, outputs, y)
    are_logits = outputs.shape == (*y.shape, dataset.task.num_outputs)
    return loss if are_logits else dataclasses.replace(loss, hits=None)
