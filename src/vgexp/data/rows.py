"""Images read over time.

Axes: N examples, C channels, H rows, W columns, T positions in time.
"""

from __future__ import annotations

from typing import cast

from torch import Tensor

from vgexp.config import CHOICES, ImagesConfig, RowsConfig
from vgexp.data import images, sources
from vgexp.data.examples import Examples, Pair
from vgexp.tasks import Task


@sources.read.register
def read(config: RowsConfig, seed: int) -> Examples:
    """Images read over time, from the upper left, then classified (Le 2015, section 4.2).

    `row`: T = H positions of C W pixels, channel by channel; `pixel`: T = H W positions of C.
    Standardised as the images are, each channel by a mean and a standard deviation.
    """
    found = _images(config, seed)
    channels, height, width = found.task.shape
    shapes = {"row": (height, channels * width), "pixel": (height * width, channels)}
    task = Task("sequence", shapes[config.reading], found.task.num_outputs)

    def over_time(split: Pair) -> Pair:
        return _over_time(split[0], config.reading), split[1]

    return Examples(
        _over_time(found.inputs, config.reading),
        found.targets,
        task,
        test=None if found.test is None else over_time(found.test),
        channel_axis=_CHANNEL_AXIS,
    )


_CHANNEL_AXIS = 2


def _images(config: RowsConfig, seed: int) -> Examples:
    """The images of the set that is named, as that set has them."""
    cls = CHOICES["data"][config.source]
    in_files = issubclass(cls, ImagesConfig)
    source = cls(root=config.root, download=config.download) if in_files else cls()
    return images.limited(cast(Examples, sources.read(source, seed)), config.num_examples, seed)


def _over_time(images_NCHW: Tensor, reading: str) -> Tensor:
    """[N, H, C, W] by rows, [N, H W, C] by pixels."""
    if reading == "row":
        return images_NCHW.transpose(1, 2)
    return images_NCHW.permute(0, 2, 3, 1).flatten(1, 2)
