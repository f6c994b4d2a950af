"""What the rule sets of other tools say of the same run: their definitions as one table.

Each is a function of our tables. They were made for tensors that were saved whole, so that some can
be asked of our numbers only in part (`partly` says which), and some cannot be asked at all
(`judge` is None). Where a definition needs the mean of a gradient's magnitudes, the largest is
taken: a mean is never above it, so that such an alarm would have been raised by the tool too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from zoo.peer_rules import readings as read
from zoo.peer_rules.readings import Run

if TYPE_CHECKING:
    import pandas as pd

SAGEMAKER = "SageMaker Debugger"
AUTOTRAINER = "AutoTrainer"
DEEPDIAGNOSIS = "DeepDiagnosis"
DEEPCHECKER = "TheDeepChecker"

_AWS = "Amazon SageMaker developer guide, List of Debugger built-in rules (default parameters)"
_AUTO = "Zhang et al. 2021 (ICSE); github.com/shiningrain/AUTOTRAINER, monitor.py, reproduce.py"
_DIAG = "Wardat et al. 2022 (ICSE); github.com/DeepDiagnosis/ICSE2022, callbacks.py"
_DEEP = "Braiek & Khomh 2022 (TOSEM); github.com/thedeepchecker/thedeepchecker, settings.yaml"

_VANISH = ("saturating_activation", "weights_small", "recurrence_vanishing", "underflow")
_EXPLODE = (
    "weights_large", "residual_growth", "batchnorm_depth", "recurrence_exploding", "rate_too_large",
)  # fmt: skip
_NAN = ("nan_from_loss", "nan_in_backward", "inputs_not_finite", "overflow")
_DEAD = ("dead_units", "dead_at_start")
_SATURATED = ("saturated_units", "saturating_activation", "weights_large")
_STILL = ("no_update", "not_in_optimizer", "frozen", "graph_cut", "gradient_cleared")


@dataclass(frozen=True)
class Definition:
    """One rule of one tool."""

    peer: str
    name: str
    states: str
    """What raises the alarm, with the tool's own thresholds."""
    judge: Callable[[Run], bool] | None
    """None: our tables cannot tell; `partly` says why."""
    source: str
    causes: tuple[str, ...] = ()
    """The ids of our vocabulary that a reader of the alarm is led to; none: it names no cause."""
    partly: str = ""


def _aws(name: str, states: str, judge: Any, causes: tuple[str, ...] = (), partly: str = "") -> Any:
    return Definition(SAGEMAKER, name, states, judge, _AWS, causes, partly)


def _auto(name: str, states: str, judge: Any, causes: tuple[str, ...] = (), part: str = "") -> Any:
    return Definition(AUTOTRAINER, name, states, judge, _AUTO, causes, part)


def _diag(name: str, states: str, judge: Any, causes: tuple[str, ...] = (), part: str = "") -> Any:
    return Definition(DEEPDIAGNOSIS, name, states, judge, _DIAG, causes, part)


def _deep(name: str, states: str, judge: Any, causes: tuple[str, ...] = (), part: str = "") -> Any:
    return Definition(DEEPCHECKER, name, states, judge, _DEEP, causes, part)


_NO_TENSORS = "needs tensors that our tables do not have: "
_LARGEST = "the largest magnitude stands for the mean"

