"""The perceptron: L hidden weight layers of equal width and one read-out.

z_1 = W_1 x + b_1, h_l = phi(norm(z_l)) or norm(phi(z_l)), z_{l+1} as the skip says, read-out
W h_L + b. Axes: B examples, I inputs, W units, O outputs, F features that a weight reads.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from vgexp.activations import ACTIVATIONS, slope
from vgexp.config import MlpConfig
from vgexp.inits import Branch
from vgexp.models.families import make
from vgexp.models.network import Named, Network, gate_watches, linear, run_blocks
from vgexp.models.stages import Joined, Map, Stage, chain
from vgexp.norms import NORMS
from vgexp.skips import SKIPS, Combine
from vgexp.tasks import Task
from vgexp.watch import Watch

Passed = tuple[Tensor, Tensor, Tensor]
"""What a layer hands on where a skip joins layers: h, z, and the features that the next reads."""


class MlpLayer(nn.Module):
    """The modules of one hidden layer, in the order in which the perceptron calls them.

    `linear` makes the branch, `skip` combines it with the last z, `after_sum` finishes z, `after_z`
    makes h of z, and `after_h` drops units of it. The layer is never called itself, which would
    cost a call.
    """

    def __init__(self, num_features: int, config: MlpConfig, *, first: bool) -> None:
        super().__init__()
        combine = SKIPS[config.skip].combine
        sum_is_normed = norms_the_sum(config)
        self.linear = linear(num_features, config.width, config.bias)
        self.skip: Combine | None = None
        if combine is not None and not first:
            self.skip = combine(config.width, config.depth)
        self.norm: nn.Module | None = None
        if not (sum_is_normed and first):
            self.norm = NORMS[config.norm](config.width, config)
        self.activation = ACTIVATIONS[config.activation].build(config.negative_slope)

        norms = () if self.norm is None else (self.norm,)
        phi = (self.activation,)
        pre = config.norm_position == "pre"
        self.after_sum: tuple[nn.Module, ...] = norms if sum_is_normed else ()
        self.after_z: tuple[nn.Module, ...] = (
            phi if sum_is_normed else norms + phi if pre else phi + norms
        )
        self.dropout = nn.Dropout(config.dropout) if config.dropout else None
        self.after_h = () if self.dropout is None else (self.dropout,)

    @property
    def makes_z(self) -> nn.Module:
        """The module whose output is z."""
        if self.after_sum:
            return self.after_sum[-1]
        return self.linear if self.skip is None else self.skip


@dataclass(frozen=True)
class MlpStep:
    """Computes h, z and the next features from those of the layer before."""

    linear: nn.Module
    skip: nn.Module | None
    after_sum: tuple[nn.Module, ...]
    after_z: tuple[nn.Module, ...]
    grows: bool
    """Whether the next layer reads this h and all that this layer has read."""

    def __call__(self, passed: Passed) -> Passed:
        h_BW, z_BW, features_BF = passed
        branch_BW = self.linear(features_BF)
        z_BW = branch_BW if self.skip is None else self.skip(z_BW, branch_BW, h_BW)
        for module in self.after_sum:
            z_BW = module(z_BW)
        h_BW = z_BW
        for module in self.after_z:
            h_BW = module(h_BW)
        # Growing one concatenation costs L operations backward; joining anew each time, L^2.
        return h_BW, z_BW, torch.cat((features_BF, h_BW), 1) if self.grows else h_BW


@dataclass(frozen=True)
class DenseStage:
    """Maps the concatenation of h_1..h_{l-1}, z_l to that of h_1..h_l, z_{l+1}."""

    makes_h: tuple[nn.Module, ...]
    linear: nn.Linear

    def __call__(self, x_BF: Tensor) -> Tensor:
        h_BW = x_BF[:, -self.linear.out_features :]
        for module in self.makes_h:
            h_BW = module(h_BW)
        features_BF = torch.cat((x_BF[:, : -self.linear.out_features], h_BW), 1)
        return torch.cat((features_BF, self.linear(features_BF)), 1)


@dataclass(frozen=True)
class DenseReadout:
    """Maps the last z of a concatenation to the outputs."""

    width: int
    makes: Map

    def __call__(self, x_BF: Tensor) -> Tensor:
        return self.makes(x_BF[:, -self.width :])


class Mlp(Network):
    """A perceptron; its weights are not drawn yet (`inits.initialise` draws them)."""

    def __init__(self, config: MlpConfig, num_inputs: int, num_outputs: int) -> None:
        super().__init__()
        self.activation_name = config.activation
        self.concatenates = SKIPS[config.skip].concatenates
        self.is_carried = SKIPS[config.skip].carries_z
        self.layers = nn.ModuleList(
            MlpLayer(width, config, first=index == 0)
            for index, width in enumerate(input_widths(config, num_inputs))
        )
        self.readout = linear(config.width, num_outputs, config.bias)
        # What `forward` calls, in plain lists: a module's attributes are slow to look up.
        if SKIPS[config.skip].joins:
            self._chain = None
            self._steps = list(self._step_by_step())
        else:
            self._chain = _chain(self._hidden())

    def forward(self, x_BI: Tensor) -> Tensor:
        """Returns the outputs [B, O]."""
        if self._chain is None:
            h_BW, _, _ = run_blocks(self._steps, (x_BI, x_BI, x_BI), self.recomputes)
        else:
            h_BW = run_blocks(self._chain, x_BI, self.recomputes)
        return cast(Tensor, self.readout(h_BW))

    def watches(self) -> list[Watch]:
        """Watches each weight matrix, in forward order; in a layer the main path comes first."""
        named: Named = {weight: (name, weight) for name, weight in self.named_parameters()}
        watches: list[Watch] = []
        for number, layer in enumerate(self._hidden(), start=1):
            watches.append(self._main_watch(layer, number, named))
            watches.extend(gate_watches(layer.skip, number, "linear", named))
        number, readout = len(self.layers) + 1, self.readout
        return [*watches, Watch(*named[readout.weight], number, "readout", preact=readout)]

    def branches(self) -> list[Branch]:
        """Returns the layers whose W h + b is added to z as it is."""
        if not self.is_carried:
            return []
        return [Branch((f"layers.{i}.linear.weight",), None) for i in range(1, len(self.layers))]

    def stages(self) -> list[Stage]:
        """Returns the maps from inputs to z_1, from each z_l to z_{l+1}, from z_L to outputs.

        With `dense` from the second on h_1..h_{l-1} and z_l, side by side, are what is handed on.
        """
        first, *rest = self._hidden()
        stages = [Stage("layers.0.linear.weight", 1, chain(first.linear, *first.after_sum))]
        last = first
        for number, layer in enumerate(rest, start=2):
            makes_h = (*last.after_z, *last.after_h)
            name = f"layers.{number - 1}.linear.weight"
            if self.concatenates:
                stages.append(Stage(name, number, DenseStage(makes_h, layer.linear)))
            elif layer.skip is None:
                stages.append(Stage(name, number, chain(*makes_h, layer.linear, *layer.after_sum)))
            else:
                branch, after = chain(layer.linear), chain(*layer.after_sum)
                joined = Joined(chain(*makes_h), branch, chain(), layer.skip, after)
                stages.append(Stage(name, number, joined, joined.forks))
            last = layer
        readout: Map = chain(*last.after_z, *last.after_h, self.readout)
        if self.concatenates:
            readout = DenseReadout(self.readout.in_features, readout)
        return [*stages, Stage("readout.weight", len(self.layers) + 1, readout)]

    def _step_by_step(self) -> Iterator[MlpStep]:
        for lay in self._hidden():
            grows = self.concatenates and lay is not self.layers[0]
            yield MlpStep(lay.linear, lay.skip, lay.after_sum, lay.after_z + lay.after_h, grows)

    def _hidden(self) -> Iterator[MlpLayer]:
        return cast(Iterator[MlpLayer], iter(self.layers))

    def _main_watch(self, layer: MlpLayer, number: int, named: Named) -> Watch:
        return Watch(
            *named[layer.linear.weight],
            number,
            "linear",
            preact=layer.makes_z,
            reads_z=layer.after_z[0] is layer.activation,
            activation=layer.activation,
            act=layer.after_z[-1],
            slope=slope(self.activation_name, layer.activation),
        )


def _chain(layers: Iterable[MlpLayer]) -> list[nn.Module]:
    """Lists the modules of layers without skips; each reads the output of the one before."""
    return [m for lay in layers for m in (lay.linear, *lay.after_sum, *lay.after_z, *lay.after_h)]


@make.register
def build(config: MlpConfig, task: Task) -> Mlp:
    """Makes the perceptron of a configuration; its weights are not drawn yet.

    Raises:
        QuestionError: an unknown name, or a normalisation that the width does not allow.
    """
    return Mlp(config, task.num_features, task.num_outputs)


def input_widths(config: MlpConfig, num_inputs: int) -> Iterator[int]:
    """Yields the number of features that each hidden weight matrix reads, first to last."""
    yield num_inputs
    for num_before in range(1, config.depth):
        yield config.width * (num_before if SKIPS[config.skip].concatenates else 1)


def norms_the_sum(config: MlpConfig) -> bool:
    """Whether the norm is the last thing done to z: `post` with a skip that adds."""
    return SKIPS[config.skip].adds and config.norm_position == "post"
