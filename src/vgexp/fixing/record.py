"""What a search writes as it goes: `fix.csv`, a row for each run, and `fix.json`, the result."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from vgexp import files
from vgexp.config import Config, SignalConfig, identity
from vgexp.fixing.change import LeftOut
from vgexp.fixing.probing import Tried
from vgexp.folders import FolderError, replace_file

TABLE, RESULT = "fix.csv", "fix.json"
_KEY = ("override", "kind", "seed", "steps")
_HASH = "config_hash"
_MOST_BYTES = 2**26
COLUMNS = (
    *("number", "override", "keys", "kind", "seed", "steps", "cost", "verdict", "health", "cause"),
    *("loss", "constant_loss", "val_accuracy", "attenuation_first", "attenuation"),
    *("seconds_per_step", "result", "why", "folder"),
)
"""Of `fix.csv`; `cost` is in steps of the sick run, `keys` the number of keys that are typed."""
_OF_TRIAL = (
    *("seed", "verdict", "health", "cause", "loss", "constant_loss", "val_accuracy"),
    *("attenuation_first", "attenuation", "seconds_per_step", "folder"),
)


def write_table(folder: Path, tried: Sequence[Tried], left_out: Sequence[LeftOut]) -> None:
    """Writes all that was tried, and what could not be."""
    rows = [row_of(each) for each in tried]
    rows += [
        {"override": " ".join(each.words), "keys": len(each.words), "result": "left out",
         "why": each.why}
        for each in left_out
    ]  # fmt: skip
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    with replace_file(folder / TABLE) as temporary:
        temporary.write_text(text.getvalue(), encoding="utf-8")


def row_of(each: Tried) -> dict[str, Any]:
    """One run as a row of the table; empty where there is no finite number."""
    row: dict[str, Any] = {
        "number": each.number,
        "override": each.change.override,
        "keys": len(each.change.words),
        "kind": each.kind,
        "steps": each.steps,
        "cost": _short(each.cost),
        "result": each.result,
        "why": each.why,
    }
    if each.trial is not None:
        row |= {name: _short(getattr(each.trial, name)) for name in _OF_TRIAL}
    return row


def identity_of(sick: Config) -> str:
    """A hash of every field that can change a search's runs."""
    return identity(replace(sick, signal=SignalConfig()))


def read_earlier(folder: Path, sick: Config) -> dict[str, Any]:
    """Reads what an earlier search wrote in a folder; empty where there is nothing to read.

    Raises:
        FolderError: it was a search for a cure of another configuration.
    """
    try:
        found = json.loads(files.read(folder / RESULT, _MOST_BYTES))
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(found, dict):
        return {}
    if found.get(_HASH, identity_of(sick)) != identity_of(sick):
        raise FolderError(
            f"{folder} holds a search for a cure of another configuration ({RESULT})\n"
            "allowed: a new folder, or the same configuration, which goes on with that search"
        )
    return found


def keys_of(result: Mapping[str, Any]) -> frozenset[tuple[str, ...]] | None:
    """What tells the rows of a result from each other; None where it has no rows."""
    rows = result.get("tried")
    if not isinstance(rows, list):
        return None
    told = [row for row in rows if isinstance(row, dict)]
    return frozenset(tuple(str(row.get(name)) for name in _KEY) for row in told)


def write_result(folder: Path, sick: Config, result: Mapping[str, Any]) -> None:
    """Writes the result as far as it is known."""
    text = json.dumps({_HASH: identity_of(sick), **result}, indent=2, allow_nan=False) + "\n"
    with replace_file(folder / RESULT) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _short(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if not isinstance(value, float):
        return value
    return f"{value:.6g}" if math.isfinite(value) else ""
