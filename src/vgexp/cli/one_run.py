"""Finds the one run that a command line names."""

from __future__ import annotations

import shlex
from pathlib import Path

from vgexp.errors import QuestionError

_MOST_NAMED = 6
_ALLOWED = "allowed: a run folder, or a folder above one run"


def find_one_run(path: str, *command: str) -> Path:
    """Finds the folder of the one run in or under a path.

    Args:
        command: what is typed in front of a folder, to name what could have been meant.

    Raises:
        QuestionError: there is none, or there are several.
    """
    from vgexp import tables

    found = tables.find_runs([path], _ALLOWED)
    if len(found) == 1:
        return found[0]
    shown = [f"  {shlex.join([*command, str(folder)])}" for folder in found[:_MOST_NAMED]]
    more = [f"  and {len(found) - _MOST_NAMED} more"] if len(found) > _MOST_NAMED else []
    raise QuestionError(
        f"{path} holds {len(found)} runs\nallowed: one run\n"
        + "\n".join([*shown, *more])
        + f"\nall of them side by side: {shlex.join(['vgexp', 'compare', path])}"
    )
