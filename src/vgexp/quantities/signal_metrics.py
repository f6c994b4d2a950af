"""Summary metrics of the signal: what came of a run, and what its gradient and theory say."""

from __future__ import annotations

from functools import partial

from vgexp.quantities.quantity import (
    amount,
    count,
    factor,
    magnitude,
    predicted,
    product,
    text,
)

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

_OUTCOME = (
    text("status", "how it ended: completed, diverged, stopped, interrupted or failed"),
    text("reason", "why it failed, or what stopped it (`train.stop_on`), in one line"),
    text(
        "verdict",
        "diverged, healthy, relapsed, vanishing, exploding, undecided or stalled (`vgexp list "
        "verdicts`); null where the loss is one of which nobody knows what guessing costs",
    ),
    text("cause", "the evidence for the verdict, with this run's numbers"),
    count("nonfinite_step", "the first step with a value that is not finite"),
    text(
        "nonfinite_maker",
        "what made the first such value, of finite ones: data, initialisation, update (the one "
        "before), forward, loss (it or its gradient) or backward; null where that cannot be told",
    ),
    text("nonfinite_place", "the parameter, module or operation that made it"),
    text("cause_id", "what keeps it from learning (`vgexp list causes`); null where nothing does"),
    count("cause_step", "the step since which that shows"),
    text("cause_layer", "the layer at which it shows"),
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

SIGNAL_METRICS = (*_OUTCOME, *_THEORY, *_DIRECTIONS, *_SIGNAL)
