"""Where every run begins: its folder's name, its parts put together, its failure written down."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from vgexp import config as configuration
from vgexp import folders, resuming
from vgexp.config import Config
from vgexp.errors import reason
from vgexp.interrupts import held, noticed

if TYPE_CHECKING:
    from vgexp.training import Trainer


def assembled(config: Config) -> Trainer:
    """Everything that a run needs, built; a signal meanwhile ends it, and is not lost."""
    with held(_wait):
        from vgexp.assembly import assemble
    with noticed():
        return assemble(config)


def default_folder(config: Config, verb: str) -> Path:
    """outputs/<verb>/<model>/<date_time_microseconds>."""
    now = datetime.datetime.now().strftime("%Y-%m-%d_%H-%M-%S_%f")
    return Path("outputs") / verb / configuration.choice("model", config.model) / now


def write_failure(
    folder: Path, config: Config | None, error: BaseException, verb: str = folders.TRAIN
) -> None:
    """Makes a folder whose run failed say so: configuration, status and reason."""
    folder.mkdir(parents=True, exist_ok=True)
    if config is not None and not (folder / folders.CONFIG).exists():
        folders.write_config(folder, config, "", verb)
    known = folders.summary_of(folder)
    folders.write_summary(folder, {**known, "status": resuming.FAILED, "reason": reason(error)})


def _wait() -> None:
    """Nothing: what is raised in the middle of torch's import can end the process."""
