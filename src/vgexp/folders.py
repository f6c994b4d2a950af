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


@contextmanager
def occupied(folder: Path) -> Iterator[None]:
    """Within, no other process writes the run in this folder; the system ends it with the process.

    Raises:
        QuestionError: another process writes it.
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
            raise QuestionError(
                f"run folder {folder} is being written by another process\n"
                "allowed: one process at a time; wait for its end"
            ) from None
        except OSError:
            pass  # a file system without locks
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
