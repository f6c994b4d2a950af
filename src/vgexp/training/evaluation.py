"""Loss and accuracy over a whole split."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch

from vgexp import losses
from vgexp.data.batches import full
from vgexp.data.examples import AnySplit
from vgexp.records import Rows
from vgexp.training.state import TrainState

EVAL_BATCH = 1024
"""Examples in one forward pass of an evaluation."""


def evaluate_as_rows(state: TrainState, name: str, split: AnySplit) -> list[Rows]:
    """Makes one row of `evals.csv`; none for a split without examples."""
    if not len(split):
        return []
    loss, accuracy = evaluate(state, split)
    columns: dict[str, list[Any]] = {
        "step": [state.step],
        "epoch": [state.epoch],
        "split": [name],
        "loss": [loss],
        "accuracy": [accuracy],
    }
    return [Rows("evals", columns)]


@torch.no_grad()
def evaluate(state: TrainState, split: AnySplit) -> tuple[Any, Any]:
    """Computes mean loss and accuracy over a split in evaluation mode, in the parameters' dtype.

    Batches of 1,024 are averaged in float64; the accuracy is None where no answer counts as right.
    The split has examples.
    """
    model, loss_of = state.model, state.loss
    context = nullcontext() if state.half is None else state.half.context
    dtype = next(model.parameters()).dtype
    sums = torch.zeros(2, dtype=torch.float64, device=split.targets.device)
    total = 0
    model.eval()
    for x, y in full(split, EVAL_BATCH):
        with context:
            outputs = model(x)
            loss = loss_of.mean(outputs, y)
        num_targets = losses.num_targets(outputs)
        sums[0] += loss.double() * num_targets
        if loss_of.hits is not None:
            sums[1] += loss_of.hits(outputs, y)
        total += num_targets
    model.train()
    mean_loss, accuracy = (sums / total).to(dtype).cpu().numpy()
    return mean_loss, None if loss_of.hits is None else accuracy
