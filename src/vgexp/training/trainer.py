"""Trains a classifier with a probe attached, and yields the rows of its tables as they come."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from vgexp.config import TrainConfig
from vgexp.data.batches import Batch
from vgexp.probe import Probe
from vgexp.quantities import COMMON, LATER_TABLES
from vgexp.records import Rows
from vgexp.training.divergence import Divergence
from vgexp.training.evaluation import evaluate_as_rows
from vgexp.training.facts import RunFacts
from vgexp.training.flight import FlightRecorder
from vgexp.training.history import Clock, History
from vgexp.training.pretraining import Pretraining
from vgexp.training.saving import Saving
from vgexp.training.state import TrainState
from vgexp.training.step import num_examples, one_step

_TENSORS = 3
"""A checkpoint holds a parameter and at most two states of the optimizer for it."""


class Judge(Protocol):
    """Says between two steps whether a run is to end early."""

    @property
    def every(self) -> int:
        """Steps between two questions."""

    def __call__(self, num_steps: int) -> str | None:
        """Why the run ends after so many updates, in one line; None: it goes on. Every row of these
        was handed on before."""


class Trainer:
    """One training run. Iterate over `rows()`; whatever ends the iteration, `flush()` has the rest.

    Args:
        make_probe: makes a probe of the state's model and optimizer.
        is_deferred: whether divergence is looked for at a flush, as on CUDA (`Divergence`).
        checkpoint_every: steps between checkpoints; None: as often as it costs little; 0: none.
    """

    def __init__(
        self,
        state: TrainState,
        facts: RunFacts,
        train: TrainConfig,
        make_probe: Callable[[], Probe],
        *,
        is_deferred: bool,
        pretraining: Pretraining | None = None,
        checkpoint_every: int | None = 0,
    ) -> None:
        self.state = state
        self.facts = facts
        self.probe = make_probe()
        self.clock = Clock()
        self._divergence = Divergence(
            state,
            self.probe,
            make_probe,
            ends_run=facts.stops_on_divergence,
            is_deferred=is_deferred,
        )
        self._flight = FlightRecorder(state, self.probe, make_probe, facts.num_flight_steps)
        self._pretraining = pretraining
        self._eval_every = train.eval_every
        self._saving = Saving(checkpoint_every, _TENSORS * _num_bytes(state))
        self._history = History(state.parameters[0].dtype, is_deferred)
        self._layers: list[Rows] = []
        self._seconds_before = 0.0
        self._stop_asked = False
        self._stopped_by: str | None = None
        self._judge: Judge | None = None
        self._is_flushed = False
        self._num_evaluated = -1
        self._last_is_whole = False

    @property
    def divergence(self) -> str | None:
        """Where and when the run first became non-finite, in words; None: it never did."""
        return self._divergence.story

    @property
    def stopped_by(self) -> str | None:
        """Why a judge ended the run, in one line; None: none did."""
        return self._stopped_by

    @property
    def unseen(self) -> list[str]:
        """What could not be measured, and why."""
        problem = self._flight.problem
        return [*self.probe.unseen, *([] if problem is None else [f"flight.csv: {problem}"])]

    @property
    def first_not_finite(self) -> dict[str, Any]:
        """The step, maker and place of the first value that is not finite, as summary metrics."""
        origin = self._divergence.origin
        return {
            "nonfinite_step": self._divergence.step,
            "nonfinite_maker": None if origin is None else origin.maker,
            "nonfinite_place": None if origin is None else origin.place,
        }

    # ------------------------------------------------------------ the run

    def rows(
        self, on_checkpoint: Callable[[], None] | None = None, judge: Judge | None = None
    ) -> Iterator[Rows]:
        """Trains to the end, to divergence, until `stop`, or until a judge ends the run.

        The first and the last step are measured whole. Pretraining comes before; one that was
        stopped is done again by the run that goes on.

        Args:
            on_checkpoint: is called between two steps, when a checkpoint is due, once every row
                before was handed on; None: there are no checkpoints.
            judge: is asked between steps whether the run ends here; None: it does not. A run that
                it ends is evaluated as one that comes to its end.
        """
        state, self._judge = self.state, judge
        if state.step == 0 and self._pretraining is not None:
            yield from self._pretraining.rows(lambda: self._stop_asked)
            if self._stop_asked:
                return
        self.clock = Clock(self._seconds_before)
        with state.stream.lend():
            if state.step == 0:
                yield from self._evaluate()
            self._divergence.take_snapshot()
            self._flight.begin()
            self.probe.step = state.step
            with self.probe:
                yield from self._make_steps(on_checkpoint)
            is_stopped = self._stopped_by is not None and not self._divergence.has_ended_run
            if is_stopped and self._num_evaluated != state.step:
                yield from self._evaluate()
            if is_stopped or state.step == self.facts.num_steps:
                yield from evaluate_as_rows(state, "test", self.facts.dataset.test)

    def first_step(self) -> list[Rows]:
        """Makes step 0 alone; the rows of its tables, without those of training.

        They are those that `rows()` begins with.
        """
        with self.state.stream.lend():
            self._divergence.take_snapshot()
            with self.probe:
                self.probe.want_step()
                self._make_step(self.state.next_batch())
                return [
                    rows for rows in self.flush() if rows.table not in (*COMMON[1:], *LATER_TABLES)
                ]

    def flush(self) -> list[Rows]:
        """Returns what was measured since the last flush; on CUDA this waits for the device."""
        self._layers += self.probe.drain()
        # A model of the user's own may show only as it runs that it has one more.
        layers = [rows for rows in self._layers if rows.table in self.facts.tables]
        self._layers = []
        drained = self._history.drain()
        if drained is None:
            return layers
        steps, first_bad = drained
        steps, layers = self._divergence.check_flushed(first_bad, steps, layers)
        return [steps, *layers, self.clock.row(self.state.step)]

    def stop(self) -> None:
        """Ends `rows()` soon; a signal handler may call it.

        After the step at hand if all of it is measured, else after one more that is.
        """
        self._stop_asked = True

    def state_dict(self) -> dict[str, Any]:
        """Everything that a run goes on from, between two steps."""
        kept = self._flight.state_dict()
        return {
            "training": self.state.state_dict(),
            "divergence": self._divergence.state_dict(),
            "seconds": self.clock.seconds,
            **({} if kept is None else {"flight": kept}),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Has `rows()` go on from `state`."""
        self.state.load_state_dict(state["training"])
        self._divergence.load_state_dict(state["divergence"])
        if self._divergence.story is not None:
            self._flight.end()
        elif "flight" in state:  # a run without a recorder has none, nor has an earlier version
            self._flight.load_state_dict(state["flight"])
        self._seconds_before = state["seconds"]

    # ------------------------------------------------------------ steps

    def _make_steps(self, on_checkpoint: Callable[[], None] | None) -> Iterator[Rows]:
        """Makes steps until the run ends, and yields their rows at flushes."""
        state, num_steps = self.state, self.facts.num_steps
        # A run that was cut short just where a judge had ended it ends there again.
        self._ask_judge()
        while state.step < num_steps and not self._stop_asked:
            yield from self._measure_step(is_whole=state.step == num_steps - 1)
            yield from self._record_flight()
            if self._divergence.has_ended_run:
                return
            if self._flight.is_due(state.step):
                self._flight.take()
            self._ask_judge()
            is_due = self._saving.wants(state.step, handed_on=self._is_flushed)
            if on_checkpoint is not None and is_due and state.step < num_steps:
                self._saving.done_by(on_checkpoint)
        yield from self.flush()
        if 0 < state.step < num_steps and not self._divergence.has_ended_run:
            if on_checkpoint is not None:
                on_checkpoint()
            # The run that goes on from there makes this step again, as it would have been. Where a
            # judge ends it, it always is made: whoever goes on does not know how the last one was.
            if not self._last_is_whole or self._stopped_by is not None:
                yield from self._measure_step(is_whole=True)
                yield from self.flush()
            yield from self._record_flight(is_end=True)

    def _record_flight(self, *, is_end: bool = False) -> list[Rows]:
        """The rows of the last steps, where the run diverged, or ends since a judge says so."""
        bad, has_ended = self._divergence.step, self._divergence.has_ended_run
        if bad is not None:
            return self._flight.replay(bad, is_taken=not has_ended)
        if is_end and self._stopped_by is not None:
            return self._flight.replay(self.state.step - 1, is_taken=True)
        return []

    def _ask_judge(self) -> None:
        """Has the judge end the run where it is asked and does."""
        if self._is_judged(self.state.step) and self._judge is not None and not self._stop_asked:
            self._stopped_by = self._judge(self.state.step)
            self._stop_asked = self._stopped_by is not None

    def _is_judged(self, num_steps: int) -> bool:
        is_within = 0 < num_steps < self.facts.num_steps
        return self._judge is not None and is_within and num_steps % self._judge.every == 0

    def _measure_step(self, *, is_whole: bool) -> Iterator[Rows]:
        """Makes a step, and yields rows where a flush or an evaluation is due after it."""
        state = self.state
        if is_whole:
            self.probe.want_step()
        self._last_is_whole = self.probe.measuring_all
        start, is_measured = time.perf_counter(), self.probe.measuring
        batch = state.next_batch()
        start += self._measure_curvature(batch, is_last=is_whole)
        self._make_step(batch)
        self.clock.step_done(time.perf_counter() - start, num_examples(batch), is_measured)
        is_last = state.step == self.facts.num_steps
        evaluates = is_last or (self._eval_every > 0 and state.step % self._eval_every == 0)
        saves = not is_last and self._saving.wants_step(state.step)
        has_ended = self._divergence.has_ended_run
        is_asked = self._is_judged(state.step) or self._flight.is_due(state.step)
        self._is_flushed = self._history.due or evaluates or saves or has_ended or is_asked
        if self._is_flushed:
            yield from self.flush()
        if evaluates and not self._divergence.has_ended_run:
            yield from self._evaluate(after_steps=True)

    def _make_step(self, batch: Batch) -> None:
        """Makes one update and records it; the step at which the run diverges gets its name."""
        divergence = self._divergence
        divergence.prepare()
        one_step(self.state, batch, self.probe, check=divergence.check, record=self._history.add)
        if divergence.is_found:
            self._layers += self.probe.drain()
            divergence.name_layer(self._layers)

    def _measure_curvature(self, batch: Batch, *, is_last: bool) -> float:
        """Measures the Hessian where that is due; the seconds it took."""
        curvature = self.state.curvature
        if curvature is None or not curvature.is_due(self.state.step, is_last=is_last):
            return 0.0
        start = time.perf_counter()
        self._layers.append(curvature.rows(self.state, batch))
        seconds = time.perf_counter() - start
        self.clock.measured_beside(seconds)
        return seconds

    # ------------------------------------------------------------ evaluation

    def _evaluate(self, *, after_steps: bool = False) -> list[Rows]:
        """Evaluates on train and val; after steps the schedule is told, and a later replay too."""
        train = evaluate_as_rows(self.state, "train", self.facts.dataset.train)
        val = evaluate_as_rows(self.state, "val", self.facts.dataset.val)
        self._num_evaluated = self.state.step
        if after_steps and val:
            loss = float(val[0].columns["loss"][0])
            self.state.schedule.after_eval(loss)
            self._flight.hear(loss)
            self._divergence.take_snapshot_of_schedule()
        return [*train, *val]


def _num_bytes(state: TrainState) -> int:
    return sum(p.numel() * p.element_size() for p in state.parameters)
