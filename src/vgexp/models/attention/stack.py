"""The network of both families: an embedding, L blocks around a stream, a read-out.

The embedding is layer 1, block k layer k + 1, the read-out layer L + 2. Axes: B examples,
T positions, W units of the stream, C outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import cast

from torch import Tensor, nn

from vgexp.config import AttentionConfig
from vgexp.inits import Branch, Draw
from vgexp.models.attention.blocks import TransformerBlock, block_watches, dropout, norm
from vgexp.models.attention.embeddings import Embedding, draws
from vgexp.models.attention.meter import AttentionMeter, MeteredHeads
from vgexp.models.network import Named, Network, linear, run_blocks
from vgexp.models.stages import Stage, chain
from vgexp.skips import SKIPS
from vgexp.watch import Meter, Watch

Pick = Callable[[Tensor], Tensor]
"""Picks what the read-out reads from the stream [B, T, W]."""


def every(x_BTW: Tensor) -> Tensor:
    """Picks every position: an answer at each."""
    return x_BTW


def last(x_BTW: Tensor) -> Tensor:
    """Picks the last position, which has seen all others in a causal stack."""
    return x_BTW[:, -1]


def first(x_BTW: Tensor) -> Tensor:
    """Picks the first position, the class token."""
    return x_BTW[:, 0]


def mean(x_BTW: Tensor) -> Tensor:
    """Returns the mean over positions."""
    return x_BTW.mean(1)


class Stack(Network):
    """An embedding, blocks, a last norm if blocks norm first, a read-out; weights are not drawn."""

    def __init__(
        self,
        config: AttentionConfig,
        embedding: Embedding,
        num_outputs: int,
        pick: Pick,
        turn: nn.Module | None = None,
        *,
        causal: bool,
    ) -> None:
        super().__init__()
        self._config = config
        self._pick = pick
        self.embedding = embedding
        self.dropout = dropout(config)
        blocks = [TransformerBlock(config, turn, causal=causal) for _ in range(config.depth)]
        self.blocks = nn.ModuleList(blocks)
        self.norm = norm(config) if config.norm_position == "pre" else None
        self.readout = linear(config.width, num_outputs, config.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Returns the outputs: [B, T, C] at each position, or [B, C]."""
        x_BTW: Tensor = self.embedding(x)
        if self.dropout is not None:
            x_BTW = self.dropout(x_BTW)
        x_BTW = run_blocks(list(self.blocks), x_BTW, self.recomputes)
        if self.norm is not None:
            x_BTW = self.norm(x_BTW)
        return cast(Tensor, self.readout(self._pick(x_BTW)))

    def watches(self) -> list[Watch]:
        """Watches the embedding, the stream and the weights of each block, and the read-out.

        z of the embedding is the first stream: positions added, before dropout. A tied read-out
        has a row of z alone: its weight's row is the embedding's, whose gradient is the sum of
        both uses.
        """
        named: Named = {weight: (name, weight) for name, weight in self.named_parameters()}
        read, readout = self.embedding.read, self.readout
        kind = "conv" if isinstance(read, nn.Conv2d) else "linear"
        watches = [Watch(*named[read.weight], 1, kind, preact=self.embedding)]
        for number, block in enumerate(self.blocks):
            phi, name = self._config.activation, f"blocks.{number}"
            watches += block_watches(cast(TransformerBlock, block), name, number + 2, phi, named)
        name, weight = named[readout.weight]
        if readout.weight is read.weight:
            watch = Watch("readout.weight", None, len(self.blocks) + 2, "readout", preact=readout)
        else:
            watch = Watch(name, weight, len(self.blocks) + 2, "readout", preact=readout)
        return [*watches, watch]

    def meters(self) -> list[Meter]:
        """Returns the meter of `attention.csv`."""
        sites = []
        for number, block in enumerate(cast(list[TransformerBlock], self.blocks)):
            sites.append(
                MeteredHeads(f"blocks.{number}.attention", number + 2, block.attention.attend)
            )
        return [AttentionMeter(sites)]

    def branches(self) -> list[Branch]:
        """Returns both halves of each block, if the stream passes beside them.

        The weights of a half are those that its output is proportional to, but for phi: of
        attention the value's and the output's.
        """
        if not SKIPS[self._config.skip].carries_z:
            return []
        halves = [
            (f"blocks.{number}.{first}.weight", f"blocks.{number}.{second}.weight")
            for number in range(len(self.blocks))
            for first, second in (
                ("attention.value", "attention.output"),
                ("mlp.hidden", "mlp.output"),
            )
        ]
        return [Branch(weights, None) for weights in halves]

    def stages(self) -> list[Stage]:
        """Returns the embedding, each block from stream to stream, and the rest."""
        weight = self.embedding.read.weight
        (name,) = (name for name, parameter in self.named_parameters() if parameter is weight)
        stages = [Stage(name, 1, chain(self.embedding))]
        for number, block in enumerate(cast(list[TransformerBlock], self.blocks)):
            stages.append(Stage(f"blocks.{number}", number + 2, block, block.forks()))
        norms = () if self.norm is None else (self.norm,)
        readout = chain(*norms, self._pick, self.readout)
        return [*stages, Stage("readout.weight", len(self.blocks) + 2, readout)]

    def special_draws(self) -> Mapping[str, Draw]:
        """Returns the draws of the embedding's parameters."""
        return draws(self.embedding, self._config.init, "embedding")
