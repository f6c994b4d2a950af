"""A change of the configuration: an override, what it changes, and how small it is."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from vgexp.config import CHOICES, Config, flatten, identity
from vgexp.errors import QuestionError, unknown

Compose = Callable[[Sequence[str]], Config]
"""From the words of an override to the configuration that it makes of the sick one.

It raises a `QuestionError` where a word names a key or a choice that does not fit."""

_NUMBER, _NAME, _FAMILY = range(3)
_DIGITS = 6
"""Decimals of a difference of logarithms: a third and three times are as far."""


@dataclass(frozen=True, eq=False)
class Change:
    """An override that was composed."""

    words: tuple[str, ...]
    """What is typed, without words that change nothing."""
    config: Config
    size: tuple[float, ...]
    """Smaller is less: number of words, what they change (numbers, names, the model's family), and
    by how much the logarithms of numbers differ."""
    group: int = 0
    """The place of the group of overrides that it is of; an earlier one is nearer to the cause."""

    @property
    def override(self) -> str:
        """What is typed."""
        return " ".join(self.words)


@dataclass(frozen=True)
class LeftOut:
    """An override that is not tried, and why."""

    words: tuple[str, ...]
    why: str


def compose_changes(
    overrides: Iterable[Sequence[str]],
    sick: Config,
    compose: Compose,
    keep: Collection[str] = (),
    *,
    group: int = 0,
) -> tuple[list[Change], list[LeftOut]]:
    """Composes overrides of one group.

    Args:
        overrides: the words of each.
        keep: keys that must not change.
        group: the place of the group.

    Returns:
        Those that can be tried, and those that cannot: a key that this configuration does not
        have, a key of `keep`. Those that change nothing, or the same as another, are in neither.
    """
    changes: dict[str, Change] = {}
    left_out: dict[tuple[str, ...], LeftOut] = {}
    before = flatten(sick)
    for asked in overrides:
        words = tuple(word for word in asked if not _is_idle(word, before))
        if not words or words in left_out:
            continue
        try:
            config = compose(words)
        except QuestionError as error:
            left_out[words] = LeftOut(words, f"not possible: {str(error).splitlines()[0]}")
            continue
        kept = find_kept(before, flatten(config), keep)
        words = _shorten(words, config, compose)
        if kept:
            left_out[words] = LeftOut(words, f"fix.keep: it changes {kept[0]}")
        elif identity(config) != identity(sick):
            change = Change(words, config, _size(words, before), group)
            changes.setdefault(identity(config), change)
    return [*changes.values()], [*left_out.values()]


def _shorten(words: tuple[str, ...], config: Config, compose: Compose) -> tuple[str, ...]:
    """The words without those that the others imply: `model=lstm` has a forget bias of 1."""
    for word in words:
        fewer = tuple(other for other in words if other != word)
        with suppress(QuestionError):
            if fewer and identity(compose(fewer)) == identity(config):
                return _shorten(fewer, config, compose)
    return words


def find_kept(
    before: Mapping[str, Any], after: Mapping[str, Any], keep: Collection[str]
) -> list[str]:
    """The keys that differ although they must not."""
    differing = [
        key for key in dict.fromkeys((*before, *after)) if before.get(key) != after.get(key)
    ]
    return [key for key in differing if any(key == k or key.startswith(f"{k}.") for k in keep)]


def require_keys(keep: Collection[str], config: Config) -> None:
    """Requires that each entry of `fix.keep` is a key of the configuration, or a section.

    Raises:
        QuestionError: one is not.
    """
    keys = flatten(config)
    sections = dict.fromkeys(key.split(".")[0] for key in keys)
    for asked in keep:
        if asked in keys or asked in sections:
            continue
        section = asked.split(".")[0]
        within = [key for key in keys if key.startswith(f"{section}.")]
        whole: dict[str, list[str]] = {}
        for key in keys:
            if "." in key:
                whole.setdefault(key.rpartition(".")[2], []).append(key)
        raise unknown("key in fix.keep", asked, within or sections, {} if within else whole)


def _is_idle(word: str, before: Mapping[str, Any]) -> bool:
    """Whether a key has this value already."""
    key, _, value = word.partition("=")
    if key not in before:
        return False
    now = before[key]
    if isinstance(now, int | float) and not isinstance(now, bool):
        return _number(value) == now
    return value == ("null" if now is None else str(now))


def _size(words: Sequence[str], before: Mapping[str, Any]) -> tuple[float, ...]:
    kinds, distance = [], 0.0
    for word in words:
        key, _, value = word.partition("=")
        old, new = before.get(key), _number(value)
        if key == "model":
            kinds.append(_FAMILY)
        elif key in CHOICES or new is None:
            kinds.append(_NAME)
        else:
            kinds.append(_NUMBER)
            if isinstance(old, int | float) and old > 0 and new > 0:
                distance += abs(math.log(new / old))
            else:
                distance += 1.0
    return (len(words), max(kinds), round(distance, _DIGITS))


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
