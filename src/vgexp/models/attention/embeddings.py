"""What comes before the blocks: the input becomes a stream, and positions are added to it.

Axes: B examples, T positions, W units of the stream, F features of a step, V tokens, C channels,
R rows, S columns of an image, H heads, D units of a head, P pairs of units of a head.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import cast

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from vgexp.inits import INITS, Draw
from vgexp.seeds import allocate

BASE = 10_000.0
"""Wavelengths of positions go from 2 pi to this times 2 pi (Vaswani 2017, 3.5; Su 2021, 3.2)."""


class TokenTable(nn.Embedding):
    """Returns sqrt(W) times the token's row of the weight [V, W] (Vaswani 2017, 3.4).

    Rows drawn from N(0, 1/W) so give a stream of variance 1, and serve a tied read-out, too.
    """

    def forward(self, tokens_BT: Tensor) -> Tensor:
        """Returns [B, T, W]."""
        return F.embedding(tokens_BT, self.weight) * math.sqrt(self.embedding_dim)


class Sinusoids(nn.Module):
    """Adds sin(t / b^(2i/W)) to unit 2i and the cosine to unit 2i + 1, b = 10,000."""

    table_TW: Tensor

    def __init__(self, num_positions: int, width: int) -> None:
        super().__init__()
        angle_TP = _angles(num_positions, width, (width + 1) // 2)
        both_TW = torch.stack((angle_TP.sin(), angle_TP.cos()), 2).flatten(1)
        self.register_buffer("table_TW", both_TW[:, :width].clone(), persistent=False)

    def forward(self, x_BTW: Tensor) -> Tensor:
        """Returns [B, T, W]."""
        return x_BTW + self.table_TW.to(x_BTW.dtype)


class Learned(nn.Module):
    """Adds a trained vector for each position."""

    def __init__(self, num_positions: int, width: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.empty(num_positions, width))

    def forward(self, x_BTW: Tensor) -> Tensor:
        """Returns [B, T, W]."""
        return x_BTW + self.table


class Rotary(nn.Module):
    """Turns units 2i and 2i + 1 of a head, as a point of the plane, by t / b^(2i/D) (Su 2021).

    A query's product with a key then depends on the distance of their positions only.
    """

    cosine_TP: Tensor
    sine_TP: Tensor

    def __init__(self, num_positions: int, head_width: int) -> None:
        super().__init__()
        angle_TP = _angles(num_positions, head_width, head_width // 2)
        self.register_buffer("cosine_TP", angle_TP.cos(), persistent=False)
        self.register_buffer("sine_TP", angle_TP.sin(), persistent=False)

    def forward(self, x_BHTD: Tensor) -> Tensor:
        """[B, H, T, D], in x's dtype; turned in the tables', which are never half precision."""
        first, second = x_BHTD[..., ::2], x_BHTD[..., 1::2]
        cosine_TP, sine_TP = self.cosine_TP, self.sine_TP
        turned = (first * cosine_TP - second * sine_TP, first * sine_TP + second * cosine_TP)
        return torch.stack(turned, 4).flatten(3).type_as(x_BHTD)


POSITIONS: Mapping[str, Callable[[int, int], nn.Module] | None] = {
    "learned": Learned,
    "rotary": None,
    "sinusoidal": Sinusoids,
    "none": None,
}
"""Name -> what is added to the stream, given T and W; None: nothing."""


class Embedding(nn.Module, ABC):
    """What comes before the blocks; `read` holds its only weight matrix or kernel."""

    read: TokenTable | nn.Linear | nn.Conv2d

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Returns the first stream [B, T, W]."""


class SequenceEmbedding(Embedding):
    """Makes a stream [B, T, W] of tokens [B, T] or steps [B, T, F], and adds positions."""

    def __init__(self, read: TokenTable | nn.Linear, positions: nn.Module | None) -> None:
        super().__init__()
        self.read = read
        self.positions = positions

    def forward(self, x: Tensor) -> Tensor:
        """Returns [B, T, W]."""
        x_BTW: Tensor = self.read(x)
        return x_BTW if self.positions is None else cast(Tensor, self.positions(x_BTW))


class ImageEmbedding(Embedding):
    """Makes a stream of an image's patches, after a class token if any, and adds positions."""

    def __init__(
        self,
        channels: int,
        width: int,
        patch: int,
        positions: nn.Module,
        *,
        bias: bool,
        token: bool,
    ) -> None:
        super().__init__()
        on_meta = nn.Conv2d(channels, width, patch, stride=patch, bias=bias, device="meta")
        self.read = allocate(on_meta)
        if self.read.bias is not None:
            nn.init.zeros_(self.read.bias)
        self.class_token = nn.Parameter(torch.empty(1, 1, width)) if token else None
        self.positions = positions

    def forward(self, x_BCRS: Tensor) -> Tensor:
        """Returns [B, T, W]."""
        x_BTW: Tensor = self.read(x_BCRS).flatten(2).transpose(1, 2)
        if self.class_token is not None:
            first_B1W = self.class_token.to(x_BTW.dtype).expand(len(x_BTW), -1, -1)
            x_BTW = torch.cat((first_B1W, x_BTW), 1)
        return cast(Tensor, self.positions(x_BTW))


def token_table(num_tokens: int, width: int) -> TokenTable:
    """Makes a token embedding without drawing a random number; its weight is not set."""
    return allocate(TokenTable(num_tokens, width, device="meta"))


def draws(embedding: Embedding, init: str, prefix: str) -> dict[str, Draw]:
    """Maps parameters of the embedding that `model.init` does not draw to how they are drawn.

    A look-up reads one row, so its fan_in is 1: tokens, positions and the class token come out as
    N(0, gain^2), whatever the init. A patch's kernel meets each patch once: it is drawn as the
    matrix [W, C P P] that it is.
    """
    found: dict[str, Draw] = {}
    for name, module in embedding.named_modules(prefix=prefix):
        if isinstance(module, TokenTable):
            found[f"{name}.weight"] = _normal(1 / math.sqrt(module.embedding_dim))
        elif isinstance(module, Learned):
            found[f"{name}.table"] = _normal(1.0)
        elif isinstance(module, nn.Conv2d):
            found[f"{name}.weight"] = _as_matrix(INITS[init].draw)
        elif isinstance(module, ImageEmbedding) and module.class_token is not None:
            found[f"{name}.class_token"] = _normal(1.0)
    return found


def _normal(std: float) -> Draw:
    def draw(weight: Tensor, gain: float, generator: Generator) -> None:
        nn.init.normal_(weight, 0.0, gain * std, generator=generator)

    return draw


def _as_matrix(draw: Draw) -> Draw:
    return lambda weight, gain, generator: draw(weight.flatten(1), gain, generator)


def _angles(num_positions: int, width: int, num_pairs: int) -> Tensor:
    """Returns t / b^(2i/W) in float64, for position t and pair i."""
    position_T = torch.arange(num_positions, dtype=torch.float64)
    pair_P = torch.arange(num_pairs, dtype=torch.float64)
    return position_T[:, None] * BASE ** (-2 * pair_P / width)
