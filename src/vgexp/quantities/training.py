"""The columns of the tables of training: updates, evaluations, times, pretraining, curvature."""

from __future__ import annotations

from functools import partial

from vgexp.quantities.quantity import amount, count, key, label, magnitude, share, text

_amount = partial(amount, asked_by="probe.curvature_every")

STEPS = (
    key("step", "the update, from 0"),
    count("epoch", "passes over the training split that were complete before it", scale="linear"),
    amount("lr", "learning rate of the update"),
    amount(
        "loss",
        "mean loss over the update's examples, before the update",
        axis="training loss",
        varies_by_batch=True,
    ),
    share(
        "accuracy",
        "share of its answers that are right (values: within 0.04), before it",
        axis="training accuracy",
        varies_by_batch=True,
    ),
    magnitude(
        "grad_norm",
        "L2 norm over all trainable parameters, before clipping",
        varies_by_batch=True,
    ),
    magnitude(
        "grad_norm_clipped",
        "the same as the optimizer saw it, noise included",
        varies_by_batch=True,
    ),
    count("clipped", "1 if clipping changed any entry", scale="linear", varies_by_batch=True),
    count("skipped", "1 if the optimizer step was skipped", scale="linear", varies_by_batch=True),
    amount("loss_scale", "float16: what the loss is multiplied by before the backward pass"),
)

_of_call = partial(amount, asked_by="probe.activations_every", scale="linear")

_flag_of_call = partial(count, asked_by="probe.activations_every", scale="linear")

LOSS = (
    key("step", "the update whose first call of the loss function is described, from 0"),
    key("function", "the loss function's name, or its class", "text"),
    key("name", "its parameter; result: what it returned", "text"),
    label(
        "role",
        "output: a gradient flows into it; target: none does; loss: the result; and where that is"
        " the first that is not finite, input: what the model read, weight: the first parameter"
        " that is not finite, or of the model if all are",
    ),
    label("shape", "sizes with x between them; scalar: it has none"),
    label("dtype", "of its entries, as torch writes it"),
    label(
        "made_by",
        "outputs: the function that made it, as autograd names it, seen through views and casts",
    ),
    _of_call("min", "smallest finite entry; empty where none is finite"),
    _of_call("max", "largest finite entry"),
    _of_call("mean", "mean of the finite entries"),
    _of_call("std", "standard deviation of the finite entries (divisor N)"),
    share(
        "not_finite",
        "share of entries that are nan or infinite",
        asked_by="probe.activations_every",
    ),
    _of_call(
        "row_sum_min",
        "outputs: smallest sum over dim 1 (classes); 1 here and below: they are probabilities",
    ),
    _of_call("row_sum_max", "outputs: largest sum over dim 1"),
    text(
        "squashed_twice",
        "loss: two functions between it and the last weights, as autograd names them, of which the"
        " second takes logits or logarithms and is given probabilities",
        asked_by="probe.activations_every",
    ),
    text(
        "broadcast_to",
        "loss: the shape of a difference in which each entry of an output is compared with every"
        " entry of a tensor without a gradient",
        asked_by="probe.activations_every",
    ),
    share(
        "flat_fraction",
        "loss: share of entries at which the sigmoid, tanh, softplus or log-sigmoid between it and"
        " the last weights has a slope below 1e-3 of its largest; of several the least",
        asked_by="probe.activations_every",
    ),
    text(
        "functions",
        "loss: the functions that give losses or take logarithms, between it and the last weights,"
        " as autograd names them",
        asked_by="probe.activations_every",
    ),
    text(
        "reads_scores",
        "loss: those of LogSoftmax and NllLoss, as autograd names them, that read what weights give"
        " with no softmax and no logarithm between",
        asked_by="probe.activations_every",
    ),
    _of_call("share_min", "loss: smallest target of the binary cross-entropies behind it"),
    _of_call("share_max", "loss: largest target of the binary cross-entropies behind it"),
    text(
        "cut_by",
        "loss: a function whose derivative is 0, as autograd names it (RoundBackward0), that every"
        " path from it to a parameter passes",
        asked_by="probe.activations_every",
    ),
    _flag_of_call(
        "reaches_output",
        "loss: 1 if autograd's graph leads from it to an output that it was given; 0: to none",
    ),
    _flag_of_call(
        "is_steep",
        "loss: 1 if sums, products, powers, roots, absolute values and waves alone lie between it"
        " and the last weights: none of them has a flat end; 0: something else does",
    ),
    _flag_of_call(
        "classes_of_weight",
        "outputs: 1 if a product with a parameter made it, which has its last axis or that of"
        " channels: one row of the parameter for each class; 0: not",
    ),
    share(
        "number_share",
        "loss: share of it that is a term with a gradient, added as a plain number (.item(),"
        " float()), by which nothing comes back; told at the second call that is described",
        asked_by="probe.activations_every",
    ),
    _of_call(
        "pass_weight",
        "loss: derivative by it of what the backward pass began at: its weight in a sum, times a"
        " loss scale",
    ),
    _of_call(
        "constant_loss",
        "loss: what the update's would be if a constant answered all targets so far, where the"
        " values of two calls show which loss it is; below 0 where it is minus a cross-entropy",
    ),
)

EVALS = (
    key("step", "updates done before the evaluation"),
    count("epoch", "passes over the training split that were complete", scale="linear"),
    key("split", "train, val, or once at the end test", "text"),
    amount("loss", "mean loss over the split"),
    share("accuracy", "share of the split's answers that are right (values: within 0.04)"),
)

TIMING = (
    key("step", "updates done"),
    amount("seconds", "wall-clock time since the first update began", unit="seconds"),
    amount(
        "examples_per_second",
        "examples trained on since the last row",
        unit="examples per second",
    ),
)

PRETRAINING = (
    key("step", "the update of this layer's pretraining, from 0"),
    key("name", "the layer's weight", "text"),
    amount(
        "loss",
        "of the reconstruction, before the update: cross-entropy in nats where the layer reads "
        "units of bounded range, else squared error over their variance; means over entries",
        varies_by_batch=True,
    ),
)

CURVATURE = (
    key("step", "the update before which the row is measured, on its examples, from 0"),
    key("name", "whose Hessian: model, all trainable parameters together", "text"),
    amount("lr", "learning rate of the update"),
    _amount(
        "hessian_max",
        "largest eigenvalue (by value) of the Hessian of the update's mean loss, without weight "
        "decay, by Lanczos' method: the sharpness",
    ),
    _amount(
        "stability_limit",
        "the hessian_max above which an update grows on a quadratic: (2 + 2 momentum) / lr less "
        "the weight decay; clipping not counted; empty but for sgd and momentum: the others divide "
        "each entry by a number of its own, and what they bear depends on both",
    ),
    _amount(
        "hessian_max_residual",
        "|H v - hessian_max v| of its unit vector: an eigenvalue is at most that far away",
    ),
    _amount(
        "hessian_min", "smallest eigenvalue, as far as that was seen by then: at most too high"
    ),
    _amount("hessian_min_residual", "|H v - hessian_min v| of its unit vector"),
    _amount("hessian_trace", "trace of the Hessian, by Hutchinson's method"),
    _amount(
        "hessian_trace_error",
        "standard error of that, from 6 vectors of signs: of so few it may itself be off by a "
        "factor of two",
    ),
    count(
        "num_products",
        "Hessian-vector products of Lanczos' method",
        asked_by="probe.curvature_every",
    ),
)
