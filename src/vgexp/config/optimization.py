"""`optimizer`, `scheduler` and `clip`: one dataclass for each choice."""

from __future__ import annotations

from dataclasses import dataclass

from vgexp.config.groups import Choice
from vgexp.config.ranges import above, at_least, within
from vgexp.errors import impossible

# ---------------------------------------------------------------- optimizer


@dataclass
class OptimizerConfig(Choice, group="optimizer"):
    """The base of every choice of `optimizer`."""

    lr: float = 0.1
    """Learning rate where the factor of the schedule is 1."""
    weight_decay: float = 0.0
    """L2 penalty (decoupled for adamw)."""

    def __post_init__(self) -> None:
        at_least("optimizer.lr", self.lr, 0.0)
        at_least("optimizer.weight_decay", self.weight_decay, 0.0)


@dataclass
class SgdConfig(OptimizerConfig, choice="sgd"):
    """Plain stochastic gradient descent."""


@dataclass
class MomentumConfig(OptimizerConfig, choice="momentum"):
    """Stochastic gradient descent with heavy-ball momentum."""

    lr: float = 0.01
    """Learning rate where the factor of the schedule is 1."""
    momentum: float = 0.9
    """Share of the last update that the next one keeps."""

    def __post_init__(self) -> None:
        super().__post_init__()
        within("optimizer.momentum", self.momentum, 0.0, 1.0)


@dataclass
class RmspropConfig(OptimizerConfig, choice="rmsprop"):
    """RMSprop: each entry is divided by its running root mean square."""

    lr: float = 1e-3
    """Learning rate where the factor of the schedule is 1."""
    momentum: float = 0.0
    """Share of the last update that the next one keeps."""

    def __post_init__(self) -> None:
        super().__post_init__()
        within("optimizer.momentum", self.momentum, 0.0, 1.0)


@dataclass
class AdamConfig(OptimizerConfig, choice="adam"):
    """Adam (Kingma & Ba 2015)."""

    lr: float = 1e-3
    """Learning rate where the factor of the schedule is 1."""


@dataclass
class AdamwConfig(OptimizerConfig, choice="adamw"):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019)."""

    lr: float = 1e-3
    """Learning rate where the factor of the schedule is 1."""
    weight_decay: float = 0.01
    """Decoupled weight decay."""


# ---------------------------------------------------------------- scheduler


@dataclass
class SchedulerConfig(Choice, group="scheduler"):
    """The base of every choice of `scheduler`."""


@dataclass
class ConstantConfig(SchedulerConfig, choice="constant"):
    """The learning rate stays the same."""


@dataclass
class StepConfig(SchedulerConfig, choice="step"):
    """The learning rate falls by a factor at equal intervals."""

    interval_fraction: float = 1 / 3
    """Number of steps between two falls, as a share of the run."""
    factor: float = 0.1
    """Factor on the learning rate at each fall."""

    def __post_init__(self) -> None:
        above("scheduler.interval_fraction", self.interval_fraction, 0.0)
        above("scheduler.factor", self.factor, 0.0)


@dataclass
class CosineConfig(SchedulerConfig, choice="cosine"):
    """The learning rate follows half a cosine down to 0 (Loshchilov & Hutter 2017)."""


@dataclass
class WarmupCosineConfig(SchedulerConfig, choice="warmup_cosine"):
    """The learning rate rises linearly, then follows half a cosine down to 0."""

    warmup_fraction: float = 0.1
    """Number of steps of the rise, as a share of the run."""

    def __post_init__(self) -> None:
        within("scheduler.warmup_fraction", self.warmup_fraction, 0.0, 1.0)


@dataclass
class PlateauConfig(SchedulerConfig, choice="plateau"):
    """The learning rate falls when the evaluated loss stops falling."""

    factor: float = 0.1
    """Factor on the learning rate at each fall."""
    patience: int = 5
    """Number of evaluations without a better loss before the rate falls."""

    def __post_init__(self) -> None:
        within("scheduler.factor", self.factor, 0.0, 1.0)
        at_least("scheduler.patience", self.patience, 0)


# ---------------------------------------------------------------- clip


@dataclass
class ClipConfig(Choice, group="clip"):
    """The base of every choice of `clip`."""


@dataclass
class NoClipConfig(ClipConfig, choice="none"):
    """Gradients are not clipped."""


@dataclass
class _ThresholdConfig(ClipConfig):
    threshold: float = 1.0
    """The norm, or for `value` the entry, above which a gradient is clipped."""

    def __post_init__(self) -> None:
        above("clip.threshold", self.threshold, 0.0)


@dataclass
class NormClipConfig(_ThresholdConfig, choice="norm"):
    """The whole gradient is scaled to a norm of at most the threshold (Pascanu 2013)."""


@dataclass
class ValueClipConfig(_ThresholdConfig, choice="value"):
    """Each entry is cut at plus and minus the threshold."""


@dataclass
class LayerClipConfig(_ThresholdConfig, choice="layer"):
    """Each parameter tensor is scaled to a norm of at most the threshold."""


@dataclass
class AgcClipConfig(_ThresholdConfig, choice="agc"):
    """Each row is scaled to at most a share of its weights' norm (Brock 2021)."""

    threshold: float = 0.01
    """lambda: the largest ratio of a row's gradient norm to its weight norm."""


@dataclass
class AutoClipConfig(_ThresholdConfig, choice="auto"):
    """The norm threshold is a percentile of the norms seen so far (Seetharaman 2020)."""

    threshold: float = 10.0
    """Percentile of the last 1,000 finite norms."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.threshold > 100:
            raise impossible("clip.threshold", self.threshold, "a percentile: above 0, at most 100")
