"""Opens the sinks of a run: the CSV files, and what else the configuration asks for."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import final

from vgexp.errors import reason
from vgexp.folders import Prefix
from vgexp.records import Rows
from vgexp.registry import Registry
from vgexp.sinks.csv_files import CsvFiles
from vgexp.sinks.sink import Make, Sink, SinkContext
from vgexp.sinks.user_code import own_sink

_log = logging.getLogger("vgexp")

CSV = "csv"
"""The sink of every run: nothing recorded is lost, and checkpoints depend on its files."""


def csv(context: SinkContext) -> CsvFiles:
    """CSV files in the run folder, which every run has, whether they are asked for or not."""
    return CsvFiles(context.folder, context.tables, context.prefixes, columns=context.tables)


SINKS: Registry[Make] = Registry("sink", {CSV: csv}, own_sink)
"""Name -> what makes the sink."""


def require(names: Iterable[str]) -> None:
    """Requires that there are sinks of these names.

    Raises:
        QuestionError: a name that does not exist, or a user's code that makes no sink.
    """
    for name in names:
        SINKS[name]


@final
class Sinks:
    """The sinks of one run. A failure of the CSV files ends the run, of another that sink alone."""

    def __init__(self, files: CsvFiles, others: Iterable[Sink]) -> None:
        self._files = files
        self._others = list(others)

    def __call__(self, rows: Rows) -> None:
        """Hands rows to every sink, to the files first."""
        self._files(rows)
        for sink in self._others:
            sink(rows)

    def settle(self) -> Mapping[str, Prefix]:
        """Waits until all rows so far are on the disk itself; table -> its file by then."""
        return self._files.settle()

    def require_in(self, folder: Path) -> None:
        """Requires that the files are still in a folder.

        Raises:
            LostError: one was removed or replaced.
        """
        self._files.require_in(folder)


@contextmanager
def open_sinks(context: SinkContext, warn: Callable[[str], None]) -> Iterator[Sinks]:
    """Opens the CSV files and the other sinks of a run, and closes all, whatever fails.

    Args:
        warn: is told of a sink that failed.
    """
    with ExitStack() as stack:
        files = csv(context)
        stack.callback(files.close)
        others: dict[str, Sink] = {}
        for name in context.config.output.sinks:
            if name != CSV and name not in others:
                others[name] = _Guarded(name, SINKS[name], context, warn)
                stack.callback(others[name].close)
        yield Sinks(files, others.values())


@final
class _Guarded:
    """A sink whose first error is told and closes it, and does not reach the run.

    What it draws from global generators, which are the run's meanwhile, is drawn again by the run.
    """

    def __init__(
        self, name: str, make: Make, context: SinkContext, warn: Callable[[str], None]
    ) -> None:
        self._name, self._warn = name, warn
        self._sink: Sink | None = None
        with self._guard("could not be opened"):
            self._sink = make(context)

    def __call__(self, rows: Rows) -> None:
        sink = self._sink
        if sink is not None:
            with self._guard(f"failed at rows of {rows.table}"):
                sink(rows)

    def close(self) -> None:
        """Closes the sink; again is harmless."""
        sink, self._sink = self._sink, None
        if sink is not None:
            with self._guard("could not be closed"):
                sink.close()

    @contextmanager
    def _guard(self, what: str) -> Iterator[None]:
        from vgexp.seeds import without_draws

        try:
            with without_draws():
                yield
        except Exception as error:
            sink, self._sink = self._sink, None
            text = f"the sink {self._name} {what}: {reason(error)}"
            _log.info(text, exc_info=error)
            self._warn(f"{text}; the run goes on without it")
            if sink is not None:
                with suppress(Exception), without_draws():
                    sink.close()
