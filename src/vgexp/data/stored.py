"""Image sets in files: found, checked, and read by torchvision, which also fetches them."""

from __future__ import annotations

import contextlib
import shutil
import socket
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from vgexp.data import idx
from vgexp.data.examples import Pair
from vgexp.errors import QuestionError, one_line, reason
from vgexp.folders import alone

NUM_CLASSES = 10
TIMEOUT_SECONDS = 20.0
"""Silence of the network after which a download is given up."""
PACKED = ".gz"


@dataclass(frozen=True)
class Stored:
    """One of torchvision's sets, and how its files lie."""

    name: str
    class_name: str
    """In `torchvision.datasets`."""
    folder: str
    """Below the root."""
    files: Mapping[str, tuple[int, ...] | None]
    """Name -> size of one example in it, of an idx file; None: another format."""
    label_files: tuple[str, str]
    """With the labels for training and for the test; "": several."""
    shape: tuple[int, int, int]
    """C, H, W."""


_IDX_FILES: Mapping[str, tuple[int, ...]] = {
    "train-images-idx3-ubyte": (28, 28),
    "train-labels-idx1-ubyte": (),
    "t10k-images-idx3-ubyte": (28, 28),
    "t10k-labels-idx1-ubyte": (),
}
_BATCHES = (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch", "batches.meta")

_LABELS = ("train-labels-idx1-ubyte", "t10k-labels-idx1-ubyte")
_GREY = (1, 28, 28)

MNIST = Stored("mnist", "MNIST", "MNIST/raw", _IDX_FILES, _LABELS, _GREY)
FASHION_MNIST = Stored(
    "fashion_mnist", "FashionMNIST", "FashionMNIST/raw", _IDX_FILES, _LABELS, _GREY
)
CIFAR10 = Stored(
    "cifar10",
    "CIFAR10",
    "cifar-10-batches-py",
    dict.fromkeys(_BATCHES),
    ("", "test_batch"),
    (3, 32, 32),
)


def read(stored: Stored, root: str, download: bool) -> tuple[Pair, Pair]:
    """Inputs [N, C, H, W] uint8 and targets [N] int64, for training and for the test.

    Raises:
        QuestionError: files that are missing, damaged, or cannot be fetched; no torchvision.
    """
    base = Path(root).expanduser()
    if download:
        _fetch(stored, base)
    _require_files(stored, base)
    of_torchvision = _torchvision_class(stored)
    try:
        with _laid_out(stored, base) as place:
            _require_whole(stored, base, place, of_torchvision)
            loaded = [_loaded(of_torchvision, place, train=train) for train in (True, False)]
    except OSError as error:
        raise _damaged(base / stored.folder, reason(error)) from None
    folder = base / stored.folder
    paths = [_file(folder, name, stored) or folder for name in stored.label_files]
    train, test = (_checked(stored, path, *raw) for path, raw in zip(paths, loaded, strict=True))
    return train, test


# ---------------------------------------------------------------- finding and fetching


def _require_files(stored: Stored, base: Path) -> None:
    """Looks before torchvision is imported, which takes seconds."""
    folder = base / stored.folder
    missing = [name for name in stored.files if _file(folder, name, stored) is None]
    if missing:
        raise QuestionError(
            f"data.root is {str(base)!r}, but files of {stored.name} are missing there\n"
            f"looked in: {one_line(str(folder.absolute()))}\n"
            f"missing: {', '.join(missing)}\n"
            "allowed: data.download=true, to fetch them; data.root=FOLDER with the files in"
            f" FOLDER/{stored.folder}"
        )


def _file(folder: Path, name: str, stored: Stored) -> Path | None:
    """Where a file is; idx files may be packed."""
    packed = [folder / (name + PACKED)] if stored.files.get(name) is not None else []
    return next((path for path in (folder / name, *packed) if path.is_file()), None)


def _fetch(stored: Stored, base: Path) -> None:
    """Has torchvision fetch and unpack what is missing; of several processes one at a time."""
    of_torchvision = _torchvision_class(stored)
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT_SECONDS)
    try:
        with alone(base), warnings.catch_warnings(action="ignore"):
            of_torchvision(str(base), download=True)
    # Whatever a library, a network and a disk come up with. Files that are there and damaged fail
    # here too, and are named later.
    except Exception as error:
        folder = base / stored.folder
        if any(_file(folder, name, stored) is None for name in stored.files):
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
            f"torchvision {metadata.version('torchvision')} does not go with torch"
            f" {torch.__version__}: {one_line(reason(error))}\n"
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
    found = {name: _file(folder, name, stored) for name in stored.files}
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
                raise _damaged(path, why)
        yield Path(temporary)


def _require_whole(stored: Stored, base: Path, place: Path, of_torchvision: Any) -> None:
    """Names the file that is damaged: by its header, or where it has one by its checksum."""
    for name, of_one in stored.files.items():
        if of_one is not None:
            why = idx.fault(place / stored.folder / name, of_one)
        else:
            why = _other_sum(place / stored.folder / name, _checksums(of_torchvision)[name])
        if why:
            raise _damaged(_file(base / stored.folder, name, stored) or base, why)


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
        raise _damaged(place, f"torchvision cannot read them: {one_line(reason(error))}") from None
    return found.data, found.targets


def _checked(stored: Stored, path: Path, data: Any, labels: Any) -> Pair:
    """As tensors, of the shape and the classes that the set has."""
    channels, height, width = stored.shape
    images = torch.as_tensor(data)
    # Grey ones come as [N, H, W], coloured ones as [N, H, W, C].
    images_NHWC = images.unsqueeze(-1) if images.ndim == 3 else images
    targets_N = torch.as_tensor(labels, dtype=torch.int64)
    if images_NHWC.shape[1:] != (height, width, channels) or images.dtype != torch.uint8:
        raise _damaged(path.parent, f"images are {list(images.shape)} of {images.dtype}")
    if len(images) != len(targets_N):
        raise _damaged(path, f"it holds {len(targets_N):,} labels for {len(images):,} images")
    outside_N = (targets_N < 0) | (targets_N >= NUM_CLASSES)
    if bool(outside_N.any()):
        label = int(targets_N[outside_N][0])
        raise _damaged(path, f"a label is {label}, and classes are 0 to {NUM_CLASSES - 1}")
    return images_NHWC.permute(0, 3, 1, 2).contiguous(), targets_N


def _damaged(path: Path, why: str) -> QuestionError:
    return QuestionError(
        f"{one_line(str(path))} is not as it should be: {why}\n"
        "allowed: whole files; remove it and let data.download=true fetch it again"
    )
