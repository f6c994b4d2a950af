"""Why the diagnosis misses what it misses, written by hand for the page."""

from __future__ import annotations

from collections.abc import Mapping

REASONS: Mapping[str, str] = {}
"""Name of a configuration or a loop -> why its diagnosis is not what is true of it."""
CHANGES = ""
"""What was changed because of what the held half showed, with both numbers; empty: nothing."""
