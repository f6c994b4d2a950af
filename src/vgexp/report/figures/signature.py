"""Which run a figure is of, small and grey at its foot."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from matplotlib.figure import Figure

from vgexp import config, tables
from vgexp.errors import QuestionError
from vgexp.report.figures import style

_GREY = "#777777"
_MOST_LETTERS = 90


def signature(folder: Path) -> str:
    """The folder's name (a job's after its sweep's), then model, depth and activation as far as
    `config.yaml` tells them."""
    whole = folder.resolve()
    name = f"{whole.parent.name}/{whole.name}" if whole.name.isdecimal() else whole.name
    parts = []
    with suppress(QuestionError):
        asked = tables.read_config(folder)
        depth = getattr(asked.model, "depth", None)
        activation = getattr(asked.model, "activation", None)
        parts = [config.choices(asked)["model"]]
        parts += [] if depth is None else [f"depth {depth}"]
        parts += [] if activation is None else [str(activation)]
    words = f"{name}: {', '.join(parts)}" if parts else name
    # Of what is too long the end tells more.
    return words if len(words) <= _MOST_LETTERS else f"...{words[3 - _MOST_LETTERS :]}"


@style.drawn
def signed(figure: Figure, words: str) -> Figure:
    """The figure with words at its lower right."""
    figure.supxlabel(style.label(words), x=0.99, ha="right", fontsize=7, color=_GREY)
    return figure
