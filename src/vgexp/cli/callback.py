"""Hydra's callback: it checks folders before Hydra writes into them, and sets vgexp's launcher."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from hydra.core.plugins import Plugins
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, open_dict, read_write

from vgexp import folders
from vgexp.cli import notice
from vgexp.cli.session import call_or_refuse, current_session
from vgexp.sweep import place, plan, plan_file


class FolderCallback(Callback):
    """Refuses a folder that is in use, and records the command of a sweep in its plan."""

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        folder = Path(str(config.hydra.run.dir))
        call_or_refuse(lambda: folders.refuse_file(folder))
        call_or_refuse(lambda: folders.require_free(folder))
        call_or_refuse(lambda: place.require_no_sweep(folder))
        if current_session().command[:1] == ("fix",):
            from vgexp.cli.fix import require_same_search

            call_or_refuse(lambda: require_same_search(config, folder))

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        notice.take_back()
        session = current_session()
        folder = Path(str(config.hydra.sweep.dir))
        session.plan = call_or_refuse(lambda: place.admit(folder)) or plan.Plan()
        session.folder = folder
        if not session.replays:
            changed = session.plan.add_command(session.command)
            call_or_refuse(lambda: plan_file.change(folder, lambda _: changed))
        _put_launcher_in(config)

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        del config
        session = current_session()
        folder = session.folder
        if folder is not None and not session.replays:
            call_or_refuse(
                lambda: plan_file.change(folder, lambda p: p.end_command(session.command))
            )


def _put_launcher_in(config: DictConfig) -> None:
    from hydra_plugins import _vgexp as plugins
    from vgexp.cli.hydra_internals import GRID, find_grid

    grid = find_grid()
    if grid is not None and not issubclass(plugins.GridPlugin, grid):
        # Hydra has searched for plugins once more, and made its sweeper's class anew.
        importlib.reload(plugins)
    session = current_session()
    for plugin in (plugins.LauncherPlugin, plugins.GridPlugin, plugins.SweeperPlugin):
        Plugins.instance().register(plugin)
    with read_write(config), open_dict(config.hydra):
        session.launcher = config.hydra.launcher
        config.hydra.launcher = {"_target_": _target(plugins.LauncherPlugin)}
        if session.replays:
            config.hydra.sweeper = {"_target_": _target(plugins.SweeperPlugin)}
        elif config.hydra.sweeper.get("_target_") == GRID:
            config.hydra.sweeper["_target_"] = _target(plugins.GridPlugin)


def _target(plugin: type) -> str:
    """The name by which Hydra instantiates one of vgexp's plugins."""
    return f"{plugin.__module__}.{plugin.__name__}"
