"""All keys of configurations, with their defaults and meanings, for the help page."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from vgexp.cli.error_blocks import WIDTH
from vgexp.config import Config, sections
from vgexp.config.meanings import meanings

# Where the meanings begin; after a longer key, on a line of their own.
_MEANING_COLUMN = 30


@dataclass(frozen=True)
class Key:
    """A key, for those choices of its group that give it the same default and meaning."""

    name: str
    """With its group: `optimizer.lr`."""
    default: str
    """As it is typed on a command line."""
    meaning: str
    choices: tuple[str, ...]
    """The choices that have it; empty where all have."""


def list_keys() -> list[Key]:
    """Lists the keys of all choices of all groups, in the order of their declaration."""
    found: list[Key] = []
    for group, classes in sections().items():
        merged: dict[tuple[str, str, str], list[str]] = {}
        for choice, cls in classes.items():
            for key in _fields(f"{group}.", cls):
                merged.setdefault(key, []).append(choice)
        places = {name: i for i, name in enumerate(dict.fromkeys(name for name, _, _ in merged))}
        for key, choices in sorted(merged.items(), key=lambda item: places[item[0][0]]):
            is_everywhere = len(choices) == len(classes)
            found.append(Key(*key, () if is_everywhere else tuple(choices)))
    return found + [Key(*key, ()) for key in _fields("", Config) if key[0] not in sections()]


def format_page() -> str:
    """Formats all keys as `vgexp train --help` shows them, at most 80 columns wide."""
    blocks: dict[str, list[str]] = {}
    for key in list_keys():
        blocks.setdefault(key.name.rpartition(".")[0], []).append(_line(key))
    return "\n\n".join("\n".join(lines) for lines in blocks.values())


def format_value(value: object) -> str:
    """Formats a value as it is typed on a command line."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{','.join(map(format_value, value))}]"
    if isinstance(value, float) and len(repr(value)) > 8:
        return f"{value:.3g}"
    return str(value)


def _fields(prefix: str, cls: Any) -> Iterator[tuple[str, str, str]]:
    said = meanings(cls)
    for field in dataclasses.fields(cls):
        made = field.default_factory
        default = field.default if made is dataclasses.MISSING else made()
        yield f"{prefix}{field.name}", format_value(default), said[field.name]


def _line(key: Key) -> str:
    shown = f"{key.name}={key.default}"
    where = f" ({', '.join(key.choices)})" if key.choices else ""
    fits = len(shown) + 2 <= _MEANING_COLUMN
    wrapped = textwrap.fill(
        key.meaning + where,
        WIDTH,
        initial_indent=shown.ljust(_MEANING_COLUMN) if fits else " " * _MEANING_COLUMN,
        subsequent_indent=" " * _MEANING_COLUMN,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return wrapped if fits else f"{shown}\n{wrapped}"
