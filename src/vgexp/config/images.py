"""`data`: sets of images in files, in the format of torchvision."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Optional

from vgexp.config.data import DataConfig
from vgexp.config.ranges import at_least


@dataclass
class ImagesConfig(DataConfig):
    """The base of every set of images in files."""

    gives: ClassVar[str] = "image"
    root: str = "data"
    """Folder that holds the files, in the subfolders that torchvision uses."""
    download: bool = False
    """Whether missing files are downloaded."""
    num_examples: Optional[int] = None
    """Number of examples drawn at random from the training files, and at most as many from the test
    files; null: all."""

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
