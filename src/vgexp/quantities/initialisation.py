"""The columns of the tables that `vgexp signal` makes of a network at initialisation, if asked."""

from __future__ import annotations

from functools import partial

from vgexp.quantities.quantity import amount, key, label, magnitude

_singular = partial(magnitude, asked_by="signal.jacobian")
_rank = partial(amount, asked_by="signal.jacobian")
_log10 = partial(amount, asked_by="signal.jacobian", scale="linear")
_exponent = partial(amount, asked_by="signal.jacobian", scale="linear")
_of_path = partial(amount, asked_by="signal.paths", scale="linear")
_of_pair = partial(amount, asked_by="signal.shattering", scale="linear")

JACOBIAN = (
    key("step", "0: the network as it is initialised"),
    label("layer", "main-path layers from 1, as in layers.csv; of a block the block's", "int"),
    key("name", "the layer's weight or block in the model", "text"),
    _singular(
        "largest",
        "largest singular value of the layer's Jacobian, of what it hands on (z; a block's path) by"
        " what it reads (input; z before), batch statistics held; this and all: geometric mean over"
        " the batch's first examples (4; 1 of large layers)",
    ),
    _singular("median", "median of its singular values (of their logarithms)"),
    _singular("smallest", "smallest of its singular values, zeros included"),
    _rank("rank", "number of its singular values above 0, to rounding; mean over examples"),
    _rank(
        "effective_rank",
        "exp of the entropy of its squared singular values over their sum; mean over examples",
    ),
    _log10(
        "product_largest_log10",
        "log10 of the largest singular value of the product of Jacobians from the input to here",
    ),
    _log10("product_median_log10", "log10 of the product's median singular value"),
    _log10("product_smallest_log10", "log10 of the product's smallest singular value"),
    _log10("product_bound_log10", "log10 of the product of the layers' largest singular values"),
    _rank("product_rank", "number of the product's singular values above 0; mean over examples"),
    _rank("product_effective_rank", "effective rank of the product; mean over examples"),
    _exponent(
        "lyapunov_largest",
        "(1/l) ln of the product's largest singular value, l its number of factors",
    ),
    _exponent("lyapunov_mean", "the same of its singular values above 0, their mean"),
    _exponent("lyapunov_smallest", "the same of its smallest singular value"),
)

PATHS = (
    key("step", "0: the network as it is initialised"),
    key("name", "the layer whose z (or path) the gradient is measured at", "text"),
    key("length", "number k of branches that a path passes on its way back from the loss"),
    _of_path(
        "share",
        "of the gradient: <g_k, g> / <g, g> over the examples, g_k the sum over paths of this"
        " length, over the batch's first 8, batch statistics held; sums to 1, may be negative",
    ),
    magnitude(
        "delta_rms",
        "rms over examples and units of g_k, N dL/dz of paths of this length alone",
        asked_by="signal.paths",
    ),
    _of_path("binomial", "share of the number of paths: C(n, k) / 2^n, n the branches"),
)

SHATTERING = (
    key("step", "0: the network as it is initialised"),
    key("layer", "main-path layers from 1, as in layers.csv; 0: the input"),
    label("name", "the layer's weight or block in the model"),
    key("inputs", "line: points of a line through input space; data: pairs of examples", "text"),
    key(
        "distance",
        "rms over entries of the difference of two inputs; data: mean over pairs",
        "float",
    ),
    _of_pair(
        "correlation",
        "cosine of d output / dz at the two inputs, all outputs and units in one vector; mean over"
        " pairs",
    ),
)
