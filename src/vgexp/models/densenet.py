"""Densely connected nets as for CIFAR (Huang 2017, section 3 and Table 2).

A 3x3 convolution to `width` channels; three dense blocks of n layers, between them transitions; a
mean over positions; read-out. In a block each layer adds k = growth_rate channels to what it reads:

    x <- [x, W * phi(norm(x))]                                   W 3x3
    x <- [x, W_2 * phi(norm(W_1 * phi(norm(x))))]                bottleneck: W_1 1x1 to 4k channels

A transition is W * phi(norm(x)), W 1x1 to floor(compression C) of C channels, and the mean of each
2x2 positions (of 1x1 images, themselves). Axes: B examples, C channels, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vgexp.activations import ACTIVATIONS, slope
from vgexp.config import DensenetConfig
from vgexp.errors import QuestionError
from vgexp.models.convolution import ConvPlan, conv, require_positions
from vgexp.models.families import make
from vgexp.models.network import Named, Network, linear, run_blocks
from vgexp.models.stages import Stage, chain
from vgexp.norms import NORMS
from vgexp.skips import SKIPS
from vgexp.tasks import Task
from vgexp.watch import Watch

BLOCKS = 3
BOTTLENECK = 4
"""Number of channels of a bottleneck, divided by the growth rate."""


class DensenetLayer(nn.Module):
    """One convolution, and the norm, phi and dropout before the next.

    The layer is never called itself, which would cost a call.
    """

    def __init__(self, place: ConvPlan, num_read: int, config: DensenetConfig) -> None:
        super().__init__()
        self.conv = conv(place, config.bias)
        self.norm = NORMS[config.norm](num_read, config, 2)
        self.activation = ACTIVATIONS[config.activation].build(config.negative_slope)
        self.dropout = nn.Dropout(config.dropout) if config.dropout else None
        norms = () if self.norm is None else (self.norm,)
        phi = (self.activation,)
        self.makes_h: tuple[nn.Module, ...] = (
            phi + norms if config.norm_position == "post" else norms + phi
        )
        self.after_h = () if self.dropout is None else (self.dropout,)


@dataclass(frozen=True)
class Concatenation:
    """Concatenates x and branch(x)."""

    branch: tuple[nn.Module, ...]

    def __call__(self, x_BCHW: Tensor) -> Tensor:
        new_BCHW = x_BCHW
        for module in self.branch:
            new_BCHW = module(new_BCHW)
        return torch.cat((x_BCHW, new_BCHW), 1)


class Densenet(Network):
    """A densely connected net; its weights are not drawn yet.

    Rows. z of a convolution is its own output: k new channels, a bottleneck's 4k, a transition's
    before the pooling. h is what the next convolution reads, phi(norm(x)) or norm(phi(x)): of x
    with the new channels behind all that were there, so that act_mean, act_std, saturated_fraction
    and dead_fraction are over the older channels too. delta is dL/dz of the new channels alone.
    """

    def __init__(self, config: DensenetConfig, num_channels: int, num_outputs: int) -> None:
        super().__init__()
        self.activation_name = config.activation
        plan = list(_plan(config, num_channels))
        self.layers = nn.ModuleList(DensenetLayer(place, read, config) for place, read, _ in plan)
        self.readout = linear(plan[-1][1], num_outputs, True)
        # What `forward` calls, in a plain list: a module's attributes are slow to look up.
        self._chain = list(_chain(list(self._convs()), [role for _, _, role in plan]))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Returns the outputs [B, O]."""
        h_BCHW = run_blocks(self._chain, x_BCHW, self.recomputes)
        return cast(Tensor, self.readout(_mean_over_positions(h_BCHW)))

    def watches(self) -> list[Watch]:
        """Watches each kernel, in forward order."""
        named: Named = {weight: (name, weight) for name, weight in self.named_parameters()}
        watches = [
            Watch(
                *named[layer.conv.weight],
                number,
                "conv",
                preact=layer.conv,
                activation=layer.activation,
                act=layer.makes_h[-1],
                slope=slope(self.activation_name, layer.activation),
            )
            for number, layer in enumerate(self._convs(), start=1)
        ]
        number, readout = len(self.layers) + 1, self.readout
        return [*watches, Watch(*named[readout.weight], number, "readout", preact=readout)]

    def stages(self) -> list[Stage]:
        """Returns the stem, each layer and transition from all channels to all, and the rest.

        A layer hands on what it reads beside its new channels; it has the name of its last
        convolution.
        """
        indices = {layer.conv: index for index, layer in enumerate(self._convs())}
        stages: list[Stage] = []
        since: list[Callable[[Tensor], Tensor]] = []
        for call in self._chain:
            since.append(call)
            if not stages or isinstance(call, Concatenation) or call is _halved:
                made = call.branch if isinstance(call, Concatenation) else since
                index = max(indices[m] for m in made if isinstance(m, nn.Conv2d))
                stages.append(Stage(f"layers.{index}.conv.weight", index + 1, chain(*since)))
                since = []
        readout = chain(*since, _mean_over_positions, self.readout)
        return [*stages, Stage("readout.weight", len(self.layers) + 1, readout)]

    def _convs(self) -> Iterator[DensenetLayer]:
        return cast(Iterator[DensenetLayer], iter(self.layers))


