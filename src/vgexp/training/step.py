"""One update, as the textbook has it: forward, backward, clip, add noise, step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vgexp import losses as losses_of
from vgexp import metrics
from vgexp.data.batches import Batch
from vgexp.probe import Probe
from vgexp.training.history import Step
from vgexp.training.state import TrainState

Check = Callable[[Batch, Tensor, Tensor], bool]
"""Given the batch, its loss and the norm of its gradient, says whether the optimizer takes the
step."""


def one_step(
    state: TrainState,
    batch: Batch,
    probe: Probe | None = None,
    *,
    check: Check | None = None,
    record: Callable[[Step], None] | None = None,
) -> None:
    """Makes one update.

    Args:
        probe: measures it, inside a `with`.
        check: decides whether the optimizer takes the step; None: it does.
        record: is given the numbers of `steps.csv`, before the optimizer takes the step.
    """
    passes = forward_backward(state, batch)
    norm = gradient_norm(state)
    if state.half is not None:
        state.half.count(norm)
    is_taken = check is None or check(batch, passes.loss, norm)
    if probe is not None and state.changes_gradients:
        probe.before_clip()
    clipped = state.clip(state.parameters, norm)
    final_norm = clipped.norm if state.noise is None else state.noise(state.parameters, state.step)
    if record is not None:
        record(_numbers_of(state, passes, (passes.loss, norm, final_norm, clipped.changed)))
    if is_taken:
        take_step(state)
    elif probe is not None:
        probe.end_step_without_update(None if state.half is None else state.half.loss_scale)


@dataclass(frozen=True)
class Passes:
    """What the passes of an update gave, as tensors that may still be on the device."""

    loss: Tensor
    """Mean over the update's examples, 0-d."""
    hits: Tensor | None
    """Right answers, 0-d; None where right is not defined."""
    num_targets: int


def forward_backward(state: TrainState, batch: Batch) -> Passes:
    """Makes the forward and backward passes of an update; the gradients are in `p.grad`."""
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
        (loss if half is None else half.scale(loss)).backward()  # type: ignore[no-untyped-call]
        losses.append(loss.detach())
        num_targets += losses_of.num_targets(outputs)
        if loss_of.hits is not None:
            hits.append(loss_of.hits(outputs.detach(), y))
    if state.may_be_sparse:
        _make_dense(state.model)
    if half is not None:
        half.unscale()
    return Passes(_sum(losses), _sum(hits) if hits else None, num_targets)


def repeat_passes(state: TrainState, batch: Batch, drawn_before: Sequence[Tensor]) -> None:
    """Makes the passes of an update again; buffers (running statistics) stay as they are.

    Args:
        drawn_before: the state of the model's random stream before the first passes; empty: the
            model draws nothing.
    """
    kept = [buffer.clone() for buffer in state.model.buffers()]
    if drawn_before:
        state.stream.load_state_dict(list(drawn_before))
    if state.half is not None:
        state.half.begin_again()
    forward_backward(state, batch)
    for buffer, value in zip(state.model.buffers(), kept, strict=True):
        buffer.copy_(value)


def gradient_norm(state: TrainState) -> Tensor:
    """L2 norm over all gradients, 0-d float64."""
    return metrics.total_norm([p.grad for p in state.parameters if p.grad is not None])


def take_step(state: TrainState) -> None:
    """Has the optimizer take the step, and counts it."""
    if state.half is None:
        state.optimizer.step()
    else:
        state.half.step()
    state.schedule.after_step()
    state.step += 1


def num_examples(batch: Batch) -> int:
    """N of an update."""
    return sum(len(y) for _, y in batch)


def _numbers_of(
    state: TrainState, passes: Passes, values: tuple[Tensor, Tensor, Tensor, Tensor]
) -> Step:
    return Step(
        step=state.step,
        epoch=state.epoch,
        lr=state.optimizer.param_groups[0]["lr"],
        num_targets=passes.num_targets,
        hits=passes.hits,
        values=values,
        scaling=None if state.half is None else state.half.scaling,
    )


def _make_dense(model: nn.Module) -> None:
    """Writes sparse gradients out: rows that they lack count as zeros when measured or clipped."""
    for p in model.parameters():
        if p.grad is not None and p.grad.layout is not torch.strided:
            p.grad = p.grad.to_dense()


def _sum(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.stack(parts).sum()
