"""Describes what a model reads and answers: the form of one example and of its answer.

Axes of one example: F features, C channels, H rows, W columns, T positions in time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from vgexp.errors import QuestionError

KINDS = ("vector", "image", "sequence", "tokens")
"""`vector` [F], `image` [C, H, W], `sequence` [T, F], `tokens` [T] (int64)."""


@dataclass(frozen=True)
class Task:
    """The form of examples and answers; a batch has one more axis, in front."""

    kind: str
    """One of `KINDS`."""
    shape: tuple[int, ...]
    """The shape of one example's input."""
    num_outputs: int
    """How many numbers the model answers: a logit for each class, or values."""
    num_tokens: int = 0
    """How many different `tokens` there are."""
    per_position: bool = False
    """Whether there is an answer [num_outputs] at each position, and not one for the example."""
    positions_tell: bool = False
    """Whether a position alone tells its answer, as the blanks of the copy problem. Then the
    constant guess is the best one at each position, and otherwise one for all positions."""

    @property
    def num_features(self) -> int:
        """How many numbers one example's input has."""
        return math.prod(self.shape)

    @property
    def in_words(self) -> str:
        """The examples in words, for an error: `images of 1 x 8 x 8`."""
        size = " x ".join(map(str, self.shape))
        words = {"vector": "vectors", "image": "images", "sequence": "sequences"}
        return f"{words.get(self.kind, self.kind)} of {size}"

    def flattened(self) -> Task:
        """The task with each example as a vector of features."""
        return replace(self, kind="vector", shape=(self.num_features,))


def require_kind(task: Task, reader: str, kinds: Sequence[str], allowed: str) -> None:
    """Refuses examples of a kind that a model cannot read.

    Args:
        reader: the choice of the model: `model=cnn`.
        allowed: what to choose instead, in words.

    Raises:
        QuestionError: the examples are of another kind.
    """
    if task.kind not in kinds:
        raise QuestionError(
            f"{reader} reads {' or '.join(kinds)}; the data are {task.in_words}\nallowed: {allowed}"
        )
