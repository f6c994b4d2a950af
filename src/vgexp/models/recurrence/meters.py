"""What is measured along time: `time.csv`, of the states, and `recurrence.csv`, of the gates.

Axes: B examples, T steps in time, P watched times, H units, I inputs, G gates, M micro-batches.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vgexp import metrics
from vgexp.activations import slope_of
from vgexp.models.recurrence.cells import Equations, States, projected
from vgexp.models.recurrence.draws import spectral_radii
from vgexp.records import Floats, Rows
from vgexp.watch import SATURATED_SHARE

Watched = Mapping[int, States]
"""t -> the states after that step, [1, B, H] each."""


class Site(nn.Module):
    """Where meters hook a layer: called once a pass, it does nothing."""

    def forward(self, x_BTI: Tensor, h_BTH: Tensor, watched: Watched) -> None:
        """Takes what the layer reads, the states that it makes, and those at boundaries."""


Seen = TypeVar("Seen")
"""What a meter keeps of one pass through one layer."""


class _SiteMeter(ABC, Generic[Seen]):
    """Keeps what passes by at the sites of a model's layers until the step ends."""

    def __init__(self, sites: Mapping[str, Site]) -> None:
        self._sites = sites
        self._seen: dict[str, list[tuple[int, Seen]]] = {name: [] for name in sites}
        self._handles: list[Any] = []

    def arm(self) -> None:
        if not self._handles:
            for name, site in self._sites.items():
                hook = partial(self._on_call, name)
                self._handles.append(site.register_forward_hook(hook))

    def disarm(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._forget()

    def _on_call(self, name: str, _: nn.Module, args: tuple[Any, ...], _output: None) -> None:
        if not torch.is_grad_enabled():
            return
        x_BTI, h_BTH, watched = args
        # Whatever the forward pass is made in, what is measured of it is in the weights' dtype.
        with torch.no_grad(), torch.autocast(x_BTI.device.type, enabled=False):
            self._seen[name].append((len(x_BTI), self._looked_at(name, x_BTI, h_BTH, watched)))

    @abstractmethod
    def _looked_at(self, name: str, x_BTI: Tensor, h_BTH: Tensor, watched: Watched) -> Seen:
        """What is kept of a pass through a layer."""

    def _of_update(self, num_examples: int) -> dict[str, list[Seen]]:
        """What is kept of the update's own passes, which are the last; then forgets all.

        A pass that was made again, to be looked at, stands twice.
        """
        found: dict[str, list[Seen]] = {}
        for name, passes in self._seen.items():
            missing = num_examples
            for examples, seen in reversed(passes):
                if missing > 0:
                    found.setdefault(name, []).insert(0, seen)
                missing -= examples
        self._forget()
        return found

    def _forget(self) -> None:
        for passes in self._seen.values():
            passes.clear()


# ---------------------------------------------------------------- time.csv


@dataclass
class _Course:
    """One pass through a layer at the watched times: its states, and what comes back to them."""

    states_SPBH: Tensor
    times: tuple[int, ...]
    from_above_PBH: list[Tensor] = field(default_factory=list)
    """What comes to h from the layers above, of each backward pass."""
    along_time: list[tuple[int, int, list[Tensor]]] = field(default_factory=list)
    """State, p, and what comes back to it from the step after, [1, B, H]."""

    def norms_2SP(self) -> Tensor:
        """Norms of the states, and of the derivatives with respect to them; 0 if nothing came."""
        delta_SPBH = torch.zeros_like(self.states_SPBH)
        for above_PBH in self.from_above_PBH:
            delta_SPBH[0] += above_PBH
        for state, p, came in self.along_time:
            for back_1BH in came:
                delta_SPBH[state, p] += back_1BH[0]
        both = torch.stack((self.states_SPBH, delta_SPBH))
        return metrics.row_norms(both.flatten(3).flatten(0, 2)).view(both.shape[:3])


class TimeMeter(_SiteMeter[_Course]):
    """`time.csv`: N dL/ds_t of each state s at the watched times, of every stacked layer.

    It is the total derivative with respect to the state: for h_t what comes from above at t plus
    what comes back from t + 1. An LSTM's h_t and c_t are two variables, of which the step after
    is a function: c_t as it makes h_t is not counted, so that the last one's is 0. It is 0 too
    where nothing comes, as before a cut of `truncation` where the last step alone is answered.
    """

    table = "time"

    def __init__(self, sites: Mapping[str, Site], equations: Equations) -> None:
        super().__init__(sites)
        self._states = equations.states

    def _looked_at(self, _name: str, _x_BTI: Tensor, h_BTH: Tensor, watched: Watched) -> _Course:
        times = tuple(watched)
        states_SPBH = torch.stack(
            [torch.cat(states) for states in zip(*watched.values(), strict=True)]
        )
        course = _Course(_measurable(states_SPBH), times)
        if h_BTH.requires_grad:
            _hook(h_BTH, lambda g_BTH: course.from_above_PBH.append(_at(times, g_BTH)))
        for p, states in enumerate(watched.values()):
            for index, state_1BH in enumerate(states):
                if state_1BH.requires_grad:
                    came: list[Tensor] = []
                    course.along_time.append((index, p, came))
                    _hook(state_1BH, came.append)
        return course

    def take(
        self, step: int, num_examples: int, loss_scale: Tensor | float
    ) -> Callable[[], Rows] | None:
        seen = self._of_update(num_examples)
        if not seen:
            return None
        some = next(iter(seen.values()))[0]
        norms_LM2SP = [torch.stack([course.norms_2SP() for course in seen[n]]) for n in seen]
        num_units = some.states_SPBH.shape[-1]

        def rows() -> Rows:
            host = torch.stack(norms_LM2SP).cpu().numpy()
            # Neither squared nor scaled in a narrow dtype.
            norm_L2SP = np.hypot.reduce(host.astype(np.float64), axis=1)
            rms_L2SP = norm_L2SP / np.sqrt(num_examples * num_units)
            rms_L2SP[:, 1] *= num_examples / float(loss_scale)
            return self._rows(step, list(seen), some.times, rms_L2SP.astype(host.dtype))

        return rows

    def _rows(
        self, step: int, names: list[str], times: Sequence[int], rms_L2SP: NDArray[Any]
    ) -> Rows:
        keys = [(name, state, t) for name in names for state in self._states for t in times]
        numbers = {name: number for number, name in enumerate(self._sites, start=1)}
        return Rows(
            self.table,
            {
                "step": [step] * len(keys),
                "layer": [numbers[name] for name, _, _ in keys],
                "name": [f"{name}.{state}" for name, state, _ in keys],
                "t": [t for _, _, t in keys],
                "delta_rms": Floats(rms_L2SP[:, 1].ravel()),
                "state_rms": Floats(rms_L2SP[:, 0].ravel()),
            },
        )


# ---------------------------------------------------------------- recurrence.csv


class GateMeter(_SiteMeter[tuple[int, Tensor]]):
    """`recurrence.csv`: spectral radii, and the gates at the watched times, of every layer.

    The gates are computed once more from x_t and h_{t-1}, since a fused cell shows none. A pass is
    kept as its B, and [2, G]: means of phi(u), saturated shares (nan of an unbounded phi).
    """

    table = "recurrence"

    def __init__(
        self, sites: Mapping[str, Site], cells: Mapping[str, nn.Module], equations: Equations
    ) -> None:
        super().__init__(sites)
        self._cells = cells
        self._equations = equations
        self._weights: dict[str, Tensor] = {}

    def _looked_at(
        self, name: str, x_BTI: Tensor, h_BTH: Tensor, watched: Watched
    ) -> tuple[int, Tensor]:
        cell, equations = self._cells[name], self._equations
        weight = cast(Tensor, cell.weight_hh_l0)
        # A copy, since eigenvalues are asked for after the update.
        self._weights[name] = weight.detach().clone()
        x_PBI = _at(tuple(watched), x_BTI).to(weight.dtype)
        h_PBH = _before(tuple(watched), h_BTH).to(weight.dtype)
        a, r = projected(cell, "ih", x_PBI), projected(cell, "hh", h_PBH)
        inputs = equations.gate_inputs(cell, a, r)
        pairs = zip(equations.activations(cell), inputs, strict=True)
        return len(x_BTI), torch.stack([_gate(phi, u) for phi, u in pairs], 1)

    def take(
        self,
        step: int,
        num_examples: int,
        loss_scale: Tensor | float,  # noqa: ARG002
    ) -> Callable[[], Rows] | None:
        weights = self._weights
        seen = self._of_update(num_examples)
        if not seen:
            return None
        share_M = [examples / num_examples for examples, _ in next(iter(seen.values()))]
        figures_LM2G = torch.stack(
            [torch.stack([gates for _, gates in passes]) for passes in seen.values()]
        )
        names, num_gates = list(seen), len(self._equations.gates)

        def rows() -> Rows:
            host = figures_LM2G.cpu().numpy()
            figures_2LG = np.einsum("lmqg,m->qlg", host.astype(np.float64), share_M)
            radii = [spectral_radii(_blocks(weights[name].cpu(), num_gates)) for name in names]
            return self._rows(
                step, names, torch.stack(radii).numpy(), figures_2LG.astype(host.dtype)
            )

        return rows

    def _rows(
        self, step: int, names: list[str], radius_LG: NDArray[Any], figures_2LG: NDArray[Any]
    ) -> Rows:
        keys = [(name, gate) for name in names for gate in self._equations.gates]
        numbers = {name: number for number, name in enumerate(self._sites, start=1)}
        means, shares = figures_2LG[0].ravel(), figures_2LG[1].ravel()
        # A gate whose inputs are not finite is nan, an unbounded one has no share.
        is_bounded = [_peak(phi) is not None for phi in self._activations(names)]
        return Rows(
            self.table,
            {
                "step": [step] * len(keys),
                "layer": [numbers[name] for name, _ in keys],
                "name": [f"{name}.{gate}" for name, gate in keys],
                "spectral_radius": Floats(radius_LG.ravel()),
                "gate_mean": Floats(means),
                "saturated_fraction": Floats(shares, np.array(is_bounded)),
            },
        )

    def _activations(self, names: list[str]) -> list[nn.Module]:
        return [phi for n in names for phi in self._equations.activations(self._cells[n])]

    def _forget(self) -> None:
        super()._forget()
        self._weights = {}


def _gate(phi: nn.Module, u: Tensor) -> Tensor:
    """[2]: mean of phi(u), and the saturated share; both nan where a u is not finite."""
    slope, mean = slope_of(phi), phi(u).mean()
    if slope is None or slope.peak is None:
        return torch.stack((mean, torch.full_like(mean, torch.nan)))
    is_flat = slope.derivative(u) < SATURATED_SHARE * slope.peak
    share = is_flat.to(u.dtype).mean()
    return torch.stack((mean, torch.where(u.isfinite().all(), share, torch.nan)))


def _peak(phi: nn.Module) -> float | None:
    slope = slope_of(phi)
    return None if slope is None else slope.peak


def _blocks(weight_GH: Tensor, num_gates: int) -> Tensor:
    """Each gate's own matrix, [G, H, H]."""
    return torch.stack(weight_GH.chunk(num_gates))


def _at(times: Sequence[int], x_BTH: Tensor) -> Tensor:
    """[P, B, H], a copy, so that the sequence can go."""
    return _measurable(torch.stack([x_BTH[:, t] for t in times]))


def _before(times: Sequence[int], h_BTH: Tensor) -> Tensor:
    """h a step before each of the times: before the first it is 0."""
    zeros_BH = torch.zeros_like(h_BTH[:, 0])
    return torch.stack([h_BTH[:, t - 1] if t else zeros_BH for t in times])


def _measurable(x: Tensor) -> Tensor:
    """Half precision is measured in float32."""
    return x.detach() if x.dtype in (torch.float32, torch.float64) else x.detach().float()


def _hook(x: Tensor, hook: Callable[[Tensor], Any]) -> None:
    # Nothing is handed back, whatever `hook` returns: the gradient goes on as it is.
    def seen(gradient: Tensor) -> None:
        hook(gradient)

    x.register_hook(seen)  # type: ignore[no-untyped-call]
