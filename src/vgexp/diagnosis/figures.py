"""The figures of `summary.json`: each scalar key with its definition, its unit and its kind.

Nothing heavy is imported here, so that a name can be checked before anything is computed.
"""

from __future__ import annotations

from vgexp.errors import unknown
from vgexp.records import Column

_AVERAGED = "mean over the {} 20 updates (over all where there are fewer)"

FIGURES = (
    Column("status", "how it ended: completed, diverged, stopped, interrupted or failed", "text"),
    Column("reason", "why it failed, in one line", "text"),
    Column(
        "verdict",
        "diverged, healthy, vanishing, exploding or stalled; null where the loss is one of which "
        "nobody knows what guessing costs",
        "text",
    ),
    Column("cause", "the evidence for the verdict, with this run's numbers", "text"),
    Column("signal", "at step 0: vanishing, exploding or steady, by the attenuation", "text"),
    Column("signal_last", "the same at the last step with a signal measured", "text"),
    Column("attenuation", "delta_rms of layer 1 over that of the last hidden layer, at step 0"),
    Column("attenuation_last", "the same at the last step with a signal measured"),
    Column(
        "backward_factor_per_layer",
        "the fitted factor by which delta_rms changes per layer towards layer 1, at step 0: "
        "exp(-slope) of the least-squares line of ln delta_rms on layer, no mean of backward_gain",
    ),
    Column(
        "attenuation_log_std",
        "vgexp signal: standard deviation over seeds of ln attenuation, whose mean is then that of "
        "logarithms",
    ),
    Column("backward_factor_log_std", "the same of the factor per layer"),
    Column("predicted_attenuation", "attenuation by mean-field theory, geometric mean over seeds"),
    Column("predicted_backward_factor_per_layer", "the factor per layer by mean-field theory"),
    Column("theory", "why theory predicts nothing, or what it is known to leave out", "text"),
    Column(
        "weight_gain", "theory: units of the next layer times Var(W), at the middle hidden layer"
    ),
    Column("mean_slope", "theory: mean of phi'^2 over the u of the middle hidden layer"),
    Column(
        "branch_factor",
        "theory: weight_gain times mean_slope, with what dropout and a norm do: the mean-square "
        "factor of dL/dz through the branch of the middle hidden layer",
    ),
    Column("carried_factor", "theory: the same beside the branch; 0 without a skip"),
    Column(
        "middle_factor",
        "theory: backward_gain of that layer: the root of these two's sum, less what borders and a "
        "finite width take",
    ),
    Column(
        "predicted_signal_depth",
        "theory: layers, back from the last hidden one, after which 1e-3 of dL/dz is left or 1e3 "
        "times as much; beyond the depth of the net where the factor is steady; else null",
    ),
    Column("chi", "plain nets: mean-square backward factor a layer where deep layers end"),
    Column("depth_scale", "-1 / ln chi: layers in which the mean square changes by e; null at 1"),
    Column("critical_gain", "plain nets: the model.gain that makes chi 1"),
    Column(
        "critical_attenuation",
        "the predicted attenuation with that gain; null where it is the net's own",
    ),
    Column(
        "jacobian_largest_log10",
        "signal.jacobian: log10 of the largest singular value of the product of Jacobians from the "
        "input to the last hidden layer, of the first seed",
    ),
    Column("jacobian_smallest_log10", "log10 of that product's smallest; null where it is 0"),
    Column("jacobian_bound_log10", "log10 of the product of the layers' own largest"),
    Column("jacobian_effective_rank", "effective rank of that product"),
    Column("lyapunov_largest", "ln of that largest singular value, a layer"),
    Column(
        "path_length",
        "signal.paths: branches that the gradient of layer 1 passes on average, by the shares of "
        "paths.csv",
    ),
    Column("num_branches", "the most branches that one of its paths passes"),
    Column(
        "gradient_correlation",
        "signal.shattering: cosine of the outputs' gradients at two examples, by what the first "
        "layer reads; mean over pairs",
    ),
    Column(
        "gradient_correlation_deepest",
        "the same at the deepest layer whose gradient is not the same everywhere",
    ),
    Column("num_seeds", "vgexp signal: initialisations that were measured", "int"),
    Column(
        "backward_factor_per_layer_last",
        "backward_factor_per_layer at the last step with a signal measured",
    ),
    Column(
        "weight_gradient_ratio",
        "grad_norm of layer 1 over that of the last hidden layer, at step 0: dL/dz times what the "
        "layer reads, which may hide what becomes of dL/dz",
    ),
    Column("layers_left_out", "hidden layers without a delta_rms to fit that line to", "int"),
    Column(
        "underflow",
        "hidden layers whose backward signal, as large as the loss scale made it, fell below the "
        "smallest normal number of the dtype, at any step",
        "int",
    ),
    Column(
        "shift_preact",
        "how far an update moves mean m and deviation s of z: sqrt(dm^2 + ds^2) / s, mean over "
        "hidden layers and updates (null unless probe.activations_every=1)",
    ),
    Column("shift_act", "the same of h, which is what the next layer reads"),
    Column("drift_preact", "how far all updates moved z: from the first to the last measured"),
    Column("drift_act", "the same of h"),
    Column(
        "backward_factor_per_time_step",
        "recurrent nets: the factor by which delta_rms of h of the last layer changes per step "
        "back in time, at step 0: exp(-slope) of the least-squares line of ln delta_rms on t",
    ),
    Column(
        "predicted_backward_factor_per_time_step",
        "the same factor of theory's delta_rms (model=rnn)",
    ),
    Column("time_attenuation", "the same delta_rms at the first watched time over the last"),
    Column("backward_factor_per_time_step_last", "the same factor at the last measured step"),
    Column("time_attenuation_last", "the same ratio at the last measured step"),
    Column(
        "sharpness_first",
        "largest Hessian eigenvalue (by value) at the first step of curvature.csv "
        "(probe.curvature_every)",
    ),
    Column("sharpness_last", "the same at the last step of curvature.csv"),
    Column(
        "sharpness_over_limit",
        "the same over stability_limit, 2 / lr for sgd: median over the measured steps; null where "
        "what a step bears is not known",
    ),
    Column(
        "curvature_over_limit_max",
        "largest |Hessian eigenvalue| over stability_limit, at any measured step: below 0.01 the "
        "landscape is called flat",
    ),
    Column("num_layers", "hidden weight layers of the main path", "int"),
    Column("depth_trained", "num_layers of a net that learned, 0 of one that did not", "int"),
    Column(
        "fitted_variance_min",
        "model.init=lsuv: smallest variance of a weight's output on the batch that it was fitted "
        "to, the first data.batch_size examples of the training split",
    ),
    Column("fitted_variance_max", "the largest on that batch"),
    Column("num_parameters", "trainable numbers in the model", "int"),
    Column("steps", "updates done", "int"),
    Column("constant_loss", "the best loss of a prediction that ignores the input"),
    Column("loss_first", "training loss of the first update"),
    Column("loss_last", "training loss of the last update"),
    Column("loss_best", "lowest finite training loss of an update"),
    Column("loss_first_mean_20", f"training loss, {_AVERAGED.format('first')}"),
    Column("loss_last_mean_20", f"training loss, {_AVERAGED.format('last')}"),
    Column("loss_best_mean_20", "lowest training loss, mean over 20 updates in a row"),
    Column("accuracy_first", "training accuracy (share) of the first update"),
    Column("accuracy_last", "training accuracy (share) of the last update"),
    Column("accuracy_best", "highest training accuracy (share) of an update"),
    Column("accuracy_first_mean_20", f"training accuracy, {_AVERAGED.format('first')}"),
    Column("accuracy_last_mean_20", f"training accuracy, {_AVERAGED.format('last')}"),
    Column("accuracy_best_mean_20", "highest training accuracy, mean over 20 updates in a row"),
    Column("val_loss_last", "validation loss at the last evaluation"),
    Column("val_loss_best", "lowest finite validation loss"),
    Column("val_accuracy_last", "validation accuracy (share) at the last evaluation"),
    Column("val_accuracy_best", "highest validation accuracy (share)"),
    Column("test_loss", "test loss at the end"),
    Column("test_accuracy", "test accuracy (share) at the end"),
    Column("clip_fraction", "share of updates in which clipping changed an entry"),
    Column("seconds", "wall-clock seconds from the first update to the end"),
    Column(
        "probe_overhead", "extra time that measuring took, as a share of the run's time without it"
    ),
    Column("dtype", "of the network; in half precision of its forward pass alone", "text"),
    Column("device", "where it was trained: cpu, cuda:0", "text"),
    Column("seed", "of init, data order, dropout and generated data", "int"),
    Column("config_hash", "equal for runs whose tables must be equal", "text"),
    Column("host", "the machine's name", "text"),
    Column("process", "the process's number", "int"),
)
"""In the order in which `vgexp list figures` tells them; null where undefined or not finite."""

NUMBERS = tuple(figure.name for figure in FIGURES if figure.kind != "text")
"""Those that a search can go by (`run.objective`)."""


def require_number(name: str) -> None:
    """Checks that a name is that of a figure which is a number.

    Raises:
        QuestionError: it is not; with the nearest.
    """
    if name not in NUMBERS:
        raise unknown("figure of summary.json that is a number", name, NUMBERS)
