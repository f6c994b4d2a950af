"""The one cause among all that rules find: the earliest finding that no other explains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from vgexp.diagnosis.causes import CAUSES, explains
from vgexp.diagnosis.evidence import Evidence
from vgexp.diagnosis.findings import Finding, Remedy
from vgexp.diagnosis.outcome import has_learned, is_short, stays_at_start
from vgexp.diagnosis.phrases import format_loss
from vgexp.diagnosis.rules import CAUSE_RULES
from vgexp.diagnosis.rules.wiring import saw_no_step
from vgexp.diagnosis.whole import with_whole_tables

HEALTHY, SICK, UNDECIDED = "healthy", "sick", "undecided"
_LASTING = ("vanishing", "exploding")
_OF_THE_SIGNAL = frozenset(
    {"weights_small", "weights_large", "saturating_activation", "batchnorm_depth"}
    | {"residual_growth"}
)
_GROWING = frozenset({"rate_too_large", "recurrence_exploding", "overflow"})
_SHRINKING = frozenset({"recurrence_vanishing", "rate_too_small", "labels_unlearnable"})


@dataclass(frozen=True)
class Root:
    """The health of a network, and the findings that it rests on."""

    health: str
    findings: tuple[Finding, ...]
    """The cause first, then its consequences by onset, then notes; without a cause notes alone."""
    rivals: tuple[Finding, ...] = ()
    """Further findings that nothing explains, which may be the cause instead."""

    @property
    def cause(self) -> Finding | None:
        """What has to be changed; None of a healthy network, and where nobody can tell."""
        first = self.findings[0] if self.findings else None
        return first if first is not None and first.kind == "sickness" else None


def find_root(evidence: Evidence) -> Root:
    """Asks all rules for causes, and puts what they find in order."""
    evidence = with_whole_tables(evidence)
    found = [each for rule in CAUSE_RULES.values() if (each := rule(evidence)) is not None]
    notes = tuple(each for each in found if CAUSES[each.id].is_note)
    learned = has_learned(evidence)
    counted = [each for each in found if _counts(each, learned, evidence)]
    if saw_no_step(evidence):
        counted = [_NO_STEP]
    if not counted:
        if learned is not False:
            return Root(UNDECIDED if learned is None else HEALTHY, notes)
        if evidence.metrics.get("verdict") != "diverged" and is_short(evidence):
            return Root(UNDECIDED, notes)
        counted = [_unknown(evidence)]
    cause, consequences, rivals = order(_without_shrinking(counted))
    return Root(SICK, (cause, *rivals, *consequences, *notes), rivals)


def _without_shrinking(findings: Sequence[Finding]) -> Sequence[Finding]:
    """Without what makes a signal smaller, where something made it grow until it was not finite or
    destroyed the weights: what shrinks does not do that."""
    grew = any(each.id in _GROWING for each in findings)
    return [each for each in findings if each.id not in _SHRINKING] if grew else findings


def order(
    findings: Sequence[Finding],
) -> tuple[Finding, tuple[Finding, ...], tuple[Finding, ...]]:
    """The cause, its consequences by onset, and what else may be the cause.

    A finding is explained by another that came no later. Of two that explain each other the earlier
    is the cause; at the same step the one that the table of causes has first. Of several that
    nothing explains the earliest is named first, at the same step a fact before a threshold.
    """
    places = {id: place for place, id in enumerate(CAUSES)}
    found = sorted(findings, key=lambda each: (_onset(each), places[each.id]))
    roots: list[Finding] = []
    others: list[Finding] = []
    for place, each in enumerate(found):
        is_explained = any(
            explains(other.id, each.id)
            and (at < place or not explains(each.id, other.id))
            and _onset(other) <= _onset(each)
            for at, other in enumerate(found)
            if at != place
        )
        (others if is_explained else roots).append(each)
    first = min(roots or found, key=lambda each: (_onset(each), not _is_certain(each)))
    rivals = tuple(replace(each, kind="sickness") for each in roots if each is not first)
    following = tuple(replace(each, kind="consequence") for each in others if each is not first)
    explained = tuple(each.id for each in following if explains(first.id, each.id))
    return replace(first, kind="sickness", explains=explained), following, rivals


def experiment(cause: Finding, rival: Finding) -> str:
    """Which experiment tells two possible causes apart."""
    remedy = next((each for each in cause.remedies if each.override or each.code), None)
    if remedy is None:
        return f"Cure {cause.id} alone: if the network then learns, it was the cause."
    what = remedy.override or remedy.code
    return (
        f"Train once more with {what} alone: if the network then learns, {cause.id} was the cause,"
        f" and else {rival.id}."
    )


def _is_certain(finding: Finding) -> bool:
    if finding.is_fact is not None:
        return finding.is_fact
    return finding.id in CAUSE_RULES and CAUSE_RULES[finding.id].is_certain


def _onset(finding: Finding) -> float:
    return -1.0 if finding.step is None else float(finding.step)


def _counts(finding: Finding, learned: bool | None, evidence: Evidence) -> bool:
    """Whether a finding is a sickness of this network.

    Facts of wiring and numbers always are. Others need a network that did not learn; where nobody
    knows whether it did, a loss that is where it began, or a signal that is still lost at the end.
    """
    if CAUSES[finding.id].is_note:
        return False
    if _is_certain(finding):
        return True
    if learned is None:
        if stays_at_start(evidence):
            return True
        lasts = evidence.metrics.get("signal_last", evidence.metrics.get("signal")) in _LASTING
        return lasts and finding.id in _OF_THE_SIGNAL and not _has_losses(evidence)
    return not learned


def _has_losses(evidence: Evidence) -> bool:
    steps = evidence.tables.get("steps")
    return steps is not None and "loss" in steps and bool(steps["loss"].notna().any())


def _unknown(evidence: Evidence) -> Finding:
    metrics = evidence.metrics
    last, guess = metrics.get("loss_last_mean_20"), metrics.get("constant_loss")
    at = (
        ""
        if last is None or guess is None
        else (f": the loss is {format_loss(last)}, guessing gives {format_loss(guess)}")
    )
    sentence = f"It does not learn{at}, and all that was checked is in order."
    if metrics.get("verdict") == "diverged":
        sentence = f"It diverged: {metrics.get('cause') or 'the loss became non-finite'}."
    return Finding("unknown", sentence, step=evidence.first_step)


_NO_STEP = Finding(
    "no_update",
    "The optimizer made no step while the probe was watching.",
    step=0,
    remedies=(
        Remedy(
            "Call the step of the optimizer that the probe was given, within its `with`.",
            "Without a step no weight changes.",
            code="loss.backward(); optimizer.step()",
        ),
    ),
)
