"""Sinks: where a run's rows go. A sink is a callable that takes `Rows`, made by an entry here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from vgexp.records import Rows
from vgexp.registry import Registry
from vgexp.sinks.csv_files import CsvFiles
from vgexp.sinks.live import Live


class Sink(Protocol):
    """Takes rows as they come; `close` ends it."""

    def __call__(self, rows: Rows) -> None: ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class SinkContext:
    """What a sink may want to know of its run."""

    folder: Path
    num_steps: int
    quiet: bool
    sizes: Mapping[str, int] | None = None
    """Table -> bytes of its file to go on from; a new file for others."""


SINKS: Registry[Callable[[SinkContext], Sink]] = Registry(
    "sink",
    {
        "csv": lambda context: CsvFiles(context.folder, context.sizes),
        "live": lambda context: Live(context.num_steps, context.quiet),
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
