"""The diagnosis: every rule asked, and the one text that is composed of what they found."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import pandas as pd

from vgexp.diagnosis.evidence import (
    Evidence,
    evidence_of_layers,
    evidence_of_run,
    evidence_of_start,
)
from vgexp.diagnosis.findings import Finding
from vgexp.diagnosis.rules import RULES
from vgexp.diagnosis.signal import Signal, signal_of
from vgexp.errors import QuestionError

if TYPE_CHECKING:
    from vgexp.config import Config


@dataclass(frozen=True)
class Diagnosis:
    """What the rules found, the signal at the first and the last measured step, and the text."""

    first_step: int
    last_step: int
    first: Signal
    last: Signal
    sentence: str
    findings: tuple[Finding, ...]
    """In the order of `RULES`."""
    unchecked: Mapping[str, str]
    """Rule -> why it could not be checked."""

    def __str__(self) -> str:
        return self.sentence

    @property
    def checked(self) -> tuple[str, ...]:
        """The rules that were checked, whether they found something or not."""
        return tuple(name for name in RULES if name not in self.unchecked)


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
    evidence = evidence_of_layers(frame, dtype=dtype, num_examples=num_examples, is_users=True)
    assert evidence.last_step is not None
    layers = evidence.tables["layers"]
    first_step, last_step = evidence.first_step, evidence.last_step
    findings = examine(evidence)
    return Diagnosis(
        first_step,
        last_step,
        signal_of(layers[layers["step"] == first_step], is_users=True),
        signal_of(layers[layers["step"] == last_step], is_users=True),
        compose(findings),
        findings,
        list_unchecked(evidence),
    )


def examine(evidence: Evidence) -> tuple[Finding, ...]:
    """What all rules find, in their order."""
    return tuple(found for rule in RULES.values() if (found := rule(evidence)) is not None)


def list_unchecked(evidence: Evidence) -> dict[str, str]:
    """The rules that cannot be checked, each with the reason."""
    reasons = {name: rule.reason_unchecked(evidence) for name, rule in RULES.items()}
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
