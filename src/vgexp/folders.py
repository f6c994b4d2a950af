"""Run folders: who may write there, and files that are whole or not there at all."""

from __future__ import annotations

import errno
import json
import os
import re
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from vgexp import config as configuration
from vgexp import files
from vgexp.config import Config
from vgexp.errors import QuestionError, one_line
from vgexp.quantities import TABLES

CONFIG = "config.yaml"
SUMMARY = "summary.json"
CHECKPOINT = "checkpoint.pt"
PREVIOUS_CHECKPOINT = "checkpoint.previous.pt"
FIGURES = "figures"
TRAIN, SIGNAL = "train", "signal"
"""What a folder is the work of."""
MOST_CONFIG_BYTES = 2**22
MOST_SUMMARY_BYTES = 2**24
MOST_SWEEP_BYTES = 2**28
"""What is longer was not written by vgexp, and is not read."""
_ATTEMPTS = 100
_SETTLING_SECONDS = 600
"""After so long a system has long written what nobody waits for."""
_TEMPORARY = ".{}.new"
_REPLACED = (CONFIG, SUMMARY, CHECKPOINT)
"""Files beside which a temporary one is written."""
_OWN_FILES = (*_REPLACED, PREVIOUS_CHECKPOINT, f"{TRAIN}.log", f"{SIGNAL}.log")
_HYDRAS = ".hydra"
_OF_HYDRA = ("config.yaml", "hydra.yaml", "overrides.yaml")
_CHUNK_BYTES = 2**20
_VERB = re.compile(r"^# verb: (\w+)$", re.MULTILINE)
_SEAL = re.compile(r"^# identity: (\w+)$", re.MULTILINE)


class Prefix(NamedTuple):
    """The beginning of a file: how long it is, and a sum of every byte of it."""

    num_bytes: int
    crc32: int
    """Goes on over bytes that are added, and differs wherever 32 bits in a row are changed."""


def prefix_of(path: Path, num_bytes: int) -> Prefix:
    """The first bytes of a file, fewer where it is shorter; none where there is no file."""
    found = Prefix(0, 0)
    if not files.exists(path):
        return found
    with files.open_to_read(path) as file:
        while chunk := file.read(min(_CHUNK_BYTES, num_bytes - found.num_bytes)):
            found = Prefix(found.num_bytes + len(chunk), zlib.crc32(chunk, found.crc32))
    return found


def beginning_of(path: Path, num_bytes: int) -> bytes:
    """The first bytes of a file, fewer where it is shorter."""
    with files.open_to_read(path) as file:
        return file.read(min(num_bytes, os.fstat(file.fileno()).st_size))


class OccupiedError(QuestionError):
    """Another process writes the run."""


def require_own(folder: Path) -> None:
    """Refuses a folder in which a link, a device or the like has the name of a run's own file.

    Whatever goes on with a run asks this before it changes anything. The folder itself may be a
    link: it is the user who names it.

    Raises:
        QuestionError: with the first of these names.
    """
    for name in (*_OWN_FILES, *(f"{table}.csv" for table in TABLES)):
        files.require_regular(folder / name)
    for name in (FIGURES, _HYDRAS):
        files.require_folder(folder / name)
    for name in _OF_HYDRA:
        files.require_regular(folder / _HYDRAS / name)
    for name in _REPLACED:
        require_replaceable(folder / name)


def require_replaceable(path: Path) -> None:
    """Refuses a file that `replaced` cannot replace, or that is not a regular one.

    Raises:
        QuestionError: it is a link, a folder or the like, or its temporary file is a folder.
    """
    files.require_regular(path)
    temporary = path.with_name(_TEMPORARY.format(path.name))
    if temporary.is_dir() and not temporary.is_symlink():
        files.require_regular(temporary)


def require_free(folder: Path) -> None:
    """Refuses a folder that is a file or holds a run.

    Raises:
        QuestionError: nothing may be written there.
    """
    if folder.exists() and not folder.is_dir():
        raise QuestionError(f"run folder {folder} is a file\nallowed: a folder, new or empty")
    require_own(folder)
    for name in (*(f"{table}.csv" for table in TABLES), SUMMARY, CONFIG):
        if (folder / name).exists():
            raise QuestionError(
                f"run folder {folder} holds a run already ({name})\n"
                "allowed: a new folder; a recorded run is never overwritten"
            )


def refuse_file(folder: Path) -> None:
    """Checks that a folder can be there.

    Raises:
        QuestionError: it is a file, or a folder above it is.
    """
    for path in (folder, *folder.parents):
        if path.exists():
            if not path.is_dir():
                raise QuestionError(f"{path} is a file\nallowed: a folder to write the run into")
            return


