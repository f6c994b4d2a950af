"""Making a run: from a configuration to a folder of tables, whatever happens on the way."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vgexp import config as configuration
from vgexp import folders, resuming, summaries
from vgexp.config import Config
from vgexp.errors import LostError, QuestionError, reason
from vgexp.folders import Prefix
from vgexp.interrupts import defer_signals
from vgexp.location import Location
from vgexp.runs import signaling
from vgexp.runs.past import Run, load
from vgexp.runs.predictions import add_predictions, forecast_start
from vgexp.runs.start import (
    Manner,
    assembled,
    begun,
    drawn,
    ending_of,
    free_folder,
    located,
    manner_of,
    remark,
    require_same,
    warn,
)

if TYPE_CHECKING:
    from vgexp.records import Rows
    from vgexp.sinks import Sink
    from vgexp.training import Trainer


def run(
    config: Config,
    folder: Path | str | None = None,
    *,
    command: str = "",
    manner: Manner | None = None,
) -> Run:
    """Trains what a configuration describes and writes its run folder.

    Ctrl-C, SIGTERM and SIGHUP end it within two steps, the last measured whole, as `interrupted`.
    Figures are drawn where `output.figures` is true. A run whose folder is moved goes on there.

    Args:
        folder: where to; None: outputs/train/<model>/<date_time_microseconds>.
        command: what was typed to get here; the first line of `config.yaml`.
        manner: what this call shows; None: what the configuration says.

    Raises:
        QuestionError: an impossible configuration, or a folder that holds a run already.
        OSError: the folder cannot be written; what was recorded before stays.
        LostError: the folder was removed meanwhile.
        KeyboardInterrupt: after the tables and the summary are on disk.
        Exception: the work failed; the summary says `failed`, the tables have what was recorded.
    """
    configuration.require(config)
    folder, manner = free_folder(folder, config, folders.TRAIN), manner or manner_of(config)
    trainer = assembled(config)
    if not manner.is_quiet and (asked := _of_signal(config)):
        warn(f"{asked}: of vgexp signal alone; training takes no notice")
    remark(trainer, manner)
    with defer_signals(trainer.stop), begun(folder, config, command, folders.TRAIN):
        done = _trained(folder, trainer, config, is_quiet=manner.is_quiet)
    drawn(done, is_wanted=manner.draws)
    return done


def _of_signal(config: Config) -> str:
    """Keys that training takes no notice of, where they ask for something."""
    from vgexp import spectra

    names = (*(["critical"] if config.signal.critical else []), *spectra.list_asked(config.signal))
    return ", ".join(f"signal.{name}" for name in names)


def resume(
    folder: Path | str,
    say: Callable[[str], None] | None = None,
    *,
    trust: bool = False,
    manner: Manner | None = None,
) -> Run:
    """Goes on with a run that was interrupted, killed or failed, from its last whole checkpoint.

    Its tables end byte for byte as if nothing had happened, but for `timing.csv`. Rows that came
    after the checkpoint are measured again; without a checkpoint all are. A run that has ended is
    left as it is.

    Args:
        say: is told from where it goes on.
        trust: whether code that the recorded configuration names (`model.target`, ...) may be
            executed.
        manner: as `run` takes it.

    Raises:
        QuestionError: there is no run, another process writes it, its checkpoints are those of
            another configuration or version, or it names code and is not trusted.
    """
    folder = Path(folder)
    if not (folder / folders.CONFIG).exists():
        folder = load(folder).folder
    with folders.occupy(folder):
        folders.require_own(folder)
        done = Run(folder)
        if not resuming.is_open(folder):
            return done
        manner = manner or manner_of(done.config)
        if folders.verb_of(folder) == folders.SIGNAL:
            done = signaling.go_on(folder, trust=trust)
        else:
            if not trust:
                resuming.require_trust(folder, done.config)
            done = _go_on(done, say, manner)
    drawn(done, is_wanted=manner.draws)
    return done


def finish(
    config: Config, folder: Path | str, *, command: str = "", manner: Manner | None = None
) -> Run:
    """Brings the run of a folder to its end from wherever it is: not begun, cut short, ended.

    Code that the configuration names is executed: who gives it asks for that.

    Raises:
        QuestionError: the folder holds a run of another configuration, or what `run` and
            `resume` refuse.
    """
    folder = Path(folder)
    folders.require_own(folder)
    if not (folder / folders.CONFIG).exists():
        return run(config, folder, command=command, manner=manner)
    there = Run(folder).config
    require_same(folder, there, config)
    if there != config and resuming.is_open(folder):
        with folders.occupy(folder):  # another device, say
            folders.write_config(folder, config, command)
    return resume(folder, trust=True, manner=manner)


def _go_on(done: Run, say: Callable[[str], None] | None, manner: Manner) -> Run:
    """Trains from the last whole checkpoint, in an occupied folder."""
    folder, config = done.folder, done.config
    trainer = assembled(config)
    folders.remove_leftovers(folder)
    start = resuming.start_of(
        folder, config, summaries.computed_by(trainer), trainer.tables, trainer.state_dict()
    )
    if say is not None:
        say(start.story)
    _put_back(trainer, start)
    with defer_signals(trainer.stop):
        return _trained(folder, trainer, config, start.prefixes, is_quiet=manner.is_quiet)


def _put_back(trainer: Trainer, start: resuming.Start) -> None:
    """Has the trainer stand where the checkpoint was made."""
    if start.state is None:
        return
    try:
        trainer.load_state_dict(start.state)
    except Exception as error:
        raise QuestionError(
            f"the checkpoint holds the state of something else: {reason(error)}\n"
            "allowed: the checkpoint that this run wrote"
        ) from error
    for path in start.useless:
        path.unlink(missing_ok=True)


def _trained(
    folder: Path,
    trainer: Trainer,
    config: Config,
    prefixes: Mapping[str, Prefix] | None = None,
    *,
    is_quiet: bool,
) -> Run:
    """Trains to the end and writes the summary, whatever the end is.

    Returns:
        The run where it is by then: somebody may have moved its folder.
    """
    with located(folder) as location:
        try:
            _record(location, trainer, config, prefixes, is_quiet=is_quiet)
            done = Run(location.find())
        except BaseException as error:
            with suppress(LostError):
                _write_end(Run(location.find()), config, trainer, error)
            raise
    status = summaries.status_of(trainer)
    folders.write_summary(done.folder, _summary(done, config, trainer, status))
    return done


def _save(location: Location, trainer: Trainer, config: Config, sinks: Sequence[Sink]) -> None:
    """Writes a checkpoint. Where there is no room for one, training goes on without.

    Raises:
        LostError: the folder, or a table in it, was removed.
    """
    from vgexp.checkpoints import UnusableError
    from vgexp.sinks import require_in, settled

    step, state, made_by = trainer.state.step, trainer.state_dict(), summaries.computed_by(trainer)
    tables, folder = settled(sinks), location.find()
    try:
        resuming.save(folder, step, state, config, made_by, tables)
    except (OSError, UnusableError) as error:
        if location.find() != folder:  # moved in the middle of it
            _save(location, trainer, config, sinks)
            return
        require_in(folder, sinks)  # while somebody removes the folder, that ends the run
        warn(f"no checkpoint at step {step}: {error}; training goes on")


def _record(
    location: Location,
    trainer: Trainer,
    config: Config,
    prefixes: Mapping[str, Prefix] | None,
    *,
    is_quiet: bool,
) -> None:
    from vgexp.sinks import SinkContext, open_sinks, require_in, settled

    context = SinkContext(
        location.find(),
        trainer.num_steps,
        is_quiet,
        trainer.tables,
        prefixes,
        trainer.state.step,
    )
    with open_sinks(context) as sinks:
        trainer.save = lambda: _save(location, trainer, config, sinks)
        forecast = forecast_start(config, trainer)
        try:
            for rows in trainer.rows():
                require_in(location.find(), sinks)
                _hand_on(sinks, add_predictions(rows, forecast))
            require_in(location.find(), sinks)
            # The summary that follows says that they are whole, and it outlasts a loss of power.
            settled(sinks)
        except BaseException:
            # What fails here failed already, or follows from it.
            with suppress(Exception):
                for rows in trainer.flush():
                    _hand_on(sinks, add_predictions(rows, forecast))
            raise


def _hand_on(sinks: list[Sink], rows: Rows) -> None:
    for sink in sinks:
        sink(rows)


def _write_end(done: Run, config: Config, trainer: Trainer, error: BaseException) -> None:
    """The summary of a run that was torn off; as much of it as can be told and written."""
    ending = ending_of(error)
    figures: dict[str, Any] = {}
    with suppress(Exception):
        figures = _summary(done, config, trainer, ending["status"])
    with suppress(OSError):
        folders.write_summary(done.folder, {**figures, **ending})


def _summary(done: Run, config: Config, trainer: Trainer, status: str) -> dict[str, Any]:
    tables = {"layers": done.layers, "steps": done.steps, "evals": done.evals}
    tables |= {name: done.table(name) for name in ("time", "curvature") if name in trainer.tables}
    return summaries.summary_of(tables, config, trainer, status)
