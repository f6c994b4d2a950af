"""The configuration: one dataclass for each choice of a group. Hydra composes these; below the
door they are plain objects, and every range is checked where the value enters."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Optional

from vgexp.errors import QuestionError, impossible, unknown
from vgexp.registry import Registry

DTYPES = ("float32", "float64")
NORM_POSITIONS = ("pre", "post")
DEFAULT_STEPS = 500
SEED_LIMIT = 2**63


def _at_least(key: str, value: float | None, low: float) -> None:
    if value is not None and not (value >= low and math.isfinite(value)):
        raise impossible(key, value, f"a number of at least {low}")


def _above(key: str, value: float | None, low: float) -> None:
    if value is not None and not (value > low and math.isfinite(value)):
        raise impossible(key, value, f"a number above {low}")


def _within(key: str, value: float, low: float, high: float) -> None:
    if not low <= value < high:
        raise impossible(key, value, f"at least {low} and below {high}")


def _one_of(key: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise unknown(key, value, allowed)


# ---------------------------------------------------------------- model


@dataclass
class ModelConfig:
    """What every choice of `model` extends."""


@dataclass
class MlpConfig(ModelConfig):
    """A perceptron of equal hidden layers and one read-out."""

    depth: int = 10
    """Hidden weight layers L; the read-out is one more."""
    width: int = 64
    """Units in each hidden layer."""
    activation: str = "relu"
    """Name of the activation phi; `vgexp list activations`."""
    negative_slope: Optional[float] = None
    """Slope below zero of leaky_relu, and where prelu's starts; null: 0.01 and 0.25."""
    init: str = "he_normal"
    """Name of the weight initialisation; `vgexp list inits`."""
    gain: float = 1.0
    """Multiplies the initialisation's standard deviation."""
    bias: bool = True
    """Whether layers have biases."""
    bias_std: float = 0.0
    """Standard deviation of the biases at the start; 0: all zero."""
    norm: str = "none"
    """Name of the normalisation; `vgexp list norms`."""
    norm_position: str = "pre"
    """`pre`: phi(norm(z)); `post`: norm(phi(z)), with an adding skip norm(z + branch)."""
    norm_groups: int = 8
    """Groups of group norm; must divide the width."""
    skip: str = "none"
    """Name of the skip connection; `vgexp list skips`."""

    def __post_init__(self) -> None:
        _at_least("model.depth", self.depth, 1)
        _at_least("model.width", self.width, 1)
        _at_least("model.gain", self.gain, 0.0)
        _at_least("model.bias_std", self.bias_std, 0.0)
        _at_least("model.norm_groups", self.norm_groups, 1)
        if self.negative_slope is not None and not math.isfinite(self.negative_slope):
            raise impossible("model.negative_slope", self.negative_slope, "a finite number")
        _one_of("model.norm_position", self.norm_position, NORM_POSITIONS)


# ---------------------------------------------------------------- data


@dataclass
class DataConfig:
    """What every choice of `data` extends."""

    batch_size: int = 64
    """Examples in one batch (a micro-batch where `train.accumulate` is above 1)."""
    val_fraction: float = 0.15
    """Share of the examples held out for validation; as many again are held out for the test."""

    def __post_init__(self) -> None:
        _at_least("data.batch_size", self.batch_size, 1)
        _within("data.val_fraction", self.val_fraction, 0.0, 0.5)


@dataclass
class DigitsConfig(DataConfig):
    """1,797 handwritten digits of 8x8 grey pixels, bundled with scikit-learn."""


@dataclass
class GaussianConfig(DataConfig):
    """Inputs N(0, 1) with random labels: the input of signal-propagation theory."""

    num_examples: int = 4096
    """Examples generated, over all splits."""
    features: int = 64
    """Input features."""
    num_classes: int = 10
    """Classes of the random labels."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _at_least("data.num_examples", self.num_examples, 2)
        _at_least("data.features", self.features, 1)
        _at_least("data.num_classes", self.num_classes, 2)


@dataclass
class SpiralsConfig(DataConfig):
    """Interleaved spiral arms in the plane, one class an arm."""

    num_examples: int = 3000
    """Examples generated, over all splits."""
    num_classes: int = 3
    """Arms."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _at_least("data.num_examples", self.num_examples, 2)
        _at_least("data.num_classes", self.num_classes, 2)


