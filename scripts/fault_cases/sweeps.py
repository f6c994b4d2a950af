"""Sweeps that are killed, here and in the processes of a launcher, and gone on with."""

from __future__ import annotations

import csv
import os
import random
import shutil
import signal
import time
from collections import Counter
from pathlib import Path

from fault_cases.children import BASE, EXACT, Child, Result, forked, real
from vgexp.sweep import plan, plan_file

DIFFERING = {"seconds", "processor_seconds_per_step", "probe_overhead", "host"}
"""Columns of `sweep.csv` of which nothing is promised."""
GRID = (*BASE, "model.width=8,16", "seed=1,2,3", "run.checkpoint_every=5")
PATIENCE_SECONDS = 90.0


def killed(work: Path, rng: random.Random, num_kills: int) -> Result:
    """SIGKILL at any moment of a sweep, and again while it is gone on with."""
    result, seen = Result("sweeps killed at random moments (forks)"), Counter[str]()
    expected, seconds = _whole(work)
    for index in range(num_kills):
        folder = work / f"killed {index}"
        child = forked(_train(folder), work / "said")
        _kill(child, rng.uniform(0, 1) * seconds)
        seen[_phase(folder)] += 1
        while rng.random() < 0.5 and (folder / plan.FILE).exists():
            _kill(forked(["resume", str(folder)], work / "said"), rng.uniform(0, 1) * seconds)
            seen["again while resuming"] += 1
        # The command typed again must do as well.
        again = ["resume", str(folder)] if index % 2 else _train(folder)
        if not (folder / plan.FILE).exists():
            again = _train(folder)
        code = forked(again, work / "said").wait()
        words = (work / "said").read_text()[-300:]
        if result.require(code == 0, f"{folder.name}: {again[0]} ended with {code}: {words}"):
            _require_equal(folder, expected, result)
        result.num_cases += 1
        shutil.rmtree(folder)
    result.note = _told(seen)
    return result


def killed_in_parallel(work: Path, rng: random.Random, num_kills: int) -> Result:
    """The same with a pool of processes: the command, one of its workers, or all are killed."""
    result, seen = Result("sweeps by joblib killed (python -m vgexp)"), Counter[str]()
    expected, _ = _whole(work)
    victims = ("the command", "one worker", "all")
    for index in range(num_kills):
        folder, victim = work / f"killed {index}", victims[index % len(victims)]
        pool = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "train.steps=1500"]
        words = [word for word in _train(folder) if not word.startswith("train.steps=")]
        child = real([*words, *pool], work / "said")
        begun = child.until(lambda folder=folder: any(folder.glob("*/steps.csv")))
        result.require(begun, f"{folder.name}: no job began: {child.words[-300:]}")
        child.until(lambda: False, rng.uniform(0, 2))
        workers = _workers(child.pid)
        targets = {"the command": [child.pid], "one worker": workers[-1:], "all": workers}[victim]
        for pid in [*targets, *([child.pid] if victim == "all" else [])]:
            os.kill(pid, signal.SIGKILL)
        code = child.wait()
        seen[victim] += 1
        if victim == "one worker":
            result.require(code == 0, f"{folder.name}: a killed worker ended it with {code}")
        _resume_until_done(folder, work / "said", result)
        _require_equal(folder, expected, result, steps=1500)
        result.num_cases += 1
        shutil.rmtree(folder)
    result.note = _told(seen)
    return result


def _train(folder: Path) -> list[str]:
    return ["train", "-m", *GRID, f"hydra.sweep.dir='{folder}'"]


def _kill(child: Child, seconds: float) -> None:
    child.until(lambda: False, seconds)
    child.send(signal.SIGKILL)
    child.wait()


def _whole(work: Path) -> tuple[Path, float]:
    """A sweep that nothing happened to, and the seconds that it took."""
    folder = work / "whole"
    seconds = 0.0
    for _ in range(2):  # the second time everything is loaded
        shutil.rmtree(folder, ignore_errors=True)
        start = time.monotonic()
        code = forked(_train(folder), work / "said").wait()
        seconds = time.monotonic() - start
        assert code == 0, (work / "said").read_text()
    return folder, seconds


def _phase(folder: Path) -> str:
    known = plan_file.read(folder)
    if known is None or not known.entries:
        return "before the plan"
    ended = sum((folder / entry.folder / "summary.json").exists() for entry in known.entries)
    return "after the end" if ended == len(known.entries) else "among the jobs"


def _resume_until_done(folder: Path, said: Path, result: Result) -> None:
    """Workers whose command was killed may still be at their jobs, which are left to them."""
    end = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < end:
        child = forked(["resume", str(folder), "hydra/launcher=basic"], said)
        if child.wait() == 0:
            return
        time.sleep(0.2)
    result.require(False, f"{folder.name}: it does not end: {child.words[-300:]}")


def _require_equal(folder: Path, expected: Path, result: Result, steps: int | None = None) -> None:
    """Requires the rows and tables of a sweep that nothing happened to."""
    if steps is not None:
        longer = expected.with_name(f"whole of {steps}")
        if not longer.exists():
            words = [w for w in _train(longer) if not w.startswith("train.steps=")]
            code = forked([*words, f"train.steps={steps}"], expected.parent / "said").wait()
            assert code == 0
        expected = longer
    result.require(_rows(folder) == _rows(expected), f"{folder.name}: sweep.csv differs")
    for job in (path for path in expected.iterdir() if path.is_dir()):
        for name in EXACT:
            mine, other = (each / job.name / name for each in (folder, expected))
            same = mine.is_file() and mine.read_bytes() == other.read_bytes()
            result.require(same, f"{folder.name}: {job.name}/{name} differs")


def _rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "sweep.csv").open(newline="", encoding="utf-8") as file:
        return [
            {k: v for k, v in row.items() if k not in DIFFERING} for row in csv.DictReader(file)
        ]


def _workers(pid: int) -> list[int]:
    """The processes of a pool whose parent that is."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            parent = int(process.joinpath("stat").read_text().rsplit(")", 1)[1].split()[1])
            if parent == pid and b"LokyProcess" in process.joinpath("cmdline").read_bytes():
                found.append(int(process.name))
        except OSError:  # it has just gone
            continue
    return sorted(found)


def _told(seen: Counter[str]) -> str:
    return ", ".join(f"{count} {phase}" for phase, count in sorted(seen.items()))
