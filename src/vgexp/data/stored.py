"""Image sets in files: which there are, and where theirs lie."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from vgexp.errors import QuestionError, one_line

PACKED = ".gz"
"""What ends the name of a file that is packed."""


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


def require_files(stored: Stored, base: Path) -> None:
    """Requires that all files are there; torchvision, which takes seconds, is not imported.

    Raises:
        QuestionError: some are missing.
    """
    folder = base / stored.folder
    missing = [name for name in stored.files if located(folder, name, stored) is None]
    if missing:
        raise QuestionError(
            f"data.root is {str(base)!r}, but files of {stored.name} are missing there\n"
            f"looked in: {one_line(str(folder.absolute()))}\n"
            f"missing: {', '.join(missing)}\n"
            "allowed: data.download=true, to fetch them; data.root=FOLDER with the files in"
            f" FOLDER/{stored.folder}"
        )


def located(folder: Path, name: str, stored: Stored) -> Path | None:
    """Where a file is; idx files may be packed."""
    packed = [folder / (name + PACKED)] if stored.files.get(name) is not None else []
    return next((path for path in (folder / name, *packed) if path.is_file()), None)


def damaged(path: Path, why: str) -> QuestionError:
    """The error for a file that is not what its name says, and why."""
    return QuestionError(
        f"{one_line(str(path))} is not as it should be: {why}\n"
        "allowed: whole files; remove it and let data.download=true fetch it again"
    )
