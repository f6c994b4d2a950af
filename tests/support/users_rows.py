"""What tests of users' models say of a probe's rows."""

from __future__ import annotations

from typing import Any

from vgexp import Probe

Row = dict[str, Any]


def numbers(rows: list[Row]) -> dict[str, int | None]:
    """Weight -> its layer."""
    return {row["name"]: row["layer"] for row in rows}


def reasons(probe: Probe) -> dict[str, str]:
    """Weight -> the first reason why part of its row is unseen."""
    found: dict[str, str] = {}
    for line in probe.unseen:
        names, reason = line.split(": ", 1)
        for name in names.split(", "):
            found.setdefault(name, reason)
    return found
