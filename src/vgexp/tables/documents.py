"""Reads a run's summary and configuration."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from vgexp import config, folders
from vgexp.tables.files import broken, text_of

_MOST_DIGITS = 300
"""Of a whole number that still has a floating form; no metric of a run has as many."""


def read_summary(folder: Path | str) -> dict[str, Any]:
    """Reads a run's `summary.json`."""
    path = Path(folder) / folders.SUMMARY
    text = text_of(path, folders.MOST_SUMMARY_BYTES)
    try:
        summary = json.loads(text, parse_int=_whole)
    except (ValueError, RecursionError) as error:
        raise broken(path, f"is not JSON: {error}") from None
    if not isinstance(summary, dict):
        raise broken(path, f"holds a {type(summary).__name__}, not a mapping")
    return summary


def _whole(text: str) -> int | float:
    """Reads a whole number; one with more digits than any metric has becomes a float."""
    return int(text) if len(text) <= _MOST_DIGITS else float(text)


def read_config(folder: Path | str) -> config.Config:
    """Reads a run's `config.yaml` as its resolved configuration; nothing in it is executed.

    Raises:
        QuestionError: it is missing or damaged, or that of somebody's own loop.
    """
    folders.refuse_guest(Path(folder))
    path = Path(folder) / folders.CONFIG
    text = text_of(path, folders.MOST_CONFIG_BYTES)
    try:
        values = folders.parse_yaml(text)
    except yaml.MarkedYAMLError as error:
        line = "" if error.problem_mark is None else f" (line {error.problem_mark.line + 1})"
        raise broken(path, f"is not YAML: {error.problem}{line}") from None
    except Exception as error:
        # Not YAML errors only: `!!int x`, dates that do not exist and deep nesting raise others.
        raise broken(path, f"is not YAML: {error}") from None
    if not isinstance(values, dict):
        raise broken(path, "holds no keys")
    defaults = values.pop("defaults", None)
    entries = defaults if isinstance(defaults, list) else []
    named = [pair for entry in entries if isinstance(entry, dict) for pair in entry.items()]
    chosen = {group: name for group, name in named if isinstance(name, str)}
    missing = [group for group in config.CHOICES if group in values and group not in chosen]
    if missing:
        raise broken(path, f"names no choice of {', '.join(missing)} in its defaults list")
    values.pop("hydra", None)
    try:
        return config.from_dict(values, chosen)
    except (ValueError, TypeError) as error:
        raise broken(path, str(error)) from None


def read_settings(folder: Path | str) -> dict[str, Any]:
    """Reads what `config.yaml` says of a run of somebody's own loop, by dotted key."""
    path = Path(folder) / folders.CONFIG
    try:
        values = folders.parse_yaml(text_of(path, folders.MOST_CONFIG_BYTES))
    except Exception as error:  # of many kinds, as above
        raise broken(path, f"is not YAML: {error}") from None
    found = values.get(folders.GUEST) if isinstance(values, dict) else None
    if not isinstance(found, dict):
        raise broken(path, f"says nothing of {folders.GUEST}")
    return {
        f"{group}.{name}": value
        for group, settings in found.items()
        if isinstance(settings, dict)
        for name, value in settings.items()
    }
