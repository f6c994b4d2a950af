"""Loads the runs of a comparison: their configurations, summaries and short names."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vgexp import tables
from vgexp.config import flatten
from vgexp.errors import QuestionError
from vgexp.past import PastRun, jobs_of

# Sections whose keys cannot change a result.
_MOST_TOLD = 4
"""Keys that tell runs apart in a line; further ones are counted."""
_NO_RESULT = ("output", "run", "fix", "hydra")
UNREADABLE = "unreadable"
"""The status of a run one of whose files is damaged."""


@dataclass(frozen=True)
class ComparedRun:
    """A run of a comparison."""

    past: PastRun
    """It is strict if a path named the run itself."""
    name: str
    """Short and unique among the runs it is compared with: a job's number in one sweep."""
    asked: Mapping[str, Any]
    """Dotted key -> value, of the keys that can change a result; without a configuration those
    that the sweep's plan knows the job by."""
    summary: Mapping[str, Any]
    """Without a summary on disk: `status` and `reason` from the sweep's table, or `unfinished`.
    Where a file cannot be read: `unreadable` and why, beside what the others tell."""

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return self.past.folder

    @property
    def reason(self) -> str | None:
        """Why the run failed, stopped, diverged or cannot be read; None for any other run."""
        has_diverged = self.summary.get("status") == "diverged"
        told = self.summary.get("reason") or (self.summary.get("cause") if has_diverged else None)
        return "; ".join(str(told).splitlines()) if told else None

    @property
    def gaps(self) -> list[str]:
        """What its tables lack, a phrase for each."""
        found = self.past.problems_of("layers")
        if not self.past.has_table("layers"):
            # A run that did not end may have had no table.
            is_telling = self.summary.get("status") in ("completed", "stopped")
            found = ["layers.csv is not there"] if is_telling else []
        ends = [None if found else self.past.shortfall("layers"), self.past.shortfall("steps")]
        told = (*found, *ends, self.past.absence("layers"))
        return list(dict.fromkeys(gap for gap in told if gap))


def load_runs(paths: Iterable[Path | str]) -> list[ComparedRun]:
    """Loads every run that the paths name or hold.

    Raises:
        QuestionError: no run there; one that a path names cannot be read, or none can.
    """
    named = [Path(path) for path in paths]
    folders = tables.find_runs(named)
    if not folders:
        raise QuestionError("no run was named\nallowed: vgexp compare RUN_OR_SWEEP...")
    strict = {path.resolve() for path in named}
    jobs = jobs_of(folders)
    runs = [
        _load(PastRun(folder, is_strict=folder.resolve() in strict, job=jobs[folder]), name)
        for folder, name in zip(folders, _names(folders), strict=True)
    ]
    if all(run.summary.get("status") == UNREADABLE for run in runs):
        others = ", nor any other run there" if len(runs) > 1 else ""
        raise QuestionError(f"cannot read {folders[0]}: {runs[0].reason}{others}")
    return runs


