"""Where a folder is now that a run writes into: somebody may rename it or remove it meanwhile.

A folder that is held open is known by its device and number (`st_dev`, `st_ino`), whatever its name
is. Linux and macOS also say what its name has become.
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
"""Of a name, as macOS tells it."""


def leads_to(path: Path, descriptor: int) -> bool:
    """Whether a name leads to an open file or folder; True where that cannot be known."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:  # a disk that does not answer, a folder that is closed: not known to be lost
        return True


@final
class Location:
    """A folder that is held open, so that it is found again under another name.

    Where a system opens no folders, or its file numbers do not last, the folder is taken to stay.

    Args:
        folder: where it is at first.
        tell: is called with the new place each time that the folder was found to have moved.
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
        """Where the folder is now.

        Raises:
            LostError: it was removed, or moved where nobody can tell.
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
        """Where the folder is now; None where it was removed."""
        with suppress(LostError):
            return self.find()
        return None

    def _close(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


def _name_of(descriptor: int) -> Path | None:
    """The name of an open folder, as the system tells it; None where it does not."""
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
