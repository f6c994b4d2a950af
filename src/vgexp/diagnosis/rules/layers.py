"""Rules about what became of single layers, at the start and after it."""

from __future__ import annotations

from vgexp.diagnosis.evidence import Evidence
from vgexp.diagnosis.findings import Finding, Number, rule
from vgexp.diagnosis.onset import Onset, describe_layers, describe_since, first_not_finite, onsets

MOST_UNITS = 0.5
"""Share of a layer's units from which on it is said that they are dead, or saturated: the layer
passes back less than half of what it gets."""


@rule("layers.csv")
def dying_units(evidence: Evidence) -> Finding | None:
    """Which layers have mostly dead units at the end, and since when."""
    found = _mostly(evidence, "dead_fraction")
    if not found:
        return None
    return _tell(dying_units.id, "dead_fraction", found, "the units are dead")


@rule("layers.csv")
def saturating_units(evidence: Evidence) -> Finding | None:
    """Which layers are mostly saturated at the end, and since when."""
    found = _mostly(evidence, "saturated_fraction")
    if not found:
        return None
    what = "what the activation reads saturates it"
    return _tell(saturating_units.id, "saturated_fraction", found, what)


@rule("layers.csv")
def no_gradient(evidence: Evidence) -> Finding | None:
    """Which weights get no gradient at all at the end, and since when.

    Weights that are frozen have no gradient to measure and are not among them.
    """
    found = onsets(evidence.tables["layers"], "grad_norm", lambda norms: norms == 0)
    if not found:
        return None
    is_one, layers = len(found) == 1, describe_layers(found)
    sentence = (
        f"{layers[0].upper()}{layers[1:]} get{'s' if is_one else ''} no gradient at all"
        f" {describe_since(found)}: every entry of it is exactly 0."
    )
    if evidence.metrics.get("verdict") == "healthy":
        sentence += f" What was learned was learned without {'it' if is_one else 'them'}."
    return Finding(
        no_gradient.id,
        sentence,
        step=min(each.step for each in found),
        layers=tuple(each.name for each in found),
        numbers={"grad_norm": Number(0.0, 0.0)},
    )


@rule("layers.csv")
def not_finite(evidence: Evidence) -> Finding | None:
    """At which step and layer the first value is not finite, of a loop that says nothing of it.

    Of a run that diverged `diverged` says more.
    """
    if evidence.metrics.get("verdict") == "diverged":
        return None
    found = first_not_finite(evidence.tables["layers"])
    if found is None:
        return None
    where = f"layer {found.layer} ({found.name})"
    sentence = {
        "update": f"the weights of {where} are not finite: an update before made it.",
        "forward": f"z of {where} is the first that is not finite: the forward pass made it.",
        "backward": (
            f"the gradient of {where} is the first on the way back that is not finite, though"
            " every weight and z that was measured is: the loss or the backward pass made it."
        ),
    }[found.maker]
    return Finding(
        not_finite.id, f"At step {found.step} {sentence}", step=found.step, layers=(found.name,)
    )


def _mostly(evidence: Evidence, column: str) -> list[Onset]:
    return onsets(evidence.tables["layers"], column, lambda shares: shares >= MOST_UNITS)


def _tell(id: str, column: str, found: list[Onset], what: str) -> Finding:
    """That at least half of something is so, with the shares at both ends of the run."""
    most = max(each.last for each in found)
    share = f"{most:.2g}" if len(found) == 1 else f"up to {most:.2g}"
    sentence = (
        f"In {describe_layers(found)} at least half of {what} {describe_since(found)}: a share of"
        f" {share} at the end"
    )
    if not all(each.is_always for each in found):
        first = max(each.first for each in found)
        sentence += (
            f", {first:.2g} at first" if len(found) == 1 else f", at most {first:.2g} at first"
        )
    return Finding(
        id,
        f"{sentence}.",
        step=min(each.step for each in found),
        layers=tuple(each.name for each in found),
        numbers={column: Number(most, MOST_UNITS)},
    )


RULES = (dying_units, saturating_units, no_gradient, not_finite)
