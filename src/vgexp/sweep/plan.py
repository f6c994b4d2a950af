"""The plan of a sweep: all its jobs, with their numbers, folders and configurations.

A job is known by the values that decide its tables (`config.identity`). When a sweep is typed
again, or a larger one, its known jobs keep their numbers, and new ones are numbered after them.
"""

from __future__ import annotations

import dataclasses
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath
from typing import Any

from vgexp import config as configuration
from vgexp.config import Config
from vgexp.errors import QuestionError

FILE = "plan.json"
MOST_LETTERS = 255
"""The most bytes of a folder's name on most file systems."""


@dataclass(frozen=True)
class Wanted:
    """A job that a command asks for: its overrides and its configuration."""

    overrides: tuple[str, ...]
    config: Config | None
    """None: the overrides give no possible configuration."""
    reason: str = ""
    """Why the configuration is impossible."""

    @cached_property
    def identity(self) -> str:
        """The text by which the job is known."""
        if self.config is None:
            return " ".join(sorted(self.overrides))
        return configuration.identity(self.config)

    def as_entry(self, job: int, folder: str) -> Entry:
        """Makes the entry that this job has in the plan, under its number."""
        config = self.config
        return Entry(
            job,
            folder,
            self.overrides,
            self.identity,
            None if config is None else configuration.choices(config),
            None if config is None else configuration.to_dict(config),
            self.reason,
        )


@dataclass(frozen=True)
class Entry:
    """A job of the plan."""

    job: int
    folder: str
    """Relative to the sweep's."""
    overrides: tuple[str, ...]
    identity: str
    choices: Mapping[str, str] | None
    """Group -> choice; None, like `values`, for an impossible configuration."""
    values: Mapping[str, Any] | None
    reason: str = ""
    """Why the configuration is impossible."""

    @cached_property
    def config(self) -> Config:
        """The configuration of the job.

        Raises:
            QuestionError: it is impossible, or of another version.
        """
        if self.values is None or self.choices is None:
            raise QuestionError(self.reason or "an impossible configuration")
        try:
            config = configuration.from_dict(self.values, self.choices)
        except Exception as error:  # of many kinds, where somebody else wrote the values
            raise QuestionError(f"job {self.job} of {FILE}: {error}") from None
        if configuration.identity(config) != self.identity:
            raise QuestionError(f"job {self.job} of {FILE} has the configuration of another")
        return config


@dataclass(frozen=True)
class Plan:
    """All jobs of a sweep, and the commands that asked for them."""

    entries: tuple[Entry, ...] = ()
    commands: tuple[tuple[str, ...], ...] = ()
    """The words after `vgexp` of each command."""
    pending: tuple[tuple[str, ...], ...] = ()
    """The commands whose jobs are not all in the plan: killed ones, and searches that go on."""

    def entry_in(self, folder: str) -> Entry | None:
        """Finds the job of a folder."""
        return next((entry for entry in self.entries if entry.folder == folder), None)

    def add_command(self, command: tuple[str, ...]) -> Plan:
        """Returns the plan with a command whose jobs will be added."""
        commands, pending = dict.fromkeys(self.commands), dict.fromkeys(self.pending)
        return dataclasses.replace(
            self, commands=(*(commands | {command: None}),), pending=(*(pending | {command: None}),)
        )

    def remove_command(self, command: tuple[str, ...]) -> Plan:
        """Returns the plan without a command that added no jobs."""
        commands = tuple(words for words in self.commands if words != command)
        return dataclasses.replace(self.end_command(command), commands=commands)

    def end_command(self, command: tuple[str, ...]) -> Plan:
        """Returns the plan after a command has added all of its jobs."""
        pending = tuple(words for words in self.pending if words != command)
        return dataclasses.replace(self, pending=pending)


def extend(
    plan: Plan,
    wanted: Sequence[Wanted],
    met: Counter[str],
    folder_of: Callable[[Wanted, int], str],
    is_open: Callable[[Entry], bool] = lambda _: False,
) -> tuple[Plan, list[Entry]]:
    """Adds wanted jobs to a plan. Returns the plan, and the entry of each wanted job.

    Two jobs may have one identity (`device=cpu,cuda`), so the n-th wanted one is the n-th in the
    plan.

    Args:
        met: identity -> how many such jobs the command wanted before; it is updated.
        folder_of: a function that names the folder of a new job, from its number.
        is_open: whether a job has not ended.

    Raises:
        QuestionError: two jobs would share a folder.
    """
    known: dict[str, list[Entry]] = {}
    for entry in plan.entries:
        known.setdefault(entry.identity, []).append(entry)
    taken = {entry.folder: entry.job for entry in plan.entries}
    number = max((entry.job for entry in plan.entries), default=-1) + 1
    asked, added = [], []
    renewed: dict[int, Entry] = {}
    for job in wanted:
        same = known.setdefault(job.identity, [])
        if met[job.identity] == len(same):
            folder = PurePosixPath(folder_of(job, number)).as_posix()
            if not is_below(folder):
                raise QuestionError(
                    f"hydra.sweep.subdir is {folder!r}\n"
                    "allowed: a folder below the sweep's, "
                    f"each name of at most {MOST_LETTERS} bytes"
                )
            if folder in taken:
                raise QuestionError(
                    f"jobs {taken[folder]} and {number} would share the folder {folder!r}\n"
                    "allowed: a hydra.sweep.subdir that differs from job to job"
                )
            same.append(job.as_entry(number, folder))
            added.append(same[-1])
            taken[folder] = number
            number += 1
        known_one = same[met[job.identity]]
        if is_open(known_one):  # what changes no table may be typed anew: device, output
            known_one = same[met[job.identity]] = job.as_entry(known_one.job, known_one.folder)
        renewed[known_one.job] = known_one
        asked.append(known_one)
        met[job.identity] += 1
    entries = tuple(renewed.get(entry.job, entry) for entry in (*plan.entries, *added))
    return dataclasses.replace(plan, entries=entries), asked


def is_below(folder: str) -> bool:
    """Whether a name is that of a folder below another one, in a spelling that Hydra keeps:
    it would replace `${...}` by a value."""
    path = PurePosixPath(folder)
    is_within = bool(path.parts) and not path.is_absolute() and ".." not in path.parts
    is_plain = str(path) == folder and "\0" not in folder and "${" not in folder
    return is_within and is_plain and all(len(os.fsencode(x)) <= MOST_LETTERS for x in path.parts)
