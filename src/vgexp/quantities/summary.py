"""The summary metrics: each number and word of `summary.json`, with what it means."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial

from vgexp.errors import unknown
from vgexp.quantities.quantity import (
    Quantity,
    amount,
    count,
    factor,
    magnitude,
    predicted,
    product,
    share,
    text,
)

_AVERAGED = "mean over the {} 20 updates (over all where there are fewer)"

_of_jacobian = partial(amount, asked_by="signal.jacobian")
_of_curvature = partial(amount, asked_by="probe.curvature_every")

_ATTENUATION = product(
    "attenuation", "delta_rms of layer 1 over that of the last hidden layer, at step 0"
)
_FACTOR = factor(
    "backward_factor_per_layer",
    "the fitted factor by which delta_rms changes per layer towards layer 1, at step 0: "
    "exp(-slope) of the least-squares line of ln delta_rms on layer, no mean of backward_gain",
)
_FACTOR_IN_TIME = factor(
    "backward_factor_per_time_step",
    "recurrent nets: the factor by which delta_rms of h of the last layer changes per step "
    "back in time, at step 0: exp(-slope) of the least-squares line of ln delta_rms on t",
)
_ATTENUATION_IN_TIME = product(
    "time_attenuation", "the same delta_rms at the first watched time over the last"
)


def _by_name(quantities: Iterable[Quantity]) -> Mapping[str, Quantity]:
    found: dict[str, Quantity] = {}
    for quantity in quantities:
        assert quantity.name not in found, quantity.name
        found[quantity.name] = quantity
    return found


_OUTCOME = (
    text("status", "how it ended: completed, diverged, stopped, interrupted or failed"),
    text("reason", "why it failed, in one line"),
    text(
        "verdict",
        "diverged, healthy, vanishing, exploding or stalled; null where the loss is one of which "
        "nobody knows what guessing costs",
    ),
    text("cause", "the evidence for the verdict, with this run's numbers"),
    text("signal", "at step 0: vanishing, exploding or steady, by the attenuation"),
    text("signal_last", "the same at the last step with a signal measured"),
    _ATTENUATION,
    _ATTENUATION.like("attenuation_last", "the same at the last step with a signal measured"),
    _FACTOR,
    amount(
        "attenuation_log_std",
        "vgexp signal: standard deviation over seeds of ln attenuation, whose mean is then that of "
        "logarithms",
    ),
    amount("backward_factor_log_std", "the same of the factor per layer"),
)

_THEORY = (
    predicted(_ATTENUATION, "attenuation by mean-field theory, geometric mean over seeds"),
    predicted(_FACTOR, "the factor per layer by mean-field theory"),
    text("theory", "why theory predicts nothing, or what it is known to leave out"),
    amount(
        "weight_gain", "theory: units of the next layer times Var(W), at the middle hidden layer"
    ),
    amount("mean_slope", "theory: mean of phi'^2 over the u of the middle hidden layer"),
    magnitude(
        "branch_factor",
        "theory: weight_gain times mean_slope, with what dropout and a norm do: the mean-square "
        "factor of dL/dz through the branch of the middle hidden layer",
    ),
    amount("carried_factor", "theory: the same beside the branch; 0 without a skip"),
    factor(
        "middle_factor",
        "theory: backward_gain of that layer: the root of these two's sum, less what borders and a "
        "finite width take",
    ),
    amount(
        "predicted_signal_depth",
        "theory: layers, back from the last hidden one, after which 1e-3 of dL/dz is left or 1e3 "
        "times as much; beyond the depth of the net where the factor is steady; else null",
    ),
    factor("chi", "plain nets: mean-square backward factor a layer where deep layers end"),
    amount("depth_scale", "-1 / ln chi: layers in which the mean square changes by e; null at 1"),
    amount("critical_gain", "plain nets: the model.gain that makes chi 1"),
    product(
        "critical_attenuation",
        "the predicted attenuation with that gain; null where it is the net's own",
    ),
)

_DIRECTIONS = (
    _of_jacobian(
        "jacobian_largest_log10",
        "log10 of the largest singular value of the product of Jacobians from the input to the "
        "last hidden layer, of the first seed",
        scale="linear",
    ),
    _of_jacobian(
        "jacobian_smallest_log10",
        "log10 of that product's smallest; null where it is 0",
        scale="linear",
    ),
    _of_jacobian(
        "jacobian_bound_log10", "log10 of the product of the layers' own largest", scale="linear"
    ),
    _of_jacobian("jacobian_effective_rank", "effective rank of that product"),
    _of_jacobian("lyapunov_largest", "ln of that largest singular value, a layer", scale="linear"),
    amount(
        "path_length",
        "branches that the gradient of layer 1 passes on average, by the shares of paths.csv",
        asked_by="signal.paths",
    ),
    amount(
        "num_branches", "the most branches that one of its paths passes", asked_by="signal.paths"
    ),
    amount(
        "gradient_correlation",
        "cosine of the outputs' gradients at two examples, by what the first layer reads; mean "
        "over pairs",
        scale="linear",
        asked_by="signal.shattering",
    ),
    amount(
        "gradient_correlation_deepest",
        "the same at the deepest layer whose gradient is not the same everywhere",
        scale="linear",
        asked_by="signal.shattering",
    ),
    count("num_seeds", "vgexp signal: initialisations that were measured"),
)

_SIGNAL = (
    _FACTOR.like(
        "backward_factor_per_layer_last",
        "backward_factor_per_layer at the last step with a signal measured",
    ),
    magnitude(
        "weight_gradient_ratio",
        "grad_norm of layer 1 over that of the last hidden layer, at step 0: dL/dz times what the "
        "layer reads, which may hide what becomes of dL/dz",
    ),
    count(
        "layers_left_out",
        "hidden layers without a delta_rms to fit that line to",
        silent_at_zero=True,
    ),
    count(
        "underflow",
        "hidden layers whose backward signal, as large as the loss scale made it, fell below the "
        "smallest normal number of the dtype, at any step",
        silent_at_zero=True,
    ),
    amount(
        "shift_preact",
        "how far an update moves mean m and deviation s of z: sqrt(dm^2 + ds^2) / s, mean over "
        "hidden layers and updates (null unless probe.activations_every=1)",
    ),
    amount("shift_act", "the same of h, which is what the next layer reads"),
    amount("drift_preact", "how far all updates moved z: from the first to the last measured"),
    amount("drift_act", "the same of h"),
    _FACTOR_IN_TIME,
    predicted(_FACTOR_IN_TIME, "the same factor of theory's delta_rms (model=rnn)"),
    _ATTENUATION_IN_TIME,
    _FACTOR_IN_TIME.like(
        "backward_factor_per_time_step_last", "the same factor at the last measured step"
    ),
    _ATTENUATION_IN_TIME.like("time_attenuation_last", "the same ratio at the last measured step"),
    _of_curvature(
        "sharpness_first",
        "largest Hessian eigenvalue (by value) at the first step of curvature.csv",
    ),
    _of_curvature("sharpness_last", "the same at the last step of curvature.csv"),
    _of_curvature(
        "sharpness_over_limit",
        "the same over stability_limit, 2 / lr for sgd: median over the measured steps; null where "
        "the limit is not known",
    ),
    _of_curvature(
        "curvature_over_limit_max",
        "largest |Hessian eigenvalue| over stability_limit, at any measured step: below 0.01 the "
        "landscape is called flat",
    ),
)

_NETWORK = (
    count("num_layers", "hidden weight layers of the main path"),
    count("depth_trained", "num_layers of a net that learned, 0 of one that did not"),
    amount(
        "fitted_variance_min",
        "model.init=lsuv: smallest variance of a weight's output on the batch that it was fitted "
        "to, the first data.batch_size examples of the training split",
    ),
    amount("fitted_variance_max", "the largest on that batch"),
    count("num_parameters", "trainable numbers in the model"),
)

_LEARNING = (
    count("steps", "updates done"),
    amount("constant_loss", "the best loss of a prediction that ignores the input"),
    amount("loss_first", "training loss of the first update", null_is_infinite=True),
    amount("loss_last", "training loss of the last update", null_is_infinite=True),
    amount("loss_best", "lowest finite training loss of an update"),
    amount(
        "loss_first_mean_20", f"training loss, {_AVERAGED.format('first')}", null_is_infinite=True
    ),
    amount(
        "loss_last_mean_20", f"training loss, {_AVERAGED.format('last')}", null_is_infinite=True
    ),
    amount("loss_best_mean_20", "lowest training loss, mean over 20 updates in a row"),
    share("accuracy_first", "training accuracy (share) of the first update"),
    share("accuracy_last", "training accuracy (share) of the last update"),
    share("accuracy_best", "highest training accuracy (share) of an update"),
    share("accuracy_first_mean_20", f"training accuracy, {_AVERAGED.format('first')}"),
    share("accuracy_last_mean_20", f"training accuracy, {_AVERAGED.format('last')}"),
    share("accuracy_best_mean_20", "highest training accuracy, mean over 20 updates in a row"),
    amount("val_loss_last", "validation loss at the last evaluation"),
    amount("val_loss_best", "lowest finite validation loss"),
    share("val_accuracy_last", "validation accuracy (share) at the last evaluation"),
    share("val_accuracy_best", "highest validation accuracy (share)"),
    amount("test_loss", "test loss at the end"),
    share("test_accuracy", "test accuracy (share) at the end"),
    share(
        "clip_fraction", "share of updates in which clipping changed an entry", silent_at_zero=True
    ),
)

_PROCESS = (
    amount("seconds", "wall-clock time from the first update to the end", unit="seconds"),
    amount(
        "probe_overhead", "extra time that measuring took, as a share of the run's time without it"
    ),
    text("dtype", "of the network; in half precision of its forward pass alone"),
    text("device", "where it was trained: cpu, cuda:0"),
    count("seed", "of init, data order, dropout and generated data"),
    text("config_hash", "equal for runs whose tables must be equal"),
    text("host", "the machine's name"),
    count("process", "the process's number"),
)

SUMMARY = _by_name((*_OUTCOME, *_THEORY, *_DIRECTIONS, *_SIGNAL, *_NETWORK, *_LEARNING, *_PROCESS))
"""Name -> metric, in the order in which `vgexp list summary` names them; null where a metric is
undefined or not finite."""

NUMBERS = tuple(metric.name for metric in SUMMARY.values() if metric.kind != "text")
"""Those that a search can go by (`run.objective`)."""


def metric_of(name: str) -> Quantity:
    """A summary metric; of a name that is not declared, a plain amount."""
    return SUMMARY.get(name) or amount(name, "")


def require_number(name: str) -> None:
    """Checks that a name is that of a summary metric that is a number.

    Raises:
        QuestionError: it is not; with the nearest.
    """
    if name not in NUMBERS:
        raise unknown("summary metric that is a number", name, NUMBERS)
