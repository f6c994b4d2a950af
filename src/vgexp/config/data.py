"""`data`: one dataclass for each data set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from vgexp.config.groups import Choice
from vgexp.config.ranges import at_least, within


@dataclass
class DataConfig(Choice, group="data"):
    """The base of every choice of `data`."""

    gives: ClassVar[str] = ""
    """The kind of its examples (`tasks.KINDS`); empty: it is known only when they are loaded."""
    batch_size: int = 64
    """Number of examples in a batch (in a micro-batch where `train.accumulate` is above 1)."""
    val_fraction: float = 0.15
    """Share of the examples that is held out for validation; the test gets as many."""

    def __post_init__(self) -> None:
        at_least("data.batch_size", self.batch_size, 1)
        within("data.val_fraction", self.val_fraction, 0.0, 0.5)


@dataclass
class DigitsConfig(DataConfig, choice="digits"):
    """1,797 handwritten digits of 8x8 grey pixels, bundled with scikit-learn."""

    gives: ClassVar[str] = "image"


@dataclass
class GaussianConfig(DataConfig, choice="gaussian"):
    """Inputs N(0, 1) with random labels: the input of signal-propagation theory."""

    gives: ClassVar[str] = "vector"
    num_examples: int = 4096
    """Number of examples that are generated, over all splits."""
    features: int = 64
    """Number of input features."""
    num_classes: int = 10
    """Number of classes of the random labels."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least("data.num_examples", self.num_examples, 2)
        at_least("data.features", self.features, 1)
        at_least("data.num_classes", self.num_classes, 2)


@dataclass
class SpiralsConfig(DataConfig, choice="spirals"):
    """Interleaved spiral arms in the plane; each arm is a class."""

    gives: ClassVar[str] = "vector"
    num_examples: int = 3000
    """Number of examples that are generated, over all splits."""
    num_classes: int = 3
    """Number of arms."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least("data.num_examples", self.num_examples, 2)
        at_least("data.num_classes", self.num_classes, 2)
