"""Writes docs/diagnosis.md: how a diagnosis is made, all rules, and what it says of the zoo."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from vgexp.diagnosis import CAUSE_RULES, CAUSES
from vgexp.diagnosis.findings import CauseRule
from vgexp.explain import GROUPS
from zoo.judging import Judged, list_unconfirmed
from zoo.peers import DEFINITIONS, Definition, causes_of
from zoo.presets import HEALTHY, SETS
from zoo.reasons import CHANGES, REASONS
from zoo.running import LOOP, PRESET

PAGE = Path(__file__).parents[2] / "docs" / "diagnosis.md"
MEASURED = "## Measured on the zoo\n"
"""Where the part begins that trainings write, and not the source alone."""

_HEAD = """\
# Diagnosis

`vgexp diagnose RUN`, the end of `vgexp train` and `probe.diagnose()` say whether a network is
healthy, and if not, the one cause that has to be changed. This file is made by `make zoo`.

## How a diagnosis is made

1. **Health.** A network has learned if the mean training loss of its last 20 steps is below 0.9 of
   what the best constant guess costs. One that has learned is `healthy`. Another is `sick`,
   unless the run has fewer than 100 steps, its loss still falls, or it is below what guessing costs
   by more than batches scatter and no rule finds anything: then it is `undecided`. A loop that
   learned, and ends above half of what guessing costs, is `sick` of what is found, unless it may
   have overcome it: small weights, small slopes, short steps and frozen weights count above 0.8 of
   what guessing costs alone.
2. **Findings.** Every rule below is asked. A rule compares what was measured with a law or with a
   limit, and finds something or nothing; a rule without the tables that it needs is listed as not
   checked. What a rule marked *always* finds is wrong even if the network learns.
3. **One cause.** The table of causes says what brings about what: a step that is too long kills
   units, and dead units stop the gradient. A finding is a consequence if another one that explains
   it came no later. The earliest finding that nothing explains is the cause. If several are left,
   the others are named as well, with the experiment that tells them apart.
4. **`unknown`.** A network that does not learn, and of which no rule finds anything, is sick of an
   unknown cause. No cause is guessed.

## Rules
"""


_OF_OTHERS = """
## Rule sets of others

Their definitions, with their own thresholds, as far as they can be asked of vgexp's tables
(`scripts/zoo/peers.py`).

"""


def write(judged: Sequence[Judged]) -> None:
    """Writes the whole page."""
    PAGE.write_text(make_rules() + MEASURED + make_measured(judged), encoding="utf-8")


def make_rules() -> str:
    """The part of the page that the source alone decides."""
    parts = [_HEAD]
    for is_note, title in ((False, "Causes"), (True, "Notes")):
        rules = [rule for rule in CAUSE_RULES.values() if CAUSES[rule.id].is_note is is_note]
        rows = sorted(rules, key=lambda rule: list(CAUSES).index(rule.id))
        heads = ["id", "what it asks", "limit, and why", "source", "first remedy"]
        parts.append(f"\n### {title}\n\n" + _table(heads, [_rule_row(rule) for rule in rows]))
    parts.append(_OF_OTHERS)
    heads = ["rule set", "rule", "raises an alarm if", "asked here"]
    parts.append(_table(heads, [_definition_row(each) for each in DEFINITIONS]))
    sources = dict.fromkeys(f"{each.peer}: {each.source}" for each in DEFINITIONS)
    parts.append("\n" + "".join(f"- {source}\n" for source in sources))
    return "".join(parts) + "\n"


def make_measured(judged: Sequence[Judged]) -> str:
    """The part of the page that trainings decide."""
    seeds = {
        kind: sorted({e.job.seed for e in judged if e.job.kind == kind and not e.job.cured})
        for kind in (PRESET, LOOP)
    }
    counts = [
        f"{len({each.job.name for each in judged if _is(each, kind, sick)})} {health}"
        for kind in (PRESET, LOOP)
        for sick, health in ((True, "sick"), (False, HEALTHY))
    ]
    num_cured = sum(each.job.cured for each in judged)
    parts = [
        f"""
