"""A run's summary and configuration."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from vgexp import config
from vgexp.tables.files import broken, text_of


def read_summary(folder: Path | str) -> dict[str, Any]:
    """A run's `summary.json`."""
    path = Path(folder) / "summary.json"
    try:
        summary = json.loads(text_of(path))
    except json.JSONDecodeError as error:
        raise broken(path, f"is not JSON: {error}") from None
    if not isinstance(summary, dict):
        raise broken(path, f"holds a {type(summary).__name__}, not a mapping")
    return summary


def read_config(folder: Path | str) -> config.Config:
    """A run's `config.yaml`, as the configuration it resolved to."""
    path = Path(folder) / "config.yaml"
    try:
        values = yaml.safe_load(text_of(path))
    except yaml.YAMLError as error:
        raise broken(path, f"is not YAML: {error}") from None
    if not isinstance(values, dict):
        raise broken(path, "holds no keys")
    chosen: dict[str, str] = {}
    for entry in values.pop("defaults", None) or ():
        if isinstance(entry, dict):
            chosen.update({str(group): str(name) for group, name in entry.items()})
    missing = [group for group in config.CHOICES if group in values and group not in chosen]
    if missing:
        raise broken(path, f"names no choice of {', '.join(missing)} in its defaults list")
    values.pop("hydra", None)
    try:
        return config.from_dict(values, chosen)
    except (ValueError, TypeError) as error:
        raise broken(path, str(error)) from None
