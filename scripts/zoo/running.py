"""Runs the zoo: every configuration and loop, each seed, the sick ones also cured."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import multiprocessing
import os
import shutil
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from zoo.presets import SETS, read_presets

ROOT = Path(__file__).parents[2]
RUNS = ROOT / "outputs" / "zoo"
PRESET, LOOP = "presets", "loops"
_RULES = ROOT / "src" / "vgexp" / "diagnosis"


@dataclass(frozen=True)
class Job:
    """One training: of a configuration (`presets`) or of a loop (`loops`)."""

    kind: str
    name: str
    half: str
    truth: tuple[str, ...]
    seed: int
    cured: bool = False

    @property
    def place(self) -> Path:
        """The run folder, or of a loop the file with its line."""
        name = f"{self.seed}-cured" if self.cured else str(self.seed)
        folder = RUNS / self.kind / self.name
        return folder / name if self.kind == PRESET else folder / f"{name}.json"

    @property
    def has_result(self) -> bool:
        """Whether it was trained to its end."""
        return (self.place / "summary.json" if self.kind == PRESET else self.place).is_file()

    @property
    def has_ended(self) -> bool:
        """Whether it need not be run again.

        A loop is diagnosed as it runs: one that other rules judged has to be run again.
        """
        if self.kind == PRESET or not self.has_result:
            return self.has_result
        line = json.loads(self.place.read_text(encoding="utf-8"))
        return self.cured or line.get("rules") == hash_of_rules()


def list_jobs(
    seeds: Iterable[int], halves: Iterable[str] = SETS, kinds: Iterable[str] = (PRESET, LOOP)
) -> list[Job]:
    """The trainings of these halves and kinds; a cured twin for each sick one."""
    members = [each for kind in kinds for each in _MEMBERS[kind]() if each[2] in halves]
    seeds = [*seeds]
    return [
        Job(*each, seed, cured)
        for cured in (False, True)
        for seed in seeds
        for each in members
        if each[3] or not cured
    ]


def run_jobs(jobs: Iterable[Job], num_processes: int = 2) -> None:
    """Runs those that have not ended, and says each as it ends."""
    waiting = [job for job in jobs if not job.has_ended]
    print(f"{len(waiting)} trainings to do", flush=True)
    os.environ["OMP_NUM_THREADS"] = "1"
    context = multiprocessing.get_context("spawn")
    with context.Pool(num_processes, maxtasksperchild=100) as pool:
        for count, (job, problem) in enumerate(pool.imap_unordered(run_job, waiting), 1):
            end = f" failed: {problem}" if problem else ""
            cured = " cured" if job.cured else ""
            print(f"{count}/{len(waiting)} {job.name} seed {job.seed}{cured}{end}", flush=True)


def run_job(job: Job) -> tuple[Job, str]:
    """Runs one; returns it with what went wrong, or with nothing."""
    import torch

    torch.set_num_threads(1)
    try:
        problem = _run_preset(job) if job.kind == PRESET else _run_loop(job)
    except Exception as error:  # one that fails must not end the others
        problem = f"{type(error).__name__}: {error}"
    return job, problem.strip().replace("\n", " ")[-300:]


def words_of(job: Job) -> list[str]:
    """The command of a configuration's training, behind `vgexp`."""
    cure = read_presets()[job.name].cure if job.cured else ()
    ends = ["output.quiet=true", "output.figures=false", f"hydra.run.dir={job.place}"]
    return ["train", f"+zoo={job.name}", *cure, f"seed={job.seed}", "device=cpu", *ends]


def hash_of_rules() -> str:
    """A hash of the source of the diagnosis."""
    total = hashlib.sha256()
    for path in sorted(_RULES.rglob("*.py")):
        total.update(path.read_bytes())
    return total.hexdigest()[:16]


def _run_preset(job: Job) -> str:
    from vgexp.cli.main import main

    shutil.rmtree(job.place, ignore_errors=True)  # what an interrupted training has left
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        main(words_of(job))
    return "" if job.has_ended else said.getvalue()


def _run_loop(job: Job) -> str:
    from zoo.one_loop import line_of

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        line = {**line_of(job.name, job.seed, cured=job.cured), "rules": hash_of_rules()}
    job.place.parent.mkdir(parents=True, exist_ok=True)
    job.place.write_text(json.dumps(line), encoding="utf-8")
    return ""


_Member = tuple[str, str, str, tuple[str, ...]]


def _presets() -> list[_Member]:
    return [(PRESET, each.name, each.half, each.truth) for each in read_presets().values()]


def _loops() -> list[_Member]:
    from zoo.loops import LOOPS

    found = []
    for loop in LOOPS.values():
        truth = (loop.truth,) if isinstance(loop.truth, str) else tuple(loop.truth)
        found.append((LOOP, loop.name, loop.half, truth if loop.is_sick else ()))
    return found


_MEMBERS = {PRESET: _presets, LOOP: _loops}
