"""The text of a diagnosis, as the terminal shows it."""

from __future__ import annotations

import math
import textwrap
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

from vgexp.diagnosis.causes import CAUSES
from vgexp.diagnosis.commands import command_with
from vgexp.diagnosis.findings import Finding
from vgexp.diagnosis.phrases import capitalise, place_layers
from vgexp.diagnosis.root import experiment

_WIDTH = 80


class Told(Protocol):
    """What the page needs of a `Diagnosis`, whose text it is."""

    @property
    def health(self) -> str: ...
    @property
    def verdict(self) -> str | None: ...
    @property
    def is_check(self) -> bool: ...
    @property
    def why_untold(self) -> str: ...
    @property
    def findings(self) -> tuple[Finding, ...]: ...
    @property
    def depths(self) -> Mapping[str, int]: ...
    @property
    def checked(self) -> tuple[str, ...]: ...
    @property
    def unchecked(self) -> Mapping[str, str]: ...


def page_of(
    diagnosis: Told,
    command: Sequence[str] = (),
    *,
    shows_all: bool = False,
    listed_by: tuple[str, str] = (".checked", ".unchecked"),
) -> str:
    """The diagnosis in lines of at most 80 characters, but for commands and code.

    Args:
        command: the words of what the run was made with; remedies are shown as overrides behind
            them. Empty: of a loop of somebody's own, which gets code.
        shows_all: whether the rules that found nothing, and those that could not be checked, are
            named; else they are counted.
        listed_by: what lists the rules that were checked, and those that were not.
    """
    return "\n".join(_lines(diagnosis, command, shows_all=shows_all, listed_by=listed_by))


def _lines(
    diagnosis: Told, command: Sequence[str], *, shows_all: bool, listed_by: tuple[str, str]
) -> Iterator[str]:
    verdict = f" (verdict: {diagnosis.verdict})" if diagnosis.verdict else ""
    if diagnosis.is_check and diagnosis.health == "healthy":
        verdict = ", as far as one update shows"
    yield f"Health: {diagnosis.health}{verdict}"
    if diagnosis.why_untold:
        yield from _wrap(f"Cause: {diagnosis.why_untold}", "")
    causes = [each for each in diagnosis.findings if each.kind == "sickness"]
    for place, cause in enumerate(causes):
        yield from _cause(cause, diagnosis.depths, is_rival=place > 0)
    if len(causes) > 1:
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
    missing = {id: reason for id, reason in diagnosis.unchecked.items() if id in CAUSES}
    if shows_all:
        if clean:
            yield from _wrap(f"Checked, nothing found: {', '.join(clean)}", "")
        for reason in dict.fromkeys(missing.values()):
            ids = [id for id, other in missing.items() if other == reason]
            yield from _wrap(f"Not checked, {reason}: {', '.join(ids)}", "")
        return
    if clean:
        told = f"Checked, nothing found: {_count(len(clean))} ({listed_by[0]} lists them)"
        yield from _wrap(told, "")
    if missing:
        reasons = Counter(missing.values()).most_common()
        told = "; ".join(f"{reason} ({count})" for reason, count in reasons)
        listed = "" if listed_by[0] == listed_by[1] else f" ({listed_by[1]} lists them)"
        yield from _wrap(f"Not checked, {_count(len(missing))}{listed}: {told}", "")


def _count(num_rules: int) -> str:
    return f"{num_rules} rule{'' if num_rules == 1 else 's'}"


def _cause(finding: Finding, depths: Mapping[str, int], *, is_rival: bool) -> Iterator[str]:
    cause = CAUSES[finding.id]
    since = "" if finding.step is None else f", since step {finding.step}"
    at = f", at {place_layers(finding.layers, depths)}" if finding.layers else ""
    word = "Or" if is_rival else "Cause"
    yield from _wrap(f"{word}: {finding.id}{since}{at}", "")
    if finding.id != "unknown" or not finding.is_fact:  # of a fact its own sentence says why
        yield from _wrap(f"{capitalise(cause.summary)}.", "  ")
    yield from _wrap(finding.sentence, "  ")
    for name, (value, limit) in finding.numbers.items():
        yield f"    {name} {value:.3g}{_compared(value, limit)}"


def _compared(value: float, limit: float | None) -> str:
    """On which side of its limit a number is, where the digits that are shown differ."""
    if limit is None or not math.isfinite(limit):
        return ""
    is_alike = f"{value:.3g}" == f"{limit:.3g}"
    side = "" if is_alike else "above the " if value > limit else "below the "
    return f"  ({side}limit {limit:.3g})"


def _remedies(finding: Finding, command: Sequence[str]) -> Iterator[str]:
    if not finding.remedies:
        return
    yield "What to do"
    for place, remedy in enumerate(finding.remedies):
        source = f" ({remedy.source})" if remedy.source else ""
        words = remedy.words if place else capitalise(remedy.words.removeprefix("Or "))
        yield from _wrap(f"{words} {remedy.why}{source}", "  ")
        if command and remedy.override:
            yield f"    {command_with(command, remedy.override)}"
        elif remedy.code:
            yield f"    {remedy.code}"


def _wrap(text: str, indent: str) -> list[str]:
    return textwrap.wrap(
        text, _WIDTH, initial_indent=indent, subsequent_indent=indent + "  ",
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip
