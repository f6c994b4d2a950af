"""The rule about a loss that is flat."""

from __future__ import annotations

from vgexp.diagnosis.depths import values_of
from vgexp.diagnosis.evidence import Evidence
from vgexp.diagnosis.findings import Finding, Number, Remedy, cause_rule
from vgexp.diagnosis.landscape import FLAT_BELOW
from vgexp.diagnosis.learning import ENOUGH_STEPS
from vgexp.diagnosis.outcome import column_of
from vgexp.diagnosis.rules.flat_losses import is_steep, silence_of


@cause_rule(
    "flat_landscape",
    "curvature_over_limit_max or loss.csv",
    limit=FLAT_BELOW,
    source="Cohen et al. 2021",
    reason="a step a hundred times as large would be stable: nothing bends the loss",
    least_steps=ENOUGH_STEPS,
    without_steps="curvature_over_limit_max",
)
def flat_landscape(evidence: Evidence) -> Finding | None:
    """Whether no eigenvalue of the Hessian is near the stability limit.

    Where it was not measured: whether all that the loss compares is one number, and the gradient
    exactly 0 at every update; or next to no gradient comes from a loss in front of which nothing is
    flat.
    """
    largest = evidence.metrics.get("curvature_over_limit_max")
    if largest is None:
        return None if evidence.lacks("layers.csv") else _all_alike(evidence) or _silent(evidence)
    if largest >= FLAT_BELOW:
        return None
    return Finding(
        "flat_landscape",
        f"No Hessian eigenvalue is above {largest:.2g} of what this learning rate bears.",
        step=evidence.first_step,
        numbers={"curvature_over_limit_max": Number(float(largest), FLAT_BELOW)},
        remedies=(*_usual_gain(evidence), _BEGIN_ELSEWHERE),
    )


def _all_alike(evidence: Evidence) -> Finding | None:
    """Whether the gradient is exactly 0 at every update, of a loss whose graph is whole, and all
    values that it is given, as returns and advantages are, are the same."""
    table, norms = evidence.tables.get("loss"), column_of(evidence, "steps", "grad_norm")
    layers = evidence.tables["layers"]
    if table is None or norms.size < ENOUGH_STEPS or (norms != 0).any():
        return None
    results, outputs = (table[table["role"] == role] for role in ("loss", "output"))
    is_whole = (results["reaches_output"] == 1).all() and results["cut_by"].isna().all()
    is_float = table["dtype"].astype("str").str.startswith(("float", "bfloat"))
    given = table[(table["role"] == "target") & is_float & (table["shape"] != "scalar")]
    least, most = given["min"].min(), given["max"].max()
    if not is_whole or least != most or not (outputs["min"] < outputs["max"]).any():
        return None
    if (values_of(layers, "weight_norm") == 0).any():
        return None  # what is behind a weight of 0 gets nothing in any case
    return Finding(
        "flat_landscape",
        f"The gradient is exactly 0 at every update: all values of {given['name'].iloc[0]}, by"
        f" which the loss judges the outputs, are {least:.3g}, so that no output is better than"
        " another.",
        step=evidence.first_step,
        numbers={"grad_norm": Number(0.0, 0.0)},
        remedies=(
            Remedy(
                "Reward what leads to the goal, or begin nearer to it.",
                "Where no attempt is better than another there is nothing to follow.",
                code="reward = progress  # and not only at the goal",
                source="Ng et al. 1999 (reward shaping)",
            ),
        ),
        is_fact=True,
    )


def _silent(evidence: Evidence) -> Finding | None:
    """Whether next to no gradient comes from a loss that is as high as at the start, and in front
    of which nothing can be flat: then what the weights do to it is flat."""
    silence = silence_of(evidence) if is_steep(evidence) else None
    if silence is None:
        return None
    losses = column_of(evidence, "steps", "loss")
    return Finding(
        "flat_landscape",
        f"From step {silence.step} on the whole gradient is {silence.last:.2g}, where it was"
        f" {silence.first:.2g}, and the loss {losses[-1]:.3g} is no lower than the first one,"
        f" {losses[0]:.3g}: no activation in front of it can be flat, so that what is left of it"
        " does not depend on the weights.",
        step=silence.step,
        numbers={"grad_norm": Number(silence.last, silence.first)},
        remedies=(
            Remedy(
                "Use an activation whose second derivative is not 0, where the loss has one.",
                "A net of ReLU is linear in pieces: its second derivative is 0 for all weights.",
                code="nn.Tanh()  # or nn.SiLU(), in place of nn.ReLU()",
                source="Raissi et al. 2019",
            ),
            _BEGIN_ELSEWHERE,
        ),
    )


_BEGIN_ELSEWHERE = Remedy(
    "Begin elsewhere: another init, or pretraining.",
    "A flat region has no direction that leads out of it.",
    "model.init=orthogonal",
    "nn.init.orthogonal_(layer.weight)",
    "Saxe et al. 2014",
)


def _usual_gain(evidence: Evidence) -> tuple[Remedy, ...]:
    """The gain of 1, of a run whose weights begin smaller than their init has them."""
    gain = evidence.settings.get("model.gain")
    if not isinstance(gain, int | float) or gain >= 1:
        return ()
    return (
        Remedy(
            "Draw the weights at the scale of their init.",
            "Where weights are near 0, products of them are flat.",
            "model.gain=1",
            source="Saxe et al. 2014",
        ),
    )


RULES = (flat_landscape,)
