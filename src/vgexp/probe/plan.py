"""Plans a probe: which weights have rows, and which calls of modules show z, u and h.

The models of vgexp say where to measure (`Watch`). For a user's model, the plan is made from its
modules.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum

from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils.parametrize import is_parametrized

from vgexp.activations import slope_of
from vgexp.errors import QuestionError
from vgexp.probe.flat import Members
from vgexp.torch_internals import BATCH_AND_INSTANCE_NORMS, COMPILED_PREFIX, CONVOLUTIONS
from vgexp.watch import Slope, Watch

NORMS = (nn.LayerNorm, nn.RMSNorm, nn.GroupNorm, *BATCH_AND_INSTANCE_NORMS)
"""Normalisations: their parameters have no rows, whatever their shape."""
NO_SINGLE_OUTPUT = (
    "its module has several weights, or modules within it: which tensor is its z is not known"
)
PART_OF = (
    "a part of what a weight is computed from: the row of the largest part has the columns of z"
)
WEIGHING: tuple[type[nn.Module], ...] = (
    *(nn.Linear, nn.Embedding, nn.EmbeddingBag, nn.Bilinear),
    *CONVOLUTIONS,
)
"""Modules whose output is z, whatever their parameters are called."""
_PARTS = "parametrizations."


class Rank(IntEnum):
    """Which of the rows of a layer comes first, and stands for it on the main path."""

    STREAM = 0
    SHOWN = 1
    """A weight whose z a module's call shows."""
    HIDDEN = 2
    FREE = 3
    """A parameter of a module whose submodules have weights, such as an embedding of positions."""


@dataclass
class PlanRow:
    """The row of a weight, or of a stream, which has none, and whether it is wanted.

    `layer` is None until a forward pass shows it, and stays None for a weight that none uses.
    """

    name: str
    weight: nn.Parameter | None
    layer: int | None
    kind: str
    is_wanted: bool
    rank: Rank = Rank.SHOWN


@dataclass
class ProbePlan:
    """Rows, and the calls at which they are measured; a row is an index into `rows`."""

    rows: list[PlanRow]
    preacts: list[tuple[nn.Module, int]] = field(default_factory=list)
    """Modules whose output is the row's z."""
    activations: list[tuple[nn.Module, int | None, Slope]] = field(default_factory=list)
    """Modules whose input is u; row None: to be found when it is called."""
    z_readers: set[int] = field(default_factory=set)
    """Rows whose activation reads z itself: one call shows z, u and h."""
    acts: list[tuple[nn.Module, int]] = field(default_factory=list)
    """Modules whose output is h."""
    owners: list[tuple[nn.Module, list[tuple[int, ...]]]] = field(default_factory=list)
    """Modules whose calls show in which order weights are used, each with the rows of its layers;
    for a user's model only."""
    unseen: dict[str, str] = field(default_factory=dict)
    """Weight name -> why part of its row cannot be measured."""
    streams: list[tuple[nn.Module, int]] = field(default_factory=list)
    """Modules that may be blocks; their rows have a number, and are wanted, where they are."""
    twins: dict[int, int] = field(default_factory=dict)
    """The rows of further modules that share a weight -> the weight's own row."""
    merged: dict[int, int] = field(default_factory=dict)
    """Those twins that have no row of their own -> the row that they are measured in."""
    is_settled: bool = True
    """Whether it is known which weights a forward pass uses, and in which order."""
    placed: set[int] = field(default_factory=set)
    """The rows that a forward pass was seen to use, whether they got a number or not."""
    norm_position: str | None = None
    """`post` if the blocks with attention end in a normalisation, else `pre`; None without such."""
    pattern: str | None = None
    """What the names of wanted rows match; None: all are wanted."""

    @property
    def measured(self) -> frozenset[int]:
        """The rows to measure: wanted ones, and those by which `backward_gain` divides."""
        if not self.is_settled:
            return frozenset(range(len(self.rows)))
        wanted = {index for index, row in enumerate(self.rows) if row.is_wanted}
        after = {layer + 1 for index in wanted if (layer := self.rows[index].layer) is not None}
        return frozenset(wanted | {i for i, row in enumerate(self.rows) if row.layer in after})

    def wants(self, name: str) -> bool:
        """Whether a row of this name is wanted."""
        return self.pattern is None or re.search(self.pattern, name) is not None

    @property
    def shown(self) -> frozenset[int]:
        """The rows whose z is shown by a module's call."""
        return frozenset({row for _, row in (*self.preacts, *self.streams)} | self.z_readers)


def plan_of_watches(watches: Sequence[Watch], pattern: str | None) -> ProbePlan:
    """Makes the plan of a model that says itself where to measure."""
    wanted = _wanted([watch.name for watch in watches], pattern)
    plan = ProbePlan(
        [PlanRow(w.name, w.weight, w.layer, w.kind, w.name in wanted) for w in watches]
    )
    for index, watch in enumerate(watches):
        if watch.preact is not None and not watch.reads_z:
            plan.preacts.append((watch.preact, index))
        if watch.reads_z:
            plan.z_readers.add(index)
        if watch.activation is not None and watch.slope is not None:
            plan.activations.append((watch.activation, index, watch.slope))
        if watch.act is not None:
            plan.acts.append((watch.act, index))
    return plan


