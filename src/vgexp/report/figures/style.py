"""The style of every figure: fonts, colours, sizes, and how files are written.

Colours tell apart for colour-blind readers (Okabe and Ito 2008; viridis), and lines and cells
differ in dashes, markers or hatching as well, so that a print in grey is read alike.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache, wraps
from pathlib import Path
from typing import Any, NamedTuple, ParamSpec, final

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager
from matplotlib.ticker import ScalarFormatter

from vgexp.errors import QuestionError, one_line, unknown
from vgexp.folders import replace_file

WIDTH, HEIGHT = 6.4, 4.0
"""Of a figure with one panel, in inches."""
DPI = 150
SEQUENTIAL = "viridis"
"""Colour map of magnitudes: its lightness rises with the value."""
FORMATS = ("png", "svg", "pdf")

INK, FAINT, PAPER = "#222222", "#d9d9d9", "#ffffff"
SPIKE = "#D55E00"
"""What stands out and has a name beside it: a spike, a step that was clipped."""
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#222222")
_DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1, 1.4)), (0, (6, 2, 1, 2)), (0, (9, 3)))
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
# Colour, width and marker of the first, a middle and the last step.
_NESTED = (("#9ccbea", 6.0, 7.5), ("#D55E00", 3.0, 5.0), ("#0b2e59", 1.2, 3.0))


class Special(NamedTuple):
    """The look of a value that has no place on a logarithmic scale."""

    label: str
    face: str
    hatch: str


ZERO = Special("exactly 0", "#ffffff", "xxxx")
UNDERFLOW = Special("underflow", "#e6e6e6", "....")
NOT_FINITE = Special("not finite", "#D55E00", "////")
_FURTHER_FAMILIES = (
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "Noto Sans",
    "WenQuanYi Zen Hei",
    "Droid Sans Fallback",
    "Microsoft YaHei",
    "Yu Gothic",
    "Malgun Gothic",
    "PingFang SC",
    "Hiragino Sans",
    "Arial Unicode MS",
)
"""Fonts that have the letters of a user's names where ours has not, if they are installed."""
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_POWER = re.compile(r"([+−]?)([\d.]+)e([-−]?\d+)")

_RC: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 10.0,
    "mathtext.fontset": "dejavusans",
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": "#666666",
    "axes.titlesize": 11.0,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#ebebeb",
    "grid.linewidth": 0.8,
    "xtick.color": "#444444",
    "ytick.color": "#444444",
    "lines.linewidth": 1.8,
    "lines.markersize": 4.0,
    "legend.frameon": False,
    "legend.fontsize": 9.0,
    "hatch.linewidth": 0.5,
    "figure.facecolor": PAPER,
    "figure.dpi": DPI,
    "savefig.dpi": DPI,
    # Long noisy lines are drawn in pieces: Agg gives up on them as a whole.
    "agg.path.chunksize": 10_000,
    # Equal tables give equal files.
    "svg.hashsalt": "vgexp",
    "axes.formatter.use_mathtext": True,
}

P = ParamSpec("P")
_is_styled: ContextVar[bool] = ContextVar("_is_styled", default=False)


class UnwritableError(QuestionError):
    """A place where a figure cannot be written."""

    def __init__(self, path: Path, error: OSError) -> None:
        super().__init__(f"cannot write {path}: {error.strerror}")
        self.strerror = error.strerror


@contextmanager
def apply_style() -> Iterator[None]:
    """Applies our style to matplotlib within a `with`."""
    if _is_styled.get():
        # Within it already. To set everything anew takes a while.
        yield
        return
    token = _is_styled.set(True)
    try:
        with mpl.rc_context():
            mpl.rcdefaults()
            mpl.rcParams.update({**_RC, "font.family": [_RC["font.family"], *_further_families()]})
            # A letter that no font has is a box in the picture, and nobody's mistake.
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from", UserWarning)
                yield
    finally:
        _is_styled.reset(token)


