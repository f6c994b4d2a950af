"""The first step that is not finite: found, measured whole, its layer and its origin named."""

from __future__ import annotations

import copy
import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from typing import Any, final

from torch import Tensor

from vgexp.data.batches import Batch
from vgexp.probe import Probe
from vgexp.records import Rows
from vgexp.training.half import SKIPS_IN_A_ROW
from vgexp.training.origin import Origin, find_origin
from vgexp.training.state import TrainState
from vgexp.training.step import one_step, repeat_passes


@final
class Divergence:
    """Watches a run for its first step that is not finite.

    On CPU a step is checked before the optimizer takes it. On CUDA (`is_deferred`) looking would
    wait for the device, so steps are checked when rows are flushed: rows after the first non-finite
    step are dropped, and that step is made again from the state at the flush before.

    Args:
        probe: measures the run.
        make_probe: makes another like it.
        ends_run: whether the run ends at that step.
    """

    def __init__(
        self,
        state: TrainState,
        probe: Probe,
        make_probe: Callable[[], Probe],
        *,
        ends_run: bool,
        is_deferred: bool,
    ) -> None:
        self.story: str | None = None
        """The step and its layer, in words; None: every step so far was finite."""
        self.origin: Origin | None = None
        """What made the first value that is not finite; None: none is, or it cannot be told."""
        self.step: int | None = None
        """The step of the story."""
        self.is_found = False
        """Whether `check` has just found the step; its rows are then in the probe."""
        self._state = state
        self._probe, self._make_probe = probe, make_probe
        self._ends_run, self._is_deferred = ends_run, is_deferred
        self._drawn_before: list[Tensor] = []
        self._loss = math.nan
        self._snapshot: dict[str, Any] = {}

    @property
    def has_ended_run(self) -> bool:
        """Whether no step is made any more."""
        return self._ends_run and self.story is not None

    def state_dict(self) -> dict[str, Any] | None:
        """What was found; None: nothing."""
        if self.story is None:
            return None
        origin = None if self.origin is None else tuple(self.origin)
        return {"story": self.story, "step": self.step, "origin": origin}

    def load_state_dict(self, state: dict[str, Any] | str | None) -> None:
        """Continues from what was found; an earlier version kept the story alone."""
        if isinstance(state, str):
            self.story = state
        elif state is not None:
            self.story, self.step = state["story"], state["step"]
            self.origin = None if state["origin"] is None else Origin(*state["origin"])

    # ------------------------------------------------------------ checked at each step (CPU)

    def prepare(self) -> None:
        """Notes, before an update, what is needed to make its passes again."""
        if self._state.may_draw and not self._is_deferred:
            self._drawn_before = self._state.stream.state_dict()

    def check(self, batch: Batch, loss: Tensor, norm: Tensor) -> bool:
        """Says whether the optimizer takes the step; has the first non-finite one measured whole.

        If its passes were not measured whole, they are made again.
        """
        if self._is_deferred or self.story is not None or self._is_finite(loss, norm):
            return True
        self.is_found, self._loss = True, float(loss)
        self.origin = find_origin(self._state, batch, self._drawn_before)
        if not self._probe.measuring_all:
            self._probe.want_step()
            repeat_passes(self._state, batch, self._drawn_before)
        return not self._ends_run

    def name_layer(self, measured: Sequence[Rows]) -> None:
        """Names the layer, from the last step of `layers.csv` among the rows."""
        self.is_found = False
        rows = last_step([rows for rows in measured if rows.table == "layers"][-1])
        half, layer = self._state.half, layer_of_divergence(rows)
        if half is not None and half.skips is not None and math.isfinite(self._loss):
            layer = f"{SKIPS_IN_A_ROW} steps in a row were skipped; {layer}"
        self.step = int(rows.columns["step"][0])
        self.story = f"step {self.step}: {layer}"

    def _is_finite(self, loss: Tensor, norm: Tensor) -> bool:
        half = self._state.half
        if half is not None and half.skips is not None:
            return math.isfinite(float(loss)) and float(half.skips) < SKIPS_IN_A_ROW
        return math.isfinite(float(loss)) and math.isfinite(float(norm))

    # ------------------------------------------------------------ checked at each flush (CUDA)

    def take_snapshot(self) -> None:
        """Keeps the state, from which a later step can be made again."""
        if self._is_deferred:
            self._snapshot = copy_state(self._state.state_dict())

    def take_snapshot_of_schedule(self) -> None:
        """Keeps the schedule's state alone, which an evaluation has changed since the flush."""
        if self._is_deferred:
            self._snapshot["schedule"] = copy_state(self._state.schedule.state_dict())

    def check_flushed(
        self, first_bad: int | None, steps: Rows, layers: list[Rows]
    ) -> tuple[Rows, list[Rows]]:
        """Checks the rows since the last flush, and returns those that the run keeps.

        Args:
            first_bad: the first of these steps that is not finite; None: all are.
        """
        if not self._is_deferred or self.story is not None:
            return steps, layers
        if first_bad is None:
            self.take_snapshot()
            return steps, layers
        again = self._measure_again(first_bad)
        index = steps.columns["step"].index(first_bad)
        self._loss = float(steps.columns["loss"][index])
        self.name_layer(again)
        before, after = split_at(first_bad, layers)
        if not self._ends_run:
            return steps, [*before, *again, *after]
        return steps[: bisect_right(steps.columns["step"], first_bad)], [*before, *again]

    def _measure_again(self, step: int) -> list[Rows]:
        """Makes the steps since the snapshot again up to `step`, and measures that one whole.

        The state is then what it was before, unless the run ends at this step.
        """
        state, is_taken = self._state, not self._ends_run
        before = copy_state(state.state_dict()) if is_taken else None
        with self._probe.paused():
            state.load_state_dict(self._snapshot)
            while state.step < step:
                one_step(state, state.next_batch())
            probe = self._make_probe()
            probe.step = step
            batch, drawn_before = state.next_batch(), state.stream.state_dict()

            def find(*_: object) -> bool:
                self.origin = find_origin(state, batch, drawn_before)
                return is_taken

            with probe:
                probe.want_step()
                one_step(state, batch, probe, check=find)
            if before is not None:
                state.load_state_dict(before)
        return probe.drain()


