"""Checks the overrides that a user types, and rewrites those that Hydra reads in another way."""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override, QuotedString, RangeSweep
from hydra.errors import HydraException, OverrideParseException

from vgexp.config import CHOICES
from vgexp.errors import QuestionError, unknown
from vgexp.folders import parse_yaml

_EXPERIMENT = re.compile(r"^\+{0,2}experiment=")
_RANGE = "allowed: range(START,STOP,STEP) with at least one value before STOP"


def spell_experiment(overrides: Sequence[str], *, listed: bool) -> list[str]:
    """Spells `experiment=X` and `+experiment=X` in the one way that Hydra accepts.

    Leaves `experiment=null` out, which Hydra refuses.

    Args:
        listed: whether the primary config's defaults list has an `experiment` entry.
    """
    spelled = "experiment=" if listed else "+experiment="
    words = [_EXPERIMENT.sub(spelled, override) for override in overrides]
    return [word for word in words if word != f"{spelled}null"]


def lists_experiment(folders: Sequence[Path], name: str) -> bool:
    """Whether the defaults list of the primary config `name` has an `experiment` entry."""
    defaults = _load(folders, name).get("defaults") or []
    entries = [entry for entry in defaults if isinstance(entry, Mapping)]
    return any(str(key).split()[-1] == "experiment" for entry in entries for key in entry)


def preset_sweep(overrides: Sequence[str], folders: Sequence[Path]) -> list[str] | None:
    """The sweep that the chosen preset declares, as overrides; None where it declares none.

    Raises:
        QuestionError: the preset is one of several that are swept over.
    """
    declared = None
    for override in (o for o in overrides if _EXPERIMENT.match(o)):
        names = [name.strip() for name in override.split("=", 1)[1].strip("[]").split(",")]
        for name in names:
            hydra = _load(folders, f"experiment/{name}").get("hydra") or {}
            if str(hydra.get("mode")) != "MULTIRUN":
                continue
            if len(names) > 1:
                raise QuestionError(
                    f"experiment={','.join(names)}: {name} is a sweep itself\n"
                    f"allowed: {name} alone: vgexp train +experiment={name}"
                )
            params = (hydra.get("sweeper") or {}).get("params") or {}
            declared = [f"{key}={value}" for key, value in params.items()]
    return declared


def require_possible(overrides: Sequence[str], *, is_sweep: bool) -> None:
    """Refuses overrides that Hydra would ignore, or refuse in words that do not help.

    Raises:
        QuestionError: the folder of a sweep for a single run or the other way round, a group
            that is given anything but the name of a choice, or a sweep over no value at all.
    """
    named = {o.key_or_group.lstrip("+"): o for o in _parsed(overrides)}
    ours, other = ("sweep", "run") if is_sweep else ("run", "sweep")
    if f"hydra.{other}.dir" in named and f"hydra.{ours}.dir" not in named:
        what = "a sweep" if is_sweep else "a single run"
        folder = _text(named[f"hydra.{other}.dir"])
        raise QuestionError(
            f"hydra.{other}.dir is not where {what} goes\nallowed: hydra.{ours}.dir={folder}"
        )
    for key, override in named.items():
        if key in (*CHOICES, "experiment") and not override.is_delete():
            _require_choice(key, override)
        if override.is_sweep_override():
            _require_values(key, override)


def require_joined(words: Sequence[str]) -> None:
    """Refuses spaces around the `=` of an override: `model.depth = 5`.

    Raises:
        QuestionError: a word begins with `=`, or ends with it before a word that has none.
    """
    for index, word in enumerate(words):
        before = words[index - 1] if index else ""
        after = next(iter(words[index + 1 :]), "")
        if word.startswith("="):
            typed = [before, word] if word != "=" else [before, word, after]
        elif word.endswith("=") and after and "=" not in after and after[0] not in "-~":
            typed = [word, after]
        else:
            continue
        typed = [part for part in typed if part]
        raise QuestionError(
            f"spaces around = in {' '.join(typed)!r}\nallowed: key=value, without spaces\n"
            f"nearest: {shlex.quote(''.join(typed))}"
        )


def defer(overrides: Sequence[str], declared: Sequence[str] = ()) -> list[str]:
    """Makes sweeps over one value of keys of a swept group: `clip=norm,value clip.threshold=1`.

    Hydra composes a sweep's own configuration without the keys that are swept, and there
    `clip.threshold` is unknown. It is not unknown in the jobs, which alone have swept values.

    Args:
        declared: the overrides that a preset sweeps over.
    """
    keys = find_swept([*declared, *overrides])
    groups = set(CHOICES) if "experiment" in keys else keys & set(CHOICES)
    return [
        _as_sweep(text) if _defers(override, groups) else text
        for text, override in zip(overrides, parse(overrides), strict=True)
    ]


