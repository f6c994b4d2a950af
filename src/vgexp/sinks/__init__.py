"""Sinks: where the rows of a run go. A sink is called with `Rows`; an entry here makes it."""

from vgexp.sinks.opening import SINKS, Sinks, open_sinks, require
from vgexp.sinks.sink import Make, Sink, SinkContext

__all__ = ["SINKS", "Make", "Sink", "SinkContext", "Sinks", "open_sinks", "require"]
