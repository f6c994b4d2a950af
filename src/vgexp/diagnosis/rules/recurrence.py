"""Rules about the gradient on its way back through time."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from vgexp.diagnosis.depths import values_of
from vgexp.diagnosis.evidence import Evidence
from vgexp.diagnosis.findings import Finding, Number, Remedy, cause_rule
from vgexp.diagnosis.outcome import JUMP, column_of
from vgexp.diagnosis.phrases import format_factor
from vgexp.diagnosis.rules.multiplied import PER_LAYER
from vgexp.diagnosis.signal import EXPLODING_ABOVE, VANISHING_BELOW
from vgexp.diagnosis.through_time import attenuation_at, growth_in_time


@cause_rule(
    "recurrence_vanishing",
    "time_attenuation",
    limit=VANISHING_BELOW,
    reason=PER_LAYER,
    source="Pascanu et al. 2013",
)
def recurrence_vanishing(evidence: Evidence) -> Finding | None:
    """Whether the gradient vanishes on its way back through time.

    Where every position has an answer, each state gets a gradient of its own, and the watched
    states do not show it: a plain recurrence then keeps at most its spectral radius to the power of
    the time in between, for slopes of at most 1.
    """
    if evidence.metrics["time_attenuation"] < VANISHING_BELOW:
        return _through_time(
            "recurrence_vanishing",
            "shrinks",
            evidence,
            VANISHING_BELOW,
            _named(_LONGER_MEMORY, evidence),
        )
    kept = _kept_by_radius(evidence)
    if kept is None or kept.share >= VANISHING_BELOW:
        return None
    return Finding(
        "recurrence_vanishing",
        f"The recurrent matrix has the spectral radius {kept.radius:.2g}: over {kept.length} steps"
        f" in time at most {kept.share:.2g} of a state's gradient is left.",
        step=evidence.first_step,
        layers=(kept.layer,),
        numbers={
            "spectral_radius": Number(kept.radius, 1.0),
            "share_kept": Number(kept.share, VANISHING_BELOW),
        },
        remedies=_named(_LONGER_MEMORY, evidence),
    )


@cause_rule(
    "recurrence_exploding",
    "time_attenuation or time.csv",
    limit=EXPLODING_ABOVE,
    reason=PER_LAYER,
    source="Pascanu et al. 2013",
)
def recurrence_exploding(evidence: Evidence) -> Finding | None:
    """Whether the gradient explodes on its way back through time, or overflows there.

    At the first measured update; or at a later one up to that at which the loss jumped to ten times
    the first one, or was not finite any more.
    """
    ends = evidence.metrics.get("time_attenuation")
    if ends is not None and ends > EXPLODING_ABOVE:
        return _through_time(
            "recurrence_exploding",
            "grows",
            evidence,
            EXPLODING_ABOVE,
            _named(_SHORTER_STEPS, evidence),
        )
    if ends is None:
        time = evidence.tables["time"]
        step = int(time["step"].min())
        grown = growth_in_time(time, step)
        if grown > EXPLODING_ABOVE:
            return Finding(
                "recurrence_exploding",
                f"Back through time the gradient grows {grown:.2g} times, and then is not finite"
                " any more.",
                step=step,
                numbers={"growth": Number(grown, EXPLODING_ABOVE)},
                remedies=_named((_ORTHOGONAL,), evidence),  # what is not finite cannot be clipped
            )
    return _grew_later(evidence)


def _grew_later(evidence: Evidence) -> Finding | None:
    """That the gradient came to grow through time, and then the loss did."""
    time, end = evidence.tables.get("time"), _first_loss_gone(evidence)
    if time is None or not len(time) or end is None:
        return None
    for step in sorted({int(each) for each in time["step"].unique()}):
        share = attenuation_at(time, step) if step <= end else math.nan
        if share > EXPLODING_ABOVE:
            return Finding(
                "recurrence_exploding",
                f"Back through time the gradient grows: at step {step} the first watched state gets"
                f" {share:.2g} times what the last gets.",
                step=step,
                numbers={"time_attenuation": Number(share, EXPLODING_ABOVE)},
                remedies=_named(_SHORTER_STEPS, evidence),
            )
    return None


def _first_loss_gone(evidence: Evidence) -> int | None:
    """The first step whose loss is not finite, or ten times the first one."""
    losses, steps = (column_of(evidence, "steps", name) for name in ("loss", "step"))
    if losses.size < 2 or not np.isfinite(losses[0]) or losses[0] <= 0:
        return None
    gone = np.flatnonzero(~np.isfinite(losses) | (losses > JUMP * losses[0]))
    return int(steps[gone[0]]) if gone.size else None


def _through_time(
    cause: str, verb: str, evidence: Evidence, limit: float, remedies: tuple[Remedy, ...]
) -> Finding:
    metrics: Any = evidence.metrics
    factor, ends = metrics.get("backward_factor_per_time_step"), metrics["time_attenuation"]
    each = "" if factor is None else f", a factor of {format_factor(factor)} a step"
    return Finding(
        cause,
        f"Back through time the gradient {verb}: the first watched state gets {ends:.2g} times what"
        f" the last gets{each}.",
        step=evidence.first_step,
        numbers={"time_attenuation": Number(ends, limit)},
        remedies=remedies,
    )


class _Kept(NamedTuple):
    """What a plain recurrence keeps of a state from the first position to the last."""

    layer: str
    radius: float
    length: int
    share: float


def _kept_by_radius(evidence: Evidence) -> _Kept | None:
    """That of the layer that keeps most; None of gated cells, and where nothing was measured."""
    table, time = evidence.tables.get("recurrence"), evidence.tables.get("time")
    if table is None or time is None or not len(table) or not len(time):
        return None
    rows = table[table["step"] == evidence.first_step]
    if not len(rows) or rows.groupby("layer").size().max() > 1:  # a row for each gate
        return None
    radii = values_of(rows, "spectral_radius")
    times = values_of(time, "t")
    if not np.isfinite(radii).all() or not np.isfinite(times).any():
        return None
    most, length = int(np.argmax(radii)), int(np.nanmax(times))
    radius = float(radii[most])
    return _Kept(str(rows["name"].iloc[most]), radius, length, _power(radius, length))


def _power(radius: float, length: int) -> float:
    """radius^length, or the exponential of 700 where a float64 does not hold more."""
    return math.exp(min(length * math.log(radius), 700.0)) if radius > 0 else 0.0**length


def _named(remedies: tuple[Remedy, ...], evidence: Evidence) -> tuple[Remedy, ...]:
    """The remedies with the code of this network: of a recurrence by hand the matrix has another
    name than in PyTorch's own."""
    tables = (evidence.tables.get(name) for name in ("recurrence", "layers"))
    known = [list(map(str, t["name"])) for t in tables if t is not None and "name" in t]
    if any("weight_hh" in name for names in known for name in names):
        return remedies
    matrix = next(iter(known[0]), "") if "recurrence" in evidence.tables and known else ""
    code = f"nn.init.orthogonal_({matrix or 'weight'})  # the weight that reads the state"
    return tuple(replace(r, code=code) if r.code == _ORTHOGONAL.code else r for r in remedies)


_ORTHOGONAL = Remedy(
    "Begin with an orthogonal recurrent matrix.",
    "Its singular values are all 1.",
    "model.recurrent_init=orthogonal model.spectral_radius=1",
    "nn.init.orthogonal_(rnn.weight_hh_l0)",
    "Saxe et al. 2014",
)
_OR_ORTHOGONAL = replace(_ORTHOGONAL, words="Or begin with an orthogonal recurrent matrix.")
_SHORTER_STEPS = (
    Remedy(
        "Clip the gradient by its norm.",
        "A step then is never longer than the threshold.",
        "clip=norm clip.threshold=1",
        "nn.utils.clip_grad_norm_(model.parameters(), 1.0)",
        "Pascanu et al. 2013",
    ),
    _OR_ORTHOGONAL,
)
_LONGER_MEMORY = (
    Remedy(
        "Use a gated cell.",
        "A gate near 1 passes the state on with a factor near 1.",
        "model=lstm model.forget_bias=1",
        "nn.LSTM",
        "Hochreiter & Schmidhuber 1997",
    ),
    _OR_ORTHOGONAL,
)

RULES = (
    recurrence_vanishing,
    recurrence_exploding,
)
