"""Both families of attention once more, in plain operations: each head by itself, each weight of
attention from a softmax that is written out, patches cut by hand. Any dtype.

Axes: B examples, T query and S key positions, W units of the stream, D units of a head.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from reference import EPS, PHI, Site
from torch import Tensor

from vgexp.config import AttentionConfig, TransformerConfig, VitConfig
from vgexp.tasks import Task


@dataclass
class Seen:
    """What one micro-batch shows."""

    sites: list[Site] = field(default_factory=list)
    """Of `layers.csv`, in the order of its rows."""
    logits: list[list[Tensor]] = field(default_factory=list)
    """[B, T, S] of each block and head, -inf where a query may not look."""
    output: Tensor = field(default_factory=lambda: torch.zeros(()))


@dataclass
class Equations:
    """The forward pass of a configuration with the parameters `p`."""

    config: AttentionConfig
    task: Task
    p: Mapping[str, Tensor]

    def __call__(self, x: Tensor) -> Seen:
        config, seen = self.config, Seen()
        kind = "conv" if isinstance(config, VitConfig) else "linear"
        stream = self.embedded(x)
        seen.sites.append(Site("embedding.read.weight", 1, kind, stream))
        for block in range(config.depth):
            stream = self.block(seen, block, stream)
        if config.norm_position == "pre":
            stream = self.norm("norm", stream)
        if isinstance(config, VitConfig):
            reads = stream[:, 0] if config.pool == "class" else stream.sum(1) / stream.shape[1]
        else:
            reads = stream if self.task.per_position else stream[:, -1]
        tied = isinstance(config, TransformerConfig) and config.tied
        weight = self.p["embedding.read.weight" if tied else "readout.weight"]
        seen.output = reads @ weight.T + self.p.get("readout.bias", 0.0)
        seen.sites.append(Site("readout.weight", config.depth + 2, "readout", seen.output))
        return seen

    # ------------------------------------------------------------ before the blocks

    def embedded(self, x: Tensor) -> Tensor:
        weight, bias = self.p["embedding.read.weight"], self.p.get("embedding.read.bias", 0.0)
        if isinstance(self.config, VitConfig):
            stream = torch.stack([v.flatten(1) @ weight.flatten(1).T for v in self.patches(x)], 1)
            stream = stream + bias
            if self.config.pool == "class":
                token = self.p["embedding.class_token"].expand(len(x), 1, -1)
                stream = torch.cat([token, stream], 1)
            return stream + self.p["embedding.positions.table"]
        assert isinstance(self.config, TransformerConfig)
        if self.task.kind == "tokens":
            stream = weight[x] * math.sqrt(self.config.width)
        else:
            stream = x @ weight.T + bias
        if self.config.positions == "learned":
            stream = stream + self.p["embedding.positions.table"]
        if self.config.positions == "sinusoidal":
            stream = stream + sinusoids(x.shape[1], self.config.width).to(stream.dtype)
        return stream

    def patches(self, x: Tensor) -> list[Tensor]:
        assert isinstance(self.config, VitConfig)
        size = self.config.patch
        rows, columns = range(0, x.shape[2], size), range(0, x.shape[3], size)
        return [x[:, :, r : r + size, c : c + size] for r in rows for c in columns]

    # ------------------------------------------------------------ a block

    def block(self, seen: Seen, number: int, stream: Tensor) -> Tensor:
        name, layer = f"blocks.{number}", number + 2
        sites: list[Site] = []
        reads, finish = self.around(f"{name}.attention", stream)
        stream = finish(self.attention(seen, sites, name, layer, reads))
        reads, finish = self.around(f"{name}.mlp", stream)
        hidden = self.affine(f"{name}.mlp.hidden", reads)
        h = PHI[self.config.activation](hidden, 0.01)
        out = self.affine(f"{name}.mlp.output", h)
        weight = f"{name}.mlp.hidden.weight"
        phi = self.config.activation
        sites.append(Site(weight, layer, "linear", hidden, hidden, h, phi, 0.01))
        sites.append(Site(f"{name}.mlp.output.weight", layer, "linear", out))
        stream = finish(out)
        seen.sites += [Site(name, layer, "stream", stream), *sites]
        return stream

    def around(self, name: str, stream: Tensor):  # type: ignore[no-untyped-def]
        config, pre = self.config, self.config.norm_position == "pre"

        def finish(branch: Tensor) -> Tensor:
            match config.skip:
                case "residual":
                    branch = stream + branch
                case "scaled_residual":
                    branch = stream + branch / math.sqrt(2 * config.depth)
                case "rezero":
                    branch = stream + self.p[f"{name}_skip.alpha"] * branch
            return branch if pre else self.norm(f"{name}_norm", branch)

        return self.norm(f"{name}_norm", stream) if pre else stream, finish

    def attention(
        self, seen: Seen, sites: list[Site], name: str, layer: int, reads: Tensor
    ) -> Tensor:
        parts = {}
        for part in ("query", "key", "value"):
            parts[part] = self.affine(f"{name}.attention.{part}", reads)
            sites.append(Site(f"{name}.attention.{part}.weight", layer, "attention", parts[part]))
        size = self.config.width // self.config.heads
        read, logits = [], []
        for start in range(0, self.config.width, size):
            q, k, v = (parts[part][..., start : start + size] for part in parts)
            if isinstance(self.config, TransformerConfig) and self.config.positions == "rotary":
                q, k = rotated(q), rotated(k)
            scores = q @ k.transpose(1, 2) / math.sqrt(size)
            if isinstance(self.config, TransformerConfig):
                later = torch.arange(scores.shape[1])[:, None] < torch.arange(scores.shape[2])
                scores = torch.where(later, -math.inf, scores)
            raised = torch.exp(scores - scores.detach().amax(2, keepdim=True))
            read.append(raised / raised.sum(2, keepdim=True) @ v)
            logits.append(scores)
        seen.logits.append(logits)
        out = self.affine(f"{name}.attention.output", torch.cat(read, 2))
        sites.append(Site(f"{name}.attention.output.weight", layer, "attention", out))
        return out

    def affine(self, name: str, v: Tensor) -> Tensor:
        return v @ self.p[f"{name}.weight"].T + self.p.get(f"{name}.bias", 0.0)

    def norm(self, name: str, v: Tensor) -> Tensor:
        if self.config.norm == "none":
            return v
        if self.config.norm == "layer":
            v = v - v.sum(2, keepdim=True) / v.shape[2]
        v = v / (v.square().sum(2, keepdim=True) / v.shape[2] + EPS).sqrt()
        return v * self.p[f"{name}.weight"] + self.p.get(f"{name}.bias", 0.0)


def sinusoids(num_positions: int, width: int) -> Tensor:
    """PE(t, 2i) = sin(t / 10000^(2i/W)), PE(t, 2i + 1) = cos of the same (Vaswani 2017, 3.5)."""
    rows = []
    for t in range(num_positions):
        angles = [t / 10000 ** ((unit - unit % 2) / width) for unit in range(width)]
        rows.append([math.cos(a) if i % 2 else math.sin(a) for i, a in enumerate(angles)])
    return torch.tensor(rows, dtype=torch.float64)


def rotated(x: Tensor) -> Tensor:
    """(x_2i + j x_2i+1) e^(j t theta_i), theta_i = 10000^(-2i/D) (Su 2021, eq. 34)."""
    points = torch.complex(x[..., ::2], x[..., 1::2])
    pairs = torch.arange(points.shape[2], dtype=torch.float64)
    t = torch.arange(x.shape[1], dtype=torch.float64)
    turned = points * torch.exp(1j * t[:, None] * 10000 ** (-2 * pairs / x.shape[2]))
    return torch.view_as_real(turned).flatten(2)