# ---------------------------------------------------------------- optimizer


@dataclass
class OptimizerConfig:
    """What every choice of `optimizer` extends."""

    lr: float = 0.1
    """Learning rate at the schedule's factor 1."""
    weight_decay: float = 0.0
    """L2 penalty (decoupled for adamw)."""

    def __post_init__(self) -> None:
        _at_least("optimizer.lr", self.lr, 0.0)
        _at_least("optimizer.weight_decay", self.weight_decay, 0.0)


@dataclass
class SgdConfig(OptimizerConfig):
    """Plain stochastic gradient descent."""


@dataclass
class MomentumConfig(OptimizerConfig):
    """Stochastic gradient descent with heavy-ball momentum."""

    lr: float = 0.01
    """Learning rate at the schedule's factor 1."""
    momentum: float = 0.9
    """Share of the last update that is kept."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _within("optimizer.momentum", self.momentum, 0.0, 1.0)


@dataclass
class RmspropConfig(OptimizerConfig):
    """RMSprop: each entry divided by its running root mean square."""

    lr: float = 1e-3
    """Learning rate at the schedule's factor 1."""
    momentum: float = 0.0
    """Share of the last update that is kept."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _within("optimizer.momentum", self.momentum, 0.0, 1.0)


@dataclass
class AdamConfig(OptimizerConfig):
    """Adam (Kingma & Ba 2015)."""

    lr: float = 1e-3
    """Learning rate at the schedule's factor 1."""


@dataclass
class AdamwConfig(OptimizerConfig):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019)."""

    lr: float = 1e-3
    """Learning rate at the schedule's factor 1."""
    weight_decay: float = 0.01
    """Decoupled weight decay."""


# ---------------------------------------------------------------- scheduler


@dataclass
class SchedulerConfig:
    """What every choice of `scheduler` extends."""


@dataclass
class ConstantConfig(SchedulerConfig):
    """The learning rate stays."""


@dataclass
class StepConfig(SchedulerConfig):
    """The learning rate falls by a factor at equal intervals."""

    interval_fraction: float = 1 / 3
    """Interval between falls, as a share of the run."""
    factor: float = 0.1
    """What the learning rate is multiplied by at each fall."""

    def __post_init__(self) -> None:
        _above("scheduler.interval_fraction", self.interval_fraction, 0.0)
        _above("scheduler.factor", self.factor, 0.0)


@dataclass
class CosineConfig(SchedulerConfig):
    """The learning rate follows half a cosine down to 0 (Loshchilov & Hutter 2017)."""


@dataclass
class WarmupCosineConfig(SchedulerConfig):
    """A linear rise, then half a cosine down to 0."""

    warmup_fraction: float = 0.1
    """Length of the rise, as a share of the run."""

    def __post_init__(self) -> None:
        _within("scheduler.warmup_fraction", self.warmup_fraction, 0.0, 1.0)


@dataclass
class PlateauConfig(SchedulerConfig):
    """The learning rate falls when the evaluated loss stops falling."""

    factor: float = 0.1
    """What the learning rate is multiplied by at each fall."""
    patience: int = 5
    """Evaluations without a better loss before a fall."""

    def __post_init__(self) -> None:
        _within("scheduler.factor", self.factor, 0.0, 1.0)
        _at_least("scheduler.patience", self.patience, 0)


# ---------------------------------------------------------------- clip


@dataclass
class ClipConfig:
    """What every choice of `clip` extends."""


@dataclass
class NoClipConfig(ClipConfig):
    """Gradients reach the optimizer as they are."""


@dataclass
class _ThresholdConfig(ClipConfig):
    threshold: float = 1.0
    """Where clipping begins."""

    def __post_init__(self) -> None:
        _above("clip.threshold", self.threshold, 0.0)


