"""Convolutional nets with one path: what `cnn` and `resnet` have in common.

L convolutions, each with the sum that it may end, its norm, phi and dropout; a mean over positions;
a read-out. A plan (`ConvPlan`, one a convolution) says channels, kernel, stride, and where a branch
ends. Axes: B examples, C channels, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import cast

from torch import Tensor, nn

from vgexp.activations import ACTIVATIONS, slope
from vgexp.config import ConvConfig
from vgexp.inits import INITS, Branch
from vgexp.models.convolution import (
    ConvPlan,
    Joint,
    Multiplier,
    Pad,
    Shift,
    conv,
    gate,
)
from vgexp.models.network import Named, Network, gate_watches, linear, run_blocks
from vgexp.models.stages import Fork, Joined, Map, Stage, chain
from vgexp.norms import NORMS
from vgexp.skips import SKIPS, Combine
from vgexp.watch import Watch


@dataclass(frozen=True)
class Form:
    """How a family puts norm, phi and path together."""

    preactivation: bool
    """Whether the path carries z and branches read h, or else both have h."""
    projects: bool = False
    """Whether a path changes its shape by a 1x1 convolution (option B), or else by zeros (A)."""
    readout_bias: bool = True
    num_branches: int = 1
    """L of `scaled_residual`."""


class ConvLayer(nn.Module):
    """The modules of one convolution and of what makes h of it; the net calls them one by one.

    `convolves` and `on_branch` make the branch or, where none ends, z; `shortcut` brings the path
    to its shape, `skip` adds, `after_sum` finishes z, `after_z` makes h of z, `after_h` drops some
    of it. With `model.init=fixup` there are scalars: shifts of what conv and phi read, a multiplier
    of each branch (Zhang 2019, rule 3).
    """

    def __init__(self, place: ConvPlan, config: ConvConfig, form: Form, *, first: bool) -> None:
        super().__init__()
        adds = SKIPS[config.skip].adds
        ends = place.ends is not None and adds
        post = config.norm_position == "post"
        self.conv = conv(place, config.bias)
        self.projection: nn.Conv2d | None = None
        self.projection_norm: nn.Module | None = None
        self.pad: Pad | None = None
        self.skip: Combine | None = None
        if ends:
            assert place.ends is not None
            self._join(place.ends, config, form)
        self.norm: nn.Module | None = None
        if not (form.preactivation and adds and post and first):
            self.norm = NORMS[config.norm](place.out_channels, config, 2)
        self.activation = ACTIVATIONS[config.activation].build(config.negative_slope)
        self.dropout = nn.Dropout(config.dropout) if config.dropout else None
        with_scalars = INITS[config.init].adds_scalars
        self.shift_of_conv = Shift() if with_scalars else None
        self.shift_of_phi = Shift() if with_scalars else None
        self.multiplier = Multiplier() if with_scalars and ends else None

        norms = () if self.norm is None else (self.norm,)
        phi = _present(self.shift_of_phi, self.activation)
        self.convolves = _present(self.shift_of_conv, self.conv)
        self.on_branch: tuple[nn.Module, ...] = ()
        self.after_sum: tuple[nn.Module, ...] = ()
        self.after_z: tuple[nn.Module, ...] = phi + norms if post and not adds else norms + phi
        if ends and post:
            self.after_sum, self.after_z = norms, phi
        elif ends and not form.preactivation:
            self.on_branch, self.after_z = norms, phi
        self.on_branch += _present(self.multiplier)
        self.after_h = () if self.dropout is None else (self.dropout,)

    def _join(self, joint: Joint, config: ConvConfig, form: Form) -> None:
        make = SKIPS[config.skip].combine
        assert make is not None
        self.skip = make(joint.out_channels, form.num_branches, partial(gate, joint))
        if joint.changes_shape and form.projects:
            place = ConvPlan(joint.in_channels, joint.out_channels, 1, joint.stride)
            self.projection = conv(place, config.bias)
            if not form.preactivation and config.norm_position == "pre":
                self.projection_norm = NORMS[config.norm](joint.out_channels, config, 2)
        elif joint.changes_shape:
            self.pad = Pad(joint)

    @property
    def shortcut(self) -> tuple[nn.Module, ...]:
        """The modules that the path passes before the sum."""
        return _present(self.projection, self.projection_norm, self.pad)

    @property
    def makes_z(self) -> nn.Module:
        """The module whose output is z."""
        if self.after_sum:
            return self.after_sum[-1]
        return self.conv if self.skip is None else self.skip


@dataclass(frozen=True)
class ConvBlock:
    """Computes after(skip(shortcut(x), branch(h), h)) with h = before(x), for a path x."""

    before: tuple[nn.Module, ...]
    branch: tuple[nn.Module, ...]
    shortcut: tuple[nn.Module, ...]
    skip: nn.Module
    after: tuple[nn.Module, ...]

    def __call__(self, x_BCHW: Tensor) -> Tensor:
        h_BCHW = x_BCHW
        for module in self.before:
            h_BCHW = module(h_BCHW)
        branch_BCHW = h_BCHW
        for module in self.branch:
            branch_BCHW = module(branch_BCHW)
        for module in self.shortcut:
            x_BCHW = module(x_BCHW)
        z_BCHW: Tensor = self.skip(x_BCHW, branch_BCHW, h_BCHW)
        for module in self.after:
            z_BCHW = module(z_BCHW)
        return z_BCHW

    @property
    def joined(self) -> Joined:
        """The same map with named parts."""
        path, skip = chain(*self.shortcut), cast(Combine, self.skip)
        return Joined(chain(*self.before), chain(*self.branch), path, skip, chain(*self.after))


class ConvNet(Network):
    """A convolutional net with one path; its weights are not drawn yet.

    Rows. z of a convolution is its output; of one that ends a branch it is the sum: of path and
    branch where the path carries z (`Form.preactivation`), of path and normed branch where it
    carries h, and with `norm_position=post` the sum normed. h is phi of z, normed as
    `norm_position` says; where the path carries z, it is computed as the next branch reads it. A
    projection's z is its output, a gate's what its sigmoid reads; both have the number of the
    convolution that ends their block. The read-out reads the mean of the last h over positions.
    """

    def __init__(
        self, config: ConvConfig, places: Sequence[ConvPlan], form: Form, num_outputs: int
    ) -> None:
        super().__init__()
        self.activation_name = config.activation
        self.is_carried = SKIPS[config.skip].carries_z
        self.layers = nn.ModuleList(
            ConvLayer(place, config, form, first=index == 0) for index, place in enumerate(places)
        )
        self.shift_of_readout = Shift() if INITS[config.init].adds_scalars else None
        self.readout = linear(places[-1].out_channels, num_outputs, form.readout_bias)
        # What `forward` calls, in a plain list: a module's attributes are slow to look up.
        adds = SKIPS[config.skip].adds
        sizes = [place.ends.num_layers for place in places if place.ends is not None and adds]
        self._chain: list[Callable[[Tensor], Tensor]] = list(
            _joined(self._convs(), sizes, form.preactivation)
        )

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Returns the outputs [B, O]."""
        h_BCHW = run_blocks(self._chain, x_BCHW, self.recomputes)
        h_BC = _mean_over_positions(h_BCHW)
        if self.shift_of_readout is not None:
            h_BC = self.shift_of_readout(h_BC)
        return cast(Tensor, self.readout(h_BC))

    def watches(self) -> list[Watch]:
        """Watches each kernel, in forward order; within a layer the main path comes first."""
        named: Named = {weight: (name, weight) for name, weight in self.named_parameters()}
        watches: list[Watch] = []
        for number, layer in enumerate(self._convs(), start=1):
            watches.append(self._main_watch(layer, number, named))
            if layer.projection is not None:
                beside = layer.projection
                watches.append(Watch(*named[beside.weight], number, "conv", preact=beside))
            watches.extend(gate_watches(layer.skip, number, "conv", named))
        number, readout = len(self.layers) + 1, self.readout
        return [*watches, Watch(*named[readout.weight], number, "readout", preact=readout)]

    def branches(self) -> list[Branch]:
        """Returns the branches that are added to a path as they are."""
        if not self.is_carried:
            return []
        branches, weights = [], []
        for index, layer in enumerate(self._convs()):
            if index:
                weights.append(f"layers.{index}.conv.weight")
            if layer.skip is not None:
                scale = None
                if layer.norm is not None and layer.norm in layer.on_branch:
                    scale = f"layers.{index}.norm.weight"
                branches.append(Branch(tuple(weights), scale))
                weights = []
        return branches

    def stages(self) -> list[Stage]:
        """Returns the stem, each block and the rest; where nothing is added, each z to the next.

        A block hands on its path, and has the name and number of the convolution that ends it.
        """
        layers = list(self._convs())
        blocks = [call for call in self._chain if isinstance(call, ConvBlock)]
        if blocks:
            start = self._chain.index(blocks[0])
            stages = [_stage(0, chain(*self._chain[:start]))]
            ends = (index for index, layer in enumerate(layers) if layer.skip is not None)
            for index, block in zip(ends, blocks, strict=True):
                stages.append(_stage(index, block.joined, block.joined.forks))
            tail = self._chain[start + len(blocks) :]
        else:
            stages = [_stage(0, chain(*layers[0].convolves))]
            for index, (last, layer) in enumerate(pairwise(layers), start=1):
                stages.append(_stage(index, chain(*_makes_h(last), *layer.convolves)))
            tail = [*_makes_h(layers[-1])]
        shift = _present(self.shift_of_readout)
        readout = chain(*tail, _mean_over_positions, *shift, self.readout)
        return [*stages, Stage("readout.weight", len(layers) + 1, readout)]

    def _convs(self) -> Iterator[ConvLayer]:
        return cast(Iterator[ConvLayer], iter(self.layers))

    def _main_watch(self, layer: ConvLayer, number: int, named: Named) -> Watch:
        return Watch(
            *named[layer.conv.weight],
            number,
            "conv",
            preact=layer.makes_z,
            reads_z=layer.after_z[0] is layer.activation,
            activation=layer.activation,
            act=layer.after_z[-1],
            slope=slope(self.activation_name, layer.activation),
        )


