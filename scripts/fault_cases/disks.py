"""Disks: full ones, closed ones, and what is left on one when the power goes."""

from __future__ import annotations

import errno
import io
import os
import random
import re
import resource
import shutil
import stat
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fault_cases.children import (
    CONFIGURATIONS,
    Result,
    contents,
    finish,
    forked,
    is_one_block,
    said_by,
    train,
    whole,
)

ROOMY = "16m"
POWERED = ("momentum", "auto_accumulate", "no_checkpoints")
_SHORT = ("train.steps=33", "train.eval_every=10")


@contextmanager
def mounted(place: Path, size: str) -> Iterator[bool]:
    """A file system of its own in memory; False where this user may not mount one."""
    place.mkdir(exist_ok=True)
    is_there = os.geteuid() == 0 and _mount("-t", "tmpfs", "-o", f"size={size}", "tmpfs", place)
    try:
        yield is_there
    finally:
        if is_there:
            subprocess.run(["umount", "-l", str(place)], check=False)


def _mount(*words: object) -> bool:
    command = ["mount", *map(str, words)]
    with suppress(OSError):
        return subprocess.run(command, check=False, capture_output=True).returncode == 0
    return False


def full(work: Path, rng: random.Random, num_rounds: int) -> list[Result]:
    """A file system that fills up, and a limit on the size of files where one cannot be mounted."""
    small, limited = Result("a file system that fills up"), Result("a limit on the size of a file")
    known = {name: whole(name, work)[0] for name in CONFIGURATIONS}
    for index in range(num_rounds):
        name = list(CONFIGURATIONS)[index % len(CONFIGURATIONS)]
        with mounted(work / "small", f"{rng.randrange(12, 220, 4)}k") as is_there:
            if not is_there:
                small.skipped = "only root may mount one, and not everywhere"
                break
            folder = work / "small" / "run"
            child = forked(train(CONFIGURATIONS[name], folder), work / "said")
            _ended(child.wait(), child.words, folder, known[name], small, f"{name} {index}")
            _mount("-o", f"remount,size={ROOMY}", work / "small")
            _go_on(folder, name, known[name], work, small)
    for index in range(num_rounds):
        name = list(CONFIGURATIONS)[index % len(CONFIGURATIONS)]
        folder, limit = work / f"limited {index}", round(10 ** rng.uniform(2, 4.8))
        child = forked(
            train(CONFIGURATIONS[name], folder),
            work / "said",
            lambda limit=limit: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
        )
        # What it says goes into a file as well, and is cut short by the same limit.
        code = child.wait()
        words = child.words if len(child.words) < limit else ""
        _ended(code, words, folder, known[name], limited, f"{name} {index}")
        _go_on(folder, name, known[name], work, limited)
        shutil.rmtree(folder, ignore_errors=True)
    return [small, limited]


def _ended(
    code: int | None, words: str, folder: Path, expected: dict[str, bytes], r: Result, what: str
) -> None:
    """What a run leaves on a disk without room: an error, and tables of whole, right lines."""
    r.num_cases += 1
    r.require(code in (0, 1, 2), f"{what}: ended with {code}: {words}")
    r.require(not code or not words or is_one_block(words), f"{what}: said {words!r}")
    for table, recorded in contents(folder).items():
        is_right = expected[table].startswith(recorded)
        is_whole = not recorded or recorded.endswith(b"\n")
        r.require(is_right and is_whole, f"{what}: {table} is not the beginning of the right one")


def _go_on(folder: Path, name: str, expected: dict[str, bytes], work: Path, r: Result) -> None:
    if (folder / "config.yaml").exists():
        finish(folder, expected, work / "said", r, f"{r.name}, {name}")
    else:
        child = forked(train(CONFIGURATIONS[name], folder), work / "said")
        code = child.wait()
        r.require(code == 0, f"{r.name}, {name}: cannot be begun again: {code}: {child.words}")