def find_swept(overrides: Sequence[str]) -> frozenset[str]:
    """Finds the keys and groups that overrides sweep over.

    Raises:
        OverrideParseException: one cannot be read.
    """
    return frozenset(o.key_or_group.lstrip("+") for o in parse(overrides) if o.is_sweep_override())


def parse(overrides: Sequence[str]) -> list[Override]:
    """Has Hydra parse each override.

    Raises:
        OverrideParseException: one cannot be read.
    """
    return list(OverridesParser.create().parse_overrides(list(overrides)))


def read_values(overrides: Sequence[str]) -> dict[str, str]:
    """Key -> the value as text, for the columns of a sweep's table."""
    named = {}
    for text, override in zip(overrides, parse(overrides), strict=True):
        value = override.value()
        plain = value if isinstance(value, str) else text.partition("=")[2]
        named[override.key_or_group] = "" if override.is_delete() else plain
    return named


def assign(key: str, text: str) -> str:
    """The override that sets a key to a text, whatever characters are in it."""
    # Hydra reads \\' as a quote and a backslash before one as escaped; elsewhere it stays one.
    quoted = re.sub(r"(\\*)('|$)", lambda m: m[1] * 2 + ("\\'" if m[2] else ""), text)
    return f"{key}='{quoted.replace('${', chr(92) + '${')}'"


def _parsed(overrides: Sequence[str]) -> list[Override]:
    """The overrides, parsed; none where one cannot be, which Hydra will refuse."""
    try:
        return parse(overrides)
    except OverrideParseException:
        return []


def _text(override: Override) -> str:
    """The value as it was typed."""
    return str(override.input_line).partition("=")[2]


def _require_choice(group: str, override: Override) -> None:
    value = override.value()
    if override.is_sweep_override() or isinstance(value, (str, QuotedString)):
        return
    if isinstance(value, list) and (len(value) == 1 or group not in CHOICES):
        return
    shown = _text(override)
    if group not in CHOICES:
        raise QuestionError(f"{group} is {shown}\nallowed: a name: vgexp list experiments")
    if isinstance(value, list):
        raise QuestionError(
            f"{group} is several choices at once: {shown}\nallowed: one of them\n"
            f"choices: {', '.join(CHOICES[group])}"
        )
    raise unknown(group, shown, CHOICES[group])


def _require_values(key: str, override: Override) -> None:
    """Refuses a sweep over no value, of which Hydra makes a sweep without jobs."""
    value = override.value()
    if isinstance(value, Glob):
        # Hydra itself looks for the choices of groups that are not ours.
        names = [] if "." in key else CHOICES.get(key)
        if names is None or value.filter(list(names)):
            return
        allowed = (
            f"allowed: a pattern of {', '.join(names)}"
            if names
            else "allowed: values, as in seed=1,2,3 or seed=range(1,5)\n"
            "glob is for the choices of a group: optimizer=glob(*)"
        )
    elif isinstance(value, RangeSweep):
        try:
            is_empty = next(iter(value.range()), None) is None
        except (ValueError, HydraException) as error:
            raise QuestionError(f"{override.input_line}: {error}\n{_RANGE}") from None
        if not is_empty:
            return
        allowed = _RANGE
    else:
        return
    raise QuestionError(f"{override.input_line} is a sweep over no value\n{allowed}")


def _defers(override: Override, groups: Collection[str]) -> bool:
    key = override.key_or_group
    is_plain = not (override.is_sweep_override() or override.is_delete())
    return is_plain and "." in key and key.split(".")[0] in groups


def _as_sweep(text: str) -> str:
    key, _, value = text.partition("=")
    return f"{key}=choice({value})" if value else text


def _load(folders: Sequence[Path], name: str) -> Mapping[str, Any]:
    """Reads the first `name`.yaml in the folders; empty where there is none or it is no YAML."""
    for folder in folders:
        path = folder / f"{name.removesuffix('.yaml')}.yaml"
        if path.is_file():
            try:
                loaded = _parse_yaml(path.read_text(encoding="utf-8"))
            except (yaml.YAMLError, UnicodeDecodeError):
                return {}
            return loaded if isinstance(loaded, Mapping) else {}
    return {}


@lru_cache(maxsize=64)
def _parse_yaml(text: str) -> Any:
    """What a YAML text says, which nobody changes: a command asks for the same files repeatedly."""
    return parse_yaml(text)