def _joined(
    layers: Iterator[ConvLayer], sizes: Sequence[int], preactivation: bool
) -> Iterator[Callable[[Tensor], Tensor]]:
    """Yields the calls of a net: a first convolution, then blocks of `sizes`, if any."""
    rest = list(layers)
    if not sizes:
        yield from _plain(rest)
        return
    last, *rest = rest
    yield from (*last.convolves, *(() if preactivation else last.after_z))
    for size in sizes:
        inner, last_before, last, rest = rest[: size - 1], last, rest[size - 1], rest[size:]
        assert last.skip is not None
        yield ConvBlock(
            (*(last_before.after_z if preactivation else ()), *last_before.after_h),
            (*_plain(inner), *last.convolves, *last.on_branch),
            last.shortcut,
            last.skip,
            (*last.after_sum, *(() if preactivation else last.after_z)),
        )
    yield from (*(last.after_z if preactivation else ()), *last.after_h)


def _stage(index: int, run: Map, forks: tuple[Fork, ...] = ()) -> Stage:
    return Stage(f"layers.{index}.conv.weight", index + 1, run, forks)


def _makes_h(layer: ConvLayer) -> tuple[nn.Module, ...]:
    return (*layer.after_z, *layer.after_h)


def _mean_over_positions(h_BCHW: Tensor) -> Tensor:
    return h_BCHW.mean((2, 3))


def _present(*modules: nn.Module | None) -> tuple[nn.Module, ...]:
    return tuple(module for module in modules if module is not None)


def _plain(layers: Sequence[ConvLayer]) -> Iterator[nn.Module]:
    """Returns the modules of layers, each of which reads the output of the one before."""
    return (m for lay in layers for m in (*lay.convolves, *lay.after_z, *lay.after_h))
