"""Stacked recurrent layers and a read-out, cut in time where states are to be seen.

Layer l reads x_t (the first), or what layer l - 1 hands up, and hands up h_t, with
`skip=residual` and l > 1 h_t plus what it has read. The read-out reads what the last layer hands
up: at each step where the task asks for an answer at each position, else at the last. A token is
read as a one-hot vector.

Each layer is run in segments of time, the same whether a step is measured or not, so that the
state at `time_points` boundaries is a tensor whose gradient can be seen. On one thread (4 layers,
100 steps, width 64 and 128, batch 32) 10 segments cost 0.87 to 0.91 of one call for an LSTM, 1.00
for a GRU, 1.11 to 1.19 for a plain one; a segment a step 2.0 to 3.3, 1.3 to 1.4, 1.8 to 2.4.

Axes: B examples, T steps in time, S steps of a segment, I inputs, H units, O outputs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vgexp.config import RecurrentConfig
from vgexp.inits import Draw
from vgexp.models.network import Network, linear, run_blocks
from vgexp.models.recurrence import draws
from vgexp.models.recurrence.cells import EQUATIONS, Equations, States, cell_of
from vgexp.models.recurrence.meters import GateMeter, Site, TimeMeter
from vgexp.tasks import Task
from vgexp.watch import Meter, Watch


@dataclass(frozen=True)
class Segment:
    """Steps that a cell takes in one call."""

    num_steps: int
    watched_t: int | None
    """The time of its last state, where that is watched."""
    is_cut: bool
    """Whether gradients do not flow back over its end."""


@lru_cache(maxsize=64)
def segments(
    num_steps: int, time_points: int | None, truncation: int | None
) -> tuple[Segment, ...]:
    """The segments of T steps: each ends where a state is watched or cut off from its past.

    P points are watched, t = k T / P - 1 for k = 1..P, rounded down; at most T, and T if None.
    """
    points = min(time_points or num_steps, num_steps)
    watched = {k * num_steps // points for k in range(1, points + 1)}
    cuts = set(range(truncation, num_steps, truncation)) if truncation else set()
    found, start = [], 0
    for end in sorted(watched | cuts):
        found.append(Segment(end - start, end - 1 if end in watched else None, end in cuts))
        start = end
    return tuple(found)


class Layer(nn.Module):
    """A stacked layer: a cell, called once a segment."""

    def __init__(self, equations: Equations, num_inputs: int, *, first: bool) -> None:
        super().__init__()
        self.cell = cell_of(equations, num_inputs)
        self.site = Site()
        self.adds = equations.config.skip == "residual" and not first

    def forward(self, x_BTI: Tensor, plan: Sequence[Segment], recomputes: bool) -> Tensor:
        """What it hands up [B, T, H].

        The states go from segment to segment beside the sequence, so that the sequence's gradient
        is what comes from above, and a state's what comes back along time.
        """
        parts, watched, states = [], {}, cast(States, ())
        sizes = [segment.num_steps for segment in plan]
        for part_BSI, segment in zip(torch.split(x_BTI, sizes, 1), plan, strict=True):
            h_BSH, *last = run_blocks([self._advance], (part_BSI, *states), recomputes)
            parts.append(h_BSH)
            states = tuple(last)
            if segment.watched_t is not None:
                watched[segment.watched_t] = states
            if segment.is_cut:
                states = tuple(state.detach() for state in states)
        h_BTH = parts[0] if len(parts) == 1 else torch.cat(parts, 1)
        self.site(x_BTI, h_BTH, watched)
        return h_BTH + x_BTI if self.adds else h_BTH

    def _advance(self, given: States) -> States:
        """(h of each step, last states) of (x of each step, states)."""
        x_BSI, *states = given
        hx = None if not states else states[0] if len(states) == 1 else tuple(states)
        h_BSH, last = self.cell(x_BSI, hx)
        return (h_BSH, last) if isinstance(last, Tensor) else (h_BSH, *last)


class Recurrent(Network):
    """Stacked recurrent layers; their weights are not drawn yet."""

    def __init__(self, config: RecurrentConfig, task: Task) -> None:
        super().__init__()
        self.config = config
        self.equations = EQUATIONS[type(config)](config)
        self.num_tokens = task.num_tokens if task.kind == "tokens" else None
        self.per_position = task.per_position
        num_inputs = self.num_tokens or task.shape[-1]
        self.layers = nn.ModuleList(
            Layer(self.equations, config.width if index else num_inputs, first=index == 0)
            for index in range(config.depth)
        )
        self.dropout = nn.Dropout(config.dropout) if config.dropout else None
        self.readout = linear(config.width, task.num_outputs, config.bias)

    def forward(self, x: Tensor) -> Tensor:
        """The outputs [B, O], or [B, T, O] where an answer is asked for at each position."""
        x_BTI = x if self.num_tokens is None else self._one_hot(x)
        plan = segments(x_BTI.shape[1], self.time_points, self.config.truncation)
        for index, layer in enumerate(self.layers):
            if index > 0 and self.dropout is not None:
                x_BTI = self.dropout(x_BTI)
            x_BTI = layer(x_BTI, plan, self.recomputes)
        return cast(Tensor, self.readout(x_BTI if self.per_position else x_BTI[:, -1]))

    def watches(self) -> list[Watch]:
        """In each layer what it hands up, then its weight of inputs and that of states.

        Of the stream, z is what the layer hands up, and delta the derivative that comes to it
        from above, at every position: zero where nothing above reads it. The cell's own z and h
        along time are in `recurrence.csv` and `time.csv`.
        """
        named = dict(self.named_parameters())
        watches: list[Watch] = []
        for number, (name, layer) in enumerate(self._named_layers(), start=1):
            watches.append(Watch(name, None, number, "stream", preact=layer))
            for weight in (f"{name}.cell.weight_ih_l0", f"{name}.cell.weight_hh_l0"):
                watches.append(Watch(weight, named[weight], number, "recurrent"))
        number, readout = len(self.layers) + 1, self.readout
        weight = "readout.weight"
        return [*watches, Watch(weight, named[weight], number, "readout", preact=readout)]

    def meters(self) -> list[Meter]:
        """Of `time.csv` and `recurrence.csv`."""
        sites = {name: layer.site for name, layer in self._named_layers()}
        cells = {name: layer.cell for name, layer in self._named_layers()}
        return [TimeMeter(sites, self.equations), GateMeter(sites, cells, self.equations)]

    def special_draws(self) -> Mapping[str, Draw]:
        """All parameters of the cells, norms' and activations' left out."""
        ways = draws.draws(self.config, self.equations.gates)
        present = dict(self.named_parameters())
        return {
            f"{name}.cell.{parameter}": draw
            for name, _ in self._named_layers()
            for parameter, draw in ways.items()
            if f"{name}.cell.{parameter}" in present
        }

    def _named_layers(self) -> list[tuple[str, Layer]]:
        return [(f"layers.{i}", cast(Layer, layer)) for i, layer in enumerate(self.layers)]

    def _one_hot(self, x_BT: Tensor) -> Tensor:
        """[B, T, V]: a fused cell multiplies its inputs itself, and a few tokens cost it little."""
        assert self.num_tokens is not None
        return F.one_hot(x_BT, self.num_tokens).to(self.readout.weight.dtype)


def build(config: RecurrentConfig, task: Task) -> Recurrent:
    """The network of a configuration, its weights not drawn yet, on CPU.

    Raises:
        QuestionError: an unknown name, or an initialisation that recurrent weights cannot have.
    """
    draws.require(config)
    return Recurrent(config, task)