def closed(work: Path, rng: random.Random, num_rounds: int) -> Result:
    """A file system that is read-only before a run, and one that becomes so during it."""
    result = Result("a file system that is read-only")
    known = {name: whole(name, work)[0] for name in CONFIGURATIONS}
    with mounted(work / "closed", ROOMY) as is_there:
        if not is_there:
            result.note = "during a run only: nobody else may mount one, permissions stop no root"
        for index in range(num_rounds):
            name = list(CONFIGURATIONS)[index % len(CONFIGURATIONS)]
            folder, argv = work / "closed" / f"run {index}", CONFIGURATIONS[name]
            if index % 3 == 0 and not is_there:
                continue
            if index % 3 == 0:
                folder.mkdir()
            else:
                # Linux does not close a file system under a process that writes in it.
                early = forked(train(argv, folder), work / "said", _closing(rng.randrange(5, 90)))
                code, what = early.wait(), f"closed during {name} {index}"
                _ended(code, early.words, folder, known[name], result, what)
            if not is_there:
                _go_on(folder, name, known[name], work, result)
                continue
            _mount("-o", "remount,ro", work / "closed")
            has_begun = (folder / "config.yaml").exists()
            again = ["resume", str(folder)] if has_begun else train(argv, folder)
            child = forked(again, work / "said")
            _ended(child.wait(), child.words, folder, known[name], result, f"{name} {index}")
            _mount("-o", "remount,rw", work / "closed")
            _go_on(folder, name, known[name], work, result)
    return result


def _closing(num_calls: int) -> Callable[[], None]:
    """Within a fork: after so many calls that write, the system refuses all of them."""

    def begin() -> None:
        left = [num_calls]

        def counted(call: Callable[..., Any], writes: Callable[..., bool]) -> Callable[..., Any]:
            def called(*args: Any, **keywords: Any) -> Any:
                if writes(*args):
                    left[0] -= 1
                    if left[0] < 0:
                        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(args[0]))
                return call(*args, **keywords)

            return called

        os.write = counted(os.write, lambda *_: True)
        os.open = counted(os.open, lambda _, flags, *__: bool(flags & (os.O_WRONLY | os.O_CREAT)))
        os.replace = counted(os.replace, lambda *_: True)
        os.unlink = counted(os.unlink, lambda *_: True)
        io.open = counted(io.open, lambda _, mode="r", *__: mode != "r" and mode != "rb")  # type: ignore[assignment]

    return begin


# ---------------------------------------------------------------- loss of power


