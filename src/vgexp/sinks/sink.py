"""What a sink is, and what it is told about its run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from vgexp.config import Config
from vgexp.folders import Prefix
from vgexp.quantities import Quantity
from vgexp.records import Rows


class Sink(Protocol):
    """Is called with rows as they come; `close` ends it."""

    def __call__(self, rows: Rows) -> None: ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class SinkContext:
    """What a sink may want to know about its run."""

    folder: Path
    """The run folder, as it is called when the run begins."""
    tables: Mapping[str, Sequence[Quantity]]
    """Table -> its columns, of every table that the run has."""
    config: Config
    first_step: int = 0
    """The first step of a resumed run; 0: it starts at the beginning."""
    prefixes: Mapping[str, Prefix] = field(default_factory=dict)
    """Table -> what of its file to go on from; other tables get a new file."""


Make = Callable[[SinkContext], Sink]
"""Makes a sink of one run."""
