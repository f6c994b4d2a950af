"""Rules about single layers before the first update: weights of 0 or all alike, dead units."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pandas as pd

from vgexp.diagnosis.depths import (
    NEARLY_ALL,
    are_dead,
    nearly_silent,
    rows_at,
    silent_readouts,
    values_of,
)
from vgexp.diagnosis.evidence import Evidence
from vgexp.diagnosis.findings import Finding, Number, Remedy, cause_rule
from vgexp.diagnosis.outcome import (
    has_learned,
    has_learned_little,
)
from vgexp.diagnosis.phrases import name_layers
from vgexp.diagnosis.rules.multiplied import usual_init


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
    if (stuck := zero_for_good(evidence)) and len(stuck) > 1:
        return _of_stuck(evidence, stuck)
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
    if _adapts_what_is_frozen(evidence, names):
        return None
    return Finding(
        "zero_weights",
        f"{name_layers(names)} begin{'s' if len(names) == 1 else ''} at exactly 0.",
        step=evidence.first_step,
        layers=names,
        numbers={"weight_norm": Number(0.0, 0.0)},
        remedies=(usual_init(evidence),),
    )


@cause_rule(
    "dead_at_start",
    "layers.csv",
    limit=NEARLY_ALL,
    source="Lu et al. 2020",
    reason="half of a ReLU's units are dead by chance in no layer of usual width; where nine"
    " of ten are, a layer passes next to nothing",
)
def dead_at_start(evidence: Evidence) -> Finding | None:
    """Whether nearly all units of a layer give 0 on every example before the first update; or on
    nearly every one, and on all at the next measured step, as those of narrow layers do."""
    rows = rows_at(evidence, 0)
    dead = rows[are_dead(rows)]
    if not len(dead):
        dead = silent_readouts(evidence, 0)
    if not len(dead):
        return _nearly_dead(evidence)
    share = float(values_of(dead, "dead_fraction")[0])
    return Finding(
        "dead_at_start",
        f"At step 0 {share:.0%} of the units of {dead['name'].iloc[0]} give 0 on every example.",
        step=0,
        layers=tuple(str(name) for name in dead["name"]),
        numbers={"dead_fraction": Number(share, NEARLY_ALL)},
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


def _nearly_dead(evidence: Evidence) -> Finding | None:
    rows = nearly_silent(evidence)
    if not len(rows):
        return None
    first = rows.iloc[0]
    given, passed = (
        float(np.hypot(first[f"{what}_mean"], first[f"{what}_std"])) for what in ("preact", "act")
    )
    return Finding(
        "dead_at_start",
        f"At step 0 the units of {first['name']} give 0 on nearly every example:"
        f" {passed / given:.2g}"
        " of their z passes, where half of a z around 0 is 0.71. At the next measured step whole"
        " layers are dead.",
        step=0,
        layers=tuple(str(name) for name in rows["name"]),
        numbers={"passed": Number(passed / given, 0.1)},
        remedies=(
            _LEAKY,
            Remedy(
                "Or make layers wider.",
                "With more units it is unlikely that all of a layer are below 0.",
                "model.width=8",
                "nn.Conv2d(8, 8, 3)",
                "Lu et al. 2020",
            ),
        ),
    )


def zero_for_good(evidence: Evidence) -> tuple[str, ...]:
    """The weights that are exactly 0 and get a gradient of exactly 0, at every measured step: as
    factors of one product, each of which multiplies what comes back to the other.

    All weights are, or the outputs of others get a signal: else something sends nothing back. One
    step shows nothing of weights behind another one that is 0 and gets a gradient, such as that of
    the read-out: it is 0 no more at the next.
    """
    layers = evidence.tables.get("layers")
    if layers is None or "grad_norm" not in layers:
        return ()
    known = layers[np.isfinite(values_of(layers, "grad_norm"))]
    moved = (values_of(known, "weight_norm") != 0) | (values_of(known, "grad_norm") != 0)
    others = set(known.loc[moved, "name"])
    is_silent = bool(others) and not (values_of(layers, "delta_rms") > 0).any()
    if is_silent or (len(known["step"].unique()) == 1 and _has_moving_zero(evidence, known)):
        return ()
    return tuple(str(name) for name in dict.fromkeys(known["name"]) if name not in others)


def _has_moving_zero(evidence: Evidence, known: pd.DataFrame) -> bool:
    """Whether a weight that is exactly 0 gets a gradient, and something holds it that moves it."""
    moving = known[(values_of(known, "weight_norm") == 0) & (values_of(known, "grad_norm") > 0)]
    wiring = evidence.tables.get("wiring")
    if wiring is None:
        return len(moving) > 0
    held = wiring.loc[values_of(wiring, "in_optimizer") == 1, "name"]
    return bool(moving["name"].isin(set(held)).any())


def _of_stuck(evidence: Evidence, names: tuple[str, ...]) -> Finding:
    layers = evidence.tables["layers"]
    trained = set(layers.loc[np.isfinite(values_of(layers, "grad_norm")), "name"])
    is_all = trained == set(names)
    return Finding(
        "zero_weights",
        f"{name_layers(names)} are exactly 0, and so is the gradient of each: where two factors of"
        " a product are 0, neither gets a gradient by way of the other, and both stay.",
        step=evidence.first_step,
        layers=names,
        numbers={"weight_norm": Number(0.0, 0.0), "grad_norm": Number(0.0, 0.0)},
        remedies=(
            Remedy(
                "Draw one factor of each product at random, and begin the other at 0.",
                "The product is 0 then as well, and the factor at 0 gets a gradient.",
                "model.init=he_normal model.gain=1",
                "nn.init.kaiming_uniform_(lora_A); nn.init.zeros_(lora_B)",
                "Hu et al. 2022 (LoRA)",
            ),
        ),
        is_fact=is_all or not has_learned(evidence),
    )


def _adapts_what_is_frozen(evidence: Evidence, names: tuple[str, ...]) -> bool:
    """Whether weights that begin at 0 get a gradient at once, beside frozen ones: adapters that
    begin by changing nothing."""
    layers, wiring = evidence.tables["layers"], evidence.tables.get("wiring")
    if wiring is None or not (values_of(wiring, "requires_grad") == 0).any():
        return False
    rows = layers[(layers["step"] == evidence.first_step) & layers["name"].isin(names)]
    return len(rows) > 0 and bool((values_of(rows, "grad_norm") > 0).all())


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
        remedies=(usual_init(evidence),),
        is_fact=is_fact,
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
)