@make.register
def build(config: DensenetConfig, task: Task) -> Densenet:
    """Makes the densely connected net of a configuration; its weights are not drawn yet.

    Raises:
        QuestionError: an unknown name, a skip that does not concatenate, or a norm that channels or
            images do not allow.
    """
    if not SKIPS[config.skip].concatenates:
        raise QuestionError(
            f"model.skip is {config.skip!r} on model=densenet\n"
            "allowed: dense; model=resnet and model=cnn have the others"
        )
    num_convs = config.layers_per_block * (2 if config.bottleneck else 1)
    read = [num for _, num, _ in _plan(config, task.shape[0])]
    require_positions(config, task, read[-num_convs - 1 :], BLOCKS - 1)
    return Densenet(config, task.shape[0], task.num_outputs)


Role = str
"""`stem`, `first` and `grows` (of a layer with bottleneck, its two), `grows`, or `shrinks`."""


def _plan(config: DensenetConfig, num_channels: int) -> Iterator[tuple[ConvPlan, int, Role]]:
    """Yields each convolution, the number of channels that the next one reads, and its role."""
    k = config.growth_rate
    yield ConvPlan(num_channels, config.width, 3), config.width, "stem"
    width = config.width
    for block in range(BLOCKS):
        if block:
            kept = max(1, int(config.compression * width))
            yield ConvPlan(width, kept, 1), kept, "shrinks"
            width = kept
        for _ in range(config.layers_per_block):
            read = width
            if config.bottleneck:
                read = BOTTLENECK * k
                yield ConvPlan(width, read, 1), read, "first"
            width += k
            yield ConvPlan(read, k, 3), width, "grows"


def _chain(layers: list[DensenetLayer], roles: list[Role]) -> Iterator[Callable[[Tensor], Tensor]]:
    """Yields the calls, each of which reads the output of the one before."""
    reads: tuple[nn.Module, ...] = ()
    for layer, role in zip(layers, roles, strict=True):
        branch = (*reads, layer.conv)
        reads = (*layer.makes_h, *layer.after_h)
        if role == "first":
            reads = (*branch, *reads)
        elif role == "grows":
            yield Concatenation(branch)
        else:
            yield from branch
        if role == "shrinks":
            yield _halved
    yield from reads


def _mean_over_positions(h_BCHW: Tensor) -> Tensor:
    return h_BCHW.mean((2, 3))


def _halved(x_BCHW: Tensor) -> Tensor:
    """Averages each 2x2 positions; an odd last row or column averages those it has."""
    return F.avg_pool2d(x_BCHW, 2, ceil_mode=True, count_include_pad=False)
