"""`data`: sequences over time, which are generated, or read from images or from a text."""

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
    """The adding problem: the answer is the sum of two marked values in a long sequence."""

    gives: ClassVar[str] = "sequence"
    seq_len: int = 50
    """Number of positions in time T."""
    num_examples: int = 5000
    """Number of examples that are generated, over all splits."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least("data.seq_len", self.seq_len, 2)
        at_least("data.num_examples", self.num_examples, 2)


@dataclass
class CopyConfig(DataConfig, choice="copy"):
    """The copy problem: the answer repeats the first symbols after a long delay."""

    gives: ClassVar[str] = "tokens"
    seq_len: int = 50
    """Number of positions from the last symbol to the first answer; the sequence is longer."""
    num_symbols: int = 8
    """Number of different symbols; a blank and a delimiter are two more tokens."""
    copy_len: int = 10
    """Number of symbols to repeat; an example has `data.seq_len` + 2 `data.copy_len` positions."""
    num_examples: int = 5000
    """Number of examples that are generated, over all splits."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least("data.seq_len", self.seq_len, 1)
        at_least("data.num_symbols", self.num_symbols, 2)
        at_least("data.copy_len", self.copy_len, 1)
        at_least("data.num_examples", self.num_examples, 2)


@dataclass
class RowsConfig(ImagesConfig, choice="rows"):
    """Images that the model reads row by row or pixel by pixel, and then classifies."""

    gives: ClassVar[str] = "sequence"
    source: str = "digits"
    """The set of images: `digits`, or one in files: `mnist`, `fashion_mnist`, `cifar10`."""
    reading: str = "row"
    """`row`: one row of pixels at each position; `pixel`: one pixel, from the upper left."""

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("data.source", self.source, _image_sets())
        one_of("data.reading", self.reading, READINGS)


@dataclass
class TextConfig(DataConfig, choice="text"):
    """Real text: the model predicts the next character at each position."""

    gives: ClassVar[str] = "tokens"
    path: Optional[str] = None
    """A text file in UTF-8; null: the English text of Python's own `help()`."""
    seq_len: int = 64
    """Number of positions in time T of an example, which is a piece of the text."""
    num_examples: Optional[int] = None
    """Number of pieces, from the beginning of the text, over all splits; null: all."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least("data.seq_len", self.seq_len, 1)
        at_least("data.num_examples", self.num_examples, 2)


def _image_sets() -> tuple[str, ...]:
    """The choices of `data` that give images."""
    return tuple(name for name, cls in CHOICES["data"].items() if cls.gives == "image")
