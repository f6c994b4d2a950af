"""Runs configurations in folders of one search, each once: a run that is there is not repeated."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from vgexp import folders, runs
from vgexp.config import Config, FixConfig, SignalConfig, identity
from vgexp.diagnosis.commands import command_with
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

    def run(
        self,
        config: Config,
        place: str,
        words: Sequence[str] = (),
        *,
        shows: bool,
        aside: str | None = None,
    ) -> Trial:
        """Trains a configuration in the folder of its place, or finishes the run that is there.

        Args:
            place: a folder below the search's.
            words: the override that makes the configuration of the sick one.
            shows: whether its progress is shown.
            aside: the place to take where another configuration's run is in the first.

        Raises:
            QuestionError: it is impossible.
            Exception: the run failed.
        """
        config = _plain(config)
        if aside is not None and self._is_of_another(self.folder / place, config):
            place = aside
        folder = self._known.get(identity(config), self.folder / place)
        display = runs.Display(config.output.quiet or not shows, draws=False, remarks=False)
        command = self._command_of(config, words)
        try:
            done = runs.finish(config, folder, command=command, display=display)
        except BaseException:
            if folder.is_dir():
                self._known[identity(config)] = folder
            raise
        self._known[identity(config)] = done.folder
        return read_trial(done.folder, config.train.steps or int(done.summary["steps"]))

    def folder_of(self, config: Config) -> Path:
        """Where the run of a configuration is now."""
        return self._known[identity(_plain(config))]

    def settle(self, configs: Sequence[Config], place: str) -> None:
        """Moves runs to a place, each into the folder of its seed; other runs there are dropped."""
        wanted = set(map(self.folder_of, configs))
        aside = self.folder / DROPPED / str(self.next_number(DROPPED))
        for there in sorted((self.folder / place).glob("*/")):
            if there not in wanted:
                self._move(there, aside / there.name)
        for config in configs:
            self._move(self.folder_of(config), self.folder / place / str(config.seed))

    def drop(self, configs: Sequence[Config], place: str, aside: str) -> None:
        """Moves those of the runs that are at a place aside."""
        for config in configs:
            folder = self._known.get(identity(_plain(config)))
            if folder is not None and folder.parent == self.folder / place:
                self._move(folder, self.folder / aside / folder.name)

    def _move(self, old: Path, new: Path) -> None:
        if old == new or not old.is_dir():
            return
        new.parent.mkdir(parents=True, exist_ok=True)
        old.rename(new)
        with suppress(OSError):
            old.parent.rmdir()  # where it is empty now
        for name, path in self._known.items():
            if path.is_relative_to(old):
                self._known[name] = new / path.relative_to(old)

    def _is_of_another(self, folder: Path, config: Config) -> bool:
        if not folders.exists_config(folder):
            return False
        return folders.sealed_identity(folder) not in (None, identity(config))

    def next_number(self, place: str) -> int:
        """The first number that is no folder's at a place."""
        there = [int(path.name) for path in (self.folder / place).glob("*") if path.name.isdigit()]
        return max(there, default=0) + 1

    def _command_of(self, config: Config, words: Sequence[str]) -> str:
        """What trains one configuration: the sick one's command, the override, steps and seed."""
        if not self._command:
            return ""
        length = [f"train.steps={config.train.steps}"]
        if self._counts_epochs:
            is_whole = config.train.steps is None
            length = [] if is_whole else [*length, "train.epochs=null"]
        return command_with(self._command, " ".join([*words, *length, f"seed={config.seed}"]))


def _plain(config: Config) -> Config:
    """The configuration as a run's own, without what it says of other verbs."""
    return replace(config, fix=FixConfig(), signal=SignalConfig())
