"""`model` and `data` from elsewhere: torchvision's models, and the user's own models and data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Optional

from vgexp.config.data import DataConfig
from vgexp.config.model import ModelConfig
from vgexp.config.ranges import at_least
from vgexp.errors import impossible

TARGETS = (
    *("model.target", "data.target", "train.loss"),
    *("model.activation", "model.init", "model.norm"),
    "output.sinks",
)
"""Keys whose value, or an entry of it, names code if it has a dot; a run executes it."""

_MOST_VALUES = 10_000
_DEEPEST = 10


@dataclass
class TorchvisionConfig(ModelConfig, choice="torchvision"):
    """A classifier of torchvision, with random weights and a head for the data's classes."""

    reads: ClassVar[tuple[str, ...]] = ("image",)
    arch: str = "resnet18"
    """Name of one of torchvision's classifiers: resnet18, vgg16, densenet121, vit_b_16, ..."""
    kwargs: Any = None
    """Further arguments of its builder: {name: value, ...}; null: none."""

    def __post_init__(self) -> None:
        require_arguments("model.kwargs", self.kwargs)


@dataclass
class CustomConfig(ModelConfig, choice="custom"):
    """Your own `nn.Module`; a run executes its code."""

    target: Optional[str] = None
    """A class, or a function that returns a module, as package.module.name; the module may be in
    the current folder."""
    kwargs: Any = None
    """Arguments of the call: {name: value, ...}; null: none."""

    def __post_init__(self) -> None:
        require_arguments("model.kwargs", self.kwargs)


@dataclass
class CustomDataConfig(DataConfig, choice="custom"):
    """Your own `torch.utils.data.Dataset`s; a run executes their code."""

    target: Optional[str] = None
    """A function that returns (train, validation), (train, validation, test), or one data set,
    which `data.val_fraction` then splits; as package.module.name."""
    kwargs: Any = None
    """Arguments of the call: {name: value, ...}; null: none."""
    num_classes: Optional[int] = None
    """Number of classes; null: what the data set says (`classes`, `num_classes`), else the largest
    class number plus one."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_arguments("data.kwargs", self.kwargs)
        at_least("data.num_classes", self.num_classes, 2)


def require_arguments(key: str, value: object) -> None:
    """Requires a dictionary of names and plain values, as a settings file can hold; None passes.

    Raises:
        QuestionError: anything else.
    """
    if value is not None and not (isinstance(value, dict) and _is_plain(value)):
        raise impossible(
            key, value, "{name: value, ...} of numbers, text, true, false, null, lists, or null"
        )


def _is_plain(value: object) -> bool:
    """Whether a value is made of plain values; a file can nest it deeply or in itself."""
    waiting = [(value, 0)]
    for _ in range(_MOST_VALUES):
        if not waiting:
            return True
        each, depth = waiting.pop()
        if depth > _DEEPEST:
            return False
        if isinstance(each, dict):
            if not all(isinstance(name, str) for name in each):
                return False
            waiting += [(inner, depth + 1) for inner in each.values()]
        elif isinstance(each, list):
            waiting += [(inner, depth + 1) for inner in each]
        elif not (each is None or isinstance(each, bool | int | float | str)):
            return False
    return False
