"""`data`: images in files that torchvision reads, and can fetch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Optional

from vgexp.config.data import DataConfig
from vgexp.config.ranges import at_least


@dataclass
class ImagesConfig(DataConfig):
    """What every set of images in files extends."""

    gives: ClassVar[str] = "image"
    root: str = "data"
    """Folder below which torchvision's own folders of the files are."""
    download: bool = False
    """Whether files that are missing are fetched from the network."""
    num_examples: Optional[int] = None
    """Examples drawn at random, from those for training and from the test's; null: all."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least("data.num_examples", self.num_examples, 2)


@dataclass
class MnistConfig(ImagesConfig, choice="mnist"):
    """70,000 handwritten digits of 28x28 grey pixels, 10,000 of them for the test."""


@dataclass
class FashionMnistConfig(ImagesConfig, choice="fashion_mnist"):
    """70,000 pieces of clothing of 28x28 grey pixels, 10,000 of them for the test."""


@dataclass
class Cifar10Config(ImagesConfig, choice="cifar10"):
    """60,000 photographs of 32x32 coloured pixels, 10,000 of them for the test."""
