"""The folder that relative names in a configuration start from: where the command was typed.

That is the current folder, but for a job that Hydra moved into its run folder
(`hydra.job.chdir=true`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

_origin: ContextVar[Path | None] = ContextVar("_origin", default=None)


def origin() -> Path:
    """That folder."""
    return _origin.get() or Path.cwd()


def from_origin(path: str) -> Path:
    """A path of a configuration as it can be opened now; `~` is the user's home."""
    found, start = Path(path).expanduser(), _origin.get()
    return found if start is None else start / found


@contextmanager
def typed_in(folder: Path) -> Iterator[None]:
    """Within, relative names start from a folder."""
    token = _origin.set(folder)
    try:
        yield
    finally:
        _origin.reset(token)
