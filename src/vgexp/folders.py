"""Run folders: locks them, checks them, and writes files that are either whole or absent."""

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
"""The verbs that make a run folder."""
GUEST = "guest"
"""What stands in a `config.yaml` for the verb where a loop of somebody's own made the run."""
MOST_CONFIG_BYTES = 2**22
MOST_SUMMARY_BYTES = 2**24
MOST_SWEEP_BYTES = 2**28
"""A longer file was not written by vgexp, and is not read."""
_ATTEMPTS = 100
_SETTLING_SECONDS = 600
"""After this time an operating system has written its buffers to the disk by itself."""
_TEMPORARY = ".{}.new"
_REPLACED = (CONFIG, SUMMARY, CHECKPOINT)
"""Files beside which a temporary one is written."""
_OWN_FILES = (*_REPLACED, PREVIOUS_CHECKPOINT, f"{TRAIN}.log", f"{SIGNAL}.log")
_HYDRAS = ".hydra"
_OF_HYDRA = ("config.yaml", "hydra.yaml", "overrides.yaml")
_CHUNK_BYTES = 2**20
_GUEST_HEAD = "# a run of a training loop outside of vgexp, made with Probe(..., folder=...)\n"
_VERB = re.compile(r"^# verb: (\w+)$", re.MULTILINE)
_SEAL = re.compile(r"^# identity: (\w+)$", re.MULTILINE)
MOST_HEADER = 2**16
"""Bytes of a table's line of columns at most."""


class Prefix(NamedTuple):
    """The length and the checksum of the beginning of a file."""

    num_bytes: int
    crc32: int
    """CRC-32. It can be continued over added bytes, and finds any change within 32 bits."""


def read_prefix(path: Path, num_bytes: int) -> Prefix:
    """Reads length and checksum of the first bytes of a file; 0 bytes where there is no file."""
    found = Prefix(0, 0)
    if not files.exists(path):
        return found
    with files.open_to_read(path) as file:
        while chunk := file.read(min(_CHUNK_BYTES, num_bytes - found.num_bytes)):
            found = Prefix(found.num_bytes + len(chunk), zlib.crc32(chunk, found.crc32))
    return found


def read_beginning(path: Path, num_bytes: int) -> bytes:
    """Reads the first bytes of a file, fewer where it is shorter."""
    with files.open_to_read(path) as file:
        return file.read(min(num_bytes, os.fstat(file.fileno()).st_size))


class FolderError(QuestionError):
    """A folder cannot be written because of what it holds, or because another process writes it."""


class OccupiedError(FolderError):
    """Another process is writing the run."""


def require_regular_files(folder: Path) -> None:
    """Refuses a folder in which a link, a device or the like has the name of a run's own file.

    Call it before anything in a folder is changed. The folder itself may be a link, since the user
    names it.

    Raises:
        QuestionError: there is such a name; the first is named.
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
    """Refuses a file that `replace_file` cannot replace, or that is not a regular one.

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
    require_regular_files(folder)
    for name in (*(f"{table}.csv" for table in TABLES), SUMMARY, CONFIG):
        if (folder / name).exists():
            raise FolderError(
                f"run folder {folder} holds a run already ({name})\n"
                "allowed: a new folder; a recorded run is never overwritten"
            )


def refuse_file(folder: Path) -> None:
    """Refuses a path at which no folder can be made.

    Raises:
        QuestionError: it is a file, or a folder above it is.
    """
    for path in (folder, *folder.parents):
        if path.exists():
            if not path.is_dir():
                raise QuestionError(f"{path} is a file\nallowed: a folder to write the run into")
            return


@contextmanager
def occupy(folder: Path) -> Iterator[None]:
    """Within, no other process can write the run in this folder.

    The operating system ends the lock with the process. A folder that does not exist is made.

    Raises:
        OccupiedError: another process writes it.
    """
    try:
        import fcntl
    except ImportError:  # not a POSIX system
        folder.mkdir(parents=True, exist_ok=True)
        yield
        return
    descriptor = _open(folder)
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
    """Whether a process is writing the run in this folder."""
    if not folder.is_dir():
        return False
    try:
        with occupy(folder):
            return False
    except OccupiedError:
        return True
    except OSError:
        return False


@contextmanager
def lock_out_others(folder: Path) -> Iterator[None]:
    """Within, other processes that call this for the folder wait."""
    try:
        import fcntl
    except ImportError:  # not a POSIX system: its launchers run one job at a time
        yield
        return
    descriptor = _open(folder)
    try:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _open(folder: Path) -> int:
    for _ in range(_ATTEMPTS):
        folder.mkdir(parents=True, exist_ok=True)
        # A process that is refused removes the empty folder.
        with suppress(FileNotFoundError):
            return os.open(folder, os.O_RDONLY)
    raise FileNotFoundError(errno.ENOENT, "it is removed again and again", str(folder))


