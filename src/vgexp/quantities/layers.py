"""The columns of `layers.csv`: a row a weight matrix or kernel and measured step."""

from __future__ import annotations

from functools import partial

from vgexp.quantities.quantity import (
    amount,
    factor,
    key,
    label,
    magnitude,
    predicted,
    share,
)

_BY_WEIGHTS = "probe.every"
"""Asks for columns that need weights and gradients only."""
_BY_PASSES = "probe.activations_every"
"""Asks for columns that need the forward pass and dL/dz."""
_weight_size = partial(magnitude, asked_by=_BY_WEIGHTS)
_amount = partial(amount, asked_by=_BY_PASSES, scales_with="nothing")

_PREACT_STD = _amount(
    "preact_std",
    "standard deviation of z over examples, units and positions",
    axis="standard deviation of z",
)
_DELTA_RMS = magnitude(
    "delta_rms",
    "rms over examples, units and positions of N dL/dz",
    axis="delta_rms: rms of N dL/dz",
    scales_with="delta",
    asked_by=_BY_PASSES,
)
_BACKWARD_GAIN = factor(
    "backward_gain",
    "delta_rms here over delta_rms of the next main-path layer",
    axis="backward_gain: here / in the next layer",
    scales_with="nothing",
    asked_by=_BY_PASSES,
)

LAYERS = (
    key("step", "the update on whose gradient the row is measured, from 0"),
    label("layer", "main-path weights from 1 (read-out L+1); modules side by side share it", "int"),
    key("name", "the weight's name in the model", "text"),
    label("kind", "linear, conv, recurrent, attention or readout; stream: a block's output"),
    amount(
        "weight_norm",
        "Frobenius norm of W, without bias, before the update",
        of_block="norm",
        scales_with="nothing",
        asked_by=_BY_WEIGHTS,
    ),
    _weight_size(
        "grad_norm",
        "L2 norm of dL/dW, loss scale divided out, before clipping",
        axis="gradient norm (L2)",
        of_block="norm",
        scales_with="gradient",
    ),
    _weight_size("grad_max", "largest magnitude in dL/dW", scales_with="gradient"),
    share(
        "grad_zero_fraction",
        "share of exact zeros in dL/dW",
        scales_with="nothing",
        asked_by=_BY_WEIGHTS,
    ),
    _weight_size(
        "grad_norm_clipped",
        "L2 norm of the gradient that the optimizer saw, noise included",
        of_block="norm",
        scales_with="gradient",
    ),
    _weight_size(
        "update_ratio",
        "norm of W's change in this step over weight_norm",
        axis="|change of W| / |W|",
        scales_with="nothing",
    ),
    _amount("preact_mean", "mean of z over examples, units and positions"),
    _PREACT_STD,
    _amount("act_mean", "mean of h over examples, units and positions"),
    _amount("act_std", "standard deviation of h over examples, units and positions"),
    _amount("act_max", "largest magnitude of h over examples, units and positions"),
    share(
        "act_outlier_fraction",
        "share of entries of h of magnitude 6 or more (Dettmers et al. 2022, LLM.int8())",
        scales_with="nothing",
        asked_by=_BY_PASSES,
    ),
    share(
        "saturated_fraction",
        "bounded phi: share of entries with |phi'(u)| below 5 % of its largest value",
        scales_with="nothing",
        asked_by=_BY_PASSES,
    ),
    share(
        "dead_fraction",
        "share of units whose phi' is exactly 0 at every example and position",
        scales_with="nothing",
        asked_by=_BY_PASSES,
    ),
    _DELTA_RMS,
    _BACKWARD_GAIN,
)

PREDICTED = (
    predicted(_PREACT_STD, "preact_std at step 0, by mean-field theory"),
    predicted(_DELTA_RMS, "delta_rms at step 0, by mean-field theory"),
    predicted(_BACKWARD_GAIN, "backward_gain at step 0, by mean-field theory"),
    amount(
        "predicted_log_delta_std",
        "standard deviation over initialisations of ln delta_rms that finite width gives",
    ),
)
"""Columns that follow those of `LAYERS`, on rows of step 0; empty where theory has no answer."""

SEED = label("seed", "the seed of the initialisation, and of all else that is drawn", "int")
"""The last column of the `layers.csv` that `vgexp signal` writes."""

READOUT = "readout"
"""The kind of the last weight's rows, and what they are called beside numbered layers."""
