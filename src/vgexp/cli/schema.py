"""Registers the schema, the choices of each group, and Hydra's own settings with Hydra.

All of it lives in the ConfigStore and not in `configs/vgexp.yaml`, so that it also holds when a
user replaces the primary config (`--config-dir RUN --config-name config`).
"""

from __future__ import annotations

import dataclasses
from functools import cache
from typing import Any

from hydra.conf import HelpConf, HydraConf, JobConf, RunDir, SweepDir
from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, OmegaConf

from vgexp.cli import hydra_internals, omegaconf_internals, plugins
from vgexp.cli.actions import Work
from vgexp.cli.groups import KEYS
from vgexp.config import CHOICES, Config, choices

PRIMARY = "vgexp"

# What a folder is called: the preset, else the model. Cached like Hydra's `now`, so that the jobs
# of a sweep over experiments share the folder that the sweep itself was given.
_EXPERIMENT = "${oc.select:hydra.runtime.choices.experiment}"
_MODEL = "${oc.select:hydra.runtime.choices.model}"
_LABEL = f"${{vgexp_label:{_EXPERIMENT},{_MODEL}}}"
_TIME = "${now:%Y-%m-%d_%H-%M-%S_%f}"

_DEFAULTS = " ".join(f"{group}={name}" for group, name in choices(Config()).items())
_HELP_TEMPLATE = f"""\
${{hydra.help.header}}
groups: choose with group=option; unless chosen:
  {_DEFAULTS}

$APP_CONFIG_GROUPS
keys: set with key=value; shown is what each is by itself, in brackets the
choices that have it; --cfg job shows what comes of a preset or an override

{KEYS}"""

_FILE_LOG = {
    "version": 1,
    "formatters": {"simple": {"format": "[%(asctime)s][%(name)s][%(levelname)s] %(message)s"}},
    "handlers": {
        "file": {
            "class": "vgexp.cli.logs.RegularFileHandler",
            "formatter": "simple",
            "filename": "${hydra.runtime.output_dir}/${hydra.job.name}.log",
            "encoding": "utf-8",
        }
    },
    "root": {"level": "INFO", "handlers": ["file"]},
    "disable_existing_loggers": False,
}
_QUIET_LOG = {
    "version": 1,
    "formatters": {"simple": {"format": "[hydra] %(message)s"}},
    "handlers": {
        "console": {
            "class": "logging.StreamHandler",
            "formatter": "simple",
            "stream": "ext://sys.stderr",
        }
    },
    "root": {"level": "WARNING", "handlers": ["console"]},
    "disable_existing_loggers": False,
}


_STORED: dict[str, Any] = {}
"""Verb -> what the store holds of Hydra's own configuration for it, made once a process."""


def register(work: Work) -> None:
    """Puts everything into Hydra's ConfigStore. It may be called again, for another verb."""
    _register_schema()
    store = ConfigStore.instance()
    if work.verb not in _STORED:
        store.store(group="hydra", name="config", node=_hydra(work))
        _STORED[work.verb] = store.repo["hydra"]["config.yaml"]
    store.repo["hydra"]["config.yaml"] = _STORED[work.verb]
    plugins.adjust()
    register_here()


@cache
def _register_schema() -> None:
    """Stores the schema once a process, since Hydra composes copies of it."""
    hydra_internals.share_store()
    store = ConfigStore.instance()
    store.store(name="schema", node=make_schema())
    for group, classes in CHOICES.items():
        for name, cls in classes.items():
            store.store(group=group, name=name, node=cls)
    store.store(group="hydra/job_logging", name="vgexp", node=_FILE_LOG)
    store.store(group="hydra/hydra_logging", name="vgexp", node=_QUIET_LOG)


def register_here() -> None:
    """Registers what another process of a launcher needs as well: the resolver that names folders,
    how a file is read whose choice another one replaces, and how nodes are copied."""
    hydra_internals.trim_sections()
    omegaconf_internals.copy_nodes_directly()
    OmegaConf.register_new_resolver("vgexp_label", _label, use_cache=True, replace=True)


def make_schema() -> DictConfig:
    """Makes a node of `Config` in which each group is missing, until a choice is composed.

    Sections are added as classes. As instances they would have gone through `__post_init__`
    already, and `train.steps` would be 500 before the user could choose `train.epochs`.
    """
    node = OmegaConf.structured(Config)
    for field in dataclasses.fields(Config):
        if field.name in CHOICES:
            node[field.name] = MISSING
        elif dataclasses.is_dataclass(field.default_factory):
            node[field.name] = OmegaConf.structured(field.default_factory)
    assert isinstance(node, DictConfig)
    return node


def _hydra(work: Work) -> HydraConf:
    folder = f"outputs/{work.verb}/{_LABEL}/{_TIME}"
    node = HydraConf(
        run=RunDir(dir=folder),
        sweep=SweepDir(dir=folder, subdir="${hydra.job.num}"),
        job=JobConf(name=work.verb, chdir=False),
        help=HelpConf(app_name=f"vgexp {work.verb}", header=work.help, template=_HELP_TEMPLATE),
        callbacks={"vgexp": {"_target_": "vgexp.cli.callback.FolderCallback"}},
    )
    ours = {"job_logging": "vgexp", "hydra_logging": "vgexp"}
    node.defaults = [
        {key: ours.get(key, value) for key, value in entry.items()} for entry in node.defaults
    ]
    return node


def _label(experiment: Any, model: Any) -> str:
    chosen = experiment or model or "run"
    return chosen if isinstance(chosen, str) else "+".join(map(str, chosen))
