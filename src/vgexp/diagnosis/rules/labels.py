"""The rule about labels that nothing in the inputs tells."""

from __future__ import annotations

import math

import numpy as np

from vgexp.diagnosis.depths import values_of
from vgexp.diagnosis.evidence import Evidence
from vgexp.diagnosis.findings import Finding, Number, Remedy, cause_rule
from vgexp.diagnosis.landscape import FLAT_BELOW
from vgexp.diagnosis.learning import ENOUGH_STEPS, HALF
from vgexp.diagnosis.outcome import (
    column_of,
    constant_loss,
    first_call,
    has_relapsed,
    num_classes_of,
)
from vgexp.diagnosis.phrases import format_loss
from vgexp.diagnosis.rules.graph_cuts import graph_cut
from vgexp.diagnosis.rules.updates import UNMOVED, WHOLE_WEIGHT, left_by_decay, total_change
from vgexp.diagnosis.signal import VANISHING_BELOW

_ERRORS, _EXAMPLES = 4.0, 600
"""Standard errors of a share of so many examples, within which it is that of guessing."""
_GREW = 1.1
"""Times a guess's loss, and the lowest one, that what was learned by heart costs on others in the
end: an average of weights that has hardly moved yet stays where it began."""
_LEAST_CALLS = 3
"""Calls, or evaluations, from which on what all of them show is no chance."""
_NEVER_BELOW = 0.98
"""Share of a guess's loss that evaluations of what was not learned stay above."""
_SAME_CALL = 1e-5
"""Relative difference up to which a call's loss is that of the whole update."""
_AT_GUESS = 0.05
"""Relative difference to a guess's loss that examples learned by heart bring within few epochs."""
_DEVIATIONS = 3.0
"""Standard deviations of single batches by which a mean below a guess's shows what was learned."""
_SAME = 0.01
"""Relative difference up to which a loss is said to be a guess's."""
_LOOK = Remedy(
    "Look at examples with their labels, as the network gets them.",
    "Shuffled or misread labels cannot be learned.",
    code="print(x[0], y[0])",
    source="Zhang et al. 2017",
)


