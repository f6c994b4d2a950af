"""`vgexp fix`: what the verb takes, and how it composes overrides of the sick configuration."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vgexp import folders
from vgexp.cli.command_flags import parse_flags
from vgexp.cli.one_run import find_one_run
from vgexp.config import Config
from vgexp.diagnosis.commands import keep_words
from vgexp.errors import QuestionError, printable
from vgexp.past import PastRun

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from vgexp.fixing import Cure

VERB = "fix"
_OF_THE_SEARCH = ("fix.", "hydra.", "output.")
"""Beginnings of words that are no part of the sick configuration."""
_QUIET = "output.quiet"
_ONE_KEPT = re.compile(r"(\+{0,2}fix\.keep=)([\w.]+(?:,[\w.]+)*)")
"""`fix.keep=model.skip`, or several with commas, of which Hydra would make a text, or a sweep."""


def rewrite(argv: Sequence[str]) -> list[str]:
    """Writes what is typed behind `vgexp fix` in Hydra's words.

    A run's folder becomes the flags that take its configuration, and keys of `fix.keep` a list.

    Raises:
        QuestionError: there is no run, there are several, it is named beside a configuration, or it
            has none.
    """
    return [_list_kept(word) for word in _replace_run(argv)]


def _list_kept(word: str) -> str:
    found = _ONE_KEPT.fullmatch(word)
    return word if found is None or found[2] == "null" else f"{found[1]}[{found[2]}]"


def _replace_run(argv: Sequence[str]) -> list[str]:
    args = parse_flags(argv)
    named = [word for word in args.overrides if "=" not in word and not word.startswith("~")]
    named += [word for word in args.overrides if "=" in word and Path(word).is_dir()]
    if not named:
        return list(argv)
    if len(named) > 1 or args.config_dir or args.config_name:
        raise QuestionError(
            f"one configuration at a time, and not {' and '.join(named)}"
            "\nallowed: vgexp fix RUN, or vgexp fix OVERRIDES"
        )
    run = find_one_run(named[0], "vgexp", VERB)
    _require_configuration(run)
    rest = list(argv)
    del rest[_place_of(named[0], rest)]
    return [*_flags_of(run), *_loud(run, rest), *rest]


def _require_configuration(run: Path) -> None:
    """Requires that a run says what it was made with.

    Raises:
        QuestionError: it is of somebody's own loop, or has no configuration, or one that cannot be
            read.
    """
    if folders.is_guest(run):
        raise QuestionError(
            f"{run} is a run of a training loop outside of vgexp: there is no configuration, and so"
            " no override to try\n"
            f"allowed: {shlex.join(['vgexp', 'diagnose', str(run)])}, which says what to change in"
            " the code"
        )
    if not folders.exists_config(run):
        raise QuestionError(
            f"{run} has no {folders.CONFIG}, so that nobody knows what was trained\n"
            "allowed: a run folder with its configuration, or vgexp fix OVERRIDES"
        )
    PastRun(run, is_strict=False).require_config()


def require_same_search(composed: DictConfig, folder: Path) -> None:
    """Refuses a folder that holds a search for a cure of another configuration.

    Args:
        composed: with Hydra's own section.

    Raises:
        QuestionError: it does, or the configuration is impossible.
    """
    from vgexp.fixing import record

    if not (folder / record.RESULT).is_file():
        return
    from vgexp.cli.composing import remove_hydra
    from vgexp.cli.typed_config import to_config

    record.read_earlier(folder, to_config(remove_hydra(composed)))


def search(config: Config, folder: Path, command: str) -> Cure:
    """Searches for a cure of what was composed, and says what it does."""
    from hydra.core.hydra_config import HydraConfig

    from vgexp.fixing import fix

    master: Any = HydraConfig.instance().cfg  # a DictConfig, though Hydra calls it a HydraConf
    words = [str(word) for word in HydraConfig.get().overrides.task]
    args = parse_flags(shlex.split(command)[2:])
    run = None
    if args.config_dir and args.config_name == "config":
        is_run = folders.exists_config(Path(args.config_dir))
        run = Path(args.config_dir) if is_run else None
    return fix(
        config,
        folder,
        compose=make_composer(master, words),
        command=_train_command(command, run, words),
        own_run=None if run is None or not (run / folders.SUMMARY).exists() else run,
        say=_be_silent if config.output.quiet else _say,
    )


def make_composer(master: DictConfig, words: Sequence[str]) -> Callable[[Sequence[str]], Config]:
    """Returns what composes the command's own words with further ones, as Hydra would.

    Args:
        master: the composed configuration, with Hydra's own section.
        words: the overrides of the command.
    """
    from hydra.core.global_hydra import GlobalHydra

    from vgexp.cli.composing import Composer
    from vgexp.cli.hydra_errors import translate
    from vgexp.cli.typed_config import to_config

    composer = Composer(GlobalHydra.instance().config_loader(), master)

    def compose(override: Sequence[str]) -> Config:
        try:
            with composer.compose([*keep_words(words, override), *override], 0) as composed:
                return to_config(composed)
        except Exception as error:
            raise translate(error) or error from error

    return compose


def close(cure: Cure) -> None:
    """Prints the result, and draws the picture."""
    from vgexp.cli.fix_page import show
    from vgexp.cli.screen import Screen

    show(Screen(), cure)


def _train_command(command: str, run: Path | None, words: Sequence[str]) -> list[str]:
    """The words that train the sick configuration, as somebody types them."""
    if run is not None:
        from vgexp.past.diagnosing import command_of

        recorded = list(command_of(PastRun(run, is_strict=False)))
        typed = [word for word in words if not word.startswith(_OF_THE_SEARCH)]
        return [*keep_words(recorded, typed), *typed]
    _, _, *rest = shlex.split(command)
    typed = [word for word in rest if not word.lstrip("+").startswith(_OF_THE_SEARCH)]
    return ["vgexp", folders.TRAIN, *typed]


def _flags_of(run: Path) -> list[str]:
    return ["--config-dir", str(run), "--config-name", "config"]


def _place_of(run: str, argv: Sequence[str]) -> int:
    """Where the run stands among the words; a flag's value may be the same word."""
    places = [place for place, word in enumerate(argv) if word == run]
    for place in places[:-1]:
        with suppress(QuestionError):
            args = parse_flags([*argv[:place], *argv[place + 1 :]])
            if run not in args.overrides:
                return place
    return places[-1]


def _loud(run: Path, words: Sequence[str]) -> list[str]:
    """The word that shows what the search does, where only the run was to be quiet."""
    config = PastRun(run, is_strict=False).config
    is_quiet = config is not None and config.output.quiet
    is_asked = any(word.lstrip("+").startswith(f"{_QUIET}=") for word in words)
    return [f"{_QUIET}=false"] if is_quiet and not is_asked else []


def _say(line: str) -> None:
    print(printable(line), flush=True)


def _be_silent(_: str) -> None:
    """For `output.quiet`."""
