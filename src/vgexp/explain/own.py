"""A run's own numbers, as pages put them into formulas. What the run lacks is None, or empty."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeGuard

from vgexp.config import choice
from vgexp.errors import QuestionError

if TYPE_CHECKING:
    from vgexp.past import PastRun

_COLUMNS = (
    *("weight_norm", "grad_norm", "grad_max", "grad_norm_clipped", "update_ratio"),
    *("preact_std", "saturated_fraction", "dead_fraction", "delta_rms", "backward_gain"),
    "predicted_backward_gain",
)
_READOUT = "readout"


class Own:
    """The numbers of one run. Each table is read when a page first asks for it.

    Args:
        run: not a strict one.
    """

    def __init__(self, run: PastRun) -> None:
        self.run = run

    def number(self, metric: str) -> float | None:
        """A number of the summary, if it is one and finite."""
        value = self.run.summary.get(metric)
        return float(value) if _is_number(value) and not isinstance(value, bool) else None

    def word(self, metric: str) -> str | None:
        """A word of the summary."""
        value = self.run.summary.get(metric)
        return value if isinstance(value, str) else None

    def setting(self, key: str) -> Any:
        """A value of the configuration, `model.depth`; None where there is no such key."""
        found: Any = self.run.config
        for name in key.split("."):
            found = getattr(found, name, None)
        return found

    def choice(self, group: str) -> str | None:
        """What was chosen of a group, `clip`."""
        config = self.run.config
        return None if config is None else choice(group, getattr(config, group))

    @property
    def num_layers(self) -> int | None:
        """Hidden layers of the main path."""
        count = self.number("num_layers")
        return None if count is None else int(count)

    @property
    def dtype(self) -> str | None:
        """The network's."""
        return self.run.dtype

    # ---------------------------------------------------------------- layers.csv

    def layers(self, metric: str, *, last: bool = False) -> Mapping[int, float]:
        """Layer -> value of the hidden layers at the first step that has one, or the last.

        Of modules side by side the first counts; of a sweep over seeds the first seed.
        """
        return self._at(metric, last=last)[1]

    def step_of(self, metric: str, *, last: bool = False) -> int | None:
        """The step that `layers` has its values from."""
        return self._at(metric, last=last)[0]

    def readout(self, metric: str) -> float | None:
        """The read-out's value at the first step that has one."""
        for row in self._rows:
            value = row.get(metric)
            if row["kind"] == _READOUT and _is_number(value):
                return float(value)
        return None

    def _at(self, metric: str, *, last: bool) -> tuple[int | None, Mapping[int, float]]:
        rows = [
            row
            for row in self._rows
            if row["kind"] != _READOUT and _is_number(row["layer"]) and _is_number(row.get(metric))
        ]
        if not rows:
            return None, {}
        step = (max if last else min)(row["step"] for row in rows)
        found: dict[int, float] = {}
        for row in rows:
            if row["step"] == step:
                found.setdefault(int(row["layer"]), float(row[metric]))
        return int(step), dict(sorted(found.items()))

    @cached_property
    def _rows(self) -> list[dict[str, Any]]:
        there = {*self.run.columns("layers")}
        wanted = [name for name in (*_COLUMNS, "step", "layer", "kind", "seed") if name in there]
        frame = self._frame("layers", wanted)
        rows = [] if frame is None else frame.to_dict("records")
        seeds = [row["seed"] for row in rows if "seed" in row]
        return [row for row in rows if not seeds or row["seed"] == seeds[0]]

    # ---------------------------------------------------------------- other tables

    def steps(self, column: str) -> list[float]:
        """The finite values of a column of `steps.csv`, step by step."""
        frame = self._steps
        if frame is None or column not in frame:
            return []
        return [float(value) for value in frame[column] if _is_number(value)]

    def by_step(self, column: str) -> Mapping[int, float]:
        """Step -> value of a column of `steps.csv`; nan where it is not finite."""
        frame = self._steps
        if frame is None or not {"step", column} <= {*frame}:
            return {}
        pairs = zip(frame["step"], frame[column], strict=True)
        return {
            int(step): float(value) if _is_number(value) else math.nan
            for step, value in pairs
            if _is_number(step)
        }

    def wiring(self, column: str) -> list[Any]:
        """The values of a column of `wiring.csv` at its last step, a parameter each."""
        frame = self._wiring
        if frame is None or column not in frame or not len(frame):
            return []
        return list(frame.loc[frame["step"] == frame["step"].max(), column])

    @cached_property
    def _steps(self) -> Any:
        return self._frame("steps", ["step", "lr", "loss", "grad_norm", "grad_norm_clipped"])

    @cached_property
    def _wiring(self) -> Any:
        wanted = ["step", "name", "requires_grad", "in_optimizer", "gradient", "gradient_kept"]
        return self._frame("wiring", [*wanted, "updated"])

    def _frame(self, table: str, columns: list[str]) -> Any:
        if not self.run.has_table(table):
            return None
        try:
            return self.run.read(table, columns)
        except QuestionError:  # said among the run's problems by `vgexp show`
            return None


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and math.isfinite(value)
