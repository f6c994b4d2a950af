"""Rules about initialisation and depth: what each layer multiplies the signal by, and why."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from vgexp.diagnosis.depths import Factors, factors_of, rows_at, values_of
from vgexp.diagnosis.evidence import Evidence
from vgexp.diagnosis.findings import Finding, Number, Remedy, cause_rule
from vgexp.diagnosis.outcome import (
    column_of,
    constant_loss,
    has_learned,
    has_learned_little,
    is_short,
)
from vgexp.diagnosis.phrases import compared_layers, format_factor, name_layers
from vgexp.diagnosis.signal import EXPLODING_ABOVE, VANISHING_BELOW
from vgexp.diagnosis.through_time import growth_in_time

_STEEP = 0.5
"""Root mean square of phi' below which a layer loses more by its slopes than a ReLU's (0.71)."""
_NEARLY_ALL = 0.9
_SATURATED = 0.3
_PER_LAYER = (
    "a factor f a layer leaves f^L of the signal after L layers, which is judged by the signal's"
    " own limit; the factor is sigma_w times the rms of phi'"
)
_MOST = 0.5
_LEAST_FOR_JUMP = 4
"""Layers from which on one fall stands out among the others."""
_USUAL_UPDATE = 1e-3
"""An update over its weight, of usual runs (Karpathy 2019)."""
_OF_A_LOOP = "optimizer.class"
"""A key of what the probe says of somebody's own loop; a configuration has none of this name."""
_LEAST_REPLACED = 2
"""Layers that an update replaces: a single one may be small by design."""
_LARGE = 2.0
_TEN = 10.0


@cause_rule(
    "zero_weights",
    "layers.csv",
    reason="a weight of exactly 0 passes nothing back; of the read-out, and of a branch beside a"
    " skip, it is a usual start",
    source="Zhang et al. 2019 (Fixup) for branches",
)
def zero_weights(evidence: Evidence) -> Finding | None:
    """Whether weights of the path are exactly 0 at the start, or all alike.

    Units of a layer whose weights are all alike, and those that read it too, stay equal for good:
    they get the same gradient.
    """
    if (alike := _alike_in_a_row(evidence)) is not None:
        return alike
    layers = evidence.tables["layers"]
    every = layers[(layers["step"] == evidence.first_step) & layers["weight_norm"].notna()]
    if len(every) and (every["kind"] == "readout").all():
        return None  # a linear model: its loss is convex, and 0 a usual start
    rows = rows_at(evidence, evidence.first_step)
    zero = rows[values_of(rows, "weight_norm") == 0]
    readout_deltas = values_of(rows, "delta_rms")
    if len(every) and (values_of(every, "weight_norm") == 0).all():
        zero = every
    elif not len(zero) or (readout_deltas[: len(zero)] > 0).all():
        return None
    names = tuple(str(name) for name in zero["name"])
    return Finding(
        "zero_weights",
        f"{name_layers(names)} begin{'s' if len(names) == 1 else ''} at exactly 0.",
        step=evidence.first_step,
        layers=names,
        numbers={"weight_norm": Number(0.0, 0.0)},
        remedies=(_INIT,),
    )


@cause_rule(
    "weights_small",
    "layers.csv",
    "num_layers",
    limit=VANISHING_BELOW,
    reason=_PER_LAYER,
    source="He et al. 2015",
)
def weights_small(evidence: Evidence) -> Finding | None:
    """Whether the signal vanishes because weights multiply by less than the slopes need."""
    factors = _vanishing(evidence)
    if factors is None or _kind_of_vanishing(evidence, factors) != "weights_small":
        return None
    needed = 1 / max(factors.slope, 1e-3)
    return _of_factors(
        "weights_small",
        evidence,
        factors,
        f"weights multiply by sigma_w = {format_factor(factors.weights)} a layer, and slopes of"
        f" {format_factor(factors.slope)} need {format_factor(needed)}",
        (_INIT, _gain(evidence, needed / factors.weights)),
    )


@cause_rule(
    "saturating_activation",
    "layers.csv",
    "num_layers",
    limit=VANISHING_BELOW,
    reason=_PER_LAYER,
    source="Glorot & Bengio 2010",
)
def saturating_activation(evidence: Evidence) -> Finding | None:
    """Whether the signal vanishes because slopes below 1 multiply."""
    factors = _vanishing(evidence)
    if factors is None or _kind_of_vanishing(evidence, factors) != "saturating_activation":
        return None
    return _of_factors(
        "saturating_activation",
        evidence,
        factors,
        f"the slopes of the activation are {format_factor(factors.slope)} a layer, and weights"
        f" multiply by {format_factor(factors.weights)}",
        (_RELU, _RESIDUAL, _BATCH),
    )


