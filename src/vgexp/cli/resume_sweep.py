"""`vgexp resume SWEEP`: brings every job of a sweep's plan to its end.

What a file says is repeated only as far as it can do no harm: jobs by their recorded values, the
launcher by its name and numbers. Commands that could execute something are shown, to be typed.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from vgexp.cli import blocks, door
from vgexp.cli.interrupts import exit_code
from vgexp.cli.job import Job
from vgexp.cli.listing import experiments
from vgexp.cli.session import Session, session
from vgexp.config import CHOICES, sections
from vgexp.errors import QuestionError
from vgexp.sweep import place, plan

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
_KEY = re.compile(rf"({'|'.join(sections())})\.\w+=[^\n]*|(seed|device|dtype)=[^\n]*")
_EXECUTED = ("model.target", "data.target", "train.loss")
"""Keys whose values may name code."""
_FLAGS = ("-m", "--multirun")
_ABOUT_LAUNCHERS = re.compile(r"hydra[/.]launcher\b")


def resume(folder: Path, typed: Sequence[str], *, retries_failed: bool) -> int:
    """Sees to every job of the sweep that has not ended; the sweep's exit code.

    Args:
        typed: Hydra's overrides about launchers; others come from the sweep's own command.

    Raises:
        QuestionError: no plan, or overrides that are about something else.
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
    place.keep(folder, known)
    command = known.commands[-1] if known.commands else ("train", "-m")
    job = _job_of(command)
    words = ["-m", door.into(folder), "hydra.output_subdir=null", *_launcher(command, typed)]
    with session(Session(command, replays=True, retries_failed=retries_failed)):
        try:
            door.compose_and_call(door.parse_flags(words), job)
        except KeyboardInterrupt as error:
            blocks.interruption(error, folder)
            return exit_code(error)
    # Read again: a search may have ended meanwhile in another process.
    now = plan.read(folder) or known
    codes = [_go_on_with(folder, pending) for pending in now.pending]
    return max(codes) if codes else door.close_sweep(folder, job)


def is_harmless(command: Sequence[str]) -> bool:
    """Whether a recorded command names nothing that could be executed."""
    return command[:1] == ("train",) and all(map(_is_harmless_word, command[1:]))


def _job_of(command: Sequence[str]) -> Job:
    try:
        return door.job_of(command[1:])
    except QuestionError:  # a command of another version
        return Job("", [])


def _is_harmless_word(word: str) -> bool:
    if word.startswith("-"):
        return word in _FLAGS
    key, _, value = word.removeprefix("+").partition("=")
    names = value.split(",")
    if key == "experiment":
        return {*names} <= {name for name, _ in experiments()}
    if key in CHOICES:
        return {*names} <= {*CHOICES[key]}
    return (
        bool(_LAUNCHER.fullmatch(word) or _SWEEPER.fullmatch(word) or _KEY.fullmatch(word))
        and key not in _EXECUTED
    )


def _launcher(command: Sequence[str], typed: Sequence[str]) -> list[str]:
    """What was typed about launchers, else what the sweep's command said of them."""
    if any(word.startswith("hydra/launcher=") for word in typed):
        return list(typed)
    recorded = [word for word in command if _ABOUT_LAUNCHERS.match(word.lstrip("+~"))]
    keys = {word.partition("=")[0] for word in typed}
    strange = [word for word in recorded if not _LAUNCHER.fullmatch(word)]
    if strange:
        blocks.show(blocks.block(f"not repeated unless you type it: {shlex.join(strange)}"))
    if any(word.startswith("hydra/launcher=") for word in strange):
        return list(typed)
    kept = [w for w in recorded if w not in strange and w.partition("=")[0] not in keys]
    return [*kept, *typed]


def _go_on_with(folder: Path, command: Sequence[str]) -> int:
    """Types a command again whose jobs are not all in the plan, into the sweep's folder."""
    words = [word for word in command[1:] if not word.startswith("hydra.sweep.dir=")]
    words.append(door.into(folder))
    if is_harmless(command):
        return door.train(words)
    blocks.show(
        blocks.block(
            "not all jobs of this sweep are known, and its command could execute something",
            f"if you trust it: {shlex.join(['vgexp', 'train', *words])}",
        )
    )
    return 1
