"""The one cause among all that rules find: the earliest finding that no other explains."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from vgexp.diagnosis.causes import CAUSES, explains
from vgexp.diagnosis.evidence import Evidence
from vgexp.diagnosis.findings import Finding, Remedy
from vgexp.diagnosis.learning import LEARNED_BELOW
from vgexp.diagnosis.outcome import (
    column_of,
    constant_loss,
    ends_not_finite,
    first_call,
    has_learned,
    has_learned_little,
    has_relapsed,
    is_short,
    learned_beyond_scatter,
    stays_at_start,
    turned_guess,
)
from vgexp.diagnosis.phrases import format_loss, name_layers
from vgexp.diagnosis.rules import CAUSE_RULES
from vgexp.diagnosis.rules.depth import lost_in_part, outputs_dwarf_targets, starts_far_off
from vgexp.diagnosis.rules.not_finite import first_bad, reads_finite
from vgexp.diagnosis.rules.updates import left_by_decay
from vgexp.diagnosis.signal import VANISHING_BELOW
from vgexp.diagnosis.whole import with_whole_tables
from vgexp.errors import QuestionError
from vgexp.unseen import saw_no_step

HEALTHY, SICK, UNDECIDED = "healthy", "sick", "undecided"
_LASTING = ("vanishing", "exploding")
_OF_THE_SIGNAL = frozenset(
    {"weights_small", "weights_large", "saturating_activation", "batchnorm_depth"}
    | {"residual_growth"}
)
_DESTROYING = frozenset({"weights_large", "batchnorm_depth", "residual_growth"})
_DESTROYED = frozenset({"loss_over_first", "update_ratio_median"})
"""Numbers of a rate that was too large for all weights, or for the loss."""
_OVERCOME = frozenset(
    {"frozen", "rate_too_small", "labels_unlearnable"}
    | {"saturating_activation", "weights_small", "recurrence_vanishing"}
)
"""What a network may overcome or somebody may mean: it counts where the network hardly learned."""
_HARDLY = 0.8
"""Share of a constant guess's loss above which a network that learned hardly did."""
_FIRST = 20
"""Steps over which a loss is taken where it began."""
_GROWING_SIGNAL = _DESTROYING | {"recurrence_exploding"}
"""What makes a gradient, and with it an update, larger the further it comes."""
_GROWING = frozenset({"rate_too_large", "recurrence_exploding", "overflow"})
_SHRINKING = frozenset({"recurrence_vanishing", "rate_too_small", "labels_unlearnable"})

_BEFORE_TRAINING = frozenset(
    {"zero_weights", "weights_small", "weights_large", "saturating_activation", "dead_at_start"}
    | {"inputs_unscaled", "output_range", "rate_too_large"}
)
"""What counts before training, beside facts: no update makes it good by itself."""
_ROUNDING_OF_FLOAT32 = 2.0**-24
_FAINT = 0.01
"""Share of the last layer's signal below which what shrinks it comes before a small rate."""
_FAR_FROM_GUESSING = 10.0
"""Times a guess's loss above which a loss at the start shows that the forward pass grew."""


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
    """Asks all rules for causes, and puts what they find in order.

    What raises leaves its rule unchecked, or where it is of none, `unknown`.

    Raises:
        QuestionError: a file of the evidence, which is read when it is asked for, is damaged.
    """
    try:
        return _find_root(with_whole_tables(evidence))
    except (QuestionError, OSError):
        raise
    except Exception as error:
        evidence.note_raised("unknown", error)
        return Root(UNDECIDED, ())


def _find_root(evidence: Evidence) -> Root:
    found = [each for rule in CAUSE_RULES.values() if (each := rule(evidence)) is not None]
    notes = tuple(each for each in found if CAUSES[each.id].is_note)
    learned = has_learned(evidence)
    counted = [each for each in found if _counts_safely(each, learned, evidence)]
    if (guess := turned_guess(evidence)) is not None:
        counted = [_turned(evidence, guess)]
    if evidence.is_check:
        return _root_of_check(evidence, found, counted)
    counted = _without_side_paths(counted)
    if saw_no_step(evidence.unseen):
        counted = [_WITHOUT_A_STEP]
    if not counted:
        if learned is not False:
            return Root(UNDECIDED if learned is None else HEALTHY, notes)
        is_bad = evidence.metrics.get("verdict") == "diverged" or ends_not_finite(evidence)
        if not is_bad and is_short(evidence):
            return Root(UNDECIDED, notes)
        lost = lost_in_part(evidence)
        if lost is None and not has_relapsed(evidence) and learned_beyond_scatter(evidence):
            return Root(UNDECIDED, notes)
        counted = [lost or _unknown(evidence)]
    elif _is_slow_by_lost_signal(evidence, counted) and (lost := lost_in_part(evidence)):
        counted = [lost, *counted]
    cause, consequences, rivals = order(_without_shrinking(counted))
    return Root(SICK, (cause, *rivals, *consequences, *notes), rivals)


