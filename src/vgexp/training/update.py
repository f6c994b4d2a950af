"""One update, as the textbook has it: forward, backward, clip, step."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vgexp import metrics
from vgexp.clips import Clipped
from vgexp.training.state import TrainState

Batch = list[tuple[Tensor, Tensor]]
"""The micro-batches of one update: inputs [B, F] and targets [B]."""


def forward_backward(state: TrainState, batch: Batch) -> tuple[Tensor, Tensor]:
    """Mean loss and number of right answers over the update; gradients are in `p.grad`."""
    state.optimizer.zero_grad(set_to_none=True)
    losses, hits = [], []
    for x_BF, y_B in batch:
        logits_BC = state.model(x_BF)
        loss = F.cross_entropy(logits_BC, y_B)
        if len(batch) > 1:
            loss = loss / len(batch)
        loss.backward()  # type: ignore[no-untyped-call]
        losses.append(loss.detach())
        hits.append((logits_BC.detach().argmax(1) == y_B).sum())
    if len(batch) == 1:
        return losses[0], hits[0]
    return torch.stack(losses).sum(), torch.stack(hits).sum()


def forward_backward_again(state: TrainState, batch: Batch) -> None:
    """The same once more, to be looked at: buffers (running statistics) move only once."""
    kept = [buffer.clone() for buffer in state.model.buffers()]
    forward_backward(state, batch)
    for buffer, before in zip(state.model.buffers(), kept, strict=True):
        buffer.copy_(before)


def gradient_norm(parameters: list[nn.Parameter]) -> Tensor:
    """L2 norm over all gradients, 0-d float64."""
    return metrics.total_norm([p.grad for p in parameters if p.grad is not None])


def clip_gradients(state: TrainState, parameters: list[nn.Parameter]) -> Clipped:
    """Clips in place, for an update of which nobody asks the norm before."""
    return state.clip(parameters, gradient_norm(parameters))


def take_step(state: TrainState) -> None:
    """The optimizer's step, and everything that counts it."""
    state.optimizer.step()
    state.schedule.after_step()
    state.step += 1
