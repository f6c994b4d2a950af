"""The verbs that take overrides, `train`, `signal`, `fix`, and what each does with a config."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vgexp import folders
from vgexp.config import Config
from vgexp.errors import QuestionError, unknown

if TYPE_CHECKING:
    from vgexp.fixing import Cure
    from vgexp.runs import Display, Run


@dataclass(frozen=True)
class Work:
    """What one verb does, where verbs that take overrides differ."""

    verb: str
    help: str
    """The beginning of its `--help` page."""
    begin: Callable[[Config, Path, str], Any]
    """Does the work in a new folder; the last argument is the command. Draws no figures.

    Returns a `Run`, or, of a work that makes several, their result, which has a `folder` too.
    """
    finish: Callable[[Config, Path, str], Run]
    """Completes the work of a sweep's job, which may have begun already, here or elsewhere. Prints
    nothing, and draws figures only where the user asks for them: a sweep may have hundreds."""
    close: Callable[[Any], None]
    """Prints the results of what `begin` returned."""
    makes_run: bool = True
    """Whether the folder becomes a run's. Otherwise runs are in folders below it, the same command
    goes on in it, and there is no sweep of it."""
    exit_code: Callable[[Any], int] = lambda _: 0
    """Of what `begin` returned."""


def find_work(verb: str) -> Work:
    """Returns the work of a verb.

    Raises:
        QuestionError: no such verb.
    """
    if verb not in WORKS:
        raise unknown("verb with overrides", verb, WORKS)
    return WORKS[verb]


def _alone(config: Config) -> Display:
    from vgexp import runs

    return runs.Display(config.output.quiet, draws=False)


def _one_of_many(config: Config) -> Display:
    from vgexp import runs

    return runs.Display(True, draws=bool(config.output.figures), remarks=False)


def _train(config: Config, folder: Path, command: str) -> Run:
    from vgexp import runs

    return runs.run(config, folder, command=command, display=_alone(config))


def _finish_training(config: Config, folder: Path, command: str) -> Run:
    from vgexp import runs

    return runs.finish(config, folder, command=command, display=_one_of_many(config))


def _close_training(done: Run) -> None:
    from vgexp.cli.screen import Screen
    from vgexp.report.terminal.closing import show_closing

    show_closing(Screen(), done.folder, done.summary, done.layers, list_files(done.folder))


def _signal(config: Config, folder: Path, command: str) -> Run:
    from vgexp import runs

    return runs.signal(config, folder, command=command, display=_alone(config))


def _finish_signal(config: Config, folder: Path, command: str) -> Run:
    from vgexp import runs

    return runs.finish(
        config, folder, verb=folders.SIGNAL, command=command, display=_one_of_many(config)
    )


def _close_signal(done: Run) -> None:
    from vgexp.cli.screen import Screen
    from vgexp.report.terminal.at_start import show_closing

    show_closing(Screen(), done.folder, done.summary, done.layers, list_files(done.folder))


def _fix(config: Config, folder: Path, command: str) -> Cure:
    from vgexp.cli import fix

    return fix.search(config, folder, command)


def _refuse_sweep(config: Config, folder: Path, command: str) -> Run:
    del config, folder
    raise QuestionError(f"{command}: no job of a sweep\nallowed: one configuration")


def _close_fix(cure: Cure) -> None:
    from vgexp.cli import fix

    fix.close(cure)


def list_files(folder: Path) -> list[Path | str]:
    """Lists the files of a run folder that are not empty: tables, other files, figures."""
    files = [path for path in folder.iterdir() if path.is_file() and path.stat().st_size]
    num_figures = len(list(folder.glob("figures/*.png")))
    figures = [f"figures ({num_figures} of them)"] if num_figures else []
    return [*sorted(files, key=lambda path: (path.suffix != ".csv", path.name)), *figures]


_FLAGS = """\
flags
  -m, --multirun         sweep over values with commas
  -c, --cfg job          print the configuration instead of running
  -i, --info [WHAT]      how it was composed
  -cd, --config-dir DIR  add a folder of configurations
  -cn, --config-name N   start from N.yaml: a run's own is `config`
  hydra.run.dir=DIR      where the run goes; hydra.sweep.dir=DIR for a sweep
  --hydra-help           the rest
"""

WORKS: Mapping[str, Work] = {
    "train": Work(
        "train",
        f"""\
vgexp train [flags] [overrides]
  builds the model, trains it, writes one run folder

  vgexp train +experiment=sigmoid_deep        a preset
  vgexp train model.depth=50 optimizer=adam   keys and groups
  vgexp train -m model.depth=5,10 seed=1,2    a sweep: every combination

{_FLAGS}""",
        _train,
        _finish_training,
        _close_training,
    ),
    "signal": Work(
        "signal",
        f"""\
vgexp signal [flags] [overrides]
  signal propagation at initialisation, measured over seeds and predicted

  vgexp signal +experiment=sigmoid_deep       a preset, not trained
  vgexp signal model.depth=50 model.gain=1.5 signal.seeds=20
  vgexp signal -m model.gain=0.5,1,2 model.depth=10,30    a phase diagram

{_FLAGS}""",
        _signal,
        _finish_signal,
        _close_signal,
    ),
    "fix": Work(
        "fix",
        f"""\
vgexp fix [flags] [overrides]
vgexp fix RUN [overrides]
  finds the smallest override that cures a sick configuration: diagnoses it,
  tries what may cure the cause in short probes, confirms the best at full
  length over seeds, and shows the proof; exit code 3 where nothing cures

  vgexp fix +experiment=sigmoid_deep
  vgexp fix +experiment=sigmoid_deep fix.keep=[model.activation,model.depth]
  vgexp fix outputs/train/mlp/2026-01-01_12-00-00_000000    a run of yours
  the same command with hydra.run.dir=DIR goes on with what was interrupted

{_FLAGS}""",
        _fix,
        _refuse_sweep,
        _close_fix,
        makes_run=False,
        exit_code=lambda cure: cure.exit_code,
    ),
}
"""Verb -> its work."""
