"""The plan of a probe: which weights have rows, and which module calls show z, u and h.

Our own models say where to look (`Watch`); a stranger's model is read off its modules.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from vgexp.activations import slope_of
from vgexp.errors import QuestionError
from vgexp.watch import Slope, Watch


@dataclass
class Row:
    """One weight: what names its row of `layers.csv`. `layer` is None until a forward shows it."""

    name: str
    weight: nn.Parameter
    layer: int | None
    kind: str


@dataclass
class Plan:
    """Rows, and the calls at which they are measured; a row is an index into `rows`."""

    rows: list[Row]
    preacts: list[tuple[nn.Module, int]] = field(default_factory=list)
    """Modules whose output is the row's z."""
    activations: list[tuple[nn.Module, int | None, Slope]] = field(default_factory=list)
    """Modules whose input is u; row None: whichever weight was called last."""
    acts: list[tuple[nn.Module, int]] = field(default_factory=list)
    """Modules whose output is h, where that is not the activation's own output."""
    owners: list[tuple[nn.Module, tuple[int, ...]]] = field(default_factory=list)
    """Modules whose calls show in which order weights are used (a stranger's model only)."""
    unseen: dict[str, str] = field(default_factory=dict)
    """Weight name -> why part of its row cannot be measured."""


def plan_of_watches(watches: Sequence[Watch], pattern: str | None) -> Plan:
    """The plan of a model that says itself where to look."""
    chosen = [watch for watch in watches if _matches(pattern, watch.name)]
    _require_some(chosen, pattern, [watch.name for watch in watches])
    plan = Plan([Row(watch.name, watch.weight, watch.layer, watch.kind) for watch in chosen])
    for index, watch in enumerate(chosen):
        if watch.preact is not None:
            plan.preacts.append((watch.preact, index))
        if watch.activation is not None and watch.slope is not None:
            plan.activations.append((watch.activation, index, watch.slope))
        if watch.act is not None:
            plan.acts.append((watch.act, index))
    return plan


def plan_of_module(model: nn.Module, pattern: str | None) -> Plan:
    """The plan of a stranger's model: weights by their owners, activations by their classes."""
    names = {id(p): name for name, p in model.named_parameters() if p.ndim >= 2}
    chosen = {key: name for key, name in names.items() if _matches(pattern, name)}
    _require_some(list(chosen.values()), pattern, list(names.values()))
    plan = Plan([])
    index_of: dict[int, int] = {}
    for module in model.modules():
        own = [p for p in module.parameters(recurse=False) if id(p) in chosen]
        for weight in own:
            if id(weight) not in index_of:
                index_of[id(weight)] = len(plan.rows)
                plan.rows.append(Row(chosen[id(weight)], weight, None, _kind(module)))
        _plan_owner(plan, module, tuple(index_of[id(weight)] for weight in own))
        slope = slope_of(module)
        if slope is not None:
            plan.activations.append((module, None, slope))
    return plan


def _plan_owner(plan: Plan, module: nn.Module, indices: tuple[int, ...]) -> None:
    if not indices:
        return
    plan.owners.append((module, indices))
    matrices = [p for p in module.parameters(recurse=False) if p.ndim >= 2]
    if len(matrices) == 1 and not any(True for _ in module.children()):
        plan.preacts.append((module, indices[0]))
        return
    for index in indices:
        plan.unseen[plan.rows[index].name] = "its module has no single output that is its z"


def _kind(module: nn.Module) -> str:
    kinds: tuple[tuple[type | tuple[type, ...], str], ...] = (
        (_ConvNd, "conv"),
        ((nn.RNNBase, nn.RNNCellBase), "recurrent"),
        (nn.MultiheadAttention, "attention"),
    )
    return next((kind for classes, kind in kinds if isinstance(module, classes)), "linear")


def _matches(pattern: str | None, name: str) -> bool:
    if pattern is None:
        return True
    try:
        return re.search(pattern, name) is not None
    except re.error as error:
        raise QuestionError(
            f"probe.layers is {pattern!r}\nallowed: a regular expression ({error})"
        ) from None


def _require_some(chosen: Sequence[object], pattern: str | None, names: Sequence[str]) -> None:
    if pattern is not None and names and not chosen:
        shown = ", ".join(names[:6]) + (", ..." if len(names) > 6 else "")
        raise QuestionError(
            f"probe.layers is {pattern!r}, which matches no weight\nweights: {shown}"
        )


def first_tensor(value: object) -> Tensor | None:
    """The first tensor in a module's output: itself, or within tuples, lists and dictionaries."""
    if isinstance(value, Tensor):
        return value
    items: Sequence[object] = ()
    if isinstance(value, tuple | list):
        items = value
    elif isinstance(value, dict):
        items = list(value.values())
    elif dataclasses.is_dataclass(value):
        items = list(vars(value).values())
    found = (first_tensor(item) for item in items)
    return next((tensor for tensor in found if tensor is not None), None)
