"""Rules about what came out of training: loss, curvature, lost numbers, how the run ended."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from vgexp.diagnosis.evidence import Evidence
from vgexp.diagnosis.findings import Finding, Number, Remedy, rule
from vgexp.diagnosis.landscape import FLAT_BELOW
from vgexp.diagnosis.learning import ENOUGH_STEPS, LEARNED_BELOW
from vgexp.diagnosis.outcome import (
    bad_loss,
    column_of,
    constant_loss,
    has_learned,
    has_learned_little,
    has_relapsed,
    is_below_its_range,
    is_short,
    learned_beyond_scatter,
)
from vgexp.diagnosis.phrases import UNKNOWN_GUESS, describe_first_not_finite, format_loss
from vgexp.diagnosis.signal import SMALLEST_NORMAL
from vgexp.errors import one_line
from vgexp.quantities import NUM_STEPS_AVERAGED

_ROUNDING = 1e-9
_FAR_FROM_EVEN = 2.0
"""Times log K above which it is said that logits begin large; usual inits stay below 1.3."""
_GUESSING = 0.01
"""Relative difference up to which a loss is what guessing gives."""
_LIMIT = "the stability limit of this learning rate"
_LEARNED = ("healthy", "relapsed")
_LITTLE = "learned little"
_BELOW = "below its range"
_REACHED_THE_END = ("completed", "diverged")
_STOPPED = "stopped"


@rule("verdict", "cause")
def diverged(evidence: Evidence) -> Finding | None:
    """Whether training diverged, and what became non-finite first."""
    if evidence.metrics["verdict"] != "diverged":
        return None
    clause = evidence.metrics["cause"].rstrip(".")
    sentences = [f"The run diverged: {clause}.", describe_first_not_finite(evidence.metrics)]
    return Finding(
        diverged.id,
        " ".join(filter(None, sentences)),
        step=evidence.metrics.get("nonfinite_step"),
    )


@rule("loss_last_mean_20")
def loss(evidence: Evidence) -> Finding | None:
    """Whether the network learned, by its training loss and that of a constant guess."""
    metrics = evidence.metrics
    if metrics.get("verdict") == "diverged":
        return None
    last, guess = metrics["loss_last_mean_20"], constant_loss(evidence)
    limit = None if guess is None else LEARNED_BELOW * guess
    numbers = {"loss_last_mean_20": Number(last)}
    if (best := metrics.get("loss_best_mean_20")) is not None:
        numbers["loss_best_mean_20"] = Number(best, limit)
    known = dict(metrics)
    if metrics.get("verdict") is None:
        steps = metrics.get("steps") or column_of(evidence, "steps", "loss").size or None
        known |= {"verdict": _verdict_of_loop(evidence), "steps": steps}
    elif metrics["verdict"] == "relapsed" and not has_relapsed(evidence):
        known["verdict"] = None
    if is_below_its_range(evidence):
        known["verdict"] = _BELOW
    elif known["verdict"] not in _LEARNED and learned_beyond_scatter(evidence):
        losses = column_of(evidence, "steps", "loss")
        late = losses[-(losses.size // 4) :]
        known |= {"verdict": _LITTLE, "loss_late": float(late.mean()), "steps_late": late.size}
    return Finding(loss.id, _describe_loss(known, last, guess), numbers=numbers)


@rule("loss_at_start")
def loss_at_start(evidence: Evidence) -> Finding | None:
    """What the loss is before training, and what guessing gives."""
    value, guess = evidence.metrics["loss_at_start"], constant_loss(evidence)
    if not math.isfinite(value):
        return None
    sentence = f"The loss at the start is {format_loss(value)}"
    num_classes = None if guess is None else round(math.exp(min(guess, 50.0)))
    if guess is None:
        sentence += "."
    elif num_classes is not None and abs(guess - math.log(num_classes)) < _ROUNDING * guess:
        sentence += (
            f"; guessing among {num_classes} classes gives log {num_classes} ="
            f" {format_loss(guess)}."
        )
        if value > _FAR_FROM_EVEN * guess:
            sentence += f" It is {value / guess:.2g} times as much: the logits begin large."
    else:
        sentence += f"; guessing gives {format_loss(guess)}."
    numbers = {"loss_at_start": Number(value, guess)}
    return Finding(loss_at_start.id, sentence, step=0, numbers=numbers)


@rule("sharpness_last")
def curvature(evidence: Evidence) -> Finding | None:
    """Whether the landscape is flat, or the sharpness above the stability limit."""
    metrics = evidence.metrics
    last, over = metrics["sharpness_last"], metrics.get("sharpness_over_limit")
    if over is None:
        sentence = f"The largest Hessian eigenvalue was {last:.2g} at the end."
        return Finding(curvature.id, sentence, numbers={"sharpness_last": Number(last)})
    largest = metrics["curvature_over_limit_max"]
    return Finding(
        id=curvature.id,
        sentence=_describe_curvature(over, largest, metrics.get("verdict")),
        numbers={
            "sharpness_over_limit": Number(over, 1.0),
            "curvature_over_limit_max": Number(largest, FLAT_BELOW),
        },
    )


@rule("underflow", "dtype", "num_layers")
def underflow(evidence: Evidence) -> Finding | None:
    """In how many layers the backward signal fell below what the dtype holds."""
    num_below, dtype = evidence.metrics["underflow"], str(evidence.dtype)
    if not num_below:
        return None
    sentence = (
        f"In {num_below} of {evidence.metrics['num_layers']} layers the backward signal fell below"
        f" the smallest normal number of {dtype} ({SMALLEST_NORMAL[dtype]:.2g})"
    )
    if dtype == "float16":
        sentence += ", the loss scale multiplied in"
    is_widest = dtype == "float64"
    return Finding(
        id=underflow.id,
        sentence=f"{sentence}: what is smaller is lost." if is_widest else f"{sentence}.",
        numbers={"underflow": Number(num_below, 0)},
        remedies=() if is_widest else (_IN_FLOAT64,),
    )


@rule("status")
def unfinished(evidence: Evidence) -> Finding | None:
    """Whether a run ended before all of its steps, and why."""
    status, reason = str(evidence.metrics["status"]), evidence.metrics.get("reason")
    if status in _REACHED_THE_END:
        return None
    why = f": {reason}" if reason else ""
    if status == _STOPPED:
        return Finding(unfinished.id, f"A rule ended the run early{one_line(why)}.")
    return Finding(unfinished.id, f"The run did not reach its end: {one_line(status + why)}.")


_IN_FLOAT64 = Remedy(
    words="dtype=float64 shows the true value.",
    why="The smallest normal number of float64 is 2.2e-308.",
    override="dtype=float64",
    code="model.double(), with inputs in float64",
)


def _verdict_of_loop(evidence: Evidence) -> str | None:
    """What became of the loss of somebody's own loop, as its health has it, in the words of a
    verdict; None where it did not learn, or nobody knows."""
    if has_learned(evidence):
        return _LITTLE if has_learned_little(evidence) else "healthy"
    if has_learned(evidence) is None:
        return None
    if has_relapsed(evidence):
        return "relapsed"
    return "undecided" if is_short(evidence) else None


def _describe_loss(metrics: Mapping[str, Any], last: float, guess: float | None) -> str:
    """Whether it learned: the loss of the first step, its best and last means over 20 steps."""
    many = min(NUM_STEPS_AVERAGED, metrics.get("steps") or NUM_STEPS_AVERAGED)
    first = format_loss(metrics.get("loss_first"))
    best = f"lowest mean over {many} steps {format_loss(metrics.get('loss_best_mean_20'))}"
    course = f"went from {first} at the first step to {format_loss(last)} over the last {many}"
    if metrics.get("verdict") == _BELOW:
        return (
            f"The training loss {course} ({best}): a loss of labels that is below 0 does not tell"
            " what was learned, for of probabilities no cross-entropy is."
        )
    if guess is None:
        return f"The training loss {course} ({best}); {UNKNOWN_GUESS}."
    guessing = f"guessing gives {format_loss(guess)}"
    accuracy = _describe_accuracy(metrics)
    if (late := metrics.get("loss_late")) is not None:
        return (
            f"It learned little: the training loss went from {first} at the first step to"
            f" {format_loss(late)} over the last {metrics['steps_late']}, which is below"
            f" {format_loss(guess)}, what guessing gives, by more than batches"
            f" scatter{accuracy}."
        )
    if metrics.get("verdict") == _LITTLE:
        return f"It learned little: the training loss {course} ({best}; {guessing}){accuracy}."
    if metrics.get("verdict") in _LEARNED:
        if last >= LEARNED_BELOW * guess:
            return _describe_relapse(metrics, last, guess, many) + accuracy + "."
        is_steady = metrics.get("signal") in (None, "steady")
        opening = "It learned" if is_steady else "Even so it learned"
        return f"{opening}: the training loss {course} ({best}; {guessing}){accuracy}."
    if metrics.get("verdict") == "undecided":
        steps = metrics.get("steps")
        has_enough = steps is not None and steps >= ENOUGH_STEPS
        rose = last > (metrics.get("loss_first") or math.inf)
        falls = "rose, and now falls" if rose else "still falls"
        opening = (
            f"It has not learned yet, and the loss {falls}"
            if has_enough
            else f"It has not learned yet, but fewer than {ENOUGH_STEPS} steps are too few to tell"
        )
        return f"{opening}: the training loss {course} ({best}; {guessing}){accuracy}."
    if abs(last - guess) <= _GUESSING * abs(guess):
        return (
            f"It did not learn: the training loss was {format_loss(last)} over the last"
            f" {many} steps, which is what guessing gives ({format_loss(guess)})."
        )
    return (
        f"It did not learn, as far as it went: the training loss {course} ({best};"
        f" {guessing}){accuracy}."
    )


def _describe_relapse(metrics: Mapping[str, Any], last: float, guess: float, many: int) -> str:
    """That it learned and lost it, without a full stop."""
    best = format_loss(metrics.get("loss_best_mean_20"))
    step = metrics.get("relapse_step")
    lost = "lost it" if step is None else f"lost it after step {step}"
    is_guess = abs(last - guess) <= _GUESSING * abs(guess)
    end = "which is what guessing gives" if is_guess else "where guessing gives"
    return (
        f"It learned and {lost}: the training loss was {format_loss(metrics.get('loss_first'))} at"
        f" the first step, {best} over the best {many} steps and {format_loss(last)} over the last"
        f" {many}, {end} {format_loss(guess)}"
    )


def _describe_accuracy(metrics: Mapping[str, Any]) -> str:
    """Accuracies in the same steps as the losses, as the end of a sentence; empty if not known."""
    names = ("accuracy_first", "accuracy_best_mean_20", "accuracy_last_mean_20")
    first, best, last = (metrics.get(name) for name in names)
    if first is None or best is None or last is None:
        return ""
    return f"; the accuracy was {first:.2f}, at best {best:.2f}, at the end {last:.2f}"


def _describe_curvature(over: float, largest: float, verdict: str | None) -> str:
    """Which of three kinds of flat loss it is; of a network that learned, the eigenvalue alone."""
    if over > 1:
        too_large = "" if verdict == "healthy" else "The step is too large for the curvature: "
        opening = f"{too_large}the largest Hessian eigenvalue was mostly {over:.2g} times"
        return f"{opening[0].upper()}{opening[1:]} {_LIMIT}."
    mostly = f"he largest Hessian eigenvalue was mostly {over:.2g} of {_LIMIT}."
    if verdict == "healthy":
        return f"T{mostly}"
    if largest < FLAT_BELOW:
        return f"The landscape is flat: no Hessian eigenvalue was above {largest:.2g} of {_LIMIT}."
    if verdict == "vanishing":
        return f"The signal is lost, the landscape is not flat: t{mostly}"
    return f"T{mostly}"


@rule("steps.csv")
def loss_not_finite(evidence: Evidence) -> Finding | None:
    """Whether the loss of a loop is nan or infinite at the end, and since when."""
    if not (said := bad_loss(evidence)) or evidence.metrics.get("verdict") == "diverged":
        return None
    first = evidence.metrics.get("loss_first")
    was = "" if first is None else f"; at the first step it was {format_loss(first)}"
    return Finding("loss_not_finite", f"{said.capitalize()}{was}.")


RULES = (diverged, loss, loss_not_finite, loss_at_start, curvature, underflow, unfinished)
