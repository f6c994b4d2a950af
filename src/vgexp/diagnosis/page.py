"""The text of a diagnosis, as the terminal shows it."""

from __future__ import annotations

import math
import shlex
import textwrap
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from vgexp.config import CHOICES, is_key_of
from vgexp.diagnosis.causes import CAUSES
from vgexp.diagnosis.phrases import capitalise, place_layers

if TYPE_CHECKING:
    from vgexp.diagnosis.diagnosis import Diagnosis
    from vgexp.diagnosis.findings import Finding

_WIDTH = 80


def page_of(
    diagnosis: Diagnosis,
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
    diagnosis: Diagnosis, command: Sequence[str], *, shows_all: bool, listed_by: tuple[str, str]
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
    yield from _wrap(f"{capitalise(cause.summary)}.", "  ")
    yield from _wrap(finding.sentence, "  ")
    for name, (value, limit) in finding.numbers.items():
        compared = "" if limit is None or not math.isfinite(limit) else f"  (limit {limit:.3g})"
        yield f"    {name} {value:.3g}{compared}"


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


def command_with(command: Sequence[str], override: str) -> str:
    """A command with further overrides, which stand for those of the same keys in it."""
    words = override.split()
    return shlex.join([*keep_words(command, words), *words])


def keep_words(command: Sequence[str], override: Sequence[str]) -> list[str]:
    """The words of a command that an override leaves as they are.

    Left out are words of the same keys, and keys that a choice of the override does not have:
    `model.activation=tanh` with `model=lstm`.
    """
    keys = set(map(_key, override))
    chosen = {
        group: name
        for group, _, name in (word.partition("=") for word in override)
        if group in CHOICES and name in CHOICES[group]
    }
    kept = []
    for word in command:
        group, _, inner = _key(word).partition(".")
        is_foreign = inner and group in chosen and not is_key_of(inner, group, chosen[group])
        if _key(word) not in keys and not is_foreign:
            kept.append(word)
    return kept


def _key(word: str) -> str:
    """The key of an override; another word is its own."""
    return word.partition("=")[0].lstrip("+~")


def _wrap(text: str, indent: str) -> list[str]:
    return textwrap.wrap(
        text, _WIDTH, initial_indent=indent, subsequent_indent=indent + "  ",
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip
