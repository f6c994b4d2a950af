"""Measures one optimizer step after another, as a probe's hooks on the optimizer ask for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.amp import GradScaler

from vgexp import torch_internals
from vgexp.probe.block import StepCells
from vgexp.probe.cadence import Cadence, Due
from vgexp.probe.compiled import RAN_COMPILED, EagerSteps
from vgexp.probe.given import ModelInputs
from vgexp.probe.hooks import Note
from vgexp.probe.loss import LossWatch
from vgexp.probe.moments import ColumnCells
from vgexp.probe.of_parameters import TablesOfParameters
from vgexp.probe.optimizers import StepHooks
from vgexp.probe.own_metrics import OwnMetrics
from vgexp.probe.plan import ProbePlan
from vgexp.probe.ranks import Ranks
from vgexp.probe.results import Waiting
from vgexp.probe.steps import Number, StepMeter
from vgexp.probe.taps import Taps
from vgexp.probe.unseen import NO_CALL, Missing
from vgexp.probe.weights import WeightMeter
from vgexp.records import Rows
from vgexp.unseen import RAN_SILENTLY
from vgexp.watch import Meter

NO_LOSS = (
    "step {} had no backward pass through a call that watch_loss saw; where torch.compile has the"
    " loss in its graph, use note_loss"
)
_MOST_LOSSES, _MOST_STEPS = 64, 100
"""Descriptions of losses, and rows of `steps`, that wait at most before they are read."""
_NO_SCALE: Tensor | float = 1.0
_MOST_SUDDEN = 5
"""Steps of a recurrence that are measured at most, since the gradient grew suddenly in the one
before: between two steps that are due, an explosion may be over."""


@final
class Measuring:
    """All that is measured of a model and its optimizer, and what of it the step at hand needs.

    An error of measuring is noted, and never raised in the user's training.

    Args:
        taps: the hooks on the model's passes.
        note: told of rows that cannot be measured, with the reason.
        unseen: what could not be measured so far, and why; it is added to.
        own: the user's metrics.
        scaler: as of `Probe`.
        ranks: those over which passes are taken; None: this process's own.
        meters: what measures narrow tables.
        loss_is_mean: whether the loss is a mean over examples.
        is_bare: as of `Probe`.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: StepHooks,
        plan: ProbePlan,
        cadence: Cadence,
        taps: Taps,
        note: Note,
        unseen: dict[str, str],
        *,
        own: OwnMetrics,
        scaler: GradScaler | None,
        ranks: Ranks | None,
        meters: tuple[Meter, ...],
        loss_is_mean: bool,
        is_bare: bool,
    ) -> None:
        self._optimizer, self._plan, self._cadence = optimizer, plan, cadence
        self._taps, self._note, self._unseen = taps, note, unseen
        self._own, self._scaler, self._ranks = own, scaler, ranks
        self._meters, self._loss_is_mean, self._is_bare = meters, loss_is_mean, is_bare
        reuse = cadence.every == 1
        self._missing = Missing(model, plan, optimizer)
        self._weights = WeightMeter(plan.rows, reuse=reuse)
        self._of_parameters = TablesOfParameters(
            model, optimizer, plan.rows, note, reuse=reuse, with_changes=not is_bare
        )
        self._eager = EagerSteps(model, note)
        self._steps = StepMeter(model, optimizer)
        self._given = ModelInputs(model, note)
        self.loss = LossWatch(
            *(self._steps, note, self._given.describe),
            may_unpack=lambda: not taps.has_seen_packing,
        )
        """What sees the loss."""
        self.waiting = Waiting(plan.rows)
        """What was measured and is not read yet."""
        self.num_examples: int | None = None
        """Of the last measured update."""
        self._own_cells: dict[str, ColumnCells] = {}
        self._has_own_of_gradients = False
        self._wanted = self._ran_compiled = self._is_second_try = self._is_next_wanted = False
        self._due = Due(weights=False, activations=False, histograms=False)
        self._has_closure = False
        self._gradient_scale = _NO_SCALE
        self._num_sudden = 0
        self.step = 0
        """Optimizer steps seen so far."""

    # ------------------------------------------------------------ what is measured

    @property
    def tables(self) -> tuple[str, ...]:
        """The names of the tables that there are."""
        own = ["layers"] if self._is_bare else ["layers", "steps"]
        own += self._of_parameters.tables
        own += ["loss"] if self.loss.is_used else []
        own += ["evals"] if self.loss.evaluations.has_any and not self._is_bare else []
        own += ["histograms"] if self._cadence.histograms_every else []
        meters = (meter for meter in self._meters if getattr(meter, "has_sites", True))
        return (*own, *dict.fromkeys(meter.table for meter in meters))

    def reasons(self) -> dict[str, list[str]]:
        """Reason -> weights of which something was not measured."""
        return self._missing.reasons(self._unseen)

    def is_shown(self, name: str) -> bool:
        """Whether z was measured of the weight of this name."""
        return self._missing.is_shown(name)

    @property
    def is_measuring(self) -> bool:
        """Whether anything is measured in the current step."""
        return self._due.weights or self._due.passes

    @property
    def is_measuring_all(self) -> bool:
        """Whether everything that is ever measured is measured in the current step."""
        return self._due == self._cadence.due(self.step, wanted=True)

    def read_many(self) -> list[Rows]:
        """Reads rows where many wait; the last block of layers goes on."""
        are_many = (
            self.waiting.are_many
            or len(self.loss) >= _MOST_LOSSES
            or len(self._steps) >= _MOST_STEPS
        )
        return self.read(with_last=False) if are_many else []

    def read(self, *, with_last: bool = True) -> list[Rows]:
        """Reads all rows that wait; see `Waiting.read`."""
        rows = [*self.waiting.read(with_last=with_last), *self._of_parameters.drain()]
        if not self._is_bare:
            if with_last:
                self.loss.evaluations.end(self.step)
            further = (self._steps.drain(), self.loss.drain(), self.loss.evaluations.drain())
            rows += [each for each in further if each is not None]
        return rows

    # ------------------------------------------------------------ a step begins

    def want(self) -> None:
        """Has everything measured in the current step."""
        self._wanted = True

    def prepare(self) -> None:
        """Sets or removes hooks for the coming step."""
        self._due = self._cadence.due(self.step, wanted=self._wanted)
        self.loss.describes = self._due.activations
        self._steps.is_measured = self._due.weights
        if self._due.passes:
            self.safely(self._eager.begin)
            self._taps.arm(with_histograms=self._due.histograms)
        else:
            self._eager.end()
            self._taps.disarm()
        self._of_parameters.prepare(self.step, is_due=self._due.weights, is_whole=self._is_whole)
        for meter in self._meters:
            if self._due.activations:
                meter.arm()
            else:
                meter.disarm()

    def enter(self) -> None:
        """Begins to see the loss, and where that is not finite what the model read."""
        self.loss.enter()
        if not self._is_bare:
            self._given.enter()

    def leave(self) -> None:
        """Removes all hooks, and forgets the step at hand."""
        self._eager.end()
        self._taps.disarm()
        self._of_parameters.disarm()
        for meter in self._meters:
            meter.disarm()
        self._taps.leave()
        self.loss.leave()
        self._given.leave()
        self._weights.collect()

    @property
    def _is_whole(self) -> bool:
        return self._wanted or self.step == 0

    # ------------------------------------------------------------ around the update

    def before_clip(self) -> None:
        """Measures the gradient's columns before it is clipped."""
        if self._due.weights:
            self.safely(
                self._measure_own_of_gradients,
                self._weights.before_clip,
                self._of_parameters.before_clip,
            )
        if not self._is_bare:
            self._measure_norm(self._steps.before_clip, "grad_norm")

    def before_step(self, *, has_closure: bool) -> None:
        """Measures all but the update; a closure's passes and gradients come only in the step."""
        self._has_closure = self.loss.is_in_step = has_closure
        if self.is_measuring:
            self.safely(self._copy_weights, self._copy_others)
        if not has_closure:
            self._measure_step()

    def after_step(self) -> None:
        """Measures the update, and where a closure made the gradients, these too."""
        if self._has_closure:
            self._measure_step()
        if self._due.weights:
            self.safely(self._weights.after_step, self._of_parameters.after_step)

    def instead_of_step(self) -> None:
        """Measures what there is of a step in which the optimizer is not called."""
        if self.is_measuring:
            self.safely(self._copy_weights, self._copy_others)
        self._measure_step()

    def _copy_weights(self) -> None:
        if self._due.weights:
            self._own_cells |= self._own.of_tensors("weight", self._weights.whole_weights)
            self._weights.copy_weights()

    def _copy_others(self) -> None:
        if self._due.weights:
            self._of_parameters.before_step()

    def _measure_own_of_gradients(self) -> None:
        """Measures the user's metrics of gradients, once an update."""
        if not self._has_own_of_gradients:
            self._has_own_of_gradients = True
            self._own_cells |= self._own.of_tensors("gradient", self._weights.whole_gradients)

    def _measure_step(self) -> None:
        """Measures all but the update, with the gradient that the optimizer takes."""
        # A fused optimizer gets scaled gradients, and divides by this within its step.
        held = self._optimizer.gradient_scale()
        self._gradient_scale = _NO_SCALE if held is None else held.clone()
        if self.is_measuring:
            self.safely(self._measure_gradients, self._measure_passes)
        if not self._is_bare:
            self._measure_norm(self._steps.take_gradients, "grad_norm_clipped")

    def _measure_norm(self, measure: Callable[[Mapping[int, float]], None], of_parts: str) -> None:
        """Measures the norm of the whole gradient; an error is noted as that of `steps`.

        Where the column `of_parts` was measured in this step, it is made of that.
        """
        tables = self._weights, self._of_parameters
        try:
            with torch.no_grad():
                known = [table.gradient_norms(of_parts) for table in tables]
                measure(known[0] | known[1])
        except Exception as error:
            self._unseen.setdefault("grad_norm of steps", f"{type(error).__name__}: {error}")

    def _measure_gradients(self) -> None:
        if self._due.weights:
            self._measure_own_of_gradients()
            self.safely(self._of_parameters.take_gradients)
            self._weights.take_gradients()

    def _measure_passes(self) -> None:
        if not self._due.passes:
            return
        is_missed = self._eager.came_too_late and not self._taps.has_passes
        if is_missed and not self._is_second_try:
            self._ran_compiled = self._is_second_try = True
            self._note(None, RAN_COMPILED)
        else:
            self._taps.reduce()

    # ------------------------------------------------------------ a step ends

    def end_step(self, loss_scale: Tensor | None = None, skipped: Number = None) -> None:
        """Keeps what was measured, even if measuring some of it failed.

        Args:
            loss_scale: what the loss was multiplied by; None: what a scaler says.
            skipped: whether the update was left out; None: what the optimizer says.
        """
        if self._due.weights:
            self.safely(self._weights.join_shards, self._of_parameters.join_shards)
        if self.is_measuring:
            self.safely(partial(self._add_cells, loss_scale))
        else:
            self.safely(partial(self._end_parameters, None))
        if not self._is_bare:
            self.safely(partial(self._add_step, loss_scale, skipped))

    def begin_next(self) -> None:
        """Begins the next step."""
        self._own_cells, self._has_own_of_gradients = {}, False
        self._gradient_scale = _NO_SCALE
        self._wanted = self._ran_compiled or self._is_next_wanted
        self._ran_compiled = self._has_closure = self._is_next_wanted = False
        self.step += 1
        self.prepare()

    def _add_step(self, loss_scale: Number, skipped: Number) -> None:
        """Adds the row of `steps`."""
        scale = self._loss_scale() if loss_scale is None else loss_scale
        loss = self.loss.end_step(self.step, scale)
        if loss is None and self.loss.is_used:
            self._unseen.setdefault("the loss", NO_LOSS.format(self.step))
        if skipped is None:
            held = self._optimizer.found_inf()
            skipped = 0 if held is None else held.clone()
        is_sudden = self._steps.end_step(self.step, loss, scale, self._gradient_scale, skipped)
        if is_sudden and self._num_sudden < _MOST_SUDDEN and "time" in self.tables:
            self._num_sudden += 1
            self._is_next_wanted = True

    def _add_cells(self, loss_scale: Tensor | None) -> None:
        cells = self._weights.collect() | self._own_cells
        self.safely(partial(self._end_parameters, cells if self._due.weights else None))
        factor: float = 1
        scale = _NO_SCALE
        labels = self.waiting.labels
        if self._due.passes:
            seen, examples, histograms = self._taps.collect()
            self.num_examples = examples or self.num_examples
            if not self._ran_compiled:
                self._note_missing(seen)
            if self._due.histograms:
                self.waiting.add_narrow(partial(histograms.rows, self.step, labels))
        if self._due.activations:
            scale = self._loss_scale() if loss_scale is None else loss_scale
            cells = {**cells, **seen}
            factor = examples if self._loss_is_mean else 1
            if self._ranks is not None:
                factor /= self._ranks.size
            for meter in self._meters:
                rows = meter.take(self.step, factor, scale)
                if rows is not None:
                    self.waiting.add_narrow(rows)
        self._missing.take(cells)
        if cells:
            added = StepCells(self.step, cells, factor, scale, self._gradient_scale)
            self.waiting.add(labels, added)

    def _end_parameters(self, cells: Mapping[str, ColumnCells] | None) -> None:
        scale, is_whole = self._gradient_scale, self._is_whole
        self._of_parameters.end_step(self.step, cells, scale, is_whole=is_whole)

    def _loss_scale(self) -> Tensor | float:
        """What the loss is multiplied by now; 1 where no scaler is given and none is found."""
        scaler = self._scaler or torch_internals.find_calling_scaler()
        return _NO_SCALE if scaler is None else torch_internals.scale_of(scaler)

    def safely(self, *measurements: Callable[[], Any]) -> None:
        """Calls functions, and notes an error instead of raising it in the user's training.

        One that fails does not keep those after it from being called.
        """
        for measure in measurements:
            try:
                with torch.no_grad():
                    measure()
            except Exception as error:
                self._note(None, f"measuring raised {type(error).__name__}: {error}")

    def _note_missing(self, cells: Mapping[str, ColumnCells]) -> None:
        seen = set(cells["preact_mean"].rows) if "preact_mean" in cells else set()
        for index, row in enumerate(self._plan.rows):
            if index not in seen and row.is_wanted and index in self._plan.shown:
                is_silent = index in self._taps.ran_silently
                self._unseen.setdefault(row.name, RAN_SILENTLY if is_silent else NO_CALL)
