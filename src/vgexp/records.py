"""Rows of tables on their way to the disk; `quantities` declares their columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@final
class Floats(Sequence[Any]):
    """A column of floats in the dtype they were measured in; reads like a list of them and None."""

    def __init__(self, values: NDArray[Any], present: NDArray[np.bool_] | None = None) -> None:
        self.values = values
        """The floats; anything where the cell is empty."""
        self.present = present
        """Whether each cell has a value; None: all have."""

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, index: Any) -> Any:
        present = None if self.present is None else self.present[index]
        if isinstance(index, slice):
            return Floats(self.values[index], present)
        return None if present is not None and not present else self.values[index]

    def __iter__(self) -> Iterator[Any]:
        return (self[index] for index in range(len(self)))


def measured_cells(values: Sequence[Any]) -> list[bool]:
    """Says which cells of a column have a value, even if that is nan."""
    if isinstance(values, Floats):
        return [True] * len(values) if values.present is None else values.present.tolist()
    return [value is not None for value in values]


@dataclass(frozen=True)
class Rows:
    """One or more rows of one table, by column; a column left out is empty in every row.

    Values are text, integers or floats in the dtype they were measured in (numpy scalars for
    float32); None is an empty cell.
    """

    table: str
    columns: Mapping[str, Sequence[Any]]

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), ()))

    def __getitem__(self, rows: slice) -> Rows:
        return Rows(self.table, {name: values[rows] for name, values in self.columns.items()})
