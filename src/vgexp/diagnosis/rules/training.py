"""Rules about what came out of training: loss, curvature, lost numbers, how the run ended."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vgexp.diagnosis.evidence import Evidence
from vgexp.diagnosis.findings import Finding, Number, Remedy, rule
from vgexp.diagnosis.landscape import FLAT_BELOW
from vgexp.diagnosis.phrases import UNKNOWN_GUESS, format_loss
from vgexp.diagnosis.signal import SMALLEST_NORMAL
from vgexp.diagnosis.verdict import LEARNED_BELOW
from vgexp.errors import one_line
from vgexp.quantities import NUM_STEPS_AVERAGED

_GUESSING = 0.01
"""Relative difference up to which a loss is what guessing gives."""
_LIMIT = "the stability limit of this learning rate"
_REACHED_THE_END = ("completed", "diverged")


@rule("verdict", "cause")
def diverged(evidence: Evidence) -> Finding | None:
    """Whether training diverged, and what became non-finite first."""
    if evidence.metrics["verdict"] != "diverged":
        return None
    clause = evidence.metrics["cause"].rstrip(".")
    return Finding(diverged.id, f"The run diverged: {clause}.")


@rule("loss_last_mean_20")
def loss(evidence: Evidence) -> Finding | None:
    """Whether the network learned, by its training loss and that of a constant guess."""
    metrics = evidence.metrics
    if metrics.get("verdict") == "diverged":
        return None
    last, guess = metrics["loss_last_mean_20"], metrics.get("constant_loss")
    limit = None if guess is None else LEARNED_BELOW * guess
    numbers = {"loss_last_mean_20": Number(last)}
    if (best := metrics.get("loss_best_mean_20")) is not None:
        numbers["loss_best_mean_20"] = Number(best, limit)
    return Finding(loss.id, _describe_loss(metrics, last, guess), numbers=numbers)


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
    return Finding(unfinished.id, f"The run did not reach its end: {one_line(status + why)}.")


_IN_FLOAT64 = Remedy(
    words="dtype=float64 shows the true value.",
    why="The smallest normal number of float64 is 2.2e-308.",
    override="dtype=float64",
    code="model.double(), with inputs in float64",
)


def _describe_loss(metrics: Mapping[str, Any], last: float, guess: float | None) -> str:
    first = format_loss(metrics.get("loss_first"))
    best = format_loss(metrics.get("loss_best_mean_20"))
    if guess is None:
        return (
            f"The training loss went from {first} to {format_loss(last)} (best {best}); "
            f"{UNKNOWN_GUESS}."
        )
    guessing = f"guessing gives {format_loss(guess)}"
    if metrics.get("verdict") == "healthy":
        opening = (
            "It learned" if metrics.get("signal") in (None, "steady") else "Even so it learned"
        )
        return (
            f"{opening}: the training loss went from {first} to {format_loss(last)} (best {best};"
            f" {guessing})."
        )
    num_averaged = min(NUM_STEPS_AVERAGED, metrics.get("steps") or NUM_STEPS_AVERAGED)
    if abs(last - guess) <= _GUESSING * abs(guess):
        return (
            f"It did not learn: the training loss was {format_loss(last)} over the last"
            f" {num_averaged} steps, which is what guessing gives ({format_loss(guess)})."
        )
    return (
        f"It did not learn, as far as it went: the training loss went from {first} to"
        f" {format_loss(last)} (over {num_averaged} steps; best {best}, {guessing})."
    )


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


RULES = (diverged, loss, curvature, underflow, unfinished)
