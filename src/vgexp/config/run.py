"""The sections without choices: how long, what is measured, what is shown, how the process runs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Optional

from vgexp.config.ranges import above, at_least, within
from vgexp.errors import QuestionError

DEFAULT_STEPS = 500
LEAST_PATIENCE = 100
"""A sign that ends a run holds for so many steps at least, unless another number is asked for."""
DIVERGED = "diverged"
"""The verdict that `train.stop_on` may name as well as `train.stop_on_divergence`."""
FLIGHT_STEPS = 20
"""Last steps that are measured in full where a rule ends a run."""
MOST_THREADS = 1024
"""Beyond any machine's cores; a library that is asked for a million threads ends the process."""


@dataclass
class TrainConfig:
    """How long training takes, and how it proceeds."""

    steps: Optional[int] = None
    """Number of optimizer steps; null: 500, or as many as `train.epochs` asks for."""
    epochs: Optional[int] = None
    """Number of passes over the training split, instead of `train.steps`; null: `train.steps`
    holds."""
    accumulate: int = 1
    """Number of batches whose gradients make one optimizer step."""
    eval_every: int = 100
    """Number of steps between evaluations on the train and val splits; 0: only at the start and
    at the end."""
    stop_on_divergence: bool = True
    """Whether a run ends at its first non-finite step."""
    stop_on: list[str] = field(default_factory=list)
    """Verdicts and causes that end a run early, as `stopped`: vanishing, exploding, stalled,
    relapsed, diverged, and those of `vgexp list causes` but notes. All but relapsed and diverged
    ask that it has not learned and that its loss does not fall any more."""
    stop_patience: Optional[int] = None
    """Number of steps for which a sign has to hold without a pause before it ends a run; null: a
    fifth of the run where the signal is lost, half of it where it is steady, at least 100."""
    loss: Optional[str] = None
    """`cross_entropy` or `mse`, or your own, package.module.name: f(outputs, targets) -> mean loss;
    null: the loss that the targets are for."""
    label_smoothing: float = 0.0
    """Share of the target probability that cross-entropy spreads over all classes."""
    pretrain_steps: int = 0
    """Number of steps in which each hidden layer is first trained as an autoencoder of what it
    reads; 0: none. Only a perceptron without skips and norms can be pretrained."""
    pretrain_lr: float = 0.01
    """Learning rate of Adam in the pretraining."""
    gradient_noise: float = 0.0
    """Variance of the Gaussian noise on the clipped gradient at step 0; at step t it is divided by
    (1 + t)^decay. 0: no noise. Neelakantan (2015) uses 0.01, 0.3 or 1."""
    gradient_noise_decay: float = 0.55
    """The power of 1 + t that divides the variance of the noise."""
    checkpoint_activations: bool = False
    """Whether the backward pass computes activations again, so that they need not be kept."""

    def __post_init__(self) -> None:
        if self.steps is None and self.epochs is None:
            self.steps = DEFAULT_STEPS
        if self.steps is not None and self.epochs is not None:
            raise QuestionError(
                f"train.steps is {self.steps} and train.epochs is {self.epochs}\n"
                "allowed: one of the two; set the other to null"
            )
        at_least("train.steps", self.steps, 1)
        at_least("train.epochs", self.epochs, 1)
        at_least("train.accumulate", self.accumulate, 1)
        at_least("train.eval_every", self.eval_every, 0)
        at_least("train.stop_patience", self.stop_patience, 1)
        at_least("train.pretrain_steps", self.pretrain_steps, 0)
        at_least("train.pretrain_lr", self.pretrain_lr, 0.0)
        at_least("train.gradient_noise", self.gradient_noise, 0.0)
        at_least("train.gradient_noise_decay", self.gradient_noise_decay, 0.0)
        within("train.label_smoothing", self.label_smoothing, 0.0, 1.0)

    def num_steps(self, batches_per_epoch: int) -> int:
        """The number of optimizer steps of the run."""
        if self.steps is not None:
            return self.steps
        assert self.epochs is not None
        return max(1, self.epochs * batches_per_epoch // self.accumulate)

    def patience(self, num_steps: int, *, is_steady: bool = False) -> int:
        """The number of steps for which a sign has to hold, in a run of so many steps.

        Args:
            is_steady: whether the signal is; such a network may leave a plateau late.
        """
        if self.stop_patience is not None:
            return self.stop_patience
        return max(LEAST_PATIENCE, num_steps // (2 if is_steady else 5))

    @property
    def ends_at_divergence(self) -> bool:
        """Whether the first non-finite step is the last."""
        return self.stop_on_divergence or DIVERGED in self.stop_on


@dataclass
class ProbeConfig:
    """What is measured, and how often."""

    every: int = 20
    """Number of steps between two measurements of weights and gradients."""
    activations_every: int = 20
    """Number of steps between two measurements of the other columns."""
    histograms_every: int = 1000
    """Number of steps between two rows of `histograms.csv`, which the last step has too; 0:
    never."""
    curvature_every: int = 0
    """Number of steps between two measurements of the Hessian (`curvature.csv`), which the first
    and the last step have too; 0: never."""
    time_points: Optional[int] = 10
    """Number of equally spaced times at which a recurrent state is measured; null: all times."""
    layers: Optional[str] = None
    """Regular expression that selects weights by name; null: all weights."""
    flight: Optional[int] = None
    """Number of last steps that `flight.csv` has in full when a rule of `train.stop_on` ends the
    run, or when it diverges; null: 20 where `train.stop_on` names a rule, else none."""

    def __post_init__(self) -> None:
        at_least("probe.every", self.every, 1)
        at_least("probe.activations_every", self.activations_every, 1)
        at_least("probe.histograms_every", self.histograms_every, 0)
        at_least("probe.curvature_every", self.curvature_every, 0)
        at_least("probe.time_points", self.time_points, 1)
        at_least("probe.flight", self.flight, 0)


@dataclass
class OutputConfig:
    """What is shown, and where rows go beside the tables."""

    quiet: bool = False
    """No progress and no closing table."""
    figures: Optional[bool] = None
    """Whether figures are drawn at the end, PNG and SVG in `figures/`; null: of a run alone on the
    command line, not of a sweep's jobs nor of `vgexp.run` in Python; later: `vgexp show RUN
    --figures`."""
    sinks: list[str] = field(default_factory=lambda: ["csv"])
    """Names of the sinks that rows are handed to, `vgexp list sinks`, `csv` always; or your own,
    package.module.Name."""


@dataclass
class SignalConfig:
    """What `vgexp signal` measures."""

    seeds: int = 10
    """Number of initialisations to measure, with `seed` and the numbers that follow it."""
    critical: bool = False
    """Whether `model.gain` is set to the value that keeps the backward signal, according to
    theory."""
    jacobian: bool = False
    """Whether the singular values of the layers' Jacobians and of their product are measured, for
    the first seed: `jacobian.csv`."""
    paths: bool = False
    """Whether the share of the gradient in paths of each length is measured, for a residual net:
    `paths.csv`."""
    shattering: bool = False
    """Whether the correlation of gradients at nearby inputs is measured: `shattering.csv`."""

    def __post_init__(self) -> None:
        at_least("signal.seeds", self.seeds, 1)


@dataclass
class FixConfig:
    """What `vgexp fix` may change and spend."""

    keep: list[str] = field(default_factory=list)
    """Keys that must not change, such as `[model.activation,optimizer.lr]`; a section or group
    (`model`) stands for all of its keys."""
    seeds: int = 3
    """Number of seeds, `seed` and those that follow it, on which a cure is confirmed at full
    length."""
    budget: float = 2.0
    """What all probes together may cost, in full runs of the sick configuration."""

    def __post_init__(self) -> None:
        at_least("fix.seeds", self.seeds, 1)
        above("fix.budget", self.budget, 0.0)


@dataclass
class RunConfig:
    """How the process runs."""

    threads: Optional[int] = 1
    """Number of torch's CPU threads; small layers gain nothing from more. null: torch's choice."""
    checkpoint_every: Optional[int] = None
    """Number of steps between checkpoints, from which `vgexp resume` continues; null: about a
    second, or the time of which writing takes 1 %, whichever is longer; 0: only where a run
    stops."""
    objective: str = "loss_last_mean_20"
    """The summary metric (`vgexp list summary`) that a sweeper which searches (Optuna) is told."""

    def __post_init__(self) -> None:
        if self.threads is not None:
            within("run.threads", self.threads, 1, MOST_THREADS + 1)
        at_least("run.checkpoint_every", self.checkpoint_every, 0)
