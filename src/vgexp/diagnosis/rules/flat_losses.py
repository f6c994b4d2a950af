"""Rules about losses that send nothing back."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from vgexp.diagnosis.depths import values_of
from vgexp.diagnosis.evidence import Evidence
from vgexp.diagnosis.findings import Finding, Number, Remedy, cause_rule
from vgexp.diagnosis.learning import ENOUGH_STEPS, LEARNED_BELOW
from vgexp.diagnosis.outcome import column_of, constant_loss, has_learned
from vgexp.diagnosis.rules.losses import ROUNDING, readouts

_FLAT = 0.9
_SILENT = 1e-4
"""Share of the first gradient that counts as next to nothing."""


_MOSTLY = 0.5
_NEAR_0 = 0.1
"""A loss of which nobody knows what a guess costs, above which it is not that of right answers."""
_STEEP_LOSS = Remedy(
    "Use a loss that is steep where the network is wrong.",
    "log(1 - D) is flat where D is sure that an example is made, and -log D is steep.",
    code="loss = -torch.nn.functional.logsigmoid(judge(fake)).mean()",
    source="Goodfellow et al. 2014",
)


@cause_rule(
    "saturated_loss",
    "layers.csv",
    limit=_FLAT,
    reason="with nine of ten outputs at the flat end, next to nothing is sent back; a classifier"
    " that learned ends there, so that it counts from the start or where the loss is high",
    source="Arjovsky & Bottou 2017",
    certain=True,
)
def saturated_loss(evidence: Evidence) -> Finding | None:
    """Whether the activation in front of the loss is flat, and the gradient exactly 0; or the loss
    is flat where it is no lower than at the start."""
    return (
        _flat_activation(evidence)
        or _flat_loss(evidence)
        or _flat_in_front(evidence)
        or _never_steep(evidence)
    )


def _never_steep(evidence: Evidence) -> Finding | None:
    """Whether the loss is finite and stays what it was, and its gradient by what the read-out gives
    is exactly 0 at every update: as of an error that is capped, where all are above the cap."""
    norms, losses = (column_of(evidence, "steps", name) for name in ("grad_norm", "loss"))
    table, layers = evidence.tables.get("loss"), evidence.tables["layers"]
    if table is None or norms.size < ENOUGH_STEPS or not (values_of(table, "is_steep") == 0).any():
        return None
    if "float16" in {evidence.dtype, *table["dtype"]}:
        return None  # it may be steep, and too little for the dtype
    if (norms != 0).any() or not losses.min() > 0 or losses[-20:].mean() < losses[0]:
        return None
    at_readout = layers[layers["kind"] == "readout"]
    reaches, cut = (table[name] for name in ("reaches_output", "cut_by"))
    is_cut = cut.notna().any() or (reaches == 0).any()
    deltas = values_of(at_readout, "delta_rms")
    deltas = deltas[np.isfinite(deltas)]
    is_dead = (values_of(layers, "dead_fraction") >= _FLAT).any()
    if is_cut or is_dead or not deltas.size or (deltas != 0).any():
        return None
    return Finding(
        "saturated_loss",
        f"The loss {losses[0]:.3g} has a gradient of exactly 0 by what the read-out gives, at every"
        " update: it is flat wherever the network is.",
        step=evidence.first_step,
        layers=readouts(evidence),
        numbers={"grad_norm": Number(0.0, 0.0)},
        remedies=(
            Remedy(
                "Use a loss that is steep where the network is wrong, without a cap on each error.",
                "A clamp sends nothing back beyond its limit.",
                code="nn.SmoothL1Loss()(output, y)  # instead of a squared error that is clamped",
                source="PyTorch, torch.clamp",
            ),
        ),
    )


def _flat_in_front(evidence: Evidence) -> Finding | None:
    """Whether the sigmoid, or one of its kin, that the loss or the model applies last is flat from
    the start and mostly, where the loss does not fall or another network trains against this one.

    Where a classifier is right it is flat as well: its loss is then near 0.
    """
    table = evidence.tables.get("loss")
    losses = column_of(evidence, "steps", "loss")
    losses = losses[np.isfinite(losses)]
    if table is None or losses.size < ENOUGH_STEPS:
        return None
    flat = values_of(table[table["role"] == "loss"], "flat_fraction")
    flat = flat[np.isfinite(flat)]
    if not flat.size or flat[0] < _FLAT or (flat >= _FLAT).mean() < _MOSTLY:
        return None
    learned, in_turns = has_learned(evidence), evidence.metrics.get("takes_turns")
    stays = losses[-20:].mean() >= LEARNED_BELOW * losses[0] > LEARNED_BELOW * _NEAR_0
    is_lost = learned is False or stays
    if not in_turns and not (is_lost and learned is not True):
        return None
    if in_turns and losses[-20:].mean() < losses[0] - ROUNDING * abs(losses[0]):
        return None
    step = int(table["step"].iloc[0])
    share = float(np.median(flat))
    return Finding(
        "saturated_loss",
        f"The activation in front of the loss is flat for {share:.0%} of its entries from step"
        f" {step} on, at a loss of {losses[0]:.3g}: next to nothing is sent back.",
        step=step,
        layers=readouts(evidence),
        numbers={"flat_fraction": Number(share, _FLAT)},
        remedies=(_STEEP_LOSS,),
    )


class Silence(NamedTuple):
    """Since when a loss sends next to nothing back."""

    step: int
    first: float
    """The largest of the first gradients."""
    last: float


def silence_of(evidence: Evidence) -> Silence | None:
    """Since when the whole gradient is 1e-4 of its first size, or less, in most of the run, at a
    loss that is no lower than the first one, while every layer still has units that pass it on."""
    norms, losses = (column_of(evidence, "steps", name) for name in ("grad_norm", "loss"))
    if norms.size < ENOUGH_STEPS or not np.isfinite(norms).all() or not np.isfinite(losses).all():
        return None
    first = float(norms[:5].max())
    flat = norms < _SILENT * first
    late = flat[norms.size // 4 :]
    dead = values_of(evidence.tables["layers"], "dead_fraction")
    if first == 0 or late.mean() < _FLAT or (dead >= _FLAT).any():
        return None
    if losses[-20:].mean() < losses[0] - ROUNDING * abs(losses[0]):
        return None
    step = int(evidence.tables["steps"]["step"].iloc[int(np.flatnonzero(flat)[0])])
    return Silence(step, first, float(np.median(norms[-20:])))


def is_steep(evidence: Evidence) -> bool:
    """Whether the loss is made of sums, products and powers of what the last weights give, as
    autograd's graph says: no activation in front of it can be flat."""
    table = evidence.tables.get("loss")
    if table is None:
        return False
    steep = values_of(table[table["role"] == "loss"], "is_steep")
    return steep.size > 0 and bool((steep == 1).all())


