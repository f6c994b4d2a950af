"""Computes the digest of a checkpoint, and refuses what no checkpoint may hold."""

from __future__ import annotations

import hashlib
import math
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

_PLAIN = (type(None), bool, int, float, str)
_TENSORS = (Tensor, Parameter)
_MOST_KEY = 2**31
"""The largest whole number as a key: larger ones could be made to collide in a dict."""
_MOST_DEPTH = 64
"""The most containers within one another. A list that holds itself is infinitely deep."""
_MOST_PIECES = 2_000_000
_MOST_REPEATED_BYTES = 2**28
"""The most bytes of tensors beyond those of their storages, as of one expanded element."""


class UnusableError(Exception):
    """A file is no whole checkpoint, or a state cannot be written to one."""


def digest(content: Mapping[str, Any]) -> str:
    """Computes SHA-256 of all values with their places and types.

    Raises:
        UnusableError: there is a value that is neither a tensor nor plain, or it would take more
            time or memory than any checkpoint does.
    """
    found = _Digest()
    found.add(content, 0)
    return found.sum.hexdigest()


class _Digest:
    """The digest of the values so far, and counts of what was read."""

    def __init__(self) -> None:
        self.sum = hashlib.sha256()
        self._num_pieces = 0
        self._storages: dict[int, torch.dtype] = {}
        self._views: set[tuple[Any, ...]] = set()
        self._num_repeated_bytes = 0

    def add(self, value: Any, depth: int) -> None:
        """Adds a value and everything in it, in a fixed order."""
        self._num_pieces += 1
        if self._num_pieces > _MOST_PIECES:
            raise UnusableError(f"it has more than {_MOST_PIECES:,} values")
        if depth > _MOST_DEPTH:
            raise UnusableError(f"its values lie more than {_MOST_DEPTH} deep in one another")
        if isinstance(value, Tensor):
            self._add_tensor(value)
        elif type(value) in (dict, OrderedDict):
            for key in sorted(value, key=repr):
                require_key(key)
                self.sum.update(repr(key).encode())
                self.add(value[key], depth + 1)
        elif type(value) in (list, tuple):
            self.sum.update(f"{len(value)}".encode())
            for each in value:
                self.add(each, depth + 1)
        elif type(value) in _PLAIN:
            self.sum.update(f"{type(value).__name__} {value!r}".encode())
        else:
            raise UnusableError(f"it holds a {type(value).__name__}, no tensor or plain value")

    def _add_tensor(self, value: Tensor) -> None:
        _require_dense(value)
        self.sum.update(f"{value.dtype}{tuple(value.shape)}".encode())
        if self._is_new(value):
            flat = value.detach().cpu().contiguous().reshape(-1)
            self.sum.update(flat.view(torch.uint8).numpy().data)

    def _is_new(self, value: Tensor) -> bool:
        """Whether a tensor's numbers were not read yet: a weight with two names is read once."""
        storage = value.untyped_storage()
        view = (
            storage.data_ptr(),
            value.storage_offset(),
            value.dtype,
            value.shape,
            value.stride(),
        )
        if view in self._views:
            return False
        self._views.add(view)
        self._num_repeated_bytes += math.prod(value.shape) * value.element_size()
        if storage.data_ptr() not in self._storages:
            self._storages[storage.data_ptr()] = value.dtype
            self._num_repeated_bytes -= storage.nbytes()
        if value.numel() and self._storages[storage.data_ptr()] != value.dtype:
            raise UnusableError("it holds the same bytes as tensors of two types")
        if self._num_repeated_bytes > _MOST_REPEATED_BYTES:
            raise UnusableError("its tensors have more elements than are stored")
        return True


def require_key(key: Any) -> None:
    """Refuses a key of a mapping that is neither a text nor a small whole number.

    Raises:
        UnusableError: it is neither.
    """
    if not isinstance(key, str) and not (type(key) is int and abs(key) < _MOST_KEY):
        raise UnusableError("it has a key that is neither a name nor a number")


def _require_dense(value: Tensor) -> None:
    """Refuses a tensor whose bytes are not its plain numbers, or that has a class or attributes of
    its own."""
    kinds = {
        f"a {type(value).__name__}, a tensor of another class": type(value) not in _TENSORS,
        "a tensor with attributes": bool(vars(value)),
        "a meta tensor": value.is_meta,
        f"a tensor of layout {value.layout}": value.layout is not torch.strided,
        "a nested tensor": value.is_nested,
        "a quantized tensor": value.is_quantized,
        "a conjugated or negated view": value.is_conj() or value.is_neg(),
    }
    for kind, is_it in kinds.items():
        if is_it:
            raise UnusableError(f"it holds {kind}")
