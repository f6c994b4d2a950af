"""A forecast: what theory says of the first step of a model's training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from vgexp.theory.phase import Phase


@dataclass(frozen=True)
class ForecastRow:
    """What theory predicts for one weight at initialisation; None where it has no answer.

    Amplitudes are the median over initialisations of the width there is (`typical`): the limit of
    large width with what fluctuations from net to net take off.
    """

    name: str
    layer: int
    preact_std: float | None
    delta_rms: float | None
    backward_gain: float | None
    log_delta_std: float | None
    """Standard deviation over initialisations of ln delta_rms."""
    log_preact_std: float | None = None
    """The same of ln preact_std."""
    wide_preact_std: float | None = None
    """In the limit of large width."""
    wide_delta_rms: float | None = None
    """In the limit of large width."""


@dataclass(frozen=True)
class Explanation:
    """Why a hidden layer has its factor; all numbers are mean squares.

    Of a plain net without dropout, chi is weight_gain * mean_slope.
    """

    name: str
    """The layer's weight, or the layer, as in `Forecast.rows`."""
    variance: float
    """q, of z."""
    correlation: float
    """c, of z at two examples, on average."""
    weight_gain: float
    """num_units Var(W) of the weight that reads the layer; sigma_w^2 of equal widths."""
    mean_slope: float
    """Mean of phi'(u)^2 at this layer's variance."""
    chi: float
    """Of the branch, with what dropout and a norm do; sqrt(chi) is the factor of `delta_rms`."""
    carried: float
    """What passes beside the branch."""
    factor: float
    """D_l / D_{l+1}, the whole block's; sqrt(factor) is `backward_gain` in the limit."""
    is_inner: bool = True
    """Whether what reads it is a weight like its own: no read-out, no stride."""


@dataclass(frozen=True)
class Forecast:
    """What theory predicts of a model at step 0, or the reason why it predicts nothing."""

    rows: Mapping[str, ForecastRow] = field(default_factory=dict)
    """By parameter name; empty where theory has no answer."""
    layers: tuple[Explanation, ...] = ()
    """Hidden layers 1..L; of a recurrent net, a step back in time of each."""
    reason: str | None = None
    """Why nothing is predicted."""
    caveat: str | None = None
    """What is known to be off, and by how much."""
    times: Mapping[str, Sequence[float | None]] = field(default_factory=dict)
    """State of `time.csv` -> its `delta_rms` at t = 0, 1, ...; None beyond float64."""
    phase: Phase | None = None
    """Where a plain net lies between vanishing and exploding."""
    critical_attenuation: float | None = None
    """`delta_rms` of layer 1 over that of the last hidden layer, at the gain that makes chi 1."""

    @property
    def note(self) -> str | None:
        """Why there are no predictions, or what is known to be off in them."""
        return self.reason or self.caveat