Configurations (`configs/zoo`): {counts[0]}, {counts[1]}. Loops of users (`scripts/zoo/loops`):
{counts[2]}, {counts[3]}. Judged here: {len(judged) - num_cured} trainings
(configurations: seeds {_listed(seeds[PRESET])}; loops: seeds {_listed(seeds[LOOP])}), and
{num_cured} cured twins. Truth and half were written down before. The outcome, in which
no rule has a part, confirms the truth: a sick one does not learn, its twin with one change does, a
healthy one learns. Limits of rules were first set by the half `tune`, and mended as told below.
"""
    ]
    if CHANGES:
        parts.append(f"\n{CHANGES.strip()}\n")
    parts.append("\n### Rates\n\n" + _table(["", *_RATES], _rate_rows(judged)))
    parts.append(f"\n### Loops by `vgexp.check`, before training\n\n{_checks(judged)}")
    for half in reversed(SETS):
        ours = [each for each in judged if each.job.half == half and not each.job.cured]
        parts.append(f"\n### The half `{half}`, cause by cause\n\n{_matrix(ours)}")
        parts.append(f"\nMissed in the half `{half}`:\n\n{_missed(ours)}")
    parts.append(f"\n### Labels that the outcome contradicts\n\n{_unconfirmed(judged)}")
    held = [each for each in judged if each.job.half == "held" and not each.job.cured]
    parts.append(f"\n### What the rule sets of others say of the half `held`\n\n{_peers(held)}")
    return "".join(parts)


def show(judged: Sequence[Judged]) -> str:
    """A line each of what is not as it should be, and the rates: for a terminal."""
    lines = [
        f"{each.job.half} {each.job.name} {each.job.seed}: {'/'.join(each.job.truth) or HEALTHY}"
        f" -> {each.health} {','.join(each.told)}"
        for each in judged
        if not each.job.cured and not _is_as_it_should(each)
    ]
    lines += [f"label not confirmed: {words}" for words in list_unconfirmed(judged)]
    lines += [": ".join(row) for row in _rate_rows(judged)]
    return "\n".join(lines)


# ---------------------------------------------------------------- the rules


def _rule_row(rule: CauseRule) -> list[str]:
    topic = next(topic for topics in GROUPS.values() for topic in topics if topic.id == rule.id)
    cure = topic.cures[0] if topic.cures else None
    remedy = "" if cure is None else f"`{cure.override or cure.code.splitlines()[0]}`"
    limit = "" if rule.limit is None else f"{rule.limit:g}: "
    name = f"[{rule.id}](explain.md#{rule.id})" + (" (*always*)" if rule.is_certain else "")
    return [name, rule.summary, limit + rule.why_this_limit, rule.source or "", remedy]


def _definition_row(each: Definition) -> list[str]:
    asked = each.partly or "wholly"
    return [each.peer, each.name, each.states, f"no: {asked}" if each.judge is None else asked]


# ---------------------------------------------------------------- the numbers


def _is(each: Judged, kind: str, sick: bool) -> bool:
    return each.job.kind == kind and bool(each.job.truth) is sick


def _is_as_it_should(each: Judged) -> bool:
    return each.is_right if each.job.truth else each.health != "sick"


def _is_sick(each: Judged) -> bool:
    return bool(each.job.truth) and not each.job.cured


_RATES: dict[str, Callable[[Judged], bool | None]] = {
    "sick detected": lambda each: each.is_detected if _is_sick(each) else None,
    "right cause": lambda each: each.is_right if _is_sick(each) else None,
    "right among those named": lambda each: (
        bool({*each.told} & {*each.job.truth}) if _is_sick(each) else None
    ),
    "false alarms": lambda each: None if each.job.truth else each.is_detected,
    "on cured twins": lambda each: each.is_detected if each.job.cured else None,
}
"""Column -> whether a training counts; None: it is not of those that are counted."""


def _rate_rows(judged: Iterable[Judged]) -> list[list[str]]:
    rows = []
    judged = list(judged)
    for half in reversed(SETS):
        for kinds, words in (
            ((PRESET, LOOP), ""),
            ((PRESET,), ", configurations"),
            ((LOOP,), ", loops"),
        ):
            some = [each for each in judged if each.job.half == half and each.job.kind in kinds]
            if some:
                rows.append([f"`{half}`{words}", *(_rate(some, asks) for asks in _RATES.values())])
    return rows


def _rate(judged: Iterable[Judged], asks: Callable[[Judged], bool | None]) -> str:
    answers = [answer for each in judged if (answer := asks(each)) is not None]
    share = f" ({sum(answers) / len(answers):.0%})" if answers else ""
    return f"{sum(answers)} of {len(answers)}{share}"


def _checks(judged: Iterable[Judged]) -> str:
    """What one update on a copy says of the loops whose batch it takes."""
    asked = [each for each in judged if each.check is not None]
    rows = []
    for half in reversed(SETS):
        ours = [each for each in asked if each.job.half == half]
        said = Counter(_said_before(each) for each in ours)
        rows.append([f"`{half}`", *(str(said[words]) for words in _SAID_BEFORE)])
    return _table(["", *_SAID_BEFORE], rows)


_SAID_BEFORE = (
    "sick: true cause",
    "sick: another cause",
    "sick: nothing found",
    "healthy or cured: nothing found",
    "healthy or cured: false alarm",
)


def _said_before(each: Judged) -> str:
    assert each.check is not None
    cause = each.check["cause"] if each.check["health"] == "sick" else None
    right, other, silent, quiet, alarm = _SAID_BEFORE
    if not _is_sick(each):
        return quiet if cause is None else alarm
    if cause is None:
        return silent
    return right if cause in each.job.truth else other


def _matrix(judged: Iterable[Judged]) -> str:
    """Truth -> what was diagnosed, as a count each; in bold what is right."""
    rows: dict[tuple[str, ...], list[Judged]] = {}
    for each in judged:
        rows.setdefault(each.job.truth, []).append(each)
    order = {id: place for place, id in enumerate(CAUSES)}
    cells = []
    for truth in sorted(rows, key=lambda ids: [order[id] for id in ids]):
        some = rows[truth]
        said = Counter(each.cause or each.health for each in some)
        right = {*truth} or {HEALTHY}
        words = [
            f"**{name} {count}**" if name in right else f"{name} {count}"
            for name, count in said.most_common()
        ]
        cells.append([" or ".join(truth) or HEALTHY, str(len(some)), ", ".join(words)])
    return _table(["truth", "trainings", "diagnosis"], cells)


def _missed(judged: Iterable[Judged]) -> str:
    said: dict[str, Counter[str]] = {}
    truths: dict[str, tuple[str, ...]] = {}
    for each in judged:
        if not _is_as_it_should(each):
            truths[each.job.name] = each.job.truth
            said.setdefault(each.job.name, Counter())[each.cause or each.health] += 1
    lines = []
    for name, counts in said.items():
        words = ", ".join(f"{id} ({count})" for id, count in counts.items())
        reason = REASONS.get(name, "")
        truth = " or ".join(truths[name]) or HEALTHY
        lines.append(f"- `{name}`: {truth}, diagnosed {words}. {reason}".rstrip() + "\n")
    return "".join(lines) or "Nothing.\n"


def _unconfirmed(judged: Iterable[Judged]) -> str:
    words = [f"- {line}\n" for line in list_unconfirmed(judged)]
    return "".join(words) or "None.\n"


def _peers(judged: Sequence[Judged]) -> str:
    """How often each rule set raises an alarm, on the sick and the healthy; where it leads."""
    names = list(dict.fromkeys(name for each in judged for name in each.peers))
    rows = []
    for name in names:
        asked = [each for each in judged if name in each.peers]
        sick = [each for each in asked if each.job.truth]
        well = [bool(each.peers[name]) for each in asked if not each.job.truth]
        led = [causes_of(name, each.peers[name]) for each in sick]
        told = [found for found in led if found]
        right = [bool({*each.job.truth} & found) for each, found in zip(sick, led, strict=True)]
        mean = f"{sum(map(len, told)) / len(told):.1f}" if told else ""
        alarmed = sum(bool(each.peers[name]) for each in sick)
        rows.append(
            [
                name,
                f"{alarmed} of {len(sick)}",
                f"{sum(well)} of {len(well)}",
                f"{sum(right)} of {len(sick)}",
                mean,
            ]
        )
    names_told = [
        _rate(judged, _RATES[name]).partition(" (")[0]
        for name in ("sick detected", "false alarms", "right cause")
    ]
    rows.append(["vgexp", *names_told, "1.0"])
    heads = ["rule set", "sick with an alarm", "healthy with an alarm"]
    return _table([*heads, "true cause among those it leads to", "causes it leads to"], rows)


def _listed(seeds: Iterable[int]) -> str:
    return ", ".join(map(str, seeds)) or "none"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', '/') for cell in row)} |\n" for row in lines)
