"""Shows the gradient of each layer at one step as a line of bars, while a run trains."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from vgexp.quantities import READOUT
from vgexp.records import Rows
from vgexp.report.terminal.inks import Ink, Inks, inks_for, make_text
from vgexp.report.terminal.layout import number
from vgexp.report.terminal.scale import Scale, log_scale

_WIDEST_BAR = 4


@dataclass(frozen=True)
class Profile:
    """`grad_norm` of the layers at a step, the read-out last; shown by rich at any width.

    That column and not delta_rms: it is what the heat map shows, every model has it, and
    `probe.every` alone says when it is measured.
    """

    step: int
    names: Sequence[str]
    """The layers' numbers, and `readout`."""
    norms: Sequence[float]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        inks, width = inks_for(console), options.max_width
        layers_a_bar = -(-len(self.norms) // width)
        bars = bands_of(self.norms, layers_a_bar)
        scale = log_scale(np.array(bars))
        yield Text(self._caption(scale, layers_a_bar))
        cells = min(_WIDEST_BAR, width // len(bars))
        inked = (_bar(value, scale, inks) for value in bars)
        yield make_text([(mark * cells, style) for mark, style in inked])

    @property
    def first(self) -> str:
        """The first layer and its norm, in a few words: that is where a lost signal shows."""
        hidden = "" if self.names[0] == READOUT else "layer "
        return f"{hidden}{self.names[0]} {number(self.norms[0], 2)}"

    def _caption(self, scale: Scale | None, layers_a_bar: int) -> str:
        """Says which layers and step are shown, and what the lowest and the highest bar are."""
        hidden = [name for name in self.names if name != READOUT]
        ends = list(dict.fromkeys(hidden[:1] + hidden[-1:]))
        parts = [f"layer{'s' * (len(ends) - 1)} {' to '.join(ends)}"] if ends else []
        layers = " and ".join(parts + [READOUT] * (READOUT in self.names))
        caption = f"gradient of {layers}, step {self.step}"
        if scale is not None:
            caption += f", log scale {number(scale.low, 2)} to {number(scale.high, 2)}"
        return caption + (f", a bar {layers_a_bar} layers" if layers_a_bar > 1 else "")


def profile_of(rows: Rows) -> Profile | None:
    """Makes the profile of the last step in rows of `layers`; None: it has no gradient.

    Weights side by side count by the first of them, those of a block by the norm of all, as in
    the heat map.
    """
    if "grad_norm" not in rows.columns:
        return None
    step = rows.columns["step"][-1]
    columns = rows[bisect_left(rows.columns["step"], step) :].columns
    norms: dict[str, list[float]] = {}
    blocks: set[str] = set()
    for layer, kind, norm in zip(
        columns["layer"], columns["kind"], columns["grad_norm"], strict=True
    ):
        name = READOUT if kind == READOUT else str(layer)
        if kind == "stream":
            blocks.add(name)
        if layer is not None and norm is not None:
            norms.setdefault(name, []).append(float(norm))
    names = sorted(norms, key=_order)
    values = [math.hypot(*norms[name]) if name in blocks else norms[name][0] for name in names]
    return Profile(int(step), names, values) if names else None


def bands_of(norms: Sequence[float], size: int) -> list[float]:
    """Takes the lower median of each `size` neighbours; nan where any is not finite."""
    parts = [sorted(norms[start : start + size]) for start in range(0, len(norms), size)]
    return [
        part[(len(part) - 1) // 2] if all(map(math.isfinite, part)) else math.nan for part in parts
    ]


def _order(name: str) -> float:
    return math.inf if name == READOUT else int(name)


def _bar(value: float, scale: Scale | None, inks: Inks) -> Ink:
    if not math.isfinite(value):
        return inks.not_finite
    if value == 0 or scale is None:
        return inks.zero
    return inks.bars[scale.level(value, len(inks.bars))], ""
