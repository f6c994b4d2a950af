"""One update, as the textbook has it: forward, backward, clip, step."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vgexp import losses as losses_of
from vgexp import metrics
from vgexp.clips import Clipped
from vgexp.data.batches import Batch
from vgexp.training.state import TrainState


@dataclass(frozen=True)
class Outcome:
    """What the passes of an update gave, as tensors that may still be on the device."""

    loss: Tensor
    """Mean over the update's examples, 0-d."""
    hits: Tensor | None
    """Right answers, 0-d; None where right is not defined."""
    num_targets: int


def forward_backward(state: TrainState, batch: Batch) -> Outcome:
    """The passes of an update; gradients are in `p.grad`."""
    state.optimizer.zero_grad(set_to_none=True)
    loss_of, half = state.loss, state.half
    losses, hits, num_targets = [], [], 0
    for x, y in batch:
        if half is None:
            outputs = state.model(x)
            loss = loss_of.mean(outputs, y)
        else:
            with half.context:
                outputs = state.model(x)
                loss = loss_of.mean(outputs, y)
        if len(batch) > 1:
            loss = loss / len(batch)
        (loss if half is None else half.scaled(loss)).backward()  # type: ignore[no-untyped-call]
        losses.append(loss.detach())
        num_targets += losses_of.num_targets(outputs)
        if loss_of.hits is not None:
            hits.append(loss_of.hits(outputs.detach(), y))
    if state.may_be_sparse:
        _make_dense(state.model)
    if half is not None:
        half.unscale()
    return Outcome(_sum(losses), _sum(hits) if hits else None, num_targets)


def _make_dense(model: nn.Module) -> None:
    """Writes sparse gradients out: rows that they lack are zeros to whoever measures or clips."""
    for p in model.parameters():
        if p.grad is not None and p.grad.layout is not torch.strided:
            p.grad = p.grad.to_dense()


def num_examples(batch: Batch) -> int:
    """N of an update."""
    return sum(len(y) for _, y in batch)


def forward_backward_again(state: TrainState, batch: Batch, before: Sequence[Tensor]) -> None:
    """The same once more, to be looked at: buffers (running statistics) move only once.

    Args:
        before: where the stream stood before the passes; empty: the model draws nothing.
    """
    kept = [buffer.clone() for buffer in state.model.buffers()]
    if before:
        state.stream.load_state_dict(list(before))
    if state.half is not None:
        state.half.begin_again()
    forward_backward(state, batch)
    for buffer, value in zip(state.model.buffers(), kept, strict=True):
        buffer.copy_(value)


def _sum(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.stack(parts).sum()


def gradient_norm(parameters: list[nn.Parameter]) -> Tensor:
    """L2 norm over all gradients, 0-d float64."""
    return metrics.total_norm([p.grad for p in parameters if p.grad is not None])


def shape_gradients(state: TrainState, parameters: list[nn.Parameter], norm: Tensor) -> Clipped:
    """Clips in place, then adds noise: what the optimizer gets. `norm` is that before."""
    clipped = state.clip(parameters, norm)
    if state.noise is None:
        return clipped
    return dataclasses.replace(clipped, norm=state.noise(parameters, state.step))


def shape_gradients_unasked(state: TrainState, parameters: list[nn.Parameter]) -> Clipped:
    """The same, for an update of which nobody asks the norm before."""
    norm = gradient_norm(parameters)
    if state.half is not None:
        state.half.count(norm)
    return shape_gradients(state, parameters, norm)


def take_step(state: TrainState) -> None:
    """The optimizer's step, and everything that counts it."""
    if state.half is None:
        state.optimizer.step()
    else:
        state.half.step()
    state.schedule.after_step()
    state.step += 1
