"""Trains a classifier with a probe attached, and yields the rows of its tables as they come."""

from __future__ import annotations

import copy
import math
import time
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from vgexp.clips import Clipped
from vgexp.config import ProbeConfig, TrainConfig
from vgexp.data import Dataset
from vgexp.data.batches import Batch
from vgexp.data.examples import AnySplit
from vgexp.probe import Probe
from vgexp.quantities import COMMON
from vgexp.records import Rows
from vgexp.tasks import Task
from vgexp.torch_internals import DROPOUTS
from vgexp.training import update
from vgexp.training.divergence import around, last_step, layer_of_divergence
from vgexp.training.evaluation import evaluated
from vgexp.training.half import SKIPS_IN_A_ROW
from vgexp.training.history import Clock, History, Step
from vgexp.training.pretraining import Pretraining
from vgexp.training.saving import Saving
from vgexp.training.state import TrainState
from vgexp.training.update import Outcome
from vgexp.watch import Meter, Watch

_TENSORS = 3
"""A checkpoint holds a parameter and at most two states of the optimizer for it."""


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
        watches: list[Watch] | None,
        train: TrainConfig,
        probe: ProbeConfig,
        num_steps: int,
        *,
        deferred: bool,
        meters: Sequence[Meter] = (),
        pretraining: Pretraining | None = None,
        checkpoint_every: int | None = 0,
    ) -> None:
        self.state = state
        self.clock = Clock()
        self.save: Callable[[], None] = _nothing
        """Called between steps where a run can go on from, once every row before was handed on."""
        self.divergence: str | None = None
        """Where and when the run first became non-finite, in words."""
        self.num_steps = num_steps
        self._dataset = dataset
        self._watches, self._meters = watches, meters
        self._pretraining = pretraining
        # Of a model that does not say where to look, nobody knows what it draws either.
        self._draws = watches is None or any(isinstance(m, DROPOUTS) for m in state.model.modules())
        self._train, self._probe_config = train, probe
        self._deferred = deferred
        self._handed_on = False
        self._seconds_before = 0.0
        self._parameters = [p for p in state.model.parameters() if p.requires_grad]
        self._saving = Saving(checkpoint_every, _TENSORS * _num_bytes(self._parameters))
        self._history = History(self._parameters[0].dtype, deferred)
        self._layers: list[Rows] = []
        self._probe = self._new_probe()
        self._snapshot: dict[str, Any] = {}
        self._stop_asked = False
        self._last_is_whole = False

    # ------------------------------------------------------------ the run

    def rows(self) -> Iterator[Rows]:
        """Trains to the end, to divergence, or until `stop`.

        The first and the last step are measured whole. Pretraining comes before; one that was
        stopped is done anew by the run that goes on.
        """
        state = self.state
        if state.step == 0 and self._pretraining is not None:
            yield from self._pretraining.rows(lambda: self._stop_asked)
            if self._stop_asked:
                return
        self.clock = Clock(self._seconds_before)
        state.stream.begin()
        try:
            if state.step == 0:
                yield from self._evaluation()
            self._take_snapshot()
            self._attach()
            while state.step < self.num_steps and not self._stop_asked:
                yield from self._rows_of_step(whole=state.step == self.num_steps - 1)
                if self._stopping:
                    return
                if state.step < self.num_steps and self._saving.wants(
                    state.step, handed_on=self._handed_on
                ):
                    self._saving.done_by(self.save)
            yield from self.flush()
            if 0 < state.step < self.num_steps and not self._stopping:
                self.save()
                # The one that goes on from there makes this step again, as it would have been.
                if not self._last_is_whole:
                    yield from self._rows_of_step(whole=True)
                    yield from self.flush()
            if state.step == self.num_steps:
                yield from self._evaluated("test", self._dataset.test)
        finally:
            self._probe.__exit__(None, None, None)
            state.stream.end()

    def first_step(self) -> list[Rows]:
        """Step 0 and nothing before or after it: the rows of its tables but for those of training.

        They are those that `rows()` begins with.
        """
        state = self.state
        state.stream.begin()
        try:
            self._take_snapshot()
            self._attach()
            self._probe.want_step()
            self._step(self._next_batch())
            return [rows for rows in self.flush() if rows.table not in COMMON[1:]]
        finally:
            self._probe.__exit__(None, None, None)
            state.stream.end()

    def _rows_of_step(self, *, whole: bool) -> Iterator[Rows]:
        """Makes a step, and yields what is to be handed on after it."""
        state, eval_every = self.state, self._train.eval_every
        if whole:
            self._probe.want_step()
        self._last_is_whole = self._probe.measuring_all
        self._timed_step(is_last=whole)
        ended = state.step == self.num_steps
        evaluates = ended or (eval_every > 0 and state.step % eval_every == 0)
        saves = not ended and self._saving.wants_step(state.step)
        self._handed_on = self._history.due or evaluates or saves or self._stopping
        if self._handed_on:
            yield from self.flush()
        if evaluates and not self._stopping:
            yield from self._evaluation(after_steps=True)

    def flush(self) -> list[Rows]:
        """What was measured since the last flush; on CUDA this waits for the device."""
        self._layers += self._probe.drain()
        layers, self._layers = self._layers, []
        drained = self._history.drain()
        if drained is None:
            return layers
        steps, first_bad = drained
        if self._deferred and self.divergence is None:
            if first_bad is None:
                self._take_snapshot()
            else:
                steps, layers = self._cut_at_divergence(first_bad, steps, layers)
        return [steps, *layers, self.clock.row(self.state.step)]

    def stop(self) -> None:
        """Ends `rows()` soon; a signal handler may call it.

        After the step at hand if all of it is measured, else after one more that is.
        """
        self._stop_asked = True

    def state_dict(self) -> dict[str, Any]:
        """Everything that a run goes on from, between two steps."""
        return {
            "training": self.state.state_dict(),
            "divergence": self.divergence,
            "seconds": self.clock.seconds,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Has `rows()` go on from `state`."""
        self.state.load_state_dict(state["training"])
        self.divergence = state["divergence"]
        self._seconds_before = state["seconds"]

    # ------------------------------------------------------------ what a summary asks

    @property
    def constant_loss(self) -> float:
        """The best loss of a prediction that ignores the input."""
        targets, task = self._dataset.train.targets, self._dataset.task
        if task.per_position and not task.positions_tell:
            targets = targets.flatten(0, 1)
        return self.state.loss.constant(targets.cpu(), task.num_outputs)

    @property
    def tables(self) -> tuple[str, ...]:
        """The tables that the run has."""
        also = {"pretraining": self._pretraining, "curvature": self.state.curvature}
        there = [table for table, made_by in also.items() if made_by is not None]
        return tuple(dict.fromkeys((*COMMON, *there, *self._probe.tables)))

    @property
    def examples(self) -> AnySplit:
        """Those that it trains on."""
        return self._dataset.train

    @property
    def task(self) -> Task:
        """The form of examples and answers."""
        return self._dataset.task

    @property
    def num_outputs(self) -> int:
        """Classes, or values of an answer."""
        return self._dataset.task.num_outputs

    def coming_batch(self) -> Batch:
        """The micro-batches of the next update, which still reads them."""
        return self.state.batches.peek(self._train.accumulate)

    @property
    def num_parameters(self) -> int:
        """Trainable numbers of the model."""
        return sum(p.numel() for p in self._parameters)

    @property
    def num_layers(self) -> int | None:
        """L, the hidden layers of the main path, measured or not; None where the rows tell."""
        if self._watches is None:
            return None
        return max(watch.layer for watch in self._watches if watch.kind != "readout")

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self._parameters[0].device

    @property
    def stops_on_divergence(self) -> bool:
        """Whether the first non-finite step is the last."""
        return self._train.stop_on_divergence

    @property
    def remarks(self) -> tuple[str, ...]:
        """What somebody should know of the data, who trains on them nevertheless."""
        return self._dataset.remarks

    @property
    def unseen(self) -> list[str]:
        """What the probe could not measure."""
        return self._probe.unseen

    # ------------------------------------------------------------ one step

    def _timed_step(self, *, is_last: bool) -> None:
        start, measured = time.perf_counter(), self._probe.measuring
        batch = self._next_batch()
        start += self._measure_curvature(batch, is_last=is_last)
        self._step(batch)
        num_examples = update.num_examples(batch)
        self.clock.step_done(time.perf_counter() - start, num_examples, measured)

    def _measure_curvature(self, batch: Batch, *, is_last: bool) -> float:
        """Where it is due; the seconds it took."""
        curvature = self.state.curvature
        if curvature is None or not curvature.is_due(self.state.step, is_last=is_last):
            return 0.0
        start = time.perf_counter()
        self._layers.append(curvature.rows(self.state, batch))
        seconds = time.perf_counter() - start
        self.clock.measured_beside(seconds)
        return seconds

    def _next_batch(self) -> Batch:
        return [self.state.batches.next() for _ in range(self._train.accumulate)]

    def _step(self, batch: Batch) -> None:
        """One update: forward, backward, clip (and add noise), step."""
        state, probe = self.state, self._probe
        drawn_before = state.stream.state_dict() if self._draws else []
        outcome = update.forward_backward(state, batch)
        norm = update.gradient_norm(self._parameters)
        if state.half is not None:
            state.half.count(norm)
        diverged = self._diverged(outcome.loss, norm)
        if diverged and not probe.measuring_all:
            probe.want_step()
            update.forward_backward_again(state, batch, drawn_before)
        if not (state.clip.is_none and state.noise is None):
            probe.before_clip()
        clipped = update.shape_gradients(state, self._parameters, norm)
        self._record(outcome, norm, clipped)
        self._end_step(probe, takes_it=not (diverged and self.stops_on_divergence))
        if diverged:
            self._layers += probe.drain()
            self._name_divergence(self._layers, float(outcome.loss))

    def _end_step(self, probe: Probe, *, takes_it: bool) -> None:
        if takes_it:
            update.take_step(self.state)
        else:
            half = self.state.half
            probe.end_step_without_update(None if half is None else half.loss_scale)

    def _record(self, outcome: Outcome, norm: Tensor, clipped: Clipped) -> None:
        state = self.state
        self._history.add(
            Step(
                step=state.step,
                epoch=self._epoch,
                lr=state.optimizer.param_groups[0]["lr"],
                num_targets=outcome.num_targets,
                hits=outcome.hits,
                values=(outcome.loss, norm, clipped.norm, clipped.changed),
                scaling=None if state.half is None else state.half.scaling,
            )
        )

    @property
    def _epoch(self) -> int:
        return self.state.step * self._train.accumulate // self.state.batches.per_epoch

    # ------------------------------------------------------------ evaluation

    def _evaluation(self, *, after_steps: bool = False) -> list[Rows]:
        """Train and val; after steps the schedule hears of it, and so does a later replay."""
        train = self._evaluated("train", self._dataset.train)
        val = self._evaluated("val", self._dataset.val)
        if after_steps and val:
            self.state.schedule.after_eval(float(val[0].columns["loss"][0]))
            if self._deferred:
                self._snapshot["schedule"] = copied(self.state.schedule.state_dict())
        return [*train, *val]

    def _evaluated(self, name: str, split: AnySplit) -> list[Rows]:
        return evaluated(self.state, name, split, self._epoch)

    # ------------------------------------------------------------ divergence

    @property
    def _stopping(self) -> bool:
        return self.divergence is not None and self.stops_on_divergence

    def _diverged(self, loss: Tensor, norm: Tensor) -> bool:
        if self._deferred or self.divergence is not None:
            return False
        half = self.state.half
        if half is not None and half.skips is not None:
            return not math.isfinite(float(loss)) or float(half.skips) >= SKIPS_IN_A_ROW
        return not (math.isfinite(float(loss)) and math.isfinite(float(norm)))

    def _name_divergence(self, measured: Sequence[Rows], loss: float) -> None:
        """Names the layer from the last step of `layers.csv` among the rows."""
        rows = last_step([rows for rows in measured if rows.table == "layers"][-1])
        half, layer = self.state.half, layer_of_divergence(rows)
        if half is not None and half.skips is not None and math.isfinite(loss):
            layer = f"{SKIPS_IN_A_ROW} steps in a row were skipped; {layer}"
        self.divergence = f"step {rows.columns['step'][0]}: {layer}"

    def _take_snapshot(self) -> None:
        if self._deferred:
            self._snapshot = copied(self.state.state_dict())

    def _cut_at_divergence(
        self, step: int, steps: Rows, layers: list[Rows]
    ) -> tuple[Rows, list[Rows]]:
        """On CUDA: measures the first non-finite step again, and drops what came after it."""
        going_on = not self.stops_on_divergence
        again = self._measured_again(step)
        index = steps.columns["step"].index(step)
        self._name_divergence(again, float(steps.columns["loss"][index]))
        before, after = around(step, layers)
        if going_on:
            return steps, [*before, *again, *after]
        return steps[: bisect_right(steps.columns["step"], step)], [*before, *again]

    def _measured_again(self, step: int) -> list[Rows]:
        """The rows for `step`, reached again from the last flush's state.

        The run goes on from where it was, unless it is to stop.
        """
        state, stops = self.state, self.stops_on_divergence
        before = None if stops else copied(state.state_dict())
        self._probe.__exit__(None, None, None)
        state.load_state_dict(self._snapshot)
        while state.step < step:
            update.forward_backward(state, self._next_batch())
            update.shape_gradients_unasked(state, self._parameters)
            update.take_step(state)
        with self._new_probe() as probe:
            probe.step = step
            probe.want_step()
            update.forward_backward(state, self._next_batch())
            probe.before_clip()
            update.shape_gradients_unasked(state, self._parameters)
            self._end_step(probe, takes_it=not stops)
            rows = probe.drain()
        if before is not None:
            state.load_state_dict(before)
            self._attach()
        return rows

    # ------------------------------------------------------------ the probe

    def _new_probe(self) -> Probe:
        return Probe(
            self.state.model,
            self.state.optimizer,
            every=self._probe_config.every,
            activations_every=self._probe_config.activations_every,
            histograms_every=self._probe_config.histograms_every,
            layers=self._probe_config.layers,
            watches=self._watches,
            meters=self._meters,
            scaler=None if self.state.half is None else self.state.half.scaler,
        )

    def _attach(self) -> None:
        self._probe.step = self.state.step
        self._probe.__enter__()


def _num_bytes(tensors: list[Parameter]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _nothing() -> None:
    """Nobody wants checkpoints."""


def copied(state: dict[str, Any]) -> dict[str, Any]:
    """A state whose tensors later steps do not change."""
    return copy.deepcopy(state)