def differing_keys(runs: Sequence[ComparedRun], ignored: Sequence[str] = ()) -> list[str]:
    """Lists the keys with more than one value among the runs, in the configuration's order.

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


def tell_apart(pasts: Sequence[PastRun]) -> list[str]:
    """What differs among runs, for each its `key=value` words; empty where nothing is known.

    At most `_MOST_TOLD` keys are named, and how many more there are.
    """
    runs = [_load(past, past.folder.name) for past in pasts]
    keys = differing_keys(runs)
    more = len(keys) - _MOST_TOLD
    told = keys if more <= 1 else keys[:_MOST_TOLD]
    texts = []
    for run in runs:
        words = [f"{key}={_written(run.asked[key])}" for key in told if key in run.asked]
        texts.append(" ".join([*words, *([f"and {more} more keys"] if more > 1 else [])]))
    return texts


def _written(value: Any) -> str:
    return "null" if value is None else str(value)


def short_names(
    runs: Sequence[ComparedRun], keys: Sequence[str], taken: Iterable[str]
) -> list[str]:
    """Shortens keys to their last parts where no other key and no name in `taken` is called so."""
    every = dict.fromkeys(key for run in runs for key in run.asked)
    uses = Counter([_last_part(key) for key in every] + list(taken))
    return [_last_part(key) if uses[_last_part(key)] == 1 else key for key in keys]


def same_but_seed(runs: Sequence[ComparedRun]) -> list[list[ComparedRun]]:
    """Groups runs that differ in nothing but the seed, in order of first appearance.

    Of runs that do not differ in the seed either, one is in a group: they are no further sample.
    It is the first that completed, else the first. An unreadable run of which nothing is known
    stays alone.
    """
    groups: list[tuple[dict[str, Any], list[ComparedRun]]] = []
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
    return [list(map(_first_completed, _repeated(members))) for _, members in groups]


def repeated_runs(runs: Sequence[ComparedRun]) -> list[list[ComparedRun]]:
    """Groups runs that differ in nothing, two or more, the one that counts over seeds first."""
    found = []
    for members in _repeated(runs):
        counts = _first_completed(members)
        if len(members) > 1:
            found.append([counts, *(run for run in members if run is not counts)])
    return found


def _repeated(runs: Sequence[ComparedRun]) -> list[list[ComparedRun]]:
    """Groups runs that differ in nothing; one whose seed is not known stays alone."""
    groups: list[list[ComparedRun]] = []
    for run in runs:
        same = (group for group in groups if "seed" in run.asked and group[0].asked == run.asked)
        found = next(same, None)
        if found is None:
            groups.append([run])
        else:
            found.append(run)
    return groups


def _first_completed(runs: Sequence[ComparedRun]) -> ComparedRun:
    return next((run for run in runs if run.summary.get("status") == "completed"), runs[0])


def match_number_types(runs: Sequence[ComparedRun]) -> list[ComparedRun]:
    """Returns the runs with whole numbers as `1.0` where another run has a number with a point.

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


def _load(past: PastRun, name: str) -> ComparedRun:
    """Reads what a comparison needs of a run in any case."""
    asked, summary = _read_asked(past), past.outcome
    if not isinstance(summary.get("status"), str | None):  # somebody changed the file
        summary = {**summary, "status": str(summary["status"])}
    if past.problems:
        summary = {**summary, "status": UNREADABLE, "reason": "; ".join(past.problems)}
    return ComparedRun(past, name, _keep_deciding(asked), summary)


def _read_asked(past: PastRun) -> dict[str, Any]:
    if past.is_guest:
        return past.settings
    if past.config is None:
        return dict(past.job.overrides)
    # A configuration does not tell what it was composed of: a preset.
    groups = {key: value for key, value in past.job.overrides.items() if "." not in key}
    return groups | flatten(past.config)


def _keep_deciding(asked: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in asked.items() if key.split(".")[0] not in _NO_RESULT}


def _names(folders: Sequence[Path]) -> list[str]:
    """Names runs by their paths below what all share; a single run by its folder.

    Where folders are called alike, as those that a callback makes, by as few of the folders above
    them as tell all runs apart.
    """
    whole = [folder.resolve() for folder in folders]
    shared = os.path.commonpath([folder.parent for folder in whole]) if whole else ""
    paths = [folder.relative_to(shared).parts for folder in whole]
    if len({path[-1] for path in paths}) < len(paths):
        for depth in range(2, max(map(len, paths))):
            tails = [path[-depth:] for path in paths]
            if len(set(tails)) == len(tails):
                paths = tails
                break
    return ["/".join(path) for path in paths]


def _last_part(key: str) -> str:
    return key.rpartition(".")[2]


def _distinct(values: Iterable[Any]) -> list[Any]:
    found: list[Any] = []
    for value in values:
        if value not in found:
            found.append(value)
    return found
