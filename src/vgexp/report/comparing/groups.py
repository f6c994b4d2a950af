"""Groups runs into the lines of a figure, and names the lines and their panels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vgexp.report.comparing.headings import Rows, join_names, row_names
from vgexp.report.comparing.runs import ComparedRun, differing_keys, same_but_seed, short_names
from vgexp.report.comparing.swept import find_key, split_runs, text_of

_LONGEST_LABEL = 44


@dataclass(frozen=True)
class Group:
    """Runs that are one line: a run, or those equal but for the seed."""

    runs: Sequence[ComparedRun]
    label: str
    """What differs; where that tells lines of a panel not apart or is long, the runs' names."""
    series: str
    """The label without the seed: what lines that look alike have in common."""
    texts: Sequence[str]
    """The values of `Grouping.keys`."""


@dataclass(frozen=True)
class Grouping:
    """The lines of a figure, in panels."""

    panels: Sequence[tuple[str, Sequence[Group]]]
    """Title and lines of each panel."""
    keys: Sequence[str]
    """The short names of those in which series differ."""

    @property
    def groups(self) -> list[Group]:
        """The groups of every panel; those with the same label look alike."""
        return [group for _, groups in self.panels for group in groups]


def group_runs(runs: Sequence[ComparedRun], by_seed: bool, panels: str | None) -> Grouping:
    """Groups runs into lines.

    Args:
        by_seed: whether runs equal but for the seed are one.
        panels: a key, a panel for each of its values; None: one panel for all.

    Raises:
        QuestionError: no such key, or too many values.
    """
    apart_by = [find_key(runs, panels, "--panels")] if panels else []
    ignored = [*apart_by, "seed"] if by_seed else apart_by
    keys = differing_keys(runs, ignored)
    others = [key for key in keys if key != "seed"] or keys
    titles = short_names(runs, apart_by, ())
    found = []
    for texts, members in split_runs(runs, apart_by).items():
        rows = same_but_seed(members) if by_seed else [[run] for run in members]
        labels, series = _labels(runs, rows, keys), _labels(runs, rows, others)
        if not _tell_apart(labels):
            labels = series = _by_name(runs, rows)
        title = ", ".join(f"{name}={text}" for name, text in zip(titles, texts, strict=True))
        groups = [
            Group(row, label, alike, [text_of(row[0], key) for key in others])
            for row, label, alike in zip(rows, labels, series, strict=True)
        ]
        found.append((title, groups))
    return Grouping(found, short_names(runs, others, ()))


def _labels(runs: Sequence[ComparedRun], rows: Rows, keys: Sequence[str]) -> list[str]:
    """Returns each row's values of the keys; empty where its runs have none."""
    calls = dict(zip(keys, short_names(runs, keys, ()), strict=True))
    return [
        ", ".join(f"{calls[key]}={text_of(row[0], key)}" for key in keys if key in row[0].asked)
        for row in rows
    ]


def _by_name(runs: Sequence[ComparedRun], rows: Rows) -> list[str]:
    names, _ = row_names(runs)
    called = join_names(rows, names)
    return [
        f"{'runs' if len(row) > 1 else 'run'} {name}"
        for row, name in zip(rows, called, strict=True)
    ]


def _tell_apart(labels: Sequence[str]) -> bool:
    is_short = all(0 < len(label) <= _LONGEST_LABEL for label in labels)
    return is_short and len(set(labels)) == len(labels)
