"""Draws a run on one page of panels, with its verdict as title."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vgexp.diagnosis import diagnose
from vgexp.diagnosis.signal import SMALLEST_NORMAL, loss_scales
from vgexp.errors import QuestionError
from vgexp.report.figures import style
from vgexp.report.figures.by_depth import draw_attention_entropy, draw_update_ratios
from vgexp.report.figures.depth import draw_backward_signal, draw_forward_signal
from vgexp.report.figures.heat import draw_gradient_map
from vgexp.report.figures.shares import SHARES, draw_share, measured_shares
from vgexp.report.figures.through_time import draw_through_time
from vgexp.report.figures.training import draw_gradient_norms, draw_loss
from vgexp.report.figures.wanted import require_table

Draw = Callable[[Axes], None]

_LINE = 140
"""Letters of the headline in a line across three panels."""
_OF_LAYERS = ("step", "layer", "kind", "grad_norm", "grad_max", "delta_rms", "preact_std")
"""Columns without which a table of layers has no overview."""


def overview(
    tables: Mapping[str, pd.DataFrame] | pd.DataFrame, summary: Mapping[str, Any] | None = None
) -> Figure:
    """Draws six panels: gradient map, both signals, update ratios, loss, and one further.

    The further one is the gradient over time, attention, a share of units, or the gradient's norm.

    A table of layers alone, such as `Probe.to_frame()`, has no loss: its page shows the first
    four panels and the shares of units that were measured, below what `diagnose` says of it.

    Args:
        tables: table -> its rows; one that is missing leaves its panels empty. Or a frame with
            rows as in `layers.csv`.
        summary: what `summary.json` holds: verdict, cause, dtype, constant_loss.

    Raises:
        QuestionError: neither a mapping nor a table of layers.
    """
    summary = summary or {}
    dtype = _known_dtype(summary)
    if isinstance(tables, Mapping):
        return overview_of_run(tables, summary, dtype)
    require_table("overview", tables, "layers", _OF_LAYERS)
    shares = [_share_panel(tables, column) for column in measured_shares(tables)]
    return _page([*_layer_panels(tables, dtype), *shares], _diagnosis_line(tables))


def overview_of_run(
    tables: Mapping[str, pd.DataFrame], summary: Mapping[str, Any], dtype: str | None
) -> Figure:
    """Draws the same six panels; `dtype` is the run's, or None where it is not known."""
    return _page(_panels(tables, summary, dtype), verdict_line(summary))


@style.with_style
def _page(panels: Sequence[tuple[str, Draw]], headline: str) -> Figure:
    """A figure of titled panels in two rows, below a headline."""
    num_columns = -(-len(panels) // 2)
    figure, places = style.canvas(2, num_columns, width=4.8 * num_columns, height=8.2)
    for axes, (title, draw) in zip(places, panels, strict=False):
        draw(axes)
        axes.set_title(title)
    for axes in places[len(panels) :]:
        axes.set_axis_off()
    words = textwrap.fill(headline, int(_LINE * num_columns / 3), break_long_words=True)
    figure.suptitle(words, x=0.012, ha="left", fontsize=13)
    return figure


def verdict_line(summary: Mapping[str, Any]) -> str:
    """Says the verdict and its cause, or why there is none."""
    verdict, cause = summary.get("verdict"), summary.get("cause")
    if not summary:
        words = "no verdict: the run has no summary"
    elif verdict is None:
        words = str(cause or "no verdict")
    else:
        words = f"{verdict}: {cause}" if cause else str(verdict)
    return style.label(words)


def _diagnosis_line(layers: pd.DataFrame) -> str:
    """What the table says of the gradient; why it says nothing where no signal was measured."""
    try:
        return style.label(diagnose(layers).sentence)
    except QuestionError as error:
        return style.label(str(error).splitlines()[0])


def _panels(
    tables: Mapping[str, pd.DataFrame], summary: Mapping[str, Any], dtype: str | None
) -> list[tuple[str, Draw]]:
    layers, steps, evals = (tables.get(name) for name in ("layers", "steps", "evals"))
    scales = None if steps is None else loss_scales(steps)
    panels = _layer_panels(layers, dtype, scales)
    loss = partial(draw_loss, evals=evals, constant_loss=number(summary.get("constant_loss")))
    return [*panels, ("Loss", _draw_if_given(loss, steps, "steps")), _last_panel(tables)]


def _layer_panels(
    layers: pd.DataFrame | None, dtype: str | None, scales: pd.Series | None = None
) -> list[tuple[str, Draw]]:
    """The four panels of a table of layers.

    Args:
        scales: the loss scale by step; None: 1.
    """
    gradients = partial(draw_gradient_map, dtype=dtype, loss_scale=scales)
    of_layers: list[tuple[str, Any]] = [
        ("Gradient norm of each layer", gradients),
        ("Backward signal", draw_backward_signal),
        ("Forward signal", draw_forward_signal),
        ("Update ratio", draw_update_ratios),
    ]
    return [(title, _draw_if_given(draw, layers, "layers")) for title, draw in of_layers]


def _last_panel(tables: Mapping[str, pd.DataFrame]) -> tuple[str, Draw]:
    layers = tables.get("layers")
    for name, title, draw in (
        ("time", "Backward through time", draw_through_time),
        ("attention", "Attention entropy", draw_attention_entropy),
    ):
        if len(tables.get(name, ())):
            return title, _draw_if_given(draw, tables[name], name)
    for column in measured_shares(layers) if layers is not None else ():
        return _share_panel(layers, column)
    return "Gradient norm", _draw_if_given(draw_gradient_norms, tables.get("steps"), "steps")


def _share_panel(layers: pd.DataFrame | None, column: str) -> tuple[str, Draw]:
    draw = partial(draw_share, column=column)
    return SHARES[column][0].capitalize(), _draw_if_given(draw, layers, "layers")


def _draw_if_given(draw: Callable[..., None], frame: pd.DataFrame | None, table: str) -> Draw:
    """What draws a table into a panel, or says that it is not there."""
    if frame is None:
        return lambda axes: style.say(axes, f"there is no {table}.csv")
    return lambda axes: draw(axes, frame)


def _known_dtype(summary: Mapping[str, Any]) -> str | None:
    """The run's dtype: float32 where there is no word of it, None where it is not known."""
    told = summary.get("dtype", "float32")
    return told if isinstance(told, str) and told in SMALLEST_NORMAL else None


def number(value: Any) -> float | None:
    """Returns a number of a summary; None for anything else."""
    return float(value) if isinstance(value, int | float) else None
