"""Rules about the gradient on its way back through time, and what theory says of it."""

from __future__ import annotations

from vgexp.diagnosis.evidence import Evidence
from vgexp.diagnosis.findings import Finding, Number, rule
from vgexp.diagnosis.phrases import format_factor, format_ratio
from vgexp.diagnosis.rules.theory import explain_factor

_FACTOR = "backward_factor_per_time_step"
_PREDICTED = "predicted_backward_factor_per_time_step"


@rule(_FACTOR)
def through_time(evidence: Evidence) -> Finding | None:
    """What a step back in time leaves of the gradient of a recurrent network."""
    factor, ends = evidence.metrics[_FACTOR], evidence.metrics.get("time_attenuation")
    sentence = f"Back through time the fitted factor is {format_factor(factor)} a step."
    numbers = {_FACTOR: Number(factor)}
    if ends is not None:
        sentence = (
            f"Back through time the first watched state gets {format_ratio(ends)} what the last"
            f" gets, a fitted factor of {format_factor(factor)} a step."
        )
        numbers["time_attenuation"] = Number(ends)
    return Finding(through_time.id, sentence, step=evidence.first_step, numbers=numbers)


@rule(_PREDICTED)
def predicted_through_time(evidence: Evidence) -> Finding | None:
    """The factor a step back in time that theory predicts for a recurrent network.

    A trained run does not repeat what was predicted for its start.
    """
    if not evidence.is_untrained:
        return None
    factor, note = evidence.metrics[_PREDICTED], evidence.metrics.get("theory")
    is_said = evidence.metrics.get("predicted_backward_factor_per_layer") is not None
    caveat = f" ({note})" if note and not is_said else ""
    sentence = f"Theory says {format_factor(factor)} a step{caveat}."
    if parts := explain_factor(evidence.metrics, factor, " a step"):
        sentence += f" {parts}"
    numbers = {_PREDICTED: Number(factor)}
    return Finding(predicted_through_time.id, sentence, step=0, numbers=numbers)


RULES = (through_time, predicted_through_time)
