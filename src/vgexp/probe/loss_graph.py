"""What autograd's graph says of a loss: what lies between its value and the last weights.

These are facts of the wiring, whatever the loss function is called: a softmax that reads what is
one already, a difference that is broadcast, an activation that is flat.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vgexp.probe.graph import (
    SAME_ENTRIES,
    Place,
    before,
    mixes,
    parameter_of,
    place_of,
    walk,
)
from vgexp.probe.steps import Number
from vgexp.torch_internals import saved_of, shape_of_node

_MOST_NODES = 1000
"""Nodes of a graph that are looked at: those of a loss are few, and weights end it."""
_TAKING_LOGITS = ("LogSoftmax", "BinaryCrossEntropyWithLogits")
_GIVING_PROBABILITIES = ("Softmax", "Sigmoid")
_TAKING_LOGARITHMS = ("NllLoss",)
_LIKE_THE_SAME = ("Clamp", "MaskedFill", "AddBackward")
"""Functions that leave entries in their place; of `Add` one with a constant."""
_JOINING = ("CatBackward", "StackBackward")
_DIFFERENCES = ("Sub", "Rsub", "MseLoss", "L1Loss", "SmoothL1Loss", "HuberLoss")
_WITHOUT_FLAT_ENDS = re.compile(
    SAME_ENTRIES.pattern + r"|(?:Add|Sub|Rsub|Mul|Div|Neg|Pow|Sqrt|Abs|Sin|Cos|Mean|Sum|Cat|Stack"
    r"|MseLoss|L1Loss|AccumulateGrad)\w*"
)
_LOSS = re.compile(r"(?:\w*Loss\w*|BinaryCrossEntropy\w*|KlDiv|SoftMargin\w*|Log\w*)Backward")
_MOST_ENTRIES = 2**18
"""Entries of a saved tensor that are looked at together."""
_FLAT = 1e-3
"""Slope over the largest one, below which an activation is flat."""
_OF_SCORES = ("LogSoftmax", "NllLoss")
"""Functions of which it is known whether they read what weights give: the first should, and the
second should not."""
_OF_SHARES = ("BinaryCrossEntropy",)
"""Functions whose target is a share, from 0 to 1."""
_WITHOUT_LOGARITHM = re.compile(
    SAME_ENTRIES.pattern + r"|(?:Add|Sub|Rsub|Mul|Div|Neg|Cat|Stack|Index\w*|Where|MaskedFill"
    r"|\w*Dropout\w*|\w*BatchNorm\w*|NativeLayerNorm|Relu|LeakyRelu|Gelu|Silu|Tanh)Backward"
    r"|AccumulateGrad"
)
"""Functions that make no logarithms of probabilities out of what weights give."""


class LossGraph(NamedTuple):
    """What is known of one loss."""

    squashed_twice: str | None
    """The two functions, as autograd names them, of which the second reads what the first gave,
    and should not."""
    broadcast_to: str | None
    """The shape to which an output is broadcast by a difference from what requires no gradient,
    with x between its sizes."""
    flat_fraction: Number
    """The share of entries at which the activation in front of the loss is flat; of several the
    least. Of a cross-entropy with logits that is to grow, as a GAN's first formula has it, the
    share at which that is flat."""
    is_steep: bool | None = None
    """Whether nothing between the loss and the last weights has a flat end."""
    functions: str | None = None
    """The functions that give losses, between this one and the last weights, as autograd names
    them."""
    reads_scores: str | None = None
    """Those of `_OF_SCORES` that read what weights give, with no logarithm between."""
    share_min: Number = None
    """The smallest target of a binary cross-entropy, which is to be at least 0."""
    share_max: Number = None
    """The largest one, which is to be at most 1."""


NOTHING = LossGraph(None, None, None)


def graph_of(
    loss: Tensor, *, outputs: Sequence[Tensor] = (), reads_saved: bool = True
) -> LossGraph:
    """Looks at the graph behind a loss, before a backward pass frees what it saved.

    Args:
        outputs: what the loss function was given, of which a difference that broadcasts one as it
            is is told for any shapes.
        reads_saved: whether what functions saved is read, without which nothing is known to be
            flat.
    """
    start = place_of(loss)
    if start is None:
        return NOTHING
    places = [*islice(walk([start], _ends), _MOST_NODES)]
    twice = next((found for place in places if (found := _twice(place))), None)
    given = {place for x in outputs if (place := place_of(x)) is not None}
    wide = next((found for place in places if (found := _broadcast(place, given))), None)
    is_turned = any(place[0].name().startswith("Neg") for place in places)
    read = places if reads_saved else ()
    shares = [s for place in read if (s := _flat_share(place[0], is_turned)) is not None]
    flat: Number = torch.stack(shares).amin() if shares else None
    if isinstance(flat, Tensor) and flat.is_cpu:
        flat = float(flat)
    is_whole = len(places) < _MOST_NODES
    steep = all(_ends(p) or _WITHOUT_FLAT_ENDS.match(p[0].name()) for p in places)
    return LossGraph(
        twice,
        wide,
        flat,
        steep if is_whole else None,
        _names(place for place in places if _gives_losses(place)),
        _names(place for place in places if _reads_scores(place)),
        *_range_of_shares(read),
    )


def _names(places: Iterable[Place]) -> str | None:
    """The names of their functions, each once; None of none."""
    return " ".join(dict.fromkeys(place[0].name() for place in places)) or None


def _gives_losses(place: Place) -> bool:
    return _LOSS.match(place[0].name()) is not None


def _reads_scores(place: Place) -> bool:
    """Whether nothing but sums, products and forms lies between a function and weights."""
    if not place[0].name().startswith(_OF_SCORES):
        return False
    behind = [*islice(walk(before(place)[:1], _ends), _MOST_NODES)]
    is_plain = all(_ends(each) or _WITHOUT_LOGARITHM.match(each[0].name()) for each in behind)
    return is_plain and len(behind) < _MOST_NODES and any(mixes(each[0]) for each in behind)


def _range_of_shares(places: Sequence[Place]) -> tuple[Number, Number]:
    """The smallest and the largest target of all binary cross-entropies."""
    ends: list[Tensor] = []
    for node in dict.fromkeys(each for each, _ in places if each.name().startswith(_OF_SHARES)):
        try:
            target = saved_of(node, "target")
            if isinstance(target, Tensor) and target.numel():
                ends += torch.aminmax(target.detach())
        except Exception:  # as of `_flat_share`
            continue
    if not ends:
        return None, None
    both = torch.stack([each.double() for each in ends])
    low, high = both.amin(), both.amax()
    return (float(low), float(high)) if both.is_cpu else (low, high)


def _ends(place: Place) -> bool:
    return mixes(place[0]) or parameter_of(place[0]) is not None


def _twice(place: Place) -> str | None:
    name = place[0].name()
    probabilities: tuple[str, ...] = _GIVING_PROBABILITIES
    if name.startswith(_TAKING_LOGARITHMS):
        probabilities = ("Softmax",)
    elif not name.startswith(_TAKING_LOGITS):
        return None
    behind = before(place)
    made = None if not behind else _maker(behind[0])
    if made is None or not made.startswith(probabilities):
        return None
    return f"{made} {name}"


def _maker(place: Place) -> str | None:
    """The function that gave the entries which a place hands on; of joined ones that of all parts,
    where each gives probabilities."""
    for _ in range(_MOST_NODES):
        name = place[0].name()
        behind = before(place)
        if name.startswith(_JOINING) and behind:
            parts = {_maker(each) for each in behind}
            kinds = {k for k in _GIVING_PROBABILITIES if all(str(p).startswith(k) for p in parts)}
            return str(parts.pop()) if kinds else str(name)
        is_alike = name.startswith(_LIKE_THE_SAME) and len(behind) == 1
        if not (is_alike or SAME_ENTRIES.match(name)) or not behind:
            return str(name)
        place = behind[0]
    return None


def _broadcast(place: Place, given: Container[Place]) -> str | None:
    """The shape of a difference, where the one tensor of it that has a gradient is smaller, a
    column or a row, and is compared with each entry of the other; or is an output as it was given,
    of any shape: what the loss function brought to another shape is to be compared so."""
    if not place[0].name().startswith(_DIFFERENCES):
        return None
    behind = before(place)
    if len(behind) != 1:
        return None
    inner = behind[0]
    wide = shape_of_node(inner[0]) if _is_expanded(inner) else shape_of_node(place[0])
    narrow = shape_of_node((before(inner) or [inner])[0][0]) if _is_expanded(inner) else None
    narrow = shape_of_node(inner[0]) if narrow is None else narrow
    if wide is None or narrow is None or len(wide) < 2:
        return None
    entries = math.prod(narrow)
    source = (before(inner) or [inner])[0] if _is_expanded(inner) else inner
    is_wider = source in given and len(wide) > 2 and math.prod(wide) > entries
    if entries < 2 or not (is_wider or math.prod(wide) == entries**2):
        return None
    return "x".join(map(str, wide))


def _is_expanded(place: Place) -> bool:
    return bool(place[0].name().startswith("Expand"))


def _flat_share(node: Any, is_turned: bool) -> Tensor | None:
    """The share of entries at which a sigmoid, tanh or one of their kin is flat; None: it is none,
    or what it saved cannot be read."""
    slopes = {**_SLOPES, **(_OF_TURNED if is_turned else {})}
    found = next((each for name, each in slopes.items() if node.name().startswith(name)), None)
    if found is None:
        return None
    names, slope = found
    try:
        saved = [saved_of(node, name) for name in names]
        if any(each is None for each in saved) or not saved[0].numel():
            return None
        with torch.no_grad():
            counts = [(slope(*part) < _FLAT).sum() for part in _parts(saved)]
            share: Tensor = torch.stack(counts).sum().double() / saved[0].numel()
            return share
    except Exception:  # what was saved may have been changed in place, or be packed by somebody
        return None


def _parts(saved: list[Any]) -> Iterator[list[Any]]:
    """What was saved, some entries at a time and none in less than float32, so that large outputs
    need no copy of themselves."""
    first = saved[0]
    longest = max(range(first.ndim), key=lambda axis: first.shape[axis]) if first.ndim else 0
    size = max(1, first.shape[longest] * _MOST_ENTRIES // first.numel()) if first.ndim else 1
    split = [
        torch.split(x, size, longest) if isinstance(x, Tensor) and x.ndim else None for x in saved
    ]
    for place in range(1 if split[0] is None else len(split[0])):
        yield [
            _wide(x if parts is None else parts[place])
            for x, parts in zip(saved, split, strict=True)
        ]


def _wide(x: Any) -> Any:
    is_half = isinstance(x, Tensor) and x.dtype not in (torch.float32, torch.float64)
    return x.float() if is_half else x


_OF_TURNED: dict[str, tuple[tuple[str, ...], Callable[..., Tensor]]] = {
    "BinaryCrossEntropyWithLogitsBackward": (
        ("self", "target"),
        lambda x, y: (torch.sigmoid(x) - y).abs_(),
    ),
}
_SLOPES: dict[str, tuple[tuple[str, ...], Callable[..., Tensor]]] = {
    "SigmoidBackward": (("result",), lambda y: 4 * y * (1 - y)),
    "TanhBackward": (("result",), lambda y: (1 - y) * (1 + y)),
    "SoftplusBackward": (("self", "beta"), lambda x, beta: torch.sigmoid(beta * x)),
    "LogSigmoidBackward": (("self",), lambda x: torch.sigmoid(-x)),
}
"""Name of a function in the graph -> what it saved, and of that its slope over the largest one."""
