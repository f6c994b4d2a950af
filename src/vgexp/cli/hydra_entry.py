"""Runs the verbs that take overrides: passes the command line to Hydra, returns an exit code."""

from __future__ import annotations

import argparse
import logging
import os
import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

import hydra.version

from vgexp import __version__, folders, resuming, sweep
from vgexp.cli import error_blocks, hydra_internals, overrides, schema
from vgexp.cli.actions import Work
from vgexp.cli.after_run import close
from vgexp.cli.command_flags import parse_flags
from vgexp.cli.groups import wrap_groups
from vgexp.cli.hydra_errors import translate
from vgexp.cli.interrupts import exit_code
from vgexp.cli.job import Job
from vgexp.cli.listing import find_configs
from vgexp.cli.session import Refused, Session, open_session
from vgexp.errors import QuestionError, printable
from vgexp.sweep import place, plan, plan_file

_VERSION_BASE = "1.3"
_PLACES = ("hydra.run.dir=", "hydra.sweep.dir=", "hydra.sweep.subdir=")
_CAN_SET_MODE = re.compile(r"[+~]*(hydra|experiment)\b|[^=]*@")


def enter(verb: str, argv: Sequence[str]) -> int:
    """Runs `vgexp VERB ARGV...` and returns its exit code.

    Raises:
        QuestionError: an impossible flag, folder or configuration.
    """
    if "--version" in argv:
        print(f"vgexp {__version__}")
        return 0
    full = error_blocks.wants_tracebacks()
    args = parse_flags(argv)
    job = make_job(verb, argv)
    with open_session(Session((verb, *argv))) as opened:
        try:
            compose_and_call(args, job)
        except KeyboardInterrupt as error:
            folder = opened.folder or job.folder
            error_blocks.show_interruption(error, folder, job.format_again())
            return exit_code(error)
        except QuestionError:
            if opened.folder is not None and opened.command not in opened.plan.commands:
                with suppress(QuestionError, OSError):
                    place.withdraw(opened.folder, opened.command)
            raise
        if opened.folder is not None:
            return close_sweep(opened.folder, job)
    if isinstance(job.error, QuestionError):
        return error_blocks.show_question(job.error, full=full)
    if job.error is not None:
        return error_blocks.show_failure(job.error, log=_log_of(job), full=full, folder=job.folder)
    if job.run is not None:
        return close(job.run, job.output, job.work)
    return 0


def make_job(verb: str, argv: Sequence[str]) -> Job:
    """Makes the job of a command line."""
    args = parse_flags(argv)
    is_swept = args.multirun or "hydra.mode=MULTIRUN" in args.overrides
    command = shlex.join(["vgexp", verb, *argv])
    return Job(verb, command, _flags_of_config(args), [] if is_swept else ["hydra.mode=RUN"])


def compose_and_call(args: argparse.Namespace, job: Job) -> None:
    """Passes the command line to Hydra, which calls the job or prints what a flag asks for.

    Raises:
        QuestionError: Hydra refused it, or the folder is in use.
    """
    for folder in (args.config_dir, args.config_path):
        if folder and args.config_name in (None, "config", folders.CONFIG):
            folders.refuse_guest(Path(folder))
    schema.register(job.work)
    sets_no_mode = _sets_no_mode(args)
    args.overrides, job.swept = _rewrite(args, job.work)
    first = find_configs()
    if args.config_dir and not args.config_path:
        # Hydra searches the task's own folder first, so the two change places.
        first, args.config_dir = _own_folder(args.config_dir), str(first)
    hydra.version.setbase(_VERSION_BASE)
    try:
        shown = wrap_groups() if args.help else nullcontext()
        # To complete a line Hydra makes its parser once more.
        completed = hydra_internals.allow_lazy_help() if args.shell_completion else nullcontext()
        with _make_hydra_raise(), _restore_logging(), shown, completed:
            hydra_internals.run(args, job, first, schema.PRIMARY, sets_no_mode=sets_no_mode)
    except SystemExit as error:
        # After --help and --hydra-help; a message or a code above 0 is a refusal.
        if error.code not in (None, 0):
            raise QuestionError(f"hydra refused: {error.code}") from None
    except Refused as refused:
        raise refused.error from None
    except BrokenPipeError:
        raise
    except Exception as error:
        question = translate(error)
        if question is None:
            raise
        raise question from error


def config_folders(args: argparse.Namespace) -> list[Path]:
    """The folders that Hydra searches, in order: the user's comes before vgexp's."""
    given = [Path(args.config_dir)] if args.config_dir else []
    return [Path(args.config_path), *given] if args.config_path else [*given, find_configs()]


def spell_words(args: argparse.Namespace, words: Sequence[str]) -> list[str]:
    """Spells `experiment` in overrides as the primary config needs it."""
    name = args.config_name or schema.PRIMARY
    return overrides.spell_experiment(
        words, listed=overrides.lists_experiment(config_folders(args), name)
    )


def place_sweep(folder: Path) -> str:
    """The override that sets the folder of a sweep."""
    return overrides.assign("hydra.sweep.dir", str(folder))


def _sets_no_mode(args: argparse.Namespace) -> bool:
    """Whether only the flags can ask for a sweep.

    A preset that speaks of Hydra or of another preset can, a configuration of the user's, and an
    override of Hydra's own keys.
    """
    if args.config_dir or args.config_path or args.config_name:
        return False
    return all(
        word.startswith(_PLACES) or not _CAN_SET_MODE.match(word) or _names_single_run(word)
        for word in args.overrides
    )


def _names_single_run(word: str) -> bool:
    """Whether an override names a packaged preset that sets nothing of Hydra's own."""
    named = re.fullmatch(r"\+experiment=([\w/]+)", word)
    path = find_configs() / "experiment" / f"{named.group(1)}.yaml" if named else None
    if path is None or not path.is_file():
        return False
    lines = path.read_text(encoding="utf-8").splitlines()
    return not any(re.search("hydra|experiment", line.partition("#")[0]) for line in lines)


def _own_folder(given: str) -> Path:
    folder = Path(given).absolute()
    if not folder.is_dir():
        raise QuestionError(
            f"--config-dir {str(folder)!r} not found\nallowed: a folder that exists"
        )
    return folder


def _refuse_sweep(verb: str, declared: Sequence[str] | None) -> None:
    """Refuses a sweep for a verb that takes one configuration."""
    one = "one configuration, without -m"
    if declared is not None:
        values = " ".join(each.partition(",")[0] for each in declared)
        one = f"one of its jobs: hydra.mode=RUN {values}"
    raise QuestionError(
        f"vgexp {verb} takes one configuration, and this is a sweep\nallowed: {one}"
    )


def _rewrite(args: argparse.Namespace, work: Work) -> tuple[list[str], frozenset[str]]:
    """Rewrites the overrides for Hydra. Returns them, and the keys that they sweep over."""
    if args.shell_completion:
        return list(args.overrides), frozenset()
    words = spell_words(args, args.overrides)
    if "hydra.mode=RUN" in words:
        return words, frozenset()
    declared = overrides.preset_sweep(words, config_folders(args))
    is_sweep = args.multirun or declared is not None or "hydra.mode=MULTIRUN" in words
    if is_sweep and not work.makes_run:
        _refuse_sweep(work.verb, declared)
    overrides.require_possible(words, is_sweep=is_sweep)
    if not is_sweep:
        return words, frozenset()
    declared = declared or []
    try:
        return overrides.defer(words, declared), overrides.find_swept([*declared, *words])
    except Exception as error:
        question = translate(error)
        if question is None:
            raise
        raise question from error


def _log_of(job: Job) -> Path | None:
    """The log with the traceback; None where it could not be written."""
    log = job.folder / f"{job.work.verb}.log" if job.folder else None
    return log if log and log.is_file() and log.stat().st_size else None


def close_sweep(folder: Path, job: Job) -> int:
    """Prints the results of a sweep, and how to continue it where jobs failed or did not end."""
    rows = sweep.read(folder)
    known = plan_file.read(folder) or plan.Plan()
    if not known.entries:
        raise QuestionError(
            "the sweep has no job: a key is swept over no value\n"
            "allowed: at least one value for each key"
        )
    statuses = {row["job"]: row["status"] for row in rows}
    jobs = {str(entry.job): folder / entry.folder for entry in known.entries}
    failed = [job for job in jobs if statuses.get(job) == sweep.FAILED]
    left = [
        at for job, at in jobs.items() if statuses.get(job) not in (*resuming.ENDED, sweep.FAILED)
    ]
    elsewhere = sum(folders.is_occupied(at) for at in left)
    num_open = len(left) - elsewhere
    total = f"{len(known.entries)} job{'s' if len(known.entries) != 1 else ''}"
    print(printable(f"{total}, {len(failed)} failed: {folder / sweep.FILE}"))
    print(printable(shlex.join(["vgexp", "compare", str(folder)])), flush=True)
    again = error_blocks.format_resume(folder)
    if elsewhere:
        error_blocks.show(
            error_blocks.format_block(f"{elsewhere} of {total} are being run by another process")
        )
    if num_open:
        error_blocks.show(
            error_blocks.format_block(f"{num_open} of {total} did not end", f"go on: {again}")
        )
    if failed:
        error_blocks.show(
            error_blocks.format_block(
                f"{len(failed)} of {total} failed: {', '.join(failed)}",
                f"once more: {again} --failed",
            )
        )
    return 1 if failed or left or job.error is not None else 0


def _flags_of_config(args: argparse.Namespace) -> list[str]:
    words: list[str] = []
    for flag in ("config_path", "config_dir", "config_name"):
        value = getattr(args, flag)
        words += [f"--{flag.replace('_', '-')}", value] if value else []
    return words


@contextmanager
def _make_hydra_raise() -> Iterator[None]:
    """Has Hydra raise errors within; by itself it prints them and exits with 1."""
    before = os.environ.get(error_blocks.FULL_ERROR)
    os.environ[error_blocks.FULL_ERROR] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[error_blocks.FULL_ERROR]
        else:
            os.environ[error_blocks.FULL_ERROR] = before


@contextmanager
def _restore_logging() -> Iterator[None]:
    """At the end, closes the log files that Hydra opened and restores the caller's handlers.

    Within, a log that cannot be written is no error and prints no traceback.
    """
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    complains, logging.raiseExceptions = logging.raiseExceptions, False
    try:
        yield
    finally:
        logging.raiseExceptions = complains
        for handler in root.handlers:
            if handler not in handlers:
                with suppress(OSError):
                    handler.close()
        root.handlers[:] = handlers
        root.setLevel(level)
        sys.stdout.flush()
