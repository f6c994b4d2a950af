"""The tables of a run as a mapping, each read when it is first asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import pandas as pd

from vgexp.quantities import TABLES

if TYPE_CHECKING:
    from vgexp.past.run import PastRun


class LazyTables(Mapping[str, pd.DataFrame]):
    """Name -> whole table, of those that a run has; one that was read is kept.

    A table that is damaged raises a `QuestionError` where the run is strict, else it is absent, and
    the run's `problems` say why.
    """

    def __init__(self, run: PastRun, known: Mapping[str, pd.DataFrame] | None = None) -> None:
        """Reads nothing.

        Args:
            known: tables that somebody has read already.
        """
        self._run = run
        self._read: dict[str, pd.DataFrame | None] = dict(known or {})

    def __getitem__(self, name: str) -> pd.DataFrame:
        if name not in self._read:
            if not self._has(name):
                raise KeyError(name)
            self._read[name] = self._run.table(name)
        frame = self._read[name]
        if frame is None:
            raise KeyError(name)
        return frame

    def __iter__(self) -> Iterator[str]:
        return (name for name in TABLES if name in self)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, name: object) -> bool:
        """Whether there is such a table, as far as is known without reading it."""
        if name in self._read:
            return self._read[str(name)] is not None
        return isinstance(name, str) and self._has(name)

    def _has(self, name: str) -> bool:
        return name in TABLES and self._run.has_table(name)