@cause_rule(
    "weights_large",
    "layers.csv",
    "num_layers",
    limit=EXPLODING_ABOVE,
    reason=_PER_LAYER,
    source="Poole et al. 2016",
)
def weights_large(evidence: Evidence) -> Finding | None:
    """Whether weights make the signal explode, or saturate units so that it vanishes."""
    factors = factors_of(evidence)
    if factors is None or evidence.first_step != 0:
        return None
    if _saturated_by_weights(evidence, factors):
        return _of_factors(
            "weights_large",
            evidence,
            factors,
            f"weights multiply by sigma_w = {format_factor(factors.weights)} a layer, so that most"
            " entries are at the flat ends",
            (_INIT, _gain(evidence, 1 / factors.weights)),
        )
    is_vanishing = _vanishing(evidence) is not None
    kind = _kind_of_vanishing(evidence, factors) if is_vanishing else _kind_of_growth(evidence)
    if kind != "weights_large":
        return None
    return _of_factors(
        "weights_large",
        evidence,
        factors,
        f"weights multiply by sigma_w = {format_factor(factors.weights)} a layer",
        (
            _INIT,
            _gain(
                evidence,
                1 / max(factors.backward, 1e-3) if not is_vanishing else 1 / factors.weights,
            ),
        ),
    )


@cause_rule(
    "batchnorm_depth",
    "layers.csv",
    "num_layers",
    limit=EXPLODING_ABOVE,
    reason=_PER_LAYER,
    source="Yang et al. 2019",
)
def batchnorm_depth(evidence: Evidence) -> Finding | None:
    """Whether the signal explodes in a network with batch normalisation and without skips."""
    factors = factors_of(evidence)
    if factors is None or _kind_of_growth(evidence) != "batchnorm_depth":
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
    reason=_PER_LAYER,
    source="Zhang et al. 2019 (Fixup)",
)
def residual_growth(evidence: Evidence) -> Finding | None:
    """Whether the stream of a residual network grows from block to block."""
    factors = factors_of(evidence) or _without_forward(evidence)
    if factors is None or _kind_of_growth(evidence) != "residual_growth":
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


@cause_rule(
    "dead_at_start",
    "layers.csv",
    limit=_NEARLY_ALL,
    source="Lu et al. 2020",
    reason="half of a ReLU's units are dead by chance in no layer of usual width; where nine"
    " of ten are, a layer passes next to nothing",
)
def dead_at_start(evidence: Evidence) -> Finding | None:
    """Whether nearly all units of a layer give 0 on every example before the first update."""
    rows = rows_at(evidence, 0)
    dead = rows[values_of(rows, "dead_fraction") >= _NEARLY_ALL]
    if not len(dead):
        return None
    share = float(values_of(dead, "dead_fraction")[0])
    return Finding(
        "dead_at_start",
        f"At step 0 {share:.0%} of the units of {dead['name'].iloc[0]} give 0 on every example.",
        step=0,
        layers=tuple(str(name) for name in dead["name"]),
        numbers={"dead_fraction": Number(share, _NEARLY_ALL)},
        remedies=(
            _LEAKY,
            Remedy(
                "Or begin with biases of 0.",
                "A negative bias keeps a ReLU's units below 0.",
                "model.bias_std=0",
                "nn.init.zeros_(layer.bias)",
                "He et al. 2015",
            ),
        ),
    )


@cause_rule(
    "recurrence_vanishing",
    "time_attenuation",
    limit=VANISHING_BELOW,
    reason=_PER_LAYER,
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
            "recurrence_vanishing", "shrinks", evidence, VANISHING_BELOW, _LONGER_MEMORY
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
        remedies=_LONGER_MEMORY,
    )


@cause_rule(
    "recurrence_exploding",
    "time_attenuation or time.csv",
    limit=EXPLODING_ABOVE,
    reason=_PER_LAYER,
    source="Pascanu et al. 2013",
)
def recurrence_exploding(evidence: Evidence) -> Finding | None:
    """Whether the gradient explodes on its way back through time, or overflows there."""
    ends = evidence.metrics.get("time_attenuation")
    if ends is not None:
        if ends <= EXPLODING_ABOVE:
            return None
        return _through_time(
            "recurrence_exploding", "grows", evidence, EXPLODING_ABOVE, _SHORTER_STEPS
        )
    time = evidence.tables["time"]
    step = int(time["step"].min())
    grown = growth_in_time(time, step)
    if not grown > EXPLODING_ABOVE:
        return None
    return Finding(
        "recurrence_exploding",
        f"Back through time the gradient grows {grown:.2g} times, and then is not finite any more.",
        step=step,
        numbers={"growth": Number(grown, EXPLODING_ABOVE)},
        remedies=(_ORTHOGONAL,),  # what is not finite cannot be clipped
    )


