"""From a configuration to a trainer: device, data, model, weights, optimizer, in that order."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from vgexp import clips, data, inits, losses, models, optimizers, schedulers, tasks
from vgexp.activations import ACTIVATIONS
from vgexp.assembly.networks import model_of, tried_loss
from vgexp.assembly.rehearsal import rehearse
from vgexp.config import (
    CHOICES,
    HALF_DTYPES,
    Config,
    DataConfig,
    MlpConfig,
    TrainConfig,
    choice,
    require,
    targets,
)
from vgexp.data import Dataset, Split
from vgexp.data.batches import Batches
from vgexp.errors import QuestionError
from vgexp.lookup import find, is_dotted
from vgexp.noise import Noise
from vgexp.norms import NORMS
from vgexp.registry import Registry
from vgexp.schedulers import Schedule
from vgexp.seeds import GlobalStream, generator
from vgexp.skips import SKIPS
from vgexp.training import Curvature, Half, Pretraining, Trainer, TrainState

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

    What the user's own code draws from torch's global generator as it is built comes from a stream
    `init/own`; what it draws as it is imported, which is done once in a process, from `import`.

    Raises:
        QuestionError: a name that does not exist, values that do not go together, a device that is
            not there, or a model beyond the memory there is.
    """
    require(config)
    with _lent(config, "import"):
        _require_names(config)
    with _lent(config, "init/own"):
        return _assembled(config)


@contextmanager
def _lent(config: Config, name: str) -> Iterator[None]:
    """Within, torch's global generator of the CPU is at the beginning of a stream."""
    stream = GlobalStream(config.seed, name, torch.device("cpu"))
    stream.begin()
    try:
        yield
    finally:
        stream.end()


def _assembled(config: Config) -> Trainer:
    device, asked = device_of(config.device), getattr(torch, config.dtype)
    is_half = config.dtype in HALF_DTYPES
    dtype = torch.float32 if is_half else asked
    if config.run.threads is not None:
        torch.set_num_threads(config.run.threads)
    dataset = _dataset(config, dtype, device).to(device)
    loss = _loss(config, dataset)
    batches = Batches(dataset.train, config.data.batch_size, generator(config.seed, "order"))
    model = model_of(config, dataset, device, dtype)
    dataset = _remarked(dataset, model.batch[0])
    if is_dotted(config.train.loss):
        loss = tried_loss(config, model.module, loss, dataset)
    optimizer = optimizers.build(config.optimizer, model.module.parameters())
    clip = clips.build(config.clip, model.matrices)
    steps = config.train.num_steps(batches.per_epoch)
    schedule = schedulers.build(config.scheduler, optimizer, steps)
    _require_heard(config, schedule, dataset)
    stream = GlobalStream(config.seed, "dropout", device)
    half = Half(asked, device, optimizer) if is_half else None
    noise = _noise(config)
    curvature = _curvature(config)
    state = TrainState(
        model.module,
        loss,
        optimizer,
        schedule,
        clip,
        batches,
        stream,
        half,
        noise,
        curvature,
        may_be_sparse=model.watches is None,
    )
    rehearse(config, state, *model.batch)
    return Trainer(
        state,
        dataset,
        model.watches,
        config.train,
        config.probe,
        steps,
        deferred=device.type != "cpu",
        meters=model.meters,
        pretraining=_pretraining(config, model.module, dataset),
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
    """Looks the names of the model and the loss up before anything costs time."""
    if config.train.pretrain_steps:
        _require_plain(config)
    for key, path in targets(config).items():
        find(key, path)
    if config.train.loss is not None:
        losses.LOSSES[config.train.loss]
    for key, registry in _REGISTRIES.items():
        if hasattr(config.model, key):
            registry[getattr(config.model, key)]


def _dataset(config: Config, dtype: torch.dtype, device: torch.device) -> Dataset:
    """The data set, in a form that the model reads."""
    dataset = data.load(config.data, config.seed, dtype, device)
    reads, task = config.model.reads, dataset.task
    if reads:
        fitting = [name for name, cls in CHOICES["data"].items() if cls.gives in ("", *reads)]
        reader = f"model={choice('model', config.model)}"
        tasks.require_kind(task, reader, reads, f"data={', '.join(fitting)}")
    return dataset.flattened() if reads[:1] == ("vector",) else dataset


def _remarked(dataset: Dataset, x: Tensor) -> Dataset:
    """The data set, with a remark on the first examples if they are all that was looked at."""
    if dataset.remarks or isinstance(dataset.train, Split) or not x.is_floating_point():
        return dataset
    num_bad = int((~torch.isfinite(x)).flatten(1).any(1).sum())
    if not num_bad:
        return dataset
    remark = (
        f"data.target: of the first {len(x):,} examples for training, {num_bad:,}"
        f" hold{'s' if num_bad == 1 else ''} nan or inf; the others were not looked at"
    )
    return dataclasses.replace(dataset, remarks=(remark,))


def _loss(config: Config, dataset: Dataset) -> losses.Loss:
    name, answers = config.train.loss or dataset.loss, dataset.train.targets
    losses.require_targets(name, answers, dataset.name)
    return losses.build(
        name, config.train.label_smoothing, has_classes=answers.dtype == torch.int64
    )


def _pretraining(config: Config, model: nn.Module, dataset: Dataset) -> Pretraining | None:
    train = config.train
    if not train.pretrain_steps:
        return None
    assert isinstance(model, models.Mlp)
    if not isinstance(dataset.train, Split):
        raise QuestionError(
            f"train.pretrain_steps is {train.pretrain_steps}, but data={dataset.name} are read one"
            " by one\nallowed: a data set in memory, or train.pretrain_steps=0"
        )
    batch_size, drawn = config.data.batch_size, generator(config.seed, "pretraining")

    def batches_of(split: Split) -> Batches:
        return Batches(split, batch_size, drawn)

    return Pretraining(model, dataset.train, batches_of, train.pretrain_steps, train.pretrain_lr)


def _require_plain(config: Config) -> None:
    """Requires a net whose layers can be trained one after another."""
    model = config.model
    asked = f"model={choice('model', model)}"
    if isinstance(model, MlpConfig):
        if NORMS[model.norm].is_identity and not SKIPS[model.skip].joins:
            return
        asked = f"model.skip={model.skip} model.norm={model.norm}"
    raise QuestionError(
        f"train.pretrain_steps is {config.train.pretrain_steps} with {asked}\n"
        "allowed: model=mlp model.skip=none model.norm=none, or train.pretrain_steps=0"
    )


def _noise(config: Config) -> Noise | None:
    eta, decay = config.train.gradient_noise, config.train.gradient_noise_decay
    return Noise(eta, decay, generator(config.seed, "noise")) if eta else None


def _curvature(config: Config) -> Curvature | None:
    every = config.probe.curvature_every
    return Curvature(every, config.seed) if every else None


def _require_heard(config: Config, schedule: Schedule, dataset: Dataset) -> None:
    """A schedule that follows evaluations needs some."""
    if schedule.hears_evaluations and not len(dataset.val):
        raise _nothing_to_hear(config)
    if schedule.hears_evaluations and not config.train.eval_every:
        raise _never_heard(config)


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
