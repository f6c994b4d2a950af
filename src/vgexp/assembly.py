"""From a configuration to a trainer: device, data, model, weights, optimizer, in that order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from vgexp import clips, data, inits, losses, models, optimizers, schedulers, tasks
from vgexp.activations import ACTIVATIONS
from vgexp.config import (
    HALF_DTYPES,
    SETS,
    Config,
    DataConfig,
    NetConfig,
    RecurrentConfig,
    TrainConfig,
    choice,
    require,
)
from vgexp.data import Dataset
from vgexp.data.batches import Batches
from vgexp.errors import QuestionError, impossible
from vgexp.models import memory
from vgexp.noise import Noise
from vgexp.norms import NORMS
from vgexp.registry import Registry
from vgexp.seeds import GlobalStream, generator
from vgexp.skips import SKIPS
from vgexp.training import Half, Trainer, TrainState

_REGISTRIES: Mapping[str, Registry[Any]] = {
    "activation": ACTIVATIONS,
    "init": inits.INITS,
    "recurrent_init": models.RECURRENT_INITS,
    "norm": NORMS,
    "skip": SKIPS,
}
"""Key of a model -> where its names are."""


def assemble(config: Config) -> Trainer:
    """Builds everything that a run needs; nothing is written.

    Raises:
        QuestionError: a name that does not exist, values that do not go together, a device that is
            not there, or a model beyond the memory there is.
    """
    require(config)
    _require_names(config)
    device, asked = device_of(config.device), getattr(torch, config.dtype)
    is_half = config.dtype in HALF_DTYPES
    dtype = torch.float32 if is_half else asked
    if config.run.threads is not None:
        torch.set_num_threads(config.run.threads)
    dataset = _dataset(config, dtype).to(device)
    named = config.train.loss or dataset.loss
    losses.require_targets(named, dataset.train.targets, dataset.name)
    loss = losses.build(named, config.train.label_smoothing)
    batches = Batches(dataset.train, config.data.batch_size, generator(config.seed, "order"))
    model = _model(config, dataset, device, dtype)
    watches = model.watches()
    optimizer = optimizers.build(config.optimizer, model.parameters())
    matrices = [w.weight for w in watches if w.weight is not None and w.kind != "readout"]
    clip = clips.build(config.clip, matrices)
    steps = config.train.num_steps(batches.per_epoch)
    schedule = schedulers.build(config.scheduler, optimizer, steps)
    if schedule.hears_evaluations and not len(dataset.val):
        raise _nothing_to_hear(config)
    if schedule.hears_evaluations and not config.train.eval_every:
        raise _never_heard(config)
    stream = GlobalStream(config.seed, "dropout", device)
    half = Half(asked, device, optimizer) if is_half else None
    noise = _noise(config)
    state = TrainState(model, loss, optimizer, schedule, clip, batches, stream, half, noise)
    return Trainer(
        state,
        dataset,
        watches,
        config.train,
        config.probe,
        steps,
        deferred=device.type != "cpu",
        meters=model.meters(),
        checkpoint_every=config.run.checkpoint_every,
    )


def device_of(name: str) -> torch.device:
    """The device of that name; `auto` is CUDA where there is one.

    Raises:
        QuestionError: no such device here.
    """
    here = ["cpu"]
    if torch.cuda.is_available():
        here += ["cuda", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    if name == "auto":
        return torch.device(here[1] if len(here) > 1 else "cpu")
    if name not in here:
        raise QuestionError(f"device is {name!r}\nallowed here: auto, {', '.join(here)}")
    return torch.device(name)


def _require_names(config: Config) -> None:
    """Looks the model's names up before anything costs time."""
    model = config.model
    if config.train.loss is not None:
        losses.LOSSES[config.train.loss]
    for key, registry in _REGISTRIES.items():
        if hasattr(model, key):
            registry[getattr(model, key)]


def _dataset(config: Config, dtype: torch.dtype) -> Dataset:
    """The data set, in a form that the model reads."""
    dataset = data.load(config.data, config.seed, dtype)
    reads, task = config.model.reads, dataset.task
    if reads:
        fitting = [name for name, cls in SETS.items() if cls.gives in reads]
        reader = f"model={choice('model', config.model)}"
        tasks.require_kind(task, reader, reads, f"data={', '.join(fitting)}")
    return dataset.flattened() if reads[:1] == ("vector",) else dataset


def _model(
    config: Config, dataset: Dataset, device: torch.device, dtype: torch.dtype
) -> models.Network:
    assert isinstance(config.model, NetConfig | RecurrentConfig)
    needed = memory.need(config.model, dataset.task, config.data.batch_size)
    memory.require(needed, dtype, device, optimizers.num_states(config.optimizer))
    model = models.build(config.model, dataset.task, dtype)
    model.recomputes = config.train.checkpoint_activations
    model.time_points = config.probe.time_points
    is_batch_norm = any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in model.modules())
    if is_batch_norm and config.data.batch_size < 2:
        raise impossible(
            "data.batch_size", config.data.batch_size, "at least 2 with model.norm=batch"
        )
    # Drawn on the CPU, so that one seed gives one network on every device.
    batch = dataset.train.inputs[: config.data.batch_size].cpu()
    inits.initialise(model, config.model, generator(config.seed, "init"), batch)
    model.to(device)
    return model


def _noise(config: Config) -> Noise | None:
    eta, decay = config.train.gradient_noise, config.train.gradient_noise_decay
    return Noise(eta, decay, generator(config.seed, "noise")) if eta else None


def _nothing_to_hear(config: Config) -> QuestionError:
    return QuestionError(
        f"scheduler={choice('scheduler', config.scheduler)} follows the validation loss, but no"
        f" example is held out for validation: data.val_fraction is {config.data.val_fraction}\n"
        f"allowed: a larger data.val_fraction, such as {DataConfig().val_fraction}, or a scheduler"
        " that counts steps"
    )


def _never_heard(config: Config) -> QuestionError:
    return QuestionError(
        f"scheduler={choice('scheduler', config.scheduler)} follows the validation loss, but"
        " train.eval_every is 0: nothing is evaluated between the start and the end\n"
        f"allowed: train.eval_every of at least 1, such as {TrainConfig().eval_every}, or a"
        " scheduler that counts steps"
    )
