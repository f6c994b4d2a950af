"""Opens the files of a run folder: regular files only, without following links.

A folder may come from somebody else. A link in it could make vgexp overwrite a file of the user's,
a named pipe could make it wait for ever, and a device may have no end.
"""

from __future__ import annotations

import errno
import io
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from vgexp.errors import QuestionError

# Windows has neither; there `require_regular` alone looks for links.
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)
_NO_WAITING = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)
_KINDS: tuple[tuple[Callable[[int], bool], str], ...] = (
    (stat.S_ISLNK, "a link"),
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
)


def exists(path: Path) -> bool:
    """Whether a name is taken, by anything: a broken link counts."""
    return os.path.lexists(path)


def require_regular(path: Path) -> None:
    """Refuses a name that is taken by anything but a regular file.

    Raises:
        QuestionError: it is a link, a folder, a named pipe or a device.
    """
    mode = _mode_of(path)
    if mode is not None and not stat.S_ISREG(mode):
        raise _refusal(path, mode, "a regular file")


def require_folder(path: Path) -> None:
    """Refuses a name that is taken by anything but a folder.

    Raises:
        QuestionError: it is a link or a file.
    """
    mode = _mode_of(path)
    if mode is not None and not stat.S_ISDIR(mode):
        raise _refusal(path, mode, "a folder")


def open_regular(path: Path | str, flags: int = os.O_RDONLY) -> int:
    """Opens a regular file and returns its descriptor. It can be an `opener` of Python's `open`.

    Args:
        flags: of `os.open`.

    Raises:
        QuestionError: the file is a link, a folder, a named pipe or a device.
        OSError: it cannot be opened.
    """
    path = Path(path)
    # Before it is opened: to open a device may already do something to it.
    require_regular(path)
    try:
        descriptor = os.open(path, flags | _NO_LINK | _NO_WAITING, 0o666)
    except OSError as error:
        if error.errno == errno.ELOOP:  # the link was put there after the check
            require_regular(path)
        raise
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        raise _refusal(path, mode, "a regular file")
    return descriptor


def open_to_read(path: Path | str) -> BinaryIO:
    """Opens a regular file to read its bytes.

    Raises:
        QuestionError: the file is a link, a folder, a named pipe or a device.
        OSError: it cannot be opened.
    """
    return os.fdopen(open_regular(path), "rb")


def open_text(path: Path | str, *, newline: str | None = None) -> io.TextIOWrapper:
    """Opens a regular file to read its UTF-8 text; `newline` is that of `open`.

    Raises:
        QuestionError: the file is a link, a folder, a named pipe or a device.
        OSError: it cannot be opened.
    """
    return io.TextIOWrapper(open_to_read(path), encoding="utf-8", newline=newline)


def read(path: Path | str, most_bytes: int) -> bytes:
    """Reads the content of a regular file.

    Raises:
        QuestionError: the file is a link, a folder, a named pipe or a device, or is longer.
        OSError: it cannot be read.
    """
    with open_to_read(path) as file:
        num_bytes = os.fstat(file.fileno()).st_size
        if num_bytes > most_bytes:
            raise QuestionError(
                f"{path} has {num_bytes:,} bytes\nallowed: at most {most_bytes:,} bytes"
            )
        return file.read(num_bytes)


def create(path: Path) -> None:
    """Makes an empty file; its name must be free.

    Raises:
        OSError: the name is taken, or no file can be made there.
    """
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NO_LINK, 0o666))


def remove(path: Path) -> None:
    """Removes a file or a link, if there is one. The target of a link stays.

    Raises:
        QuestionError: a folder has the name.
        OSError: it cannot be removed.
    """
    mode = _mode_of(path)
    if mode is not None and stat.S_ISDIR(mode):
        raise _refusal(path, mode, "a regular file")
    path.unlink(missing_ok=True)


def _mode_of(path: Path) -> int | None:
    """The mode of whatever has a name; None: nothing has it."""
    try:
        return os.lstat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None


def _refusal(path: Path, mode: int, allowed: str) -> QuestionError:
    found = next((kind for is_kind, kind in _KINDS if is_kind(mode)), None)
    found = found or ("a file" if stat.S_ISREG(mode) else "a device")
    return QuestionError(f"{path} is {found}\nallowed: {allowed}; links are not followed")
