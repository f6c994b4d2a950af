"""Launchers and sweepers of other packages: the extras that install them, and vgexp's settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from omegaconf import OmegaConf

from vgexp.errors import QuestionError

_WEEK_MINUTES = 7 * 24 * 60
_DAY_MINUTES = 24 * 60

EXTRAS: Mapping[str, str] = {
    "hydra/launcher/joblib": "joblib",
    "hydra/launcher/submitit_local": "submitit",
    "hydra/launcher/submitit_slurm": "submitit",
    "hydra/sweeper/optuna": "optuna",
}
"""Choice -> the extra that installs it."""

PRESETS: Mapping[str, Mapping[str, Any]] = {
    # A job at a time, so that a long one never holds others back.
    "hydra/launcher/joblib": {"batch_size": "1"},
    # No other user waits for the machine, so a job may take long.
    "hydra/launcher/submitit_local": {"timeout_min": _WEEK_MINUTES, "cpus_per_task": 1},
    # A core (run.threads=1) and memory for one process; a job that meets its limit of time, or is
    # pushed out, is queued again and goes on from its checkpoint.
    "hydra/launcher/submitit_slurm": {
        "timeout_min": _DAY_MINUTES,
        "cpus_per_task": 1,
        "mem_gb": 4,
        "max_num_timeout": 100,
        "name": "vgexp",
    },
}
"""Choice -> the settings that differ from the package's own."""


_ADJUSTED: dict[str, Any] = {}
"""Choice -> the entry of the store that holds it since it was adjusted."""


def adjust() -> None:
    """Changes the settings of installed launchers to vgexp's presets, each once."""
    Plugins.instance()  # has them register their settings
    store = ConfigStore.instance()
    for choice, values in PRESETS.items():
        group, _, name = choice.rpartition("/")
        if f"{name}.yaml" not in store.list(group):
            continue
        # The entry itself: what `load` gives is a copy each time.
        if _entry(store, group, name) is not _ADJUSTED.get(choice):
            found = store.load(f"{choice}.yaml").node
            store.store(group=group, name=name, node=OmegaConf.merge(found, values))
            _ADJUSTED[choice] = _entry(store, group, name)


def _entry(store: ConfigStore, group: str, name: str) -> Any:
    place: Any = store.repo
    for part in group.split("/"):
        place = place[part]
    return place[f"{name}.yaml"]


def explain_missing(choice: str) -> QuestionError | None:
    """The error for a choice that an extra would install; None for other choices."""
    if choice not in EXTRAS:
        return None
    group, _, name = choice.rpartition("/")
    return QuestionError(
        f"{group}={name} is not installed\nallowed: pip install 'vgexp[{EXTRAS[choice]}]'"
    )
