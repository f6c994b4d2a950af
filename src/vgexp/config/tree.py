"""The whole configuration, and its forms: nested, flat, hashed."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from vgexp.config.data import DataConfig, DigitsConfig
from vgexp.config.groups import CHOICES, choice
from vgexp.config.kinds import require_kinds
from vgexp.config.model import MlpConfig, ModelConfig
from vgexp.config.optimization import (
    ClipConfig,
    ConstantConfig,
    NoClipConfig,
    OptimizerConfig,
    SchedulerConfig,
    SgdConfig,
)
from vgexp.config.ranges import within
from vgexp.config.run import (
    FixConfig,
    OutputConfig,
    ProbeConfig,
    RunConfig,
    SignalConfig,
    TrainConfig,
)
from vgexp.config.user_code import TARGETS
from vgexp.errors import QuestionError, impossible, unknown

DTYPES = ("float32", "float64", "bfloat16", "float16")
HALF_DTYPES = ("bfloat16", "float16")
"""Types of the forward pass alone; parameters are then float32."""
SEED_LIMIT = 2**63


@dataclass
class Config:
    """The configuration of a run."""

    model: ModelConfig = field(default_factory=MlpConfig)
    data: DataConfig = field(default_factory=DigitsConfig)
    optimizer: OptimizerConfig = field(default_factory=SgdConfig)
    scheduler: SchedulerConfig = field(default_factory=ConstantConfig)
    clip: ClipConfig = field(default_factory=NoClipConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    probe: ProbeConfig = field(default_factory=ProbeConfig)
    signal: SignalConfig = field(default_factory=SignalConfig)
    fix: FixConfig = field(default_factory=FixConfig)
    output: OutputConfig = field(default_factory=OutputConfig)
    run: RunConfig = field(default_factory=RunConfig)
    seed: int = 0
    """Seed of every random number."""
    device: str = "auto"
    """`auto`, `cpu`, `cuda` or `cuda:1`."""
    dtype: str = "float32"
    """`float32`, `float64`, or by autocast `bfloat16` and `float16`."""

    def __post_init__(self) -> None:
        within("seed", self.seed, 0, SEED_LIMIT)
        if self.dtype not in DTYPES:
            # No nearest: float16 is near float64 as a word only.
            raise impossible("dtype", self.dtype, ", ".join(DTYPES))
        require(self)


_OLDER_BEHAVIOUR: Mapping[str, Any] = {
    "probe.histograms_every": 0,
    "probe.curvature_every": 0,
    "probe.flight": None,
    "train.stop_on": [],
    "train.stop_patience": None,
    **{f"signal.{f.name}": f.default for f in dataclasses.fields(SignalConfig)},
}
"""Key that configurations of earlier versions lack -> the value that does what those versions did.

A configuration that lacks the key is read with this value, and the value adds nothing to a
configuration's identity.
"""

# Fields that cannot change a table, left out of the configuration's identity.
_NO_IDENTITY = ("output", "device", "run", "fix", "data.download")


def require(config: object) -> None:
    """Requires a `Config` whose groups, sections and values have the right types.

    Raises:
        QuestionError: one has not.
    """
    if not isinstance(config, Config):
        raise QuestionError(
            f"the configuration is {_shown(config)}\n"
            "allowed: a vgexp.config.Config, such as Config(model=MlpConfig(depth=20))"
        )
    require_kinds(config)
    for key, allowed in sections().items():
        section = getattr(config, key)
        if type(section) not in allowed.values():
            names = ", ".join(f"{cls.__name__}(...)" for cls in allowed.values())
            raise QuestionError(f"{key} is {_shown(section)}\nallowed: {names}")
        require_kinds(section, f"{key}.")


def sections() -> dict[str, Mapping[str, type]]:
    """Maps each section of `Config` to its choices and their classes; a lone class is choice ""."""
    found: dict[str, Mapping[str, type]] = {}
    for known in dataclasses.fields(Config):
        if isinstance(known.default_factory, type):
            found[known.name] = CHOICES.get(known.name, {"": known.default_factory})
    return found


def to_dict(config: Config) -> dict[str, Any]:
    """Returns the values as nested plain dictionaries, without the choices."""
    return dataclasses.asdict(config)


def choices(config: Config) -> dict[str, str]:
    """Maps each group to the name of its choice."""
    return {group: choice(group, getattr(config, group)) for group in CHOICES}


def from_dict(values: Mapping[str, Any], chosen: Mapping[str, str]) -> Config:
    """Builds a `Config` from recorded nested values and the name of each group's choice.

    Raises:
        QuestionError: an unknown key or choice, or a value out of range.
    """
    hints = typing.get_type_hints(Config)
    arguments: dict[str, Any] = {}
    for key, value in _with_later_keys(values).items():
        if key not in hints:
            raise unknown("key", key, hints)
        if not isinstance(value, Mapping):
            if dataclasses.is_dataclass(hints[key]):
                raise QuestionError(f"{key} holds no keys")
            arguments[key] = value
            continue
        if key not in sections():
            raise unknown("section", key, sections())
        cls = sections()[key][chosen[key] if key in CHOICES else ""]
        allowed = [f.name for f in dataclasses.fields(cls)]
        for inner in value:
            if inner not in allowed:
                raise unknown(f"key of {key}", inner, allowed)
        arguments[key] = cls(**value)
    return Config(**arguments)


def _with_later_keys(values: Mapping[str, Any]) -> dict[str, Any]:
    """Adds the keys that an earlier version did not record, to the sections that it did."""
    whole = dict(values)
    for name, value in _OLDER_BEHAVIOUR.items():
        section, _, key = name.partition(".")
        if isinstance(whole.get(section), Mapping):
            whole[section] = {key: copy.copy(value), **whole[section]}
    return whole


def flatten(config: Config) -> dict[str, Any]:
    """Maps each dotted key to its value, and each group to the name of its choice."""
    flat: dict[str, Any] = {}
    for key, value in to_dict(config).items():
        if key in CHOICES:
            flat[key] = choice(key, getattr(config, key))
        if isinstance(value, dict):
            flat.update(_flat(f"{key}.", value))
        else:
            flat[key] = value
    return flat


def targets(config: Config) -> list[tuple[str, str]]:
    """Returns key and package.module.name of all code that a run of the configuration executes."""
    flat = flatten(config)
    asked = [(key, flat.get(key)) for key in TARGETS]
    named = [(k, name) for k, v in asked for name in (v if isinstance(v, list) else [v])]
    return [(k, name) for k, name in named if isinstance(name, str) and "." in name]


def identity(config: Config) -> str:
    """Returns a hash of every field that can change a table."""
    return hashlib.sha256(json.dumps(deciding(config), sort_keys=True).encode()).hexdigest()[:16]


def deciding(config: Config) -> dict[str, Any]:
    """Maps the dotted key of each field that can change a table to its value."""
    flat = {
        key: value
        for key, value in flatten(config).items()
        if not {key, key.split(".")[0]} & set(_NO_IDENTITY)
        and (key not in _OLDER_BEHAVIOUR or value != _OLDER_BEHAVIOUR[key])
    }
    return {**flat, "run.threads": config.run.threads}


def _flat(prefix: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Maps dotted keys to values, also within values that are mappings: `model.kwargs.width`."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat.update(
            _flat(f"{prefix}{key}.", value)
            if value and isinstance(value, dict)
            else {f"{prefix}{key}": value}
        )
    return flat


def _shown(value: object) -> str:
    """Returns a value of a wrong type in words, with its type."""
    text = repr(value)
    return f"{text if len(text) <= 40 else text[:37] + '...'} (of type {type(value).__name__})"
