"""The flight recorder: the last steps of a run in full, measured only once they turn out to matter.

Nothing more is measured while a run goes on. Its state is copied every 100 steps; where a run
diverges, or a rule ends it, the last steps are made again from a copy, with all columns.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, final

from vgexp.errors import reason
from vgexp.probe import Probe
from vgexp.records import Rows
from vgexp.training.divergence import copy_state
from vgexp.training.state import TrainState
from vgexp.training.step import one_step

TABLE = "flight"
SNAPSHOT_STEPS = 100
"""Steps between copies of the state at least, so that a copy costs little beside them."""


@final
class FlightRecorder:
    """Makes the rows of `flight.csv`: those of `layers.csv` at each of the last steps.

    The steps are the same as before where a step depends on the state alone, as every step of a
    model of vgexp's does on CPU: weights, optimizer, schedule, order of the data and random stream
    are all part of it. Two copies are kept, since the newer one may be too young. After it, the
    state is what it was.

    Args:
        probe: measures the run; it is paused meanwhile.
        make_probe: makes another like it.
        num_steps: steps in the table; 0: nothing is kept, and there is no table.
    """

    def __init__(
        self, state: TrainState, probe: Probe, make_probe: Callable[[], Probe], num_steps: int
    ) -> None:
        self.problem: str | None = None
        """Why the steps could not be made again; None: they could, or were not asked for."""
        self._state, self._probe, self._make_probe = state, probe, make_probe
        self._num_steps = num_steps
        self._every = max(SNAPSHOT_STEPS, num_steps)
        self._is_over = num_steps == 0
        self._snapshots: list[dict[str, Any]] = []
        self._evaluations: list[tuple[int, float]] = []

    def is_due(self, step: int) -> bool:
        """Whether the state is copied after so many updates, with every row before handed on."""
        return not self._is_over and step % self._every == 0

    def begin(self) -> None:
        """Copies the state a run begins with, or goes on from without a copy of an earlier one."""
        if not self._snapshots:
            self.take()

    def take(self) -> None:
        """Copies the state, between two steps."""
        if self._is_over:
            return
        # The oldest goes first: no more than two are held at any time.
        self._snapshots = self._snapshots[-1:]
        self._snapshots.append(copy_state(self._state.state_dict()))
        oldest = self._snapshots[0]["step"]
        self._evaluations = [each for each in self._evaluations if each[0] > oldest]

    def hear(self, loss: float) -> None:
        """Notes what the schedule was told after the step at hand: the validation loss."""
        if not self._is_over:
            self._evaluations.append((self._state.step, loss))

    def state_dict(self) -> dict[str, Any] | None:
        """The copy from which the last steps can be made again, whenever the run ends from now on,
        with what the schedule was told since; None: nothing is kept."""
        if not self._snapshots:
            return None
        latest = self._state.step - self._num_steps
        early = [each for each in self._snapshots if each["step"] <= latest]
        snapshot = early[-1] if early else self._snapshots[0]
        heard = [[step, loss] for step, loss in self._evaluations if step > snapshot["step"]]
        return {"snapshot": snapshot, "evaluations": heard}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on with the copy that `state_dict` returned."""
        if self._is_over:
            return
        snapshot, heard = state["snapshot"], state["evaluations"]
        if not 0 <= int(snapshot["step"]) <= self._state.step:
            raise ValueError("the copy for flight.csv is of a later step")
        self._snapshots = [snapshot]
        self._evaluations = [(int(step), float(loss)) for step, loss in heard]

    def end(self) -> None:
        """Forgets the copies: there is nothing more to record."""
        self._is_over = True
        self._snapshots, self._evaluations = [], []

    def replay(self, last: int, *, is_taken: bool) -> list[Rows]:
        """Makes the last steps up to `last` again; their rows, and none where that fails.

        It is done once: afterwards the copies are forgotten.

        Args:
            is_taken: whether the optimizer takes the last of these steps.
        """
        usable = [each for each in self._snapshots if each["step"] <= last]
        first = last - self._num_steps + 1
        early = [each for each in usable if each["step"] <= first]
        evaluations = dict(self._evaluations)
        self.end()
        if not usable:
            return []
        snapshot = early[-1] if early else usable[0]
        before = copy_state(self._state.state_dict())
        try:
            with self._probe.paused():
                return self._make_again(snapshot, evaluations, first, last, is_taken=is_taken)
        except Exception as error:  # the user's model need not be able to go back
            self.problem = reason(error)
            return []
        finally:
            self._state.load_state_dict(before)

    def _make_again(
        self,
        snapshot: dict[str, Any],
        evaluations: dict[int, float],
        first: int,
        last: int,
        *,
        is_taken: bool,
    ) -> list[Rows]:
        state = self._state
        state.load_state_dict(snapshot)
        while state.step < first:
            one_step(state, state.next_batch())
            _tell_schedule(state, evaluations)
        probe = self._make_probe()
        probe.step = state.step
        with probe:
            for step in range(state.step, last + 1):
                probe.want_step()
                takes = is_taken or step < last
                one_step(state, state.next_batch(), probe, check=lambda *_, takes=takes: takes)
                _tell_schedule(state, evaluations)
        return [Rows(TABLE, rows.columns) for rows in probe.drain() if rows.table == "layers"]


def _tell_schedule(state: TrainState, evaluations: dict[int, float]) -> None:
    """Tells the schedule what an evaluation after this step told it."""
    if state.step in evaluations:
        state.schedule.after_eval(evaluations[state.step])
