"""Shows the cause of a sick run in a few lines: since when, where, and what to type."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from rich.console import Console

from vgexp.diagnosis import Finding
from vgexp.diagnosis.causes import CAUSES
from vgexp.diagnosis.commands import command_with
from vgexp.diagnosis.phrases import place_layers
from vgexp.errors import QuestionError
from vgexp.past import PastRun
from vgexp.past.diagnosing import command_of, diagnose_run, list_next
from vgexp.report.terminal.layout import show_line, show_words

_INDENT = "  "
_FAULTS = (QuestionError, KeyError, TypeError, ValueError)
"""What somebody's changes in a run's files may make of a diagnosis."""


def show_cause(console: Console, run: PastRun, summary: Mapping[str, Any]) -> None:
    """Prints the cause that the summary names, its first remedy, and where to read more.

    Nothing is printed of a run without a cause. Commands are not wrapped, so that they can be
    copied.

    Args:
        run: not a strict one.
    """
    if summary.get("cause_id") not in CAUSES:
        return
    try:
        diagnosis = diagnose_run(run)
    except _FAULTS:
        return
    if diagnosis.cause is None:
        return
    finding = diagnosis.findings[0]
    since = "" if finding.step is None else f" since step {finding.step}"
    at = f" at {place_layers(finding.layers, diagnosis.depths)}" if finding.layers else ""
    show_words(console, f"Cause: {finding.id}{since}{at}", _INDENT)
    show_words(console, f"{_INDENT}{CAUSES[finding.id].summary}", _INDENT)
    _show_remedy(console, run, finding)
    more = [shlex.join(["vgexp", "diagnose", str(run.folder)]), *list_next(run, diagnosis)]
    for place, command in enumerate(more):
        show_line(console, f"{_INDENT}{'More: ' if place == 0 else ' ' * 6}{command}")


def _show_remedy(console: Console, run: PastRun, finding: Finding) -> None:
    """The first remedy: the command with its override, or else its words."""
    if not finding.remedies:
        return
    first, command = finding.remedies[0], command_of(run)
    if first.override and command:
        show_line(console, f"{_INDENT}Try:  {command_with(command, first.override)}")
    else:
        show_words(console, f"{_INDENT}Try:  {first.words}", " " * 8)
