"""Every test runs on one thread and, but for those of CUDA, on CPU, whatever machine it is on."""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

# Before numpy and torch are imported; processes that tests start inherit it.
os.environ.update(
    dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
)

import pytest
import torch

from vgexp.runs import making, start

torch.set_num_threads(1)

_SIGNALS = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
if hasattr(signal, "SIGHUP"):
    _SIGNALS[signal.SIGHUP] = signal.SIG_DFL


def pytest_collection(session: pytest.Session) -> None:
    """The second of two workers imports the test files from the last on, before they are collected.

    Each file's asserts are rewritten by whoever imports it first, and kept in `__pycache__`: two
    workers that begin at opposite ends rewrite half of the files each, not all of them twice. What
    cannot be imported is told when it is collected.
    """
    if os.environ.get("PYTEST_XDIST_WORKER") != "gw1" or sys.dont_write_bytecode:
        return
    asked = [Path(session.config.rootpath, each.partition("::")[0]) for each in session.config.args]
    for path in sorted(Path(__file__).parent.rglob("test_*.py"), reverse=True):
        if any(path.is_relative_to(each) for each in asked):
            if str(path.parent) not in sys.path:
                sys.path.insert(0, str(path.parent))
            with suppress(Exception, pytest.skip.Exception):
                import_module(path.stem)


def pytest_collection_finish() -> None:
    """What is imported and collected by now stays: it is not searched for garbage again.

    Nor does a process that a test forks copy it, as it would to search it.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _surroundings(request: pytest.FixtureRequest) -> Iterator[None]:
    """What every test has around it, in one fixture, since thousands of tests set it up.

    A device of `auto` is the CPU, but in tests of CUDA. Runs draw no figures, which would take
    longer than they do, but in tests about them. Signals do what they do in a command that is
    typed: a shell starts commands in the background with SIGINT ignored, `nohup` with SIGHUP.
    """
    changed: list[tuple[Any, str, Any]] = []
    if request.module.__name__ != "test_cuda":
        changed.append((torch.cuda, "is_available", lambda: False))
    if not request.node.get_closest_marker("figures"):
        changed += [(module, "draw_figures", lambda *_, **__: 0) for module in (making, start)]
    before = [getattr(owner, name) for owner, name, _ in changed]
    for owner, name, value in changed:
        setattr(owner, name, value)
    found = {number: signal.getsignal(number) for number in _SIGNALS}
    for number, handler in _SIGNALS.items():
        if found[number] is not handler:
            signal.signal(number, handler)
    yield
    for number, was in found.items():
        if signal.getsignal(number) is not was:
            signal.signal(number, was)
    for (owner, name, _), value in zip(changed, before, strict=True):
        setattr(owner, name, value)


@pytest.fixture
def user_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder, in which code can be written; what is imported from it is forgotten."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = dict(sys.modules)
    yield tmp_path
    # The others are not asked for their file: some load themselves where they are asked.
    new = [(name, module) for name, module in sys.modules.items() if before.get(name) is not module]
    for name, module in new:
        if str(getattr(module, "__file__", None)).startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.fixture
def nothing_hangs() -> Iterator[None]:
    """What never ends, such as a read that waits for ever, fails instead."""

    def give_up(*_: object) -> None:
        raise TimeoutError("it never ends")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(120)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def seeded() -> Iterator[None]:
    """Draws from seed 0, and leaves the generator as it was."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield
