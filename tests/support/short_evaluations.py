"""Evaluations of a few examples, for tests that ask nothing of the losses of whole splits."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import pytest
from torch import Tensor

from vgexp.data.batches import full
from vgexp.data.examples import AnySplit
from vgexp.training import evaluation

NUM_EXAMPLES = 16


def evaluate_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has an evaluation read the first examples of a split alone."""

    def first(split: AnySplit, _batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        return islice(full(split, NUM_EXAMPLES), 1)

    monkeypatch.setattr(evaluation, "full", first)
