"""The launcher and the sweepers that Hydra instantiates in a sweep of vgexp.

Hydra instantiates classes of this namespace only. The underscore hides the module from its search
for plugins, so that other programs do not see these classes: vgexp registers them itself. Import
this module after that search, which makes Hydra's own classes anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext
from omegaconf import DictConfig, open_dict, read_write

from vgexp.cli import hydra_internals, launcher

_BasicSweeper: Any = hydra_internals.find_grid() or Sweeper


class LauncherPlugin(launcher.PlannedLauncher):
    """The launcher of every sweep, which passes jobs to the launcher that the user chose."""


class SweeperPlugin(launcher.PlanSweeper):
    """The sweeper of `vgexp resume`, which launches the jobs of a plan."""


class GridPlugin(_BasicSweeper):  # type: ignore[misc]
    """Hydra's own sweeper, which does not compose every job first: vgexp's launcher does.

    It takes the place of the one that is named `hydra_internals.GRID`, and of no other.
    """

    def setup(self, *, hydra_context: HydraContext, task_function: Any, config: DictConfig) -> None:
        with read_write(config), open_dict(config.hydra):
            config.hydra.sweeper["_target_"] = hydra_internals.GRID
        super().setup(hydra_context=hydra_context, task_function=task_function, config=config)

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        """Does nothing: the launcher reports jobs that cannot be composed."""
