"""Run folders: who may write there, and files that are whole or not there at all."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from vgexp import config as configuration
from vgexp.config import Config
from vgexp.errors import QuestionError
from vgexp.records import TABLES

CONFIG = "config.yaml"
SUMMARY = "summary.json"
CHECKPOINT = "checkpoint.pt"


class OccupiedError(QuestionError):
    """Another process writes the run."""


def require_free(folder: Path) -> None:
    """Refuses a folder that is a file or holds a run.

    Raises:
        QuestionError: nothing may be written there.
    """
    if folder.exists() and not folder.is_dir():
        raise QuestionError(f"run folder {folder} is a file\nallowed: a folder, new or empty")
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

    Raises:
        OccupiedError: another process writes it.
    """
    try:
        import fcntl
    except ImportError:  # not a POSIX system
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
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


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Within, other processes that want to change the folder wait."""
    try:
        import fcntl
    except ImportError:  # not a POSIX system: its launchers run one job at a time
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def write_config(folder: Path, config: Config, command: str) -> None:
    """Writes `config.yaml`: a Hydra primary config that composes against the packaged schema."""
    import yaml

    chosen = [{group: name} for group, name in configuration.choices(config).items()]
    content = {"defaults": ["schema", *chosen, "_self_"], **configuration.to_dict(config)}
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
    head = f"# {command}\n" if command else ""
    with replaced(folder / CONFIG) as temporary:
        temporary.write_text(head + text, encoding="utf-8")


def write_summary(folder: Path, summary: Mapping[str, Any]) -> None:
    """Writes `summary.json`."""
    text = json.dumps(summary, indent=2, allow_nan=False) + "\n"
    with replaced(folder / SUMMARY) as temporary:
        temporary.write_text(text, encoding="utf-8")


def summary_of(folder: Path) -> dict[str, Any]:
    """What `summary.json` holds; nothing where there is none, or a damaged one."""
    try:
        summary = json.loads((folder / SUMMARY).read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return summary if isinstance(summary, dict) else {}


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """A file beside `path` to write, which takes its place in the end, or leaves it as it is.

    Once it has, it outlasts a loss of power.
    """
    temporary = path.with_name(f".{path.name}.new")
    try:
        yield temporary
        synced(temporary)
        temporary.replace(path)
        synced(path.parent)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def synced(path: Path) -> None:
    """Waits until a file, or a folder's list of names, is on the disk itself."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
