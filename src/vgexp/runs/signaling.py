"""Signal propagation at initialisation: networks that differ in their seed, each at its step 0."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vgexp import config as configuration
from vgexp import folders, resuming, summaries
from vgexp.config import Config
from vgexp.errors import LostError
from vgexp.location import Location
from vgexp.quantities import SEED, TABLES
from vgexp.records import Rows
from vgexp.runs.past import Run
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
)

if TYPE_CHECKING:
    from vgexp.sinks.csv_files import CsvFiles
    from vgexp.theory import Forecast
    from vgexp.training import Trainer


def signal(
    config: Config,
    folder: Path | str | None = None,
    *,
    command: str = "",
    manner: Manner | None = None,
) -> Run:
    """Measures what a configuration describes before any training, and writes a run folder.

    Its tables are those of step 0 with one more column, the seed; a row of seed s is the one that
    training with `seed=s` begins with.

    Args:
        folder: where to; None: outputs/signal/<model>/<date_time_microseconds>.
        command: what was typed to get here; the first line of `config.yaml`.
        manner: what this call shows; None: what the configuration says.

    Raises:
        QuestionError: an impossible configuration, or a folder that holds a run already.
        OSError: the folder cannot be written.
        Exception: the work failed; the summary says `failed`.
    """
    configuration.require(config)
    config = _resolved(config)
    folder = free_folder(folder, config, folders.SIGNAL)
    trainer = _required(config)
    manner = manner or manner_of(config)
    remark(trainer, manner)
    with begun(folder, config, command, folders.SIGNAL):
        done = _measured(folder, config, trainer, is_quiet=manner.is_quiet)
    drawn(done, is_wanted=manner.draws)
    return done


def finish_signal(
    config: Config, folder: Path | str, *, command: str = "", manner: Manner | None = None
) -> Run:
    """As `signal`, in a folder where the same may have begun, or have come to its end.

    Raises:
        QuestionError: the folder holds a run of another configuration.
    """
    folder, config = Path(folder), _resolved(config)
    folders.require_own(folder)
    if not (folder / folders.CONFIG).exists():
        return signal(config, folder, command=command, manner=manner)
    require_same(folder, Run(folder).config, config)
    with folders.occupy(folder):
        was_open = resuming.is_open(folder)
        done = go_on(folder, trust=True)
    drawn(done, is_wanted=was_open and (manner or manner_of(config)).draws)
    return done


def go_on(folder: Path, *, trust: bool) -> Run:
    """Measures anew what did not come to its end; in an occupied folder.

    Raises:
        QuestionError: the configuration names code and is not trusted.
    """
    done = Run(folder)
    if not resuming.is_open(folder):
        return done
    if not trust:
        resuming.require_trust(folder, done.config)
    folders.remove_leftovers(folder)
    trainer = _required(done.config)
    for table in _tables(done.config, trainer):
        (folder / f"{table}.csv").unlink(missing_ok=True)
    return _measured(folder, done.config, trainer)


def _resolved(config: Config) -> Config:
    """With the gain that is measured, where theory is to choose it."""
    if not config.signal.critical:
        return config
    from vgexp.assembly.forecasts import set_critical_gain

    return set_critical_gain(config)


def _measured(folder: Path, config: Config, trainer: Trainer, *, is_quiet: bool = True) -> Run:
    start = time.perf_counter()
    with located(folder) as location:
        try:
            theory = _record(location, config, trainer, is_quiet=is_quiet)
            done = Run(location.find())
            figures = _figures(done, trainer, theory)
        except BaseException as error:
            ending = {**ending_of(error), **summaries.of_process(config, trainer)}
            with suppress(LostError):
                folders.write_summary(location.find(), ending)
            raise
    summary = {
        "status": "completed",
        **figures,
        "num_seeds": config.signal.seeds,
        "seconds": round(time.perf_counter() - start, 3),
        **summaries.of_process(config, trainer),
    }
    folders.write_summary(done.folder, summary)
    return done


def _record(
    location: Location, config: Config, trainer: Trainer, *, is_quiet: bool
) -> dict[str, Any]:
    """Writes the tables; returns what theory says for the summary."""
    from vgexp.assembly.forecasts import summarise_forecast
    from vgexp.sinks.csv_files import CsvFiles
    from vgexp.sinks.live import Counting

    tables = _tables(config, trainer)
    columns = {name: (*TABLES[name], SEED) for name in tables}
    files = CsvFiles(location.find(), tables, columns=columns)
    try:
        # Before the step, which moves the weights.
        _write(files, _spectra(config, trainer), config.seed)
        forecast = _start(files, config, trainer, with_critical=True)
        tell = Counting("seed", config.signal.seeds, is_quiet=is_quiet)
        for number in range(1, config.signal.seeds):
            tell(number)
            files.require_in(location.find())
            one = dataclasses.replace(config, seed=config.seed + number)
            # Not named: it is gone before the next one is made.
            _start(files, one, assembled(one))
        files.require_in(location.find())
        files.settle()
        return summarise_forecast(forecast)
    finally:
        files.close()


def _start(
    files: CsvFiles, config: Config, trainer: Trainer, *, with_critical: bool = False
) -> Forecast:
    """Writes step 0 of one network with what theory predicts; returns the forecast."""
    forecast = forecast_start(config, trainer, with_critical=with_critical)
    _write(files, (add_predictions(rows, forecast) for rows in trainer.first_step()), config.seed)
    return forecast


def _write(files: CsvFiles, tables: Iterable[Rows], seed: int) -> None:
    for rows in tables:
        files(Rows(rows.table, {**rows.columns, SEED.name: [seed] * len(rows)}))


def _spectra(config: Config, trainer: Trainer) -> Iterator[Rows]:
    from vgexp import spectra

    state, (batch,) = trainer.state, trainer.state.batches.peek(1)
    return spectra.rows_of(config.signal, state.model, state.loss, batch)


def _required(config: Config) -> Trainer:
    """The first seed's, of which all that is asked for can be measured."""
    trainer = assembled(config)
    from vgexp import spectra

    name = configuration.choice("model", config.model)
    spectra.require(config.signal, trainer.state.model, name)
    return trainer


def _tables(config: Config, trainer: Trainer) -> list[str]:
    from vgexp import spectra

    measured = (name for name in trainer.tables if name not in _OF_TRAINING)
    return [*measured, *spectra.list_asked(config.signal)]


def _figures(done: Run, trainer: Trainer, theory: Mapping[str, Any]) -> dict[str, Any]:
    from vgexp import diagnosis, spectra

    names = {"time"}.intersection(trainer.tables).union(spectra.list_asked(done.config.signal))
    tables = {name: done.table(name) for name in names}
    return diagnosis.summarise_start(done.layers, trainer.num_layers, theory, tables)


_OF_TRAINING = ("steps", "evals", "timing", "pretraining")
"""Tables of what comes after step 0."""
