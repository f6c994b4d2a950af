"""Recurrent networks once more: a loop over layers and times, each gate's equation written out.

Each state is a tensor of its own, so that autograd gives the derivative with respect to it: h_t as
it is read above and by the next step, c_t as the next step reads it.

Axes: B examples, T steps in time, I inputs, H units.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from reference import NORMALISED, PHI
from torch import Tensor

from vgexp.config import GruConfig, LstmConfig, RecurrentConfig, RnnConfig
from vgexp.inits import initialise
from vgexp.models import Recurrent, build
from vgexp.seeds import generator
from vgexp.tasks import Task

Config = RnnConfig | LstmConfig | GruConfig
BATCH, TIMES, INPUTS, WIDTH, OUTPUTS = 3, 7, 4, 5, 2
GATES: Mapping[type, Sequence[str]] = {
    RnnConfig: ["hidden"],
    LstmConfig: ["input", "forget", "cell", "output"],
    GruConfig: ["reset", "update", "new"],
}


def sequences(per_position: bool = False, times: int = TIMES) -> Task:
    """The task of naming the class of a sequence, or of each of its positions."""
    return Task("sequence", (times, INPUTS), OUTPUTS, per_position=per_position)


def drawn(config: Config, task: Task | None = None, seed: int = 0) -> Recurrent:
    """A network in float64, with noise on all that starts as 0 or 1."""
    task = task or sequences()
    model = build(config, task, torch.float64)
    assert isinstance(model, Recurrent)
    initialise(model, config, generator(seed, "init"), torch.zeros(()))
    noise = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim < 2:
                parameter += 0.3 * torch.randn(parameter.shape, generator=noise).double()
    return model


def inputs(task: Task | None = None, batch: int = BATCH, seed: int = 1) -> Tensor:
    """A batch of a task's inputs."""
    task, source = task or sequences(), torch.Generator().manual_seed(seed)
    if task.kind == "tokens":
        return torch.randint(task.num_tokens, (batch, *task.shape), generator=source)
    return torch.randn(batch, *task.shape, generator=source, dtype=torch.float64)


@dataclass
class Run:
    """What a loop over layers and times computed."""

    outputs: Tensor
    sequences: list[Tensor]
    """What each layer hands up [B, T, H]."""
    states: dict[tuple[int, str, int], Tensor]
    """(layer from 0, h or c, t) -> the state."""
    gates: dict[tuple[int, str, int], Tensor]
    """(layer, gate, t) -> u."""


def looped(model: Recurrent, config: Config, x_BTI: Tensor) -> Run:
    """The network's equations, one step and one gate at a time."""
    p = dict(model.named_parameters())
    done = Run(torch.empty(0), [], {}, {})
    for layer in range(config.depth):
        own = _Layer(config, p, layer)
        h = x_BTI.new_zeros(len(x_BTI), config.width)
        c, handed = h, []
        for t in range(x_BTI.shape[1]):
            if config.truncation and t and t % config.truncation == 0:
                h, c = h.detach(), c.detach()
            step: Callable[..., tuple[Tensor, Tensor, Mapping[str, Tensor]]] = {
                RnnConfig: own.rnn,
                LstmConfig: own.lstm,
                GruConfig: own.gru,
            }[type(config)]
            h, c, gates = step(x_BTI[:, t], h, c)
            c = c * 1
            done.states[layer, "h", t] = h
            if isinstance(config, LstmConfig):
                done.states[layer, "c", t] = c
            done.gates.update({(layer, gate, t): u for gate, u in gates.items()})
            handed.append(h)
        h_BTH = torch.stack(handed, 1)
        x_BTI = h_BTH + x_BTI if config.skip == "residual" and layer else h_BTH * 1
        done.sequences.append(x_BTI)
    read = x_BTI if model.per_position else x_BTI[:, -1]
    done.outputs = read @ p["readout.weight"].T
    if config.bias:
        done.outputs = done.outputs + p["readout.bias"]
    return done


class _Layer:
    def __init__(self, config: Config, parameters: Mapping[str, Tensor], layer: int) -> None:
        self.config = config
        self.own = {
            name.removeprefix(f"layers.{layer}.cell."): value
            for name, value in parameters.items()
            if name.startswith(f"layers.{layer}.cell.")
        }
        self.blocks = GATES[type(config)]

    def part(self, name: str, gate: str) -> Tensor:
        start = list(self.blocks).index(gate) * self.config.width
        return self.own[name][start : start + self.config.width]

    def read(self, which: str, gate: str, x: Tensor) -> Tensor:
        """One gate's W x, normalised with all gates together, plus its bias."""
        z = x @ self.part(f"weight_{which}_l0", gate).T
        if f"norms.{which}.weight" in self.own:
            whole = x @ self.own[f"weight_{which}_l0"].T
            z = self.normed(which, whole).split(self.config.width, 1)[list(self.blocks).index(gate)]
        return z + self.part(f"bias_{which}_l0", gate) if self.config.bias else z

    def normed(self, place: str, z: Tensor) -> Tensor:
        if f"norms.{place}.weight" not in self.own:
            return z
        z = NORMALISED[self.config.norm](z, 1) * self.own[f"norms.{place}.weight"]
        shift = self.own.get(f"norms.{place}.bias")
        return z if shift is None else z + shift

    def rnn(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Any]:
        assert isinstance(self.config, RnnConfig)
        u = self.normed("sum", self.read("ih", "hidden", x) + self.read("hh", "hidden", h))
        slope: Any = self.own.get("activation.weight", self.config.negative_slope)
        if slope is None and self.config.activation == "leaky_relu":
            slope = 0.01
        return PHI[self.config.activation](u, slope), c, {"hidden": u}

    def lstm(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Any]:
        u = {gate: self.read("ih", gate, x) + self.read("hh", gate, h) for gate in self.blocks}
        i, f, o = (1 / (1 + torch.exp(-u[gate])) for gate in ("input", "forget", "output"))
        c = f * c + i * torch.tanh(u["cell"])
        return o * torch.tanh(self.normed("c", c)), c, u

    def gru(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Any]:
        u = {g: self.read("ih", g, x) + self.read("hh", g, h) for g in ("reset", "update")}
        r, z = (1 / (1 + torch.exp(-u[gate])) for gate in ("reset", "update"))
        u["new"] = self.read("ih", "new", x) + r * self.read("hh", "new", h)
        return (1 - z) * torch.tanh(u["new"]) + z * h, c, u


def rms(x: Tensor) -> float:
    """Root mean square, in numpy."""
    return float(np.sqrt(np.mean(np.square(x.detach().numpy().astype(np.float64)))))


__all__ = [
    "BATCH",
    "GATES",
    "INPUTS",
    "OUTPUTS",
    "TIMES",
    "WIDTH",
    "Config",
    "RecurrentConfig",
    "Run",
    "drawn",
    "inputs",
    "looped",
    "rms",
    "sequences",
]
