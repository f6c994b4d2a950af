"""The marks that a console can show: colours, characters of growing height, or ASCII."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from rich.console import Console
from rich.text import Text

Ink = tuple[str, str]
"""A character and its style."""

_VIRIDIS = (
    *("#440154", "#482475", "#414487", "#355f8d", "#2a788e", "#21918c"),
    *("#22a884", "#44bf70", "#7ad151", "#bddf26", "#fde725"),
)
"""Even in lightness, so that it is read in grey and by the colour-blind (van der Walt, Smith)."""
BARS = "▁▂▃▄▅▆▇█"
# The same way through the colours of a terminal that has 256, where the nearest ones would be the
# same for neighbours; from dark to light as well.
_VIRIDIS_OF_256 = tuple(f"color({number})" for number in (53, 55, 25, 30, 36, 77, 148, 226))
_ASCII_LEVELS = ":-=+*#%@"
_PALETTES = {"256": _VIRIDIS_OF_256, "truecolor": _VIRIDIS}


@dataclass(frozen=True)
class Inks:
    """The marks of levels and of special values; each is one cell wide."""

    levels: Sequence[Ink]
    """From the least to the most."""
    bars: str
    """Characters by level, where a height is to be seen in every case."""
    zero: Ink = ("0", "")
    underflow: Ink = ("u", "")
    not_finite: Ink = ("!", "bold")
    not_measured: Ink = (".", "dim")
    range_line: str = "|"
    """From the least to the most of a column of a curve."""
    guess_line: str = "-"


def inks_for(console: Console) -> Inks:
    """Chooses colours where there are 256 or more, else heights, else ASCII characters."""
    if console.options.ascii_only:
        return Inks([(level, "") for level in _ASCII_LEVELS], _ASCII_LEVELS)
    heights = Inks(
        [(bar, "") for bar in BARS],
        BARS,
        not_measured=("·", "dim"),
        range_line="│",
        guess_line="┄",
    )
    palette = _PALETTES.get(console.color_system or "")
    if console.no_color or palette is None:
        return heights
    return replace(
        heights,
        levels=[(" ", f"on {colour}") for colour in palette],
        zero=("0", "white on black"),
        underflow=("u", "white on grey27"),
        not_finite=("!", "bold white on red3"),
    )


def make_text(inks: Sequence[Ink]) -> Text:
    """Joins inks into one line."""
    return Text.assemble(*inks)