def copy_state(state: dict[str, Any]) -> dict[str, Any]:
    """Copies a state, so that later steps do not change its tensors."""
    return copy.deepcopy(state)


def layer_of_divergence(rows: Rows) -> str:
    """Names the first layer with a non-finite z, else the last with a non-finite gradient.

    `rows` are those of `layers.csv` for the step, in forward order.
    """
    names, layers = rows.columns["name"], rows.columns["layer"]

    def bad(column: str) -> list[int]:
        values = rows.columns.get(column, [])
        return [i for i, v in enumerate(values) if v is not None and not math.isfinite(v)]

    forward = sorted({*bad("preact_mean"), *bad("preact_std")})
    if forward:
        i = forward[0]
        return f"z of layer {layers[i]} ({names[i]}) is the first that is not finite"
    backward = bad("grad_max")
    if backward:
        i = backward[-1]
        return f"the gradient of layer {layers[i]} ({names[i]}) is the last that is not finite"
    return "the loss is not finite, though every z and gradient of a weight is"


def split_at(step: int, batches: Sequence[Rows]) -> tuple[list[Rows], list[Rows]]:
    """Splits rows into those before a step and those after it."""
    before = [rows[: bisect_left(rows.columns["step"], step)] for rows in batches]
    after = [rows[bisect_right(rows.columns["step"], step) :] for rows in batches]
    return [rows for rows in before if len(rows)], [rows for rows in after if len(rows)]


def last_step(rows: Rows) -> Rows:
    """Keeps the rows of the last step alone."""
    steps = rows.columns["step"]
    return rows[bisect_left(steps, steps[-1]) :]
