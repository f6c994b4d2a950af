"""The diagnosis: every rule asked, and the one text that is composed of what they found."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import pandas as pd

from vgexp.diagnosis.evidence import (
    Evidence,
    evidence_of_layers,
    evidence_of_run,
    evidence_of_start,
)
from vgexp.diagnosis.findings import Finding
from vgexp.diagnosis.page import page_of
from vgexp.diagnosis.root import UNDECIDED, find_root
from vgexp.diagnosis.rules import CAUSE_RULES, RULES
from vgexp.diagnosis.signal import Signal, signal_of
from vgexp.errors import QuestionError

if TYPE_CHECKING:
    from vgexp.config import Config

_SAYS_AS_MUCH: Mapping[str, str] = {
    "dead_at_start": "dying_units",
    "dead_units": "dying_units",
    "saturated_units": "saturating_units",
    "idle_layers": "no_gradient",
    "relapsed": "loss",
}
"""Cause or note -> the description that would repeat it."""


@dataclass(frozen=True)
class Diagnosis:
    """The health of a network, the one cause of its sickness, and all that the rules found."""

    first_step: int
    last_step: int | None
    """The first and the last step with a backward signal."""
    first: Signal | None
    last: Signal | None
    """The signal at these steps; None where none was measured."""
    sentence: str
    findings: tuple[Finding, ...]
    """The cause, its consequences by onset, then notes: those of `causes`, and what describes the
    network, in the order of `RULES`."""
    unchecked: Mapping[str, str]
    """Rule -> why it could not be checked."""
    health: str = UNDECIDED
    """`healthy`, `sick` or `undecided`."""
    cause: str | None = None
    """An id of `causes.CAUSES`."""
    step: int | None = None
    layer: str | None = None
    """Since which step, and at which layer."""
    rivals: tuple[str, ...] = ()
    """Further causes that nothing found explains."""
    verdict: str | None = None
    """That of the run's summary."""
    why_untold: str = ""
    """Why nobody can tell the cause of a sick network; empty where one is told, or `unknown`."""
    is_check: bool = False
    """Whether it is of one update before training."""
    depths: Mapping[str, int] = field(default_factory=dict, repr=False)
    """Name of a hidden layer that findings are about -> its number, where a table has it."""

    def __str__(self) -> str:
        return page_of(self)

    @property
    def checked(self) -> tuple[str, ...]:
        """The rules that were checked, whether they found something or not."""
        every = dict.fromkeys((*CAUSE_RULES, *RULES))
        return tuple(name for name in every if name not in self.unchecked)

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON has it: a number that is not finite is None."""
        return {
            "health": self.health,
            "cause": self.cause,
            "step": self.step,
            "layer": self.layer,
            "verdict": self.verdict,
            "why_untold": self.why_untold,
            "sentence": self.sentence,
            "findings": [_finding_for_json(finding) for finding in self.findings],
            "rivals": list(self.rivals),
            "checked": list(self.checked),
            "unchecked": dict(self.unchecked),
        }


@runtime_checkable
class Diagnosable(Protocol):
    """What knows its table of layers: a run, a probe."""

    def diagnose(self) -> Diagnosis: ...


def diagnose(
    frame: pd.DataFrame | Diagnosable,
    *,
    dtype: str | None = None,
    num_examples: int | None = None,
) -> Diagnosis:
    """What the rules find in a table of layers alone.

    Args:
        frame: rows as in `layers.csv` or from `Probe.to_frame()`; or a `Run` or a `Probe`, of which
            the table is taken, and what it knows.
        dtype: of the network, such as `float32`; None: not known.
        num_examples: N of an update; both are needed to count underflow.

    Raises:
        QuestionError: it is no frame, columns are missing or hold no numbers, or no row has a
            backward signal.
    """
    if not isinstance(frame, pd.DataFrame):
        if isinstance(frame, Diagnosable) and not isinstance(frame, type):
            return frame.diagnose()
        raise QuestionError(
            f"diagnose was given a {type(frame).__name__}\n"
            "allowed: a run, a probe, or a DataFrame with the rows of layers.csv, such as"
            " vgexp.load(RUN).layers or probe.to_frame()"
        )
    return conclude(
        evidence_of_layers(frame, dtype=dtype, num_examples=num_examples, is_users=True)
    )


def conclude(evidence: Evidence) -> Diagnosis:
    """The diagnosis of evidence of any kind."""
    root = find_root(evidence)
    told = {each.id for each in root.findings}
    told |= {_SAYS_AS_MUCH[id] for id in told if id in _SAYS_AS_MUCH}
    described = tuple(each for each in examine(evidence) if each.id not in told)
    first, last = _signals(evidence)
    cause = root.cause
    lead = () if cause is None else (cause,)
    notes = tuple(each for each in root.findings if each.kind == "note")
    return Diagnosis(
        evidence.first_step,
        evidence.last_step,
        first,
        last,
        " ".join(filter(None, (*(each.sentence for each in lead), compose((*described, *notes))))),
        (*root.findings, *described),
        list_unchecked(evidence),
        root.health,
        None if cause is None else cause.id,
        None if cause is None else cause.step,
        cause.layers[0] if cause is not None and cause.layers else None,
        tuple(each.id for each in root.rivals),
        evidence.metrics.get("verdict"),
        is_check=evidence.is_check,
        depths=_depths(evidence, {name for each in root.findings for name in each.layers}),
    )


def _depths(evidence: Evidence, names: Collection[str]) -> dict[str, int]:
    layers = evidence.tables.get("layers")
    if not names or layers is None or not {"name", "layer", "kind"} <= {*layers}:
        return {}
    rows = layers[layers["name"].isin([*names]) & (layers["kind"] != "readout")]
    numbers = pd.to_numeric(rows["layer"], errors="coerce")
    known = dict(zip(rows["name"], numbers, strict=True))
    # Weights beside the main path have no number: NA in columns of nullable integers.
    return {str(name): int(number) for name, number in known.items() if pd.notna(number)}


def cause_metrics(evidence: Evidence) -> dict[str, Any]:
    """What `summary.json` keeps of the cause: its id, the step and the layer of its onset.

    No run is lost for it: where it cannot be told, whatever the reason, all are None.
    """
    try:
        cause = find_root(evidence).cause
    except Exception as error:
        evidence.note_raised("unknown", error)
        cause = None
    return {
        "cause_id": None if cause is None else cause.id,
        "cause_step": None if cause is None else cause.step,
        "cause_layer": cause.layers[0] if cause is not None and cause.layers else None,
    }


def _signals(evidence: Evidence) -> tuple[Signal | None, Signal | None]:
    try:
        return _signals_of(evidence)
    except (QuestionError, OSError):
        raise
    except Exception as error:
        evidence.note_raised("gradient", error)
        return None, None


def _signals_of(evidence: Evidence) -> tuple[Signal | None, Signal | None]:
    layers = evidence.tables.get("layers")
    if layers is None or evidence.last_step is None:
        return None, None
    is_users = "compared" in evidence.metrics
    num_layers = None if is_users else evidence.metrics.get("num_layers")
    first, last = (
        signal_of(layers[layers["step"] == step], num_layers, is_users=is_users)
        for step in (evidence.first_step, evidence.last_step)
    )
    return first, last


def _finding_for_json(finding: Finding) -> dict[str, Any]:
    return {
        "id": finding.id,
        "kind": finding.kind,
        "step": finding.step,
        "layers": list(finding.layers),
        "sentence": finding.sentence,
        "numbers": {
            name: {"value": _for_json(number.value), "limit": _for_json(number.limit)}
            for name, number in finding.numbers.items()
        },
        "explains": list(finding.explains),
        "remedies": [
            {"override": r.override, "code": r.code, "why": r.why, "source": r.source}
            for r in finding.remedies
        ],
    }


def _for_json(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)


def examine(evidence: Evidence) -> tuple[Finding, ...]:
    """What all rules find, in their order."""
    return tuple(found for rule in RULES.values() if (found := rule(evidence)) is not None)


def list_unchecked(evidence: Evidence) -> dict[str, str]:
    """The rules that cannot be checked, or ended in an error, each with the reason."""
    rules = {**RULES, **CAUSE_RULES}
    reasons = {name: rule.reason_unchecked(evidence) for name, rule in rules.items()}
    reasons |= evidence.raised
    return {name: reason for name, reason in reasons.items() if reason is not None}


def compose(findings: Iterable[Finding]) -> str:
    """The text of all findings: their sentences, each followed by its remedies."""
    parts, scope = [], ""
    for finding in findings:
        if finding.scope and finding.scope != scope:
            parts.append(finding.scope)
        scope = finding.scope
        parts += [finding.sentence, *(remedy.words for remedy in finding.remedies)]
    return " ".join(part for part in parts if part)


def sentence(
    summary: Mapping[str, Any],
    tables: Mapping[str, pd.DataFrame] | None = None,
    config: Config | None = None,
) -> str:
    """What happened to the gradient and to the loss in a run.

    Args:
        summary: what `summary.json` holds.
        tables: the run's, by name; None or without one: rules that need it tell nothing.
        config: the run's; None: not known.

    Raises:
        QuestionError: the summary has no metrics, such as that of a run that failed at its start.
    """
    return compose(examine(evidence_of_run(summary, tables, config)))


def start_sentence(summary: Mapping[str, Any]) -> str:
    """What the gradient of untrained networks does, from a summary of `vgexp signal`."""
    return compose(examine(evidence_of_start(summary)))


def partial_sentence(ending: Mapping[str, Any], layers: pd.DataFrame | None) -> str:
    """What is known of a run that left no metrics.

    Args:
        ending: its `status` and `reason`, as far as they are known.
        layers: rows as in `layers.csv`; None where there are none. Rows without a backward signal
            tell nothing.
    """
    evidence = Evidence(metrics=ending)
    if layers is not None:
        with contextlib.suppress(QuestionError):
            evidence = evidence_of_layers(layers, ending=ending)
    return compose(examine(evidence))
