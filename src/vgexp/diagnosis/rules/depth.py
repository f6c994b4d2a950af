"""Rules about depth: what each layer multiplies the signal by, and why."""

from __future__ import annotations

import math

import numpy as np

from vgexp.diagnosis.depths import NEARLY_ALL, Factors, factors_of, rows_at, values_of
from vgexp.diagnosis.evidence import Evidence
from vgexp.diagnosis.findings import Finding, Number, Remedy, cause_rule
from vgexp.diagnosis.outcome import constant_loss, first_call, has_labels
from vgexp.diagnosis.phrases import compared_layers, format_factor
from vgexp.diagnosis.rules.inputs import inputs_unscaled, reads_beside
from vgexp.diagnosis.rules.losses import readouts
from vgexp.diagnosis.rules.multiplied import (
    PER_LAYER,
    kind_of_growth,
    kind_of_vanishing,
    saturated_by_weights,
    usual_init,
    vanishing,
    without_forward,
)
from vgexp.diagnosis.signal import EXPLODING_ABOVE, VANISHING_BELOW

LOST_IN_PART = 0.1
"""Share of the last layer's signal below which the first layer's is lost in part."""


_FAR_OFF = 100.0
"""Times what guessing costs above which a loss before training is no start."""
_DWARFED = 10.0
_LOUD = 3.0
"""Standard deviation of outputs at the start, and times what guessing costs, that usual weights do
not give."""


@cause_rule(
    "weights_small",
    "layers.csv",
    "num_layers",
    limit=VANISHING_BELOW,
    reason=PER_LAYER,
    source="He et al. 2015",
)
def weights_small(evidence: Evidence) -> Finding | None:
    """Whether the signal vanishes because weights multiply by less than the slopes need."""
    factors = vanishing(evidence)
    if factors is None or kind_of_vanishing(evidence, factors) != "weights_small":
        return None
    return _weights_are_small(evidence, factors)


def _weights_are_small(evidence: Evidence, factors: Factors) -> Finding:
    needed = 1 / max(factors.slope, 1e-3)
    return _of_factors(
        "weights_small",
        evidence,
        factors,
        f"weights multiply by sigma_w = {format_factor(factors.weights)} a layer, and slopes of"
        f" {format_factor(factors.slope)} need {format_factor(needed)}",
        (usual_init(evidence), _gain(evidence, needed / factors.weights)),
    )


@cause_rule(
    "saturating_activation",
    "layers.csv",
    "num_layers",
    limit=VANISHING_BELOW,
    reason=PER_LAYER,
    source="Glorot & Bengio 2010",
)
def saturating_activation(evidence: Evidence) -> Finding | None:
    """Whether the signal vanishes because slopes below 1 multiply."""
    factors = vanishing(evidence)
    if factors is None or kind_of_vanishing(evidence, factors) != "saturating_activation":
        return None
    return _slopes_are_small(evidence, factors)


def _slopes_are_small(evidence: Evidence, factors: Factors) -> Finding:
    return _of_factors(
        "saturating_activation",
        evidence,
        factors,
        f"the slopes of the activation are {format_factor(factors.slope)} a layer, and weights"
        f" multiply by {format_factor(factors.weights)}",
        (_RESIDUAL, _RELU, _BATCH),
    )


@cause_rule(
    "weights_large",
    "layers.csv",
    "num_layers",
    limit=EXPLODING_ABOVE,
    reason=PER_LAYER,
    source="Poole et al. 2016",
)
def weights_large(evidence: Evidence) -> Finding | None:
    """Whether weights make the signal explode, or saturate units so that it vanishes; or, where no
    layer is measured or none makes it explode, the first loss shows outputs that are far too
    large."""
    factors = factors_of(evidence)
    if evidence.first_step != 0:
        return None
    if (flat := _driven_to_flat_ends(evidence)) is not None:
        return flat
    if factors is None:
        has_layers = evidence.metrics.get("num_layers") != 0
        return None if has_layers else _outputs_are_large(evidence)
    if saturated_by_weights(evidence, factors):
        return _of_factors(
            "weights_large",
            evidence,
            factors,
            f"weights multiply by sigma_w = {format_factor(factors.weights)} a layer, so that most"
            " entries are at the flat ends",
            (usual_init(evidence), _gain(evidence, 1 / factors.weights)),
        )
    is_vanishing = vanishing(evidence) is not None
    kind = kind_of_vanishing(evidence, factors) if is_vanishing else kind_of_growth(evidence)
    if kind is None and not is_vanishing:
        return _outputs_are_large(evidence)
    if kind != "weights_large" or (not is_vanishing and reads_beside(evidence) is not None):
        return None
    return _of_factors(
        "weights_large",
        evidence,
        factors,
        f"weights multiply by sigma_w = {format_factor(factors.weights)} a layer",
        (
            usual_init(evidence),
            _gain(
                evidence,
                1 / max(factors.backward, 1e-3) if not is_vanishing else 1 / factors.weights,
            ),
        ),
    )