@dataclass
class NormClipConfig(_ThresholdConfig):
    """The whole gradient is scaled to a norm of at most the threshold (Pascanu 2013)."""


@dataclass
class ValueClipConfig(_ThresholdConfig):
    """Each entry is cut at plus and minus the threshold."""


@dataclass
class LayerClipConfig(_ThresholdConfig):
    """Each parameter tensor is scaled to a norm of at most the threshold."""


@dataclass
class AgcClipConfig(_ThresholdConfig):
    """Each row is scaled to at most a share of its weights' norm (Brock 2021)."""

    threshold: float = 0.01
    """lambda: the largest ratio of a row's gradient norm to its weight norm."""


@dataclass
class AutoClipConfig(_ThresholdConfig):
    """The norm threshold is a percentile of the norms seen so far (Seetharaman 2020)."""

    threshold: float = 10.0
    """Percentile of the last 1,000 finite norms."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.threshold > 100:
            raise impossible("clip.threshold", self.threshold, "a percentile: above 0, at most 100")


# ---------------------------------------------------------------- the rest


@dataclass
class TrainConfig:
    """How long and how training goes."""

    steps: Optional[int] = None
    """Optimizer steps; null with `train.epochs` null as well: 500."""
    epochs: Optional[int] = None
    """Passes over the training split, instead of `train.steps`."""
    accumulate: int = 1
    """Batches whose gradients make one optimizer step."""
    eval_every: int = 100
    """Steps between evaluations on the train and val splits; 0: at the start and the end only."""
    stop_on_divergence: bool = True
    """Whether a run ends at its first non-finite step."""

    def __post_init__(self) -> None:
        if self.steps is None and self.epochs is None:
            self.steps = DEFAULT_STEPS
        if self.steps is not None and self.epochs is not None:
            raise QuestionError(
                f"train.steps is {self.steps} and train.epochs is {self.epochs}\n"
                "allowed: one of the two; set the other to null"
            )
        _at_least("train.steps", self.steps, 1)
        _at_least("train.epochs", self.epochs, 1)
        _at_least("train.accumulate", self.accumulate, 1)
        _at_least("train.eval_every", self.eval_every, 0)

    def num_steps(self, batches_per_epoch: int) -> int:
        """Optimizer steps of the run."""
        if self.steps is not None:
            return self.steps
        assert self.epochs is not None
        return max(1, self.epochs * batches_per_epoch // self.accumulate)


@dataclass
class ProbeConfig:
    """What is measured, and how often."""

    every: int = 20
    """Steps between weight and gradient columns."""
    activations_every: int = 20
    """Steps between the other columns."""
    layers: Optional[str] = None
    """Regular expression on the weights' names; null: all."""

    def __post_init__(self) -> None:
        _at_least("probe.every", self.every, 1)
        _at_least("probe.activations_every", self.activations_every, 1)


@dataclass
class OutputConfig:
    """What is shown."""

    quiet: bool = False
    """No progress and no closing table."""


@dataclass
class RunConfig:
    """How the process runs."""

    threads: Optional[int] = 1
    """CPU threads of torch, of which small layers gain nothing; null: torch's own choice."""

    def __post_init__(self) -> None:
        _at_least("run.threads", self.threads, 1)


