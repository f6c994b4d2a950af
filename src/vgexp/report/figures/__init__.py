"""Figures of tables: each a function of a DataFrame that returns a matplotlib figure."""

# First: every other module here imports matplotlib.
from vgexp.report.figures import backend as _backend  # noqa: F401
from vgexp.report.figures.before_after import before_after
from vgexp.report.figures.beside import Beside, read_beside, side_by_side
from vgexp.report.figures.by_depth import attention_entropy, update_ratios
from vgexp.report.figures.catalogue import FIGURES, OVERVIEW, RunFigure
from vgexp.report.figures.depth import backward_signal, forward_signal
from vgexp.report.figures.directions import jacobian, paths, shattering
from vgexp.report.figures.heat import gradient_map
from vgexp.report.figures.hessian import curvature
from vgexp.report.figures.of_run import FOLDER, draw, draw_instead, run_figure, write_beside
from vgexp.report.figures.overview import overview
from vgexp.report.figures.ridges import distributions
from vgexp.report.figures.shares import shares
from vgexp.report.figures.start import at_start, time_at_start
from vgexp.report.figures.through_time import through_time
from vgexp.report.figures.training import gradient_norms, learning_curves

__all__ = [
    "FIGURES",
    "FOLDER",
    "OVERVIEW",
    "Beside",
    "RunFigure",
    "at_start",
    "attention_entropy",
    "backward_signal",
    "before_after",
    "curvature",
    "distributions",
    "draw",
    "draw_instead",
    "forward_signal",
    "gradient_map",
    "gradient_norms",
    "jacobian",
    "learning_curves",
    "overview",
    "paths",
    "read_beside",
    "run_figure",
    "shares",
    "shattering",
    "side_by_side",
    "through_time",
    "time_at_start",
    "update_ratios",
    "write_beside",
]
