"""Which summary metrics `vgexp compare`, `vgexp show` and a notebook show by default."""

from __future__ import annotations

COMPARED = (
    "loss_last_mean_20",
    "val_accuracy_last",
    "attenuation",
    "backward_factor_per_layer",
    "verdict",
    "sharpness_over_limit",
)
"""The columns of every comparison; one that a key asks for, only where some run has it."""

SHOWN = (
    "status",
    "signal",
    "signal_last",
    "attenuation",
    "attenuation_last",
    "backward_factor_per_layer",
    "backward_factor_per_layer_last",
    "layers_left_out",
    "underflow",
    "backward_factor_per_time_step",
    "time_attenuation",
    "sharpness_first",
    "sharpness_last",
    "sharpness_over_limit",
    "curvature_over_limit_max",
    "num_layers",
    "num_parameters",
    "steps",
    "constant_loss",
    "loss_first",
    "loss_last",
    "loss_best",
    "accuracy_last",
    "val_loss_last",
    "val_accuracy_last",
    "val_accuracy_best",
    "test_loss",
    "test_accuracy",
    "clip_fraction",
    "seconds",
    "probe_overhead",
    "dtype",
    "device",
    "seed",
)
"""The lines of `vgexp show`; one that is null, or 0 where that is usual, is left out."""

ON_CARD = (
    "attenuation",
    "backward_factor_per_layer",
    "loss_last_mean_20",
    "val_accuracy_last",
    "clip_fraction",
    "steps",
    "num_layers",
    "seconds",
    "device",
    "dtype",
)
"""The lines of a run in a notebook, where the run has them."""
