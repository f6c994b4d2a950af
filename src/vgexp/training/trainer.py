"""Trains a classifier with a probe attached, and yields the rows of its tables as they come."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vgexp import metrics
from vgexp.clips import Clipped
from vgexp.config import ProbeConfig, TrainConfig
from vgexp.data import Dataset, Split
from vgexp.data.batches import full
from vgexp.probe import Probe
from vgexp.records import Rows
from vgexp.training.divergence import layer_of_divergence
from vgexp.training.history import Clock, History, Step
from vgexp.training.state import TrainState
from vgexp.watch import Watch

EVAL_BATCH = 1024
"""Examples in one forward pass of an evaluation."""

Batch = list[tuple[Tensor, Tensor]]
"""The micro-batches of one update: inputs and targets."""


class Trainer:
    """One training run. Iterate over `rows()`; whatever ends the iteration, `flush()` has the rest.

    On CPU a step is checked for divergence before the optimizer takes it. On CUDA (`deferred`)
    looking would wait for the device, so it is checked at a flush: rows after the first non-finite
    step are dropped, and that step is done again from the state of the flush before.
    """

    def __init__(
        self,
        state: TrainState,
        dataset: Dataset,
        watches: list[Watch],
        train: TrainConfig,
        probe: ProbeConfig,
        num_steps: int,
        *,
        deferred: bool,
    ) -> None:
        self.state = state
        self.clock = Clock()
        self.divergence: str | None = None
        """Where and when the run first became non-finite, in words."""
        self.num_steps = num_steps
        self._dataset = dataset
        self._watches = watches
        self._train, self._probe_config = train, probe
        self._deferred = deferred
        self._parameters = [p for p in state.model.parameters() if p.requires_grad]
        dtype = self._parameters[0].dtype
        self._history = History(dtype, deferred)
        self._layers: list[Rows] = []
        self._probe: Probe | None = None
        self._snapshot: dict[str, Any] | None = None

    # ------------------------------------------------------------ the run

    def rows(self) -> Iterator[Rows]:
        """Trains to the end or to divergence."""
        state, train = self.state, self._train
        self.clock = Clock()
        if state.step == 0:
            yield self._evaluate("train", self._dataset.train)
            yield self._evaluate("val", self._dataset.val)
        if self._deferred:
            self._snapshot = copied(state.state_dict())
        with self._new_probe() as self._probe:
            while state.step < self.num_steps:
                if state.step == self.num_steps - 1:
                    self._probe.want_step()
                self._timed_step(self._probe)
                ended = state.step == self.num_steps
                evaluate = train.eval_every > 0 and state.step % train.eval_every == 0
                if self._history.due or ended or evaluate or self._stopping:
                    yield from self.flush()
                if self._stopping:
                    return
                if ended or evaluate:
                    yield self._evaluate("train", self._dataset.train)
                    val = self._evaluate("val", self._dataset.val)
                    yield val
                    if len(self._dataset.val):
                        state.schedule.after_eval(float(val.columns["loss"][0]))
        if len(self._dataset.test) and self.divergence is None:
            yield self._evaluate("test", self._dataset.test)

    def flush(self) -> list[Rows]:
        """What was measured since the last flush; on CUDA this waits for the device."""
        if self._probe is not None:
            self._layers += self._probe.drain()
        layers, self._layers = self._layers, []
        drained = self._history.drain()
        if drained is None:
            return layers
        steps, first_bad = drained
        if self._deferred and self.divergence is None:
            if first_bad is None:
                self._snapshot = copied(self.state.state_dict())
            else:
                steps, layers = self._cut_at_divergence(first_bad, steps, layers)
        return [*layers, steps, self.clock.row(self.state.step)]

    # ------------------------------------------------------------ what a summary asks

    @property
    def constant_loss(self) -> float:
        """The best loss of a prediction that ignores the input."""
        return self._dataset.constant_loss

    @property
    def num_parameters(self) -> int:
        """Trainable numbers of the model."""
        return sum(p.numel() for p in self._parameters)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self._parameters[0].device

    @property
    def unseen(self) -> list[str]:
        """What the probe could not measure."""
        return [] if self._probe is None else self._probe.unseen

    # ------------------------------------------------------------ one step

    def _timed_step(self, probe: Probe) -> None:
        start, measured = time.perf_counter(), probe.measuring
        batch = [self.state.batches.next() for _ in range(self._train.accumulate)]
        self._step(probe, batch)
        examples = sum(len(y) for _, y in batch)
        self.clock.step_done(time.perf_counter() - start, examples, measured)

    def _step(self, probe: Probe, batch: Batch) -> None:
        """One update: forward, backward, clip, step."""
        state = self.state
        loss, correct = self._forward_backward(batch)
        norm = metrics.total_norm([p.grad for p in self._parameters if p.grad is not None])
        diverged = self._diverged(loss, norm)
        if diverged and not probe.measuring_all:
            probe.want_step()
            self._forward_backward(batch)
        probe.before_clip()
        clipped = state.clip(self._parameters, norm)
        self._record(batch, loss, correct, norm, clipped)
        if diverged and self._train.stop_on_divergence:
            probe.end_step_without_update()
        else:
            state.optimizer.step()
            state.schedule.after_step()
            state.step += 1
        if diverged:
            self._layers += probe.drain()
            self._name_divergence(self._layers[-1])

    def _forward_backward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Mean loss and number of right answers over the update; gradients are in `p.grad`."""
        self.state.optimizer.zero_grad(set_to_none=True)
        losses, hits = [], []
        for x_BF, y_B in batch:
            logits_BC = self.state.model(x_BF)
            loss = F.cross_entropy(logits_BC, y_B) / len(batch)
            loss.backward()  # type: ignore[no-untyped-call]
            losses.append(loss.detach())
            hits.append((logits_BC.detach().argmax(1) == y_B).sum())
        if len(batch) == 1:
            return losses[0], hits[0]
        return torch.stack(losses).sum(), torch.stack(hits).sum()

    def _record(
        self, batch: Batch, loss: Tensor, correct: Tensor, norm: Tensor, clipped: Clipped
    ) -> None:
        state = self.state
        self._history.add(
            Step(
                step=state.step,
                epoch=state.step * self._train.accumulate // state.batches.per_epoch,
                lr=state.optimizer.param_groups[0]["lr"],
                examples=sum(len(y) for _, y in batch),
                values=(loss, correct, norm, clipped.norm, clipped.changed),
            )
        )

    def _evaluate(self, name: str, split: Split) -> Rows:
        loss, accuracy = evaluate(self.state.model, split)
        columns: dict[str, list[Any]] = {
            "step": [self.state.step],
            "epoch": [self.state.step * self._train.accumulate // self.state.batches.per_epoch],
            "split": [name],
            "loss": [loss],
            "accuracy": [accuracy],
        }
        return Rows("evals", columns)

    # ------------------------------------------------------------ divergence

    @property
    def _stopping(self) -> bool:
        return self.divergence is not None and self._train.stop_on_divergence

    def _diverged(self, loss: Tensor, norm: Tensor) -> bool:
        if self._deferred or self.divergence is not None:
            return False
        return not (math.isfinite(float(loss)) and math.isfinite(float(norm)))

    def _name_divergence(self, rows: Rows) -> None:
        self.divergence = f"step {rows.columns['step'][0]}: {layer_of_divergence(rows)}"

    def _cut_at_divergence(
        self, step: int, steps: Rows, layers: list[Rows]
    ) -> tuple[Rows, list[Rows]]:
        """On CUDA: measures the first non-finite step again, and drops what came after it."""
        again = self._measured_again(step)
        self._name_divergence(again)
        if not self._train.stop_on_divergence:
            return steps, layers
        end = list(steps.columns["step"]).index(step) + 1
        cut = {name: values[:end] for name, values in steps.columns.items()}
        return Rows("steps", cut), [r for r in layers if r.columns["step"][0] < step] + [again]

    def _measured_again(self, step: int) -> Rows:
        """The rows of `layers.csv` for `step`, reached again from the last flush's state.

        The run goes on from where it was where it is not to stop.
        """
        state, before = self.state, copied(self.state.state_dict())
        assert self._snapshot is not None
        state.load_state_dict(self._snapshot)
        while state.step < step:
            self._forward_backward([state.batches.next() for _ in range(self._train.accumulate)])
            grads = [p.grad for p in self._parameters if p.grad is not None]
            state.clip(self._parameters, metrics.total_norm(grads))
            state.optimizer.step()
            state.schedule.after_step()
            state.step += 1
        with self._new_probe() as probe:
            probe.want_step()
            self._forward_backward([state.batches.next() for _ in range(self._train.accumulate)])
            probe.end_step_without_update()
            rows = probe.drain()[-1]
        if not self._train.stop_on_divergence:
            state.load_state_dict(before)
        return rows

    def _new_probe(self) -> Probe:
        probe = Probe(
            self.state.model,
            self.state.optimizer,
            every=self._probe_config.every,
            activations_every=self._probe_config.activations_every,
            layers=self._probe_config.layers,
            watches=self._watches,
        )
        probe.step = self.state.step
        return probe


@torch.no_grad()
def evaluate(model: nn.Module, split: Split) -> tuple[Any, Any]:
    """Mean loss and accuracy over a split in evaluation mode, in the model's dtype.

    None for both where the split is empty. Sums are taken in float64.
    """
    if not len(split):
        return None, None
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


def copied(state: dict[str, Any]) -> dict[str, Any]:
    """A state whose tensors later steps do not change."""
    return copy.deepcopy(state)
