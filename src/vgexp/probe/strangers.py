"""Finds parameters that the model's outputs depend on, and that are none of the model's.

A tensor that is made of a parameter, as `nn.Parameter(x).to(dtype)` makes one, is no parameter of
the module that keeps it, and neither is one in a plain list.
"""

from __future__ import annotations

from itertools import islice
from typing import Any

import torch.distributed as dist
from torch import nn

from vgexp.probe.graph import Place, parameter_of, place_of, tensors_in, walk
from vgexp.torch_internals import is_in_flat

_MOST_NODES = 20_000
"""Nodes of the graph of one pass that are looked at, once."""


class Strangers:
    """Looks at the graph of the first pass with gradients, from the outputs back to the inputs; not
    among several ranks."""

    def __init__(self, model: nn.Module) -> None:
        self._known = {id(p) for p in model.parameters()}
        self._inputs: set[int] = set()
        self._ends: set[Place] = set()
        self.has_looked = False
        self.found: dict[int, str] = {}
        """The identities of such parameters, and what is said of each."""

    def on_call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Notes what the model is given: what lies behind it is not its own."""
        given = list(tensors_in((args, kwargs), in_objects=True))
        self._inputs = {id(x) for x in given}
        self._ends = {place for x in given if (place := place_of(x)) is not None}

    def on_output(self, output: object) -> None:
        """Walks back from what the model gives."""
        inputs, ends = self._inputs, self._ends
        self.drop()
        self.has_looked = dist.is_available() and dist.is_initialized()
        if self.has_looked:
            return  # whole weights may stand in the place of shards
        starts = [p for x in tensors_in(output, in_objects=True) if (p := place_of(x)) is not None]
        if not starts:
            return
        self.has_looked = True
        for node, _ in islice(walk(starts, ends.__contains__), _MOST_NODES):
            leaf = parameter_of(node)
            if type(leaf) is not nn.Parameter or is_in_flat(leaf):
                continue
            if id(leaf) not in self._known | inputs:
                self.found[id(leaf)] = f"{list(leaf.shape)} in what the model computes"

    def drop(self) -> None:
        """Forgets what the model was given, whose places hold its graph."""
        self._inputs, self._ends = set(), set()