DEFINITIONS: tuple[Definition, ...] = (
    # ------------------------------------------------------------ SageMaker Debugger
    _aws("VanishingGradient", "mean of a gradient's magnitudes below 1e-7",
         lambda run: read.is_ever_below(run, "grad_max", 1e-7), _VANISH, _LARGEST),
    _aws("ExplodingTensor", "a tensor holds nan or infinity", read.has_not_finite, _NAN),
    _aws("DeadRelu", "more than 50 % of a layer's ReLUs are active in less than 1 %",
         lambda run: read.is_ever_above(run, "dead_fraction", 0.5), _DEAD,
         "active on no example of the batch, for less than 1 %"),
    _aws("SaturatedActivation", "more than 50 % of a layer's tanh or sigmoid at the flat ends",
         lambda run: read.is_ever_above(run, "saturated_fraction", 0.5), _SATURATED,
         "our flat ends begin nearer to 0"),
    _aws("PoorWeightInitialization", "in 10 steps, largest over smallest variance of what"
         " activations read is above 10", lambda run: read.variances_part(run, 10.0),
         ("weights_small", "weights_large", "zero_weights"), "percentiles of gradients: not kept"),
    _aws("LossNotDecreasing", "the loss is not below that of 10 steps before",
         lambda run: read.loss_rises_over(run, 10)),
    _aws("UnchangedTensor", "a weight is the same, to 1e-5, at 3 steps in a row",
         lambda run: read.weights_stay(run, 3, 1e-5), _STILL, "by its norm"),
    _aws("WeightUpdateRatio", "update over weight above 10 or below 1e-8",
         lambda run: read.is_ever_above(run, "update_ratio", 10.0)
         or read.is_ever_below(run, "update_ratio", 1e-8),
         ("rate_too_large", "rate_too_small", *_STILL)),
    _aws("AllZero", "all values of a weight or gradient are 0",
         lambda run: read.is_ever_zero(run, "grad_norm") or read.is_ever_zero(run, "weight_norm"),
         ("zero_weights", "graph_cut", "dead_at_start")),
    _aws("Overfit", "validation loss above training loss by 10 % of it",
         lambda run: read.is_overfit(run, 0.1), ("overfitting",)),
    _aws("Overtraining", "training loss not better by 0.1 for 5 steps, validation for 10",
         lambda run: read.stops_improving(run, 0.1, 5, 10)),
    _aws("TensorVariance", "variance outside of two thresholds", None, (),
         "both thresholds are None unless the user sets them"),
    _aws("CheckInputImages", "mean of the inputs differs from 0 by more than 0.2", None, (),
         _NO_TENSORS + "inputs"),
    _aws("ClassImbalance", "classes differ by more than 10 times", None, (),
         _NO_TENSORS + "labels"),
    _aws("Confusion", "less than 0.9 of a confusion matrix on its diagonal", None, (),
         _NO_TENSORS + "predictions"),
    _aws("SimilarAcrossRuns", "compares two runs", None, (), "needs a second run"),
    _aws("StalledTrainingRule", "no tensor for 1,800 seconds", None, (), "needs the clock"),
    # ------------------------------------------------------------ AutoTrainer
    _auto("vanish", "gradient of the first over that of the last weight below 1e-3, and the first"
          " below 1e-4; asked where accuracy does not rise",
          lambda run: run.does_not_rise and read.ends_ratio(run, below=1e-3, first=1e-4), _VANISH),
    _auto("explode", "that ratio above 70; or nan; or a loss of 1e3",
          lambda run: (run.does_not_rise and read.ends_ratio(run, above=70.0))
          or read.has_not_finite(run) or read.loss_reaches(run, 1e3), (*_EXPLODE, *_NAN)),
    _auto("relu", "0.7 of all gradient entries are 0; asked where accuracy does not rise",
          lambda run: run.does_not_rise and read.mean_reaches(run, "grad_zero_fraction", 0.7),
          _DEAD, "the mean over weights stands for that over entries"),
    _auto("unstable", "accuracy swings by 0.03 in a fifth of the epochs",
          lambda run: read.swings(run, 0.03, 0.2), ("rate_too_large",)),
    _auto("not_converge", "accuracy never rises by 0.01 and stays below 0.6",
          lambda run: read.accuracy_stays(run, 0.01, 0.6), ("rate_too_small",)),
    _auto("activation_issue", "no usual activation behind the last layer", None, (),
          _NO_TENSORS + "the last layer's output"),
    # ------------------------------------------------------------ DeepDiagnosis
    _diag("ExplodingTensor", "a mean of weights, outputs or gradients is nan, infinite or 0",
          lambda run: read.has_not_finite(run) or read.is_ever_zero(run, "grad_norm")
          or read.is_ever_zero(run, "weight_norm"), (*_NAN, *_EXPLODE)),
    _diag("UnchangeWeight", "the mean of a weight is the same over 5 epochs",
          lambda run: read.weights_stay(run, 5, 0.0), _STILL, "by its norm"),
    _diag("SaturatedActivation", "more than half of z beyond -5 and 5, of tanh and sigmoid",
          lambda run: read.is_ever_above(run, "saturated_fraction", 0.5), _SATURATED),
    _diag("DeadNode", "at the end 0.7 of a ReLU layer's outputs are 0 or less",
          lambda run: read.ends_above(run, "dead_fraction", 0.7), _DEAD,
          "units that are 0 on all examples alone"),
    _diag("OutofRange", "targets outside of what the last activation reaches",
          read.targets_beyond, ("output_range",), "outputs of the measured steps"),
    _diag("LossNotDecreasing", "the loss is the same over 5 epochs",
          lambda run: read.loss_stays(run, 5)),
    _diag("AccuracyNotIncreasing", "the accuracy is the same over 5 epochs",
          lambda run: read.accuracy_is_constant(run, 5)),
    _diag("InvalidLoss", "the loss is nan or infinite", read.has_bad_loss, _NAN),
    _diag("VanishingGradient", "mean of a gradient's magnitudes below 1e-7",
          lambda run: read.is_ever_below(run, "grad_max", 1e-7), _VANISH, _LARGEST),
    # ------------------------------------------------------------ TheDeepChecker
    _deep("poor_init_loss", "the first loss is off log K by as much as log K",
          read.is_far_from_guess, ("weights_large", "inputs_unscaled")),
    _deep("dead_activation", "more than half of a layer's neurons are dead",
          lambda run: read.lasts(run, "dead_fraction", 0.5, 5), _DEAD),
    _deep("saturated_activation", "more than half of a layer's neurons are saturated",
          lambda run: read.lasts(run, "saturated_fraction", 0.5, 5), _SATURATED),
    _deep("unstable_activations", "the deviation of activations is outside of 0.5 to 2",
          lambda run: read.is_outside(run, "act_std", 0.5, 2.0, 5),
          ("weights_small", "weights_large"), "without its F test"),
    _deep("diverging_weights", "mean magnitude above 1e8, or doubled 4 times in a row",
          lambda run: read.grows(run, "weight_norm", 1e8), ("rate_too_large",)),
    _deep("vanishing_gradient", "mean magnitude below 1e-6, or halved 4 times in a row",
          lambda run: read.is_ever_below(run, "grad_max", 1e-6)
          or read.halves(run, "grad_norm"), _VANISH, _LARGEST),
    _deep("exploding_gradient", "mean magnitude above 1e6, or doubled 4 times in a row",
          lambda run: read.grows(run, "grad_norm", 1e6), _EXPLODE),
    _deep("unstable_learning", "update over weight above 1e-1 or below 1e-4",
          lambda run: read.is_outside(run, "update_ratio", 1e-4, 1e-1, 1),
          ("rate_too_large", "rate_too_small")),
    _deep("stagnated_loss", "the loss falls by less than 5 % at each of 4 checks",
          lambda run: read.loss_stagnates(run, 10, 0.05, 4)),
    _deep("diverging_loss", "the loss, over its least, doubles at each of 4 checks",
          lambda run: read.loss_doubles(run, 10, 4), ("rate_too_large",)),
    _deep("fluctuated_loss", "the loss turns at more than half of 50 checks",
          lambda run: read.loss_fluctuates(run, 50, 0.5), ("rate_too_large",)),
    _deep("numerical_instability", "nan or infinity anywhere", read.has_not_finite, _NAN),
    _deep("initial_weights", "F test of a weight's variance", None, (), _NO_TENSORS + "fan-in"),
    _deep("normalised_data", "inputs not in [0, 1] or standardised", None, (),
          _NO_TENSORS + "inputs"),
    _deep("corrupted_labels, augmentation, switch of mode", "trainings of its own", None, (),
          "needs the program, not a run of it"),
)  # fmt: skip


def alarms(tables: Mapping[str, pd.DataFrame], facts: Mapping[str, Any]) -> dict[str, list[str]]:
    """Peer -> the names of its rules that raise an alarm.

    Args:
        tables: those of a run or a probe, by name (`layers`, `steps`, `evals`, `loss`, `wiring`).
        facts: what else is known, such as `num_classes`.
    """
    run = Run(tables, facts)
    found: dict[str, list[str]] = {each.peer: [] for each in DEFINITIONS}
    for each in DEFINITIONS:
        if each.judge is not None and each.judge(run):
            found[each.peer].append(each.name)
    return found


def causes_of(peer: str, names: list[str]) -> set[str]:
    """The causes that alarms lead to, all together."""
    return {
        cause
        for each in DEFINITIONS
        if each.peer == peer and each.name in names
        for cause in each.causes
    }
