"""Stands for a loss function of somebody's loop, and shows its calls to a probe.

It has the function's attributes, signature, copies and pickled form; and where that is an object of
another class, its class.
"""

from __future__ import annotations

import copy
import types
from collections.abc import Callable
from typing import Any

import torch

from vgexp.probe.hooks import Hook
from vgexp.probe.loss_numbers import NumberWatch

_FUNCTIONS = (types.FunctionType, types.BuiltinFunctionType, types.MethodType)


class WatchedFunction:
    # It has no docstring of its own, but that of its function.

    __doc__ = property(lambda self: self._function.__doc__)
    _function: Callable[..., Any]
    _see: Hook
    _watch: Callable[[], NumberWatch | None]

    def __init__(
        self, function: Callable[..., Any], see: Hook, watch: Callable[[], NumberWatch | None]
    ) -> None:
        object.__setattr__(self, "_function", function)
        object.__setattr__(self, "_see", see)
        object.__setattr__(self, "_watch", watch)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        watch = None if torch.compiler.is_compiling() else self._watch()
        if watch is None:
            result = self._function(*args, **kwargs)
        else:
            watch.begin()
            try:
                result = self._function(*args, **kwargs)
            finally:
                watch.end()
        if not torch.compiler.is_compiling():
            self._see(self._function, args, kwargs, result)
        return result

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        # torch.compile takes what says that it is a function for one, and looks at its code.
        found = type(self._function)
        return WatchedFunction if found in _FUNCTIONS else found

    @property
    def __wrapped__(self) -> Any:
        return self._function

    def __getattr__(self, name: str) -> Any:
        return getattr(self._function, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._function, name, value)

    def __delattr__(self, name: str) -> None:
        delattr(self._function, name)

    def __dir__(self) -> list[str]:
        return dir(self._function)

    def __repr__(self) -> str:
        return repr(self._function)

    def __copy__(self) -> Any:
        return copy.copy(self._function)

    def __deepcopy__(self, memo: Any) -> Any:
        return copy.deepcopy(self._function, memo)

    def __reduce_ex__(self, _protocol: Any) -> Any:
        return _itself, (self._function,)


def _itself(function: Any) -> Any:
    return function
