"""Hydra instantiates launchers and sweepers of this namespace only. The underscore keeps its search
for plugins out: these are put in for vgexp's own sweeps, and other programs never see them.

To be imported once that search is over: it makes Hydra's own classes anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.types import HydraContext
from omegaconf import DictConfig, open_dict, read_write

from vgexp.cli import launcher


class PlannedLauncher(launcher.PlannedLauncher):
    """The launcher of every sweep; hands on to the one that was chosen."""


class PlanSweeper(launcher.PlanSweeper):
    """The sweeper of `vgexp resume`."""


class Grid(BasicSweeper):
    """Hydra's own, without composing every job to see whether it can be: our launcher does that."""

    def setup(self, *, hydra_context: HydraContext, task_function: Any, config: DictConfig) -> None:
        with read_write(config), open_dict(config.hydra):
            config.hydra.sweeper["_target_"] = launcher.GRID
        super().setup(hydra_context=hydra_context, task_function=task_function, config=config)

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        """Nothing; see above."""
