"""The probe, which measures the layers of a model in the user's own training loop."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.amp import GradScaler

from vgexp import torch_internals
from vgexp.errors import QuestionError, impossible, unknown
from vgexp.probe.cadence import Cadence
from vgexp.probe.examples import Examples, Given
from vgexp.probe.hooks import Note
from vgexp.probe.loss import LossFunction
from vgexp.probe.measuring import Measuring
from vgexp.probe.meters import meters_of
from vgexp.probe.optimizers import StepHooks
from vgexp.probe.own_metrics import OwnMetrics
from vgexp.probe.plan import NO_SINGLE_OUTPUT, ProbePlan, plan_of_module, plan_of_watches
from vgexp.probe.ranks import Ranks, unseen_of_ranks, unwrapped
from vgexp.probe.results import Results
from vgexp.probe.settings import require_layers, require_reduction, require_scaler
from vgexp.probe.taps import Taps
from vgexp.probe.unseen import lines
from vgexp.quantities import TABLES
from vgexp.records import Rows
from vgexp.unseen import NO_STEP, UNREGISTERED, list_shapes
from vgexp.watch import Meter, Watch

if TYPE_CHECKING:
    import pandas

_ABSENT = {
    "time": (
        "this model has no nn.RNN, nn.LSTM or nn.GRU, and no weight of it was used again and again"
        " in a pass, each time on what became of the last"
    ),
    "attention": "no call of torch's attention was seen in this model",
    "loss": "no loss is watched (probe.watch_loss)",
    "evals": "no call of a watched loss without gradients was seen",
}
_OF_RUNS = "only runs of vgexp train and vgexp signal have it"
"""Why a probe may lack a table."""


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
        self._model = model = unwrapped(model)
        self._cadence = Cadence(
            *(every, activations_every, histograms_every, not torch_internals.LOST_PASSES)
        )
        self._plan: ProbePlan = (
            plan_of_module(model, layers) if watches is None else plan_of_watches(watches, layers)
        )
        self._unseen = {**_lost_to_torch(scaler), **self._plan.unseen}
        if not _holds_any(self._optimizer, model):
            self._unseen["the model"] = "the optimizer holds none of its parameters"
        # Refers to no probe: a cycle would keep the model in memory after the run.
        note: Note = partial(_note, self._plan, self._unseen)
        self._ranks = None if group is None else Ranks(group, note)
        self._own = OwnMetrics(metrics, self._unseen.setdefault)
        counted = Examples(model, examples, partial(self._unseen.setdefault, "N"))
        self._taps = Taps(model, self._plan, counted, note, self._ranks, self._own)
        if watches is None:
            found = meters_of(
                model, self._taps, self._plan.rows, note, self._unseen, is_bare=is_bare
            )
            meters = [*meters, *found]
        self._measuring = Measuring(
            *(model, self._optimizer, self._plan, self._cadence, self._taps, note, self._unseen),
            own=self._own,
            scaler=scaler,
            ranks=self._ranks,
            meters=tuple(meters),
            loss_is_mean=loss_reduction == "mean",
            is_bare=is_bare,
        )
        self._results = Results(self._own.columns, partial(self._unseen.setdefault, "the tables"))
        self._is_bare = is_bare
        self._inside = False

    @property
    def step(self) -> int:
        """Optimizer steps seen so far."""
        return self._measuring.step

    @step.setter
    def step(self, step: int) -> None:
        self._measuring.step = step

    # ------------------------------------------------------------ life

    def __enter__(self) -> Probe:
        if self._inside:
            raise QuestionError("the probe is already measuring\nallowed: one `with` at a time")
        try:
            refused = self._optimizer.set(self._before_step, self._after_step)
            if refused:
                self._unseen["the optimizer"] = refused
            for what, reason in unseen_of_ranks(self._model, self._ranks, self._own).items():
                self._unseen.setdefault(what, reason)
            self._measuring.prepare()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        self._inside = True
        self._measuring.enter()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._optimizer.remove()
        self._measuring.leave()
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
        self._measuring.before_clip()

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
        return self._measuring.loss.watch(loss_fn)

    def note_loss(self, loss: Tensor | float) -> None:
        """Notes the loss of the update, where no function of the loop's own makes it.

        Call it before the optimizer's step, once a pass; `steps` has the mean of what was noted.
        Where it is called, losses that `watch_loss` sees do not count. The loss may be detached, or
        a number.

        Raises:
            QuestionError: it is neither a tensor nor a number.
        """
        self._measuring.loss.note_loss(loss)

    def want_step(self) -> None:
        """Measures everything in the current step. Call it before the forward pass."""
        self._measuring.want()
        if self._inside:
            self._measuring.prepare()

    @property
    def measuring(self) -> bool:
        """Whether anything is measured in the current step."""
        return self._measuring.is_measuring

    @property
    def measuring_all(self) -> bool:
        """Whether everything that is ever measured is measured in the current step."""
        return self._measuring.is_measuring_all

    def end_step_without_update(self, loss_scale: Tensor | None = None) -> None:
        """Ends a step in which the optimizer is not called, and keeps what was measured.

        `loss_scale` is what the loss was multiplied by, if it was: no scaler calls the optimizer
        that could be asked.
        """
        self._measuring.instead_of_step()
        self._finish(loss_scale, skipped=1)

    # ------------------------------------------------------------ results

    def drain(self) -> list[Rows]:
        """Returns the rows measured since the last call. On CUDA it waits for the device.

        `to_frame` has them nevertheless.
        """
        if self._is_bare:
            return self._measuring.read()
        self._collect()
        return self._results.store.take_new()

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
        return self._results.frame(table)

    def is_measured(self, table: str = "layers") -> pandas.DataFrame:
        """Says of each cell of `to_frame(table)` whether it has a value, even if that is nan.

        `frame["act_std"].isna() & probe.is_measured()["act_std"]` are the values that are nan.

        Raises:
            QuestionError: the table is not measured.
        """
        self._require_rows(table)
        return self._results.measured(table)

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
        return self._measuring.tables

    @property
    def unseen(self) -> list[str]:
        """What the probe could not measure, and why: `weight, weight: reason`, one a reason.

        First comes what keeps weights from learning or is missing of the whole model; last the
        weights that no activation follows.
        """
        reasons: dict[str, list[str]] = {}
        for name, reason in self._unseen.items():
            # Of a parameter of which no module shows z, a function may have.
            if reason == NO_SINGLE_OUTPUT and self._measuring.is_shown(name):
                continue
            reasons.setdefault(reason, []).append(name)
        held = self._optimizer.of_others | {
            id(p) for group in self._optimizer.groups() for p in group["params"]
        }
        unregistered = [words for i, words in self._taps.unregistered.items() if i not in held]
        if unregistered:
            reasons[UNREGISTERED.format(list_shapes(unregistered))] = ["the model"]
        if not self.step:
            reasons[NO_STEP] = ["the model"]
        return lines(reasons | self._measuring.reasons())

    # ------------------------------------------------------------ one step

    def _before_step(self, _: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if not torch.compiler.is_compiling():
            # The first argument is the optimizer itself.
            given = (*args[1:], *kwargs.values())
            self._measuring.before_step(has_closure=any(each is not None for each in given))

    def _after_step(self, *_: object) -> None:
        if not torch.compiler.is_compiling():
            self._measuring.after_step()
            self._finish()

    def _finish(self, loss_scale: Tensor | None = None, skipped: int | None = None) -> None:
        self._measuring.end_step(loss_scale, skipped)
        if not self._is_bare:
            self._measuring.safely(self._collect_many)
        self._measuring.begin_next()

    # ------------------------------------------------------------ rows

    def _collect_many(self) -> None:
        """Puts rows into the store where many wait."""
        for rows in self._measuring.read_many():
            self._put(rows)

    def _collect(self) -> None:
        """Puts all rows into the store."""
        for rows in self._measuring.read():
            self._put(rows)

    def _put(self, rows: Rows) -> None:
        """Keeps rows."""
        self._results.store.add(rows)


def _note(plan: ProbePlan, unseen: dict[str, str], row: int | None, reason: str) -> None:
    """Adds to `unseen` why something could not be measured; the first reason stays."""
    unseen.setdefault("the model" if row is None else plan.rows[row].name, reason)


def _require_model(model: object) -> None:
    if not isinstance(model, nn.Module):
        raise QuestionError(
            f"Probe: model is of type {type(model).__name__}\n"
            "allowed: a torch.nn.Module, as in Probe(model, optimizer)"
        )


def _holds_any(optimizer: StepHooks, model: nn.Module) -> bool:
    """Whether the optimizer holds any parameter of the model."""
    held = {id(p) for p in optimizer.parameters()}
    return not held.isdisjoint(id(p) for p in model.parameters())


def _lost_to_torch(scaler: GradScaler | None) -> dict[str, str]:
    """What cannot be measured with the installed version of torch, and why."""
    lost = {"z, h and dL/dz": torch_internals.LOST_PASSES}
    if scaler is None:
        lost["the loss scale"] = torch_internals.LOST_SCALER
    return {what: reason for what, reason in lost.items() if reason}
