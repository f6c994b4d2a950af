"""Hydra's launcher of a sweep: it starts the jobs of the plan that have not ended yet.

Hydra numbers the jobs of a sweep anew each time, and knows nothing of jobs that have ended. This
launcher finds each job in the sweep's plan, and passes those that have not ended to the launcher
that the user chose, with the numbers and folders that the plan gives them.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import BrokenExecutor
from contextlib import contextmanager, suppress
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from vgexp import folders, resuming, sweep
from vgexp.cli import error_blocks, hydra_internals, overrides, watcher
from vgexp.cli.composing import Composer, SharingLoader
from vgexp.cli.hydra_internals import GRID
from vgexp.cli.job import Job, objective, tell
from vgexp.cli.job_rows import find_differing_keys, record_endings
from vgexp.cli.progress import Planning
from vgexp.cli.session import call_or_refuse, current_session
from vgexp.cli.typed_config import to_config
from vgexp.errors import QuestionError, printable, reason
from vgexp.quantities import require_number
from vgexp.sweep import plan, plan_file

_BY_NUMBER = "${hydra.job.num}"
_PLACES = ("hydra.sweep.dir", "hydra.sweep.subdir")
"""What says where a job runs: the last words of each."""
_SAFE_PATH = "PYTHONSAFEPATH"


class PlannedLauncher(Launcher):
    """Passes the jobs that have not ended to the launcher that the user chose."""

    def setup(self, *, hydra_context: HydraContext, task_function: Any, config: DictConfig) -> None:
        self._session = current_session()
        with read_write(config), open_dict(config.hydra):
            config.hydra.launcher = self._session.launcher
        self._context, self._config = hydra_context, config
        assert isinstance(task_function, Job)
        self.job = task_function
        self._met: Counter[str] = Counter()
        self._told = False
        self._launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )
        if hydra_internals.runs_jobs_itself(self._launcher):
            # Else it would compose each job anew, which takes as long as a small job.
            shared: Any = SharingLoader(
                hydra_context.config_loader, lambda: self._composer, len(_PLACES)
            )
            own: Any = self._launcher
            own.hydra_context = HydraContext(shared, hydra_context.callbacks)
        assert self._session.folder is not None
        self._folder = self._session.folder

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Runs every job that has not ended. Returns a result for each job, ended ones included."""
        told = Planning(len(job_overrides), is_quiet=self._is_quiet)
        wanted = []
        for index, words in enumerate(job_overrides):
            told(index)
            wanted.append(self._read_wanted(tuple(words), initial_job_idx + index))
        objectives = {job.config.run.objective for job in wanted if job.config is not None}
        for name in sorted(objectives):
            call_or_refuse(partial(require_number, name))
        asked: list[plan.Entry] = []

        def with_wanted(known: plan.Plan) -> plan.Plan:
            known, entries = plan.extend(known, wanted, self._met, self._folder_of, self._is_open)
            asked.extend(entries)
            return known.end_command(self._session.command) if self._has_all_jobs else known

        return self.launch_open(
            asked, call_or_refuse(lambda: plan_file.change(self._folder, with_wanted))
        )

    def launch_open(self, asked: Sequence[plan.Entry], known: plan.Plan) -> list[JobReturn]:
        """Launches jobs that have not ended. Returns a result for each, ended ones included."""
        for entry in asked:
            call_or_refuse(partial(folders.require_regular_files, self._folder / entry.folder))
        record_endings(self._folder, known)
        open_jobs = [entry for entry in asked if self._must_run(entry)]
        self._tell(asked, open_jobs)
        done: dict[int, JobReturn] = {}
        while open_jobs:
            open_jobs = self._launch_once(open_jobs, done)
        record_endings(self._folder, known)
        return [done.get(entry.job) or self._result(entry) for entry in asked]

    def _launch_once(
        self, entries: list[plan.Entry], done: dict[int, JobReturn]
    ) -> list[plan.Entry]:
        """Passes jobs to the user's launcher. Returns those left where a process was killed."""
        began = time.time()
        try:
            done.update(zip([e.job for e in entries], self._hand_on(entries), strict=True))
            return []
        except BrokenExecutor as error:
            if len(entries) == 1:
                self._give_up(entries[0], error)
                return []
            # The other jobs' processes were killed with it, so the suspects run one by one.
            left = [entry for entry in entries if self._must_run(entry)]
            suspects = [e for e in left if _written_since(self._folder / e.folder, began)] or left
            error_blocks.show(
                error_blocks.format_block(
                    f"a process was killed; of {len(left)} jobs that are left, {len(suspects)} "
                    "run alone, to see whose it was"
                )
            )
            for entry in suspects:
                self._launch_once([entry], done)
            return [entry for entry in left if entry not in suspects]

    def _hand_on(self, entries: Sequence[plan.Entry]) -> Sequence[JobReturn]:
        # The processes of a launcher may have another current folder.
        folder = str(self._folder.absolute())
        words = [
            [
                *([] if self._session.replays else e.overrides),
                *map(overrides.assign, _PLACES, (folder, e.folder)),
            ]
            for e in entries
        ]
        typed = {str(entry.job): entry.overrides for entry in entries}

        def tell_of(row: dict[str, str]) -> None:
            if row["job"] in typed and row["job"] not in self.job.told:
                ending = sweep.JobRow(
                    int(row["job"]), row["status"], metrics=row, reason=row["reason"]
                )
                tell(ending, typed[row["job"]], self.job.swept)

        with watcher.watch_jobs(self._folder, tell_of), protect_import_path():
            return self._launcher.launch(words, initial_job_idx=entries[0].job)

    def _is_open(self, entry: plan.Entry) -> bool:
        return resuming.is_open(self._folder / entry.folder)

    def _must_run(self, entry: plan.Entry) -> bool:
        status = _status(self._folder / entry.folder)
        if status == sweep.FAILED:
            # A job without a configuration would fail in the same way again.
            return self._session.retries_failed and entry.values is not None
        return status not in resuming.ENDED

    def _result(self, entry: plan.Entry) -> JobReturn:
        """Makes the result of a job that was not launched."""
        done = JobReturn(overrides=entry.overrides, status=JobStatus.COMPLETED)
        with suppress(QuestionError):
            done.return_value = objective(
                folders.summary_of(self._folder / entry.folder), entry.config
            )
        return done

    def _give_up(self, entry: plan.Entry, error: BrokenExecutor) -> None:
        from vgexp import runs

        cause = str(error).strip().splitlines()[-1] if str(error).strip() else "no more is known"
        died = RuntimeError(f"its process was killed: {cause}")
        with suppress(QuestionError):
            runs.write_failure(self._folder / entry.folder, entry.config, died, self.job.verb)

    def _read_wanted(self, words: tuple[str, ...], number: int) -> plan.Wanted:
        with self._composer.compose(words, number) as composed:
            try:
                return plan.Wanted(words, to_config(composed))
            except Exception as error:
                return plan.Wanted(words, None, reason(error))

    def _folder_of(self, job: plan.Wanted, number: int) -> str:
        given = OmegaConf.to_container(self._config.hydra.sweep, resolve=False)
        if isinstance(given, dict) and given["subdir"] == _BY_NUMBER:
            return str(number)  # without the tenth of a second that Hydra takes
        with self._composer.compose(job.overrides, number, with_hydra=True):
            return str(HydraConfig.get().sweep.subdir)

    @cached_property
    def _composer(self) -> Composer:
        return Composer(self._context.config_loader, self._config)

    @property
    def _is_quiet(self) -> bool:
        return bool(OmegaConf.select(self._config, "output.quiet", default=False))

    @property
    def _has_all_jobs(self) -> bool:
        """Whether the sweeper passes all of its jobs at once."""
        sweeper = self._config.hydra.sweeper
        return sweeper.get("_target_") == GRID and sweeper.get("max_batch_size") is None

    def _tell(self, asked: Sequence[plan.Entry], open_jobs: Sequence[plan.Entry]) -> None:
        """Says once how many jobs of the plan had ended already, if any belonged to it before."""
        before = {entry.job for entry in self._session.plan.entries}
        is_search = not (self._session.replays or self._has_all_jobs)
        if self._told or is_search or not any(entry.job in before for entry in asked):
            return
        self._told = True
        new = sum(entry.job not in before for entry in open_jobs)
        to_do = {entry.job for entry in open_jobs}
        failed = [
            e
            for e in asked
            if e.job not in to_do and _status(self._folder / e.folder) == sweep.FAILED
        ]
        num_done = len(asked) - len(open_jobs)
        verb = "has" if num_done == 1 else "have"
        parts = [f"{num_done} of {len(asked)} jobs {verb} ended"]
        parts += [f"{len(failed)} of these failed"] if failed else []
        parts += [f"{len(open_jobs)} to do"] + ([f"{new} of these new"] if new else [])
        print(printable(f"going on with {self._folder}: {', '.join(parts)}"), flush=True)


class PlanSweeper(Sweeper):
    """Launches the jobs of a plan that have not ended."""

    def setup(self, *, hydra_context: HydraContext, task_function: Any, config: DictConfig) -> None:
        self._launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> list[JobReturn]:
        assert not arguments
        assert isinstance(self._launcher, PlannedLauncher)
        known = current_session().plan
        self._launcher.job.swept = find_differing_keys(known.entries)
        returned = self._launcher.launch_open(known.entries, known)
        for each in returned:
            _ = each.return_value  # raises what a job did not see to itself
        return returned


@contextmanager
def protect_import_path() -> Iterator[None]:
    """Within, a new Python process does not search the current folder for modules first.

    A launcher starts its processes with `python -m`, which a `types.py` of the user's would break.
    """
    before = os.environ.get(_SAFE_PATH)
    os.environ[_SAFE_PATH] = "1"
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(_SAFE_PATH, None)
        else:
            os.environ[_SAFE_PATH] = before


def _status(folder: Path) -> str:
    return str(folders.summary_of(folder).get("status", ""))


def _written_since(folder: Path, seconds: float) -> bool:
    return folder.is_dir() and any(p.lstat().st_mtime >= seconds for p in folder.iterdir())
