"""Checkpoints: all that a run needs to go on, on disk whole or not at all.

A checkpoint is the state of training after a step, and how long each table was by then, with a sum
of its bytes: rows that came later are cut off and measured again. It is a file of `torch.save` that
holds tensors and plain values only, and is read as such: nothing in it is ever executed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vgexp import folders

NEWEST = folders.CHECKPOINT
PREVIOUS = folders.PREVIOUS_CHECKPOINT
FORMAT = 2


@dataclass(frozen=True)
class Checkpoint:
    """What is in the file."""

    step: int
    """Updates done."""
    state: Mapping[str, Any]
    """Everything that training changes."""
    tables: Mapping[str, tuple[int, int]]
    """Table -> bytes of its file, and the `crc32` of them (`folders.Prefix`)."""
    config: Mapping[str, Any]
    """Field -> value, of those that can change a table."""
    versions: Mapping[str, str]
    """Of the packages that computed it."""


class UnusableError(Exception):
    """A file that is no whole checkpoint."""


def save(folder: Path, checkpoint: Checkpoint) -> None:
    """Writes the newest checkpoint and keeps the one before.

    Raises:
        OSError: it cannot be written; what was there before is as it was.
    """
    content = dict(vars(checkpoint))
    content = {"format": FORMAT, "digest": _digest(content), **content}
    newest = folder / NEWEST
    with folders.replaced(newest) as temporary:
        # Into a file of Python's: given a path, torch hides why it cannot write.
        with temporary.open("wb") as file:
            torch.save(content, file)
        folders.synced(temporary)
        if newest.exists():
            newest.replace(folder / PREVIOUS)


def load(path: Path) -> Checkpoint:
    """The checkpoint in a file.

    Raises:
        UnusableError: the file is cut short, changed, of another format, or none at all.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UnusableError(error.strerror or str(error)) from error
    except Exception as error:  # a broken archive can raise anything
        raise UnusableError("it is cut short or no checkpoint") from error
    try:
        written, digest = content.pop("format"), content.pop("digest")
        if written != FORMAT:
            raise UnusableError(f"its format is {written}, this version's is {FORMAT}")
        if _digest(content) != digest:
            raise UnusableError("its content was changed")
        return Checkpoint(**content)
    except (AttributeError, KeyError, TypeError) as error:
        raise UnusableError("it holds something else") from error


def present(folder: Path) -> list[Path]:
    """The files there are, newest first."""
    return [folder / name for name in (NEWEST, PREVIOUS) if (folder / name).is_file()]


def _digest(content: Mapping[str, Any]) -> str:
    digest = hashlib.sha256()
    for piece in _pieces(content):
        digest.update(piece)
    return digest.hexdigest()


def _pieces(value: Any) -> Iterator[bytes]:
    """Every value with its place and type, in a fixed order."""
    if isinstance(value, Tensor):
        yield f"{value.dtype}{tuple(value.shape)}".encode()
        yield value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    elif isinstance(value, Mapping):
        for key in sorted(value, key=repr):
            yield repr(key).encode()
            yield from _pieces(value[key])
    elif isinstance(value, list | tuple):
        yield f"{len(value)}".encode()
        for each in value:
            yield from _pieces(each)
    else:
        yield f"{type(value).__name__} {value!r}".encode()
