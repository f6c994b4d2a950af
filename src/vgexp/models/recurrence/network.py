"""Stacked recurrent layers and a read-out.

Layer l reads x_t (the first), or what layer l - 1 hands up, and hands up h_t, with
`skip=residual` and l > 1 h_t plus what it has read. The read-out reads what the last layer hands
up: at each step where the task asks for an answer at each position, else at the last. A token is
read as a one-hot vector.

Axes: B examples, T steps in time, I what a layer reads, H units, O outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vgexp.config import RecurrentConfig
from vgexp.config.ranges import one_of
from vgexp.inits import Draw
from vgexp.models.families import make
from vgexp.models.network import Network, linear, run_blocks
from vgexp.models.recurrence import draws
from vgexp.models.recurrence.cells import EQUATIONS, Equations, cell_of
from vgexp.models.recurrence.meters import GateMeter, HookPoint, MeteredLayer, TimeMeter
from vgexp.models.recurrence.segments import in_segments, segments
from vgexp.norms import NORMS
from vgexp.skips import SKIPS
from vgexp.tasks import Task
from vgexp.watch import Meter, Watch


class RecurrentLayer(nn.Module):
    """A stacked layer: a cell that is called once, or once between two cuts of `truncation`."""

    def __init__(self, equations: Equations, num_inputs: int, *, first: bool) -> None:
        super().__init__()
        self.cell = cell_of(equations, num_inputs)
        self.site = HookPoint()
        self.truncation = equations.config.truncation
        self.adds = SKIPS[equations.config.skip].is_sum and not first

    def forward(self, x_BTI: Tensor) -> Tensor:
        """Returns what the layer hands up [B, T, H]."""
        plan = segments(x_BTI.shape[1], 0, self.truncation)
        parts = [h_BSH for _, h_BSH, _ in in_segments(self.cell, x_BTI, plan)]
        h_BTH = parts[0] if len(parts) == 1 else torch.cat(parts, 1)
        self.site(x_BTI, h_BTH)
        return h_BTH + x_BTI if self.adds else h_BTH


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
            RecurrentLayer(self.equations, config.width if index else num_inputs, first=index == 0)
            for index in range(config.depth)
        )
        self.dropout = nn.Dropout(config.dropout) if config.dropout else None
        self.readout = linear(config.width, task.num_outputs, config.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Returns the outputs [B, O], or [B, T, O] where the task asks for answers at positions."""
        x_BTI = x if self.num_tokens is None else self._one_hot(x)
        h_BTH = run_blocks(self._blocks(), x_BTI, self.recomputes)
        return cast(Tensor, self.readout(h_BTH if self.per_position else h_BTH[:, -1]))

    def watches(self) -> list[Watch]:
        """Watches what each layer hands up, then its weight of inputs and that of states.

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
        """Returns the meters of `time.csv` and `recurrence.csv`."""
        places = {
            name: MeteredLayer(layer.site, layer.cell) for name, layer in self._named_layers()
        }
        return [kind(places, self.equations, self.time_points) for kind in (TimeMeter, GateMeter)]

    def special_draws(self) -> Mapping[str, Draw]:
        """Maps the cells' parameters to their draws; norms and activations have none."""
        ways = draws.draws(self.config, self.equations.gates, self.equations.bias_starts)
        present = dict(self.named_parameters())
        return {
            f"{name}.cell.{parameter}": draw
            for name, _ in self._named_layers()
            for parameter, draw in ways.items()
            if f"{name}.cell.{parameter}" in present
        }

    def _blocks(self) -> list[Callable[[Tensor], Tensor]]:
        return [partial(self._block, index) for index in range(len(self.layers))]

    def _block(self, index: int, x_BTI: Tensor) -> Tensor:
        if index > 0 and self.dropout is not None:
            x_BTI = self.dropout(x_BTI)
        return cast(Tensor, self.layers[index](x_BTI))

    def _named_layers(self) -> list[tuple[str, RecurrentLayer]]:
        return [(f"layers.{i}", cast(RecurrentLayer, layer)) for i, layer in enumerate(self.layers)]

    def _one_hot(self, x_BT: Tensor) -> Tensor:
        """[B, T, V]: a fused cell multiplies its inputs itself, and a few tokens cost it little."""
        assert self.num_tokens is not None
        return F.one_hot(x_BT, self.num_tokens).to(self.readout.weight.dtype)


@make.register
def build(config: RecurrentConfig, task: Task) -> Recurrent:
    """Makes the network of a configuration; its weights are not drawn yet.

    Raises:
        QuestionError: an unknown name, an initialisation that recurrent weights cannot have, a norm
            that mixes examples or times, or a skip that does more than add.
    """
    draws.require(config)
    norms = tuple(name for name in NORMS if NORMS[name].of_units is not None)
    skips = tuple(name for name in SKIPS if SKIPS[name].is_sum or not SKIPS[name].joins)
    one_of("model.norm", config.norm, norms)
    one_of("model.skip", config.skip, skips)
    return Recurrent(config, task)
