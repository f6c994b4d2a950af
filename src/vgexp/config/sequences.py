"""`data`: sequences. Values and tokens over time, drawn, read off images, or of a text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Optional

from vgexp.config.data import DataConfig
from vgexp.config.groups import CHOICES
from vgexp.config.images import ImagesConfig
from vgexp.config.ranges import at_least, one_of

READINGS = ("row", "pixel")


@dataclass
class AddingConfig(DataConfig, choice="adding"):
    """Two marked values in a long sequence are to be added: memory over time, as regression."""

    gives: ClassVar[str] = "sequence"
    seq_len: int = 50
    """Positions in time T."""
    num_examples: int = 5000
    """Examples generated, over all splits."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least("data.seq_len", self.seq_len, 2)
        at_least("data.num_examples", self.num_examples, 2)


@dataclass
class CopyConfig(DataConfig, choice="copy"):
    """Symbols are to be repeated after a delay: memory over time, as classification."""

    gives: ClassVar[str] = "tokens"
    seq_len: int = 50
    """Delay in positions, from the last symbol to the first answer; the whole is longer."""
    num_symbols: int = 8
    """Different symbols; a blank and a delimiter are two more tokens."""
    copy_len: int = 10
    """Symbols to repeat; an example has `data.seq_len` + 2 `data.copy_len` positions."""
    num_examples: int = 5000
    """Examples generated, over all splits."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least("data.seq_len", self.seq_len, 1)
        at_least("data.num_symbols", self.num_symbols, 2)
        at_least("data.copy_len", self.copy_len, 1)
        at_least("data.num_examples", self.num_examples, 2)


@dataclass
class RowsConfig(ImagesConfig, choice="rows"):
    """Images read over time, row by row or pixel by pixel, then classified."""

    gives: ClassVar[str] = "sequence"
    source: str = "digits"
    """The images: `digits`, `mnist`, `fashion_mnist`, `cifar10`; all but the first are in files."""
    reading: str = "row"
    """`row`: a row of pixels at each position; `pixel`: one pixel, in the order of reading."""

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("data.source", self.source, _image_sets())
        one_of("data.reading", self.reading, READINGS)


@dataclass
class TextConfig(DataConfig, choice="text"):
    """Real text: the next character is to be foretold at each position."""

    gives: ClassVar[str] = "tokens"
    path: Optional[str] = None
    """A text file in UTF-8; null: the English that comes with Python, of its `help()`."""
    seq_len: int = 64
    """Positions in time T of an example, a piece of the text."""
    num_examples: Optional[int] = None
    """Pieces taken from the text's beginning, over all splits; null: all."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least("data.seq_len", self.seq_len, 1)
        at_least("data.num_examples", self.num_examples, 2)


def _image_sets() -> tuple[str, ...]:
    """The choices of `data` that give images."""
    return tuple(name for name, cls in CHOICES["data"].items() if cls.gives == "image")
