"""What is told of a run once it has ended: metrics, status, and what it was computed by."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from vgexp import config as configuration
from vgexp import resuming
from vgexp.config import Config

if TYPE_CHECKING:
    import pandas as pd

    from vgexp.training import Trainer


def summary_of(
    tables: Mapping[str, pd.DataFrame],
    config: Config,
    trainer: Trainer,
    status: str,
) -> dict[str, Any]:
    """What `summary.json` holds.

    Args:
        tables: those that metrics are made of, by name.
    """
    from vgexp import diagnosis

    metrics = diagnosis.summarise(
        tables["layers"],
        tables["steps"],
        tables["evals"],
        time=tables.get("time"),
        curvature=tables.get("curvature"),
        constant_loss=trainer.constant_loss,
        num_examples=config.data.batch_size * config.train.accumulate,
        dtype=config.dtype,
        status=status,
        divergence=trainer.divergence,
        num_layers=trainer.num_layers,
    )
    return {
        **metrics,
        "steps": trainer.state.step,
        "seconds": round(trainer.clock.seconds, 3),
        "probe_overhead": trainer.clock.probe_overhead,
        **of_process(config, trainer),
    }


def of_process(config: Config, trainer: Trainer) -> dict[str, Any]:
    """What a summary says of the network and of what measured it, whatever came out."""
    return {
        "num_parameters": trainer.num_parameters,
        "unseen": trainer.unseen,
        **({"remarks": list(trainer.remarks)} if trainer.remarks else {}),
        **_fitted(trainer),
        "device": str(trainer.device),
        "seed": config.seed,
        "config_hash": configuration.identity(config),
        "versions": versions(),
        "host": platform.node(),
        "process": os.getpid(),
    }


def _fitted(trainer: Trainer) -> dict[str, float]:
    """What an init that fits weights to a batch reached there; nothing of others."""
    found = getattr(trainer.state.model, "fitted_variances", {}).values()
    return {"fitted_variance_min": min(found), "fitted_variance_max": max(found)} if found else {}


def versions() -> dict[str, str]:
    """Of what computes: digits of a table may depend on it."""
    import numpy
    import torch

    from vgexp import __version__

    return {
        "vgexp": __version__,
        "torch": str(torch.__version__),
        "numpy": numpy.__version__,
        "python": platform.python_version(),
    }


def status_of(trainer: Trainer) -> str:
    """How a run ended that was not torn off."""
    is_complete = trainer.state.step == trainer.num_steps
    if trainer.divergence is not None and (is_complete or trainer.stops_on_divergence):
        return "diverged"
    return "completed" if is_complete else resuming.INTERRUPTED


def computed_by(trainer: Trainer) -> dict[str, str]:
    """Versions, and the kind of device: what the digits of a table may depend on."""
    return {**versions(), "device": trainer.device.type}