def _driven_to_flat_ends(evidence: Evidence) -> Finding | None:
    """Whether nearly all units of a layer are at the flat ends although what it reads, the outputs
    of another saturating activation, is at most about 1."""
    rows = rows_at(evidence, 0)
    saturated, z = values_of(rows, "saturated_fraction"), values_of(rows, "preact_mean")
    reads_bounded = np.append(False, np.isfinite(saturated[:-1]))
    size = np.hypot(z, values_of(rows, "preact_std"))
    places = np.flatnonzero(reads_bounded & (saturated >= NEARLY_ALL))
    if not places.size:
        return None
    name = str(rows["name"].iloc[places[0]])
    return Finding(
        "weights_large",
        f"At step 0 {saturated[places[0]]:.0%} of the entries behind {name} are at the flat ends:"
        f" its z is {size[places[0]]:.2g} in size, of inputs that are at most about 1.",
        step=0,
        layers=(name,),
        numbers={"saturated_fraction": Number(float(saturated[places[0]]), NEARLY_ALL)},
        remedies=(usual_init(evidence),),
    )


def _outputs_are_large(evidence: Evidence) -> Finding | None:
    """Whether the first cross-entropy is several times what guessing costs, by outputs that are
    several in size: those of usual weights cost about as much as a guess."""
    first, guess = first_call(evidence), constant_loss(evidence)
    if first is None or guess is None:
        return None
    if evidence.is_check and evidence.metrics.get("inputs_rms") is None:
        return None
    output, target, loss = first
    is_labels = has_labels(target)
    if not is_labels or not output["std"] > _LOUD or not loss > _LOUD * guess:
        return None
    wiring = evidence.tables.get("wiring")
    if wiring is not None and (values_of(wiring, "requires_grad") == 0).any():
        return None  # weights that were trained before are tuned to something else
    if not evidence.lacks("layers.csv") and inputs_unscaled(evidence) is not None:
        return None
    return Finding(
        "weights_large",
        f"At the start the outputs have a standard deviation of {output['std']:.2g}, and cost"
        f" {loss:.3g} where guessing costs {guess:.3g}: weights multiply by too much.",
        step=0,
        layers=readouts(evidence),
        numbers={"loss_first": Number(loss, guess)},
        remedies=(usual_init(evidence),),
    )


@cause_rule(
    "batchnorm_depth",
    "layers.csv",
    "num_layers",
    limit=EXPLODING_ABOVE,
    reason=PER_LAYER,
    source="Yang et al. 2019",
)
def batchnorm_depth(evidence: Evidence) -> Finding | None:
    """Whether the signal explodes in a network with batch normalisation and without skips."""
    factors = factors_of(evidence)
    if factors is None or kind_of_growth(evidence) != "batchnorm_depth":
        return None
    return _of_factors(
        "batchnorm_depth",
        evidence,
        factors,
        "batch normalisation keeps z at 1 forward and multiplies the gradient backward (by 1.21 a"
        " layer with ReLU)",
        (
            _RESIDUAL,
            Remedy(
                "Take the normalisation out, with He's init.",
                "With ReLU and He's init the signal is steady without it.",
                "model.norm=none model.init=he_normal",
                "model without nn.BatchNorm",
                "Yang et al. 2019",
            ),
        ),
    )


@cause_rule(
    "residual_growth",
    "layers.csv",
    "num_layers",
    limit=EXPLODING_ABOVE,
    reason=PER_LAYER,
    source="Zhang et al. 2019 (Fixup)",
)
def residual_growth(evidence: Evidence) -> Finding | None:
    """Whether the stream of a residual network grows from block to block."""
    factors = factors_of(evidence) or without_forward(evidence)
    if factors is None or kind_of_growth(evidence) != "residual_growth":
        return None
    return _of_factors(
        "residual_growth",
        evidence,
        factors,
        "each block adds its branch to the stream, whose size grows with depth",
        (
            Remedy(
                "Scale the branches by 1/sqrt(L).",
                "L branches together then add a variance of about 1.",
                "model.skip=scaled_residual",
                "x = x + branch(x) / depth ** 0.5",
                "Hanin & Rolnick 2018",
            ),
            Remedy(
                "Or begin with the identity.",
                "With alpha = 0 the network passes its stream unchanged at the start.",
                "model.skip=rezero",
                "x = x + alpha * branch(x)  # alpha = nn.Parameter(torch.zeros(1))",
                "Bachlechner et al. 2021",
            ),
        ),
    )


def starts_far_off(evidence: Evidence) -> bool:
    """Whether the loss before training is more than a hundred times what guessing costs."""
    value, guess = evidence.metrics.get("loss_at_start"), constant_loss(evidence)
    if not isinstance(value, float) or guess is None or guess <= 0:
        return False
    return value > _FAR_OFF * guess


def outputs_dwarf_targets(evidence: Evidence) -> Finding | None:
    """What a check says of a first loss that is far off (`starts_far_off`) by outputs that are far
    larger than their targets, of inputs that are known not to be: weights made them so."""
    first, inputs = first_call(evidence), evidence.metrics.get("inputs_rms")
    if first is None or inputs is None or not starts_far_off(evidence):
        return None
    output, target, loss = first
    size, wanted = (math.hypot(each["mean"], each["std"]) for each in (output, target))
    is_labels = has_labels(target)
    limit = _DWARFED * max(1.0, 0.0 if is_labels else wanted)
    if not size > limit:
        return None
    return Finding(
        "weights_large",
        f"At the start the outputs are {size:.2g} in size, of inputs of {inputs:.2g}, and cost"
        f" {loss:.3g} where guessing costs {constant_loss(evidence):.3g}: weights multiply by too"
        " much.",
        step=0,
        layers=readouts(evidence),
        numbers={"output_rms": Number(size, limit)},
        remedies=(usual_init(evidence),),
    )


def lost_in_part(evidence: Evidence) -> Finding | None:
    """What shrinks a signal of which layer 1 gets less than a tenth, though it does not vanish.

    It is asked of a network that does not learn and in which no rule finds anything: a learning
    rate that suits the last layers then moves the first ones ten times less.
    """
    attenuation = evidence.metrics.get("attenuation")
    factors = factors_of(evidence)
    if evidence.first_step != 0 or factors is None or attenuation is None:
        return None
    if not VANISHING_BELOW <= attenuation < LOST_IN_PART:
        return None
    tell = {
        "weights_small": _weights_are_small,
        "saturating_activation": _slopes_are_small,
    }.get(kind_of_vanishing(evidence, factors) or "")
    return None if tell is None else tell(evidence, factors)


def _of_factors(
    cause: str,
    evidence: Evidence,
    factors: Factors,
    why: str,
    remedies: tuple[Remedy | None, ...],
) -> Finding:
    metrics = evidence.metrics
    first, last = compared_layers(metrics)
    attenuation = metrics.get("attenuation")
    limit = {"vanishing": VANISHING_BELOW, "steady": LOST_IN_PART}.get(
        str(metrics.get("signal")), EXPLODING_ABOVE
    )
    gets = (
        ""
        if attenuation is None
        else (f"; layer {first} gets {attenuation:.2g} times what layer {last} gets")
    )
    numbers: dict[str, Number] = {
        "backward_factor": Number(factors.backward, 1.0),
        "sigma_w": Number(factors.weights),
        "slope": Number(factors.slope),
    }
    if attenuation is not None:
        is_beyond = attenuation > limit if limit > 1 else attenuation < limit
        numbers["attenuation"] = Number(attenuation, limit if is_beyond else None)
    words = f"{why}: the gradient changes by {format_factor(factors.backward)} a layer{gets}."
    return Finding(
        cause,
        words[0].upper() + words[1:],
        step=evidence.first_step,
        layers=evidence.names_of(first),
        numbers=numbers,
        remedies=tuple(remedy for remedy in remedies if remedy is not None),
    )


def _gain(evidence: Evidence, factor: float) -> Remedy | None:
    """The gain that makes the factor a layer 1, of a run whose gain is known."""
    gain = evidence.settings.get("model.gain")
    if not isinstance(gain, int | float) or not math.isfinite(factor) or not gain:
        return None
    return Remedy(
        f"Or multiply the gain by {factor:.3g}.",
        "Weights and slopes together then multiply by about 1.",
        f"model.gain={gain * factor:.3g}",
        source="Schoenholz et al. 2017",
    )


_RELU = Remedy(
    "Use ReLU with He's init.",
    "Its slope is 1 for half of the units, which the init's factor of sqrt(2) makes good.",
    "model.activation=relu model.init=he_normal model.gain=1",
    "nn.ReLU() with nn.init.kaiming_normal_(layer.weight)",
    "He et al. 2015",
)
_RESIDUAL = Remedy(
    "Or add skips.",
    "Through the sum the gradient comes back with a factor of 1.",
    "model.skip=residual",
    "x = x + block(x)",
    "He et al. 2016",
)
_BATCH = Remedy(
    "Or normalise z.",
    "Normalised z stay where slopes are largest.",
    "model.norm=batch",
    "nn.BatchNorm1d(width)",
    "Ioffe & Szegedy 2015",
)

RULES = (
    weights_small,
    weights_large,
    batchnorm_depth,
    residual_growth,
    saturating_activation,
)
