"""Finds the folder that a run writes into, which somebody may rename or remove meanwhile.

An open folder is known by its device and number (`st_dev`, `st_ino`), whatever its name is. Linux
and macOS also tell its present name.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Self, final

from vgexp.errors import LostError

_MOST_BYTES = 1024
"""The most bytes of a name that macOS tells."""


def leads_to(path: Path, descriptor: int) -> bool:
    """Whether a name is that of an open file or folder; True where this cannot be known."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:  # a disk that does not answer, a folder that is closed: not known to be lost
        return True


@final
class Location:
    """Keeps a folder open, so that it is found again when its name changes.

    Where a system cannot open folders, or its file numbers change, the name is taken not to change.

    Args:
        folder: its name at first.
        tell: is called with the new name each time the folder has moved.
    """

    def __init__(self, folder: Path, tell: Callable[[Path], None] | None = None) -> None:
        self._folder, self._tell = folder, tell
        self._descriptor: int | None = None
        with suppress(OSError):
            self._descriptor = os.open(folder, os.O_RDONLY)
        if self._descriptor is not None and not leads_to(folder, self._descriptor):
            self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def find(self) -> Path:
        """Returns the present name of the folder.

        Raises:
            LostError: it was removed, or its new name cannot be found.
        """
        if self._descriptor is None or leads_to(self._folder, self._descriptor):
            return self._folder
        now = _name_of(self._descriptor)
        if now is None or not leads_to(now, self._descriptor):
            raise LostError(
                f"the folder {self._folder} was removed, or moved to another disk, while it was"
                " being written"
            )
        self._folder = _short(now) if not self._folder.is_absolute() else now
        if self._tell is not None:
            self._tell(self._folder)
        return self._folder

    def find_if_there(self) -> Path | None:
        """Returns the present name of the folder; None where it was removed."""
        with suppress(LostError):
            return self.find()
        return None

    def _close(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


def _name_of(descriptor: int) -> Path | None:
    """Asks the system for the name of an open folder; None where it does not tell."""
    try:
        if sys.platform == "darwin":
            import fcntl

            told = fcntl.fcntl(descriptor, fcntl.F_GETPATH, bytes(_MOST_BYTES))
            return Path(os.fsdecode(told.rstrip(b"\0")))
        return Path(f"/proc/self/fd/{descriptor}").readlink()
    except OSError:
        return None


def _short(folder: Path) -> Path:
    here = Path.cwd()
    return folder.relative_to(here) if folder.is_relative_to(here) else folder