def _is_slow_by_lost_signal(evidence: Evidence, counted: Sequence[Finding]) -> bool:
    """Whether nothing but a small rate was found, and layer 1 gets less than a hundredth of the
    signal: the layers that get little move little, at whatever rate suits the last ones."""
    attenuation = evidence.metrics.get("attenuation")
    is_alone = [each.id for each in counted] == ["rate_too_small"]
    is_of_schedule = is_alone and bool(counted[0].is_fact)
    return is_alone and not is_of_schedule and attenuation is not None and attenuation < _FAINT


def _root_of_check(
    evidence: Evidence, found: Sequence[Finding], counted: Sequence[Finding]
) -> Root:
    """What one update before training shows. Thresholds that training may still pass, as dead or
    saturated units, are notes, unless what counts explains them."""
    at_start = evidence.metrics.get("loss_at_start")
    is_finite = isinstance(at_start, float) and math.isfinite(at_start)
    if not counted and at_start is not None and not is_finite:
        counted = [_not_finite_at_start(evidence)]
    is_far_off = starts_far_off(evidence)
    if not counted and is_far_off:
        named = [each for each in found if each.id == "weights_large"]
        large = outputs_dwarf_targets(evidence)
        counted = named or ([] if large is None else [large])
    growing = [each for each in found if each.id in _GROWING_SIGNAL]
    if not growing and _falls_by_the_update(evidence):
        counted = [each for each in counted if each.id != "rate_too_large"]
    related = [
        each
        for each in found
        if any(explains(one.id, each.id) for one in counted)
        or (each in growing and any(explains(each.id, one.id) for one in counted))
    ]
    following = [each for each in related if each not in counted]
    notes = tuple(each for each in found if each not in counted and each not in following)
    if counted:
        cause, consequences, rivals = order([*counted, *following])
        return Root(SICK, (cause, *rivals, *consequences, *notes), rivals)
    came = column_of(evidence, "wiring", "gradient_came")
    is_sound = is_finite and not is_far_off and (came == 1).any()
    return Root(HEALTHY if is_sound else UNDECIDED, notes)


def _without_side_paths(findings: list[Finding]) -> list[Finding]:
    """Without weights beside the path that get no gradient, where there is another cause: what the
    loss does not need keeps nothing from learning."""
    beside = [each for each in findings if "layers_beside_the_path" in each.numbers]
    return findings if len(beside) == len(findings) else [x for x in findings if x not in beside]


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


def _counts_safely(finding: Finding, learned: bool | None, evidence: Evidence) -> bool:
    """`_counts`; a finding that cannot be judged does not."""
    try:
        return _counts(finding, learned, evidence)
    except (QuestionError, OSError):
        raise
    except Exception as error:
        evidence.note_raised(finding.id, error)
        return False


def _counts(finding: Finding, learned: bool | None, evidence: Evidence) -> bool:
    """Whether a finding is a sickness of this network.

    Facts of wiring and numbers always are. Others need a network that did not learn; where nobody
    knows whether it did, a loss that is where it began, or a signal that is still lost at the end.
    One that learned little is sick of what is found as well, but for what it may have overcome.
    """
    if CAUSES[finding.id].is_note:
        return False
    if _is_certain(finding):
        return True
    if evidence.is_check:
        return _counts_in_check(finding, evidence)
    if learned is None:
        if stays_at_start(evidence):
            return True
        lasts = evidence.metrics.get("signal_last", evidence.metrics.get("signal")) in _LASTING
        return lasts and finding.id in _OF_THE_SIGNAL and not _has_losses(evidence)
    if learned and has_learned_little(evidence):
        if finding.id == "rate_too_large":
            return not _DESTROYED.isdisjoint(finding.numbers)
        if finding.id not in _OVERCOME:
            return True
        return has_learned_little(evidence, _HARDLY) and not _may_be_meant(finding, evidence)
    return not learned


def _not_finite_at_start(evidence: Evidence) -> Finding:
    """What is known of a loss that is not finite and that no rule explains."""
    metrics = evidence.metrics
    weights, place = metrics.get("not_finite_weights"), metrics.get("not_finite_at")
    sentence = f"The loss at the start is {metrics['loss_at_start']}"
    layers: tuple[str, ...] = ()
    if weights:
        sentence += f": {name_layers(weights)} hold nan or infinite values before any update"
        layers = tuple(weights)
    elif place:
        sentence += f": {place} makes the first value that is not finite, of inputs that are"
        layers = (place,)
    return Finding("unknown", f"{sentence}.", step=0, layers=layers)


