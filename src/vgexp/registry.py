"""Registries: one idea has one entry, found by its name, with a line that says what it is."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import Generic, TypeVar

from vgexp.errors import unknown

T = TypeVar("T")


class Registry(Mapping[str, T], Generic[T]):
    """An immutable mapping from name to entry whose look-up names the nearest match on failure.

    Entries are functions, classes or dataclass instances; `summary` is the entry's own attribute
    of that name or the first sentence of its docstring.
    """

    def __init__(self, kind: str, entries: Mapping[str, T]) -> None:
        self.kind = kind
        self._entries = dict(entries)

    def __getitem__(self, name: str) -> T:
        try:
            return self._entries[name]
        except KeyError:
            raise unknown(self.kind, name, self._entries) from None

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def summary(self, name: str) -> str:
        """The one line that `vgexp list` prints for this entry."""
        entry = self[name]
        text = getattr(entry, "summary", None) or inspect.getdoc(entry) or ""
        return str(text).strip().split("\n\n")[0].replace("\n", " ")
