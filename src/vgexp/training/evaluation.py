"""Loss and accuracy over a whole split."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from vgexp import losses
from vgexp.data import Split
from vgexp.data.batches import full
from vgexp.losses import Loss
from vgexp.records import Rows

EVAL_BATCH = 1024
"""Examples in one forward pass of an evaluation."""


def evaluated(
    model: nn.Module, loss_of: Loss, name: str, split: Split, step: int, epoch: int
) -> list[Rows]:
    """One row of `evals.csv`; none of a split without examples."""
    if not len(split):
        return []
    loss, accuracy = evaluate(model, loss_of, split)
    columns: dict[str, list[Any]] = {
        "step": [step],
        "epoch": [epoch],
        "split": [name],
        "loss": [loss],
        "accuracy": [accuracy],
    }
    return [Rows("evals", columns)]


@torch.no_grad()
def evaluate(model: nn.Module, loss_of: Loss, split: Split) -> tuple[Any, Any]:
    """Mean loss and accuracy over a split in evaluation mode, in the model's dtype.

    The means of batches of 1,024 are weighed in float64; the accuracy is None where right is not
    defined. The split has examples.
    """
    dtype = next(model.parameters()).dtype
    sums = torch.zeros(2, dtype=torch.float64, device=split.targets.device)
    total = 0
    model.eval()
    for x, y in full(split, EVAL_BATCH):
        outputs = model(x)
        num_targets = losses.num_targets(outputs)
        sums[0] += loss_of.mean(outputs, y).double() * num_targets
        if loss_of.hits is not None:
            sums[1] += loss_of.hits(outputs, y)
        total += num_targets
    model.train()
    loss, accuracy = (sums / total).to(dtype).cpu().numpy()
    return loss, None if loss_of.hits is None else accuracy
