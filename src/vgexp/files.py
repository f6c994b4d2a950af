"""Opens a run's own files: it follows no link and opens nothing but regular files.

A folder may come from somebody else. A link in it would lead a write to a file of the user's, a
named pipe would make a read wait for ever, and a device may have no end.
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
    """Whether the name is taken, by whatever it may be: a link to nowhere as well."""
    return os.path.lexists(path)


def require_regular(path: Path) -> None:
    """Checks that a file is a regular one, or is not there.

    Raises:
        QuestionError: it is a link, a folder, a named pipe or a device.
    """
    mode = _mode_of(path)
    if mode is not None and not stat.S_ISREG(mode):
        raise _refused(path, mode, "a regular file")


def require_folder(path: Path) -> None:
    """Checks that a folder of a run's own is a folder, or is not there.

    Raises:
        QuestionError: it is a link or a file.
    """
    mode = _mode_of(path)
    if mode is not None and not stat.S_ISDIR(mode):
        raise _refused(path, mode, "a folder")


def open_regular(path: Path | str, flags: int = os.O_RDONLY) -> int:
    """The descriptor of a regular file. It is also an `opener` of Python's `open`.

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
        raise _refused(path, mode, "a regular file")
    return descriptor


def open_to_read(path: Path | str) -> BinaryIO:
    """A regular file, open to read its bytes.

    Raises:
        QuestionError: the file is a link, a folder, a named pipe or a device.
        OSError: it cannot be opened.
    """
    return os.fdopen(open_regular(path), "rb")


def open_text(path: Path | str, *, newline: str | None = None) -> io.TextIOWrapper:
    """A regular file, open to read its UTF-8 text; `newline` is that of `open`.

    Raises:
        QuestionError: the file is a link, a folder, a named pipe or a device.
        OSError: it cannot be opened.
    """
    return io.TextIOWrapper(open_to_read(path), encoding="utf-8", newline=newline)


def read(path: Path | str, most_bytes: int) -> bytes:
    """The content of a regular file.

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
    """Makes an empty file under a name that is free.

    Raises:
        OSError: the name is taken, or no file can be made there.
    """
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NO_LINK, 0o666))


def remove(path: Path) -> None:
    """Removes a file or a link, if there is one; what a link leads to stays.

    Raises:
        QuestionError: a folder has the name.
        OSError: it cannot be removed.
    """
    mode = _mode_of(path)
    if mode is not None and stat.S_ISDIR(mode):
        raise _refused(path, mode, "a regular file")
    path.unlink(missing_ok=True)


def _mode_of(path: Path) -> int | None:
    """What kind of thing has the name; None: nothing has it."""
    try:
        return os.lstat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None


def _refused(path: Path, mode: int, allowed: str) -> QuestionError:
    found = next((kind for is_kind, kind in _KINDS if is_kind(mode)), None)
    found = found or ("a file" if stat.S_ISREG(mode) else "a device")
    return QuestionError(f"{path} is {found}\nallowed: {allowed}; links are not followed")
