"""`parameters.csv`: the parameters that have no row in `layers.csv`.

These are biases, gains of normalisations, and whatever else a module holds. Together with the rows
of `layers.csv` they are all that is trained: the squares of `grad_norm` of both tables add up to
the square of the norm of the whole gradient.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from vgexp.probe.block import StepBlock, StepCells, labels_of
from vgexp.probe.flat import Members
from vgexp.probe.moments import ColumnCells
from vgexp.probe.plan import NORMS, PlanRow
from vgexp.probe.weights import WeightMeter
from vgexp.quantities import PARAMETERS
from vgexp.records import Rows


def other_parameters(model: nn.Module, weights: Sequence[PlanRow]) -> list[PlanRow]:
    """Plans a row for each parameter that is none of these weights, in the order of the model."""
    taken = {id(row.weight) for row in weights}
    members = Members(model)
    of_norms = {id(p) for m in model.modules() if _is_norm(m) for _, p in members.own(m)}
    return [
        PlanRow(name, p, None, "norm" if id(p) in of_norms else _kind(name), is_wanted=True)
        for name, p in members.parameters()
        if id(p) not in taken
    ]


class ParameterTable:
    """Measures the parameters of such rows around one optimizer step, as `WeightMeter` does."""

    def __init__(self, rows: Sequence[PlanRow], *, reuse: bool = False) -> None:
        self.meter = WeightMeter(rows, reuse=reuse, measures={})
        self._weights = [row.weight for row in rows if row.weight is not None]
        self._labels = labels_of(rows)
        self._blocks: list[StepBlock] = []

    def take(self, step: int, gradient_scale: Tensor | float) -> dict[str, ColumnCells]:
        """Ends a step, keeps its rows, and returns its cells."""
        cells = self.meter.collect()
        if self._weights and cells:
            added = StepCells(step, cells, 1, 1.0, gradient_scale)
            if self._blocks and self._blocks[-1].takes(self._labels, added):
                self._blocks[-1].add(added)
            else:
                if self._blocks:
                    self._blocks[-1].close()
                self._blocks.append(StepBlock(self._labels, added))
        return cells

    def drain(self) -> list[Rows]:
        """Returns the rows since the last call; waits for the device."""
        blocks, self._blocks = self._blocks, []
        return [self._narrow(block.rows()) for block in blocks]

    def _narrow(self, rows: Rows) -> Rows:
        """Of rows with the columns of `layers.csv`, those of `parameters.csv`."""
        entries = [weight.numel() for weight in self._weights]
        entries *= len(rows) // len(entries)
        found: dict[str, Sequence[Any]] = {**rows.columns, "entries": entries}
        if "weight_norm" in found:
            found["norm"] = found["weight_norm"]
        return Rows("parameters", {c.name: found[c.name] for c in PARAMETERS if c.name in found})


def _is_norm(module: nn.Module) -> bool:
    """A normalisation: one of torch, or one that is called so, as in `LlamaRMSNorm`."""
    return isinstance(module, NORMS) or "Norm" in type(module).__name__


def _kind(name: str) -> str:
    return "bias" if name.rpartition(".")[2].startswith("bias") else "other"
