"""Reads files of `torch.save` that hold nothing but tensors and plain values.

Such a file is an archive of a pickle and of one record for each storage. `torch.load` does whatever
a pickle asks for: it makes tensors of any layout, a `bytearray` of any size, texts that double at
each of many steps. This reader knows only the few instructions of checkpoints, and takes time and
memory in proportion to the file.
"""

from __future__ import annotations

import math
import pickletools
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, cast, final

import torch
from torch import Tensor

from vgexp.checkpoints.pieces import UnusableError, require_key
from vgexp.torch_internals import PICKLED_PARAMETER, PICKLED_TENSOR, PICKLED_TYPED_TENSOR

_MOST_PICKLE_BYTES = 2**26
"""The most bytes without the numbers of tensors; a net with 100,000 weights needs about this."""
_MOST_INSTRUCTIONS = 10_000_000
_MOST_DIMENSIONS = 64
_TYPES: Mapping[str, torch.dtype] = {
    "Double": torch.float64,
    "Float": torch.float32,
    "Half": torch.float16,
    "BFloat16": torch.bfloat16,
    "Long": torch.int64,
    "Int": torch.int32,
    "Short": torch.int16,
    "Char": torch.int8,
    "Byte": torch.uint8,
    "Bool": torch.bool,
    "ComplexFloat": torch.complex64,
    "ComplexDouble": torch.complex128,
}
"""Name of a storage -> dtype of its numbers."""


def read(file: BinaryIO) -> Any:
    """Reads a file of `torch.save`, with its tensors on the CPU.

    Raises:
        UnusableError: it holds something that no checkpoint holds.
        Exception: of many kinds, where it is no file of `torch.save`.
    """
    with zipfile.ZipFile(file) as archive:
        folder, pickle = _open(archive, file)
        return _Reader(_Storages(archive, folder)).result_of(pickle)


def _open(archive: zipfile.ZipFile, file: BinaryIO) -> tuple[str, bytes]:
    """Finds the folder within the archive, and its pickle.

    Raises:
        UnusableError: records are compressed or overlap, or there is no pickle.
    """
    records = archive.infolist()
    if any(record.compress_type != zipfile.ZIP_STORED for record in records):
        raise UnusableError("it is compressed, which no checkpoint is")
    num_bytes = sum(record.file_size for record in records)
    if num_bytes > file.seek(0, 2):
        raise UnusableError("it would be longer when unpacked than it is")
    pickles = [record for record in records if record.filename.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise UnusableError("it is no file of torch.save")
    if pickles[0].file_size > _MOST_PICKLE_BYTES:
        raise UnusableError("it has more values than any checkpoint")
    folder = pickles[0].filename.removesuffix("data.pkl")
    order = f"{folder}byteorder"
    if order in archive.namelist() and archive.read(order).decode() != sys.byteorder:
        raise UnusableError("it was written on a machine with another order of bytes")
    return folder, archive.read(pickles[0])


@dataclass(frozen=True)
class _Storage:
    """The bytes of a storage, and the dtype of its numbers."""

    dtype: torch.dtype
    content: torch.UntypedStorage


class _Storages:
    """The storages of an archive, each of which is read once, when it is needed."""

    def __init__(self, archive: zipfile.ZipFile, folder: str) -> None:
        self._archive = archive
        self._folder = folder
        self._known: dict[str, _Storage] = {}

    def get(self, dtype: torch.dtype, name: str, num_elements: int) -> _Storage:
        if name not in self._known:
            content = self._read(f"{self._folder}data/{name}")
            if content.nbytes() != num_elements * dtype.itemsize:
                raise UnusableError(f"storage {name} is of another size than its record")
            self._known[name] = _Storage(dtype, content)
        if self._known[name].dtype != dtype:
            raise UnusableError(f"storage {name} is of two types")
        return self._known[name]

    def _read(self, record: str) -> torch.UntypedStorage:
        # Into memory of its own, which the storage keeps.
        content = bytearray(self._archive.getinfo(record).file_size)
        with self._archive.open(record) as file:
            place = memoryview(content)
            while num_read := file.readinto(place):  # type: ignore[attr-defined]
                place = place[num_read:]
        if len(place):
            raise UnusableError(f"{record} is cut short")
        if not content:
            return torch.empty(0, dtype=torch.uint8).untyped_storage()
        return torch.frombuffer(content, dtype=torch.uint8).untyped_storage()


def _require(is_possible: bool) -> None:
    if not is_possible:
        raise UnusableError("it holds something else than tensors and plain values")


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *rest: Any) -> Tensor:
    """Makes a tensor of a storage's dtype; ignores whether it requires a gradient, and hooks."""
    del rest
    return _view(storage, storage.dtype, offset, shape, strides)


