"""Rules about weights at initialisation: what was fitted, and what they do to directions."""

from __future__ import annotations

import math

from vgexp.diagnosis.evidence import Evidence
from vgexp.diagnosis.findings import Finding, Number, rule

_LARGEST_POWER = 300
"""Power of ten up to which a float holds a number with all of its digits."""
_ROUNDED_UP = 1 - math.log10(9.95)
"""Below the next power of ten by no more than this, two digits give that power."""


@rule("fitted_variance_min", "fitted_variance_max")
def fitted_variances(evidence: Evidence) -> Finding | None:
    """The variances that an init reached on the batch that it fitted the weights to.

    `preact_std` is measured on another batch.
    """
    low = evidence.metrics["fitted_variance_min"]
    high = evidence.metrics["fitted_variance_max"]
    of_seed = " for the first seed" if _has_many_seeds(evidence) else ""
    return Finding(
        id=fitted_variances.id,
        sentence=(
            f"On the batch that lsuv fitted{of_seed}, the outputs of all weights have variances of"
            f" {low:.2g} to {high:.2g}; preact_std is measured on another batch."
        ),
        step=0,
        numbers={"fitted_variance_min": Number(low), "fitted_variance_max": Number(high)},
    )


@rule("jacobian_bound_log10")
def jacobian(evidence: Evidence) -> Finding | None:
    """The singular values of the layers' product of Jacobians."""
    metrics = evidence.metrics
    bound, largest = metrics["jacobian_bound_log10"], metrics.get("jacobian_largest_log10")
    numbers = {"jacobian_bound_log10": Number(bound)}
    if largest is None:
        sentence = f"The product of the layers' largest singular values is {_format_power(bound)}."
        return _find_at_start(evidence, jacobian.id, sentence, numbers)
    sentence = (
        f"From the first layer's input to layer {metrics['num_layers']} the Jacobian's largest"
        f" singular value is {_format_power(largest)} (the product of the layers' own:"
        f" {_format_power(bound)})"
    )
    # Of products that are not written out the largest alone is known.
    if (rank := metrics.get("jacobian_effective_rank")) is not None:
        smallest = metrics.get("jacobian_smallest_log10")
        least = "0" if smallest is None else _format_power(smallest)
        sentence += f", its smallest {least}; its effective rank is {rank:.3g}"
    numbers["jacobian_largest_log10"] = Number(largest, bound)
    return _find_at_start(evidence, jacobian.id, f"{sentence}.", numbers)


@rule("path_length", "num_branches")
def paths(evidence: Evidence) -> Finding | None:
    """Through how many branches the gradient of the first layer comes."""
    length, most = evidence.metrics["path_length"], evidence.metrics["num_branches"]
    sentence = (
        f"The gradient of the first layer comes through {length:.2g} of {most:.0f} branches on"
        f" average; a path taken at random passes {most / 2:.2g}."
    )
    numbers = {"path_length": Number(length, most / 2)}
    return _find_at_start(evidence, paths.id, sentence, numbers)


@rule("gradient_correlation", "gradient_correlation_deepest")
def shattering(evidence: Evidence) -> Finding | None:
    """How alike the gradients at two examples are, at the first and the deepest layer."""
    first = evidence.metrics["gradient_correlation"]
    last = evidence.metrics["gradient_correlation_deepest"]
    sentence = (
        f"The gradients of the outputs at two examples have a cosine of {first:.2g} with respect to"
        f" the input of the first layer and of {last:.2g} with respect to the output of the"
        " deepest."
    )
    numbers = {"gradient_correlation": Number(first), "gradient_correlation_deepest": Number(last)}
    return _find_at_start(evidence, shattering.id, sentence, numbers)


def _find_at_start(
    evidence: Evidence, id: str, sentence: str, numbers: dict[str, Number]
) -> Finding:
    """A finding about directions, which are measured on one seed."""
    scope = "On the first seed:" if _has_many_seeds(evidence) else ""
    return Finding(id, sentence, step=0, numbers=numbers, scope=scope)


def _has_many_seeds(evidence: Evidence) -> bool:
    return (evidence.metrics.get("num_seeds") or 1) > 1


def _format_power(log10: float) -> str:
    """10^x with two digits, beyond the range of a float too."""
    if abs(log10) < _LARGEST_POWER:
        return f"{10**log10:.2g}"
    # What two digits round up to 10 has one more in its exponent.
    exponent = math.floor(log10 + _ROUNDED_UP)
    return f"{10 ** (log10 - exponent):.2g}e{exponent:+d}"


RULES = (fitted_variances, jacobian, paths, shattering)
