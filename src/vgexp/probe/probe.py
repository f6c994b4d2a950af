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
from vgexp.probe.examples import Examples, Given
from vgexp.probe.hooks import Note
from vgexp.probe.moments import ColumnCells
from vgexp.probe.plan import ProbePlan, plan_of_module, plan_of_watches
from vgexp.probe.taps import Taps
from vgexp.probe.weights import WeightMeter
from vgexp.quantities import TABLES
from vgexp.records import Rows
from vgexp.watch import Meter, Watch

if TYPE_CHECKING:
    import pandas

LOSS_REDUCTIONS = ("mean", "sum")


class Probe:
    """Measures the columns of `layers.csv` for any `nn.Module` while it trains.

    It makes a row for each weight matrix or kernel at each measured optimizer step. The training
    loop stays as it is. The probe draws no random number, changes no tensor and leaves no hook.

    A weight that a forward pass uses several times, by one module called again or by several that
    share it, has one row: its gradient is the sum over the uses, as autograd has it, and the
    columns of z, h and dL/dz are over the entries of all uses. `layer` and `kind` are those of the
    first use; the later ones take no number. `unseen` lists such weights.

    Args:
        every: steps between the columns of weights and gradients; step 0 is always measured.
        activations_every: steps between the other columns.
        histograms_every: steps between the rows of `histograms.csv`; 0: none.
        layers: a regular expression on weight names; None for all.
        loss_reduction: `mean` if the loss is a mean over the update's N examples (then `delta_rms`
            is that of N dL/dz), `sum` if it is their sum. N is over all passes of the update.
        watches: where to measure, of a model that says so; None to find it from the modules.
        meters: what measures a model's narrow tables, at the steps of `activations_every`.
        scaler: the `GradScaler` that scales the loss, whose scale is divided out of `delta_rms`;
            None: the one that calls the optimizer, if one does.
        examples: N of a call of the model: a number, or a function of the call's arguments, as in
            `examples=lambda x, **_: len(x)`. None: read off the arguments, which is the size of dim
            0 of a tensor, and of a list of images, a packed sequence or a batch of graphs their
            number; `unseen` says where that is a guess.

    Raises:
        QuestionError: no model or optimizer, an impossible cadence, pattern, reduction, scaler or
            number of examples.
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
        scaler: GradScaler | None = None,
        examples: Given = None,
    ) -> None:
        _require_kinds(model, optimizer)
        _require_scaler(scaler)
        sees_passes = not torch_internals.LOST_PASSES
        self._cadence = Cadence(every, activations_every, histograms_every, sees_passes)
        if layers is not None and not isinstance(layers, str):
            raise impossible("layers", layers, "a regular expression as text, or None")
        if loss_reduction not in LOSS_REDUCTIONS:
            raise unknown("loss_reduction", loss_reduction, LOSS_REDUCTIONS)
        self._optimizer = optimizer
        self._loss_is_mean = loss_reduction == "mean"
        self._plan: ProbePlan = (
            plan_of_module(model, layers) if watches is None else plan_of_watches(watches, layers)
        )
        self._scaler = scaler
        self._unseen = {**_lost_to_torch(scaler), **self._plan.unseen}
        held = {id(p) for group in optimizer.param_groups for p in group["params"]}
        if held.isdisjoint(id(p) for p in model.parameters()):
            self._unseen["the model"] = "the optimizer holds none of its parameters"
        examples_of_calls = Examples(model, examples, partial(_tell, self._unseen, "N"))
        # Refers to no probe: a cycle would keep the model in memory after the run.
        self._note: Note = partial(_note, self._plan, self._unseen)
        self._taps = Taps(model, self._plan, examples_of_calls, self._note)
        self._meter = WeightMeter(self._plan.rows, reuse=every == 1)
        self._meters = meters
        self._narrow: list[Callable[[], Rows]] = []
        self._optimizer_hooks: list[Any] = []
        self._known_labels: tuple[tuple[int | None, ...], Labels] | None = None
        self._blocks: list[StepBlock] = []
        self._rows: list[Rows] = []
        self._wanted = False
        self._due = Due(weights=False, activations=False, histograms=False)
        self._has_closure = False
        self._gradient_scale = _NO_SCALE
        self._inside = False
        self.step = 0
        """Optimizer steps seen so far."""

    # ------------------------------------------------------------ life

    def __enter__(self) -> Probe:
        if self._inside:
            raise QuestionError("the probe is already measuring\nallowed: one `with` at a time")
        self._inside = True
        self._optimizer_hooks = [
            self._optimizer.register_step_pre_hook(self._before_step),
            self._optimizer.register_step_post_hook(self._after_step),
        ]
        self._prepare()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for handle in self._optimizer_hooks:
            handle.remove()
        self._optimizer_hooks = []
        self._disarm()
        self._taps.leave()
        self._meter.collect()
        self._inside = False

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Within, updates are neither measured nor counted."""
        was_inside = self._inside
        self.__exit__(None, None, None)
        try:
            yield
        finally:
            if was_inside:
                self.__enter__()

    # ------------------------------------------------------------ what a loop may call

    def before_clip(self) -> None:
        """Measures the gradient's columns now, before the loop clips the gradient.

        With a `GradScaler`, call it after `scaler.unscale_`, as one does clipping.
        """
        if self._due.weights:
            self._safely(self._meter.before_clip)

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
        self._safely(self._copy_weights, self._measure)
        self._finish(loss_scale)

    # ------------------------------------------------------------ results

    def drain(self) -> list[Rows]:
        """Returns the rows measured since the last call. On CUDA it waits for the device."""
        blocks, self._blocks = self._blocks, []
        narrow, self._narrow = self._narrow, []
        return [*(block.rows() for block in blocks), *(rows() for rows in narrow)]

    def to_frame(self, table: str = "layers") -> pandas.DataFrame:
        """Returns all rows of a table so far as a DataFrame with the columns of its file.

        Raises:
            QuestionError: the table is not measured.
        """
        import pandas as pd

        if table == "histograms" and not self._cadence.histograms_every:
            raise impossible("histograms_every", 0, "an integer of at least 1, to have this table")
        if table not in self.tables:
            raise unknown("table", table, self.tables)
        self._rows += self.drain()
        # There is no theory of a user's model.
        kinds = {c.name: c.kind for c in TABLES[table] if not c.is_predicted}
        columns: dict[str, list[Any]] = {name: [] for name in kinds}
        for rows in self._rows:
            if rows.table == table:
                for name in kinds:
                    columns[name] += rows.columns.get(name, [None] * len(rows))
        types = {"int": "Int64", "float": "float64", "text": "str"}
        return pd.DataFrame(
            {name: pd.Series(columns[name], dtype=types[kind]) for name, kind in kinds.items()}
        )

    @property
    def tables(self) -> tuple[str, ...]:
        """The names of the measured tables; `histograms` only with `histograms_every`."""
        own = ("layers", "histograms") if self._cadence.histograms_every else ("layers",)
        return (*own, *dict.fromkeys(meter.table for meter in self._meters))

    @property
    def unseen(self) -> list[str]:
        """What the probe could not measure, and why: `weight: reason`, one entry a weight."""
        seen = [f"{name}: {reason}" for name, reason in self._unseen.items()]
        return seen if self.step else [*seen, "the model: no optimizer step was seen in a `with`"]

    # ------------------------------------------------------------ one step

    def _prepare(self) -> None:
        """Sets or removes hooks for the coming step."""
        self._due = self._cadence.due(self.step, wanted=self._wanted)
        if self._due.passes:
            self._taps.arm(with_histograms=self._due.histograms)
        else:
            self._taps.disarm()
        for meter in self._meters:
            if self._due.activations:
                meter.arm()
            else:
                meter.disarm()

    def _disarm(self) -> None:
        self._taps.disarm()
        for meter in self._meters:
            meter.disarm()

    def _before_step(self, _: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Measures all but the update; a closure's passes and gradients come only in the step."""
        if not self.measuring:
            return
        # The first argument is the optimizer itself.
        self._has_closure = any(argument is not None for argument in (*args[1:], *kwargs.values()))
        self._safely(self._copy_weights)
        if not self._has_closure:
            self._safely(self._measure)

    def _after_step(self, *_: object) -> None:
        if self._has_closure:
            self._safely(self._measure)
        if self._due.weights:
            self._safely(self._meter.after_step)
        self._finish()

    def _copy_weights(self) -> None:
        if self._due.weights:
            self._meter.copy_weights()

    def _measure(self) -> None:
        # A fused optimizer gets scaled gradients, and divides by this within its step.
        held = getattr(self._optimizer, "grad_scale", None)
        self._gradient_scale = _NO_SCALE if held is None else held.clone()
        if self._due.weights:
            self._meter.take_gradients()
        if self._due.passes:
            self._taps.reduce()

    def _finish(self, loss_scale: Tensor | None = None) -> None:
        """Ends the step, even if measuring it failed."""
        if self.measuring:
            self._safely(partial(self._add_block, loss_scale))
        self._wanted = self._has_closure = False
        self.step += 1
        self._prepare()

    def _add_block(self, loss_scale: Tensor | None) -> None:
        cells = self._meter.collect()
        factor, scale = 1, _NO_SCALE
        labels = self._labels()
        if self._due.passes:
            seen, examples, histograms = self._taps.collect()
            self._note_missing(seen)
            if self._due.histograms:
                self._narrow.append(partial(histograms.rows, self.step, labels))
        if self._due.activations:
            scale = self._loss_scale() if loss_scale is None else loss_scale
            cells = {**cells, **seen}
            factor = examples if self._loss_is_mean else 1
            narrow = (meter.take(self.step, examples, scale) for meter in self._meters)
            self._narrow += [rows for rows in narrow if rows is not None]
        if cells:
            added = StepCells(self.step, cells, factor, scale, self._gradient_scale)
            self._keep(labels, added)

    def _loss_scale(self) -> Tensor | float:
        """What the loss is multiplied by now; 1 where no scaler is given and none is found."""
        scaler = self._scaler or torch_internals.find_calling_scaler()
        return _NO_SCALE if scaler is None else torch_internals.scale_of(scaler)

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
        """Calls functions, and notes an error instead of raising it in the user's training."""
        try:
            with torch.no_grad():
                for measure in measurements:
                    measure()
        except Exception as error:
            self._note(None, f"measuring raised {type(error).__name__}: {error}")

    def _note_missing(self, cells: Mapping[str, ColumnCells]) -> None:
        seen = set(cells["preact_mean"].rows) if "preact_mean" in cells else set()
        for index, row in enumerate(self._plan.rows):
            if index not in seen and row.is_wanted and index in self._plan.shown:
                self._unseen.setdefault(row.name, "no call of its module was seen with gradients")


def _tell(unseen: dict[str, str], what: str, reason: str) -> None:
    """Adds to `unseen` something of the model as a whole; the first reason stays."""
    unseen.setdefault(what, reason)


def _note(plan: ProbePlan, unseen: dict[str, str], row: int | None, reason: str) -> None:
    """Adds to `unseen` why something could not be measured; the first reason stays."""
    unseen.setdefault("the model" if row is None else plan.rows[row].name, reason)


def _require_kinds(model: object, optimizer: object) -> None:
    """Refuses what is no model or optimizer; an optimizer need not be of `torch.optim`."""
    is_model = isinstance(model, nn.Module)
    if is_model and hasattr(optimizer, "register_step_pre_hook"):
        return
    name, given = ("optimizer", optimizer) if is_model else ("model", model)
    allowed = "a torch.optim.Optimizer" if is_model else "a torch.nn.Module"
    raise QuestionError(
        f"Probe: {name} is of type {type(given).__name__}\n"
        f"allowed: {allowed}, as in Probe(model, optimizer)"
    )


def _require_scaler(scaler: object) -> None:
    if scaler is not None and not isinstance(scaler, GradScaler):
        raise QuestionError(
            f"Probe: scaler is of type {type(scaler).__name__}\n"
            "allowed: a torch.amp.GradScaler, or None where the loss is not scaled"
        )


def _lost_to_torch(scaler: GradScaler | None) -> dict[str, str]:
    """What cannot be measured with the installed version of torch, and why."""
    lost = {"z, h and dL/dz": torch_internals.LOST_PASSES}
    if scaler is None:
        lost["the loss scale"] = torch_internals.LOST_SCALER
    return {what: reason for what, reason in lost.items() if reason}


_NO_SCALE: Tensor | float = 1.0
