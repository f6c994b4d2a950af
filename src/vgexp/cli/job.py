"""The function that Hydra calls for a single run and for each job of a sweep."""

from __future__ import annotations

import dataclasses
import logging
import os
import shlex
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from vgexp import folders, resuming, sweep
from vgexp.cli import error_blocks, overrides, schema
from vgexp.cli.actions import WORKS, Work, find_work
from vgexp.cli.interrupts import raise_on_signals
from vgexp.cli.job_rows import add_ending, list_override_keys
from vgexp.cli.loading import load_torch
from vgexp.cli.session import Refused
from vgexp.cli.typed_config import to_config
from vgexp.config import Config, OutputConfig
from vgexp.errors import LostError, QuestionError, reason
from vgexp.location import Location
from vgexp.origin import origin, set_origin
from vgexp.sweep import plan, plan_file

if TYPE_CHECKING:
    from vgexp.runs import Run

_log = logging.getLogger("vgexp")
ELSEWHERE = "being run by another process"


class Job:
    """Runs a composed configuration when it is called, and remembers how the last one ended."""

    def __init__(
        self, verb: str, command: str, flags: Sequence[str], mode: Sequence[str] = ()
    ) -> None:
        self.verb = verb
        self.command = command
        self.flags = list(flags)
        self.mode = list(mode)
        """Words that make a single run of a job whose preset declares a sweep."""
        self.swept: frozenset[str] = frozenset()
        """The keys that differ from job to job of a sweep."""
        self.folder: Path | None = None
        self.error: Exception | None = None
        self.run: Run | None = None
        """The single run that ended well."""
        self.output = OutputConfig()
        """What the run shows."""
        self._unwritten: list[sweep.JobRow] = []
        self._pid = os.getpid()
        self.told: set[str] = set()
        """Numbers of the jobs that ran in this process, which prints their lines itself."""

    @property
    def work(self) -> Work:
        """The work of the verb."""
        return find_work(self.verb)

    def format_again(self) -> str | None:
        """The command that goes on in the folder; None for a run, which `vgexp resume` takes."""
        if self.work.makes_run or self.folder is None:
            return None
        place = shlex.quote(f"hydra.run.dir={self.folder}")
        return self.command if "hydra.run.dir=" in self.command else f"{self.command} {place}"

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restores the job in another process, where Hydra has to resolve folder names as well."""
        self.__dict__.update(state)
        schema.register_here()

    def __call__(self, composed: DictConfig) -> float | None:
        """Runs a composed configuration. Returns the objective, for a sweeper that searches."""
        hydra = HydraConfig.get()
        if not hydra.job.chdir:
            return self._run_in_folder(hydra, composed)
        here = Path(hydra.runtime.cwd)
        with set_origin(here):
            told = self._run_in_folder(hydra, composed)
        # Hydra goes back to where the command was typed.
        self.folder = self.folder and short(self.folder, here)
        self.run = self.run and dataclasses.replace(self.run, folder=short(self.run.folder, here))
        return told

    def _run_in_folder(self, hydra: Any, composed: DictConfig) -> float | None:
        folder = Path(hydra.runtime.output_dir)
        # Where Hydra changed the current folder, only the whole name still leads there.
        self.folder = folder if hydra.job.chdir else short(folder, origin())
        if hydra.mode != RunMode.MULTIRUN:
            self._run_alone(composed)
            return None
        with raise_on_signals():  # also in a launcher's other process
            return self._run_in_sweep(hydra)

    def _run_alone(self, composed: DictConfig) -> None:
        assert self.folder is not None
        config = None
        with Location(self.folder) as location:
            try:
                config = to_config(composed)
                load_torch(is_quiet=config.output.quiet)
                done = self.work.begin(config, self.folder, self.command)
                self.run, self.output = done, config.output
            except QuestionError as error:
                self.error = error
                _remove_unused(self.folder)
            except KeyboardInterrupt:
                self.folder = location.find_if_there()
                if self.folder is not None:
                    _remove_unused(self.folder)
                raise
            except Exception as error:
                self.error, self.folder = error, location.find_if_there()
                if self.folder is not None and self.work.makes_run:
                    _record_failure(self.folder, config, error, self.verb)
                else:
                    _log.error("the work failed", exc_info=error)

    def _run_in_sweep(self, hydra: Any) -> float | None:
        assert self.folder is not None
        place = Path(str(hydra.sweep.dir))
        _require_sweep(place, self.folder)
        entry, keys = _entry_of(place, Path(hydra.runtime.output_dir))
        row = sweep.JobRow(entry.job, sweep.FAILED, overrides.read_values(entry.overrides))
        self.told.add(str(entry.job))
        config = None
        try:
            config = entry.config
            # One line is enough where many processes share a terminal.
            load_torch(is_quiet=config.output.quiet or os.getpid() != self._pid)
            done = self.work.finish(config, self.folder, self._own_command(entry.overrides))
            row = add_ending(row, done.summary)
        except folders.OccupiedError:
            row = dataclasses.replace(row, status=ELSEWHERE)
        except Exception as error:
            if not isinstance(error, LostError):
                _record_failure(self.folder, config, error, self.verb)
            row = dataclasses.replace(row, reason=reason(error))
        except BaseException:
            row = add_ending(
                row, {"status": resuming.INTERRUPTED, **folders.summary_of(self.folder)}
            )
            raise
        finally:
            _require_sweep(place, self.folder)
            if row.status != ELSEWHERE:
                self._record(place, row, keys)
            if os.getpid() == self._pid:
                tell(row, entry.overrides, self.swept)
        return objective(folders.summary_of(self.folder), config)

    def _own_command(self, typed: Sequence[str]) -> str:
        """The command that runs this job alone."""
        return shlex.join(["vgexp", self.verb, *self.flags, *typed, *self.mode])

    def _record(self, folder: Path, row: sweep.JobRow, keys: Sequence[str]) -> None:
        self._unwritten.append(row)
        try:
            sweep.record(folder, self._unwritten, keys)
            self._unwritten.clear()
        except OSError as error:
            # Tried again with the next job's row; the job's own folder has its metrics.
            self.error = error
            error_blocks.show(
                error_blocks.format_block(
                    f"job {row.job} is not in {folder / sweep.FILE}", str(error)
                )
            )


def objective(summary: Mapping[str, Any], config: Config | None) -> float | None:
    """The number of a summary by which a sweeper searches; None where there is none."""
    value = None if config is None else summary.get(config.run.objective)
    return float(value) if isinstance(value, (int, float)) else None


def _require_sweep(place: Path, folder: Path) -> None:
    """Ends a sweep whose folder was removed or moved while its jobs ran.

    Raises:
        Refused: it was. The records of a job are in the job's own folder, wherever that is now.
    """
    if (place / plan.FILE).is_file():
        return
    if folder.is_dir():
        _remove_unused(folder)
    with suppress(OSError):
        place.rmdir()
    lines = [
        f"the sweep's folder {short(place, origin())} was removed or moved while its jobs ran",
        "if it was moved, go on: vgexp resume ITS_NEW_NAME",
    ]
    raise Refused(LostError("\n".join(lines))) from None


def _entry_of(place: Path, folder: Path) -> tuple[plan.Entry, list[str]]:
    """The plan's entry of a folder, and the keys that the sweep's jobs override."""
    known = plan_file.read(place)
    assert known is not None
    # Not resolved: a job's folder may be a link to another disk.
    entry = known.entry_in(Path(os.path.relpath(folder, place)).as_posix())
    assert entry is not None
    return entry, list_override_keys(known.entries)


def _record_failure(folder: Path, config: Config | None, error: Exception, verb: str) -> None:
    """Writes the traceback into the job's log and `failed` into its summary, if possible."""
    from vgexp import runs

    _log.error("the job failed", exc_info=error)
    # Where nothing can be written (a full disk), the error itself is all there is to say.
    with suppress(OSError, ValueError):
        for handler in logging.getLogger().handlers:
            handler.flush()
    with suppress(OSError, ValueError):
        runs.write_failure(folder, config, error, verb)


