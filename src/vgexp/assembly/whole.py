"""Builds a trainer from a configuration: device, data, model, weights, optimizer, in this order."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from vgexp import clips, data, inits, losses, models, optimizers, schedulers, tasks
from vgexp.activations import ACTIVATIONS
from vgexp.assembly.networks import Model, model_of, tried_loss
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
from vgexp.probe import Probe
from vgexp.quantities import COMMON
from vgexp.registry import Registry
from vgexp.schedulers import Schedule
from vgexp.seeds import GlobalStream, generator
from vgexp.skips import SKIPS
from vgexp.torch_internals import DROPOUTS
from vgexp.training import Curvature, Half, Pretraining, RunFacts, Trainer, TrainState
from vgexp.training.loss_meter import LossMeter

_REGISTRIES: Mapping[str, Registry[Any]] = {
    "activation": ACTIVATIONS,
    "init": inits.INITS,
    "recurrent_init": models.RECURRENT_INITS,
    "norm": NORMS,
    "skip": SKIPS,
}
"""Key of a model -> the registry of its names."""


def assemble(config: Config, *, is_deferred: bool | None = None) -> Trainer:
    """Builds everything that a run needs; nothing is written.

    What the user's own code draws from torch's global generator as it is built comes from a stream
    `init/own`; what it draws as it is imported, which is done once in a process, from `import`.

    Args:
        is_deferred: whether divergence is looked for at a flush; None: on CUDA, where looking at
            each step would wait for the device.

    Raises:
        QuestionError: a name that does not exist, values that do not go together, a device that is
            not there, or a model beyond the memory there is.
    """
    require(config)
    cpu = torch.device("cpu")
    with GlobalStream(config.seed, "import", cpu).lend():
        _require_names(config)
    with GlobalStream(config.seed, "init/own", cpu).lend():
        return _build(config, is_deferred)


def _build(config: Config, is_deferred: bool | None) -> Trainer:
    device, asked = device_of(config.device), getattr(torch, config.dtype)
    is_half = config.dtype in HALF_DTYPES
    dtype = torch.float32 if is_half else asked
    if config.run.threads is not None:
        torch.set_num_threads(config.run.threads)
    dataset = _load_dataset(config, dtype, device).to(device)
    loss = _build_loss(config, dataset)
    batches = Batches(dataset.train, config.data.batch_size, generator(config.seed, "order"))
    model = model_of(config, dataset, device, dtype)
    dataset = _remark_on_examples(dataset, model.batch[0])
    if is_dotted(config.train.loss):
        loss = tried_loss(config, model.module, loss, dataset)
    if model.watches is None or is_dotted(config.train.loss):
        described = LossMeter(loss)
        loss, model = described.loss, dataclasses.replace(model, meters=(*model.meters, described))
    optimizer = optimizers.build(config.optimizer, model.module.parameters())
    num_steps = config.train.num_steps(batches.per_epoch)
    schedule = schedulers.build(config.scheduler, optimizer, num_steps)
    _require_validation(config, schedule, dataset)
    state = TrainState(
        model.module,
        loss,
        optimizer,
        schedule,
        clips.build(config.clip, model.matrices),
        batches,
        GlobalStream(config.seed, "dropout", device),
        half=Half(asked, device, optimizer) if is_half else None,
        noise=_build_noise(config),
        curvature=_build_curvature(config),
        may_be_sparse=model.watches is None,
        may_draw=_may_draw(model),
        accumulate=config.train.accumulate,
    )
    rehearse(config, state, *model.batch)
    make_probe = _probe_maker(config, state, model)
    return Trainer(
        state,
        _collect_facts(config, state, dataset, model, num_steps, make_probe().tables),
        config.train,
        make_probe,
        is_deferred=device.type != "cpu" if is_deferred is None else is_deferred,
        pretraining=_build_pretraining(config, model.module, dataset),
        checkpoint_every=config.run.checkpoint_every,
    )


def _collect_facts(
    config: Config,
    state: TrainState,
    dataset: Dataset,
    model: Model,
    num_steps: int,
    measured: Sequence[str],
) -> RunFacts:
    asked = {
        "pretraining": config.train.pretrain_steps,
        "curvature": config.probe.curvature_every,
    }
    optional = [table for table, value in asked.items() if value]
    depth = None
    if model.watches is not None:
        depth = max(watch.layer for watch in model.watches if watch.kind != "readout")
    return RunFacts(
        dataset,
        state.loss,
        num_steps,
        num_parameters=sum(p.numel() for p in state.parameters),
        num_layers=depth,
        device=state.parameters[0].device,
        tables=tuple(dict.fromkeys((*COMMON, *optional, *measured))),
        stops_on_divergence=config.train.stop_on_divergence,
    )


def _probe_maker(config: Config, state: TrainState, model: Model) -> Callable[[], Probe]:
    return partial(
        Probe,
        state.model,
        state.optimizer,
        every=config.probe.every,
        activations_every=config.probe.activations_every,
        histograms_every=config.probe.histograms_every,
        layers=config.probe.layers,
        watches=model.watches,
        meters=model.meters,
        scaler=None if state.half is None else state.half.scaler,
        is_bare=True,
    )


def _may_draw(model: Model) -> bool:
    """Whether its forward pass may draw random numbers; of a user's model: maybe."""
    is_dropping = any(isinstance(module, DROPOUTS) for module in model.module.modules())
    return model.watches is None or is_dropping


