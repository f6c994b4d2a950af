"""Finds how much memory this machine has for a run, and refuses runs that need more."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NoReturn

import torch

from vgexp.errors import QuestionError

GIB = 2**30
MEMINFO = Path("/proc/meminfo")
OWN_CGROUPS = Path("/proc/self/cgroup")
CGROUPS = Path("/sys/fs/cgroup")


def require_bytes(asked: int, device: torch.device, what: str, remedy: str) -> None:
    """Refuses a need of more bytes than the device has, where that is known.

    Args:
        what: what needs the bytes, with its verb: `the model needs`.
        remedy: what would need less.

    Raises:
        QuestionError: the device has less; says how much is needed and available.
    """
    available = available_bytes(device)
    if available is not None and asked > available:
        refuse_bytes(asked, device, what, remedy)


def refuse_bytes(asked: int, device: torch.device, what: str, remedy: str) -> NoReturn:
    """Refuses a need of so many bytes, as `require_bytes` does.

    Raises:
        QuestionError: always.
    """
    available = available_bytes(device)
    there = "what is" if available is None else _in_words(available)
    raise QuestionError(
        f"{what} {_in_words(asked)}\nallowed: {there} available on {device}\nremedy: {remedy}"
    )


def available_bytes(device: torch.device) -> int | None:
    """Finds how many bytes a new process could use on a device; None where this is not known.

    On CUDA, this is the whole memory of the device. On CPU, it is the smallest of the free memory
    and the limits of this process's control groups, as in a container or a batch job.
    """
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[1])
    if device.type != "cpu":
        return None
    physical = _physical_bytes()
    limits = [*_cgroup_limits(), *([] if physical is None else [physical])]
    return min(limits, default=None)


def _physical_bytes() -> int | None:
    if MEMINFO.exists():
        for line in MEMINFO.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


def _cgroup_limits() -> Iterator[int]:
    """Reads the limits of all control groups around this process, of both versions.

    A group's limit holds for the groups within it, and a container may see its own group as the
    root. So every folder from this process's group up to the root is read.
    """
    for line in _text(OWN_CGROUPS).splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            root, name = CGROUPS, "memory.max"
        elif "memory" in controllers.split(","):
            root, name = CGROUPS / "memory", "memory.limit_in_bytes"
        else:
            continue
        group = PurePosixPath(path.lstrip("/"))
        for folder in (group, *group.parents):
            limit = _text(root / folder / name).strip()
            # "max", or no such file: no limit here.
            if limit.isdecimal():
                yield int(limit)


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _in_words(num_bytes: int) -> str:
    return f"{num_bytes:,} bytes ({num_bytes / GIB:,.1f} GiB)"
