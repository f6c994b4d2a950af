"""Rules about the gradient on its way back through the layers."""

from __future__ import annotations

import math
from collections.abc import Mapping

from vgexp.diagnosis.evidence import Evidence
from vgexp.diagnosis.findings import Finding, Number, rule
from vgexp.diagnosis.phrases import compared_layers, describe_signal, format_ratio
from vgexp.diagnosis.signal import EXPLODING_ABOVE, VANISHING_BELOW
from vgexp.unseen import unregistered_weights

_VERBS = {"vanishing": "vanishes", "exploding": "explodes", "steady": "is steady"}
_LIMITS: Mapping[str, float] = {"vanishing": VANISHING_BELOW, "exploding": EXPLODING_ABOVE}


@rule("num_layers")
def gradient(evidence: Evidence) -> Finding | None:
    """Whether the gradient vanishes, explodes or is steady at the first measured step."""
    many = evidence.metrics.get("num_seeds") or 1
    when = f"at step {evidence.first_step}"
    if evidence.is_untrained:
        when = "at initialisation" + (f" (geometric means over {many} seeds)" if many > 1 else "")
    return _find_gradient(evidence, gradient.id, when, evidence.first_step, "")


@rule("signal", "num_layers", "attenuation", "weight_gradient_ratio")
def hidden_by_weights(evidence: Evidence) -> Finding | None:
    """Whether the weights' own gradients hide that the signal is lost or grows.

    They do where their ratio between the first and the last hidden layer is nearer to 1 than the
    root of the signal's: somebody who looks at gradient norms sees less than half of its logarithm.
    """
    metrics = evidence.metrics
    signal, ratio = metrics["attenuation"], metrics["weight_gradient_ratio"]
    if metrics["signal"] == "steady" or not signal or not ratio:
        return None
    if abs(math.log(ratio)) > abs(math.log(signal)) / 2:
        return None
    first_layer, last_layer = compared_layers(metrics)
    return Finding(
        id=hidden_by_weights.id,
        sentence=(
            f"The weights' own gradients hide it: grad_norm of layer {first_layer} is"
            f" {format_ratio(ratio)} layer {last_layer}'s, for it is what comes back times what the"
            " layer reads."
        ),
        step=evidence.first_step,
        layers=evidence.names_of(first_layer, last_layer),
        numbers={"weight_gradient_ratio": Number(ratio, math.sqrt(signal))},
    )


@rule("last_step", "num_layers_last")
def gradient_last(evidence: Evidence) -> Finding | None:
    """Whether the gradient vanishes, explodes or is steady at the last measured step."""
    last_step = evidence.last_step
    if last_step is None or last_step == evidence.first_step:
        return None
    return _find_gradient(evidence, gradient_last.id, f"at step {last_step}", last_step, "_last")


def _find_gradient(
    evidence: Evidence, id: str, when: str, step: int, suffix: str
) -> Finding | None:
    metrics = evidence.metrics
    signal: str | None = metrics.get(f"signal{suffix}")
    if signal is None and not metrics.get(f"no_path{suffix}"):
        return None
    if unregistered_weights(evidence.unseen) is not None:
        return None  # the signal went through layers that were not measured
    attenuation = metrics.get(f"attenuation{suffix}")
    is_unknown = signal is None or (attenuation is None and signal == "steady")
    verb = "" if signal is None or is_unknown else f"{_VERBS[signal]} "
    limit = None if signal is None else _LIMITS.get(signal)
    value = math.inf if attenuation is None else attenuation
    return Finding(
        id=id,
        sentence=f"The gradient {verb}{when}: {describe_signal(metrics, suffix)}.",
        step=step,
        layers=evidence.names_of(*compared_layers(metrics, suffix)),
        numbers=({} if is_unknown else {f"attenuation{suffix}": Number(value, limit)}),
    )


RULES = (gradient, hidden_by_weights, gradient_last)
