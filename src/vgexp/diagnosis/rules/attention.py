"""Rules about the training of transformers."""

from __future__ import annotations

import math

import numpy as np

from vgexp.diagnosis.depths import values_of
from vgexp.diagnosis.evidence import Evidence
from vgexp.diagnosis.findings import Finding, Number, Remedy, cause_rule
from vgexp.diagnosis.outcome import (
    column_of,
    is_short,
)

_USUAL_UPDATE = 1e-3
"""An update over its weight, of usual runs (Karpathy 2019)."""
_OF_A_LOOP = "optimizer.class"
"""A key of what the probe says of somebody's own loop; a configuration has none of this name."""
_TEN = 10.0


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


RULES = (no_warmup,)
