"""The folder that relative paths in a configuration start from: where the command was typed.

It is the current folder, except in a job for which Hydra changed the current folder
(`hydra.job.chdir=true`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

_origin: ContextVar[Path | None] = ContextVar("_origin", default=None)


def origin() -> Path:
    """Returns that folder."""
    return _origin.get() or Path.cwd()


def resolve_path(path: str) -> Path:
    """Makes a path of a configuration one that can be opened; `~` is the user's home."""
    found, start = Path(path).expanduser(), _origin.get()
    return found if start is None else start / found


@contextmanager
def set_origin(folder: Path) -> Iterator[None]:
    """Within, relative paths of configurations start from a folder."""
    token = _origin.set(folder)
    try:
        yield
    finally:
        _origin.reset(token)
