"""The private names of Hydra that vgexp uses: why each is used, and what happens where it is gone.

vgexp asks for one minor version of Hydra (`hydra-core<1.4`). Still, somebody may install another
one: then a sweep is composed in a slower way, or an error says which version is needed.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from types import MethodType
from typing import Any, cast

import hydra
from hydra.core.config_loader import ConfigLoader
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from vgexp.cli import omegaconf_internals
from vgexp.config import CHOICES, is_key_of
from vgexp.errors import QuestionError

GRID = "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"
"""What a configuration calls Hydra's own sweeper, the one that tries every combination."""

_BASIC = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"
_UTILS = "hydra._internal.utils"
_LOADER = "hydra._internal.config_loader_impl"
_MAIN = "hydra._internal.hydra"
_DEFAULTS = "hydra._internal.defaults_list"
_LIST_CHOICES = "_create_interpolation_map"
_CHECK_HELP = "_check_help"
_COMPOSE = "_compose_config_from_defaults_list"


def run(
    args: argparse.Namespace,
    task: Callable[..., Any],
    folder: Path,
    name: str,
    *,
    sets_no_mode: bool = False,
) -> None:
    """Has Hydra compose the configuration `name` of a folder and call the task with it.

    `hydra.main` does the same with `sys.argv`, which a function that is given a command line must
    not change.

    Args:
        sets_no_mode: nothing that is composed sets `hydra.mode`, so that the flags alone say
            whether this is a sweep. Hydra would compose everything once more to find that out.

    Raises:
        QuestionError: the installed version of Hydra has no such function.
    """
    without_mode = _without_mode() if sets_no_mode else nullcontext()
    with without_mode, _without_needless_choices(), omegaconf_internals.parse_texts_once():
        _require(_UTILS, "_run_hydra")(
            args=args,
            args_parser=make_parser(),
            task_function=task,
            config_path=str(folder),
            config_name=name,
        )


@contextmanager
def _without_mode() -> Iterator[None]:
    """Within, Hydra finds no `hydra.mode` and composes nothing to look for it.

    Hydra itself finds none where a configuration sets none. Where Hydra has no such function,
    nothing is changed.
    """
    cls = _find(_MAIN, "Hydra")
    get_mode = getattr(cls, "get_mode", None)
    if get_mode is None:
        yield
        return

    def find_none(*_: Any, **__: Any) -> None:
        return None

    cls.get_mode = find_none
    try:
        yield
    finally:
        cls.get_mode = get_mode


@contextmanager
def _without_needless_choices() -> Iterator[None]:
    """Within, Hydra lists the choices so far only for defaults lists that refer to choices.

    It makes a configuration of them for each file of the tree, and looks into it where an entry
    has an interpolation. Where Hydra has no such function, nothing is changed.
    """
    module = import_module(_DEFAULTS)
    list_choices = getattr(module, _LIST_CHOICES, None)
    if list_choices is None:
        yield
        return

    def list_needed(overrides: Any, defaults: Sequence[Any], *rest: Any) -> Any:
        values = (str(value) for default in defaults for value in vars(default).values())
        if any("${" in value for value in values):
            return list_choices(overrides, defaults, *rest)
        return OmegaConf.create()

    setattr(module, _LIST_CHOICES, list_needed)
    try:
        yield
    finally:
        setattr(module, _LIST_CHOICES, list_choices)


def make_parser() -> argparse.ArgumentParser:
    """The parser of Hydra's own flags and of overrides. Hydra has no public one.

    Raises:
        QuestionError: the installed version of Hydra has no such function.
    """
    with allow_lazy_help():
        return cast(argparse.ArgumentParser, _require(_UTILS, "get_args_parser")())


@contextmanager
def allow_lazy_help() -> Iterator[None]:
    """Within, argparse accepts a help that is no text; it checks texts as before.

    From Python 3.14 on argparse formats the help of a flag as the flag is added. Hydra 1.3 has one
    help that becomes text only when it is shown (`LazyCompletionHelp`), which argparse then
    refuses: "badly formed help string". Hydra shows it without argparse. Where argparse has no such
    check, as before Python 3.14, nothing is changed.
    """
    container: Any = getattr(argparse, "_ActionsContainer", None)
    check = getattr(container, _CHECK_HELP, None)
    if check is None:
        yield
        return

    def check_text(self: Any, action: argparse.Action) -> None:
        if isinstance(action.help, str):
            check(self, action)

    setattr(container, _CHECK_HELP, check_text)
    try:
        yield
    finally:
        setattr(container, _CHECK_HELP, check)


def find_grid() -> type[Any] | None:
    """The class of Hydra's own sweeper; None where there is none of this name.

    To be called once Hydra has searched for plugins, since the search makes the class anew.
    """
    module, _, name = GRID.rpartition(".")
    return cast("type[Any] | None", _find(module, name))


def runs_jobs_itself(launcher: object) -> bool:
    """Whether a launcher is Hydra's own, which runs jobs one after another in this process."""
    found = type(launcher)
    return f"{found.__module__}.{found.__qualname__}" == _BASIC


