"""What a model is given and asked for: the form of one example, and of the answer to it.

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
    """The form of examples and answers; a batch has one axis more, in front."""

    kind: str
    """One of `KINDS`."""
    shape: tuple[int, ...]
    """Of one example's input."""
    num_outputs: int
    """Numbers that the model gives as an answer: a logit a class, or values."""
    num_tokens: int = 0
    """Of `tokens`: how many different ones there are."""
    per_position: bool = False
    """Whether an answer [num_outputs] is asked for at each position, not one for the example."""
    positions_tell: bool = False
    """Whether a position alone tells of its answer, as where the copy problem asks for blanks: the
    constant guess is then the best at each position, else one for all."""

    @property
    def num_features(self) -> int:
        """Numbers of one example's input."""
        return math.prod(self.shape)

    @property
    def in_words(self) -> str:
        """`images of 1 x 8 x 8`, for an error."""
        size = " x ".join(map(str, self.shape))
        words = {"vector": "vectors", "image": "images", "sequence": "sequences"}
        return f"{words.get(self.kind, self.kind)} of {size}"

    def flattened(self) -> Task:
        """The same as a vector of features."""
        return replace(self, kind="vector", shape=(self.num_features,))


def require_kind(task: Task, reader: str, kinds: Sequence[str], allowed: str) -> None:
    """Requires examples of a kind that a model reads.

    Args:
        reader: the model, as it was chosen: `model=cnn`.
        allowed: what to choose instead, in words.

    Raises:
        QuestionError: the examples are of another kind.
    """
    if task.kind not in kinds:
        raise QuestionError(
            f"{reader} reads {' or '.join(kinds)}; the data are {task.in_words}\nallowed: {allowed}"
        )
