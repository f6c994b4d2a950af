"""A composed configuration as dataclasses."""

from __future__ import annotations

import dataclasses
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from vgexp.cli.hydra_errors import translate, unknown_key
from vgexp.config import Config


def to_config(composed: DictConfig) -> Config:
    """Converts a composed configuration into dataclasses. No code below knows OmegaConf.

    Raises:
        QuestionError: a value out of its range, or a key that was added with `+`.
    """
    try:
        config = cast(Config, OmegaConf.to_object(composed))
    except OmegaConfBaseException as error:
        raise translate(error) or error from error
    _refuse_unknown_keys(composed, config, "")
    return config


def _refuse_unknown_keys(composed: DictConfig, config: Any, path: str) -> None:
    known = [field.name for field in dataclasses.fields(config)]
    for key in composed:
        if key not in known:
            raise unknown_key(path, str(key), known)
        inner = getattr(config, str(key))
        if dataclasses.is_dataclass(inner):
            _refuse_unknown_keys(composed[key], inner, str(key))