@dataclass
class Config:
    """Everything that a run depends on."""

    model: ModelConfig = field(default_factory=MlpConfig)
    data: DataConfig = field(default_factory=DigitsConfig)
    optimizer: OptimizerConfig = field(default_factory=SgdConfig)
    scheduler: SchedulerConfig = field(default_factory=ConstantConfig)
    clip: ClipConfig = field(default_factory=NoClipConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    probe: ProbeConfig = field(default_factory=ProbeConfig)
    output: OutputConfig = field(default_factory=OutputConfig)
    run: RunConfig = field(default_factory=RunConfig)
    seed: int = 0
    """Root of every random number."""
    device: str = "auto"
    """`auto`, `cpu`, `cuda` or `cuda:1`."""
    dtype: str = "float32"
    """`float32` or `float64`."""

    def __post_init__(self) -> None:
        _one_of("dtype", self.dtype, DTYPES)
        _within("seed", self.seed, 0, SEED_LIMIT)


CHOICES: Mapping[str, Registry[type]] = {
    "model": Registry("model", {"mlp": MlpConfig}),
    "data": Registry(
        "data", {"digits": DigitsConfig, "gaussian": GaussianConfig, "spirals": SpiralsConfig}
    ),
    "optimizer": Registry(
        "optimizer",
        {
            "sgd": SgdConfig,
            "momentum": MomentumConfig,
            "rmsprop": RmspropConfig,
            "adam": AdamConfig,
            "adamw": AdamwConfig,
        },
    ),
    "scheduler": Registry(
        "scheduler",
        {
            "constant": ConstantConfig,
            "step": StepConfig,
            "cosine": CosineConfig,
            "warmup_cosine": WarmupCosineConfig,
            "plateau": PlateauConfig,
        },
    ),
    "clip": Registry(
        "clip",
        {
            "none": NoClipConfig,
            "norm": NormClipConfig,
            "value": ValueClipConfig,
            "layer": LayerClipConfig,
            "agc": AgcClipConfig,
            "auto": AutoClipConfig,
        },
    ),
}
"""Group -> choice -> the dataclass whose fields are that choice's keys."""

# Fields that cannot change a table, left out of the configuration's identity.
_NO_IDENTITY = ("output", "device", "run")


def choice(group: str, config: object) -> str:
    """The name under which a group's configuration object is chosen, e.g. `mlp`."""
    for name, cls in CHOICES[group].items():
        if type(config) is cls:
            return name
    raise unknown(f"{group} configuration", type(config).__name__, CHOICES[group])


def to_dict(config: Config) -> dict[str, Any]:
    """The values as nested plain dictionaries, without the choices."""
    return dataclasses.asdict(config)


def choices(config: Config) -> dict[str, str]:
    """Group -> chosen name."""
    return {group: choice(group, getattr(config, group)) for group in CHOICES}


def from_dict(values: Mapping[str, Any], chosen: Mapping[str, str]) -> Config:
    """Builds a `Config` from nested values and the chosen name of each group.

    Raises:
        QuestionError: an unknown key or choice, or a value out of range.
    """
    known = {f.name: f for f in dataclasses.fields(Config)}
    arguments: dict[str, Any] = {}
    for key, value in values.items():
        if key not in known:
            raise unknown("key", key, known)
        if not isinstance(value, Mapping):
            arguments[key] = value
            continue
        cls = CHOICES[key][chosen[key]] if key in CHOICES else _section(key)
        allowed = [f.name for f in dataclasses.fields(cls)]
        for inner in value:
            if inner not in allowed:
                raise unknown(f"key of {key}", inner, allowed)
        arguments[key] = cls(**value)
    return Config(**arguments)


def flatten(config: Config) -> dict[str, Any]:
    """Dotted key -> value, with each group's choice under the group's own name."""
    flat: dict[str, Any] = {}
    for key, value in to_dict(config).items():
        if key in CHOICES:
            flat[key] = choice(key, getattr(config, key))
        if isinstance(value, dict):
            flat.update({f"{key}.{inner}": v for inner, v in value.items()})
        else:
            flat[key] = value
    return flat


def identity(config: Config) -> str:
    """A hash of every field that can change a table: equal configurations, equal hash."""
    flat = {k: v for k, v in flatten(config).items() if k.split(".")[0] not in _NO_IDENTITY}
    flat["run.threads"] = config.run.threads
    return hashlib.sha256(json.dumps(flat, sort_keys=True).encode()).hexdigest()[:16]


def _section(key: str) -> type:
    sections = {
        "train": TrainConfig,
        "probe": ProbeConfig,
        "output": OutputConfig,
        "run": RunConfig,
    }
    if key not in sections:
        raise unknown("section", key, sections)
    return sections[key]
