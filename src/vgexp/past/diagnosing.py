"""The diagnosis of a run on disk."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from vgexp import folders
from vgexp.config import flatten
from vgexp.diagnosis import Diagnosis, conclude, evidence_of_run, evidence_of_tables
from vgexp.diagnosis.evidence import Evidence
from vgexp.diagnosis.parting import find_parting
from vgexp.errors import QuestionError
from vgexp.folders import first_line
from vgexp.known_facts import facts_in
from vgexp.past.run import PastRun

_TABLES = ("layers", "steps", "wiring", "loss", "parameters", "time", "recurrence", "curvature")
"""Those that rules read; of a loop of somebody's own `evals` as well, which no metric has."""
_UNKNOWN = "unknown"
_LAYERS = "layers.csv"
_ENDING = ("status", "reason")
_SWEEPS = frozenset({"-m", "--multirun"})
_NO_RESULT = ("output", "run", "fix", "hydra")
"""Sections whose keys cannot change a result."""


def diagnose_run(past: PastRun) -> Diagnosis:
    """Health, cause and findings of a run, from all of its files that can be read.

    Raises:
        QuestionError: the run has neither a summary with metrics nor a table of layers; or a file
            is damaged, of a reader that is strict.
    """
    diagnosis = conclude(evidence_of(past))
    if diagnosis.cause != _UNKNOWN or _LAYERS not in past.lost_files:
        return diagnosis
    why = f"cannot be told: {next(iter(past.problems_of('layers')), f'{_LAYERS} is missing')}"
    return replace(
        diagnosis,
        cause=None,
        step=None,
        layer=None,
        findings=tuple(each for each in diagnosis.findings if each.id != _UNKNOWN),
        sentence=f"It does not learn; the cause {why}.",
        why_untold=why,
    )


def notes_of(past: PastRun) -> list[str]:
    """What is missing or damaged of a run that was diagnosed, a sentence for each."""
    if past.is_guest or past.has(folders.CONFIG):
        return past.problems
    return [
        *past.problems,
        f"{folders.CONFIG} is not there: settings are not known, and remedies are in code",
    ]


def lost_files(past: PastRun) -> list[str]:
    """The files of a run that was diagnosed that are missing, or cannot be read."""
    is_complete = past.is_guest or past.has(folders.CONFIG)
    return past.lost_files if is_complete else [*past.lost_files, folders.CONFIG]


def evidence_of(past: PastRun) -> Evidence:
    """The evidence of a run."""
    tables: dict[str, pd.DataFrame] = {}
    for name in (*_TABLES, *(("evals",) if past.is_guest else ())):
        table = past.table(name)
        if table is not None and len(table):
            tables[name] = table
    outcome, config = past.outcome, past.config
    settings: dict[str, Any] = flatten(config) if config is not None else past.settings
    if past.is_guest:
        ending = {name: outcome[name] for name in (*_ENDING, "underflow") if name in outcome}
        return evidence_of_tables(
            tables,
            settings=settings,
            unseen=[str(line) for line in outcome.get("unseen") or ()],
            dtype=past.dtype,
            ending=ending | facts_in(settings),
        )
    if {"signal", "verdict"} <= outcome.keys():
        return evidence_of_run(outcome, tables, config, settings)
    if "layers" not in tables:
        raise QuestionError(
            f"{past.folder} has neither metrics in its summary nor rows in layers.csv\n"
            "allowed: a run that made at least one update"
        )
    num_examples = config.data.batch_size * config.train.accumulate if config else None
    return evidence_of_tables(
        tables,
        settings=settings,
        dtype=past.dtype,
        num_examples=num_examples,
        ending={name: outcome[name] for name in _ENDING if name in outcome},
    )


def command_of(past: PastRun) -> tuple[str, ...]:
    """The words of the command that made a run, to type again with more overrides.

    They name no folder of their own. Where the command was a sweep's, or is not known, they are
    those that repeat the configuration. Empty for a loop of somebody's own.
    """
    if past.is_guest or past.config is None:
        return ()
    try:
        words = shlex.split(first_line(past.folder).removeprefix("# "))
    except ValueError:
        words = []
    if words[:2] == ["vgexp", folders.TRAIN] and not _SWEEPS.intersection(words):
        return tuple(word for word in words if not word.startswith("hydra."))
    repeat = ["--config-dir", str(past.folder), "--config-name", "config"]
    return ("vgexp", folders.TRAIN, *repeat)


def list_next(past: PastRun, diagnosis: Diagnosis) -> list[str]:
    """The commands that go on from a cause: `vgexp fix`, where an override may cure it, and its
    page with the run's numbers. None without a cause."""
    if diagnosis.cause is None:
        return []
    folder = str(past.folder)
    remedies = diagnosis.findings[0].remedies
    can_fix = bool(command_of(past)) and any(remedy.override for remedy in remedies)
    fix = [shlex.join(["vgexp", "fix", folder])] if can_fix else []
    return [*fix, shlex.join(["vgexp", "explain", diagnosis.cause, folder])]


def compare(past: PastRun, folder: Path) -> dict[str, Any]:
    """What differs from a good run in the configuration, and since when the losses part.

    Returns:
        `run`, the good one's folder; `differs`: key -> its value `here` and in the `baseline`;
        `parts`: the step, and both losses; None where they do not part or one has none.
    """
    good = PastRun(folder, is_strict=False)
    ours, theirs = (
        flatten(run.config) if run.config is not None else run.settings for run in (past, good)
    )
    differs = {
        key: {"here": ours.get(key), "baseline": theirs.get(key)}
        for key in dict.fromkeys((*ours, *theirs))
        if ours.get(key) != theirs.get(key) and key.split(".")[0] not in _NO_RESULT
    }
    steps = [run.table("steps") for run in (past, good)]
    parting = None if steps[0] is None or steps[1] is None else find_parting(steps[0], steps[1])
    parts = None if parting is None else parting._asdict()
    return {"run": str(folder), "differs": differs, "parts": parts}
