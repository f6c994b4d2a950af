"""Image sets in files: checked, then read by torchvision, which also fetches them."""

from __future__ import annotations

import contextlib
import shutil
import socket
import tempfile
import warnings
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from vgexp.data import idx
from vgexp.data.examples import Pair
from vgexp.data.stored import PACKED, Stored, damaged, located, require_files
from vgexp.errors import QuestionError, one_line, reason
from vgexp.folders import lock_out_others
from vgexp.origin import resolve_path

NUM_CLASSES = 10
TIMEOUT_SECONDS = 20.0
"""Silence of the network after which a download is given up."""


def read(stored: Stored, root: str, download: bool) -> tuple[Pair, Pair]:
    """Inputs [N, C, H, W] uint8 and targets [N] int64, for training and for the test.

    Raises:
        QuestionError: files that are missing, damaged, or cannot be fetched; no torchvision.
    """
    base = resolve_path(root)
    if download:
        _fetch(stored, base)
    try:
        require_files(stored, base)
        of_torchvision = _torchvision_class(stored)
        with _laid_out(stored, base) as place:
            _require_whole(stored, base, place, of_torchvision)
            loaded = [_loaded(of_torchvision, place, train=train) for train in (True, False)]
    except OSError as error:
        raise damaged(base / stored.folder, reason(error)) from None
    folder = base / stored.folder
    paths = [located(folder, name, stored) or folder for name in stored.label_files]
    train, test = (_checked(stored, path, *raw) for path, raw in zip(paths, loaded, strict=True))
    return train, test


# ---------------------------------------------------------------- torchvision


def _fetch(stored: Stored, base: Path) -> None:
    """Has torchvision fetch and unpack what is missing; of several processes one at a time."""
    of_torchvision = _torchvision_class(stored)
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT_SECONDS)
    try:
        with lock_out_others(base), warnings.catch_warnings(action="ignore"):
            of_torchvision(str(base), download=True)
    # Whatever a library, a network and a disk come up with. Files that are there and damaged fail
    # here too, and are named later.
    except Exception as error:
        folder = base / stored.folder
        if any(located(folder, name, stored) is None for name in stored.files):
            raise QuestionError(
                f"{stored.name} could not be fetched: {one_line(reason(error))}\n"
                f"allowed: a network that reaches it, or its files in"
                f" {one_line(str(folder.absolute()))}: {', '.join(stored.files)}"
            ) from None
    finally:
        socket.setdefaulttimeout(before)


def _torchvision_class(stored: Stored) -> Callable[..., Any]:
    if find_spec("torchvision") is None:
        raise QuestionError(
            f"{stored.name} needs torchvision, which is not installed\n"
            "allowed: pip install torchvision, of the release of torch"
        )
    try:
        with warnings.catch_warnings(action="ignore"):
            from torchvision import datasets
    # One that does not fit fails in many ways: a missing symbol, operator or module.
    except Exception as error:
        raise QuestionError(
            f"torchvision does not go with torch {torch.__version__}: {one_line(reason(error))}\n"
            "allowed: both of one release: pip install --upgrade torch torchvision"
        ) from None
    found: Callable[..., Any] = getattr(datasets, stored.class_name)
    return found


# ---------------------------------------------------------------- checking and reading


@contextlib.contextmanager
def _laid_out(stored: Stored, base: Path) -> Iterator[Path]:
    """A root with all files unpacked; where some are packed, a temporary one.

    Nothing is written below `data.root`, which may be read-only and read by others meanwhile.
    """
    folder = base / stored.folder
    found = {name: located(folder, name, stored) for name in stored.files}
    if not any(path and path.suffix == PACKED for path in found.values()):
        yield base
        return
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary) / stored.folder
        place.mkdir(parents=True)
        for name, path in found.items():
            assert path is not None
            if path.suffix != PACKED:
                shutil.copyfile(path, place / name)
            elif why := idx.unpack(path, place / name):
                raise damaged(path, why)
        yield Path(temporary)


def _require_whole(stored: Stored, base: Path, place: Path, of_torchvision: Any) -> None:
    """Names the file that is damaged: by its header, or where it has one by its checksum."""
    for name, of_one in stored.files.items():
        if of_one is not None:
            why = idx.fault(place / stored.folder / name, of_one)
        else:
            why = _other_sum(place / stored.folder / name, _checksums(of_torchvision)[name])
        if why:
            raise damaged(located(base / stored.folder, name, stored) or base, why)


def _checksums(of_torchvision: Any) -> dict[str, str]:
    """Name -> MD5 that torchvision asks of the file."""
    meta = of_torchvision.meta
    listed = [*of_torchvision.train_list, *of_torchvision.test_list]
    return {**dict(listed), meta["filename"]: meta["md5"]}


def _other_sum(path: Path, expected: str) -> str | None:
    from torchvision.datasets.utils import calculate_md5

    found = calculate_md5(path)
    return None if found == expected else f"its MD5 is {found}, of the whole file it is {expected}"


def _loaded(of_torchvision: Callable[..., Any], place: Path, *, train: bool) -> tuple[Any, Any]:
    """What torchvision reads: images and labels, as it keeps them."""
    try:
        with warnings.catch_warnings(action="ignore"):
            found = of_torchvision(str(place), train=train)
    except Exception as error:  # of a pickle any
        raise damaged(place, f"torchvision cannot read them: {one_line(reason(error))}") from None
    return found.data, found.targets


def _checked(stored: Stored, path: Path, data: Any, labels: Any) -> Pair:
    """As tensors, of the shape and the classes that the set has."""
    channels, height, width = stored.shape
    images = torch.as_tensor(data)
    # Grey ones come as [N, H, W], coloured ones as [N, H, W, C].
    images_NHWC = images.unsqueeze(-1) if images.ndim == 3 else images
    targets_N = torch.as_tensor(labels, dtype=torch.int64)
    if images_NHWC.shape[1:] != (height, width, channels) or images.dtype != torch.uint8:
        raise damaged(path.parent, f"images are {list(images.shape)} of {images.dtype}")
    if len(images) != len(targets_N):
        raise damaged(path, f"it holds {len(targets_N):,} labels for {len(images):,} images")
    outside_N = (targets_N < 0) | (targets_N >= NUM_CLASSES)
    if bool(outside_N.any()):
        label = int(targets_N[outside_N][0])
        raise damaged(path, f"a label is {label}, and classes are 0 to {NUM_CLASSES - 1}")
    return images_NHWC.permute(0, 3, 1, 2).contiguous(), targets_N
