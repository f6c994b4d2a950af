"""Sinks: where a run's rows go. A sink is a callable that takes `Rows`, made by an entry here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from vgexp.folders import Prefix
from vgexp.records import Rows
from vgexp.registry import Registry
from vgexp.sinks.csv_files import CsvFiles
from vgexp.sinks.live import Live


class Sink(Protocol):
    """Takes rows as they come; `close` ends it."""

    def __call__(self, rows: Rows) -> None: ...

    def close(self) -> None: ...


@runtime_checkable
class Keeper(Protocol):
    """A sink whose files a checkpoint depends on."""

    def settle(self) -> Mapping[str, Prefix]:
        """Waits until all rows so far are on the disk itself; table -> its file by then."""
        ...

    def require_in(self, folder: Path) -> None:
        """Requires that its files are still in a folder; else raises `LostError`."""
        ...


@dataclass(frozen=True)
class SinkContext:
    """What a sink may want to know of its run."""

    folder: Path
    num_steps: int
    quiet: bool
    tables: Sequence[str]
    """Those that the run has."""
    prefixes: Mapping[str, Prefix] | None = None
    """Table -> what of its file to go on from; a new file for others."""
    first_step: int = 0
    """Where a run that is gone on with stands."""


SINKS: Registry[Callable[[SinkContext], Sink]] = Registry(
    "sink",
    {
        "csv": lambda context: CsvFiles(context.folder, context.tables, context.prefixes),
        "live": lambda context: Live(context.num_steps, context.quiet, context.first_step),
    },
)
"""Name -> factory."""


@contextmanager
def open_sinks(context: SinkContext) -> Iterator[list[Sink]]:
    """Every sink of a run; all are closed at the end, whichever of them failed."""
    with ExitStack() as stack:
        sinks = []
        for factory in SINKS.values():
            sink = factory(context)
            stack.callback(sink.close)
            sinks.append(sink)
        yield sinks


def require_in(folder: Path, sinks: Iterable[Sink]) -> None:
    """Requires that what the sinks write can still be found in a folder.

    Raises:
        LostError: it was removed or replaced.
    """
    for sink in sinks:
        if isinstance(sink, Keeper):
            sink.require_in(folder)


def settled(sinks: Iterable[Sink]) -> dict[str, Prefix]:
    """Has every row on the disk itself; table -> its file by then."""
    keepers = [sink for sink in sinks if isinstance(sink, Keeper)]
    return {table: prefix for keeper in keepers for table, prefix in keeper.settle().items()}