def write_config(folder: Path, config: Config, command: str, verb: str = TRAIN) -> None:
    """Writes `config.yaml`: a Hydra primary config that composes against the packaged schema.

    Args:
        command: the command that was typed; it is the first line.
        verb: the verb of the command.
    """
    with replace_file(folder / CONFIG) as temporary:
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


def parse_yaml(text: str | bytes) -> Any:
    """What a YAML text says; nothing in it is executed. Errors are PyYAML's, of many kinds.

    libyaml reads a configuration in an eighth of the time, where PyYAML was built with it. A text
    that it refuses is read once more by PyYAML's own parser, for the words of its error.
    """
    import yaml

    loader = getattr(yaml, "CSafeLoader", None)
    if loader is not None:
        with suppress(Exception):
            return yaml.load(text, Loader=loader)
    return yaml.safe_load(text)


def write_guest_config(folder: Path, settings: Mapping[str, Any]) -> None:
    """Writes the `config.yaml` of a run of somebody's own loop: what is known of it."""
    import yaml

    text = yaml.safe_dump({GUEST: dict(settings)}, sort_keys=False, allow_unicode=True)
    with replace_file(folder / CONFIG) as temporary:
        temporary.write_text(f"{_GUEST_HEAD}{text}# verb: {GUEST}\n", encoding="utf-8")


def is_guest(folder: Path) -> bool:
    """Whether a loop of somebody's own made the run in a folder."""
    try:
        return exists_config(folder) and verb_of(folder) == GUEST
    except (OSError, QuestionError):
        return False


def exists_config(folder: Path) -> bool:
    """Whether something in a folder has the name of a configuration."""
    return files.exists(folder / CONFIG)


def refuse_guest(folder: Path) -> None:
    """Refuses the run of somebody's own loop where a configuration is needed.

    Raises:
        QuestionError: it is one.
    """
    if is_guest(folder):
        raise QuestionError(
            f"{folder} is a run of a training loop outside of vgexp, which vgexp can neither repeat"
            " nor go on with\nallowed: vgexp show, vgexp compare; to train again, start that loop"
            " with another folder"
        )


def first_line(folder: Path) -> str:
    """Reads the first line of `config.yaml`: the command that was typed, as a comment, if any."""
    return _text_of_config(folder).split("\n", 1)[0]


def verb_of(folder: Path) -> str:
    """Reads the verb that made a run folder; `train` where its `config.yaml` names none."""
    found = _VERB.findall(_text_of_config(folder))
    return found[-1] if found else TRAIN


def sealed_identity(folder: Path) -> str | None:
    """Reads the identity with which `config.yaml` was written; None where it was cut off."""
    found = _SEAL.findall(_text_of_config(folder))
    return found[-1] if found else None


def _text_of_config(folder: Path) -> str:
    return files.read(folder / CONFIG, MOST_CONFIG_BYTES).decode("utf-8", errors="replace")


def write_summary(folder: Path, summary: Mapping[str, Any]) -> None:
    """Writes `summary.json`."""
    text = json.dumps(summary, indent=2, allow_nan=False) + "\n"
    with replace_file(folder / SUMMARY) as temporary:
        temporary.write_text(text, encoding="utf-8")


def summary_of(folder: Path) -> dict[str, Any]:
    """Reads `summary.json`; empty where there is none, or it cannot be read."""
    try:
        summary = json.loads(files.read(folder / SUMMARY, MOST_SUMMARY_BYTES))
    except (OSError, ValueError, RecursionError):
        return {}
    return summary if isinstance(summary, dict) else {}


@contextmanager
def replace_file(path: Path) -> Iterator[Path]:
    """Yields a new file beside `path`, which replaces `path` at the end unless there was an error.

    After that, the new content is safe from a loss of power.
    """
    temporary = path.with_name(_TEMPORARY.format(path.name))
    try:
        # A killed process may have left one, or somebody may have put a link there.
        files.remove(temporary)
        # At once, since a process that is refused removes a folder that is empty.
        files.create(temporary)
        yield temporary
        sync(temporary)
        temporary.replace(path)
        sync(path.parent)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def remove_leftovers(folder: Path) -> None:
    """Removes unfinished files of a killed process, which may be as large as a checkpoint."""
    for left in folder.glob(_TEMPORARY.format("*")):
        with suppress(OSError):
            left.unlink()


def sync_names(folder: Path) -> None:
    """Waits until the names of a new folder, and of new ones above it, are written to the disk."""
    for above in folder.resolve().parents:
        # Folders of other users cannot be opened; names made long ago have been written.
        with suppress(OSError):
            if time.time() - above.stat().st_mtime < _SETTLING_SECONDS:
                sync(above)


def sync(path: Path) -> None:
    """Waits until a file, or a folder's list of names, is written to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
