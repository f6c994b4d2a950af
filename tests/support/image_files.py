"""Tiny image sets in the formats that the real ones have on disk."""

from __future__ import annotations

import gzip
import hashlib
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest

IDX_NAMES = {
    True: ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    False: ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
FOLDERS = {
    "mnist": "MNIST/raw",
    "fashion_mnist": "FashionMNIST/raw",
    "cifar10": "cifar-10-batches-py",
}
Images = tuple[np.ndarray, np.ndarray]
"""Bytes [N, C, H, W] and labels [N]."""


def drawn(num: int, shape: tuple[int, int, int], seed: int) -> Images:
    """Images whose channels differ in brightness, and labels that have every class."""
    source = np.random.default_rng(seed)
    brightness = np.array([256, 90, 17])[: shape[0], None, None]
    images = source.integers(0, 256, (num, *shape)) * brightness // 256
    return images.astype(np.uint8), source.permutation(num).astype(np.uint8) % 10


def idx(values: np.ndarray) -> bytes:
    head = struct.pack(">BBBB", 0, 0, 8, values.ndim) + struct.pack(
        f">{values.ndim}I", *values.shape
    )
    return head + values.astype(np.uint8).tobytes()


def write_idx(root: Path, which: str, train: Images, test: Images, *, packed: bool = False) -> Path:
    """MNIST's four files; returns their folder."""
    folder = root / FOLDERS[which]
    folder.mkdir(parents=True, exist_ok=True)
    for is_train, (images, labels) in ((True, train), (False, test)):
        for name, values in zip(IDX_NAMES[is_train], (images[:, 0], labels), strict=True):
            if packed:
                (folder / f"{name}.gz").write_bytes(gzip.compress(idx(values)))
            else:
                (folder / name).write_bytes(idx(values))
    return folder


def write_cifar(root: Path, train: Images, test: Images, monkeypatch: pytest.MonkeyPatch) -> Path:
    """CIFAR-10's seven pickles, whose checksums torchvision is then told to ask for."""
    from torchvision.datasets import CIFAR10

    folder = root / FOLDERS["cifar10"]
    folder.mkdir(parents=True, exist_ok=True)
    parts = np.array_split(np.arange(len(train[0])), 5)
    contents = {
        f"data_batch_{i}": (train[0][rows], train[1][rows]) for i, rows in enumerate(parts, 1)
    }
    sums = {}
    for name, (images, labels) in {**contents, "test_batch": test}.items():
        batch = {"data": images.reshape(len(images), -1), "labels": labels.tolist()}
        sums[name] = write_pickle(folder / name, batch)
    sums["batches.meta"] = write_pickle(
        folder / "batches.meta", {"label_names": list("abcdefghij")}
    )
    tell_sums(sums, monkeypatch, CIFAR10)
    return folder


def write_pickle(path: Path, content: object) -> str:
    path.write_bytes(pickle.dumps(content, protocol=2))
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


def tell_sums(sums: dict[str, str], monkeypatch: pytest.MonkeyPatch, cls: type) -> None:
    for field in ("train_list", "test_list"):
        names = [name for name, _ in getattr(cls, field)]
        asked = dict(getattr(cls, field))
        monkeypatch.setattr(cls, field, [[name, sums.get(name, asked[name])] for name in names])
    meta = dict(cls.meta)  # type: ignore[attr-defined]
    meta["md5"] = sums.get(meta["filename"], meta["md5"])
    monkeypatch.setattr(cls, "meta", meta)


def write_all(root: Path, num: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """All three sets, of `num` examples for training and a fifth as many for the test."""
    for seed, which in enumerate(("mnist", "fashion_mnist")):
        shape = (1, 28, 28)
        write_idx(root, which, drawn(num, shape, seed), drawn(num // 5, shape, seed + 50))
    train, test = drawn(num, (3, 32, 32), 7), drawn(num // 5, (3, 32, 32), 8)
    write_cifar(root, train, test, monkeypatch)
