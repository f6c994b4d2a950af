"""Signal propagation at initialisation: networks that differ in their seed, each at its step 0."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vgexp import config as configuration
from vgexp import folders, summaries
from vgexp.config import Config
from vgexp.errors import LostError
from vgexp.location import Location
from vgexp.quantities import LATER_TABLES, SEED, TABLES
from vgexp.records import Rows
from vgexp.runs.kind import Kind, Say
from vgexp.runs.past import Run
from vgexp.runs.predictions import add_predictions, predict_start
from vgexp.runs.start import Display, build_trainer, ending_of, locate, warn

if TYPE_CHECKING:
    from vgexp.sinks import Sinks
    from vgexp.theory import Forecast
    from vgexp.training import Trainer


def _go_on(done: Run, display: Display, _: Say) -> Run:
    """Measures everything again; without progress, for it takes seconds."""
    folder, config = done.folder, done.config
    trainer = _build(config)
    for table in _tables(config, trainer):
        (folder / f"{table}.csv").unlink(missing_ok=True)
    return _measure(folder, config, trainer, dataclasses.replace(display, is_quiet=True))


def _resolve(config: Config) -> Config:
    """Sets the gain that is measured, where theory is to choose it (`signal.critical`)."""
    if not config.signal.critical:
        return config
    from vgexp.assembly.forecasts import set_critical_gain

    return set_critical_gain(config)


def _measure(folder: Path, config: Config, trainer: Trainer, display: Display) -> Run:
    """Measures every seed and writes the summary, whatever the end is."""
    start = time.perf_counter()
    with locate(folder) as location:
        try:
            theory = _record(location, config, trainer, is_quiet=display.is_quiet)
            done = Run(location.find())
            metrics = _metrics(done, trainer, theory)
        except BaseException as error:
            ending = {**ending_of(error), **summaries.of_process(config, trainer)}
            with suppress(LostError):
                folders.write_summary(location.find(), ending)
            raise
    summary = {
        "status": "completed",
        **metrics,
        "num_seeds": config.signal.seeds,
        "seconds": round(time.perf_counter() - start, 3),
        **summaries.of_process(config, trainer),
    }
    folders.write_summary(done.folder, summary)
    return done


def _record(
    location: Location, config: Config, trainer: Trainer, *, is_quiet: bool
) -> dict[str, Any]:
    """Measures each seed and hands its rows to the sinks; returns what a summary says of theory."""
    from vgexp.assembly.forecasts import summarise_forecast
    from vgexp.report.terminal.live import Counting
    from vgexp.sinks import SinkContext, open_sinks

    columns = {name: (*TABLES[name], SEED) for name in _tables(config, trainer)}
    context = SinkContext(location.find(), columns, config)
    with open_sinks(context, warn) as sinks:
        # Before the step, which moves the weights.
        _hand_on(sinks, _spectra(config, trainer), config.seed)
        forecast = _start(sinks, config, trainer, with_critical=True)
        count = Counting("seed", config.signal.seeds, is_quiet=is_quiet)
        for number in range(1, config.signal.seeds):
            count(number)
            sinks.require_in(location.find())
            one = dataclasses.replace(config, seed=config.seed + number)
            # Not named: it is gone before the next one is made.
            _start(sinks, one, build_trainer(one))
        sinks.require_in(location.find())
        sinks.settle()
        return summarise_forecast(forecast)


def _start(
    sinks: Sinks, config: Config, trainer: Trainer, *, with_critical: bool = False
) -> Forecast:
    """Hands on the rows of one network's step 0 with theory's columns; returns the forecast."""
    forecast = predict_start(config, trainer, with_critical=with_critical)
    _hand_on(sinks, (add_predictions(rows, forecast) for rows in trainer.first_step()), config.seed)
    return forecast


def _hand_on(sinks: Sinks, tables: Iterable[Rows], seed: int) -> None:
    for rows in tables:
        sinks(Rows(rows.table, {**rows.columns, SEED.name: [seed] * len(rows)}))


def _spectra(config: Config, trainer: Trainer) -> Iterator[Rows]:
    from vgexp import spectra

    state, (batch,) = trainer.state, trainer.state.batches.peek(1)
    return spectra.rows_of(config.signal, state.model, state.loss, batch)


def _build(config: Config) -> Trainer:
    """Builds the network of the first seed; refuses one that lacks what is to be measured."""
    trainer = build_trainer(config)
    from vgexp import spectra

    name = configuration.choice("model", config.model)
    spectra.require(config.signal, trainer.state.model, name)
    return trainer


def _tables(config: Config, trainer: Trainer) -> list[str]:
    from vgexp import spectra

    measured = (name for name in trainer.facts.tables if name not in _OF_TRAINING)
    return [*measured, *spectra.list_asked(config.signal)]


def _metrics(done: Run, trainer: Trainer, theory: Mapping[str, Any]) -> dict[str, Any]:
    from vgexp import diagnosis, spectra

    names = {"time"}.intersection(trainer.facts.tables).union(
        spectra.list_asked(done.config.signal)
    )
    tables = {name: done.table(name) for name in names}
    return diagnosis.summarise_start(done.layers, trainer.facts.num_layers, theory, tables)


_OF_TRAINING = ("steps", "evals", "timing", "pretraining", "flight", *LATER_TABLES)
"""Tables of what comes after step 0, and of what an optimizer does."""

SIGNAL = Kind(
    folders.SIGNAL,
    resolve=_resolve,
    build=_build,
    hold_signals=lambda _: nullcontext(),
    make=_measure,
    go_on=_go_on,
)
"""`vgexp signal`."""