def with_style(make: Callable[P, Figure]) -> Callable[P, Figure]:
    """Decorates a function that makes a figure in our style."""

    @wraps(make)
    def make_styled(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with apply_style():
            return make(*args, **kwargs)

    return make_styled


def canvas(
    num_rows: int = 1,
    num_columns: int = 1,
    *,
    width: float | None = None,
    height: float | None = None,
    **subplots: Any,
) -> tuple[Figure, list[Axes]]:
    """Makes a figure and its panels, row by row, without pyplot, which keeps every figure.

    Args:
        width, height: of the whole in inches; None: those of one panel, times the panels.
        subplots: what `Figure.subplots` takes, such as `sharex=True`.
    """
    size = (width or WIDTH * num_columns, height or HEIGHT * num_rows)
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    panels = list(figure.subplots(num_rows, num_columns, squeeze=False, **subplots).flat)
    for axes in panels:
        axes.xaxis.set_major_formatter(_Plain())
        axes.yaxis.set_major_formatter(_Plain())
    return figure, panels


@with_style
def draw_alone(draw: Callable[..., None], title: str, *args: Any) -> Figure:
    """Makes a figure of one panel with a title; `draw` draws the arguments into the panel."""
    figure, [axes] = canvas()
    draw(axes, *args)
    axes.set_title(title)
    return figure


def choose_line_look(index: int) -> dict[str, Any]:
    """Returns the look of a line by its number, for `Axes.plot`: colour, dashes and marker."""
    return {
        "color": _COLOURS[index % len(_COLOURS)],
        "linestyle": _DASHES[index % len(_DASHES)],
        "marker": _MARKERS[index % len(_MARKERS)],
    }


def choose_nested_look(index: int, num_lines: int) -> dict[str, Any]:
    """Returns the look of one of up to three lines that may coincide: broad below, thin on top."""
    places = {1: (2,), 2: (0, 2)}.get(num_lines, (0, 1, 2))
    colour, width, size = _NESTED[places[index]]
    return {"color": colour, "linewidth": width, "marker": "o", "markersize": size}


def choose_shade(fraction: float) -> tuple[float, float, float, float]:
    """Returns the colour of a line in an order (layers, steps): 0 is the first, 1 the last.

    The light end of the map is left out, which paper swallows.
    """
    red, green, blue, alpha = mpl.colormaps[SEQUENTIAL](0.9 * min(1.0, max(0.0, fraction)))
    return float(red), float(green), float(blue), float(alpha)


def say(axes: Axes, words: str) -> None:
    """Writes into a panel without data why it is empty."""
    axes.set_axis_off()
    axes.text(0.5, 0.5, words, ha="center", va="center", wrap=True, transform=axes.transAxes)


def label(text: str) -> str:
    """Makes a name from outside safe as a label: one line, no mathematics."""
    return one_line(text).replace("$", r"\$")


def ten_to(exponent: int) -> str:
    """Writes a power of ten in letters; mathtext would take a third of a figure's time."""
    return "10" + str(exponent).translate(_RAISED)


def percent(share: float) -> str:
    """Writes a share in per cent; only exactly 0 is `0 %`, and only exactly 1 `100 %`."""
    if 0 < share < 0.001:
        return "<0.1 %"
    if 0.999 < share < 1:
        return ">99.9 %"
    is_between = share < 0.01 or 0.99 < share < 1
    return f"{100 * share:.1f} %" if share > 0 and is_between else f"{100 * share:.0f} %"


def tick_whole_numbers(axis: Any) -> None:
    """Places the ticks of an axis at whole numbers only."""
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator("auto", integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))


def write(figure: Figure, path: Path) -> Path:
    """Writes a figure, whole or not at all, in the format of the path's suffix.

    Its layout is made now, and stays.

    Raises:
        QuestionError: a suffix that is no format.
        UnwritableError: a place where nothing can be written.
    """
    kind = path.suffix.lower().removeprefix(".")
    if kind not in FORMATS:
        raise unknown(f"figure format of {path}", kind, FORMATS)
    # The date would make files of equal pictures differ.
    metadata = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(kind)
    try:
        with apply_style(), replace_file(path) as temporary:
            _lay_out(figure)
            figure.savefig(temporary, format=kind, metadata=metadata)
    except OSError as error:
        raise UnwritableError(path, error) from None
    return path


@final
class _Plain(ScalarFormatter):
    """matplotlib's names of linear ticks, in letters: mathtext takes longer than all other text."""

    def __init__(self) -> None:
        super().__init__(useMathText=False)

    def get_offset(self) -> str:
        """What all ticks have in common, above the axis: `×10⁶`, `+10⁸`, `×10⁻⁷+5.01×10⁻¹`."""
        return _POWER.sub(_in_letters, super().get_offset())


def _in_letters(number: re.Match[str]) -> str:
    sign, mantissa, exponent = number.groups()
    power = ten_to(int(exponent.replace("−", "-")))
    if mantissa == "1":
        return f"{sign or '×'}{power}"
    return f"{sign}{mantissa}×{power}"


def finite(values: Any) -> np.ndarray:
    """Returns the finite values as float64 [n]."""
    numbers = np.asarray(values, dtype="float64").ravel()
    return np.asarray(numbers[np.isfinite(numbers)])


def _lay_out(figure: Figure) -> None:
    """Once and for all: left to itself, matplotlib draws a figure twice for each file."""
    engine = figure.get_layout_engine()
    if engine is not None:
        engine.execute(figure)
        figure.set_layout_engine(None)


@cache
def _further_families() -> tuple[str, ...]:
    installed = {font.name for font in fontManager.ttflist}
    return tuple(name for name in _FURTHER_FAMILIES if name in installed)