def _typed_tensor(
    storage: Any, offset: Any, shape: Any, strides: Any, _grad: Any, _hooks: Any, dtype: Any
) -> Tensor:
    """Makes a tensor of a dtype that has no storage class."""
    return _view(storage, dtype, offset, shape, strides)


def _parameter(tensor: Any, _grad: Any, _hooks: Any) -> Tensor:
    """Makes a tensor of a parameter; a run copies it into its own parameter."""
    _require(isinstance(tensor, Tensor))
    return cast(Tensor, tensor)


def _view(storage: Any, dtype: Any, offset: Any, shape: Any, strides: Any) -> Tensor:
    _require(isinstance(storage, _Storage) and isinstance(dtype, torch.dtype))
    numbers = (offset, *shape, *strides)
    is_possible = all(type(number) is int and number >= 0 for number in numbers)
    if not is_possible or len(shape) != len(strides) or len(shape) > _MOST_DIMENSIONS:
        raise UnusableError("a tensor has an impossible shape")
    if math.prod(shape) == 0:
        return torch.empty(shape, dtype=dtype)
    end = offset + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True)) + 1
    if end * dtype.itemsize > storage.content.nbytes():
        raise UnusableError("a tensor reaches beyond its storage")
    empty = torch.empty(0, dtype=dtype)
    return empty.set_(storage.content, offset, tuple(shape), tuple(strides))


_NAMES: Mapping[str, Any] = {
    "collections OrderedDict": OrderedDict,
    PICKLED_TENSOR: _tensor,
    PICKLED_TYPED_TENSOR: _typed_tensor,
    PICKLED_PARAMETER: _parameter,
    "torch.storage UntypedStorage": torch.uint8,
    **{f"torch {name}Storage": dtype for name, dtype in _TYPES.items()},
    **{f"torch {name}": x for name, x in vars(torch).items() if isinstance(x, torch.dtype)},
}
"""What a pickle names -> what it stands for."""


