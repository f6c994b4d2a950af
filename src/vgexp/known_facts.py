"""What is known of somebody's own network and stands in no table.

A probe knows it while its loop runs, and keeps it in `config.yaml` of its folder, so that a
diagnosis of the folder is the probe's own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _are_names(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def _is_yes_or_no(value: object) -> bool:
    return isinstance(value, bool)


_FACTS: Mapping[str, tuple[str, Callable[[object], bool]]] = {
    "constant_loss": ("probe", _is_number),
    "constant_weights": ("model", _are_names),
    "default_weights": ("model", _are_names),
    "cut_states": ("model", _are_names),
    "foreign_parameters": ("optimizer", _is_number),
    "takes_turns": ("optimizer", _is_yes_or_no),
}
"""Fact, as rules call it -> its section of `config.yaml`, and whether a value can be one."""


def with_facts(settings: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by section, with the facts in their sections."""
    kept = dict(settings)
    for name, value in facts.items():
        section, _ = _FACTS[name]
        kept[section] = {**kept[section], name: value}
    return kept


def facts_in(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The facts in settings by dotted key, without values that cannot be one."""
    found = {name: settings.get(f"{section}.{name}") for name, (section, _) in _FACTS.items()}
    return {name: value for name, value in found.items() if _FACTS[name][1](value)}
