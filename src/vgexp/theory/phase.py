"""Finds where a configuration's hidden layers lie in the plane of sigma_w and sigma_b."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from vgexp.config import NetConfig
from vgexp.norms import NORMS
from vgexp.skips import SKIPS
from vgexp.theory.function import function, no_function
from vgexp.theory.maps import FixedPoint, Plain, critical_weight_variance, fixed_point
from vgexp.theory.weights import weight


@dataclass(frozen=True)
class Phase:
    """A plain net's place between vanishing and exploding; None, in words why, of another."""

    layer: Plain | None
    """One hidden layer of equal widths."""
    end: FixedPoint | None
    """Where its deep layers end."""
    critical_gain: float | None
    """The `model.gain` that makes chi 1 at the fixed point."""
    reason: str | None = None
    """Why something of these is not there."""


def phase(config: NetConfig, start: float = 1.0, kernel: Sequence[int] = ()) -> Phase:
    """Finds the phase of hidden layers in the limit of large width.

    Args:
        start: the variance of the first z.
        kernel: of convolutions, its rows and columns; far from the border of an image they are as
            matrices are (Xiao 2018).

    Raises:
        QuestionError: an unknown name.
    """
    layer, reason = plain_layer(config, kernel)
    if layer is None:
        return Phase(None, None, None, reason)
    gain, reason = critical_gain(config, kernel)
    return Phase(layer, fixed_point(layer, start), gain, reason)


def critical_gain(config: NetConfig, kernel: Sequence[int] = ()) -> tuple[float | None, str | None]:
    """Finds the gain at the edge of chaos; or None, and the reason why there is none."""
    layer, reason = plain_layer(config, kernel)
    if layer is None:
        return None, reason
    if not config.gain:
        return None, "model.gain is 0: its weights have no variance to scale"
    try:
        needed, _ = critical_weight_variance(layer.phi, layer.bias_variance)
    except ValueError as error:
        return None, str(error)
    return config.gain * math.sqrt(needed / layer.weight_variance), None


def plain_layer(config: NetConfig, kernel: Sequence[int] = ()) -> tuple[Plain | None, str | None]:
    """Describes one hidden layer of a plain net; or gives None, and the reason why."""
    if SKIPS[config.skip].joins:
        return None, f"model.skip={config.skip}: what passes beside the branch has no gain"
    norm = NORMS[config.norm]
    if norm.statistics is not None or not norm.is_known:
        return None, f"model.norm={config.norm} takes the gain off again"
    hidden = weight(config, (config.width, config.width, *kernel))
    if hidden.output_variance is not None:
        return None, f"model.init={config.init} sets each layer's variance itself"
    phi = function(config.activation, config.negative_slope)
    if phi is None:
        return None, no_function(config.activation)
    keep = 1 - config.dropout
    return Plain(phi, hidden.fan_in * hidden.variance / keep, hidden.bias_variance, keep), None