@contextmanager
def occupied(folder: Path) -> Iterator[None]:
    """Within, no other process writes the run in this folder; the system ends it with the process.

    A folder that is not there is made.

    Raises:
        OccupiedError: another process writes it.
    """
    try:
        import fcntl
    except ImportError:  # not a POSIX system
        folder.mkdir(parents=True, exist_ok=True)
        yield
        return
    descriptor = _opened(folder)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OccupiedError(
                f"run folder {folder} is being written by another process\n"
                "allowed: one process at a time; wait for its end"
            ) from None
        except OSError:
            pass  # a file system without locks
        yield
    finally:
        os.close(descriptor)


def is_occupied(folder: Path) -> bool:
    """Whether a process writes the run in this folder now."""
    if not folder.is_dir():
        return False
    try:
        with occupied(folder):
            return False
    except OccupiedError:
        return True
    except OSError:
        return False


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Within, other processes that want to change the folder wait."""
    try:
        import fcntl
    except ImportError:  # not a POSIX system: its launchers run one job at a time
        yield
        return
    descriptor = _opened(folder)
    try:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _opened(folder: Path) -> int:
    for _ in range(_ATTEMPTS):
        folder.mkdir(parents=True, exist_ok=True)
        # One who was refused takes the empty folder with him as he goes.
        with suppress(FileNotFoundError):
            return os.open(folder, os.O_RDONLY)
    raise FileNotFoundError(errno.ENOENT, "it is removed again and again", str(folder))


def write_config(folder: Path, config: Config, command: str, verb: str = TRAIN) -> None:
    """Writes `config.yaml`: a Hydra primary config that composes against the packaged schema.

    Args:
        command: what was typed, its first line.
        verb: what is made of the configuration.
    """
    with replaced(folder / CONFIG) as temporary:
        temporary.write_text(_config_text(config, command, verb), encoding="utf-8")


def _config_text(config: Config, command: str, verb: str) -> str:
    import yaml

    chosen = [{group: name} for group, name in configuration.choices(config).items()]
    content = {"defaults": ["schema", *chosen, "_self_"], **configuration.to_dict(config)}
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
    head = f"# {one_line(command)}\n" if command else ""
    what = "" if verb == TRAIN else f"# verb: {verb}\n"
    seal = f"# identity: {configuration.identity(config)}\n"
    return head + text + what + seal


def verb_of(folder: Path) -> str:
    """What the folder's configuration was to be made into; `train` where it does not say."""
    found = _VERB.findall(_text_of_config(folder))
    return found[-1] if found else TRAIN


def sealed_identity(folder: Path) -> str | None:
    """The identity of the configuration that `config.yaml` was written with; None: cut off."""
    found = _SEAL.findall(_text_of_config(folder))
    return found[-1] if found else None


def _text_of_config(folder: Path) -> str:
    return files.read(folder / CONFIG, MOST_CONFIG_BYTES).decode("utf-8", errors="replace")


def write_summary(folder: Path, summary: Mapping[str, Any]) -> None:
    """Writes `summary.json`."""
    text = json.dumps(summary, indent=2, allow_nan=False) + "\n"
    with replaced(folder / SUMMARY) as temporary:
        temporary.write_text(text, encoding="utf-8")


def summary_of(folder: Path) -> dict[str, Any]:
    """What `summary.json` holds; nothing where there is none, or one that cannot be read."""
    try:
        summary = json.loads(files.read(folder / SUMMARY, MOST_SUMMARY_BYTES))
    except (OSError, ValueError, RecursionError):
        return {}
    return summary if isinstance(summary, dict) else {}


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """A file beside `path` to write, which takes its place in the end, or leaves it as it is.

    Once it has, it outlasts a loss of power.
    """
    temporary = path.with_name(_TEMPORARY.format(path.name))
    try:
        # What a kill left there, or a link that somebody else put there.
        files.remove(temporary)
        # At once: a folder with something in it is not removed by one who is refused meanwhile.
        files.create(temporary)
        yield temporary
        synced(temporary)
        temporary.replace(path)
        synced(path.parent)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def tidied(folder: Path) -> None:
    """Removes what a kill left half-written, which may be as large as a checkpoint."""
    for left in folder.glob(_TEMPORARY.format("*")):
        with suppress(OSError):
            left.unlink()


def anchored(folder: Path) -> None:
    """Waits until the names of a new folder, and of new ones above it, are on the disk itself."""
    for above in folder.resolve().parents:
        # Somebody else's folders cannot be opened, and need not be; names of long ago are there.
        with suppress(OSError):
            if time.time() - above.stat().st_mtime < _SETTLING_SECONDS:
                synced(above)


def synced(path: Path) -> None:
    """Waits until a file, or a folder's list of names, is on the disk itself."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
