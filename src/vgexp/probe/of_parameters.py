"""The two tables that have a row a parameter, measured around one optimizer step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from vgexp.probe.hooks import Note
from vgexp.probe.moments import ColumnCells
from vgexp.probe.optimizers import StepHooks
from vgexp.probe.parameters import ParameterTable, other_parameters
from vgexp.probe.plan import PlanRow
from vgexp.probe.wiring import Wiring
from vgexp.records import Rows


class TablesOfParameters:
    """`parameters.csv` and `wiring.csv` of one model.

    Args:
        weights: the rows of `layers.csv`.
        reuse: as of `WeightMeter`.
        with_changes: as of `Wiring`.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: StepHooks,
        weights: Sequence[PlanRow],
        note: Note,
        *,
        reuse: bool,
        with_changes: bool,
    ) -> None:
        self._weights = weights
        self._others = other_parameters(model, weights)
        self._table = ParameterTable(self._others, reuse=reuse)
        self._wiring = Wiring(model, optimizer, note, with_changes=with_changes)

    @property
    def tables(self) -> tuple[str, ...]:
        """The names of the tables that there are."""
        return ("parameters", "wiring") if self._others else ("wiring",)

    def prepare(self, step: int, *, is_due: bool, is_whole: bool) -> None:
        """Sets or removes hooks for the coming step."""
        self._wiring.prepare(step, is_due=is_due, is_whole=is_whole)

    def disarm(self) -> None:
        """Removes all hooks, and forgets the step at hand."""
        self._wiring.disarm()
        self._table.meter.collect()

    def before_clip(self) -> None:
        """Measures gradients before they are clipped."""
        self._table.meter.before_clip()

    def before_step(self) -> None:
        """Notes what is there before the update."""
        self._wiring.before_step()
        self._table.meter.copy_weights()

    def take_gradients(self) -> None:
        """Measures the gradients that the optimizer sees."""
        self._wiring.see_gradients()
        self._table.meter.take_gradients()

    def gradient_norms(self, column: str) -> dict[int, float]:
        """As of `WeightMeter`, of the parameters of `parameters.csv`."""
        return self._table.meter.gradient_norms(column)

    def after_step(self) -> None:
        """Measures the update."""
        self._table.meter.after_step()

    def join_shards(self) -> None:
        """Makes the numbers of sharded parameters those of the whole."""
        self._table.meter.join_shards()

    def end_step(
        self,
        step: int,
        of_weights: Mapping[str, ColumnCells] | None,
        gradient_scale: Tensor | float,
        *,
        is_whole: bool,
    ) -> None:
        """Ends a step, with the cells of the weights; None: it was not measured."""
        if of_weights is None:
            self._wiring.end_step(step, (), is_whole=False)
            return
        of_others = self._table.take(step, gradient_scale)
        measured = ((self._weights, of_weights), (self._others, of_others))
        self._wiring.end_step(step, measured, is_whole=is_whole)

    def drain(self) -> list[Rows]:
        """Returns the rows since the last call; waits for the device."""
        return [*self._table.drain(), *self._wiring.drain()]