@cause_rule(
    "no_warmup",
    "settings",
    reason="behind the addition the norm passes gradients that are"
    " largest next to the read-out: Adam's first steps there are too long",
    source="Xiong et al. 2020",
)
def no_warmup(evidence: Evidence) -> Finding | None:
    """Whether a transformer with post-norm is trained without a warm-up.

    Of a loop, where the optimizer is one like Adam whose first step is ten times the usual one, and
    which had the time to learn.
    """
    told, layers = evidence.settings, evidence.tables.get("layers")
    has_attention = layers is not None and bool(layers["kind"].eq("attention").any())
    if not has_attention or told.get("model.norm_position") != "post":
        return None
    if told.get("scheduler.warmup_fraction") or _rate_rises(evidence):
        return None
    if _OF_A_LOOP in told and (is_short(evidence) or not _steps_are_long(evidence)):
        return None
    return Finding(
        "no_warmup",
        "The norm stands behind the addition (post-norm), and the learning rate begins at its full"
        f" value, {told.get('optimizer.lr')}.",
        step=0,
        numbers={"optimizer.lr": Number(float(told.get("optimizer.lr", math.nan)))},
        remedies=(
            Remedy(
                "Begin with a small learning rate.",
                "Adam's averages need some steps to settle.",
                "scheduler=warmup_cosine",
                "torch.optim.lr_scheduler.LinearLR(optimizer)",
                "Xiong et al. 2020",
            ),
            Remedy(
                "Or put the norm in front of the branch.",
                "The stream then passes gradients back unchanged.",
                "model.norm_position=pre",
                "nn.TransformerEncoderLayer(..., norm_first=True)",
                "Xiong et al. 2020",
            ),
        ),
    )


def _alike_in_a_row(evidence: Evidence) -> Finding | None:
    """The first layer whose weights are all alike, as those of the layer behind it are.

    Dropout may part its units: of a network that learned it is no fault.
    """
    names = [str(name) for name in rows_at(evidence, evidence.first_step)["name"]]
    layers = evidence.tables["layers"]
    at_first = layers[layers["step"] == evidence.first_step]
    names += [str(n) for n in at_first.loc[at_first["kind"].eq("readout"), "name"]]
    path = list(dict.fromkeys(names))
    alike = set(evidence.metrics.get("constant_weights") or ())
    pairs = [(one, two) for one, two in pairwise(path) if {one, two} <= alike]
    if not pairs:
        return None
    found = tuple(name for name in path if name in alike)
    is_fact = not has_learned(evidence) or has_learned_little(evidence)
    return Finding(
        "zero_weights",
        f"The entries of {name_layers(found)} all begin at the same number: the units of"
        f" {pairs[0][0]} get the same gradient, and stay equal.",
        step=evidence.first_step,
        layers=found,
        numbers={"constant_weights": Number(float(len(found)), 0.0)},
        remedies=(_INIT,),
        is_fact=is_fact,
    )


def _rate_rises(evidence: Evidence) -> bool:
    """Whether the learning rate begins below half of its largest."""
    rates = column_of(evidence, "steps", "lr")
    rates = rates[np.isfinite(rates)]
    return rates.size > 0 and bool(rates[0] < rates.max() / 2)


def _steps_are_long(evidence: Evidence) -> bool:
    """Whether an optimizer with Adam's averages begins with updates of ten times the usual size, a
    thousandth of each weight."""
    layers = evidence.tables["layers"]
    first = values_of(layers[layers["step"] == layers["step"].min()], "update_ratio")
    first = first[np.isfinite(first)]
    if "optimizer.betas" not in evidence.settings or not first.size:
        return False
    return _TEN * _USUAL_UPDATE <= float(np.median(first)) < 1  # above, no warm-up helps


# ---------------------------------------------------------------- what multiplies


def _vanishing(evidence: Evidence) -> Factors | None:
    """The factors of a signal that vanishes from the start, and has not recovered by the end."""
    metrics = evidence.metrics
    if evidence.first_step != 0 or metrics.get("signal") != "vanishing":
        return None
    if _is_one_jump(evidence, metrics.get("attenuation") or 1.0):
        return None  # as pooling over positions takes it, and no factor a layer
    return factors_of(evidence) or _without_forward(evidence)


def _without_forward(evidence: Evidence) -> Factors | None:
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


