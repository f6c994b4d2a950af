"""`vgexp resume`: continues a run or a sweep that did not end."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from vgexp.cli import error_blocks, notice
from vgexp.cli.interrupts import exit_code
from vgexp.cli.loading import load_torch
from vgexp.cli.logs import RegularFileHandler
from vgexp.config import targets
from vgexp.errors import QuestionError, printable
from vgexp.location import Location
from vgexp.resuming import TRUST

DESCRIPTION = "Continues a run or a sweep that was cut short. Its results stay the same."

LOG = "train.log"
LINE = "[%(asctime)s][%(name)s][%(levelname)s] - %(message)s"
"""A line of the log, as Hydra writes it."""
_log = logging.getLogger("vgexp")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the verb's arguments."""
    parser.add_argument("path", metavar="RUN_OR_SWEEP", help="the folder of a run or of a sweep")
    parser.add_argument(
        "overrides",
        nargs="*",
        default=[],  # without it argparse calls them required
        metavar="hydra/launcher=NAME",
        help="for a sweep: its launcher, and hydra.launcher.KEY=VALUE (default: as before)",
    )
    parser.add_argument(
        "--failed", action="store_true", help="for a sweep: run failed jobs again, too"
    )
    parser.add_argument(
        TRUST, action="store_true", help="allow recorded code (model.target, ...) to run"
    )


def main(args: argparse.Namespace) -> int:
    """Continues a run or a sweep. Returns 0 when the run, or every job of the sweep, has ended.

    Raises:
        QuestionError: there is no such run, or it cannot be continued.
    """
    with notice.show_starting([]):
        return _resume(args)


def _resume(args: argparse.Namespace) -> int:
    if _is_sweep(Path(args.path)):
        from vgexp.cli import resume_sweep

        return resume_sweep.resume(
            Path(args.path), args.overrides, retries_failed=args.failed, trusts=args.trust
        )
    if args.overrides or args.failed:
        asked = [*args.overrides, *(["--failed"] if args.failed else [])]
        raise QuestionError(
            f"{args.path} is no sweep, and a run goes on as it is: {' '.join(asked)}\n"
            "allowed: vgexp resume RUN"
        )
    folder = _run_folder(args.path)
    try:
        return _run(folder, trusts=args.trust)
    finally:
        _tell_sweep(folder)


def _run(folder: Path, *, trusts: bool) -> int:
    from vgexp import folders, resuming, runs
    from vgexp.cli.actions import find_work
    from vgexp.cli.after_run import close

    full = error_blocks.wants_tracebacks()
    folders.require_regular_files(folder)
    if not resuming.is_open(folder):
        notice.take_back()
        print(printable(f"{folder} has ended: {runs.load(folder).summary['status']}"))
        return 0
    with Location(folder) as location:
        try:
            with _log_errors(folder):
                config = runs.Run(folder).config
                output = config.output
                if trusts or not targets(config):
                    load_torch(is_quiet=output.quiet)
                display = runs.Display(output.quiet, draws=False)
                done = runs.resume(folder, _say, trust=trusts, display=display)
        except KeyboardInterrupt as error:
            error_blocks.show_interruption(error, location.find_if_there())
            return exit_code(error)
        except QuestionError:
            raise
        except Exception as error:
            now = location.find_if_there()
            if now is None:
                return error_blocks.show_failure(error, full=full)
            with suppress(OSError, ValueError):
                runs.write_failure(now, None, error)
            told = now / LOG if _holds(now / LOG) else None
            return error_blocks.show_failure(error, log=told, full=full, folder=now)
    return close(done, output, find_work(folders.verb_of(done.folder)))


def _say(story: str) -> None:
    print(printable(story), file=sys.stderr)


def _is_sweep(folder: Path) -> bool:
    from vgexp import files, folders, sweep
    from vgexp.sweep import plan

    if files.exists(folder / folders.CONFIG):
        return False
    return any(files.exists(folder / name) for name in (plan.FILE, sweep.FILE))


def _tell_sweep(run: Path) -> None:
    """Updates the row of `sweep.csv` of a run that is one of a sweep's jobs."""
    from vgexp.sweep import place

    with suppress(QuestionError):
        found = place.record_of(run)
        if found is not None:
            from vgexp.cli.job_rows import record_endings

            record_endings(*found)


def _holds(log: Path) -> bool:
    return log.is_file() and log.stat().st_size > 0


def _run_folder(path: str) -> Path:
    from vgexp import folders, resuming, tables

    if (Path(path) / folders.CONFIG).is_file():
        return Path(path)
    found = tables.find_runs([path])
    if found == [Path(path)]:
        return found[0]
    still_open = [folder for folder in found if resuming.is_open(folder)]
    named = list(filter(_can_go_on, dict.fromkeys(map(_sweep_or_run, found))))
    shown = [f"  {error_blocks.format_resume(folder)}" for folder in named[:6]]
    more = [f"  and {len(named) - 6} more"] if len(named) > 6 else []
    raise QuestionError(
        f"{path} holds {len(found)} runs, {len(still_open)} to go on with\n"
        "allowed: one run, or one sweep\n" + "\n".join([*shown, *more])
    )


def _sweep_or_run(run: Path) -> Path:
    """The folder of the sweep that a run is a job of, or else the run's."""
    return next((folder for folder in run.parents if _is_sweep(folder)), run)


def _can_go_on(folder: Path) -> bool:
    """Whether a run, or a job of a sweep, has not ended; True where a plan cannot be read."""
    from vgexp import resuming
    from vgexp.sweep import plan_file

    if not _is_sweep(folder):
        return resuming.is_open(folder)
    with suppress(QuestionError):
        known = plan_file.read(folder)
        return known is not None and any(
            resuming.is_open(folder / entry.folder) for entry in known.entries
        )
    return True


@contextmanager
def _log_errors(folder: Path) -> Iterator[None]:
    """Within, adds tracebacks of errors to the run's log."""
    handler = RegularFileHandler(folder / LOG, encoding="utf-8", delay=True)
    handler.setFormatter(logging.Formatter(LINE))
    _log.addHandler(handler)
    complains, logging.raiseExceptions = logging.raiseExceptions, False
    try:
        yield
    except QuestionError:
        raise
    except Exception as error:
        with suppress(OSError, QuestionError):
            _log.error("the job failed", exc_info=error)
        raise
    finally:
        logging.raiseExceptions = complains
        _log.removeHandler(handler)
        with suppress(OSError):
            handler.close()
