"""Composes the configurations of a sweep's jobs as Hydra does, and what they share only once.

Hydra first composes the choices of groups, then applies the values in their order. The first takes
nearly all of the time, and most jobs of a sweep share it. So it is kept, and Hydra's own function
applies each job's values to a copy. Where that function is gone, each job is composed as a whole.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from itertools import compress
from typing import Any, final

from hydra.core.config_loader import ConfigLoader
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from vgexp.cli import hydra_internals
from vgexp.cli.hydra_internals import Parts

_MOST_KEPT = 64
"""The most compositions that are kept."""
_INTERPOLATION = "${"


@dataclass(frozen=True)
class _Common:
    """The configuration that jobs of the same choices have in common."""

    whole: DictConfig
    """With Hydra's own section."""
    task: DictConfig
    """Without Hydra's own section."""
    is_literal: bool
    """Whether no value refers to another, and so none to Hydra's section."""


class Composer:
    """Composes the jobs of one sweep.

    Args:
        master: the configuration of the sweep itself.
    """

    def __init__(self, loader: ConfigLoader, master: DictConfig) -> None:
        self._loader, self._master = loader, master
        self._parse = lru_cache(maxsize=4096)(self._parse_one)
        self._common = lru_cache(maxsize=_MOST_KEPT)(self._compose_common)
        self._parts = hydra_internals.find_parts(loader, master)

    @contextmanager
    def compose(
        self, words: Sequence[str], number: int, *, with_hydra: bool = False
    ) -> Iterator[DictConfig]:
        """Composes a job's configuration as Hydra will for the job; `${hydra:...}` works within.

        Args:
            with_hydra: whether to set `HydraConfig` to the job's, whatever its values are.
        """
        overrides, values, common = self._read(words)
        task = self._with_values(common.task, values)
        if not with_hydra and common.is_literal and not any(_INTERPOLATION in w for w in words):
            yield task
            return
        whole = self._with_values(common.whole, values)
        self._note(whole, overrides, number)
        before = HydraConfig.instance().cfg
        HydraConfig.instance().set_config(whole)
        try:
            yield task
        finally:
            HydraConfig.instance().cfg = before

    def compose_to_run(
        self, words: Sequence[str], number: int, places: Sequence[str]
    ) -> DictConfig:
        """Composes the whole of a job's configuration, as a launcher gives it to Hydra's `run_job`.

        Args:
            places: values of Hydra's own section that say where the job runs.
        """
        if self._parts is None:
            return self._loader.load_sweep_config(self._master, [*words, *places])
        overrides, values, common = self._read(words)
        whole = self._with_values(common.whole, values)
        self._note(whole, overrides, number)
        with read_write(whole.hydra), open_dict(whole.hydra):
            self._parts.apply_values([self._parse(word) for word in places], whole)
            whole.hydra.overrides.hydra.extend(places)
        return whole

    def _read(self, words: Sequence[str]) -> tuple[list[Override], list[Override], _Common]:
        """A job's overrides, those of them that set values, and what the others compose."""
        overrides = [self._parse(word) for word in words]
        is_value = [self._parts is not None and _sets_a_value(o, self._parts) for o in overrides]
        common = self._common(tuple(w for w, v in zip(words, is_value, strict=True) if not v))
        return overrides, list(compress(overrides, is_value)), common

    def _parse_one(self, word: str) -> Override:
        return OverridesParser.create().parse_overrides([word])[0]

    def _compose_common(self, words: tuple[str, ...]) -> _Common:
        whole = self._loader.load_sweep_config(self._master, list(words))
        task = remove_hydra(whole)
        return _Common(whole, task, _INTERPOLATION not in OmegaConf.to_yaml(task))

    def _with_values(self, config: DictConfig, values: list[Override]) -> DictConfig:
        changed = copy.deepcopy(config)
        if self._parts is not None:
            self._parts.apply_values(values, changed)
        return changed

    def _note(self, whole: DictConfig, overrides: Sequence[Override], number: int) -> None:
        """Writes into Hydra's section which job it is, as Hydra does once values are applied."""
        with read_write(whole.hydra), open_dict(whole.hydra):
            whole.hydra.job.num = whole.hydra.job.id = number
            if self._parts is None:  # all overrides were composed, which notes the rest
                return
            ours = [override for override in overrides if not override.is_hydra_override()]
            dirname = whole.hydra.job.config.override_dirname
            whole.hydra.overrides.task = [override.input_line for override in ours]
            whole.hydra.job.override_dirname = self._parts.make_dirname(
                overrides=ours,
                kv_sep=dirname.kv_sep,
                item_sep=dirname.item_sep,
                exclude_keys=dirname.exclude_keys,
            )


@final
class SharingLoader:
    """Hydra's loader for a launcher that composes each job as it starts it: by a `Composer`.

    Args:
        composer: makes it, once a job is to be composed.
        num_places: how many words at the end of each job say where it runs.
    """

    def __init__(
        self, loader: ConfigLoader, composer: Callable[[], Composer], num_places: int
    ) -> None:
        self._loader, self._composer, self._num_places = loader, composer, num_places

    def load_sweep_config(self, _master: DictConfig, words: Sequence[str]) -> DictConfig:
        """As `ConfigLoader` has it; the launcher writes the job's number into it."""
        end = len(words) - self._num_places
        return self._composer().compose_to_run(words[:end], 0, words[end:])

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)


def remove_hydra(whole: DictConfig) -> DictConfig:
    """A copy without Hydra's own section."""
    task = copy.deepcopy(whole)
    with read_write(task), open_dict(task):
        del task["hydra"]
    return task


def _sets_a_value(override: Override, parts: Parts) -> bool:
    """Whether an override sets a value and chooses nothing, as Hydra's `Overrides` decides it."""
    if override.is_hydra_override() or override.is_sweep_override():
        return False
    if override.package is not None:
        return False
    return isinstance(override.value(), dict) or not parts.is_group(override.key_or_group)
