"""Names compared runs: by what differs, by their folders, or by a number."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.cells import cell_len

from vgexp.report.comparing.runs import ComparedRun, differing_keys, repeated_runs, short_names
from vgexp.report.terminal.layout import MOST_OF_REASON, shorten

# Longer names of runs are numbered, and spelled out below the table.
_LONGEST_NAME = 20
# Where more differs, or it is longer, the run's name is the heading.
_MOST_KEYS = 2
_LONGEST_TITLE = 24

Rows = Sequence[Sequence[ComparedRun]]
"""Runs in groups that are shown as one: a run each, or those equal but for the seed."""


@dataclass(frozen=True)
class Headings:
    """Short headings of columns, and what they stand for."""

    texts: Sequence[str]
    key: Sequence[str] = ()
    """A heading and what differs in its runs, a sentence each; empty where headings say so."""
    names: Sequence[str] = ()
    """The runs behind numbers."""


def titles(runs: Sequence[ComparedRun], rows: Rows, by_seed: bool) -> list[str]:
    """Names rows by what differs, one key a line; adds the run's name where that is not unique."""
    labels = ["\n".join(parts) for parts in _differences(runs, rows, by_seed)]
    if len(set(labels)) == len(labels) and all(labels):
        return labels
    return [f"{label}\nrun {row[0].name}".strip() for label, row in zip(labels, rows, strict=True)]


def headings(runs: Sequence[ComparedRun], rows: Rows, by_seed: bool) -> Headings:
    """Returns the titles, or, where one is too long, the runs' names and a key to them."""
    whole = titles(runs, rows, by_seed)
    if not any(map(_is_long, whole)):
        return Headings(whole)
    names, spelled_out = _short_names(runs)
    texts = [_join_few([names[run.folder] for run in row]) for row in rows]
    differences = zip(texts, _differences(runs, rows, by_seed), strict=True)
    key = [f"{text}: {', '.join(parts)}" for text, parts in differences if parts]
    return Headings(texts, key, spelled_out)


def row_names(runs: Sequence[ComparedRun]) -> tuple[dict[Path, str], list[str]]:
    """Returns each folder's name in a row, and the whole names of those that are numbered.

    Where names are long: the first folder of the run's path (its preset, in `outputs/train`) if
    no other run shares it, else a number.
    """
    return _name_runs(runs, [run.name for run in runs])


def row_paths(runs: Sequence[ComparedRun]) -> dict[Path, str]:
    """Returns each folder's whole path."""
    return {run.folder: str(run.folder) for run in runs}


def join_names(rows: Iterable[Sequence[ComparedRun]], names: Mapping[Path, str]) -> list[str]:
    """Joins the names of each row's runs."""
    return [", ".join(names[run.folder] for run in row) for row in rows]


def endings(runs: Sequence[ComparedRun], names: Mapping[Path, str]) -> list[str]:
    """Says why runs failed, stopped or diverged; those with the same reason share a sentence."""
    ended = [(_ending(run, run.reason), run) for run in runs if run.reason]
    return _told_once(ended, names)


def gaps(runs: Sequence[ComparedRun], names: Mapping[Path, str]) -> list[str]:
    """Says what is missing in tables; runs that lack the same share a sentence."""
    return _told_once([(f": {gap}", run) for run in runs for gap in run.gaps], names)


def repetitions(runs: Sequence[ComparedRun], names: Mapping[Path, str]) -> list[str]:
    """Says of runs that are equal, seed included, which of them counts."""
    return [
        f"runs {', '.join(sorted(names[run.folder] for run in same))} are equal, seed included:"
        f" run {names[same[0].folder]} counts"
        for same in repeated_runs(runs)
    ]


def config_text(run: ComparedRun, key: str) -> str | None:
    """Returns a run's value of a key as it is typed; None where it has no such key."""
    if key not in run.asked:
        return None
    value = run.asked[key]
    if isinstance(value, list):
        return f"[{','.join(map(str, value))}]"
    return json.dumps(value) if value is None or isinstance(value, bool) else str(value)


def _differences(runs: Sequence[ComparedRun], rows: Rows, by_seed: bool) -> list[list[str]]:
    keys = differing_keys(runs, ignored=("seed",) if by_seed else ())
    names = dict(zip(keys, short_names(runs, keys, ()), strict=True))
    return [
        [f"{name}={config_text(row[0], key)}" for key, name in names.items() if key in row[0].asked]
        for row in rows
    ]


def _ending(run: ComparedRun, reason: str) -> str:
    status = shorten(str(run.summary["status"]))
    return f" {status}: {shorten(reason, MOST_OF_REASON)}"


def _told_once(told: Iterable[tuple[str, ComparedRun]], names: Mapping[Path, str]) -> list[str]:
    same: dict[str, list[str]] = {}
    for words, run in told:
        same.setdefault(words, []).append(names[run.folder])
    return [
        f"{'run' if len(called) == 1 else 'runs'} {', '.join(called)}{words}"
        for words, called in same.items()
    ]


def _is_long(title: str) -> bool:
    parts = title.split("\n")
    return len(parts) > _MOST_KEYS or cell_len(", ".join(parts)) > _LONGEST_TITLE


def _short_names(runs: Sequence[ComparedRun]) -> tuple[dict[Path, str], list[str]]:
    """As `row_names`, by the one part of the runs' paths that tells them apart, if there is one."""
    parts: tuple[Callable[[str], str], ...] = (
        lambda name: name.split("/")[0],
        lambda name: name.split("/")[-1],
        lambda name: name,
    )
    named = [[part(run.name) for run in runs] for part in parts]
    telling = [names for names in named if len(set(names)) == len(runs)]
    return _name_runs(runs, min(telling, key=lambda names: max(map(cell_len, names))))


def _name_runs(
    runs: Sequence[ComparedRun], names: Sequence[str]
) -> tuple[dict[Path, str], list[str]]:
    if all(map(_is_short, names)):
        return {run.folder: name for run, name in zip(runs, names, strict=True)}, []
    firsts = [run.name.split("/")[0] for run in runs]
    uses = Counter(firsts)
    called, spelled_out = {}, []
    for number, (run, first) in enumerate(zip(runs, firsts, strict=True), start=1):
        # A name that is a number would be taken for another run's.
        if uses[first] == 1 and _is_short(first) and not first.isdecimal():
            called[run.folder] = first
        else:
            called[run.folder] = str(number)
            spelled_out.append(f"run {number}: {run.name}")
    return called, spelled_out


def _is_short(name: str) -> bool:
    return cell_len(name) <= _LONGEST_NAME


def _join_few(names: Sequence[str]) -> str:
    """Joins names: `run 3`, `runs 0, 1, 2`; of many runs the first and the last."""
    if len(names) == 1:
        return f"run {names[0]}"
    whole = ", ".join(names)
    return f"runs {whole if cell_len(whole) <= _LONGEST_NAME else f'{names[0]}, ..., {names[-1]}'}"