@cause_rule(
    "labels_unlearnable",
    "layers.csv",
    "steps.csv",
    limit=WHOLE_WEIGHT,
    reason="a network whose weights changed by their own size, with a steady signal, and"
    " whose loss is still what guessing gives, found nothing to learn",
    source="Zhang et al. 2017 (random labels)",
    least_steps=ENOUGH_STEPS,
)
def labels_unlearnable(evidence: Evidence) -> Finding | None:
    """Whether weights moved far, the signal is sound, and the loss stays at guessing.

    A network that has begun to memorise its examples is below guessing on them, and only there: its
    answers to other examples are right no more often than a guess is, or cost no less at any
    evaluation. Or all labels are one class, and nothing is left to tell apart.
    """
    if (found := _one_class(evidence) or _learned_by_heart(evidence)) is not None:
        return found
    if has_relapsed(evidence):
        return None
    guess, total = constant_loss(evidence), total_change(evidence)
    losses = column_of(evidence, "steps", "loss")
    losses = losses[np.isfinite(losses)]
    is_steady = all(evidence.metrics.get(f"signal{end}") == "steady" for end in ("", "_last"))
    through_time = evidence.metrics.get("time_attenuation")
    is_steady &= not isinstance(through_time, int | float) or through_time >= VANISHING_BELOW
    bends = evidence.metrics.get("curvature_over_limit_max")
    if isinstance(bends, int | float) and bends < FLAT_BELOW:
        return None
    if guess is None or total is None or losses.size < ENOUGH_STEPS or not is_steady:
        return None
    last = float(losses[-50:].mean())
    late = losses[-(losses.size // 4) :]
    stands_out = guess - late.mean() > max(_SAME * guess, _DEVIATIONS * late.std())
    much = "" if abs(last - guess) <= _SAME * guess else "next to "
    is_at_guess = abs(last - guess) <= _AT_GUESS * guess and not stands_out
    least = total_change(evidence, of_least=True)
    is_cut = not evidence.lacks("wiring.csv") and graph_cut(evidence) is not None
    if least is None or least < UNMOVED or is_cut or left_by_decay(evidence) is not None:
        return None  # a part of the network has not been trained, or nothing is left of it
    if total < WHOLE_WEIGHT or total > 1e3 or not (is_at_guess or _memorises(evidence, guess)):
        return None
    return Finding(
        "labels_unlearnable",
        f"The signal is steady and the updates sum up to {total:.2g} of a weight, yet "
        + (
            f"the loss is {format_loss(last)}, and guessing gives {format_loss(guess)}"
            if is_at_guess
            else f"new examples are answered as by a guess (on those seen the loss is {last:.3g})"
        )
        + f": {much}nothing in the inputs seems to tell the labels.",
        step=evidence.first_step,
        numbers={"loss_last": Number(last, guess), "total_update_ratio": Number(total, 1.0)},
        remedies=(_LOOK,),
    )


def _one_class(evidence: Evidence) -> Finding | None:
    """That a read-out's scores of several classes are compared with one and the same label, at
    every call that was described.

    What is compared with label 0 by intent, as the positive among negatives, is a product of
    features, or a number for each candidate, and no weight's own classes. Of each update one call
    is described: where it has others, as a network that tells two domains apart, they may have
    other labels.
    """
    table, first = evidence.tables.get("loss"), first_call(evidence)
    if table is None or first is None or evidence.is_check:
        return None
    output, target, _ = first
    targets = table[table["role"] == "target"]
    is_labels = targets["dtype"].astype("str").str.startswith(("int", "uint")).all()
    is_of_weight = bool((values_of(table, "classes_of_weight") == 1).any())
    lows, highs = values_of(targets, "min"), values_of(targets, "max")
    is_one = lows.size >= _LEAST_CALLS and bool((lows == lows[0]).all() & (highs == lows[0]).all())
    if (
        not (is_labels and is_one and is_of_weight and _is_only_call(evidence))
        or str(target["shape"]) == "1"
    ):
        return None
    if num_classes_of(output["shape"], target["shape"]) < 2:
        return None
    return Finding(
        "labels_unlearnable",
        f"All labels are {lows[0]:.0f}, at each of {lows.size} calls of {output['function']} that"
        " were looked at: a constant answers them all, and nothing is learned of the inputs.",
        step=evidence.first_step,
        numbers={"classes_seen": Number(1.0, 2.0)},
        remedies=(_LOOK,),
        is_fact=True,
    )


def _is_only_call(evidence: Evidence) -> bool:
    """Whether the loss of each described call is that of its update, which then has no other."""
    table, steps = evidence.tables["loss"], evidence.tables.get("steps")
    if steps is None:
        return False
    rows = table[table["role"] == "loss"]
    of_call = values_of(rows, "mean")
    of_step = values_of(steps.set_index("step").reindex(rows["step"]), "loss")
    return bool(np.isclose(of_call, of_step, rtol=_SAME_CALL, atol=0, equal_nan=True).all())


def _learned_by_heart(evidence: Evidence) -> Finding | None:
    """That the training loss is below half of what guessing costs, and that of evaluations without
    gradients never was below it, and rose; their answers are right as often as a guess is.

    The loss alone does not tell: a network that is sure of its answers costs more than a guess even
    where seven of ten are right, and under an attack it is right less often than a guess.
    """
    guess, table = constant_loss(evidence), evidence.tables.get("evals")
    losses = column_of(evidence, "steps", "loss")
    losses = losses[np.isfinite(losses)]
    if guess is None or table is None or losses.size < ENOUGH_STEPS or evidence.config is not None:
        return None
    of_others = table[table["split"] == "val"]
    told, right = values_of(of_others, "loss"), values_of(of_others, "accuracy")
    right, told = right[np.isfinite(told)], told[np.isfinite(told)]
    last = float(losses[-20:].mean())
    if told.size < _LEAST_CALLS or last >= HALF * guess or told.min() < _NEVER_BELOW * guess:
        return None
    chance, error = _chance(guess)
    is_guess = bool((np.abs(right - chance) <= error).all())  # not of nan
    if not is_guess or told[-1] < _GREW * max(guess, float(told.min())):
        return None
    return Finding(
        "labels_unlearnable",
        f"The loss of the examples that it is trained on fell to {last:.3g}, and that of others was"
        f" {told.min():.3g} or more at each of {told.size} evaluations, where guessing costs"
        f" {guess:.3g}; at most {right.max():.2g} of its answers to them are right: it learned its"
        " examples by heart, and nothing that holds for others.",
        step=evidence.first_step,
        numbers={
            "loss_last": Number(last, HALF * guess),
            "val_loss_best": Number(float(told.min()), _NEVER_BELOW * guess),
            "val_accuracy_best": Number(float(right.max()), chance + error),
        },
        remedies=(_LOOK,),
        is_fact=True,
    )


def _memorises(evidence: Evidence, guess: float) -> bool:
    """Whether a classifier is right on validation examples no more often than a guess is."""
    loss, right = (evidence.metrics.get(f"val_{name}_last") for name in ("loss", "accuracy"))
    return loss is not None and right is not None and loss > guess and right < sum(_chance(guess))


def _chance(guess: float) -> tuple[float, float]:
    """How often a guess is right, and within what error: of K classes that are equally frequent
    exp(-guess) is 1/K."""
    share = math.exp(-max(0.0, guess))
    return share, _ERRORS * math.sqrt(share * (1 - share) / _EXAMPLES)


RULES = (labels_unlearnable,)
