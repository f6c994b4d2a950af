"""Runs to be compared: what each was asked, what came out, what to call them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from vgexp import files, tables
from vgexp.config import flatten
from vgexp.errors import QuestionError
from vgexp.folders import CONFIG, SUMMARY
from vgexp.quantities import absence
from vgexp.report.comparing.past_layers import PastLayers, shortfall
from vgexp.tables import SweepJob

# Sections whose keys cannot change a result.
_NO_RESULT = ("output", "run", "hydra")
# Folders at most from a job's up to its sweep's (`hydra.sweep.subdir`).
_SWEEP_ABOVE = 3
UNREADABLE = "unreadable"
"""The status of a run one of whose files is damaged."""


@dataclass(frozen=True)
class PastRun:
    """A run on disk, its tables read when they are asked for."""

    folder: Path
    name: str
    """Short and unique among the runs it is compared with: a job's number in one sweep."""
    asked: Mapping[str, Any]
    """Dotted key -> value, of the keys that can change a result; without a configuration those
    that the sweep's plan knows the job by."""
    summary: Mapping[str, Any]
    """Without a summary on disk: `status` and `reason` from the sweep's table, or `unfinished`.
    Where a file cannot be read: `unreadable` and why, beside what the others tell."""
    is_named: bool = False
    """Whether a path named it itself, so that what cannot be read of it is an error."""

    @property
    def reason(self) -> str | None:
        """Why the run failed, diverged or cannot be read, in one line; None for any other run."""
        has_diverged = self.summary.get("status") == "diverged"
        told = self.summary.get("reason") or (self.summary.get("cause") if has_diverged else None)
        return "; ".join(str(told).splitlines()) if told else None

    @cached_property
    def layers(self) -> PastLayers:
        """Its `layers.csv`."""
        return PastLayers(self.folder, self.is_named)

    @property
    def gaps(self) -> list[str]:
        """What its tables lack that it recorded or should have, a phrase each."""
        # A run that did not complete may have had no table.
        is_telling = self.layers.exists or self.summary.get("status") == "completed"
        problem = self.layers.problem if is_telling else None
        found = {
            "layers": problem or shortfall(self.folder, "layers", self.summary, self._num_layers),
            "steps": shortfall(self.folder, "steps", self.summary),
        }
        told = [*found.items(), ("layers", absence("layers", self.layers.absent))]
        return [f"{table}.csv {gap}" for table, gap in told if gap]

    @property
    def _num_layers(self) -> int:
        """Weights that have rows at the least: the main path and the read-out, unless chosen."""
        num_layers = self.summary.get("num_layers")
        is_whole = "probe.layers" in self.asked and self.asked["probe.layers"] is None
        return num_layers + 1 if is_whole and isinstance(num_layers, int) else 0


def load_runs(paths: Iterable[Path | str]) -> list[PastRun]:
    """Every run that the paths name or hold.

    Raises:
        QuestionError: no run there; one that a path names cannot be read, or none can.
    """
    named = [Path(path) for path in paths]
    folders = tables.find_runs(named)
    if not folders:
        raise QuestionError("no run was named\nallowed: vgexp compare RUN_OR_SWEEP...")
    strict = {path.resolve() for path in named}
    jobs = _jobs(folders)
    runs = [
        _loaded(folder, name, jobs.get(folder.resolve(), SweepJob()), folder.resolve() in strict)
        for folder, name in zip(folders, _names(folders), strict=True)
    ]
    if all(run.summary.get("status") == UNREADABLE for run in runs):
        others = ", nor any other run there" if len(runs) > 1 else ""
        raise QuestionError(f"cannot read {folders[0]}: {runs[0].reason}{others}")
    return runs


def differing_keys(runs: Sequence[PastRun], ignored: Sequence[str] = ()) -> list[str]:
    """Keys with more than one value among the runs that have them, in the configuration's order.

    A key that exists only for some choices of a group (`clip.threshold`) follows from the choice
    and counts only where its value varies.
    """
    # Runs without a configuration know few of their keys: they have no say in the order.
    whole_first = sorted(runs, key=lambda run: -len(run.asked))
    keys = dict.fromkeys(key for run in whole_first for key in run.asked if key not in ignored)
    return [
        key
        for key in keys
        if len(_distinct(run.asked[key] for run in runs if key in run.asked)) > 1
    ]


