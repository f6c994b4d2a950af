"""The block of a transformer: attention and a perceptron, each with its skip and norm.

With f one of the two: `pre` is x + f(norm(x)) (Xiong 2020), `post` is norm(x + f(x))
(Vaswani 2017), and the skip says what takes the sum's place. Axes: B examples, T positions, W units
of the stream, H heads, D = W / H units of a head, U hidden units of the perceptron.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vgexp.activations import ACTIVATIONS, slope
from vgexp.config import AttentionConfig
from vgexp.errors import QuestionError
from vgexp.models.network import Named, linear
from vgexp.models.stages import Fork, Joined, Map, chain
from vgexp.norms import NORMS
from vgexp.skips import SKIPS, Combine, Skip
from vgexp.watch import Watch


class Attend(nn.Module):
    """softmax(q k^T / sqrt(D)) v of each head; causal: position t sees positions up to t.

    A module of its own, without parameters, so that a meter can see queries and keys.
    """

    def __init__(self, *, causal: bool) -> None:
        super().__init__()
        self.causal = causal

    def forward(self, q_BHTD: Tensor, k_BHTD: Tensor, v_BHTD: Tensor) -> Tensor:
        """Returns [B, H, T, D]."""
        if q_BHTD.is_meta:
            # Where memory is counted, PyTorch would take the kernel that keeps every weight [T, T].
            return cast(Tensor, _Flash.apply(q_BHTD, k_BHTD, v_BHTD))
        return F.scaled_dot_product_attention(q_BHTD, k_BHTD, v_BHTD, is_causal=self.causal)


class _Flash(torch.autograd.Function):
    """The shapes of attention without its numbers, and what PyTorch's flash kernel keeps for the
    backward pass: no weight [T, T], but the logarithm of each query position's sum of weights."""

    @staticmethod
    def forward(ctx: Any, q_BHTD: Tensor, k_BHTD: Tensor, v_BHTD: Tensor) -> Tensor:
        read_BHTD = torch.empty_like(q_BHTD)
        log_sum_BHT = q_BHTD.new_empty(q_BHTD.shape[:-1], dtype=torch.float32)
        ctx.save_for_backward(q_BHTD, k_BHTD, v_BHTD, read_BHTD, log_sum_BHT)
        return read_BHTD


class Attention(nn.Module):
    """Attention of several heads (Vaswani 2017, 3.2), with four weights [W, W]."""

    def __init__(self, config: AttentionConfig, turn: nn.Module | None, *, causal: bool) -> None:
        super().__init__()
        width, bias = config.width, config.bias
        self.heads = config.heads
        self.query = linear(width, width, bias)
        self.key = linear(width, width, bias)
        self.value = linear(width, width, bias)
        self.turn = turn
        self.attend = Attend(causal=causal)
        self.output = linear(width, width, bias)

    def forward(self, x_BTW: Tensor) -> Tensor:
        q_BHTD, k_BHTD = self._split(self.query(x_BTW)), self._split(self.key(x_BTW))
        v_BHTD = self._split(self.value(x_BTW))
        if self.turn is not None:
            q_BHTD, k_BHTD = self.turn(q_BHTD), self.turn(k_BHTD)
        read_BHTD: Tensor = self.attend(q_BHTD, k_BHTD, v_BHTD)
        return cast(Tensor, self.output(read_BHTD.transpose(1, 2).flatten(2)))

    def _split(self, x_BTW: Tensor) -> Tensor:
        """Returns [B, H, T, D]."""
        return x_BTW.view(*x_BTW.shape[:2], self.heads, -1).transpose(1, 2)


class Perceptron(nn.Module):
    """Computes W_2 phi(W_1 x + b_1) + b_2 at each position (Vaswani 2017, 3.3)."""

    def __init__(self, config: AttentionConfig) -> None:
        super().__init__()
        num_hidden = config.mlp_ratio * config.width
        self.hidden = linear(config.width, num_hidden, config.bias)
        self.activation = ACTIVATIONS[config.activation].build(config.negative_slope)
        self.output = linear(num_hidden, config.width, config.bias)

    def forward(self, x_BTW: Tensor) -> Tensor:
        return cast(Tensor, self.output(self.activation(self.hidden(x_BTW))))