def tell(row: sweep.JobRow, typed: Sequence[str], swept: Collection[str]) -> None:
    """Prints a line that says how a job ended.

    Where the line cannot be written (`| head`, a full disk, a closed terminal), the sweep goes on:
    the job's row in `sweep.csv` says the same.
    """
    from vgexp.cli import progress
    from vgexp.cli.screen import Screen

    with suppress(OSError):
        print(progress.format_line(row, typed, swept, Screen().width), flush=True)


def _remove_unused(folder: Path) -> None:
    """Removes what Hydra wrote for a run that could not begin, if the folder holds nothing else."""
    # Where another process has begun a run there meanwhile, it is that one's.
    with suppress(folders.OccupiedError), folders.occupy(folder):
        logs, settings = [folder / f"{verb}.log" for verb in WORKS], folder / ".hydra"
        if {path.name for path in folder.iterdir()} - {settings.name, *(log.name for log in logs)}:
            return
        for log in logs:
            if log.exists() and not log.stat().st_size:
                log.unlink()
        for path in settings.glob("*.yaml"):
            path.unlink()
        for empty in (settings, folder):
            if empty.is_dir() and not any(empty.iterdir()):
                empty.rmdir()


def short(folder: Path, here: Path) -> Path:
    """The folder, relative to the current one where it lies within."""
    return folder.relative_to(here) if folder.is_relative_to(here) else folder
