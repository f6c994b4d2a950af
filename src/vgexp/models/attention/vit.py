"""The vision transformer (Dosovitskiy 2021): a sequence of image patches, without a mask.

Axes of one example: C channels, R rows, S columns.
"""

from __future__ import annotations

import math

from vgexp.config import VitConfig
from vgexp.errors import QuestionError
from vgexp.models.attention.embeddings import ImageEmbedding, Learned
from vgexp.models.attention.stack import Stack, first, mean
from vgexp.models.families import make
from vgexp.tasks import Task, require_kind


@make.register
def build(config: VitConfig, task: Task) -> Stack:
    """Makes a vision transformer: patches of an image attend to each other.

    Raises:
        QuestionError: an unknown name, examples that are no images, a patch that does not divide
            them, or a norm or skip that blocks do not have.
    """
    require_kind(task, "model=vit", config.reads, "a data set of images")
    channels, rows, columns = task.shape
    if rows % config.patch or columns % config.patch:
        raise _indivisible(config.patch, rows, columns)
    has_token = config.pool == "class"
    num_positions = rows // config.patch * (columns // config.patch) + has_token
    embedding = ImageEmbedding(
        channels,
        config.width,
        config.patch,
        Learned(num_positions, config.width),
        bias=config.bias,
        token=has_token,
    )
    return Stack(config, embedding, task.num_outputs, first if has_token else mean, causal=False)


def _indivisible(patch: int, rows: int, columns: int) -> QuestionError:
    shorter = math.gcd(rows, columns)
    allowed = [size for size in range(1, shorter + 1) if shorter % size == 0]
    nearest = min(allowed, key=lambda size: (abs(size - patch), size))
    return QuestionError(
        f"model.patch is {patch} and the images are {rows} x {columns}\n"
        f"allowed: divisors of both sides: {', '.join(map(str, allowed))}\n"
        f"nearest: {nearest}"
    )
