"""The recurrent cells: torch's fused ones, and the same equations unrolled for what those lack.

With a_t = W_ih x_t + b_ih and r_t = W_hh h_{t-1} + b_hh, gates stacked in torch's order:

- rnn: h_t = phi(a_t + r_t);
- lstm: i, f, o = sigmoid of their blocks of a_t + r_t, g = tanh of its;
  c_t = f c_{t-1} + i g, h_t = o tanh(c_t);
- gru: r, z = sigmoid of their blocks of a_t + r_t, n = tanh(a_n + r r_n);
  h_t = (1 - z) n + z h_{t-1}.

A normalisation (Ba 2016) stands where it does in the paper: of a plain network that of a_t + r_t
(eq. 4); of an LSTM those of W_ih x_t and W_hh h_{t-1} before their biases, over all gates' units
together, and of the c_t that h_t reads (eq. 20-22); of a GRU the first two likewise.

Axes: B examples, S steps in time, I inputs, H units, G numbers of all gates' blocks, N pairs of an
example and a time.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vgexp.activations import ACTIVATIONS
from vgexp.config import GruConfig, LstmConfig, RecurrentConfig, RnnConfig
from vgexp.models.recurrence import fused
from vgexp.norms import NORMS
from vgexp.seeds import allocate

States = tuple[Tensor, ...]
"""What a cell hands on to its next call: h, for an LSTM h and c; empty: zeros."""


class Equations(ABC):
    """A family's equations, as functions of a cell's parameters."""

    gates: ClassVar[tuple[str, ...]]
    """Names of the blocks of both weights, in torch's order."""
    states: ClassVar[tuple[str, ...]] = ("h",)
    """Names of the states that a cell hands on."""
    norms: ClassVar[Mapping[str, int]]
    """Place of a normalisation -> the number of blocks of H units that it normalises."""

    def __init__(self, config: RecurrentConfig) -> None:
        self.config = config

    @property
    def bias_starts(self) -> Mapping[str, float]:
        """Gate -> the number at which its biases start; the others start at 0."""
        return {}

    @property
    def is_fused(self) -> bool:
        """Whether torch has the cell."""
        return NORMS[self.config.norm].is_identity

    @abstractmethod
    def fused(self, num_inputs: int) -> nn.RNNBase:
        """Makes torch's cell, on the meta device."""

    @abstractmethod
    def activations(self, cell: nn.Module) -> tuple[nn.Module, ...]:
        """Returns phi of each gate."""

    @abstractmethod
    def gate_inputs(self, cell: nn.Module, a: Tensor, r: Tensor) -> Sequence[Tensor]:
        """Returns u of each gate: what its phi reads."""

    @abstractmethod
    def advance(self, cell: nn.Module, inputs: Sequence[Tensor], states: States) -> States:
        """Returns the states after a step, from the gates' u and the states before."""


class RnnEquations(Equations):
    """h_t = phi(a_t + r_t)."""

    gates = ("hidden",)
    norms: ClassVar[Mapping[str, int]] = {"sum": 1}
    config: RnnConfig

    @property
    def is_fused(self) -> bool:
        return super().is_fused and self._nonlinearity is not None

    @property
    def _nonlinearity(self) -> str | None:
        return ACTIVATIONS[self.config.activation].rnn_nonlinearity

    def fused(self, num_inputs: int) -> nn.RNNBase:
        assert self._nonlinearity is not None
        return nn.RNN(
            num_inputs,
            self.config.width,
            nonlinearity=self._nonlinearity,
            bias=self.config.bias,
            batch_first=True,
            device="meta",
        )

    def activations(self, cell: nn.Module) -> tuple[nn.Module, ...]:
        if isinstance(cell, Unrolled):
            return (cell.activation,)
        return (ACTIVATIONS[self.config.activation].build(None),)

    def gate_inputs(self, cell: nn.Module, a: Tensor, r: Tensor) -> Sequence[Tensor]:
        return (_normed(cell, "sum", a + r),)

    def advance(self, cell: nn.Module, inputs: Sequence[Tensor], states: States) -> States:  # noqa: ARG002
        return (cast(nn.Module, cell.activation)(inputs[0]),)


class LstmEquations(Equations):
    """c_t = f c_{t-1} + i g, h_t = o tanh(c_t)."""

    gates = ("input", "forget", "cell", "output")
    states = ("h", "c")
    norms: ClassVar[Mapping[str, int]] = {"ih": 4, "hh": 4, "c": 1}
    config: LstmConfig

    @property
    def bias_starts(self) -> Mapping[str, float]:
        return {"forget": self.config.forget_bias}

    def fused(self, num_inputs: int) -> nn.RNNBase:
        width, bias = self.config.width, self.config.bias
        return nn.LSTM(num_inputs, width, bias=bias, batch_first=True, device="meta")

    def activations(self, cell: nn.Module) -> tuple[nn.Module, ...]:  # noqa: ARG002
        return nn.Sigmoid(), nn.Sigmoid(), nn.Tanh(), nn.Sigmoid()

    def gate_inputs(self, cell: nn.Module, a: Tensor, r: Tensor) -> Sequence[Tensor]:  # noqa: ARG002
        return (a + r).chunk(4, -1)

    def advance(self, cell: nn.Module, inputs: Sequence[Tensor], states: States) -> States:
        i, f, g, o = inputs
        c = f.sigmoid() * states[1] + i.sigmoid() * g.tanh()
        return o.sigmoid() * _normed(cell, "c", c).tanh(), c


