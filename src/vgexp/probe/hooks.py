"""Hooks on modules and tensors that never raise an error in the user's training."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from vgexp.torch_internals import call_without_modes, remove_forward_hook

Note = Callable[[int | None, str], None]
"""A function of a row (None: the model) and the reason why it could not be measured."""


class Hook:
    """A hook that notes its errors instead of raising them, and is not copied with the model.

    While `torch.compile` traces it, it does nothing, so that graphs are as without it.
    """

    __slots__ = ("_do", "_key", "_module", "_note", "_row")

    def __init__(self, note: Note, row: int | None, do: Callable[..., None]) -> None:
        self._note = note
        self._row = row
        self._do = do
        self._module: weakref.ref[nn.Module] | None = None
        self._key = -1

    def __call__(self, *arguments: Any) -> None:
        if torch.compiler.is_compiling():
            return
        try:
            call_without_modes(self._do, arguments)
        except Exception as error:
            self._note(self._row, f"measuring it raised {type(error).__name__}: {error}")

    def set_before(self, module: nn.Module, **options: bool) -> Any:
        """Sets it before a module's forward pass. Returns its handle; None if it was refused."""
        return self._set(module, module.register_forward_pre_hook, options)

    def set_after(self, module: nn.Module, **options: bool) -> Any:
        """Sets it after a module's forward pass. Returns its handle; None if it was refused."""
        return self._set(module, module.register_forward_hook, options)

    def _set(self, module: nn.Module, register: Callable[..., Any], options: Any) -> Any:
        assert self._module is None or self._module() is module, "one hook a module"
        try:
            handle = register(self, **options)
        except Exception as error:  # scripted modules take no hooks
            self._note(self._row, f"it takes no hook: {type(error).__name__}: {error}")
            return None
        self._module, self._key = weakref.ref(module), handle.id
        return handle

    def __deepcopy__(self, memo: dict[Any, Any]) -> Callable[..., None]:
        """Returns what does nothing, and has it removed from the copy when the copy is made.

        A dictionary's copy has an entry for each of the original's. `memo` is dropped when all is
        copied, and with it what removes the entry.
        """
        copied = None if self._module is None else memo.get(id(self._module()))
        if isinstance(copied, nn.Module):
            memo.setdefault(_LEFT, _Left()).entries.append((copied, self._key))
        return ignore

    def __reduce__(self) -> tuple[Callable[[], Callable[..., None]], tuple[()]]:
        return _return_ignore, ()


class _Left:
    """The entries of hooks that a copied model is still to lose."""

    def __init__(self) -> None:
        self.entries: list[tuple[nn.Module, int]] = []

    def __del__(self) -> None:
        for module, key in self.entries:
            remove_forward_hook(module, key)


_LEFT = "vgexp: hooks left in the copy"


def ignore(*_: Any) -> None:
    """Does nothing; it takes the place of a hook in a copied or saved model."""


def _return_ignore() -> Callable[..., None]:
    return ignore
