"""The probe, which measures the layers of a model in the user's own training loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.amp import GradScaler

from vgexp import torch_internals
from vgexp.errors import QuestionError, impossible, unknown
from vgexp.probe.block import Labels, StepBlock, StepCells, labels_of
from vgexp.probe.cadence import Cadence, Due
from vgexp.probe.compiled import RAN_COMPILED, EagerSteps
from vgexp.probe.examples import Examples, Given
from vgexp.probe.hooks import Note
from vgexp.probe.loss import LossFunction, LossWatch
from vgexp.probe.meters import TorchAttentionMeter, TorchTimeMeter
from vgexp.probe.moments import ColumnCells
from vgexp.probe.of_parameters import TablesOfParameters
from vgexp.probe.optimizers import StepHooks
from vgexp.probe.own_metrics import OwnMetrics
from vgexp.probe.plan import ProbePlan, plan_of_module, plan_of_watches
from vgexp.probe.ranks import Ranks, unseen_of_ranks, unwrapped
from vgexp.probe.settings import require_layers, require_reduction, require_scaler
from vgexp.probe.steps import Number, StepMeter
from vgexp.probe.store import RowStore, frame_of, kinds_of
from vgexp.probe.taps import Taps
from vgexp.probe.unseen import (
    MOST_NAMES,
    NO_CALL,
    Missing,
    lines,
)
from vgexp.probe.weights import WeightMeter
from vgexp.quantities import TABLES
from vgexp.records import Rows, measured_cells
from vgexp.unseen import NO_STEP, RAN_SILENTLY, UNREGISTERED
from vgexp.watch import Meter, Watch

if TYPE_CHECKING:
    import pandas

NO_LOSS = (
    "step {} had no backward pass through a call that watch_loss saw; where torch.compile has the"
    " loss in its graph, use note_loss"
)
_ABSENT = {
    "time": "this model has no nn.RNN, nn.LSTM or nn.GRU",
    "attention": "no call of torch's attention was seen in this model",
    "loss": "no loss is watched (probe.watch_loss)",
}
_OF_RUNS = "only runs of vgexp train and vgexp signal have it"
"""Why a probe may lack a table."""
_MOST_BLOCKS, _MOST_NARROW, _MOST_STEPS = 8, 64, 100
"""What waits on the device at most before it is read: blocks of layers, pieces of narrow tables,
steps. To read it may wait for the device."""


class Probe:
    """Measures the columns of `layers.csv` for any `nn.Module` while it trains.

    It makes a row for each weight matrix or kernel at each measured optimizer step. The training
    loop stays as it is. The probe draws no random number, changes no tensor and leaves no hook.

    A block of the model has a row of kind `stream`, which has the columns of its output alone.

    A weight that a forward pass uses several times, by one module called again or by several that
    share it, has one row: its gradient is the sum over the uses, as autograd has it, and the
    columns of z, h and dL/dz are over the entries of all uses. `layer` and `kind` are those of the
    first use; the later ones take no number. `unseen` lists such weights. A use in another role, as
    of an embedding's matrix in the read-out, has a row of its own, with the columns of z alone.

    The table `steps` has a row at every step: learning rate, norms of the whole gradient, and the
    loss where `watch_loss` or `note_loss` shows it. All rows are kept, in arrays and beyond 16 MB
    in a temporary file, which goes with the probe.

    Args:
        every: steps between the columns of weights and gradients; step 0 is always measured.
        activations_every: steps between the other columns.
        histograms_every: steps between the rows of `histograms.csv`; 0: none.
        layers: a regular expression on the names of weights and blocks; None for all.
        loss_reduction: `mean` if the loss is a mean over the update's N examples (then `delta_rms`
            is that of N dL/dz), `sum` if it is their sum. N is over all passes of the update.
        watches: where to measure, of a model that says so; None to find it from the modules.
        meters: what measures a model's narrow tables, at the steps of `activations_every`.
        metrics: further columns of `layers`: name -> a function of the gradient of a weight, which
            returns a number or a tensor of one; or (what, function), what it is of: `gradient`
            before clipping, `weight` before the update, `preact` (z), `act` (h). It is called at
            measured steps, may write into no tensor and draw no random number. Where it fails, the
            cell is empty and `unseen` says so.
        scaler: the `GradScaler` that scales the loss, whose scale is divided out of `delta_rms`;
            None: the one that calls the optimizer, if one does.
        group: the process group over whose ranks z, h, dL/dz and N are taken, each with its part of
            a batch; None: this process's own. The update's loss is then the mean of the ranks'
            losses, as under DDP, and every rank has to measure the same steps.
        examples: N of a call of the model: a number, or a function of the call's arguments, as in
            `examples=lambda x, **_: len(x)`. None: read off the arguments, which is the size of dim
            0 of a tensor, and of a list of images, a packed sequence or a batch of graphs their
            number; `unseen` says where that is a guess.
        is_bare: of whoever makes `steps.csv` and keeps the rows: `drain` alone hands them on, and
            `wiring.csv` has rows at the first step and those asked for by `want_step` only.

    Raises:
        QuestionError: no model or optimizer, an impossible cadence, pattern, reduction, metric,
            scaler, group or number of examples.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        every: int = 20,
        activations_every: int = 20,
        histograms_every: int = 0,
        layers: str | None = None,
        loss_reduction: str = "mean",
        watches: Sequence[Watch] | None = None,
        meters: Sequence[Meter] = (),
        metrics: Mapping[str, Any] | None = None,
        scaler: GradScaler | None = None,
        group: Any = None,
        examples: Given = None,
        is_bare: bool = False,
    ) -> None:
        _require_model(model)
        self._optimizer = StepHooks(optimizer)
        require_scaler(scaler)
        require_layers(layers)
        require_reduction(loss_reduction)
        model = unwrapped(model)
        sees_passes = not torch_internals.LOST_PASSES
        self._cadence = Cadence(every, activations_every, histograms_every, sees_passes)
        self._loss_is_mean = loss_reduction == "mean"
        self._plan: ProbePlan = (
            plan_of_module(model, layers) if watches is None else plan_of_watches(watches, layers)
        )
        self._model, self._scaler = model, scaler
        self._unseen = {**_lost_to_torch(scaler), **self._plan.unseen}
        held = {id(p) for p in self._optimizer.parameters()}
        if held.isdisjoint(id(p) for p in model.parameters()):
            self._unseen["the model"] = "the optimizer holds none of its parameters"
        examples_of_calls = Examples(model, examples, partial(self._unseen.setdefault, "N"))
        # Refers to no probe: a cycle would keep the model in memory after the run.
        self._note: Note = partial(_note, self._plan, self._unseen)
        self._ranks = None if group is None else Ranks(group, self._note)
        self._own = OwnMetrics(metrics, self._unseen.setdefault)
        self._taps = Taps(model, self._plan, examples_of_calls, self._note, self._ranks, self._own)
        self._missing = Missing(model, self._plan, self._optimizer)
        self._meter = WeightMeter(self._plan.rows, reuse=every == 1)
        self._of_parameters = TablesOfParameters(
            *(model, self._optimizer, self._plan.rows, self._note),
            reuse=every == 1,
            with_changes=not is_bare,
        )
        self._meters: tuple[Meter, ...] = (*meters, *self._guest_meters(model, watches is None))
        self._narrow: list[Callable[[], Rows]] = []
        self._eager = EagerSteps(model, self._note)
        self._known_labels: tuple[tuple[int | None, ...], Labels] | None = None
        self._blocks: list[StepBlock] = []
        self._steps = StepMeter(model, self._optimizer)
        self._loss = LossWatch(self._steps, self._note)
        self._is_bare = is_bare
        self._num_examples: int | None = None
        self._own_cells: dict[str, ColumnCells] = {}
        self._has_own_of_gradients = False
        self._store = RowStore(partial(self._unseen.setdefault, "the tables"))
        self._wanted = self._ran_compiled = self._is_second_try = False
        self._due = Due(weights=False, activations=False, histograms=False)
        self._has_closure = False
        self._gradient_scale = _NO_SCALE
        self._inside = False
        self.step = 0
        """Optimizer steps seen so far."""

    def _guest_meters(self, model: nn.Module, is_guest: bool) -> Iterator[Meter]:
        """What measures the narrow tables of a model that has no meters of its own."""
        if not is_guest:
            return
        unseen = self._unseen.setdefault
        time = TorchTimeMeter(model, self._taps, self._plan.rows, self._note, unseen)
        if time.has_sites:
            yield time
        yield TorchAttentionMeter(model, self._taps, self._plan.rows, unseen)

    # ------------------------------------------------------------ life

    def __enter__(self) -> Probe:
        if self._inside:
            raise QuestionError("the probe is already measuring\nallowed: one `with` at a time")
        refused = self._optimizer.set(self._before_step, self._after_step)
        if refused:
            self._unseen["the optimizer"] = refused
        for what, reason in unseen_of_ranks(self._model, self._ranks).items():
            self._unseen.setdefault(what, reason)
        try:
            self._prepare()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        self._inside = True
        self._loss.enter()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._optimizer.remove()
        self._disarm()
        self._taps.leave()
        self._loss.leave()
        self._meter.collect()
        self._inside = False

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Within, updates are neither measured nor counted."""
        was_inside = self._inside
        Probe.__exit__(self, None, None, None)
        try:
            yield
        finally:
            if was_inside:
                Probe.__enter__(self)

    # ------------------------------------------------------------ what a loop may call

    def before_clip(self) -> None:
        """Measures the gradient's columns now, before the loop clips the gradient.

        With a `GradScaler`, call it after `scaler.unscale_`, as one does clipping.
        """
        if self._due.weights:
            self._safely(
                self._measure_own_of_gradients,
                self._meter.before_clip,
                self._of_parameters.before_clip,
            )
        if not self._is_bare:
            self._measure_norm(self._steps.before_clip, "grad_norm")

    def watch_loss(self, loss_fn: LossFunction) -> LossFunction:
        """Returns what to call instead of a loss function, with the same arguments and result.

        Of a module it is the module itself, which has a hook while the probe measures. Of a
        function it is an object with the function's attributes and signature, which is copied and
        pickled as the function. Within a `with`, the loss enters `steps` if a backward
        pass goes through it: the mean over an update's calls (micro-batches), of several functions
        the sum of their means; of the passes of a closure the first counts. At the steps of
        `activations_every`, the table `loss` describes the tensors of the update's first call.

        What is returned (a tensor; `loss` of a mapping or an object; the first tensor of a tuple)
        counts as it is, before the loop scales or divides it; of many entries, their mean, by the
        weights of a mask. Where the loop weighs several losses, as in `a + 0.1 * b`, or one pass
        goes through several calls of a function, it is the sum of value times dL/d(value) over the
        calls of the update, without the loss scale: the sum whose gradient the optimizer gets. If
        the loss is no weighted sum of what is watched, only `note_loss` has it right.

        Raises:
            QuestionError: it cannot be called.
        """
        return self._loss.watch(loss_fn)

    def note_loss(self, loss: Tensor | float) -> None:
        """Notes the loss of the update, where no function of the loop's own makes it.

        Call it before the optimizer's step, once a pass; `steps` has the mean of what was noted.
        Where it is called, losses that `watch_loss` sees do not count. The loss may be detached, or
        a number.

        Raises:
            QuestionError: it is neither a tensor nor a number.
        """
        self._loss.note_loss(loss)

    def want_step(self) -> None:
        """Measures everything in the current step. Call it before the forward pass."""
        self._wanted = True
        if self._inside:
            self._prepare()

    @property
    def measuring(self) -> bool:
        """Whether anything is measured in the current step."""
        return self._due.weights or self._due.passes

    @property
    def measuring_all(self) -> bool:
        """Whether everything that is ever measured is measured in the current step."""
        return self._due == self._cadence.due(self.step, wanted=True)

    def end_step_without_update(self, loss_scale: Tensor | None = None) -> None:
        """Ends a step in which the optimizer is not called, and keeps what was measured.

        `loss_scale` is what the loss was multiplied by, if it was: no scaler calls the optimizer
        that could be asked.
        """
        if self.measuring:
            self._safely(self._copy_weights, self._copy_others)
        self._measure_step()
        self._finish(loss_scale, skipped=1)

    # ------------------------------------------------------------ results

    def drain(self) -> list[Rows]:
        """Returns the rows measured since the last call. On CUDA it waits for the device.

        `to_frame` has them nevertheless.
        """
        if self._is_bare:
            return self._read(self._blocks.copy())
        self._collect()
        return self._store.take_new()

    def to_frame(self, table: str = "layers") -> pandas.DataFrame:
        """Returns all rows of a table so far as a DataFrame with the columns of its file.

        Numbers are float64, as in the tables that `vgexp.load` reads, and NaN is both a value that
        is nan and a cell without one; `is_measured` tells the two apart. pandas' own missing value
        would not: its arithmetic makes one of both.

        Further columns are those of `metrics`.

        Raises:
            QuestionError: the table is not measured.
        """
        self._require_rows(table)
        kinds = self._kinds(table)
        return frame_of(self._store.columns(table, list(kinds)), kinds)

    def is_measured(self, table: str = "layers") -> pandas.DataFrame:
        """Says of each cell of `to_frame(table)` whether it has a value, even if that is nan.

        `frame["act_std"].isna() & probe.is_measured()["act_std"]` are the values that are nan.

        Raises:
            QuestionError: the table is not measured.
        """
        import pandas as pd

        self._require_rows(table)
        columns = self._store.columns(table, list(self._kinds(table)))
        return pd.DataFrame({n: measured_cells(x) for n, x in columns.items()}, dtype=bool)

    def _kinds(self, table: str) -> Mapping[str, str]:
        own = self._own.columns if table == "layers" else ()
        return {**kinds_of(table), **{column.name: column.kind for column in own}}

    def _require_rows(self, table: str) -> None:
        """Has all rows of a table in the store."""
        if table == "histograms" and not self._cadence.histograms_every:
            raise impossible("histograms_every", 0, "an integer of at least 1, to have this table")
        if table not in self.tables:
            if table in TABLES:
                raise QuestionError(
                    f"the probe has no table {table!r}: {_ABSENT.get(table, _OF_RUNS)}\n"
                    f"allowed: {', '.join(sorted(self.tables))}"
                )
            raise unknown("table", table, self.tables)
        if self._is_bare:
            raise QuestionError("a bare probe keeps no rows\nallowed: probe.drain()")
        self._collect()

    @property
    def tables(self) -> tuple[str, ...]:
        """The names of the measured tables; `histograms` only with `histograms_every`, `loss` only
        with `watch_loss`."""
        own = ["layers"] if self._is_bare else ["layers", "steps"]
        own += self._of_parameters.tables
        own += ["loss"] if self._loss.is_used else []
        own += ["histograms"] if self._cadence.histograms_every else []
        meters = (meter for meter in self._meters if getattr(meter, "has_sites", True))
        return (*own, *dict.fromkeys(meter.table for meter in meters))

    @property
    def unseen(self) -> list[str]:
        """What the probe could not measure, and why: `weight, weight: reason`, one a reason.

        First comes what keeps weights from learning or is missing of the whole model; last the
        weights that no activation follows.
        """
        reasons: dict[str, list[str]] = {}
        for name, reason in self._unseen.items():
            reasons.setdefault(reason, []).append(name)
        if unregistered := self._taps.unregistered:
            reasons[UNREGISTERED.format(", ".join(unregistered[:MOST_NAMES]))] = ["the model"]
        if not self.step:
            reasons[NO_STEP] = ["the model"]
        return lines(reasons | self._missing.reasons(self._unseen))

    # ------------------------------------------------------------ one step

    def _prepare(self) -> None:
        """Sets or removes hooks for the coming step."""
        self._due = self._cadence.due(self.step, wanted=self._wanted)
        self._loss.describes = self._due.activations
        self._steps.is_measured = self._due.weights
        if self._due.passes:
            self._safely(self._eager.begin)
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

    @property
    def _is_whole(self) -> bool:
        return self._wanted or self.step == 0

    def _disarm(self) -> None:
        self._eager.end()
        self._taps.disarm()
        self._of_parameters.disarm()
        for meter in self._meters:
            meter.disarm()

    def _before_step(self, _: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Measures all but the update; a closure's passes and gradients come only in the step."""
        if torch.compiler.is_compiling():
            return
        # The first argument is the optimizer itself.
        self._has_closure = any(argument is not None for argument in (*args[1:], *kwargs.values()))
        self._loss.is_in_step = self._has_closure
        if self.measuring:
            self._safely(self._copy_weights, self._copy_others)
        if not self._has_closure:
            self._measure_step()

    def _after_step(self, *_: object) -> None:
        if torch.compiler.is_compiling():
            return
        if self._has_closure:
            self._measure_step()
        if self._due.weights:
            self._safely(self._meter.after_step, self._of_parameters.after_step)
        self._finish()

    def _copy_weights(self) -> None:
        if self._due.weights:
            self._own_cells |= self._own.of_tensors("weight", self._meter.weights)
            self._meter.copy_weights()

    def _copy_others(self) -> None:
        if self._due.weights:
            self._of_parameters.before_step()

    def _measure_own_of_gradients(self) -> None:
        """Measures the user's metrics of gradients, once an update."""
        if not self._has_own_of_gradients:
            self._has_own_of_gradients = True
            self._own_cells |= self._own.of_tensors("gradient", self._meter.gradients)

    def _measure_step(self) -> None:
        """Measures all but the update, with the gradient that the optimizer takes."""
        # A fused optimizer gets scaled gradients, and divides by this within its step.
        held = self._optimizer.gradient_scale()
        self._gradient_scale = _NO_SCALE if held is None else held.clone()
        if self.measuring:
            self._safely(self._measure_gradients, self._measure_passes)
        if not self._is_bare:
            self._measure_norm(self._steps.take_gradients, "grad_norm_clipped")

    def _measure_norm(self, measure: Callable[[Mapping[int, float]], None], of_parts: str) -> None:
        """Measures the norm of the whole gradient; an error is noted as that of `steps`.

        Where the column `of_parts` was measured in this step, it is made of that.
        """
        tables = self._meter, self._of_parameters
        try:
            with torch.no_grad():
                known = [table.gradient_norms(of_parts) for table in tables]
                measure(known[0] | known[1])
        except Exception as error:
            self._unseen.setdefault("grad_norm of steps", f"{type(error).__name__}: {error}")

    def _measure_gradients(self) -> None:
        if self._due.weights:
            self._measure_own_of_gradients()
            self._safely(self._of_parameters.take_gradients)
            self._meter.take_gradients()

    def _measure_passes(self) -> None:
        if not self._due.passes:
            return
        is_missed = self._eager.came_too_late and not self._taps.has_passes
        if is_missed and not self._is_second_try:
            self._ran_compiled = self._is_second_try = True
            self._note(None, RAN_COMPILED)
        else:
            self._taps.reduce()

    def _finish(self, loss_scale: Tensor | None = None, skipped: Number = None) -> None:
        """Ends the step, even if measuring it failed."""
        if self._due.weights:
            self._safely(self._meter.join_shards, self._of_parameters.join_shards)
        if self.measuring:
            self._safely(partial(self._add_block, loss_scale))
        else:
            self._safely(partial(self._end_parameters, None))
        if not self._is_bare:
            self._safely(partial(self._add_step, loss_scale, skipped), self._collect_many)
        self._own_cells, self._has_own_of_gradients = {}, False
        self._gradient_scale = _NO_SCALE
        self._wanted, self._ran_compiled, self._has_closure = self._ran_compiled, False, False
        self.step += 1
        self._prepare()

    def _add_step(self, loss_scale: Number, skipped: Number) -> None:
        """Adds the row of `steps`."""
        scale = self._loss_scale() if loss_scale is None else loss_scale
        loss = self._loss.end_step(self.step, scale)
        if loss is None and self._loss.is_used:
            self._unseen.setdefault("the loss", NO_LOSS.format(self.step))
        if skipped is None:
            held = self._optimizer.found_inf()
            skipped = 0 if held is None else held.clone()
        self._steps.end_step(self.step, loss, scale, self._gradient_scale, skipped)

    def _add_block(self, loss_scale: Tensor | None) -> None:
        cells = self._meter.collect() | self._own_cells
        self._safely(partial(self._end_parameters, cells if self._due.weights else None))
        factor: float = 1
        scale = _NO_SCALE
        labels = self._labels()
        if self._due.passes:
            seen, examples, histograms = self._taps.collect()
            self._num_examples = examples or self._num_examples
            if not self._ran_compiled:
                self._note_missing(seen)
            if self._due.histograms:
                self._narrow.append(partial(histograms.rows, self.step, labels))
        if self._due.activations:
            scale = self._loss_scale() if loss_scale is None else loss_scale
            cells = {**cells, **seen}
            factor = examples if self._loss_is_mean else 1
            if self._ranks is not None:
                factor /= self._ranks.size
            narrow = (meter.take(self.step, factor, scale) for meter in self._meters)
            self._narrow += [rows for rows in narrow if rows is not None]
        self._missing.take(cells)
        if cells:
            added = StepCells(self.step, cells, factor, scale, self._gradient_scale)
            self._keep(labels, added)

    def _end_parameters(self, cells: Mapping[str, ColumnCells] | None) -> None:
        scale, is_whole = self._gradient_scale, self._is_whole
        self._of_parameters.end_step(self.step, cells, scale, is_whole=is_whole)

    def _loss_scale(self) -> Tensor | float:
        """What the loss is multiplied by now; 1 where no scaler is given and none is found."""
        scaler = self._scaler or torch_internals.find_calling_scaler()
        return _NO_SCALE if scaler is None else torch_internals.scale_of(scaler)

    def _collect_many(self) -> None:
        """Puts rows into the store where many wait."""
        if (
            len(self._blocks) > _MOST_BLOCKS
            or len(self._narrow) >= _MOST_NARROW
            or len(self._loss) >= _MOST_NARROW
            or len(self._steps) >= _MOST_STEPS
        ):
            self._collect(self._blocks[:-1])

    def _collect(self, blocks: list[StepBlock] | None = None) -> None:
        """Puts rows into the store; of layers those of blocks that end here, by default all."""
        blocks = self._blocks.copy() if blocks is None else blocks
        for rows in (*self._read(blocks), self._steps.drain(), self._loss.drain()):
            if rows is not None:
                self._put(rows)

    def _put(self, rows: Rows) -> None:
        """Keeps rows."""
        self._store.add(rows)

    def _read(self, blocks: list[StepBlock]) -> list[Rows]:
        """Reads blocks off the device, and the narrow tables; they are forgotten here."""
        self._blocks = self._blocks[len(blocks) :]
        narrow, self._narrow = self._narrow, []
        beside = self._of_parameters.drain()
        return [*(block.rows() for block in blocks), *beside, *(rows() for rows in narrow)]

    def _keep(self, labels: Labels, added: StepCells) -> None:
        if self._blocks and self._blocks[-1].takes(labels, added):
            self._blocks[-1].add(added)
            return
        if self._blocks:
            self._blocks[-1].close()
        self._blocks.append(StepBlock(labels, added))

    def _labels(self) -> Labels:
        """The labels of rows, made anew only when a forward pass has changed their numbers."""
        numbering = tuple([row.layer for row in self._plan.rows])
        if self._known_labels is None or self._known_labels[0] != numbering:
            self._known_labels = numbering, labels_of(self._plan.rows)
        return self._known_labels[1]

    def _safely(self, *measurements: Callable[[], None]) -> None:
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


def _note(plan: ProbePlan, unseen: dict[str, str], row: int | None, reason: str) -> None:
    """Adds to `unseen` why something could not be measured; the first reason stays."""
    unseen.setdefault("the model" if row is None else plan.rows[row].name, reason)


def _require_model(model: object) -> None:
    if not isinstance(model, nn.Module):
        raise QuestionError(
            f"Probe: model is of type {type(model).__name__}\n"
            "allowed: a torch.nn.Module, as in Probe(model, optimizer)"
        )


def _lost_to_torch(scaler: GradScaler | None) -> dict[str, str]:
    """What cannot be measured with the installed version of torch, and why."""
    lost = {"z, h and dL/dz": torch_internals.LOST_PASSES}
    if scaler is None:
        lost["the loss scale"] = torch_internals.LOST_SCALER
    return {what: reason for what, reason in lost.items() if reason}


_NO_SCALE: Tensor | float = 1.0