class GruEquations(Equations):
    """h_t = (1 - z) n + z h_{t-1}."""

    gates = ("reset", "update", "new")
    norms: ClassVar[Mapping[str, int]] = {"ih": 3, "hh": 3}

    def fused(self, num_inputs: int) -> nn.RNNBase:
        width, bias = self.config.width, self.config.bias
        return nn.GRU(num_inputs, width, bias=bias, batch_first=True, device="meta")

    def activations(self, cell: nn.Module) -> tuple[nn.Module, ...]:  # noqa: ARG002
        return nn.Sigmoid(), nn.Sigmoid(), nn.Tanh()

    def gate_inputs(self, cell: nn.Module, a: Tensor, r: Tensor) -> Sequence[Tensor]:  # noqa: ARG002
        (a_r, a_z, a_n), (r_r, r_z, r_n) = a.chunk(3, -1), r.chunk(3, -1)
        reset = a_r + r_r
        return reset, a_z + r_z, a_n + reset.sigmoid() * r_n

    def advance(self, cell: nn.Module, inputs: Sequence[Tensor], states: States) -> States:  # noqa: ARG002
        _, z, n = inputs[0], inputs[1].sigmoid(), inputs[2].tanh()
        return (n + z * (states[0] - n),)


EQUATIONS: dict[type[RecurrentConfig], type[Equations]] = {
    RnnConfig: RnnEquations,
    LstmConfig: LstmEquations,
    GruConfig: GruEquations,
}


class Unrolled(nn.Module):
    """A cell that runs step by step, with parameters, arguments and results as torch's."""

    def __init__(self, equations: Equations, num_inputs: int) -> None:
        super().__init__()
        config, width = equations.config, equations.config.width
        total = len(equations.gates) * width
        self.equations = equations
        self.weight_ih_l0 = nn.Parameter(torch.empty(total, num_inputs))
        self.weight_hh_l0 = nn.Parameter(torch.empty(total, width))
        self.bias_ih_l0 = nn.Parameter(torch.zeros(total)) if config.bias else None
        self.bias_hh_l0 = nn.Parameter(torch.zeros(total)) if config.bias else None
        self.norms = nn.ModuleDict(_norms(equations))
        if isinstance(config, RnnConfig):
            self.activation = ACTIVATIONS[config.activation].build(config.negative_slope)

    def forward(self, x_BSI: Tensor, hx: States | Tensor | None = None) -> tuple[Tensor, States]:
        """Returns h of each step [B, S, H], and the last states [1, B, H].

        The last h is another tensor than the one in the sequence, as torch's is, so that what
        comes back along time and what comes from above are told apart.
        """
        states = self._first_states(x_BSI, hx)
        h_S = []
        for a_BG in project(self, "ih", x_BSI).unbind(1):
            r_BG = project(self, "hh", states[0])
            inputs = self.equations.gate_inputs(self, a_BG, r_BG)
            states = self.equations.advance(self, inputs, states)
            h_S.append(states[0])
        return torch.stack(h_S, 1), tuple(s.unsqueeze(0) for s in states)

    def _first_states(self, x_BSI: Tensor, hx: States | Tensor | None) -> States:
        if hx is None:
            zeros = x_BSI.new_zeros(len(x_BSI), self.weight_hh_l0.shape[1])
            return (zeros,) * len(self.equations.states)
        return tuple(s.squeeze(0) for s in ((hx,) if isinstance(hx, Tensor) else hx))


def cell_of(equations: Equations, num_inputs: int) -> nn.Module:
    """Makes the cell of a layer, torch's if it has one; its parameters are not drawn yet."""
    if not equations.is_fused:
        return Unrolled(equations, num_inputs)
    return allocate(equations.fused(num_inputs))


def run_cell(cell: nn.Module, x_BSI: Tensor, states: States) -> tuple[Tensor, States]:
    """Runs a cell from given states: h of each step [B, S, H], and the last states [1, B, H]."""
    hx = None if not states else states[0] if len(states) == 1 else states
    h_BSH, last = fused.call(cell, x_BSI, hx)
    return h_BSH, (last,) if isinstance(last, Tensor) else last


def project(cell: nn.Module, which: str, x: Tensor) -> Tensor:
    """Computes a of the inputs (`ih`) or r of the states h (`hh`): [..., G]."""
    weight = cast(Tensor, getattr(cell, f"weight_{which}_l0"))
    bias = cast("Tensor | None", getattr(cell, f"bias_{which}_l0", None))
    if not isinstance(cell, Unrolled) or which not in cell.norms:
        return F.linear(x, weight, bias)
    z = _normed(cell, which, F.linear(x, weight))
    return z if bias is None else z + bias


def _norms(equations: Equations) -> dict[str, nn.Module]:
    make, width = NORMS[equations.config.norm].of_units, equations.config.width
    assert make is not None
    made = {place: make(blocks * width) for place, blocks in equations.norms.items()}
    return {place: norm for place, norm in made.items() if norm is not None}


def _normed(cell: nn.Module, place: str, x: Tensor) -> Tensor:
    if not isinstance(cell, Unrolled) or place not in cell.norms:
        return x
    norm = cell.norms[place]
    # Under autocast x may be narrower than the norm's own scale, which torch's rms norm warns of.
    return cast(Tensor, norm(x.to(cast(Tensor, norm.weight).dtype)))
