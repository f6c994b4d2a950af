"""Training: every step's rows to the sinks, checkpoints between steps, the summary at the end."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, closing, suppress
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from vgexp import folders, resuming, summaries
from vgexp.config import Config
from vgexp.errors import LostError, QuestionError, reason
from vgexp.folders import Prefix
from vgexp.interrupts import hold_signals
from vgexp.location import Location
from vgexp.quantities import TABLES
from vgexp.records import Rows
from vgexp.runs.kind import Kind, Say
from vgexp.runs.past import Run
from vgexp.runs.predictions import add_predictions, predict_start
from vgexp.runs.start import Display, build_trainer, ending_of, locate, warn

if TYPE_CHECKING:
    from vgexp.sinks import Sinks
    from vgexp.training import Trainer


def _keys_of_signal(config: Config) -> str:
    """Keys that training takes no notice of, where they ask for something."""
    from vgexp import spectra

    names = (*(["critical"] if config.signal.critical else []), *spectra.list_asked(config.signal))
    return ", ".join(f"signal.{name}" for name in names)


def _go_on(done: Run, display: Display, say: Say) -> Run:
    """Trains from the last whole checkpoint."""
    folder, config = done.folder, done.config
    trainer = build_trainer(config)
    made_by, tables = summaries.computed_by(trainer), trainer.facts.tables
    start = resuming.start_of(folder, config, made_by, tables, trainer.state_dict())
    say(start.story)
    _load_checkpoint(trainer, start)
    with _hold_signals(trainer):
        return _train(folder, config, trainer, display, start.prefixes)


def _hold_signals(trainer: Trainer) -> AbstractContextManager[None]:
    """Ends training after the current step, within, when a signal comes."""
    return hold_signals(trainer.stop)


def _load_checkpoint(trainer: Trainer, start: resuming.Start) -> None:
    """Puts the trainer where it was when the checkpoint was made."""
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


def _make(folder: Path, config: Config, trainer: Trainer, display: Display) -> Run:
    """Trains from the beginning."""
    if not display.is_quiet and (asked := _keys_of_signal(config)):
        warn(f"{asked}: of vgexp signal alone; training takes no notice")
    return _train(folder, config, trainer, display)


def _train(
    folder: Path,
    config: Config,
    trainer: Trainer,
    display: Display,
    prefixes: Mapping[str, Prefix] = MappingProxyType({}),
) -> Run:
    """Trains to the end and writes the summary, whatever the end is.

    Returns:
        The run where it is by then: somebody may have moved its folder.
    """
    with locate(folder) as location:
        try:
            _record(location, trainer, config, prefixes, is_quiet=display.is_quiet)
            done = Run(location.find())
        except BaseException as error:
            with suppress(LostError):
                _write_end(Run(location.find()), config, trainer, error)
            raise
    status = summaries.status_of(trainer)
    folders.write_summary(done.folder, _summary(done, config, trainer, status))
    return done


def _save(location: Location, trainer: Trainer, config: Config, sinks: Sinks) -> None:
    """Writes a checkpoint. Where there is no room for one, training goes on without.

    Raises:
        LostError: the folder, or a table in it, was removed.
    """
    from vgexp.checkpoints import UnusableError

    step, state, made_by = trainer.state.step, trainer.state_dict(), summaries.computed_by(trainer)
    tables, folder = sinks.settle(), location.find()
    try:
        resuming.save(folder, step, state, config, made_by, tables)
    except (OSError, UnusableError) as error:
        if location.find() != folder:  # moved in the middle of it
            _save(location, trainer, config, sinks)
            return
        sinks.require_in(folder)  # while somebody removes the folder, that ends the run
        warn(f"no checkpoint at step {step}: {error}; training goes on")


def _record(
    location: Location,
    trainer: Trainer,
    config: Config,
    prefixes: Mapping[str, Prefix],
    *,
    is_quiet: bool,
) -> None:
    """Trains, and hands every row to the sinks and to the live display."""
    from vgexp.report.terminal.live import Live
    from vgexp.sinks import SinkContext, open_sinks

    facts, first_step = trainer.facts, trainer.state.step
    columns = {table: TABLES[table] for table in facts.tables}
    context = SinkContext(location.find(), columns, config, first_step, prefixes)
    with (
        open_sinks(context, warn) as sinks,
        closing(Live(facts.num_steps, is_quiet, first_step)) as live,
    ):
        forecast = predict_start(config, trainer)

        def hand_on(measured: Rows) -> None:
            rows = add_predictions(measured, forecast)
            sinks(rows)
            live(rows)

        try:
            for rows in trainer.rows(lambda: _save(location, trainer, config, sinks)):
                sinks.require_in(location.find())
                hand_on(rows)
            sinks.require_in(location.find())
            # The summary that follows says that they are whole, and it outlasts a loss of power.
            sinks.settle()
        except BaseException:
            # What fails here failed already, or follows from it.
            with suppress(Exception):
                for rows in trainer.flush():
                    hand_on(rows)
            raise


def _write_end(done: Run, config: Config, trainer: Trainer, error: BaseException) -> None:
    """The summary of a run that was torn off; as much of it as can be told and written."""
    ending = ending_of(error)
    metrics: dict[str, Any] = {}
    with suppress(Exception):
        metrics = _summary(done, config, trainer, ending["status"])
    with suppress(OSError):
        folders.write_summary(done.folder, {**metrics, **ending})


_ALSO_READ = ("time", "curvature", "wiring", "loss", "parameters")
"""Tables that metrics or rules are made of, where the run has them."""


def _summary(done: Run, config: Config, trainer: Trainer, status: str) -> dict[str, Any]:
    tables = {"layers": done.layers, "steps": done.steps, "evals": done.evals}
    also = [name for name in _ALSO_READ if name in trainer.facts.tables]
    tables |= {name: done.table(name) for name in also}
    return summaries.summary_of(tables, config, trainer, status)


TRAINING = Kind(
    folders.TRAIN,
    resolve=lambda config: config,
    build=build_trainer,
    hold_signals=_hold_signals,
    make=_make,
    go_on=_go_on,
)
"""`vgexp train`."""
