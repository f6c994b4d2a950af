"""Registries: mappings from names to entries, each with a line that says what it is."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Generic, TypeVar

from vgexp.errors import QuestionError, unknown

T = TypeVar("T")


class Registry(Mapping[str, T], Generic[T]):
    """A mapping from name to entry whose look-up names the nearest match on failure.

    An entry is added once, as its module is imported, and never replaced or removed.

    Entries are functions, classes or dataclass instances; `summary` is the entry's own attribute
    of that name or the first sentence of its docstring.

    Args:
        user_code: makes an entry from `package.module.name`, the user's own code; None: it takes
            no such names.
    """

    def __init__(
        self, kind: str, entries: Mapping[str, T], user_code: Callable[[str], T] | None = None
    ) -> None:
        self.kind = kind
        self._entries = dict(entries)
        self._user_code = user_code

    def __getitem__(self, name: str) -> T:
        try:
            return self._entries[name]
        except KeyError:
            if self._user_code is None:
                raise unknown(self.kind, name, self._entries) from None
        if "." in name:
            return self._user_code(name)
        question = unknown(self.kind, name, self._entries)
        raise QuestionError(f"{question}\nor your own: package.module.name")

    def add(self, name: str, entry: T) -> None:
        """Adds an entry under a new name."""
        assert name not in self._entries, f"{self.kind} {name} is there already"
        self._entries[name] = entry

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def summary(self, name: str) -> str:
        """Returns the line that `vgexp list` prints for an entry."""
        entry = self[name]
        text = getattr(entry, "summary", None) or inspect.getdoc(entry) or ""
        return str(text).strip().split("\n\n")[0].replace("\n", " ")


def import_modules(package: str, path: Iterable[str]) -> None:
    """Imports every module of a package, so that each registers what it makes.

    Args:
        path: the package's `__path__`.
    """
    for module in pkgutil.walk_packages(path, f"{package}."):
        importlib.import_module(module.name)