class TransformerBlock(nn.Module):
    """Attention, then a perceptron, each of which adds to the stream x_BTW."""

    def __init__(self, config: AttentionConfig, turn: nn.Module | None, *, causal: bool) -> None:
        super().__init__()
        self.norms_first = config.norm_position == "pre"
        self.attention_norm = norm(config)
        self.attention = Attention(config, turn, causal=causal)
        self.attention_skip = _skip(config)
        self.mlp_norm = norm(config)
        self.mlp = Perceptron(config)
        self.mlp_skip = _skip(config)
        self.dropout = dropout(config)

    def forward(self, x_BTW: Tensor) -> Tensor:
        x_BTW = self._around(x_BTW, self.attention, self.attention_norm, self.attention_skip)
        return self._around(x_BTW, self.mlp, self.mlp_norm, self.mlp_skip)

    def _around(
        self, x_BTW: Tensor, work: nn.Module, normed: nn.Module | None, skip: nn.Module | None
    ) -> Tensor:
        reads_BTW = normed(x_BTW) if self.norms_first and normed is not None else x_BTW
        branch_BTW: Tensor = work(reads_BTW)
        if self.dropout is not None:
            branch_BTW = self.dropout(branch_BTW)
        if skip is not None:
            branch_BTW = skip(x_BTW, branch_BTW, reads_BTW)
        return branch_BTW if self.norms_first or normed is None else normed(branch_BTW)

    def forks(self) -> tuple[Fork, ...]:
        """Returns a fork for each of its two halves; none where nothing is added."""
        halves = (
            (self.attention, self.attention_norm, self.attention_skip),
            (self.mlp, self.mlp_norm, self.mlp_skip),
        )
        return tuple(fork for half in halves for fork in self._forks(*half))

    def _forks(
        self, work: nn.Module, normed: nn.Module | None, skip: Combine | None
    ) -> tuple[Fork, ...]:
        if skip is None:
            return ()
        norm = chain() if normed is None else chain(normed)
        branch: Map = work if self.dropout is None else chain(work, self.dropout)
        before, after = (norm, chain()) if self.norms_first else (chain(), norm)
        return Joined(before, branch, chain(), skip, after).forks


def block_watches(
    block: TransformerBlock, name: str, layer: int, activation: str, named: Named
) -> Iterator[Watch]:
    """Watches the stream that a block hands on, then its six weights, as one layer."""
    yield Watch(name, None, layer, "stream", preact=block)
    attention, mlp = block.attention, block.mlp
    for part in (attention.query, attention.key, attention.value, attention.output):
        yield Watch(*named[part.weight], layer, "attention", preact=part)
    yield Watch(
        *named[mlp.hidden.weight],
        layer,
        "linear",
        preact=mlp.hidden,
        reads_z=True,
        activation=mlp.activation,
        act=mlp.activation,
        slope=slope(activation, mlp.activation),
    )
    yield Watch(*named[mlp.output.weight], layer, "linear", preact=mlp.output)


def norm(config: AttentionConfig) -> nn.Module | None:
    """Makes the normalisation of [B, T, W] over its units.

    Raises:
        QuestionError: one that mixes examples or positions.
    """
    make = NORMS[config.norm].of_units
    if make is None:
        allowed = [name for name in NORMS if NORMS[name].of_units is not None]
        raise _unsuited(config, "norm", allowed, "it would mix examples or positions")
    return make(config.width)


def dropout(config: AttentionConfig) -> nn.Module | None:
    """Makes the dropout of branches and of the embedded input (Vaswani 2017, 5.4)."""
    return nn.Dropout(config.dropout) if config.dropout else None


def _skip(config: AttentionConfig) -> Combine | None:
    """Makes the skip that adds one of 2 L branches to the stream."""
    skip = SKIPS[config.skip]
    if not _fits_blocks(skip):
        allowed = [name for name in SKIPS if _fits_blocks(SKIPS[name])]
        raise _unsuited(config, "skip", allowed, "a block adds its branches to one stream")
    return None if skip.combine is None else skip.combine(config.width, 2 * config.depth)


def _fits_blocks(skip: Skip) -> bool:
    return skip.keeps_path or not skip.joins


def _unsuited(
    config: AttentionConfig, key: str, allowed: Sequence[str], reason: str
) -> QuestionError:
    return QuestionError(
        f"model.{key} is {getattr(config, key)!r} in a block of attention\n"
        f"reason: {reason}\nallowed: {', '.join(allowed)}\n"
        f"nearest: {getattr(AttentionConfig(), key)}"
    )
