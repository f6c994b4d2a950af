"""What a rule needs and does not have, in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

UNKNOWN_LOSSES = "the losses are not known"
_ANYWHERE: Mapping[str, str] = {
    "time_attenuation": "no recurrent layer was seen through time (time.csv)",
    "time_attenuation or time.csv": "no recurrent layer was seen through time (time.csv)",
    "curvature_over_limit_max or loss.csv": (
        "neither the Hessian was measured (probe.curvature_every) nor the loss watched"
        " (probe.watch_loss)"
    ),
    "curvature_over_limit_max": "the Hessian was not measured (probe.curvature_every)",
    "clip_fraction": "how often gradients were clipped is not known",
    "settings": "the settings of the optimizer are not known",
    "loss.csv": "the loss was not watched (probe.watch_loss)",
    "underflow or loss.csv": "the dtype or the number of examples is not known",
    "underflow": "the dtype or the number of examples is not known",
    "dtype": "the dtype is not known",
    "num_layers": "the layers are not known",
    "loss_best_mean_20": UNKNOWN_LOSSES,
    "loss_last_mean_20": UNKNOWN_LOSSES,
    "val_loss_last": "there is no validation loss",
    "val_loss_best": "there is no validation loss",
}
"""Table, field or metric -> what its absence means; others are named as what is needed."""
_OF_TRAIN: Mapping[str, str] = {
    "loss.csv": "the loss is vgexp's own, which needs no such check",
}
"""The same of a run of `vgexp train`, which has a loss of vgexp's own."""


def say_lacking(needs: Sequence[str], *, is_trained_here: bool) -> str:
    """Why a rule cannot be checked that lacks these; empty where it lacks nothing.

    Args:
        needs: tables (`curvature.csv`), fields of `Evidence` and metrics of the summary.
        is_trained_here: whether it is of a run of `vgexp train`.
    """
    words = {**_ANYWHERE, **(_OF_TRAIN if is_trained_here else {})}
    # What is missing together has one reason, that of what says the most.
    said = [*dict.fromkeys(words[need] for need in needs if need in words)]
    named = [need for need in needs if need not in words]
    if named:
        return f"needs {', '.join(named)}"
    return said[0] if said else ""