@dataclass(frozen=True)
class Parts:
    """The functions of which Hydra composes a configuration.

    Hydra's public functions do all of it at once. So what many jobs have in common would be
    composed for each of them, which takes far longer.
    """

    apply_values: Callable[[list[Override], DictConfig], None]
    """Applies overrides of values to a configuration."""
    make_dirname: Callable[..., str]
    """Makes `hydra.job.override_dirname` of overrides."""
    is_group: Callable[[str], bool]
    """Says whether there is a group of this name."""


def find_parts(loader: ConfigLoader, master: DictConfig) -> Parts | None:
    """The functions of which Hydra composes a sweep's jobs; None where one of them is gone.

    Args:
        master: the configuration of the sweep itself.
    """
    apply_values = getattr(_find(_LOADER, "ConfigLoaderImpl"), "_apply_overrides_to_config", None)
    make_dirname = _find(_LOADER, "get_overrides_dirname")
    make_repository = getattr(loader, "_parse_overrides_and_create_caching_repo", None)
    if apply_values is None or make_dirname is None or make_repository is None:
        return None
    # Not resolved: a word may hold an interpolation.
    words = cast(list[str], OmegaConf.to_container(master.hydra.overrides.hydra))
    _, repository = make_repository(master.hydra.job.config_name, words)
    return Parts(apply_values, make_dirname, repository.group_exists)


def share_store() -> None:
    """Makes a deep copy of Hydra's store the store itself.

    Hydra copies its repository, with everything stored, for each composition, and about 90 times
    to list the options of groups for `--help`. It needs a list of sources of its own, but never
    changes what is stored: `ConfigStore.load` returns a copy. A store that says itself how it is
    copied is left alone.
    """
    if not hasattr(ConfigStore, "__deepcopy__"):

        def return_itself(store: ConfigStore, memo: dict[int, Any]) -> ConfigStore:
            del memo
            return store

        ConfigStore.__deepcopy__ = return_itself  # type: ignore[attr-defined]


def trim_sections() -> None:
    """Has Hydra leave out of a file the keys of a choice that another one replaces.

    A run's `config.yaml` chooses `model: rnn` and has all of its keys, `model.activation` too. With
    `model=lstm` typed behind it, Hydra would refuse a key that nobody typed. Hydra has no public
    place for that. Where it has no such function, it refuses as before.
    """
    cls = _find(_LOADER, "ConfigLoaderImpl")
    compose = getattr(cls, _COMPOSE, None)
    if compose is None or isinstance(compose, _Composing):
        return
    setattr(cls, _COMPOSE, _Composing(compose))


class _Composing:
    """Hydra's function that merges files, with `_TrimmingRepository` for its repository."""

    def __init__(self, compose: Callable[..., Any]) -> None:
        self._compose = compose

    def __get__(self, loader: Any, owner: type) -> Any:
        return self if loader is None else MethodType(self, loader)

    def __call__(self, loader: Any, defaults: list[Any], repo: Any) -> Any:
        paths = [str(default.config_path).partition("/") for default in defaults]
        chosen = {group: name for group, _, name in paths if name in CHOICES.get(group, ())}
        return self._compose(loader, defaults=defaults, repo=_TrimmingRepository(repo, chosen))


class _TrimmingRepository:
    """A repository whose files lack the keys of choices that others replace.

    Args:
        chosen: group -> the choice that is composed.
    """

    def __init__(self, repository: Any, chosen: Mapping[str, str]) -> None:
        self._repository, self._chosen = repository, chosen

    def load_config(self, config_path: str) -> Any:
        """As Hydra's repository has it."""
        loaded = self._repository.load_config(config_path=config_path)
        if loaded is None or not isinstance(loaded.config, DictConfig):
            return loaded
        foreign = []
        for entry in loaded.defaults_list or ():
            group, name = str(getattr(entry, "group", "")).lstrip("/"), getattr(entry, "value", "")
            new, section = self._chosen.get(group, name), loaded.config.get(group)
            if new == name or name not in CHOICES.get(group, ()):
                continue
            foreign += [
                (group, key)
                for key in (section if isinstance(section, DictConfig) else ())
                if is_key_of(str(key), group, name) and not is_key_of(str(key), group, new)
            ]
        if not foreign:
            return loaded
        config = copy.deepcopy(loaded.config)
        with read_write(config), open_dict(config):
            for group, key in foreign:
                del config[group][key]
        return replace(loaded, config=config)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._repository, name)


def _find(module: str, name: str) -> Any:
    """A name of a module; None where either is gone."""
    try:
        return getattr(import_module(module), name, None)
    except ImportError:
        return None


def _require(module: str, name: str) -> Any:
    found = _find(module, name)
    if found is None:
        raise QuestionError(
            f"Hydra {hydra.__version__} has no {module}.{name}, which vgexp needs\n"
            "allowed: pip install 'hydra-core>=1.3.2,<1.4'"
        )
    return found