def _flat_loss(evidence: Evidence) -> Finding | None:
    """Whether the loss falls silent, and something in front of it may be flat."""
    if is_steep(evidence) or (silence := silence_of(evidence)) is None:
        return None
    losses = column_of(evidence, "steps", "loss")
    return Finding(
        "saturated_loss",
        f"From step {silence.step} on the loss sends next to nothing back: the whole gradient is"
        f" {silence.last:.2g}, where it was {silence.first:.2g}, and the loss"
        f" {losses[-1]:.3g} is no lower than the first one, {losses[0]:.3g}.",
        step=silence.step,
        layers=readouts(evidence),
        numbers={"grad_norm": Number(silence.last, _SILENT * silence.first)},
        remedies=(_STEEP_LOSS,),
    )


def _flat_activation(evidence: Evidence) -> Finding | None:
    layers = evidence.tables["layers"]
    first = layers[layers["step"] == evidence.first_step]
    flat = first[values_of(first, "saturated_fraction") >= _FLAT]
    last = _last_with_activation(evidence)
    ends = flat[flat["name"].isin(last)]
    norms = column_of(evidence, "steps", "grad_norm")
    is_silent = norms.size > 0 and float((norms == 0).mean()) > 0.2
    if not len(ends) or not is_silent:
        return None
    losses = column_of(evidence, "steps", "loss")
    guess = constant_loss(evidence)
    if guess is not None and has_learned(evidence):
        return None
    share = float(values_of(ends, "saturated_fraction")[-1])
    name = str(ends["name"].iloc[-1])
    return Finding(
        "saturated_loss",
        f"The activation behind {name}, in front of the loss, is flat for {share:.0%} of its"
        f" entries from step {evidence.first_step} on"
        + (f", at a loss of {losses[0]:.3g}" if losses.size else "")
        + f"; in {float((norms == 0).mean()):.0%} of the updates the whole gradient is exactly 0.",
        step=evidence.first_step,
        layers=(name,),
        numbers={"saturated_fraction": Number(share, _FLAT)},
        remedies=(
            Remedy(
                "Give logits to a loss that applies the activation itself.",
                "The logarithm then undoes the flat ends: the derivative by a logit is p - y.",
                code="nn.BCEWithLogitsLoss()(logits, y)  # instead of nn.Sigmoid and nn.BCELoss",
                source="PyTorch, BCEWithLogitsLoss",
            ),
        ),
    )


def _last_with_activation(evidence: Evidence) -> set[str]:
    """The names of weights that nothing but an activation stands behind: of each network's last."""
    layers = evidence.tables["layers"]
    rows = layers[layers["step"] == evidence.first_step]
    last: dict[str, str] = {}
    for name in rows["name"]:
        last[str(name).split(".")[0] if str(name).count(".") > 1 else ""] = str(name)
    return {*last.values()}


RULES = (saturated_loss,)
