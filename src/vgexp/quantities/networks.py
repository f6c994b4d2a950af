"""The columns of narrow tables of one kind of network, and of distributions in any."""

from __future__ import annotations

from vgexp.quantities.quantity import amount, key, label, magnitude, predicted, share

HISTOGRAMS = (
    key("step", "the update on whose forward passes the row is measured, from 0"),
    label("layer", "as in layers.csv", "int"),
    key("name", "the weight's name in the model", "text"),
    key("quantity", "what is distributed: preact, the entries of z, or act, those of h", "text"),
    key(
        "lower",
        "the bin's lower edge, which is in the bin; edges are multiples of a width 2^k",
        "float",
    ),
    label("upper", "its upper edge, which is in the next bin", "float"),
    share(
        "share",
        "share of all entries, over examples, units and positions, that lie in the bin; entries "
        "that are not finite lie in none, and a bin without entries has no row",
        asked_by="probe.histograms_every",
    ),
)

_STATE_DELTA = magnitude(
    "delta_rms",
    "rms over examples and units of N dL/ds_t, s_t the state h_t or c_t; h and c are two"
    " variables: through h_t alone c_t is not counted",
    axis="delta_rms: rms of N dL/ds",
)

TIME = (
    key("step", "the update on whose gradient the row is measured, from 0"),
    label("layer", "the stacked layer, from 1", "int"),
    key("name", "the layer's module and the state: h, or an LSTM's cell state c", "text"),
    key("t", "the step in time, from 0, after which the state is this"),
    _STATE_DELTA,
    amount("state_rms", "rms of the state over examples and units"),
)

PREDICTED_IN_TIME = (predicted(_STATE_DELTA, "delta_rms at step 0, by mean-field theory"),)
"""Columns that follow those of `TIME`, on rows of step 0; empty where theory has no answer."""

RECURRENCE = (
    key("step", "the update before which the row is measured, from 0"),
    label("layer", "the stacked layer, from 1", "int"),
    key("name", "the layer's module and the gate, or hidden of model=rnn", "text"),
    amount("spectral_radius", "largest |eigenvalue| of the gate's recurrent matrix"),
    amount("gate_mean", "mean of phi(u) over examples, units and the watched times"),
    share(
        "saturated_fraction",
        "bounded phi: share of entries with |phi'(u)| below 5 % of its largest, likewise",
    ),
)

ATTENTION = (
    key("step", "the update on whose forward passes the row is measured, from 0"),
    label("layer", "the block's, as in layers.csv", "int"),
    key("name", "the attention's module in the model", "text"),
    key("head", "the head, from 0"),
    amount("entropy", "mean over examples and query positions of -sum p ln p", unit="nats"),
    share("entropy_fraction", "entropy over its largest possible: 1 looks everywhere alike"),
    amount("logit_max", "largest magnitude of q.k / sqrt(units of a head) where a query may look"),
)
