"""The figures of a run, by name: which tables each shows, and what draws it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from matplotlib.figure import Figure

from vgexp.quantities import PREDICTION
from vgexp.registry import Registry
from vgexp.report.figures.by_depth import attention_entropy, update_ratios
from vgexp.report.figures.depth import backward_signal, forward_signal
from vgexp.report.figures.directions import jacobian, paths, shattering
from vgexp.report.figures.heat import gradient_map
from vgexp.report.figures.hessian import curvature
from vgexp.report.figures.ridges import distributions
from vgexp.report.figures.shares import shares
from vgexp.report.figures.start import at_start, time_at_start
from vgexp.report.figures.through_time import EXPECTED, through_time
from vgexp.report.figures.training import gradient_norms, learning_curves

_KEYS = ("step", "layer", "name", "kind")
_EVENTS = ("clipped", "skipped")
_SINGULAR = ("largest", "median", "smallest")
_STARTING = ("delta_rms", "preact_std", "backward_gain")


@dataclass(frozen=True)
class RunFigure:
    """A figure of a run."""

    summary: str
    make: Callable[..., Figure]
    """Is given the tables in the order of `columns`, then the `facts` by name."""
    columns: Mapping[str, tuple[str, ...]]
    """Table -> the columns that are read, where it has them. Only the first table must be there."""
    measured: tuple[str, ...]
    """Columns of the first table: without a value in any, there is nothing to see."""
    facts: tuple[str, ...] = ()
    """Keys of the summary that the figure shows as well, and `loss_scale`, of `steps`."""
    is_over_seeds: bool = False
    """Whether it is of the tables of `vgexp signal`, which have a column `seed`."""

    @property
    def table(self) -> str:
        """Without which there is no figure."""
        return next(iter(self.columns))


def _of_layers(
    summary: str, make: Callable[..., Figure], *columns: str, facts: tuple[str, ...] = ()
) -> RunFigure:
    predicted = tuple(f"{PREDICTION}{name}" for name in columns)
    return RunFigure(summary, make, {"layers": (*_KEYS, *columns, *predicted)}, columns, facts)


def _of_start(
    summary: str, make: Callable[..., Figure], table: str, columns: tuple[str, ...], measured: str
) -> RunFigure:
    return RunFigure(summary, make, {table: columns}, (measured,), is_over_seeds=True)


OVERVIEW = "overview"
"""The name of what shows the most telling of them on one page; it is none of a table."""
FIGURES: Registry[RunFigure] = Registry(
    "figure",
    {
        "gradient_map": _of_layers(
            "gradient norm of each layer at each measured step, zeros and underflow marked",
            gradient_map,
            "grad_norm",
            "grad_max",
            facts=("dtype", "loss_scale"),
        ),
        "backward_signal": _of_layers(
            "delta_rms against depth at the first, a middle and the last step",
            backward_signal,
            "delta_rms",
        ),
        "forward_signal": _of_layers(
            "standard deviation of z against depth at the same steps", forward_signal, "preact_std"
        ),
        "distributions": RunFigure(
            "distributions of activations by layer at the first and the last step",
            distributions,
            {"histograms": ("step", "layer", "name", "quantity", "lower", "upper", "share")},
            ("share",),
        ),
        "shares": _of_layers(
            "saturated and dead shares against depth",
            shares,
            "saturated_fraction",
            "dead_fraction",
        ),
        "update_ratios": _of_layers(
            "change of each layer's weights in a step over their norm, with the guide 1e-3",
            update_ratios,
            "update_ratio",
        ),
        "learning_curves": RunFigure(
            "loss and accuracy over steps, with clipped and skipped steps",
            learning_curves,
            {
                "steps": ("step", "loss", "accuracy", *_EVENTS),
                "evals": ("step", "split", "loss", "accuracy"),
            },
            ("loss",),
            ("constant_loss",),
        ),
        "gradient_norms": RunFigure(
            "gradient norm of the whole network over steps, before and after clipping",
            gradient_norms,
            {"steps": ("step", "grad_norm", "grad_norm_clipped", *_EVENTS)},
            ("grad_norm",),
        ),
        "curvature": RunFigure(
            "largest and smallest Hessian eigenvalue beside the stability limit, and the trace",
            curvature,
            {
                "curvature": (
                    "step",
                    *("hessian_max", "hessian_min", "stability_limit"),
                    *("hessian_trace", "hessian_trace_error"),
                )
            },
            ("hessian_max", "hessian_trace"),
        ),
        "through_time": RunFigure(
            "recurrent nets: delta_rms of the last layer's state against time",
            through_time,
            {"time": ("step", "layer", "name", "t", "delta_rms", EXPECTED)},
            ("delta_rms",),
        ),
        "attention_entropy": RunFigure(
            "attention: how widely each block looks, over steps",
            attention_entropy,
            {"attention": ("step", "layer", "entropy_fraction")},
            ("entropy_fraction",),
        ),
        "at_start": RunFigure(
            "vgexp signal: backward and forward signal over seeds, measured and predicted",
            at_start,
            {
                "layers": (
                    *_KEYS,
                    "seed",
                    *_STARTING,
                    *(f"{PREDICTION}{n}" for n in _STARTING),
                    f"{PREDICTION}log_delta_std",
                )
            },
            ("delta_rms",),
            is_over_seeds=True,
        ),
        "time_at_start": _of_start(
            "vgexp signal, recurrent nets: backward through time over seeds, and predicted",
            time_at_start,
            "time",
            ("layer", "name", "t", "seed", "delta_rms", EXPECTED),
            "delta_rms",
        ),
        "jacobian": _of_start(
            "vgexp signal: singular values of each layer's Jacobian and of their product",
            jacobian,
            "jacobian",
            ("layer", "name", *_SINGULAR, *(f"product_{n}_log10" for n in (*_SINGULAR, "bound"))),
            "largest",
        ),
        "paths": _of_start(
            "vgexp signal: share of the gradient by length of path, beside the binomial",
            paths,
            "paths",
            ("name", "length", "share", "binomial"),
            "share",
        ),
        "shattering": _of_start(
            "vgexp signal: correlation of gradients at nearby inputs against depth",
            shattering,
            "shattering",
            ("layer", "inputs", "distance", "correlation"),
            "correlation",
        ),
    },
)
"""Figure -> what it is; its file is `figures/<name>.png` and `.svg`."""
