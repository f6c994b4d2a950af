"""Commands with further overrides, as they are shown to be typed."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from vgexp.config import CHOICES, is_key_of


def command_with(command: Sequence[str], override: str) -> str:
    """A command with further overrides, which stand for those of the same keys in it."""
    words = override.split()
    return shlex.join([*keep_words(command, words), *words])


def keep_words(command: Sequence[str], override: Sequence[str]) -> list[str]:
    """The words of a command that an override leaves as they are.

    Left out are words of the same keys, and keys that a choice of the override does not have:
    `model.activation=tanh` with `model=lstm`.
    """
    keys = set(map(_key, override))
    chosen = {
        group: name
        for group, _, name in (word.partition("=") for word in override)
        if group in CHOICES and name in CHOICES[group]
    }
    kept = []
    for word in command:
        group, _, inner = _key(word).partition(".")
        is_foreign = inner and group in chosen and not is_key_of(inner, group, chosen[group])
        if _key(word) not in keys and not is_foreign:
            kept.append(word)
    return kept


def _key(word: str) -> str:
    """The key of an override; another word is its own."""
    return word.partition("=")[0].lstrip("+~")
