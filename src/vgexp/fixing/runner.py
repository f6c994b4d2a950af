"""Runs configurations in folders of one search, each once: a run that is there is not repeated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from vgexp import folders, runs
from vgexp.config import Config, FixConfig, SignalConfig, identity
from vgexp.fixing.trial import Trial, read_trial

BEFORE, TRIED, AFTER, DROPPED = "before", "tried", "after", "dropped"
"""Folders: the sick runs, the probes, the runs that confirm, those of what they did not confirm."""


class Runner:
    """Makes the runs of one search below a folder.

    Args:
        command: the words that train the sick configuration; empty: not known.
        counts_epochs: whether the sick configuration says its length in epochs.
    """

    def __init__(self, folder: Path, command: Sequence[str], *, counts_epochs: bool) -> None:
        self.folder = folder
        self._command = tuple(command)
        self._counts_epochs = counts_epochs
        self._known = {
            found: path.parent
            for path in sorted(folder.glob(f"*/**/{folders.CONFIG}"))
            if (found := folders.sealed_identity(path.parent)) is not None
        }

    def run(self, config: Config, place: str, words: Sequence[str] = (), *, shows: bool) -> Trial:
        """Trains a configuration in the folder of its place, or finishes the run that is there.

        Args:
            place: a folder below the search's.
            words: the override that makes the configuration of the sick one.
            shows: whether its progress is shown.

        Raises:
            QuestionError: it is impossible.
            Exception: the run failed.
        """
        config = replace(config, fix=FixConfig(), signal=SignalConfig())
        folder = self._known.get(identity(config), self.folder / place)
        display = runs.Display(config.output.quiet or not shows, draws=False, remarks=False)
        done = runs.finish(config, folder, command=self._command_of(config, words), display=display)
        self._known[identity(config)] = done.folder
        return read_trial(done.folder, config.train.steps or int(done.summary["steps"]))

    def move(self, place: str, to: str) -> None:
        """Moves a folder of runs, if it is there, to another place."""
        old, new = self.folder / place, self.folder / to
        if not old.is_dir():
            return
        new.parent.mkdir(parents=True, exist_ok=True)
        old.rename(new)
        for name, path in self._known.items():
            if path.is_relative_to(old):
                self._known[name] = new / path.relative_to(old)

    def next_number(self, place: str) -> int:
        """The first number that is no folder's at a place."""
        there = [int(path.name) for path in (self.folder / place).glob("*") if path.name.isdigit()]
        return max(there, default=0) + 1

    def _command_of(self, config: Config, words: Sequence[str]) -> str:
        """What trains one configuration: the sick one's command, the override, steps and seed."""
        if not self._command:
            return ""
        from vgexp.diagnosis.page import command_with

        length = [f"train.steps={config.train.steps}"]
        if self._counts_epochs:
            is_whole = config.train.steps is None
            length = [] if is_whole else [*length, "train.epochs=null"]
        return command_with(self._command, " ".join([*words, *length, f"seed={config.seed}"]))
