"""`data`: one dataclass a data set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from vgexp.config.groups import Choice
from vgexp.config.ranges import at_least, within


@dataclass
class DataConfig(Choice, group="data"):
    """What every choice of `data` extends."""

    gives: ClassVar[str] = ""
    """The kind of its examples (`tasks.KINDS`); empty: known only once they are loaded."""
    batch_size: int = 64
    """Examples in one batch (a micro-batch where `train.accumulate` is above 1)."""
    val_fraction: float = 0.15
    """Share of the examples held out for validation; as many again are held out for the test."""

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
    """Examples generated, over all splits."""
    features: int = 64
    """Input features."""
    num_classes: int = 10
    """Classes of the random labels."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least("data.num_examples", self.num_examples, 2)
        at_least("data.features", self.features, 1)
        at_least("data.num_classes", self.num_classes, 2)


@dataclass
class SpiralsConfig(DataConfig, choice="spirals"):
    """Interleaved spiral arms in the plane, one class an arm."""

    gives: ClassVar[str] = "vector"
    num_examples: int = 3000
    """Examples generated, over all splits."""
    num_classes: int = 3
    """Arms."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least("data.num_examples", self.num_examples, 2)
        at_least("data.num_classes", self.num_classes, 2)
