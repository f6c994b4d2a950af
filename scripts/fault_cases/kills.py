"""Processes that are killed, terminated, interrupted, or not alone."""

from __future__ import annotations

import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from fault_cases.children import (
    CONFIGURATIONS,
    Child,
    Result,
    contents,
    finish,
    forked,
    is_one_block,
    real,
    train,
    whole,
)
from vgexp import resuming

FORKED = "killed at random moments (forks)"
REAL = "killed at random moments (python -m vgexp)"
_LONG = ("train.steps=4000", "probe.every=100", "probe.activations_every=100")


def kills(work: Path, rng: random.Random, num_kills: int, *, new: bool = False) -> Result:
    """SIGKILL at any moment from the start to the end, and again while resuming.

    Every second time the run itself has begun, so that not all of it falls into the start.
    """
    result, seen = Result(REAL if new else FORKED), Counter[str]()
    start = real if new else forked
    names = list(CONFIGURATIONS)
    known = {name: min((whole(name, work) for _ in range(2)), key=_seconds) for name in names}
    if new:
        begin = time.monotonic()
        real(train(CONFIGURATIONS[names[0]], work / "timed"), work / "said").wait()
        extra = time.monotonic() - begin - known[names[0]][1]
    for index in range(num_kills):
        name = names[index % len(names)]
        expected, seconds = known[name]
        folder = work / f"killed {index}"
        child = start(train(CONFIGURATIONS[name], folder), work / "said")
        if index % 2:
            child.until(lambda folder=folder: (folder / "config.yaml").exists())
            child.until(lambda: False, rng.uniform(0, 0.7) * seconds)
        else:
            child.until(lambda: False, rng.uniform(0, 1) * (seconds + (extra if new else 0)))
        child.send(signal.SIGKILL)
        child.wait()
        seen[_phase(folder, child)] += 1
        while rng.random() < 0.4 and (folder / "config.yaml").exists():
            child = start(["resume", str(folder)], work / "said")
            child.until(lambda: False, rng.uniform(0, 1.1) * seconds)
            child.send(signal.SIGKILL)
            child.wait()
            seen["again while resuming"] += 1
        _end(folder, name, expected, work, result)
        result.num_cases += 1
    result.note = ", ".join(f"{count} {phase}" for phase, count in sorted(seen.items()))
    return result


def _seconds(run: tuple[dict[str, bytes], float]) -> float:
    return run[1]


def _phase(folder: Path, child: Child) -> str:
    if child.code == 0:
        return "after the end"
    if not (folder / "config.yaml").exists():
        return "before the run began"
    is_saved = any((folder / n).exists() for n in ("checkpoint.pt", "checkpoint.previous.pt"))
    return "after a checkpoint" if is_saved else "before a checkpoint"


def _end(folder: Path, name: str, expected: dict[str, bytes], work: Path, result: Result) -> None:
    """Resumes; where there is nothing to resume yet, the same command line has to do."""
    what = f"{folder.name} ({name})"
    if (folder / "config.yaml").exists():
        finish(folder, expected, work / "said", result, what)
    else:
        code = forked(train(CONFIGURATIONS[name], folder), work / "said").wait()
        result.require(code == 0, f"{what}: cannot be begun again: {code}")
        result.require(contents(folder) == expected, f"{what}: begun again, the tables differ")
    shutil.rmtree(folder, ignore_errors=True)


def signals(work: Path, rng: random.Random, num_rounds: int) -> list[Result]:
    """SIGTERM as a cluster sends it, Ctrl-C, and an impatient second one."""
    kinds = {
        "SIGTERM": ([signal.SIGTERM], 143),
        "Ctrl-C": ([signal.SIGINT], 130),
        "SIGTERM twice": ([signal.SIGTERM] * 2, 143),
    }
    results = []
    known = {name: whole(name, work)[0] for name in CONFIGURATIONS}
    for kind, (numbers, code) in kinds.items():
        result = Result(f"{kind}, exit {code}")
        for index in range(num_rounds):
            name = list(CONFIGURATIONS)[index % len(CONFIGURATIONS)]
            folder = work / f"signalled {index}"
            child = forked(train(CONFIGURATIONS[name], folder), work / "said")
            _signal(child, folder, numbers, rng)
            ended = child.wait()
            what = f"{kind} {index} ({name})"
            if result.require(ended in (code, 0), f"{what}: ended with {ended}: {child.words}"):
                result.num_cases += 1
                is_open = resuming.is_open(folder)
                if is_open and len(numbers) == 1 and _num_lines(folder) > 1:
                    has_one = (folder / "checkpoint.pt").exists()
                    result.require(has_one, f"{what}: there is no checkpoint")
                finish(folder, known[name], work / "said", result, what)
            shutil.rmtree(folder, ignore_errors=True)
        results.append(result)
    return results


def _signal(
    child: Child, folder: Path, numbers: Sequence[signal.Signals], rng: random.Random
) -> None:
    child.until(lambda: _num_lines(folder) > 0)
    child.until(lambda: False, rng.uniform(0, 0.2))
    for number in numbers:
        child.send(number)
        child.until(lambda: False, rng.uniform(0, 0.03))


def _num_lines(folder: Path) -> int:
    path = folder / "steps.csv"
    return path.read_bytes().count(b"\n") if path.is_file() else 0


def two_processes(work: Path, num_rounds: int) -> Result:
    """A second process in one folder is refused, and the first does not notice."""
    result = Result("two processes in one run folder")
    name = "adam"
    overrides = [*CONFIGURATIONS[name], *_LONG]
    once = work / "once"
    forked(train(overrides, once), work / "said").wait()
    for index in range(num_rounds):
        folder = work / f"shared {index}"
        first = forked(train(overrides, folder), work / "first")
        is_there = first.until(lambda folder=folder: (folder / "config.yaml").exists())
        result.require(is_there, f"round {index}: the first ended at once: {first.words}")
        for argv in (["resume", str(folder)], train(CONFIGURATIONS["momentum"], folder)):
            _refused(argv, work, result, f"round {index}")
        result.require(first.wait() == 0, f"round {index}: the first failed: {first.words}")
        result.require(contents(folder) == contents(once), f"round {index}: the tables differ")
        result.num_cases += 2
        shutil.rmtree(folder)
    return result


def begun_at_once(work: Path, num_rounds: int) -> Result:
    """Two equal commands at the same moment in a folder that is not there yet."""
    result = Result("two processes that begin one folder")
    name = "momentum"
    expected, _ = whole(name, work)
    seen = Counter[str]()
    for index in range(num_rounds):
        folder = work / f"raced {index}"
        argv = train(CONFIGURATIONS[name], folder)
        both = [forked(argv, work / f"said {number}") for number in range(2)]
        codes = sorted(str(child.wait()) for child in both)
        words = " | ".join(child.words[-300:] for child in both)
        seen[" and ".join(codes)] += 1
        result.require(codes == ["0", "2"], f"race {index}: exit codes {codes}: {words}")
        result.require(contents(folder) == expected, f"race {index}: the tables differ")
        result.num_cases += 1
        for child in both:
            child.said.unlink()
        shutil.rmtree(folder, ignore_errors=True)
    result.note = ", ".join(f"exit {codes}: {count}" for codes, count in seen.items())
    return result


def _refused(argv: list[str], work: Path, result: Result, what: str) -> None:
    said = work / "second"
    second = forked(argv, said)
    code = second.wait()
    result.require(code == 2, f"{what}: {argv[0]} was not refused but ended with {code}")
    result.require(is_one_block(second.words), f"{what}: {argv[0]} said {second.words!r}")