def device_of(name: str) -> torch.device:
    """Finds the device of a name; `auto` is CUDA where there is one.

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
    """Looks up every name in the configuration, before anything takes time."""
    if config.train.pretrain_steps:
        _require_plain(config)
    for key, path in targets(config):
        find(key, path)
    if config.train.loss is not None:
        losses.LOSSES[config.train.loss]
    for key, registry in _REGISTRIES.items():
        if hasattr(config.model, key):
            registry[getattr(config.model, key)]


def _load_dataset(config: Config, dtype: torch.dtype, device: torch.device) -> Dataset:
    """Loads the data set in the form that the model reads."""
    dataset = data.load(config.data, config.seed, dtype, device)
    reads, task = config.model.reads, dataset.task
    if reads:
        fitting = [name for name, cls in CHOICES["data"].items() if cls.gives in ("", *reads)]
        reader = f"model={choice('model', config.model)}"
        tasks.require_kind(task, reader, reads, f"data={', '.join(fitting)}")
    return dataset.flattened() if reads[:1] == ("vector",) else dataset


def _remark_on_examples(dataset: Dataset, x: Tensor) -> Dataset:
    """Adds a remark on non-finite inputs, if no more than the first examples were looked at."""
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


def _build_loss(config: Config, dataset: Dataset) -> losses.Loss:
    name, answers = config.train.loss or dataset.loss, dataset.train.targets
    losses.require_targets(name, answers, dataset.name)
    return losses.build(
        name, config.train.label_smoothing, has_classes=answers.dtype == torch.int64
    )


def _build_pretraining(config: Config, model: nn.Module, dataset: Dataset) -> Pretraining | None:
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
    """Requires a net whose layers can be pretrained one after another."""
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


def _build_noise(config: Config) -> Noise | None:
    eta, decay = config.train.gradient_noise, config.train.gradient_noise_decay
    return Noise(eta, decay, generator(config.seed, "noise")) if eta else None


def _build_curvature(config: Config) -> Curvature | None:
    every = config.probe.curvature_every
    return Curvature(every, config.seed) if every else None


def _require_validation(config: Config, schedule: Schedule, dataset: Dataset) -> None:
    """Requires evaluations on held-out examples for a schedule that follows their loss."""
    if not schedule.hears_evaluations:
        return
    asked = f"scheduler={choice('scheduler', config.scheduler)} follows the validation loss, but"
    instead = "or a scheduler that counts steps"
    if not len(dataset.val):
        raise QuestionError(
            f"{asked} no example is held out for validation: data.val_fraction is"
            f" {config.data.val_fraction}\n"
            f"allowed: a larger data.val_fraction, such as {DataConfig().val_fraction}, {instead}"
        )
    if not config.train.eval_every:
        raise QuestionError(
            f"{asked} train.eval_every is 0: nothing is evaluated between the start and the end\n"
            f"allowed: train.eval_every of at least 1, such as {TrainConfig().eval_every},"
            f" {instead}"
        )
