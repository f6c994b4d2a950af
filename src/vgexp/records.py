"""What a run says about itself: rows of tables. Columns are declared here, once, with meanings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Column:
    """A column of a table: its name, its definition with unit and convention, its kind."""

    name: str
    definition: str
    kind: str = "float"
    """`int`, `float` or `text`; every kind may be empty: not measured here, or not defined."""


@final
class Floats(Sequence[Any]):
    """A column of floats in the dtype they were measured in; reads like a list of them and None."""

    def __init__(self, values: NDArray[Any], present: NDArray[np.bool_] | None = None) -> None:
        self.values = values
        """The floats; anything where the cell is empty."""
        self.present = present
        """Whether each cell has a value; None: all have."""

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, index: Any) -> Any:
        present = None if self.present is None else self.present[index]
        if isinstance(index, slice):
            return Floats(self.values[index], present)
        return None if present is not None and not present else self.values[index]

    def __iter__(self) -> Iterator[Any]:
        return (self[index] for index in range(len(self)))


@dataclass(frozen=True)
class Rows:
    """One or more rows of one table, by column; a column left out is empty in every row.

    Values are text, integers or floats in the dtype they were measured in (numpy scalars for
    float32); None is an empty cell.
    """

    table: str
    columns: Mapping[str, Sequence[Any]]

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), ()))

    def __getitem__(self, rows: slice) -> Rows:
        return Rows(self.table, {name: values[rows] for name, values in self.columns.items()})


LAYERS = (
    Column("step", "the update on whose gradient the row is measured, from 0", "int"),
    Column(
        "layer", "main-path weights from 1 (read-out L+1); modules side by side share it", "int"
    ),
    Column("name", "the weight's name in the model", "text"),
    Column(
        "kind", "linear, conv, recurrent, attention or readout; stream: a block's output", "text"
    ),
    Column("weight_norm", "Frobenius norm of W, without bias, before the update"),
    Column("grad_norm", "L2 norm of dL/dW, loss scale divided out, before clipping"),
    Column("grad_max", "largest magnitude in dL/dW"),
    Column("grad_zero_fraction", "share of exact zeros in dL/dW"),
    Column("grad_norm_clipped", "L2 norm of the gradient that the optimizer saw, noise included"),
    Column("update_ratio", "norm of W's change in this step over weight_norm"),
    Column("preact_mean", "mean of z over examples, units and positions"),
    Column("preact_std", "standard deviation of z over examples, units and positions"),
    Column("act_mean", "mean of h over examples, units and positions"),
    Column("act_std", "standard deviation of h over examples, units and positions"),
    Column("saturated_fraction", "bounded phi: share of |phi'(u)| below 5 % of its largest value"),
    Column("dead_fraction", "share of units whose phi' is exactly 0 at every example and position"),
    Column("delta_rms", "rms over examples, units and positions of N dL/dz"),
    Column("backward_gain", "delta_rms here over delta_rms of the next main-path layer"),
)

PREDICTION = "predicted_"
"""What the name of a column or figure of theory begins with; the rest is the measured one's."""

PREDICTED = (
    Column("predicted_preact_std", "preact_std at step 0, by mean-field theory"),
    Column("predicted_delta_rms", "delta_rms at step 0, by mean-field theory"),
    Column("predicted_backward_gain", "backward_gain at step 0, by mean-field theory"),
    Column(
        "predicted_log_delta_std",
        "standard deviation over initialisations of ln delta_rms that finite width gives",
    ),
)
"""Columns that follow those of `LAYERS`, on rows of step 0; empty where theory has no answer, and
missing in tables of before there was theory."""

SEED = Column("seed", "the seed of the initialisation, and of all else that is drawn", "int")
"""The last column of the `layers.csv` that `vgexp signal` writes."""

STEPS = (
    Column("step", "the update, from 0", "int"),
    Column("epoch", "passes over the training split that were complete before it", "int"),
    Column("lr", "learning rate of the update"),
    Column("loss", "mean loss over the update's examples, before the update"),
    Column("accuracy", "share of its answers that are right (values: within 0.04), before it"),
    Column("grad_norm", "L2 norm over all trainable parameters, before clipping"),
    Column("grad_norm_clipped", "the same as the optimizer saw it, noise included"),
    Column("clipped", "1 if clipping changed any entry", "int"),
    Column("skipped", "1 if the optimizer step was skipped", "int"),
    Column("loss_scale", "float16: what the loss is multiplied by before the backward pass"),
)

EVALS = (
    Column("step", "updates done before the evaluation", "int"),
    Column("epoch", "passes over the training split that were complete", "int"),
    Column("split", "train, val, or once at the end test", "text"),
    Column("loss", "mean loss over the split"),
    Column("accuracy", "share of the split's answers that are right (values: within 0.04)"),
)

