"""Loss and accuracy over a whole split."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from vgexp.data import Split
from vgexp.data.batches import full
from vgexp.records import Rows

EVAL_BATCH = 1024
"""Examples in one forward pass of an evaluation."""


def evaluated(model: nn.Module, name: str, split: Split, step: int, epoch: int) -> list[Rows]:
    """One row of `evals.csv`; none of a split without examples."""
    if not len(split):
        return []
    loss, accuracy = evaluate(model, split)
    columns: dict[str, list[Any]] = {
        "step": [step],
        "epoch": [epoch],
        "split": [name],
        "loss": [loss],
        "accuracy": [accuracy],
    }
    return [Rows("evals", columns)]


@torch.no_grad()
def evaluate(model: nn.Module, split: Split) -> tuple[Any, Any]:
    """Mean loss and accuracy over a split in evaluation mode, in the model's dtype.

    Batches of 1,024 are summed in the model's dtype, and their sums in float64. The split has
    examples.
    """
    model.eval()
    loss = torch.zeros((), dtype=torch.float64, device=split.targets.device)
    correct = torch.zeros_like(loss)
    dtype = split.inputs.dtype
    for x_BF, y_B in full(split, EVAL_BATCH):
        logits_BC = model(x_BF)
        loss += F.cross_entropy(logits_BC, y_B, reduction="sum").double()
        correct += (logits_BC.argmax(1) == y_B).sum()
    model.train()
    mean = (torch.stack([loss, correct]) / len(split)).to(dtype).cpu().numpy()
    return mean[0], mean[1]
