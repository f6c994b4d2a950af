"""Models from elsewhere: torchvision's classifiers, and the user's own modules.

They do not say where to look, so the probe reads it off their modules; and they are tried once
before anything is trained, for nothing is known of what they read and return.

Axes: B examples, C channels, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from vgexp import lookup
from vgexp.config import CustomConfig, TorchvisionConfig
from vgexp.errors import QuestionError, reason, unknown
from vgexp.models.families import make
from vgexp.tasks import Task

_ALLOWED = "a class of nn.Module, or a function that returns a module"
_COLOURS = 3
"""Number of channels that torchvision's models read."""
_SIZES = (8, 16, 24, 28, 32, 48, 64, 75, 96, 128, 160, 192, 224, 256, 299, 320, 384, 512)
"""Sides of square images, which are tried in turn to find one that a model reads."""
_PREPARED: Mapping[str, Callable[[int, int], dict[str, Any]]] = {
    "vit_": lambda height, _width: {"image_size": height},
    "maxvit_": lambda height, width: {"input_size": (height, width)},
    # Their auxiliary outputs are for training on ImageNet; the main output alone is trained.
    "googlenet": lambda _height, _width: {"aux_logits": False, "init_weights": True},
    "inception_v3": lambda _height, _width: {"aux_logits": False, "init_weights": True},
}
"""Beginning of a name -> the arguments that its builder needs for images of H x W."""
_OURS = ("num_classes", "weights", "progress", "aux_logits")
"""Arguments of builders that the user cannot give."""


# ---------------------------------------------------------------- torchvision


@make.register
def torchvision(config: TorchvisionConfig, task: Task) -> nn.Module:
    """Makes a classifier of torchvision with random weights; it reads grey as three equal colours.

    Raises:
        QuestionError: no such model, or arguments or images that it does not take.
    """
    _require_known(config)
    channels, height, width = task.shape
    if channels not in (1, _COLOURS):
        raise QuestionError(
            f"model.arch={config.arch} reads images of 3 colours; the data are {task.in_words}\n"
            "allowed: images of 1 channel, which is repeated, or of 3"
        )
    try:
        model = _made(config, height, width, task.num_outputs)
    except (TypeError, ValueError, AssertionError) as error:
        raise misfit(config, task, error) from error
    if channels != _COLOURS:
        model.register_forward_pre_hook(_repeat_channel)
    return model


def misfit(config: TorchvisionConfig, task: Task, error: Exception) -> QuestionError:
    """Makes the error for images that a model cannot read, with the least size that it reads."""
    given = f" with model.kwargs={config.kwargs}" if config.kwargs else ""
    lines = [f"model.arch={config.arch}{given} does not fit {task.in_words}", reason(error)]
    least = next((size for size in _SIZES if _reads(config, size, task.num_outputs)), None)
    if least is not None:
        lines.append(f"allowed: images of {least} x {least}, the least of sizes tried, or another")
        lines[-1] += " model.arch"
    return QuestionError("\n".join(lines))


def _require_known(config: TorchvisionConfig) -> None:
    names = _library().list_models(module=_library())
    if config.arch not in names:
        raise unknown("classifier of torchvision (model.arch)", config.arch, names)
    for name in config.kwargs or ():
        if name in _OURS:
            raise QuestionError(
                f"model.kwargs has {name!r}, which is not to be chosen: weights are random, the"
                " head fits the data, and the main output alone is trained\n"
                "allowed: the builder's other arguments"
            )


def _library() -> Any:
    try:
        import torchvision
    except ImportError:
        raise QuestionError(
            "model=torchvision needs torchvision, which is not installed\n"
            "allowed: pip install torchvision, or another model"
        ) from None
    return torchvision.models