TIMING = (
    Column("step", "updates done", "int"),
    Column("seconds", "wall-clock seconds since the first update began"),
    Column("examples_per_second", "examples trained on since the last row, per second"),
)

HISTOGRAMS = (
    Column("step", "the update on whose forward passes the row is measured, from 0", "int"),
    Column("layer", "as in layers.csv", "int"),
    Column("name", "the weight's name in the model", "text"),
    Column("quantity", "what is distributed: preact, the entries of z, or act, those of h", "text"),
    Column(
        "lower", "the bin's lower edge, which is in the bin; edges are multiples of a width 2^k"
    ),
    Column("upper", "its upper edge, which is in the next bin"),
    Column(
        "share",
        "share of all entries, over examples, units and positions, that lie in the bin; entries "
        "that are not finite lie in none, and a bin without entries has no row",
    ),
)

TIME = (
    Column("step", "the update on whose gradient the row is measured, from 0", "int"),
    Column("layer", "the stacked layer, from 1", "int"),
    Column("name", "the layer's module and the state: h, or an LSTM's cell state c", "text"),
    Column("t", "the step in time, from 0, after which the state is this", "int"),
    Column(
        "delta_rms",
        "rms over examples and units of N dL/ds_t, s_t the state h_t or c_t; h and c are two"
        " variables: through h_t alone c_t is not counted",
    ),
    Column("state_rms", "rms of the state over examples and units"),
)

PREDICTED_IN_TIME = (Column("predicted_delta_rms", "delta_rms at step 0, by mean-field theory"),)
"""The same of `TIME`."""

RECURRENCE = (
    Column("step", "the update before which the row is measured, from 0", "int"),
    Column("layer", "the stacked layer, from 1", "int"),
    Column("name", "the layer's module and the gate, or hidden of model=rnn", "text"),
    Column("spectral_radius", "largest |eigenvalue| of the gate's recurrent matrix"),
    Column("gate_mean", "mean of phi(u) over examples, units and the watched times"),
    Column(
        "saturated_fraction", "bounded phi: share of |phi'(u)| below 5 % of its largest, likewise"
    ),
)

ATTENTION = (
    Column("step", "the update on whose forward passes the row is measured, from 0", "int"),
    Column("layer", "the block's, as in layers.csv", "int"),
    Column("name", "the attention's module in the model", "text"),
    Column("head", "the head, from 0", "int"),
    Column("entropy", "mean over examples and query positions of -sum p ln p, in nats"),
    Column("entropy_fraction", "entropy over its largest possible: 1 looks everywhere alike"),
    Column("logit_max", "largest magnitude of q.k / sqrt(units of a head) where a query may look"),
)

PRETRAINING = (
    Column("step", "the update of this layer's pretraining, from 0", "int"),
    Column("name", "the layer's weight", "text"),
    Column(
        "loss",
        "of the reconstruction, before the update: cross-entropy in nats where the layer reads "
        "units of bounded range, else squared error over their variance; means over entries",
    ),
)

CURVATURE = (
    Column("step", "the update before which the row is measured, on its examples, from 0", "int"),
    Column("name", "whose Hessian: model, all trainable parameters together", "text"),
    Column("lr", "learning rate of the update"),
    Column(
        "hessian_max",
        "largest eigenvalue (by value) of the Hessian of the update's mean loss, without weight "
        "decay, by Lanczos' method: the sharpness",
    ),
    Column(
        "stability_limit",
        "the hessian_max above which an update grows on a quadratic: (2 + 2 momentum) / lr less "
        "the weight decay; clipping not counted; empty but for sgd and momentum: the others divide "
        "each entry by a number of its own, and what they bear depends on both",
    ),
    Column(
        "hessian_max_residual",
        "|H v - hessian_max v| of its unit vector: an eigenvalue is at most that far away",
    ),
    Column("hessian_min", "smallest eigenvalue, as far as that was seen by then: at most too high"),
    Column("hessian_min_residual", "|H v - hessian_min v| of its unit vector"),
    Column("hessian_trace", "trace of the Hessian, by Hutchinson's method"),
    Column(
        "hessian_trace_error",
        "standard error of that, from 6 vectors of signs: of so few it may itself be off by a "
        "factor of two",
    ),
    Column("num_products", "Hessian-vector products of Lanczos' method", "int"),
)

