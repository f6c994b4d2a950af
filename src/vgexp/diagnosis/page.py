"""The text of a diagnosis, as the terminal shows it."""

from __future__ import annotations

import math
import shlex
import textwrap
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from vgexp.diagnosis.causes import CAUSES
from vgexp.diagnosis.phrases import name_layers

if TYPE_CHECKING:
    from vgexp.diagnosis.diagnosis import Diagnosis
    from vgexp.diagnosis.findings import Finding

_WIDTH = 80


def page_of(diagnosis: Diagnosis, command: Sequence[str] = ()) -> str:
    """The diagnosis in lines of at most 80 characters, but for commands and code.

    Args:
        command: the words of what the run was made with; remedies are shown as overrides behind
            them. Empty: of a loop of somebody's own, which gets code.
    """
    return "\n".join(_lines(diagnosis, command))


def _lines(diagnosis: Diagnosis, command: Sequence[str]) -> Iterator[str]:
    verdict = f" (verdict: {diagnosis.verdict})" if diagnosis.verdict else ""
    yield f"Health: {diagnosis.health}{verdict}"
    causes = [each for each in diagnosis.findings if each.kind == "sickness"]
    for place, cause in enumerate(causes):
        yield from _cause(cause, is_rival=place > 0)
    if len(causes) > 1:
        from vgexp.diagnosis.root import experiment

        yield from _wrap(experiment(causes[0], causes[1]), "  ")
    of_cause = [each for each in diagnosis.findings if each.kind == "consequence"]
    if of_cause:
        yield "Consequences, in order of onset"
        for finding in of_cause:
            yield from _wrap(f"{finding.id}: {finding.sentence}", "  ")
    for cause in causes[:1]:
        yield from _remedies(cause, command)
    notes = [each for each in diagnosis.findings if each.kind == "note"]
    if notes:
        yield "Also"
        for finding in notes:
            yield from _wrap(finding.sentence, "  ")
    found = {each.id for each in diagnosis.findings}
    clean = [id for id in diagnosis.checked if id in CAUSES and id not in found]
    if clean:
        yield from _wrap(f"Checked, nothing found: {', '.join(clean)}", "")
    for reason, ids in _by_reason(diagnosis):
        yield from _wrap(f"Not checked, {reason}: {', '.join(ids)}", "")


def _cause(finding: Finding, *, is_rival: bool) -> Iterator[str]:
    cause = CAUSES[finding.id]
    since = "" if finding.step is None else f", since step {finding.step}"
    at = f", at {name_layers(finding.layers)}" if finding.layers else ""
    word = "Or" if is_rival else "Cause"
    yield from _wrap(f"{word}: {finding.id}{since}{at}", "")
    yield from _wrap(f"{cause.summary[0].upper()}{cause.summary[1:]}.", "  ")
    yield from _wrap(finding.sentence, "  ")
    for name, (value, limit) in finding.numbers.items():
        compared = "" if limit is None or not math.isfinite(limit) else f"  (limit {limit:.3g})"
        yield f"    {name} {value:.3g}{compared}"


def _remedies(finding: Finding, command: Sequence[str]) -> Iterator[str]:
    if not finding.remedies:
        return
    yield "What to do"
    for remedy in finding.remedies:
        source = f" ({remedy.source})" if remedy.source else ""
        yield from _wrap(f"{remedy.words} {remedy.why}{source}", "  ")
        if command and remedy.override:
            yield f"    {command_with(command, remedy.override)}"
        elif remedy.code and not (command and remedy.override):
            yield f"    {remedy.code}"


def command_with(command: Sequence[str], override: str) -> str:
    """A command with further overrides, which stand for those of the same keys in it."""
    words = override.split()
    keys = {word.split("=")[0].lstrip("+") for word in words}
    kept = [
        word for word in command if "=" not in word or word.split("=")[0].lstrip("+") not in keys
    ]
    return shlex.join([*kept, *words])


def _by_reason(diagnosis: Diagnosis) -> list[tuple[str, Sequence[str]]]:
    """The causes that could not be checked, by what was missing."""
    reasons: dict[str, list[str]] = {}
    for id, reason in diagnosis.unchecked.items():
        if id in CAUSES:
            reasons.setdefault(reason, []).append(id)
    return [*reasons.items()]


def _wrap(text: str, indent: str) -> list[str]:
    return textwrap.wrap(
        text, _WIDTH, initial_indent=indent, subsequent_indent=indent + "  ",
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip
