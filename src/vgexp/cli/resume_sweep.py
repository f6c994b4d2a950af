"""`vgexp resume SWEEP`: runs the jobs of a sweep's plan that have not ended.

A plan may come from somebody else, so only harmless parts of it are repeated: jobs by their
recorded values, the launcher by its name and numbers. Commands that could execute code are shown,
and the user may type them. Code that recorded values name (`model.target`, ...) is executed only
where the user trusts it.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from vgexp import folders, resuming
from vgexp.cli import error_blocks, hydra_entry
from vgexp.cli.actions import WORKS, find_work
from vgexp.cli.command_flags import parse_flags
from vgexp.cli.interrupts import exit_code
from vgexp.cli.job import Job
from vgexp.cli.listing import list_experiments
from vgexp.cli.session import Session, open_session
from vgexp.config import CHOICES, TARGETS, sections
from vgexp.errors import QuestionError
from vgexp.sweep import place, plan, plan_file

_LAUNCHER = re.compile(
    r"hydra/launcher=(basic|joblib|submitit_local|submitit_slurm)"
    r"|hydra\.launcher\.(n_jobs|timeout_min|cpus_per_task|gpus_per_node|mem_gb|partition|account"
    r"|qos|array_parallelism)=[\w.-]+"
)
_SWEEPER = re.compile(
    r"hydra/sweeper=(basic|optuna)|hydra/sweeper/sampler=\w+"
    r"|hydra\.sweeper\.(n_trials|n_jobs|max_batch_size|max_failure_rate|direction|sampler\.seed)"
    r"=[\w.-]+|hydra\.sweep\.(dir|subdir)=[^\n]*|hydra\.mode=MULTIRUN"
)
_KEY = re.compile(rf"\+?({'|'.join(sections())})(\.\w+)+=[^\n]*|(seed|device|dtype)=[^\n]*")
_PLAIN = re.compile(r"[\w,\[\]]*")
"""Names of vgexp's own entries, which have no dot."""
_FLAGS = ("-m", "--multirun")
_ABOUT_LAUNCHERS = re.compile(r"hydra[/.]launcher\b")


def resume(folder: Path, typed: Sequence[str], *, retries_failed: bool, trusts: bool) -> int:
    """Runs every job of the sweep that has not ended. Returns the exit code.

    Args:
        typed: Hydra's overrides about launchers; others come from the sweep's own command.
        trusts: whether code that was recorded may be executed.

    Raises:
        QuestionError: no plan, overrides that are about something else, or a job that names code
            and is not trusted.
    """
    known = place.admit(folder)
    if known is None or not (known.entries or known.pending):
        raise QuestionError(
            f"{folder} holds no job of a sweep\n"
            "allowed: the folder of a sweep; or type its command again"
        )
    for word in typed:
        if not _ABOUT_LAUNCHERS.match(word):
            raise QuestionError(
                f"{word!r} cannot be changed: jobs go on as they were asked for\n"
                "allowed: hydra/launcher=NAME, hydra.launcher.KEY=VALUE"
            )
    if not trusts:
        _require_no_code(folder, known, retries_failed)
    place.keep(folder, known)
    command = known.commands[-1] if known.commands else ("train", "-m")
    job = _job_of(command)
    words = [
        "-m",
        hydra_entry.place_sweep(folder),
        "hydra.output_subdir=null",
        *_launcher(command, typed),
    ]
    with open_session(Session(command, replays=True, retries_failed=retries_failed)):
        try:
            hydra_entry.compose_and_call(parse_flags(words), job)
        except KeyboardInterrupt as error:
            error_blocks.show_interruption(error, folder)
            return exit_code(error)
    # Read again: a search may have ended meanwhile in another process.
    now = plan_file.read(folder) or known
    codes = [_go_on_with(folder, pending, trusts) for pending in now.pending]
    return max(codes) if codes else hydra_entry.close_sweep(folder, job)


def is_harmless(command: Sequence[str], *, trusts: bool = False) -> bool:
    """Whether a recorded command can be repeated without the user's consent.

    Such a command names no code, and records no value of this machine, such as an environment
    variable.

    Args:
        trusts: whether it may name code in a configuration, and ask for such values.
    """
    return command[:1] in [(verb,) for verb in WORKS] and all(
        _is_harmless_word(word, trusts=trusts) for word in command[1:]
    )


def _require_no_code(folder: Path, known: plan.Plan, retries_failed: bool) -> None:
    """Refuses a sweep in which a job that has not ended names code.

    Raises:
        QuestionError: one does.
    """
    for entry in known.entries:
        status = folders.summary_of(folder / entry.folder).get("status")
        if status in resuming.ENDED or (status == resuming.FAILED and not retries_failed):
            continue
        try:
            config = entry.config
        except QuestionError:  # it will fail by itself
            continue
        resuming.require_trust(folder, config)


def _job_of(command: Sequence[str]) -> Job:
    try:
        verb, *words = command
        return hydra_entry.make_job(find_work(verb).verb, words)
    except QuestionError:  # a command of another version
        return Job("train", "", [])


def _is_harmless_word(word: str, *, trusts: bool) -> bool:
    if word.startswith("-"):
        return word in _FLAGS
    # Hydra takes `$\{` for `${` as well, and makes a `$` of nothing but a `$`.
    if "$" in word and not trusts:
        return False
    key, _, value = word.removeprefix("+").partition("=")
    names = value.split(",")
    if key == "experiment":
        return {*names} <= {name for name, _ in list_experiments()}
    if key in CHOICES:
        return {*names} <= {*CHOICES[key]}
    if key in TARGETS and not trusts and not _PLAIN.fullmatch(value):
        return False
    return bool(_LAUNCHER.fullmatch(word) or _SWEEPER.fullmatch(word) or _KEY.fullmatch(word))


def _launcher(command: Sequence[str], typed: Sequence[str]) -> list[str]:
    """The overrides of launchers: those that were typed, or else those of the sweep's command."""
    if any(word.startswith("hydra/launcher=") for word in typed):
        return list(typed)
    recorded = [word for word in command if _ABOUT_LAUNCHERS.match(word.lstrip("+~"))]
    keys = {word.partition("=")[0] for word in typed}
    strange = [word for word in recorded if not _LAUNCHER.fullmatch(word)]
    if strange:
        error_blocks.show(
            error_blocks.format_block(f"not repeated unless you type it: {shlex.join(strange)}")
        )
    if any(word.startswith("hydra/launcher=") for word in strange):
        return list(typed)
    kept = [w for w in recorded if w not in strange and w.partition("=")[0] not in keys]
    return [*kept, *typed]


def _go_on_with(folder: Path, command: Sequence[str], trusts: bool) -> int:
    """Repeats a command whose jobs are not all in the plan, in the sweep's folder."""
    words = [word for word in command[1:] if not word.startswith("hydra.sweep.dir=")]
    words.append(hydra_entry.place_sweep(folder))
    if is_harmless(command, trusts=trusts):
        return hydra_entry.enter(command[0], words)
    error_blocks.show(
        error_blocks.format_block(
            "not all jobs of this sweep are known, and its command could execute something"
            " or tell something of this machine",
            f"if you trust it: {shlex.join(['vgexp', *command[:1], *words])}",
        )
    )
    return 1