def _may_be_meant(finding: Finding, evidence: Evidence) -> bool:
    """Whether the network was trained before: frozen weights, of which none is as PyTorch draws it,
    as those of an encoder or beside an adapter; or short steps, of a loss that began where others
    have learned."""
    if finding.id == "frozen":
        drawn = evidence.metrics.get("default_weights") or ()
        return set(drawn).isdisjoint(finding.layers)
    guess, losses = constant_loss(evidence), column_of(evidence, "steps", "loss")
    began = float(losses[:_FIRST].mean()) if losses.size else math.nan
    return finding.id == "rate_too_small" and guess is not None and began < LEARNED_BELOW * guess


def _counts_in_check(finding: Finding, evidence: Evidence) -> bool:
    if finding.id == "frozen":
        return not _requires_gradients(evidence)
    attenuation = finding.numbers.get("attenuation")
    if finding.id == "residual_growth":
        at_start, guess = evidence.metrics.get("loss_at_start"), constant_loss(evidence)
        return guess is not None and at_start is not None and at_start > _FAR_FROM_GUESSING * guess
    if attenuation is not None and attenuation.value < 1:
        return attenuation.value < _least_signal(evidence)
    return finding.id in _BEFORE_TRAINING


def _falls_by_the_update(evidence: Evidence) -> bool:
    """Whether the update lowers the loss of the same batch as much as learning does: weights that
    began near 0 are replaced then, and nothing is destroyed."""
    before, after = (evidence.metrics.get(f"loss_{at}") for at in ("at_start", "after_update"))
    return isinstance(before, float) and isinstance(after, float) and after < LEARNED_BELOW * before


def _least_signal(evidence: Evidence) -> float:
    """The attenuation below which a network does not begin to learn.

    Measured on MLPs of 4 to 30 layers of five activations, on digits: with SGD the limit of
    `vanishing` parts those that learn in 500 steps from those that do not. Optimizers that divide
    by the gradient's size bring far smaller signals to the same length, down to where float32
    cannot add them to others any more. Where nobody said what the optimizer is, it may be one.
    """
    told = evidence.settings
    is_plain = "optimizer.class" in told and not {"optimizer.eps", "optimizer.betas"} & {*told}
    return VANISHING_BELOW if is_plain else _ROUNDING_OF_FLOAT32


def _requires_gradients(evidence: Evidence) -> bool:
    return bool((column_of(evidence, "wiring", "requires_grad") == 1).any())


def _has_losses(evidence: Evidence) -> bool:
    steps = evidence.tables.get("steps")
    return steps is not None and "loss" in steps and bool(steps["loss"].notna().any())


def _turned(evidence: Evidence, guess: float) -> Finding:
    """That the loss is minus a cross-entropy."""
    first = first_call(evidence)
    name = "" if first is None else f"{first[0]['function']} "
    return Finding(
        "unknown",
        f"The loss {name}is minus a cross-entropy, which cannot be below 0: its sign is turned,"
        f" and the optimizer makes the answers wrong (guessing gives {format_loss(guess)}).",
        step=evidence.first_step,
        remedies=(
            Remedy(
                "Take the minus sign of the loss out.",
                "An optimizer makes the loss as small as it can.",
                code="loss = nn.functional.cross_entropy(logits, y)  # without a minus",
            ),
        ),
        is_fact=True,
    )


def _unknown(evidence: Evidence) -> Finding:
    metrics = evidence.metrics
    last, guess = metrics.get("loss_last_mean_20"), metrics.get("constant_loss")
    at = (
        ""
        if last is None or guess is None
        else (f": the loss is {format_loss(last)}, guessing gives {format_loss(guess)}")
    )
    what = "What was learned was lost" if has_relapsed(evidence) else "It does not learn"
    sentence = f"{what}{at}, and all that was checked is in order."
    if (left := left_by_decay(evidence)) is not None:
        decay = evidence.settings["optimizer.weight_decay"]
        sentence = (
            f"{what}{at}. The weights shrank to {left:.2g} of their size at the start:"
            f" weight_decay = {decay:.2g} takes more of them than the gradients give."
        )
    if metrics.get("verdict") == "diverged":
        sentence = f"It diverged: {metrics.get('cause') or 'the loss became non-finite'}."
    elif ends_not_finite(evidence):
        step = first_bad(evidence, "loss")
        since = "" if step is None else f" from step {step} on"
        sentence = f"The loss is not finite{since}, and no rule says what made it so."
        if step is not None and reads_finite(evidence, step):
            sentence = (
                f"The loss is not finite{since}. The inputs and the weights are finite at that"
                " step: the forward pass made it, as 0/0, the logarithm of 0 and the softmax of a"
                " row that is masked whole do."
            )
    return Finding("unknown", sentence, step=evidence.first_step)


_WITHOUT_A_STEP = Finding(
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