@final
class _Reader:
    """Follows the instructions of a pickle."""

    def __init__(self, storages: _Storages) -> None:
        self._storages = storages
        self._stack: list[Any] = []
        self._below: list[list[Any]] = []
        """The stacks that a mark was put upon."""
        self._memo: dict[int, Any] = {}

    def result_of(self, pickle: bytes) -> Any:
        """The value that a pickle describes."""
        for number, (instruction, argument, _) in enumerate(pickletools.genops(pickle)):
            if number > _MOST_INSTRUCTIONS:
                raise UnusableError("it has more values than any checkpoint")
            if instruction.name in _CONSTANTS:
                self._stack.append(_CONSTANTS[instruction.name])
            elif instruction.name in _VALUES:
                self._stack.append(argument)
            else:
                _STEPS.get(instruction.name, _Reader._refuse)(self, argument)
        (result,) = self._stack
        return result

    def _refuse(self, _: Any) -> None:
        _require(False)

    def _nothing(self, _: Any) -> None:
        """Instructions about the pickle itself."""

    def _new_dict(self, _: Any) -> None:
        self._stack.append({})

    def _new_list(self, _: Any) -> None:
        self._stack.append([])

    def _mark(self, _: Any) -> None:
        self._below.append(self._stack)
        self._stack = []

    def _since_mark(self) -> list[Any]:
        items, self._stack = self._stack, self._below.pop()
        return items

    def _tuple(self, _: Any) -> None:
        items = self._since_mark()
        self._stack.append(tuple(items))

    def _tuple_of(self, number: int) -> None:
        items = [self._stack.pop() for _ in range(number)]
        self._stack.append(tuple(reversed(items)))

    def _set_item(self, _: Any) -> None:
        value, key = self._stack.pop(), self._stack.pop()
        self._set([key, value])

    def _set_items(self, _: Any) -> None:
        self._set(self._since_mark())

    def _set(self, items: Sequence[Any]) -> None:
        target = self._stack[-1]
        _require(isinstance(target, dict))
        for key, value in zip(items[::2], items[1::2], strict=True):
            require_key(key)
            target[key] = value

    def _append(self, _: Any) -> None:
        item = self._stack.pop()
        self._extend([item])

    def _extend_by_items(self, _: Any) -> None:
        self._extend(self._since_mark())

    def _extend(self, items: Sequence[Any]) -> None:
        target = self._stack[-1]
        _require(isinstance(target, list))
        target.extend(items)

    def _remember(self, number: int) -> None:
        self._memo[number] = self._stack[-1]

    def _recall(self, number: int) -> None:
        self._stack.append(self._memo[number])

    def _name(self, name: str) -> None:
        if name not in _NAMES:
            raise UnusableError(f"it names {name.replace(' ', '.')[:100]}, which is no value")
        self._stack.append(_NAMES[name])

    def _storage(self, _: Any) -> None:
        kind, dtype, name, _place, num_elements = self._stack.pop()
        _require(kind == "storage" and isinstance(dtype, torch.dtype))
        _require(type(name) is str and type(num_elements) is int)
        self._stack.append(self._storages.get(dtype, name, num_elements))

    def _call(self, _: Any) -> None:
        arguments, function = self._stack.pop(), self._stack.pop()
        is_empty_dict = function is OrderedDict and arguments == ()
        _require(is_empty_dict or function in (_tensor, _typed_tensor, _parameter))
        self._stack.append(function(*arguments))

    def _describe(self, _: Any) -> None:
        """A model's state has one attribute: the versions of its modules."""
        state, target = self._stack.pop(), self._stack[-1]
        _require(isinstance(target, OrderedDict) and isinstance(state, dict))
        _require(state.keys() <= {"_metadata"})
        vars(target).update(state)


_CONSTANTS: Mapping[str, Any] = {
    "NONE": None,
    "NEWTRUE": True,
    "NEWFALSE": False,
    "EMPTY_TUPLE": (),
}
_VALUES = frozenset(("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE"))
_STEPS: Mapping[str, Callable[[_Reader, Any], None]] = {
    "PROTO": _Reader._nothing,
    "STOP": _Reader._nothing,
    "EMPTY_DICT": _Reader._new_dict,
    "EMPTY_LIST": _Reader._new_list,
    "MARK": _Reader._mark,
    "TUPLE": _Reader._tuple,
    "TUPLE1": lambda reader, _: reader._tuple_of(1),
    "TUPLE2": lambda reader, _: reader._tuple_of(2),
    "TUPLE3": lambda reader, _: reader._tuple_of(3),
    "SETITEM": _Reader._set_item,
    "SETITEMS": _Reader._set_items,
    "APPEND": _Reader._append,
    "APPENDS": _Reader._extend_by_items,
    "BINPUT": _Reader._remember,
    "LONG_BINPUT": _Reader._remember,
    "BINGET": _Reader._recall,
    "LONG_BINGET": _Reader._recall,
    "GLOBAL": _Reader._name,
    "BINPERSID": _Reader._storage,
    "REDUCE": _Reader._call,
    "BUILD": _Reader._describe,
}
"""Instruction -> what it does."""
