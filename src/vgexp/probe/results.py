"""What a probe measured: what waits on the device, and the rows of all tables so far."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, final

from vgexp.probe.block import Labels, StepBlock, StepCells, labels_of
from vgexp.probe.plan import PlanRow
from vgexp.probe.store import RowStore, frame_of, kinds_of
from vgexp.quantities import Quantity
from vgexp.records import Rows, measured_cells

if TYPE_CHECKING:
    import pandas

_MOST_BLOCKS, _MOST_NARROW = 8, 64
"""What waits on the device at most before it is read: blocks of layers, pieces of narrow tables. To
read it may wait for the device."""


@final
class Waiting:
    """Rows of `layers.csv` and of narrow tables whose numbers are still on the device.

    Args:
        rows: of the plan; their numbers may change from step to step.
    """

    def __init__(self, rows: Sequence[PlanRow]) -> None:
        self._rows = rows
        self._blocks: list[StepBlock] = []
        self._narrow: list[Callable[[], Rows]] = []
        self._known_labels: tuple[tuple[int | None, ...], Labels] | None = None

    @property
    def are_many(self) -> bool:
        """Whether it is time to read them."""
        return len(self._blocks) > _MOST_BLOCKS or len(self._narrow) >= _MOST_NARROW

    @property
    def labels(self) -> Labels:
        """The labels of rows, made anew only when a forward pass has changed their numbers."""
        numbering = tuple([row.layer for row in self._rows])
        if self._known_labels is None or self._known_labels[0] != numbering:
            self._known_labels = numbering, labels_of(self._rows)
        return self._known_labels[1]

    def add(self, labels: Labels, added: StepCells) -> None:
        """Adds the cells of a step of `layers.csv`."""
        if self._blocks and self._blocks[-1].takes(labels, added):
            self._blocks[-1].add(added)
            return
        if self._blocks:
            self._blocks[-1].close()
        self._blocks.append(StepBlock(labels, added))

    def add_narrow(self, rows: Callable[[], Rows]) -> None:
        """Adds what makes rows of a narrow table."""
        self._narrow.append(rows)

    def read(self, *, with_last: bool = True) -> list[Rows]:
        """Reads rows off the device, and forgets them.

        Args:
            with_last: whether the last block of layers is read too; without it, steps go on into
                that block.
        """
        num_read = len(self._blocks) - (0 if with_last else 1)
        blocks, self._blocks = self._blocks[:num_read], self._blocks[num_read:]
        narrow, self._narrow = self._narrow, []
        return [*(block.rows() for block in blocks), *(rows() for rows in narrow)]


@final
class Results:
    """The rows of all tables so far.

    Args:
        own_columns: the columns of `layers.csv` that are the user's own.
        note: is told why rows could not be moved to the disk.
    """

    def __init__(self, own_columns: Sequence[Quantity], note: Callable[[str], object]) -> None:
        self._own_columns = own_columns
        self.store = RowStore(note)

    def frame(self, table: str) -> pandas.DataFrame:
        """A table with the columns of its file, NaN in cells without a number."""
        kinds = self._kinds(table)
        return frame_of(self.store.columns(table, list(kinds)), kinds)

    def measured(self, table: str) -> pandas.DataFrame:
        """Of each cell of a table, whether it has a value."""
        import pandas as pd

        columns = self.store.columns(table, list(self._kinds(table)))
        return pd.DataFrame({n: measured_cells(x) for n, x in columns.items()}, dtype=bool)

    def _kinds(self, table: str) -> Mapping[str, str]:
        own = self._own_columns if table == "layers" else ()
        return {**kinds_of(table), **{column.name: column.kind for column in own}}
