"""What happened to the gradient, in words with the run's own numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from vgexp.diagnosis.landscape import landscape_words
from vgexp.diagnosis.signal import SMALLEST_NORMAL, Signal, signal_of
from vgexp.errors import QuestionError

_VERBS = {"vanishing": "vanishes", "exploding": "explodes", "steady": "is steady"}
# A loss within this share of a constant guess's is what guessing gives.
_GUESSING = 0.01
_UNKNOWN = "what guessing costs is not known of this loss, hence no verdict"
NUM_STEPS_AVERAGED = 20


@dataclass(frozen=True)
class Diagnosis:
    """The signal at the first and the last measured step of a table of layers, and in words."""

    first_step: int
    last_step: int
    first: Signal
    last: Signal
    sentence: str

    def __str__(self) -> str:
        return self.sentence


def diagnose(frame: pd.DataFrame) -> Diagnosis:
    """What a table of layers alone tells: the signal at its first and last measured step.

    Args:
        frame: rows as in `layers.csv` or from `Probe.to_frame()`.

    Raises:
        QuestionError: it is no frame, columns are missing, or no row has a backward signal.
    """
    if not isinstance(frame, pd.DataFrame):
        raise QuestionError(
            f"diagnose was given a {type(frame).__name__}\n"
            "allowed: a DataFrame with the rows of layers.csv, such as vgexp.load(RUN).layers or"
            " probe.to_frame()"
        )
    signal_of(frame.head(0))
    if "step" not in frame.columns:
        raise QuestionError("the table lacks the column step\nallowed: a table of layers")
    measured = frame.loc[frame["delta_rms"].notna(), "step"]
    if not len(measured):
        raise QuestionError(
            "no row of the table has a backward signal\n"
            "allowed: rows of at least one step with delta_rms (probe.activations_every)"
        )
    first_step, last_step = int(measured.min()), int(measured.max())
    first = signal_of(frame[frame["step"] == first_step])
    last = signal_of(frame[frame["step"] == last_step])
    text = gradient_words(_figures(first), f" at step {first_step}")
    if last_step != first_step:
        text += " " + gradient_words(_figures(last), f" at step {last_step}")
    return Diagnosis(first_step, last_step, first, last, text)


def sentence(summary: Mapping[str, Any]) -> str:
    """What happened to the gradient and to the loss, from a summary as `summarise` gives it."""
    parts = [gradient_words(summary, " at step 0"), hidden_words(summary), time_words(summary)]
    parts.append(fitted_words(summary))
    if summary["verdict"] == "diverged":
        parts.append(f"The run diverged: {_as_clause(summary['cause'])}.")
    else:
        parts.append(_loss_words(summary))
    parts.append(landscape_words(summary))
    if summary.get("underflow"):
        parts.append(_underflow_words(summary))
    if summary["status"] not in ("completed", "diverged"):
        parts.append(f"The run did not reach its end: {summary['status']}.")
    return " ".join(part for part in parts if part)


def cause_of(summary: Mapping[str, Any], divergence: str) -> str:
    """One short phrase with numbers: what decided the verdict."""
    verdict = summary["verdict"]
    if verdict == "diverged":
        return divergence
    if verdict in ("vanishing", "exploding"):
        return _signal_words(summary)
    if verdict is None and summary["loss_first"] is not None:
        return f"{_UNKNOWN}: {_signal_words(summary)}"
    losses = f"best training loss {_loss(summary['loss_best_mean_20'])}"
    losses += f", a constant guess's {_loss(summary['constant_loss'])}"
    if verdict == "healthy":
        despite = (
            "" if summary["signal"] == "steady" else f"despite the {summary['signal']} signal, "
        )
        return despite + losses
    if summary["loss_first"] is None:
        return "no step was recorded"
    if summary["attenuation"] is None:
        return f"{_signal_words(summary)}; no learning: {losses}"
    return f"the signal is steady at step 0, yet no learning: {losses}{_later_words(summary)}"


def digits(factor: float) -> str:
    """A factor in words: near 1, where many of them make a difference, with one digit more."""
    return f"{factor:.3g}" if 0.9 <= factor <= 1.1 else f"{factor:.2g}"


def _figures(signal: Signal) -> dict[str, Any]:
    """A signal with the names and the nulls of a summary."""
    return {
        "signal": signal.signal,
        "attenuation": _finite(signal.attenuation),
        "backward_factor_per_layer": _finite(signal.backward_factor_per_layer),
        "num_layers": signal.num_layers,
        "unmeasured_ends": list(signal.unmeasured_ends),
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def gradient_words(summary: Mapping[str, Any], when: str) -> str:
    """How it fares on its way back through depth; `when` begins with a space."""
    if summary["attenuation"] is None and summary["signal"] == "steady":
        return f"The gradient{when}: {_signal_words(summary)}."
    return f"The gradient {_VERBS[summary['signal']]}{when}: {_signal_words(summary)}."


def _signal_words(summary: Mapping[str, Any]) -> str:
    attenuation, last = summary["attenuation"], summary["num_layers"]
    factor = summary["backward_factor_per_layer"]
    if attenuation is None:
        if summary["signal"] == "exploding":
            return "layer 1 gets a signal beyond the range of the numbers"
        if summary["unmeasured_ends"]:
            return _unmeasured_words(summary)
        if not last:
            return "no hidden layer has weights that were measured"
        if last == 1:
            return "of the one hidden layer no signal was measured, or none that is finite"
        return f"layer 1 and layer {last} cannot be compared (no value, zero or not finite)"
    if attenuation == 0:
        return "layer 1 gets exactly nothing"
    if last == 1:
        return "there is one hidden layer, between layers nothing can be lost"
    what = f"layer 1 gets {_share(attenuation)} what layer {last} gets"
    # Not an average: where single layers stand out, the factor's power is not the attenuation.
    return what if factor is None else f"{what}, a fitted factor of {digits(factor)} a layer"


def hidden_words(summary: Mapping[str, Any]) -> str:
    """Where gradients of weights do not show what becomes of the signal on its way back."""
    signal, ratio = summary.get("attenuation"), summary.get("weight_gradient_ratio")
    if summary["signal"] == "steady" or not signal or not ratio:
        return ""
    if abs(math.log(ratio)) > abs(math.log(signal)) / 2:
        return ""
    return (
        f"The weights' own gradients hide it: grad_norm of layer 1 is {_share(ratio)} layer"
        f" {summary['num_layers']}'s, for it is what comes back times what the layer reads."
    )


def fitted_words(summary: Mapping[str, Any], of_seed: str = "") -> str:
    """What an init that fits weights to a batch reached on that batch, which is not the one that
    is measured; `of_seed` says of which seed, beginning with a space."""
    low, high = summary.get("fitted_variance_min"), summary.get("fitted_variance_max")
    if low is None or high is None:
        return ""
    return (
        f"On the batch that lsuv fitted{of_seed}, the outputs of all weights have variances of"
        f" {low:.2g} to {high:.2g}; preact_std is measured on another batch."
    )


def time_words(summary: Mapping[str, Any]) -> str:
    """Of a recurrent net: what comes back along time."""
    factor = summary.get("backward_factor_per_time_step")
    if factor is None:
        return ""
    if (ends := summary["time_attenuation"]) is None:
        return f"Back through time the fitted factor is {digits(factor)} a step."
    return (
        f"Back through time the first watched state gets {_share(ends)} what the last gets, a"
        f" fitted factor of {digits(factor)} a step."
    )


def _share(ratio: float) -> str:
    return f"{ratio:.2g} {'times' if ratio > 1 else 'of'}"


def _unmeasured_words(summary: Mapping[str, Any]) -> str:
    missing, factor = summary["unmeasured_ends"], summary["backward_factor_per_layer"]
    others = {1, summary["num_layers"]}.difference(missing)
    words = " and ".join(f"layer {end}" for end in missing)
    words += " were not measured" if len(missing) > 1 else " was not measured"
    if others:
        words += f" and cannot be compared with layer {others.pop()}"
    if factor is not None:
        words += f"; the fitted factor of those measured is {digits(factor)} a layer"
    return words


def _later_words(summary: Mapping[str, Any]) -> str:
    if summary["signal_last"] == "steady" or summary["attenuation_last"] is None:
        return ""
    return f"; {summary['signal_last']} at the end ({summary['attenuation_last']:.2g})"


def _loss_words(summary: Mapping[str, Any]) -> str:
    first, last = summary["loss_first"], summary["loss_last_mean_20"]
    guess, best = summary["constant_loss"], summary["loss_best_mean_20"]
    if last is None:
        return ""
    if guess is None:
        return (
            f"The training loss went from {_loss(first)} to {_loss(last)} (best {_loss(best)}); "
            f"{_UNKNOWN}."
        )
    if summary["verdict"] == "healthy":
        opening = "It learned" if summary["signal"] == "steady" else "Even so it learned"
        return (
            f"{opening}: the training loss went from {_loss(first)} to {_loss(last)} "
            f"(best {_loss(best)}; guessing gives {_loss(guess)})."
        )
    if abs(last - guess) <= _GUESSING * abs(guess):
        return (
            f"It did not learn: the training loss was {_loss(last)} over the last "
            f"{_num_averaged(summary)} steps, which is what guessing gives ({_loss(guess)})."
        )
    return (
        f"It did not learn, as far as it went: the training loss went from {_loss(first)} to "
        f"{_loss(last)} (over {_num_averaged(summary)} steps; best {_loss(best)}, guessing gives "
        f"{_loss(guess)})."
    )


def _num_averaged(summary: Mapping[str, Any]) -> int:
    return min(NUM_STEPS_AVERAGED, summary.get("steps") or NUM_STEPS_AVERAGED)


def _underflow_words(summary: Mapping[str, Any]) -> str:
    dtype = summary["dtype"]
    words = (
        f"In {summary['underflow']} of {summary['num_layers']} layers the backward signal fell "
        f"below the smallest normal number of {dtype} ({SMALLEST_NORMAL[dtype]:.2g})"
    )
    if dtype == "float16":
        words += ", the loss scale multiplied in"
    if dtype == "float64":
        return words + ": what is smaller is lost."
    return words + ": dtype=float64 shows the true value."


def _as_clause(text: str) -> str:
    return text.rstrip(".")


def _loss(value: float | None) -> str:
    return "none" if value is None else f"{value:#.3g}".rstrip(".")