@dataclass
class Disk:
    """What of a folder is surely on the disk itself, by what was asked of the system.

    A file's bytes are when it was synced, a name is when its folder was. Of bytes that came later
    any part may be there, or zeros; of changes of names the first few, for file systems of today
    keep them in order. `after_a_loss` draws one such state.
    """

    folder: Path
    bytes_of: dict[int, bytes] = field(default_factory=dict)
    """Inode -> content when it was last synced."""
    names: list[dict[str, int]] = field(default_factory=lambda: [{}])
    """Name -> inode, when the folder was last synced and after each change since."""
    held: dict[int, int] = field(default_factory=dict)
    """Inode -> open descriptor: a number in use is not given to another file."""

    def notice(self, descriptor: int) -> None:
        """A file or a folder was synced."""
        self.hold()
        found = os.fstat(descriptor)
        if stat.S_ISDIR(found.st_mode):
            is_ours = self.folder.exists() and os.path.samestat(found, self.folder.stat())
            self.names = [self._listed()] if is_ours else self.names
        elif found.st_ino in self.held:
            self.bytes_of[found.st_ino] = self._content(found.st_ino)

    def hold(self) -> None:
        """Keeps every file of the folder, so that one that is replaced can still be read."""
        listed = self._listed()
        if listed != self.names[-1]:
            self.names.append(listed)
        for name, inode in listed.items():
            if inode not in self.held:
                self.held[inode] = os.open(self.folder / name, os.O_RDONLY)

    def after_a_loss(self, rng: random.Random) -> dict[str, bytes]:
        """The files that may be found when the power is back, were it to go now."""
        self.hold()
        return {name: self._left(inode, rng) for name, inode in rng.choice(self.names).items()}

    def _left(self, inode: int, rng: random.Random) -> bytes:
        sure, now = self.bytes_of.get(inode, b""), self._content(inode)
        if not now.startswith(sure):
            return rng.choice((sure, now))
        unsure = now[len(sure) :]
        end = rng.choice((0, len(unsure), rng.randrange(len(unsure) + 1)))
        kept = unsure[:end]
        if rng.random() < 0.3:
            kept = kept[: end // 2] + bytes(end - end // 2)
        return sure + kept

    def _listed(self) -> dict[str, int]:
        if not self.folder.exists():
            return {}
        return {e.name: e.inode() for e in os.scandir(self.folder) if e.is_file()}

    def _content(self, inode: int) -> bytes:
        descriptor = self.held[inode]
        return os.pread(descriptor, os.fstat(descriptor).st_size, 0)


def power(work: Path, rng: random.Random, num_variants: float) -> Result:
    """The power goes at every moment at which something is asked of the disk. Use it in a fork.

    Args:
        num_variants: states of the disk for each moment, on average.
    """
    result, seen = Result("power lost at every sync and rename (simulated)"), Counter[str]()
    for name in POWERED:
        folder, states = work / f"powered {name}", work / f"states {name}"
        states.mkdir()
        watch = _watch(folder, states, rng, num_variants)
        argv = train([*CONFIGURATIONS[name], *_SHORT], folder)
        child = forked(argv, work / "said", watch)
        result.require(child.wait() == 0, f"{name}: {child.words[-500:]}")
        expected = contents(folder)
        for state in sorted(states.iterdir()):
            result.num_cases += 1
            _back(state, expected, result, seen)
    result.note = ", ".join(f"{count} {phase}" for phase, count in sorted(seen.items()))
    return result


def _back(state: Path, expected: dict[str, bytes], result: Result, seen: Counter[str]) -> None:
    """The power is back: what is found must be gone on with, from the last checkpoint at least."""
    saved = int((state / "saved_step").read_text())
    if not (state / "config.yaml").exists():
        result.require(not saved, f"{state}: the configuration is lost after step {saved}")
        seen["before the run began"] += 1
        return
    code, words = said_by(["resume", str(state)])
    result.require(code == 0, f"{state}: resume ended with {code}: {words[-300:]}")
    result.require(contents(state) == expected, f"{state}: the tables differ")
    step = re.search(r"going on from step (\d+)", words)
    began = int(step[1]) if step else 0
    if "has ended" in words:
        seen["after the end"] += 1
        return
    seen["from a checkpoint" if began else "from the beginning"] += 1
    result.require(began >= saved, f"{state}: step {saved} was saved, but it began at {began}")


def _watch(
    folder: Path, states: Path, rng: random.Random, num_variants: float
) -> Callable[[], None]:
    """Within a fork: keeps what a loss of power may leave, at each sync and rename."""

    def begin() -> None:
        from vgexp import checkpoints

        disk, saved = Disk(folder), [0]
        sync, replace, save = os.fsync, Path.replace, checkpoints.save

        def lose() -> None:
            for _ in range(int(num_variants + rng.random())):
                place = states / f"{sum(1 for _ in states.iterdir()):05d}"
                place.mkdir()
                for name, content in disk.after_a_loss(rng).items():
                    (place / name).write_bytes(content)
                (place / "saved_step").write_text(str(saved[0]))

        def synced(descriptor: int) -> None:
            lose()
            sync(descriptor)
            disk.notice(descriptor)
            lose()

        def replaced(path: Path, target: Any) -> Path:
            disk.hold()
            done = replace(path, target)
            lose()
            return done

        def kept(where: Path, checkpoint: checkpoints.Checkpoint) -> None:
            save(where, checkpoint)
            saved[0] = checkpoint.step

        os.fsync, checkpoints.save = synced, kept
        Path.replace = replaced  # type: ignore[method-assign, assignment]

    return begin
