"""What multiplies the signal from layer to layer: weights, slopes, or the sum of branches."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from vgexp.diagnosis.depths import Factors, are_dead, factors_of, nearly_silent, rows_at, values_of
from vgexp.diagnosis.evidence import Evidence
from vgexp.diagnosis.findings import Remedy
from vgexp.diagnosis.outcome import (
    column_of,
    constant_loss,
    loss_of_constant,
)
from vgexp.diagnosis.signal import EXPLODING_ABOVE

_STEEP = 0.5
"""Root mean square of phi' below which a layer loses more by its slopes than a ReLU's (0.71)."""
_SATURATED = 0.3
PER_LAYER = (
    "a factor f a layer leaves f^L of the signal after L layers, which is judged by the signal's"
    " own limit; the factor is sigma_w times the rms of phi'"
)
_MOST = 0.5
_LEAST_FOR_JUMP = 4
"""Layers from which on one fall stands out among the others."""
_LEAST_REPLACED = 2
"""Layers that an update replaces: a single one may be small by design."""
_LARGE = 2.0
_TEN = 10.0


def vanishing(evidence: Evidence) -> Factors | None:
    """The factors of a signal that vanishes from the start, and has not recovered by the end."""
    metrics = evidence.metrics
    if evidence.first_step != 0 or metrics.get("signal") != "vanishing":
        return None
    if _is_one_jump(evidence, metrics.get("attenuation") or 1.0):
        return None  # as pooling over positions takes it, and no factor a layer
    return factors_of(evidence) or without_forward(evidence)


def without_forward(evidence: Evidence) -> Factors | None:
    """The factors where no row tells what weights multiply by: taken as 1.

    None where one layer takes most of the signal, as a scale of a branch that begins near 0 does.
    """
    factor, attenuation = (
        evidence.metrics.get(name) for name in ("backward_factor_per_layer", "attenuation")
    )
    if factor is None or not attenuation or _is_one_jump(evidence, attenuation):
        return None
    return Factors(float(factor), 1.0, float(factor))


def _is_one_jump(evidence: Evidence, attenuation: float) -> bool:
    """Whether the largest fall from a layer to the next is more than half of all, in logarithms."""
    deltas = values_of(rows_at(evidence, evidence.first_step), "delta_rms")
    deltas = deltas[np.isfinite(deltas) & (deltas > 0)]
    if deltas.size < _LEAST_FOR_JUMP:
        return False
    return bool(np.diff(np.log(deltas)).max() > abs(math.log(attenuation)) / 2)


def kind_of_vanishing(evidence: Evidence, factors: Factors) -> str | None:
    """Whose fault it is: that of the weights or that of the slopes."""
    rows = rows_at(evidence, evidence.first_step)
    saturated = values_of(rows, "saturated_fraction")
    if are_dead(rows).any() or len(nearly_silent(evidence)):
        return None  # one layer that passes next to nothing, and no factor of all
    share = float(np.nanmedian(saturated)) if np.isfinite(saturated).any() else 0.0
    if share > _SATURATED and factors.weights > 1:
        return "weights_large"
    if evidence.metrics.get("attenuation") == 0:
        return None
    if factors.slope < _STEEP:
        is_more = factors.weights > _STEEP / 5 and factors.weights > factors.slope / 2
        return "saturating_activation" if is_more else "weights_small"
    return "weights_small" if factors.weights < 0.9 / factors.slope else "saturating_activation"


def kind_of_growth(evidence: Evidence) -> str | None:
    """What makes the signal explode: weights, batch normalisation or the sum of branches."""
    metrics, told = evidence.metrics, evidence.settings
    factors = factors_of(evidence) or without_forward(evidence)
    if evidence.first_step != 0 or factors is None:
        return None
    is_exploding = metrics.get("signal") == "exploding" or _forward_explodes(evidence)
    if not is_exploding and not _replaces_first_layers(evidence):
        return None
    if told.get("model.skip", "none") != "none":
        return "residual_growth"
    parameters = evidence.tables.get("parameters")
    has_norm = parameters is not None and bool((parameters["kind"] == "norm").any())
    if has_norm and not _forward_explodes(evidence):
        return "batchnorm_depth"
    if "stream" in set(rows_at(evidence, 0).get("kind", ())):
        return "residual_growth"
    return "weights_large"


def saturated_by_weights(evidence: Evidence, factors: Factors) -> bool:
    """Whether most entries of most layers are saturated at the start, by weights above 2."""
    saturated = values_of(rows_at(evidence, 0), "saturated_fraction")
    known = saturated[np.isfinite(saturated)]
    return known.size > 0 and float(np.median(known)) > _MOST and factors.weights > _LARGE


def _forward_explodes(evidence: Evidence) -> bool:
    """Whether z grows by more than a thousand times from the first layer to the last; or by ten
    times, or by weights of which each multiplies by more than 2, where the first loss shows that
    the outputs grew with it: usual outputs at the start cost about what guessing costs."""
    z = values_of(rows_at(evidence, evidence.first_step), "preact_std")
    z = z[np.isfinite(z) & (z > 0)]
    if z.size < 2:
        return False
    growth = float(z[-1] / z[0])
    factors = factors_of(evidence)
    grows = growth > _TEN or (growth > 1 and factors is not None and factors.weights > _LARGE)
    return growth > EXPLODING_ABOVE or (grows and _starts_far_above_guess(evidence))


def _replaces_first_layers(evidence: Evidence) -> bool:
    """Whether the first update replaces weights of the first layers and hardly moves the last ones,
    because the gradient grows between them: what is too long there is usual here."""
    ratios = values_of(rows_at(evidence, 0), "update_ratio")
    ratios = ratios[np.isfinite(ratios)]
    quarter = ratios.size // 4
    grows = (evidence.metrics.get("attenuation") or 0.0) > _TEN
    if quarter < _LEAST_REPLACED or not grows:
        return False
    is_replaced = int((ratios[:quarter] > 1).sum()) >= _LEAST_REPLACED
    return is_replaced and float(np.median(ratios[-quarter:])) < 1 / _TEN


def _starts_far_above_guess(evidence: Evidence) -> bool:
    losses = column_of(evidence, "steps", "loss")
    guess = constant_loss(evidence) or loss_of_constant(evidence)  # one of both, or above it
    return (
        evidence.first_step == 0
        and losses.size > 0
        and bool(losses[0] > _TEN * (guess or math.nan))
    )


def usual_init(evidence: Evidence) -> Remedy:
    """The init that the activation needs: Xavier's where it is bounded, He's else."""
    saturated = values_of(rows_at(evidence, evidence.first_step), "saturated_fraction")
    if not np.isfinite(saturated).any():
        return _HE
    return replace(
        _HE,
        why="Xavier's makes the factor of a layer 1 where slopes are 1, as those of tanh at 0.",
        override="model.init=xavier_normal model.gain=1",
        code="nn.init.xavier_normal_(layer.weight)",
        source="Glorot & Bengio 2010",
    )


_HE = Remedy(
    "Draw the weights with the init that the activation needs.",
    "He's init makes the factor of a ReLU layer 1, Xavier's that of a linear one.",
    "model.init=he_normal model.gain=1",
    "nn.init.kaiming_normal_(layer.weight)",
    "He et al. 2015",
)