def _made(config: TorchvisionConfig, height: int, width: int, num_classes: int) -> nn.Module:
    prepared: dict[str, Any] = {}
    for beginning, arguments in _PREPARED.items():
        if config.arch.startswith(beginning):
            prepared = arguments(height, width)
    if "image_size" in prepared and height != width:
        raise ValueError(f"it reads squares only, not {height} x {width}")
    kwargs = {**prepared, **(config.kwargs or {}), "weights": None, "num_classes": num_classes}
    made: nn.Module = _library().get_model(config.arch, **kwargs)
    return made


def _reads(config: TorchvisionConfig, size: int, num_classes: int) -> bool:
    with torch.device("meta"), torch.no_grad():
        try:
            _made(config, size, size, num_classes)(torch.zeros(2, _COLOURS, size, size))
        except Exception:
            return False
    return True


def _repeat_channel(_model: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    x_B1HW, *rest = args
    return x_B1HW.expand(-1, _COLOURS, -1, -1), *rest


# ---------------------------------------------------------------- the user's


@make.register
def custom(config: CustomConfig, task: Task) -> nn.Module:
    """Makes the module of the user's class or function; this executes their code.

    Of the data it is offered `num_inputs`, `num_outputs` and `num_tokens`, where it names them and
    `model.kwargs` does not.

    Raises:
        QuestionError: there is no such thing, it raised something, or returned no module.
    """
    key, path = "model.target", config.target
    found = lookup.find(key, path)
    assert path is not None
    if isinstance(found, nn.Module):
        raise QuestionError(f"{key} is {path!r}: it is a module already made\nallowed: {_ALLOWED}")
    if isinstance(found, type) and not issubclass(found, nn.Module):
        raise QuestionError(
            f"{key} is {path!r}: {found.__name__} is no nn.Module\nallowed: {_ALLOWED}"
        )
    offered = {
        "num_inputs": task.num_features,
        "num_outputs": task.num_outputs,
        "num_tokens": task.num_tokens,
    }
    made = lookup.make(key, path, config.kwargs, offered)
    if not isinstance(made, nn.Module):
        what = type(made).__name__
        raise QuestionError(f"{key} is {path!r}: it returns a {what}\nallowed: {_ALLOWED}")
    return made


# ---------------------------------------------------------------- one try


@dataclass(frozen=True)
class Tried:
    """What a forward pass in each mode showed of a model."""

    output: Any
    """The output in evaluation mode."""
    output_in_training: Any
    last: tuple[nn.Module, ...]
    """Modules whose output is the model's; the read-out is one of them."""


@torch.no_grad()
def try_model(model: nn.Module, x: Tensor) -> Tried:
    """Calls a model in evaluation mode and in training mode, and leaves its buffers as they were.

    What the passes draw comes from torch's global generators. Lazy modules get their shapes.
    """
    outputs: list[tuple[nn.Module, Any]] = []

    def note(module: nn.Module, _args: Any, output: Any) -> None:
        outputs.append((module, output))

    handles = [module.register_forward_hook(note) for module in model.modules()]
    kept = list(_buffers(model))
    try:
        model.eval()
        output = model(x)
        known = {(id(module), name) for module, name, _, _ in kept}
        kept += [each for each in _buffers(model) if (id(each[0]), each[1]) not in known]
        last = tuple(module for module, its in outputs if its is output)
    finally:
        model.train()
        for handle in handles:
            handle.remove()
    try:
        return Tried(output, model(x), last)
    finally:
        for module, name, buffer, value in kept:
            buffer.copy_(value)
            if hasattr(module, name):
                setattr(module, name, buffer)
            else:
                module.register_buffer(name, buffer)


def _buffers(model: nn.Module) -> Iterator[tuple[nn.Module, str, Tensor, Tensor]]:
    """Yields module, name, buffer and its value, for every buffer that has a value."""
    for module in model.modules():
        for name, buffer in module.named_buffers(recurse=False, remove_duplicate=False):
            if not is_lazy(buffer):
                yield module, name, buffer, buffer.clone()