JACOBIAN = (
    Column("step", "0: the network as it is initialised", "int"),
    Column("layer", "main-path layers from 1, as in layers.csv; of a block the block's", "int"),
    Column("name", "the layer's weight or block in the model", "text"),
    Column(
        "largest",
        "largest singular value of the layer's Jacobian, of what it hands on (z; a block's path) by"
        " what it reads (input; z before), batch statistics held; this and all: geometric mean over"
        " the batch's first examples (4; 1 of large layers)",
    ),
    Column("median", "median of its singular values (of their logarithms)"),
    Column("smallest", "smallest of its singular values, zeros included"),
    Column("rank", "number of its singular values above 0, to rounding; mean over examples"),
    Column(
        "effective_rank",
        "exp of the entropy of its squared singular values over their sum; mean over examples",
    ),
    Column(
        "product_largest_log10",
        "log10 of the largest singular value of the product of Jacobians from the input to here",
    ),
    Column("product_median_log10", "log10 of the product's median singular value"),
    Column("product_smallest_log10", "log10 of the product's smallest singular value"),
    Column("product_bound_log10", "log10 of the product of the layers' largest singular values"),
    Column("product_rank", "number of the product's singular values above 0; mean over examples"),
    Column("product_effective_rank", "effective rank of the product; mean over examples"),
    Column(
        "lyapunov_largest",
        "(1/l) ln of the product's largest singular value, l its number of factors",
    ),
    Column("lyapunov_mean", "the same of its singular values above 0, their mean"),
    Column("lyapunov_smallest", "the same of its smallest singular value"),
)

PATHS = (
    Column("step", "0: the network as it is initialised", "int"),
    Column("name", "the layer whose z (or path) the gradient is measured at", "text"),
    Column(
        "length", "number k of branches that a path passes on its way back from the loss", "int"
    ),
    Column(
        "share",
        "of the gradient: <g_k, g> / <g, g> over the examples, g_k the sum over paths of this"
        " length, over the batch's first 8, batch statistics held; sums to 1, may be negative",
    ),
    Column(
        "delta_rms", "rms over examples and units of g_k, N dL/dz of paths of this length alone"
    ),
    Column("binomial", "share of the number of paths: C(n, k) / 2^n, n the branches"),
)

SHATTERING = (
    Column("step", "0: the network as it is initialised", "int"),
    Column("layer", "main-path layers from 1, as in layers.csv; 0: the input", "int"),
    Column("name", "the layer's weight or block in the model", "text"),
    Column("inputs", "line: points of a line through input space; data: pairs of examples", "text"),
    Column("distance", "rms over entries of the difference of two inputs; data: mean over pairs"),
    Column(
        "correlation",
        "cosine of d output / dz at the two inputs, all outputs and units in one vector; mean over"
        " pairs",
    ),
)

TABLES: Mapping[str, tuple[Column, ...]] = {
    "layers": (*LAYERS, *PREDICTED),
    "steps": STEPS,
    "evals": EVALS,
    "timing": TIMING,
    "histograms": HISTOGRAMS,
    "time": (*TIME, *PREDICTED_IN_TIME),
    "recurrence": RECURRENCE,
    "attention": ATTENTION,
    "pretraining": PRETRAINING,
    "curvature": CURVATURE,
    "jacobian": JACOBIAN,
    "paths": PATHS,
    "shattering": SHATTERING,
}
"""Table (its file is `<table>.csv`) -> its columns in order."""

KEYS: Mapping[str, tuple[str, ...]] = {
    "layers": ("step", "name"),
    "steps": ("step",),
    "evals": ("step", "split"),
    "timing": ("step",),
    "histograms": ("step", "name", "quantity", "lower"),
    "time": ("step", "name", "t"),
    "recurrence": ("step", "name"),
    "attention": ("step", "name", "head"),
    "pretraining": ("step", "name"),
    "curvature": ("step", "name"),
    "jacobian": ("step", "name"),
    "paths": ("step", "name", "length"),
    "shattering": ("step", "layer", "inputs", "distance"),
}
"""Table -> the columns that tell its rows apart, within one seed."""

OPTIONAL = frozenset(column.name for column in (*PREDICTED, *PREDICTED_IN_TIME))
"""Columns that a table may lack."""

COMMON = ("layers", "steps", "evals", "timing")
"""The tables that every run has; others are there where the run has such a thing."""

ACTIVATION_COLUMNS = (
    "preact_mean",
    "preact_std",
    "act_mean",
    "act_std",
    "saturated_fraction",
    "dead_fraction",
    "delta_rms",
    "backward_gain",
)
"""The columns of `layers.csv` that need the forward pass and dL/dz (`probe.activations_every`)."""

READOUT = "readout"
"""The kind of the last weight's rows, and what they are called beside numbered layers."""

WEIGHT_COLUMNS = (
    "weight_norm",
    "grad_norm",
    "grad_max",
    "grad_zero_fraction",
    "grad_norm_clipped",
    "update_ratio",
)
"""The columns of `layers.csv` that need weights and gradients only (`probe.every`)."""
