"""The columns of `parameters.csv` and `wiring.csv`: a row a parameter, whatever its shape."""

from __future__ import annotations

from functools import partial

from vgexp.quantities.quantity import amount, count, key, label, magnitude, text

_BY_WEIGHTS = "probe.every"
_size = partial(magnitude, asked_by=_BY_WEIGHTS)
_flag = partial(count, scale="linear", asked_by=_BY_WEIGHTS)

PARAMETERS = (
    key("step", "the update on whose gradient the row is measured, from 0"),
    key("name", "a parameter that has no row in layers.csv, by its name in the model", "text"),
    label("kind", "norm: gain or bias of a normalisation; bias; other"),
    label("entries", "number of its entries", "int"),
    amount(
        "norm",
        "L2 norm of the parameter, before the update",
        asked_by=_BY_WEIGHTS,
    ),
    _size(
        "grad_norm",
        "L2 norm of its gradient, loss scale divided out, before clipping; its squares and those of"
        " layers.csv add up to the square of the whole gradient's norm",
        axis="gradient norm (L2)",
    ),
    _size("grad_norm_clipped", "L2 norm of the gradient that the optimizer saw, noise included"),
    _size(
        "update_ratio",
        "norm of the parameter's change in this step over norm",
        axis="|change| / |parameter|",
    ),
)

WIRING = (
    key(
        "step",
        "the update, from 0: the first, the last of a run, and measured ones at which something"
        " but the size of lr is not what it was",
    ),
    key("name", "the parameter's name in the model", "text"),
    text("also_named", "further names of the same parameter, with a space between"),
    _flag("requires_grad", "1 if it requires a gradient"),
    _flag("in_optimizer", "1 if the optimizer holds it"),
    amount("lr", "learning rate of its group in the optimizer"),
    _flag(
        "gradient_came",
        "1 if a backward pass of the update gave it a gradient; looked at once in 20 updates",
    ),
    text(
        "gradient",
        "what the optimizer found before clipping: none, zero, finite or not_finite",
        asked_by=_BY_WEIGHTS,
    ),
    _flag(
        "gradient_kept",
        "1 if the gradient of the update before was not cleared, so that this one was added to it;"
        " looked at once in 20 updates",
    ),
    _flag("updated", "1 if its value changed in the update"),
    _flag(
        "other_optimizer",
        "1 if another optimizer holds it, which made a step by then while the probe watched",
    ),
    amount(
        "gradient_left",
        "the largest entry of the gradient that the optimizer found, before the run's own clipping,"
        " over that of the gradient as the backward pass gave it: below 1 where a loop clips for"
        " itself or divides a loss scale out; empty where it was cleared",
        asked_by=_BY_WEIGHTS,
    ),
)
