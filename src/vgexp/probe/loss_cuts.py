"""Where autograd's graph behind a loss ends ahead of the weights.

These are facts of the wiring. What is not known counts as whole: a function that somebody wrote, or
a part that is computed again in the backward pass, may hold weights that the graph does not show.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from torch import Tensor
from torch.autograd.function import BackwardCFunction

from vgexp.probe.graph import parameter_of, place_of, walk

_MOST_NODES = 3000
"""Nodes of a graph that are looked at, beyond which nothing is said."""
_WITHOUT_SLOPE = re.compile(r"(?:Round|Sign|Sgn|Floor|Ceil|Trunc)Backward")
"""Names of functions whose derivative is 0 wherever they have one."""


def cut_by(loss: Tensor) -> str | None:
    """A function without a slope, as autograd names it, that every path from a loss to a leaf
    passes; None where there is none, or nobody knows."""
    start = place_of(loss)
    if start is None:
        return None
    found = None
    for count, (node, _) in enumerate(walk([start], lambda place: _has_no_slope(place[0]))):
        if count == _MOST_NODES or _may_be_trained(node):
            return None
        if found is None and _has_no_slope(node):
            found = str(node.name())
    return found


def reaches_any(loss: Tensor, outputs: Iterable[Tensor]) -> bool | None:
    """Whether the graph of a loss leads to any of the outputs that it was given; None where it was
    given none that something made, or nobody knows."""
    start = place_of(loss)
    places = [place_of(output) for output in outputs]
    made = {place for place in places if place is not None and not _is_leaf(place[0])}
    if start is None or not made:
        return None
    for count, place in enumerate(walk([start], lambda place: place in made)):
        if place in made:
            return True
        if count == _MOST_NODES:
            return None
    return False


def _is_leaf(node: Any) -> bool:
    return parameter_of(node) is not None


def _may_be_trained(node: Any) -> bool:
    """Whether a node is a leaf, or of a function in Python, as checkpoints and compiled graphs are
    too: it may hold weights, and its gradient is whatever its writer made it."""
    return _is_leaf(node) or isinstance(node, BackwardCFunction)


def _has_no_slope(node: Any) -> bool:
    return _WITHOUT_SLOPE.match(node.name()) is not None
