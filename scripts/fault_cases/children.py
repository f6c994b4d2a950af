"""Processes of the real command line, to be killed, and runs to compare with.

A child is a new interpreter (`python -m vgexp`), or a fork of this process that has imported torch
already and then does all else itself: arguments, configuration, training, files, signals. That
saves two seconds a child; of a kill during imports only a new interpreter can tell.
"""

from __future__ import annotations

import io
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import vgexp.assembly
import vgexp.cli.hydra_entry
import vgexp.diagnosis
import vgexp.report.terminal
import vgexp.runs
import vgexp.sinks
import vgexp.tables  # noqa: F401 - imported here, once, for every fork
from vgexp.cli import main

EXACT = ("layers.csv", "steps.csv", "evals.csv")
"""Tables that are promised to be equal byte for byte."""
NUM_STEPS = 120
PATIENCE_SECONDS = 120.0
"""What takes longer hangs."""
BASE = (
    *("data=gaussian", "data.num_examples=256", "data.batch_size=16", "device=cpu"),
    *("model.depth=4", "model.width=16", "model.activation=tanh", f"train.steps={NUM_STEPS}"),
    *("train.eval_every=40", "probe.every=3", "probe.activations_every=5", "output.quiet=true"),
)
CONFIGURATIONS: dict[str, tuple[str, ...]] = {
    "momentum": ("optimizer=momentum", "run.checkpoint_every=5"),
    "adam": ("optimizer=adam", "scheduler=warmup_cosine", "run.checkpoint_every=20"),
    "batch_norm_float64": ("model.norm=batch", "dtype=float64", "run.checkpoint_every=3"),
    "auto_accumulate": ("clip=auto", "train.accumulate=2", "run.checkpoint_every=10"),
    "every_step": ("optimizer=rmsprop", "optimizer.lr=0.001", "run.checkpoint_every=1"),
    "no_checkpoints": ("scheduler=plateau", "run.checkpoint_every=0"),
}
"""Name -> overrides."""


@dataclass
class Result:
    """One line of the table of figures."""

    name: str
    num_cases: int = 0
    broken: list[str] = field(default_factory=list)
    """A promise that was not kept, in words; empty: all is well."""
    note: str = ""
    skipped: str = ""
    """Why nothing was tried."""

    def require(self, holds: bool, otherwise: str) -> bool:
        """Notes a promise that does not hold."""
        if not holds:
            self.broken.append(otherwise)
        return holds


@dataclass
class Child:
    """A process, what it says, and how it ends."""

    pid: int
    said: Path
    popen: subprocess.Popen[bytes] | None = None
    code: int | None = None

    def poll(self) -> int | None:
        """The exit code, a signal's number negative; None while it runs."""
        if self.code is None and self.popen is not None:
            self.code = self.popen.poll()
        elif self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.code = os.waitstatus_to_exitcode(status) if pid else None
        return self.code

    def wait(self, seconds: float = PATIENCE_SECONDS) -> int | None:
        """The exit code; None where it did not end in time (it is killed then)."""
        if self.until(lambda: False, seconds) or self.code is not None:
            return self.code
        self.send(signal.SIGKILL)
        self.until(lambda: False, PATIENCE_SECONDS)
        return None

    def until(self, reached: Callable[[], bool], seconds: float = PATIENCE_SECONDS) -> bool:
        """Waits until something is so; False where the child ended or the time was up before."""
        end = time.monotonic() + seconds
        while self.poll() is None and time.monotonic() < end:
            if reached():
                return True
            time.sleep(0.001)
        return False

    def send(self, number: signal.Signals) -> None:
        """A signal, if it still runs."""
        if self.poll() is None:
            os.kill(self.pid, number)

    @property
    def words(self) -> str:
        """Everything it has said on both streams."""
        return self.said.read_text(errors="replace")


def real(argv: Sequence[str], said: Path) -> Child:
    """`python -m vgexp ARGV...`, a new interpreter."""
    with said.open("wb") as file:
        command = [sys.executable, "-m", "vgexp", *argv]
        popen = subprocess.Popen(command, stdout=file, stderr=file, stdin=subprocess.DEVNULL)
    return Child(popen.pid, said, popen)


def forked(argv: Sequence[str], said: Path, before: Callable[[], object] | None = None) -> Child:
    """The same in a fork of this process, after `before`."""
    said.write_bytes(b"")
    _warm()
    pid = os.fork()
    if pid:
        return Child(pid, said)
    code = 70
    try:
        descriptor = os.open(said, os.O_WRONLY | os.O_APPEND)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115 - the stream itself
        sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
        if before is not None:
            before()
        code = main.main(list(argv))
        sys.stdout.flush()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


@cache
def _warm() -> None:
    """Has Hydra look for its plugins here, once; nothing is trained."""
    with suppress(SystemExit):
        said_by(["train", "--cfg", "job"])


def train(overrides: Sequence[str], folder: Path) -> list[str]:
    """The command line of a small run."""
    return ["train", *BASE, *overrides, f"hydra.run.dir={folder}"]


def contents(folder: Path) -> dict[str, bytes]:
    """The tables that are promised; those that are not there are left out."""
    return {n: (folder / n).read_bytes() for n in EXACT if (folder / n).is_file()}


def said_by(argv: Sequence[str]) -> tuple[int, str]:
    """What one command line ends with and says, in this very process; use it in a fork."""
    stream = io.StringIO()
    signal.alarm(round(PATIENCE_SECONDS))
    try:
        with redirect_stdout(stream), redirect_stderr(stream):
            code = main.main(list(argv))
    except BaseException:
        return 70, stream.getvalue() + traceback.format_exc()
    finally:
        signal.alarm(0)
    return code, stream.getvalue()


def within_a_fork(work: Callable[[], list[Result]], said: Path) -> list[Result]:
    """Results that are worked out in a fork, so that this process never trains."""
    kept = said.with_name("result")
    kept.unlink(missing_ok=True)
    child = forked([], said, lambda: kept.write_bytes(pickle.dumps(work())))
    child.wait(3600)
    assert kept.is_file(), child.words
    results: list[Result] = pickle.loads(kept.read_bytes())
    return results


def whole(name: str, work: Path) -> tuple[dict[str, bytes], float]:
    """The tables of a configuration that nothing happened to, and the seconds it took."""
    folder = work / f"whole {name}"
    shutil.rmtree(folder, ignore_errors=True)
    start = time.monotonic()
    code = forked(train(CONFIGURATIONS[name], folder), work / "said").wait()
    assert code == 0, (work / "said").read_text()
    return contents(folder), time.monotonic() - start


def is_one_block(words: str) -> bool:
    """Whether an error was told as it should be: once, and without a traceback."""
    headlines = sum(line.startswith("error: ") for line in words.splitlines())
    return headlines == 1 and "Traceback" not in words


def finish(folder: Path, expected: dict[str, bytes], said: Path, result: Result, what: str) -> None:
    """Resumes a run to its end and compares its tables."""
    child = forked(["resume", str(folder)], said)
    code = child.wait()
    result.require(code == 0, f"{what}: resume ended with {code}: {child.words[-300:]}")
    if code == 0:
        result.require(contents(folder) == expected, f"{what}: the tables differ")
