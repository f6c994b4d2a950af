"""Makes runs: from a configuration to a folder of tables, whatever happens on the way."""

from __future__ import annotations

from pathlib import Path

from vgexp import config as configuration
from vgexp import folders, resuming
from vgexp.config import Config
from vgexp.registry import Registry
from vgexp.runs.kind import Kind, Say
from vgexp.runs.past import Run, load
from vgexp.runs.signaling import SIGNAL
from vgexp.runs.start import (
    Display,
    display_of,
    draw_figures,
    free_folder,
    open_run,
    require_same,
    show_remarks,
)
from vgexp.runs.training import TRAINING

KINDS: Registry[Kind] = Registry("verb", {kind.verb: kind for kind in (TRAINING, SIGNAL)})
"""Verb -> the kind of run that it makes."""


def run(
    config: Config,
    folder: Path | str | None = None,
    *,
    command: str = "",
    display: Display | None = None,
) -> Run:
    """Trains what a configuration describes and writes its run folder.

    Ctrl-C, SIGTERM and SIGHUP end it within two steps, the last measured whole, as `interrupted`.
    Figures are drawn where `output.figures` is true. A run whose folder is moved goes on there.

    Args:
        folder: where to; None: outputs/train/<model>/<date_time_microseconds>.
        command: what was typed to get here; the first line of `config.yaml`.
        display: what this call shows; None: what the configuration says.

    Raises:
        QuestionError: an impossible configuration, or a folder that holds a run already.
        OSError: the folder cannot be written; what was recorded before stays.
        LostError: the folder was removed meanwhile.
        KeyboardInterrupt: after the tables and the summary are on disk.
        Exception: the work failed; the summary says `failed`, the tables have what was recorded.
    """
    return _begin(TRAINING, config, folder, command, display)


def signal(
    config: Config,
    folder: Path | str | None = None,
    *,
    command: str = "",
    display: Display | None = None,
) -> Run:
    """Measures what a configuration describes before any training, and writes a run folder.

    Its tables are those of step 0 with one more column, the seed; a row of seed s is the one that
    training with `seed=s` begins with.

    Args:
        folder: where to; None: outputs/signal/<model>/<date_time_microseconds>.
        command: what was typed to get here; the first line of `config.yaml`.
        display: what this call shows; None: what the configuration says.

    Raises:
        QuestionError: an impossible configuration, or a folder that holds a run already.
        OSError: the folder cannot be written.
        Exception: the work failed; the summary says `failed`.
    """
    return _begin(SIGNAL, config, folder, command, display)


def finish(
    config: Config,
    folder: Path | str,
    *,
    verb: str = folders.TRAIN,
    command: str = "",
    display: Display | None = None,
) -> Run:
    """Brings the run of a folder to its end from wherever it is: not begun, cut short, ended.

    Code that the configuration names is executed: who gives it asks for that.

    Args:
        verb: what makes the run where there is none.

    Raises:
        QuestionError: the folder holds a run of another configuration, or what `run` and
            `resume` refuse.
    """
    kind, folder = KINDS[verb], Path(folder)
    folders.require_regular_files(folder)
    if not (folder / folders.CONFIG).exists():
        return _begin(kind, config, folder, command, display)
    config, there = kind.resolve(config), Run(folder).config
    require_same(folder, there, config)
    if there != config and resuming.is_open(folder):
        with folders.occupy(folder):  # another device, say
            folders.write_config(folder, config, command, verb)
    return resume(folder, trust=True, display=display)


def resume(
    folder: Path | str,
    say: Say | None = None,
    *,
    trust: bool = False,
    display: Display | None = None,
) -> Run:
    """Goes on with a run that was interrupted, killed or failed, from its last whole checkpoint.

    Its tables end byte for byte as if nothing had happened, but for `timing.csv`. Rows that came
    after the checkpoint are measured again; without a checkpoint all are. A run that has ended is
    left as it is.

    Args:
        say: is told from where it goes on.
        trust: whether code that the recorded configuration names (`model.target`, ...) may be
            executed.
        display: as `run` takes it.

    Raises:
        QuestionError: there is no run, another process writes it, its checkpoints are those of
            another configuration or version, or it names code and is not trusted.
    """
    folder = Path(folder)
    if not (folder / folders.CONFIG).exists():
        folder = load(folder).folder
    with folders.occupy(folder):
        folders.require_regular_files(folder)
        done = Run(folder)
        if not resuming.is_open(folder):
            return done
        if not trust:
            resuming.require_trust(folder, done.config)
        display = display or display_of(done.config)
        folders.remove_leftovers(folder)
        done = KINDS[folders.verb_of(folder)].go_on(done, display, say or _say_nothing)
    draw_figures(done, is_wanted=display.draws)
    return done


def _begin(
    kind: Kind, config: Config, folder: Path | str | None, command: str, display: Display | None
) -> Run:
    """Makes a run in a new folder."""
    configuration.require(config)
    config = kind.resolve(config)
    folder, display = free_folder(folder, config, kind.verb), display or display_of(config)
    trainer = kind.build(config)
    show_remarks(trainer, display)
    with kind.hold_signals(trainer), open_run(folder, config, command, kind.verb):
        done = kind.make(folder, config, trainer, display)
    draw_figures(done, is_wanted=display.draws)
    return done


def _say_nothing(_: str) -> None:
    """For whoever does not want to be told."""
