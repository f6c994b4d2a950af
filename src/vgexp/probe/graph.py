"""Walks backwards through autograd's graph, from tensor to tensor.

A `Place` is one output of one node of the graph: where a tensor that requires gradients was made. A
walk holds the nodes that it has seen, since a node that nothing refers to may come back as another
object.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any

from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge

from vgexp.torch_internals import shape_of_node

Place = tuple[Any, int]
"""A node of autograd's graph, and which of its outputs."""

_MIXES = re.compile(
    r"(?:(?:Sparse)?(?:Mm|Mv|Bmm|Addmm|Addmv)|Baddbmm|Addbmm|Dot|Linear|MkldnnLinear|Bilinear|Trilinear"
    r"|(?:Scaled|Grouped|ScaledGrouped)Mm|(?:Slow|Mkldnn|Cudnn|Miopen)?Conv\w*|Slow\w*|Embedding\w*"
    r"|MkldnnRnn\w*|CudnnRnn\w*|MiopenRnn\w*|ThnnFused\w*|\w*Scaled\w*DotProduct\w*|FlexAttention\w*"
    r"|NativeMultiHeadAttention)Backward"
)
"""Names of nodes that multiply by a weight, or by what may depend on one, and sum up."""
SAME_ENTRIES = re.compile(
    r"(?:\w*View|\w*Reshape\w*|Squeeze|Unsqueeze|Permute|Transpose|T|Movedim|Flatten|Expand|Slice"
    r"|Select|Split\w*|Unbind|Clone|Alias|ToCopy|Contiguous)Backward"
)
"""Names of nodes whose entries are those that they were given, some of them or in another form."""
_MOST_NESTED = 8
_MOST_NODES = 16


def tensors_in(value: object, *, in_objects: bool = False) -> Iterator[Tensor]:
    """All tensors in tuples, lists, mappings and dataclasses, in their order.

    Args:
        in_objects: whether to look at the attributes of other objects as well.
    """
    yield from _tensors_in(value, in_objects, set(), _MOST_NESTED)


def _tensors_in(value: object, in_objects: bool, seen: set[int], depth: int) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
        return
    if depth == 0 or id(value) in seen or isinstance(value, str | bytes | int | float | nn.Module):
        return
    seen.add(id(value))
    items: Iterable[object] = ()
    if isinstance(value, tuple | list):
        items = value
    elif isinstance(value, Mapping):
        items = value.values()
    elif dataclasses.is_dataclass(value) or in_objects:
        items = getattr(value, "__dict__", {}).values()
    for item in list(items):
        yield from _tensors_in(item, in_objects, seen, depth - 1)


def place_of(x: Tensor) -> Place | None:
    """Where a tensor was made; None if it requires no gradient."""
    if not x.requires_grad:
        return None
    edge = get_gradient_edge(x)
    return edge.node, edge.output_nr


def maker_of(x: Tensor) -> str | None:
    """The function that made a tensor's entries (`SigmoidBackward0`), seen through views and casts;
    None of a leaf, and of what requires no gradient."""
    place = place_of(x)
    while place is not None and SAME_ENTRIES.match(place[0].name()):
        place = next(iter(before(place)), None)
    is_leaf = place is None or parameter_of(place[0]) is not None
    return None if place is None or is_leaf else str(place[0].name())


def classes_of_weight(x: Tensor) -> bool:
    """Whether a product with a parameter gave a tensor its axis of classes, the last or axis 1.

    Not where the scores of several candidates, of which each is one number, stand side by side, nor
    where features are multiplied by features.
    """
    place = place_of(x)
    while place is not None and SAME_ENTRIES.match(place[0].name()):
        place = next(iter(before(place)), None)
    if place is None or not mixes(place[0]) or x.ndim < 2:
        return False
    leaves = map(only_leaf, before(place))
    if not any(isinstance(leaf, nn.Parameter) and leaf.ndim > 1 for leaf in leaves):
        return False
    made = shape_of_node(place[0]) or ()
    has_channels = len(made) > 2 and made[1] == x.shape[1]
    return has_channels or (len(made) > 1 and made[-1] == x.shape[-1])


def mixes(node: Any) -> bool:
    """Whether a node multiplies matrices or convolves, as weights do and attention does."""
    return is_mixing(node.name())


@lru_cache(maxsize=1024)
def is_mixing(name: str) -> bool:
    """Whether a node of this name does."""
    return _MIXES.match(name) is not None


def parameter_of(node: Any) -> Tensor | None:
    """The leaf that a node adds gradients to; None for other nodes."""
    variable = getattr(node, "variable", None)
    return variable if isinstance(variable, Tensor) else None


def before(place: Place) -> list[Place]:
    """The places whose tensors a node was computed from."""
    return [(node, number) for node, number in place[0].next_functions if node is not None]


def walk(starts: Iterable[Place], ends: Callable[[Place], bool]) -> Iterator[Place]:
    """Walks backwards through everything that is reached, and not beyond where it `ends`."""
    pending = list(starts)
    seen: set[Place] = set()
    while pending:
        place = pending.pop()
        if place in seen:
            continue
        seen.add(place)
        yield place
        if not ends(place):
            pending += before(place)


def carries(start: Place, goal: Place, stops: Container[Place]) -> bool:
    """Whether a path leads from `start` back to `goal` that passes no weight.

    Args:
        stops: places to go no further at, such as outputs of weights. The goal may be one of them.
    """
    if start == goal:
        return False
    ends = _ends_at(stops)
    return any(place == goal for place in walk([start], lambda p: p == goal or ends(p)))


def nearest(start: Place, names: Mapping[Place, str], stops: Container[Place]) -> set[str]:
    """The names of the places that paths without a weight first lead to."""
    ends = _ends_at(stops)
    found = walk([start], lambda place: place in names or ends(place))
    return {names[place] for place in found if place in names}


def parameters_behind(starts: Iterable[Place], stops: Container[Place]) -> set[int]:
    """The ids of the leaves that paths lead to which pass none of the stops."""
    leaves = (parameter_of(place[0]) for place in walk(starts, lambda place: place in stops))
    return {id(leaf) for leaf in leaves if leaf is not None}


def only_leaf(place: Place) -> Tensor | None:
    """The leaf that all factors and summands are made of, by a few functions that mix with no
    weight: reshaped, cast, scaled or normalised. None where there are several, or a product."""
    leaves: dict[int, Tensor] = {}
    for number, (node, _) in enumerate(walk([place], lambda each: mixes(each[0])), start=1):
        leaf = parameter_of(node)
        if leaf is not None:
            leaves[id(leaf)] = leaf
        elif not node.next_functions or mixes(node):
            return None
        if len(leaves) > 1 or number > _MOST_NODES:
            return None
    return next(iter(leaves.values()), None)


def _ends_at(stops: Container[Place]) -> Callable[[Place], bool]:
    return lambda place: place in stops or mixes(place[0])
