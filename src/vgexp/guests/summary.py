"""The summary of a run of somebody's own loop, and what its `config.yaml` says."""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn.parameter import UninitializedParameter

from vgexp import summaries
from vgexp.probe.flat import Members

if TYPE_CHECKING:
    import pandas as pd

_ENOUGH_ENTRIES = 256
_DRAWN_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_NEAR = 0.95
"""Share of a uniform distribution's bound that the largest of 256 draws exceeds: but for 1 in 5e5
times."""
UNKNOWN_LOSS = "the loss is not known (probe.watch_loss shows it)"


def settings_of(model: nn.Module, groups: list[dict[str, Any]], optimizer: object) -> Any:
    """What `config.yaml` says of model and optimizer: classes, sizes and settings."""
    first = groups[0] if groups else {}
    plain = {name: _plain(value) for name, value in first.items() if name != "params"}
    return {
        "model": {"class": _path(model), "num_parameters": num_parameters(model)},
        "optimizer": {
            "class": _path(optimizer),
            **{name: value for name, value in plain.items() if value is not None},
        },
    }


def flatten(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by dotted key."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            flat |= {f"{name}.{key}": inner for key, inner in flatten(value).items()}
        else:
            flat[name] = value
    return flat


def num_parameters(model: nn.Module) -> int:
    """Trainable numbers in a model, but for parameters that have no shape yet."""
    trained = (p for _, p in Members(model).parameters() if p.requires_grad)
    return sum(p.numel() for p in trained if not isinstance(p, UninitializedParameter))


def constant_weights(model: nn.Module) -> list[str]:
    """The names of the matrices and kernels all of whose entries are the same number but 0.

    Weights without a shape yet, and those that are in pieces on several devices, are left out.
    """
    return [
        name
        for name, p in model.named_parameters()
        if type(p) is nn.Parameter
        and p.ndim > 1
        and min(p.shape[:2]) > 1
        and p.device.type != "meta"
        and bool(p.detach()[0].eq(p.detach()[0].flatten()[0]).all())
        and bool(p.detach().eq(p.detach().flatten()[0]).all())
        and bool(p.detach().flatten()[0] != 0)
    ]


def default_weights(model: nn.Module) -> list[str]:
    """The names of the weights of linear and convolutional layers that are as PyTorch draws them.

    It draws them from a uniform distribution up to 1/sqrt(fan-in): the largest is just below that,
    and no weight that was trained keeps to it. Small layers, and those without a shape yet or in
    pieces on several devices, are left out.
    """
    found = []
    for name, module in model.named_modules():
        # Not by its attribute: a spectral norm goes on by a step each time that it is asked for.
        weight = dict(module.named_parameters(recurse=False)).get("weight")
        is_known = isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d)
        if not is_known or type(weight) is not nn.Parameter or weight.device.type == "meta":
            continue
        if weight.numel() < _ENOUGH_ENTRIES or weight.dtype not in _DRAWN_DTYPES:
            continue
        bound = weight[0].numel() ** -0.5
        largest = float(weight.detach().abs().max())
        if _NEAR * bound <= largest <= bound * (1 + 1 / _ENOUGH_ENTRIES):
            found.append(f"{name}.weight" if name else "weight")
    return found


def summary_of(
    frames: Mapping[str, pd.DataFrame],
    *,
    ending: Mapping[str, Any],
    dtype: str,
    num_examples: int,
    has_loss: pd.Series,
    constant_loss: float | None,
) -> dict[str, Any]:
    """The metrics that follow from tables. Where the best constant's loss is not known, the verdict
    is empty unless the run diverged, and `cause` says why.

    Args:
        frames: `layers` and `steps`; `time` and `evals`, where there are any.
        ending: `status`, and the `reason` of a run that failed.
        has_loss: whether a step's loss is known.
        constant_loss: as of `Probe`.
    """
    import numpy as np
    import pandas as pd

    from vgexp import diagnosis
    from vgexp.diagnosis.phrases import describe_signal

    layers, steps = frames["layers"], frames["steps"]
    known = steps[has_loss.to_numpy(dtype=bool)]
    is_bad = not np.isfinite(known["loss"].to_numpy(dtype="float64")).all()
    status = ending["status"]
    if status == "completed" and is_bad:
        status = "diverged"
    evals = frames.get("evals")
    if evals is None:
        evals = pd.DataFrame(
            {"step": [], "split": pd.Series([], dtype="object"), "loss": [], "accuracy": []}
        )
    metrics = diagnosis.summarise(
        layers,
        known,
        evals,
        time=frames.get("time"),
        constant_loss=math.nan if constant_loss is None else constant_loss,
        num_examples=num_examples,
        dtype=dtype,
        status=status,
        divergence=None,
        is_users=True,
    )
    if not len(known) and len(steps):
        metrics["cause"] = f"{UNKNOWN_LOSS}: {describe_signal(metrics)}"
    return {**metrics, **ending, "status": status}


def of_process(model: nn.Module, unseen: list[str]) -> dict[str, Any]:
    """The part of a summary that does not depend on the result."""
    first = next(model.parameters(), None)
    return {
        "num_parameters": num_parameters(model),
        "unseen": unseen,
        "device": "cpu" if first is None else str(first.device),
        "versions": summaries.versions(),
        "host": platform.node(),
        "process": os.getpid(),
    }


def _path(thing: object) -> str:
    return f"{type(thing).__module__}.{type(thing).__qualname__}"


def _plain(value: Any) -> Any:
    """A setting as YAML has it; None where it is no number, truth or text."""
    if isinstance(value, tuple | list):
        parts = [_plain(each) for each in value]
        return None if None in parts else parts
    if hasattr(value, "numel") and value.numel() == 1:
        return float(value)
    return value if isinstance(value, bool | int | float | str) else None