def _kind_of_vanishing(evidence: Evidence, factors: Factors) -> str | None:
    """Whose fault it is: that of the weights or that of the slopes."""
    rows = rows_at(evidence, evidence.first_step)
    saturated = values_of(rows, "saturated_fraction")
    dead = values_of(rows, "dead_fraction")
    if (dead >= _NEARLY_ALL).any() or evidence.metrics.get("attenuation") == 0:
        return None
    share = float(np.nanmedian(saturated)) if np.isfinite(saturated).any() else 0.0
    if share > _SATURATED and factors.weights > 1:
        return "weights_large"
    if factors.slope < _STEEP:
        return "saturating_activation" if factors.weights > _STEEP / 5 else "weights_small"
    return "weights_small" if factors.weights < 0.9 / factors.slope else "saturating_activation"


def _kind_of_growth(evidence: Evidence) -> str | None:
    """What makes the signal explode: weights, batch normalisation or the sum of branches."""
    metrics, told = evidence.metrics, evidence.settings
    factors = factors_of(evidence) or _without_forward(evidence)
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


def _saturated_by_weights(evidence: Evidence, factors: Factors) -> bool:
    """Whether most entries of most layers are saturated at the start, by weights above 2."""
    saturated = values_of(rows_at(evidence, 0), "saturated_fraction")
    known = saturated[np.isfinite(saturated)]
    return known.size > 0 and float(np.median(known)) > _MOST and factors.weights > _LARGE


def _forward_explodes(evidence: Evidence) -> bool:
    """Whether z grows by more than a thousand times from the first layer to the last, or by ten
    times where the first loss shows that the outputs grew with it: usual outputs at the start cost
    about what guessing costs."""
    z = values_of(rows_at(evidence, evidence.first_step), "preact_std")
    z = z[np.isfinite(z) & (z > 0)]
    if z.size < 2:
        return False
    growth = float(z[-1] / z[0])
    return growth > EXPLODING_ABOVE or (growth > _TEN and _starts_far_above_guess(evidence))


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
    losses, guess = column_of(evidence, "steps", "loss"), constant_loss(evidence)
    return (
        evidence.first_step == 0
        and losses.size > 0
        and bool(losses[0] > _TEN * (guess or math.nan))
    )


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
    limit = VANISHING_BELOW if metrics.get("signal") == "vanishing" else EXPLODING_ABOVE
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
        numbers["attenuation"] = Number(attenuation, limit)
    words = f"{why}: the gradient changes by {format_factor(factors.backward)} a layer{gets}."
    return Finding(
        cause,
        words[0].upper() + words[1:],
        step=evidence.first_step,
        layers=evidence.names_of(first),
        numbers=numbers,
        remedies=tuple(remedy for remedy in remedies if remedy is not None),
    )


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


_ORTHOGONAL = Remedy(
    "Begin with an orthogonal recurrent matrix.",
    "Its singular values are all 1.",
    "model.recurrent_init=orthogonal model.spectral_radius=1",
    "nn.init.orthogonal_(rnn.weight_hh_l0)",
    "Saxe et al. 2014",
)
_SHORTER_STEPS = (
    Remedy(
        "Clip the gradient by its norm.",
        "A step then is never longer than the threshold.",
        "clip=norm clip.threshold=1",
        "nn.utils.clip_grad_norm_(model.parameters(), 1.0)",
        "Pascanu et al. 2013",
    ),
    replace(_ORTHOGONAL, words="Or begin with an orthogonal recurrent matrix."),
)
_LONGER_MEMORY = (
    Remedy(
        "Use a gated cell.",
        "A gate near 1 passes the state on with a factor near 1.",
        "model=lstm model.forget_bias=1",
        "nn.LSTM",
        "Hochreiter & Schmidhuber 1997",
    ),
    replace(_ORTHOGONAL, words="Or begin with an orthogonal recurrent matrix."),
)
_INIT = Remedy(
    "Draw the weights with the init that the activation needs.",
    "He's init makes the factor of a ReLU layer 1, Xavier's that of a linear one.",
    "model.init=he_normal model.gain=1",
    "nn.init.kaiming_normal_(layer.weight)",
    "He et al. 2015",
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
_LEAKY = Remedy(
    "Use leaky ReLU.",
    "Its slope below 0 is not 0, so that no unit is dead.",
    "model.activation=leaky_relu",
    "nn.LeakyReLU(0.01)",
    "Maas et al. 2013",
)

RULES = (
    zero_weights,
    dead_at_start,
    weights_small,
    weights_large,
    batchnorm_depth,
    residual_growth,
    saturating_activation,
    recurrence_vanishing,
    recurrence_exploding,
    no_warmup,
)
