"""Configurations of a sweep's jobs as Hydra composes them, what jobs have in common composed once.

Hydra first composes the choices of groups, then applies the values in their order. The first
takes nearly all of the time, and most jobs of a sweep share it: it is kept, and Hydra's own
function applies each job's values to a copy.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import cast

from hydra._internal.config_loader_impl import ConfigLoaderImpl, get_overrides_dirname
from hydra.core.config_loader import ConfigLoader
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

_MOST_KEPT = 64
"""Compositions of choices that are kept; a sweep over more has them composed again."""
_INTERPOLATION = "${"


@dataclass(frozen=True)
class _Common:
    """What jobs of the same choices have in common."""

    whole: DictConfig
    """With Hydra's own part."""
    task: DictConfig
    """Without."""
    is_literal: bool
    """Whether no value refers to another, and so none to Hydra's part."""


class Composer:
    """Composes the jobs of one sweep.

    Args:
        master: the configuration of the sweep itself.
    """

    def __init__(self, loader: ConfigLoader, master: DictConfig) -> None:
        assert isinstance(loader, ConfigLoaderImpl)
        self._loader, self._master = loader, master
        self._parse = lru_cache(maxsize=4096)(self._parsed)
        self._common = lru_cache(maxsize=_MOST_KEPT)(self._composed_of)
        # Not resolved: a word may hold an interpolation.
        words = cast(list[str], OmegaConf.to_container(master.hydra.overrides.hydra))
        _, self._repo = loader._parse_overrides_and_create_caching_repo(
            master.hydra.job.config_name, words
        )

    @contextmanager
    def composed(
        self, words: Sequence[str], number: int, *, with_hydra: bool = False
    ) -> Iterator[DictConfig]:
        """A job's configuration as Hydra will give it to the job; `${hydra:...}` works within.

        Args:
            with_hydra: whether `HydraConfig` is to be the job's within, whatever its values are.
        """
        overrides = [self._parse(word) for word in words]
        is_own = [self._sets_a_value(override) for override in overrides]
        common = self._common(tuple(w for w, own in zip(words, is_own, strict=True) if not own))
        values = [o for o, own in zip(overrides, is_own, strict=True) if own]
        task = _with_values(common.task, values)
        if not with_hydra and common.is_literal and not any(_INTERPOLATION in w for w in words):
            yield task
            return
        whole = _with_values(common.whole, values)
        _note(whole, overrides, number)
        before = HydraConfig.instance().cfg
        HydraConfig.instance().set_config(whole)
        try:
            yield task
        finally:
            HydraConfig.instance().cfg = before

    def _parsed(self, word: str) -> Override:
        return OverridesParser.create().parse_overrides([word])[0]

    def _sets_a_value(self, override: Override) -> bool:
        """Whether it has no part in what is composed, as Hydra's `Overrides` decides it."""
        if override.is_hydra_override() or override.is_sweep_override():
            return False
        if override.package is not None:
            return False
        return isinstance(override.value(), dict) or not self._repo.group_exists(
            override.key_or_group
        )

    def _composed_of(self, words: tuple[str, ...]) -> _Common:
        whole = self._loader.load_sweep_config(self._master, list(words))
        task = _without_hydra(whole)
        return _Common(whole, task, _INTERPOLATION not in OmegaConf.to_yaml(task))


def _with_values(config: DictConfig, values: list[Override]) -> DictConfig:
    own = copy.deepcopy(config)
    ConfigLoaderImpl._apply_overrides_to_config(values, own)
    return own


def _without_hydra(whole: DictConfig) -> DictConfig:
    task = copy.deepcopy(whole)
    with read_write(task), open_dict(task):
        del task["hydra"]
    return task


def _note(whole: DictConfig, overrides: Sequence[Override], number: int) -> None:
    """Has Hydra's part say which job it is, as Hydra does once values are applied."""
    ours = [override for override in overrides if not override.is_hydra_override()]
    dirname = whole.hydra.job.config.override_dirname
    with read_write(whole.hydra), open_dict(whole.hydra):
        whole.hydra.overrides.task = [override.input_line for override in ours]
        whole.hydra.job.num = whole.hydra.job.id = number
        whole.hydra.job.override_dirname = get_overrides_dirname(
            overrides=ours,
            kv_sep=dirname.kv_sep,
            item_sep=dirname.item_sep,
            exclude_keys=dirname.exclude_keys,
        )
