"""Writes and reads checkpoints.

A checkpoint is the state of training after a step, with the length and checksum of each table at
that time. Rows that were written later are cut off and measured again. It is a file of `torch.save`
that holds only tensors and plain values, and nothing in it is ever executed.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch

from vgexp import files, folders
from vgexp.checkpoints import archives
from vgexp.checkpoints.pieces import UnusableError, digest

NEWEST = folders.CHECKPOINT
PREVIOUS = folders.PREVIOUS_CHECKPOINT
FORMAT = 2


@dataclass(frozen=True)
class Checkpoint:
    """The content of the file."""

    step: int
    """The number of updates."""
    state: Mapping[str, Any]
    """Everything that training changes."""
    tables: Mapping[str, tuple[int, int]]
    """Table -> bytes of its file, and the `crc32` of them (`folders.Prefix`)."""
    config: Mapping[str, Any]
    """Field -> value, for the fields that can change a table."""
    versions: Mapping[str, str]
    """Package -> version, for the packages that computed it."""


def save(folder: Path, checkpoint: Checkpoint) -> None:
    """Writes the newest checkpoint and keeps the one before.

    Raises:
        OSError: it cannot be written; the files are unchanged.
        UnusableError: the state holds something that could not be read back; likewise.
    """
    content = dict(vars(checkpoint))
    content = {"format": FORMAT, "digest": digest(content), **content}
    newest = folder / NEWEST
    with folders.replace_file(newest) as temporary:
        # Into a file of Python's: given a path, torch hides why it cannot write.
        with temporary.open("wb") as file:
            torch.save(content, file)
        folders.sync(temporary)
        if newest.exists():
            newest.replace(folder / PREVIOUS)


def load(path: Path, most_bytes: int | None = None) -> Checkpoint:
    """Reads a checkpoint that anyone may have written, in time and memory bounded by its length.

    Args:
        most_bytes: the length beyond which a file is not read; None: any length is read.

    Raises:
        UnusableError: the file is cut short, changed, of another format, or no checkpoint.
        QuestionError: it is a link, a folder or a device.
    """
    try:
        file = files.open_to_read(path)
    except OSError as error:
        raise UnusableError(error.strerror or str(error)) from error
    with file:
        num_bytes = os.fstat(file.fileno()).st_size
        if most_bytes is not None and num_bytes > most_bytes:
            raise UnusableError(f"it has {num_bytes:,} bytes, this run's at most {most_bytes:,}")
        try:
            return _checkpoint_of(archives.read(file))
        except UnusableError:
            raise
        except OSError as error:
            raise UnusableError(error.strerror or str(error)) from error
        except Exception as error:  # a broken archive can raise anything
            raise UnusableError("it is cut short or no checkpoint") from error


def list_present(folder: Path) -> list[Path]:
    """Lists the checkpoints of a run folder, newest first."""
    return [folder / name for name in (NEWEST, PREVIOUS) if files.exists(folder / name)]


def _checkpoint_of(content: Any) -> Checkpoint:
    """Checks the content of a file and makes the checkpoint.

    Raises:
        UnusableError: it is of another format, was changed, or is no checkpoint.
    """
    if not isinstance(content, dict):
        raise UnusableError("it holds something else")
    written, expected = content.pop("format", None), content.pop("digest", None)
    if written != FORMAT:
        raise UnusableError(f"its format is {str(written)[:40]}, this version's is {FORMAT}")
    if digest(content) != expected:
        raise UnusableError("its content was changed")
    is_whole = content.keys() == {field.name for field in fields(Checkpoint)}
    if not is_whole or not _is_well_typed(Checkpoint(**content)):
        raise UnusableError("it holds something else")
    return Checkpoint(**content)


def _is_well_typed(found: Checkpoint) -> bool:
    maps = (found.state, found.tables, found.config, found.versions)
    return (
        _is_count(found.step)
        and all(isinstance(each, Mapping) for each in maps)
        and all(isinstance(name, str) for each in maps for name in each)
        and all(isinstance(name, str) for name in found.versions.values())
        and all(isinstance(x, list | tuple) and len(x) == 2 for x in found.tables.values())
        and all(_is_count(number) for pair in found.tables.values() for number in pair)
    )


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**63
