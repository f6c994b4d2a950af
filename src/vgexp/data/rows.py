"""Images read over time.

Axes: N examples, C channels, H rows, W columns, T positions in time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor

from vgexp.config import DigitsConfig, RowsConfig
from vgexp.data import digits, images
from vgexp.data.examples import Examples, Pair
from vgexp.tasks import Task


def read(config: RowsConfig, seed: int) -> Examples:
    """Images read over time, from the upper left, then classified (Le 2015, section 4.2).

    `row`: T = H positions of C W pixels, channel by channel; `pixel`: T = H W positions of C.
    Standardised as the images are, each channel by a mean and a standard deviation.
    """
    found = _SOURCES[config.source](config, seed)
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


def _digits(config: RowsConfig, seed: int) -> Examples:
    return images.limited(digits.read(DigitsConfig(), seed), config.num_examples, seed)


_SOURCES: Mapping[str, Callable[[RowsConfig, int], Examples]] = {
    "digits": _digits,
    "mnist": images.mnist,
    "fashion_mnist": images.fashion_mnist,
    "cifar10": images.cifar10,
}

_CHANNEL_AXIS = 2


def _over_time(images_NCHW: Tensor, reading: str) -> Tensor:
    """[N, H, C, W] by rows, [N, H W, C] by pixels."""
    if reading == "row":
        return images_NCHW.transpose(1, 2)
    return images_NCHW.permute(0, 2, 3, 1).flatten(1, 2)