def short_names(runs: Sequence[PastRun], keys: Sequence[str], taken: Iterable[str]) -> list[str]:
    """The keys' last parts where no other key and no name in `taken` is called so."""
    every = dict.fromkeys(key for run in runs for key in run.asked)
    uses = Counter([_last_part(key) for key in every] + list(taken))
    return [_last_part(key) if uses[_last_part(key)] == 1 else key for key in keys]


def same_but_seed(runs: Sequence[PastRun]) -> list[list[PastRun]]:
    """The runs in groups that differ in nothing but the seed, in order of first appearance.

    An unreadable run of which nothing is known stays alone.
    """
    groups: list[tuple[dict[str, Any], list[PastRun]]] = []
    for run in runs:
        identity = {key: value for key, value in run.asked.items() if key != "seed"}
        if not identity and run.summary.get("status") == UNREADABLE:
            identity = {"": run.folder}
        for known, members in groups:
            if known == identity:
                members.append(run)
                break
        else:
            groups.append((identity, [run]))
    return [members for _, members in groups]


def typed_alike(runs: Sequence[PastRun]) -> list[PastRun]:
    """The runs, whole numbers as `1.0` where another run has a number with a point.

    A job that failed before it had a configuration has what was typed, the others what it became.
    """
    with_point = {key for run in runs for key, value in run.asked.items() if type(value) is float}

    def typed(key: str, value: Any) -> Any:
        return float(value) if key in with_point and type(value) is int else value

    asked = [{key: typed(key, value) for key, value in run.asked.items()} for run in runs]
    return [
        # What a run has read of its tables stays with it.
        run
        if all(type(new[key]) is type(run.asked[key]) for key in new)
        else replace(run, asked=new)
        for run, new in zip(runs, asked, strict=True)
    ]


def _jobs(folders: Iterable[Path]) -> dict[Path, SweepJob]:
    """Run folder -> what the sweep above it knows of its job."""
    above = {sweep for folder in folders for sweep in folder.resolve().parents[:_SWEEP_ABOVE]}
    return {
        sweep / folder: job for sweep in above for folder, job in tables.sweep_jobs(sweep).items()
    }


def _loaded(folder: Path, name: str, job: SweepJob, is_named: bool) -> PastRun:
    """The run of a folder; `is_named`: one that cannot be read is an error."""
    asked, summary, problems = dict(job.overrides), {}, []
    try:
        asked = _asked(folder, job)
    except QuestionError as error:
        problems.append(error)
    try:
        summary = _summary(folder, job)
    except QuestionError as error:
        problems.append(error)
    if is_named and problems:
        raise problems[0]
    if problems:
        why = "; ".join(str(problem).replace(f"{folder}/", "") for problem in problems)
        summary = {**summary, "status": UNREADABLE, "reason": why}
    return PastRun(folder, name, _deciding(asked), summary, is_named)


def _asked(folder: Path, job: SweepJob) -> dict[str, Any]:
    if not files.exists(folder / CONFIG):
        return dict(job.overrides)
    flat = flatten(tables.read_config(folder))
    # A configuration does not tell what it was composed of: a preset.
    groups = {key: value for key, value in job.overrides.items() if "." not in key}
    return groups | flat


def _deciding(asked: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in asked.items() if key.split(".")[0] not in _NO_RESULT}


def _summary(folder: Path, job: SweepJob) -> dict[str, Any]:
    if files.exists(folder / SUMMARY):
        return tables.read_summary(folder)
    return {"status": "unfinished", **job.ending}


def _names(folders: Sequence[Path]) -> list[str]:
    """Paths below what all runs share; a lone run's own folder name."""
    whole = [folder.resolve() for folder in folders]
    shared = os.path.commonpath([folder.parent for folder in whole]) if whole else ""
    return [folder.relative_to(shared).as_posix() for folder in whole]


def _last_part(key: str) -> str:
    return key.rpartition(".")[2]


def _distinct(values: Iterable[Any]) -> list[Any]:
    found: list[Any] = []
    for value in values:
        if value not in found:
            found.append(value)
    return found
