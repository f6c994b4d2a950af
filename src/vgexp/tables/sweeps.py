"""Reads what `sweep.csv` and `plan.json` say of jobs whose folders do not say it."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from vgexp import files
from vgexp.config import CHOICES
from vgexp.errors import QuestionError, one_line, reason
from vgexp.folders import MOST_SWEEP_BYTES
from vgexp.tables.files import broken, text_of
from vgexp.tables.folders import is_run

_MOST_NAMED = 12
"""The most jobs whose numbers are told."""
_ENDING = ("status", "reason")
# Columns of sweep.csv that a job overrides, beside those with a dot; others are metrics.
_KEYS = frozenset({*CHOICES, "experiment", "seed"})


@dataclass(frozen=True)
class SweepJob:
    """A job as `sweep.csv` and `plan.json` know it."""

    ending: Mapping[str, str] = field(default_factory=dict)
    """`status` and, if it failed, `reason`; empty before the job has ended."""
    overrides: Mapping[str, Any] = field(default_factory=dict)
    """Dotted key or group -> value, of what the job was asked for beside the defaults."""


def sweep_jobs(sweep: Path | str) -> dict[str, SweepJob]:
    """Reads a sweep's jobs, by their folders below it; empty where there is no sweep.

    A file that is damaged tells nothing: what is shown of a sweep does not hang on it.
    """
    rows: dict[str, dict[str, str]] = {}
    planned: dict[str, tuple[str, dict[str, Any]]] = {}
    with suppress(QuestionError):
        rows = _read_rows(Path(sweep))
    with suppress(QuestionError):
        planned = _read_plan(Path(sweep))
    folders = {job: job for job in rows} | {job: folder for job, (folder, _) in planned.items()}
    return {
        folder: SweepJob(
            {name: rows[job][name] for name in _ENDING if rows.get(job, {}).get(name)},
            planned[job][1] if job in planned else _overrides_of(rows[job]),
        )
        for job, folder in folders.items()
    }


def sweep_problems(sweep: Path | str) -> list[str]:
    """Says what is damaged of a sweep's files, and which jobs have not begun, a sentence each."""
    sweep, told = Path(sweep), []
    rows: dict[str, dict[str, str]] = {}
    planned: dict[str, tuple[str, dict[str, Any]]] = {}
    try:
        rows = _read_rows(sweep)
    except QuestionError as error:
        told.append(str(error))
    try:
        planned = _read_plan(sweep)
    except QuestionError as error:
        told.append(str(error))
    folders = {job: sweep / folder for job, (folder, _) in planned.items()}
    waiting = [job for job in folders if job not in rows and not is_run(folders[job])]
    if waiting:
        have = "has" if len(waiting) == 1 else "have"
        named = ", ".join(waiting[:_MOST_NAMED]) + (", ..." if len(waiting) > _MOST_NAMED else "")
        told.append(f"{len(waiting)} of {len(folders)} jobs of {sweep} {have} not begun: {named}")
    return told


def _read_rows(sweep: Path) -> dict[str, dict[str, str]]:
    """Reads `sweep.csv`: each job's row; none where there is no file.

    Raises:
        QuestionError: it is damaged.
    """
    path = sweep / "sweep.csv"
    if not files.exists(path):
        return {}
    try:
        reader = csv.DictReader(io.StringIO(text_of(path, MOST_SWEEP_BYTES), newline=""))
        rows = list(reader)
    except csv.Error as error:
        raise broken(path, f"is damaged: {error}") from None
    missing = [name for name in ("job", "status") if name not in (reader.fieldnames or ())]
    if missing:
        raise broken(path, f"is damaged: it has no column {missing[0]}")
    return {row["job"]: row for row in rows if row.get("job") and row.get("status")}


def _read_plan(sweep: Path) -> dict[str, tuple[str, dict[str, Any]]]:
    """Reads `plan.json`: each job's folder and overrides; none where there is no file.

    Raises:
        QuestionError: it is damaged.
    """
    path = sweep / "plan.json"
    if not files.exists(path):
        return {}
    text = text_of(path, MOST_SWEEP_BYTES)
    try:
        jobs = json.loads(text)["jobs"]
        return {
            str(job["job"]): (str(job["folder"]), _parse_overrides(job["overrides"]))
            for job in jobs
        }
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise broken(path, f"is damaged: {one_line(reason(error))}") from None


def _parse_overrides(words: Iterable[str]) -> dict[str, Any]:
    """Parses overrides as they are typed, without `~key`."""
    parts = [word.partition("=") for word in words if not word.startswith("~")]
    return {key.lstrip("+"): _value(text) for key, _, text in parts}


def _overrides_of(row: Mapping[str, str]) -> dict[str, Any]:
    named = {key: text for key, text in row.items() if key and ("." in key or key in _KEYS)}
    return {key: _value(text) for key, text in named.items() if text}


def _value(text: str) -> Any:
    """Parses a value as a configuration does: 3, 0.001 of `1e-3`, None of `null`."""
    with suppress(ValueError):
        return float(text) if "e" in text.lower() else int(text)  # YAML takes 1e-3 for a text
    try:
        return yaml.safe_load(text)
    except Exception:  # of many kinds, as for a configuration
        return text