def plan_of_module(model: nn.Module, pattern: str | None) -> ProbePlan:
    """Makes the plan of a user's model from the owners of weights and the classes of modules."""
    members = Members(model)
    of_norms = {
        id(p) for m in model.modules() if isinstance(m, NORMS) for _, p in members.within(m)
    }
    # They get their shape in the first pass, and stay the same objects.
    lazy = {
        id(p)
        for _, module in members.modules()
        if isinstance(module, WEIGHING)
        for _, p in members.own(module)
        if is_lazy(p)
    }
    names = {
        id(p): name.replace(COMPILED_PREFIX, "")
        for name, p in members.parameters()
        if (p.ndim >= 2 or id(p) in lazy)
        and id(p) not in of_norms
        and not name.rpartition(".")[2].startswith("bias")
    }
    may_be_blocks = _may_be_blocks(members, names)
    wanted = _wanted([*names.values(), *may_be_blocks], pattern)
    plan = ProbePlan([], is_settled=False, pattern=pattern)
    index_of: dict[int, int] = {}
    parts: set[int] = set()
    for module_name, module in members.modules():
        own = _own_weights(members, module, names)
        if id(module) in parts:
            continue
        if isinstance(module, WEIGHING) and is_parametrized(module):
            parts |= {id(m) for m in module.get_submodule(_PARTS.rstrip(".")).modules()}
        twins: dict[str, int] = {}
        for own_name, weight in own:
            if id(weight) not in index_of:
                index_of[id(weight)] = len(plan.rows)
                name = names[id(weight)]
                plan.rows.append(PlanRow(name, weight, None, _kind(module), name in wanted))
            elif len(own) == 1 and _is_shown(module, own):
                twins[own_name] = len(plan.rows)
                plan.twins[len(plan.rows)] = index_of[id(weight)]
                plan.rows.append(
                    PlanRow(f"{module_name}.{own_name}", None, None, _kind(module), is_wanted=False)
                )
        _plan_owner(plan, module, own, {n: index_of[id(w)] for n, w in own} | twins)
        slope = slope_of(module)
        if slope is not None:
            plan.activations.append((module, None, slope))
    shown = {id(module) for module, _ in plan.preacts}
    for name, module in may_be_blocks.items():
        if id(module) not in shown:
            plan.streams.append((module, len(plan.rows)))
            plan.rows.append(PlanRow(name, None, None, "stream", is_wanted=False, rank=Rank.STREAM))
    return plan


def _may_be_blocks(members: Members, names: Mapping[int, str]) -> dict[str, nn.Module]:
    """The modules below the model that contain weights."""
    return {
        name: module
        for name, module in members.modules()
        if name and any(id(p) in names for _, p in members.within(module))
    }


def _own_weights(
    members: Members, module: nn.Module, names: Mapping[int, str]
) -> list[tuple[str, nn.Parameter]]:
    """The weights of a module itself, with the parts that its weights are computed from."""
    own = [(n, p) for n, p in members.own(module) if id(p) in names]
    if isinstance(module, WEIGHING) and is_parametrized(module):
        parts = module.get_submodule(_PARTS.rstrip("."))
        own += [(_PARTS + n, p) for n, p in parts.named_parameters() if id(p) in names]
    return own


def _is_shown(module: nn.Module, own: Sequence[object]) -> bool:
    """Whether the module's output is z of its weight."""
    is_leaf = len(own) == 1 and not any(True for _ in module.children())
    return isinstance(module, WEIGHING) or is_leaf


def _plan_owner(
    plan: ProbePlan,
    module: nn.Module,
    own: Sequence[tuple[str, nn.Parameter]],
    rows: Mapping[str, int],
) -> None:
    if not own:
        return
    plan.owners.append((module, _stacked_layers(rows)))
    if not _is_shown(module, own):
        for index in rows.values():
            plan.unseen[plan.rows[index].name] = NO_SINGLE_OUTPUT
        return
    # Of a weight's direction and its magnitude, the direction has more entries.
    main = rows[max(own, key=lambda each: 0 if is_lazy(each[1]) else each[1].numel())[0]]
    plan.preacts.append((module, main))
    for index in rows.values():
        if index != main:
            plan.rows[index].rank = Rank.HIDDEN
            plan.unseen[plan.rows[index].name] = PART_OF


def _stacked_layers(own: Mapping[str, int]) -> list[tuple[int, ...]]:
    """The rows of a module, one tuple a layer, since torch's recurrent nets stack several."""
    layers: dict[str, list[int]] = {}
    for name, index in own.items():
        stacked = re.search(r"_l(\d+)(_reverse)?$", name)
        layers.setdefault(stacked.group(1) if stacked else "", []).append(index)
    return [tuple(rows) for rows in layers.values()]


def _kind(module: nn.Module) -> str:
    kinds: tuple[tuple[type | tuple[type, ...], str], ...] = (
        (CONVOLUTIONS, "conv"),
        ((nn.RNNBase, nn.RNNCellBase), "recurrent"),
        (nn.MultiheadAttention, "attention"),
    )
    return next((kind for classes, kind in kinds if isinstance(module, classes)), "linear")


def _wanted(names: Sequence[str], pattern: str | None) -> set[str]:
    if pattern is None:
        return set(names)
    try:
        wanted = {name for name in names if re.search(pattern, name)}
    except re.error as error:
        raise QuestionError(
            f"probe.layers is {pattern!r}\nallowed: a regular expression ({error})"
        ) from None
    if names and not wanted:
        shown = ", ".join(names[:6]) + (", ..." if len(names) > 6 else "")
        raise QuestionError(
            f"probe.layers is {pattern!r}, which matches no weight\nweights: {shown}"
        )
    return wanted


def first_tensor(value: object) -> Tensor | None:
    """Finds the first tensor in a module's output, also in tuples, lists and dictionaries."""
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
