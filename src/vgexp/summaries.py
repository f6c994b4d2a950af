"""The summary of a run: its metrics, its status, and what computed it."""

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
    from torch import nn

    from vgexp.diagnosis import Evidence
    from vgexp.training import Trainer


def summary_of(
    tables: Mapping[str, pd.DataFrame],
    config: Config,
    trainer: Trainer,
    status: str,
) -> dict[str, Any]:
    """Makes the content of `summary.json`.

    Args:
        tables: those that metrics are made of, by name.
    """
    from vgexp import diagnosis

    metrics: dict[str, Any]
    try:
        metrics, evidence = evidence_of(tables, config, trainer, status)
        metrics |= diagnosis.cause_metrics(evidence)
    except Exception as error:
        # The tables are written by now: no run is lost for what is made of them.
        metrics = {"status": status, "signal": None, "verdict": None}
        metrics["reason"] = f"metrics could not be computed: {type(error).__name__}: {error}"
    return {
        **metrics,
        **trainer.first_not_finite,
        **({} if trainer.stopped_by is None else {"reason": trainer.stopped_by}),
        "steps": trainer.state.step,
        "seconds": round(trainer.clock.seconds, 3),
        "processor_seconds_per_step": trainer.clock.processor_seconds_per_step,
        "probe_overhead": trainer.clock.probe_overhead,
        **of_process(config, trainer),
    }


def evidence_of(
    tables: Mapping[str, pd.DataFrame], config: Config, trainer: Trainer, status: str
) -> tuple[dict[str, Any], Evidence]:
    """The metrics that follow from tables, and all that rules about causes judge."""
    from vgexp import diagnosis

    facts = trainer.facts

    metrics = diagnosis.summarise(
        tables["layers"],
        tables["steps"],
        tables["evals"],
        time=tables.get("time"),
        curvature=tables.get("curvature"),
        constant_loss=facts.constant_loss,
        num_examples=config.data.batch_size * config.train.accumulate,
        dtype=config.dtype,
        status=status,
        divergence=trainer.divergence,
        num_layers=facts.num_layers,
        is_users=facts.num_layers is None,
    )
    evidence = diagnosis.evidence_of_run(
        {**metrics, "steps": trainer.state.step, "unseen": trainer.unseen},
        {name: table for name, table in tables.items() if len(table)},
        config,
        configuration.flatten(config),
    )
    return metrics, evidence


def of_process(config: Config, trainer: Trainer) -> dict[str, Any]:
    """Makes the part of a summary that does not depend on the result: network and process."""
    facts = trainer.facts
    remarks = list(facts.dataset.remarks)
    return {
        "num_parameters": facts.num_parameters,
        "unseen": trainer.unseen,
        **({"remarks": remarks} if remarks else {}),
        **_fitted_variances(trainer.state.model),
        "device": str(facts.device),
        "seed": config.seed,
        "config_hash": configuration.identity(config),
        "versions": versions(),
        "host": platform.node(),
        "process": os.getpid(),
    }


def _fitted_variances(model: nn.Module) -> dict[str, float]:
    """The variances that an init reached which fits weights to a batch; empty for other inits."""
    found = getattr(model, "fitted_variances", {}).values()
    return {"fitted_variance_min": min(found), "fitted_variance_max": max(found)} if found else {}


def versions() -> dict[str, str]:
    """Versions of the software; digits of a table may depend on them."""
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
    """The status of a run that no error ended."""
    facts = trainer.facts
    is_complete = trainer.state.step == facts.num_steps
    if trainer.divergence is not None and (is_complete or facts.stops_on_divergence):
        return "diverged"
    if trainer.stopped_by is not None:
        return resuming.STOPPED
    return "completed" if is_complete else resuming.INTERRUPTED


def computed_by(trainer: Trainer) -> dict[str, str]:
    """Versions and the kind of device; digits of a table may depend on them."""
    return {**versions(), "device": trainer.facts.device.type}
