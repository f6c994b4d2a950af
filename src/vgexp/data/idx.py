"""The idx format of MNIST's files: two bytes of 0, the kind of number, the number of axes, the size
of each axis in four bytes with the highest first, then the numbers."""

from __future__ import annotations

import gzip
import math
import shutil
import zlib
from pathlib import Path

_UNSIGNED_BYTE = 0x08


def fault(path: Path, of_one: tuple[int, ...]) -> str | None:
    """What is wrong with a file of examples in bytes, each of the given size; None: nothing.

    Raises:
        OSError: it cannot be read.
    """
    num_axes = 1 + len(of_one)
    with path.open("rb") as file:
        header = file.read(4 * (1 + num_axes))
    expected = bytes((0, 0, _UNSIGNED_BYTE, num_axes))
    if header[:4] != expected:
        return f"it begins with {header[:4].hex() or 'nothing'}, not with {expected.hex()}"
    if len(header) < 4 * (1 + num_axes):
        return "it ends within its header"
    sizes = [int.from_bytes(header[i : i + 4]) for i in range(4, len(header), 4)]
    if tuple(sizes[1:]) != of_one:
        return f"an example is {_by(sizes[1:])}, not {_by(of_one)}"
    said, held = math.prod(sizes), path.stat().st_size - len(header)
    if said != held:
        return f"its header promises {said:,} bytes, it holds {held:,}"
    return None if sizes[0] else "it holds no example"


def unpack(packed: Path, to: Path) -> str | None:
    """Unpacks a .gz file; what was wrong with it, or None.

    Raises:
        OSError: it cannot be read.
    """
    try:
        with gzip.open(packed) as source, to.open("wb") as target:
            shutil.copyfileobj(source, target)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        return str(error).rstrip(".").lower()
    return None


def _by(sizes: tuple[int, ...] | list[int]) -> str:
    return " x ".join(map(str, sizes))
