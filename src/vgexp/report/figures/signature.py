"""Names the run of a figure, small and grey at its foot."""

from __future__ import annotations

from matplotlib.figure import Figure

from vgexp import config
from vgexp.past import PastRun
from vgexp.report.figures import style

_GREY = "#777777"
_MOST_LETTERS = 90


@style.with_style
def sign(figure: Figure, run: PastRun) -> Figure:
    """Writes at the figure's lower right which run it is of."""
    words = style.label(signature(run))
    figure.supxlabel(words, x=0.99, ha="right", fontsize=7, color=_GREY)
    return figure


def signature(run: PastRun) -> str:
    """Names a run: its folder (a job's after its sweep's), model, depth and activation.

    The last three are left out as far as `config.yaml` does not tell them.
    """
    whole = run.folder.resolve()
    name = f"{whole.parent.name}/{whole.name}" if whole.name.isdecimal() else whole.name
    parts = []
    if run.config is not None:
        depth = getattr(run.config.model, "depth", None)
        activation = getattr(run.config.model, "activation", None)
        parts = [config.choices(run.config)["model"]]
        parts += [] if depth is None else [f"depth {depth}"]
        parts += [] if activation is None else [str(activation)]
    words = f"{name}: {', '.join(parts)}" if parts else name
    # Of what is too long the end tells more.
    return words if len(words) <= _MOST_LETTERS else f"...{words[3 - _MOST_LETTERS :]}"
