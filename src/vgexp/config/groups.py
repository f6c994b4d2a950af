"""The choices of each group: a choice is a dataclass that says its own name.

    @dataclass
    class AdamwConfig(OptimizerConfig, choice="adamw"):
        ...

The function that makes it is on a higher floor, and is registered there by this class with the
function of its group: `optimizers.build`, `models.make` and the like.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, ClassVar

from vgexp.errors import QuestionError, unknown
from vgexp.registry import Registry

_GROUPS: dict[str, Registry[type[Any]]] = {}

CHOICES: Mapping[str, Registry[type[Any]]] = _GROUPS
"""Group -> choice -> the dataclass whose fields are that choice's keys.

Groups and choices are in the order in which `vgexp.config` imports their modules.
"""


class Choice:
    """The base of each group's base class.

    Args:
        group: the name of the group whose choices extend the class.
        choice: the name under which the class is chosen; None: it is a base of choices only.
    """

    _group: ClassVar[str]

    def __init_subclass__(
        cls, *, group: str | None = None, choice: str | None = None, **kwargs: Any
    ) -> None:
        super().__init_subclass__(**kwargs)
        if group is not None:
            cls._group = group
            _GROUPS[group] = Registry(group, {})
        if choice is not None:
            _GROUPS[cls._group].add(choice, cls)


def choice(group: str, config: object) -> str:
    """The name under which a group's configuration object is chosen, e.g. `mlp`."""
    for name, cls in CHOICES[group].items():
        if type(config) is cls:
            return name
    raise _unknown(group, config)


def is_key_of(key: str, group: str, choice: str) -> bool:
    """Whether a choice of a group has a key: `activation`, or `kwargs.width` within one."""
    return key.split(".")[0] in {field.name for field in fields(CHOICES[group][choice])}


def unmade(config: Choice) -> QuestionError:
    """The error for a configuration whose class is no choice, so that nothing is made of it."""
    return _unknown(config._group, config)


def _unknown(group: str, config: object) -> QuestionError:
    return unknown(f"{group} configuration", type(config).__name__, CHOICES[group])
