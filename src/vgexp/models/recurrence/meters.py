"""Measurements along time: `time.csv` of the states, and `recurrence.csv` of the gates.

A layer is run by one call of its cell, within which no state can be seen. At a measured step it is
therefore run once more, as the backward pass reaches it, from what it read and with the gradient
that came to it from above, in segments of time whose last states are tensors of their own. So
training is not changed by a bit, nor slowed down at other steps: had every step run in ten
segments, an LSTM of 4 layers, 100 steps, width 64 and batch 32 would have taken 1.5 times as long.

Axes: B examples, T steps in time, P watched times, S states (h; h and c), H units, I what a layer
reads, L layers, M micro-batches, G gates.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vgexp import metrics
from vgexp.activations import slope_of
from vgexp.models.recurrence.cells import Equations, project
from vgexp.models.recurrence.draws import spectral_radii
from vgexp.models.recurrence.segments import in_segments, segments
from vgexp.records import Floats, Rows
from vgexp.torch_internals import backward_task
from vgexp.watch import SATURATED_SHARE


class HookPoint(nn.Module):
    """A module without effect, called once in a pass, on which meters set their hooks."""

    def forward(self, x_BTI: Tensor, h_BTH: Tensor) -> None:
        """Takes what the layer reads, and the states h that it computes."""


@dataclass(frozen=True)
class MeteredLayer:
    """A stacked layer, as its meters know it."""

    site: HookPoint
    cell: nn.Module


class _LayerMeter(ABC):
    """Keeps the numbers of each pass through each layer until the step ends."""

    def __init__(
        self, places: Mapping[str, MeteredLayer], equations: Equations, time_points: int | None
    ) -> None:
        self._places = places
        self._equations = equations
        self._time_points = time_points
        self._measures: dict[str, list[tuple[int, Tensor]]] = {name: [] for name in places}
        """Layer -> B and measures of its passes."""
        self._times: tuple[int, ...] = ()
        self._handles: list[Any] = []

    def arm(self) -> None:
        if not self._handles:
            for name, place in self._places.items():
                hook = partial(self._on_call, name)
                self._handles.append(place.site.register_forward_hook(hook))

    def disarm(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._forget()

    def _on_call(self, name: str, _: nn.Module, args: tuple[Tensor, ...], _output: None) -> None:
        x_BTI, h_BTH = args
        # Neither an evaluation nor, within a backward pass, what checkpointing computes again.
        if h_BTH.requires_grad and backward_task() == -1:
            plan = segments(x_BTI.shape[1], self._time_points, None)
            self._times = tuple(s.watched_t for s in plan if s.watched_t is not None)
            self._look(name, x_BTI.detach(), h_BTH)

    @abstractmethod
    def _look(self, name: str, x_BTI: Tensor, h_BTH: Tensor) -> None:
        """Arranges that the numbers of this pass are kept."""

    def _keep(self, name: str, num_examples: int, measures: Tensor) -> None:
        self._measures[name].append((num_examples, measures))

    def _of_update(self, num_examples: int) -> tuple[Tensor | None, list[float]]:
        """Returns the numbers [L, M, ..] of the update's passes, and their shares of its examples.

        They are the last: a pass that is made again, to be looked at whole, stands twice.
        """
        found: list[Tensor] = []
        shares: list[float] = []
        for passes in self._measures.values():
            missing, last = num_examples, []
            while passes and missing > 0:
                last.append(passes.pop())
                missing -= last[-1][0]
            if last:
                found.append(torch.stack([measures for _, measures in last]))
                shares = [examples / num_examples for examples, _ in last]
        self._forget()
        return torch.stack(found) if found else None, shares

    def _forget(self) -> None:
        for passes in self._measures.values():
            passes.clear()


# ---------------------------------------------------------------- time.csv


class TimeMeter(_LayerMeter):
    """`time.csv`: N dL/ds_t of each state s at the watched times, of every stacked layer.

    It is the total derivative with respect to the state: for h_t what comes from above at t plus
    what comes back from t + 1. An LSTM's h_t and c_t are two variables, of which the step after
    is a function: c_t as it makes h_t is not counted, so that the last one's is 0. It is 0 too
    where nothing comes, as before a cut of `truncation` where the last step alone is answered.

    The measures of a pass are [2, S, P]: norms of the states and of the derivatives.
    """

    table = "time"

    def take(
        self, step: int, num_examples: int, loss_scale: Tensor | float
    ) -> Callable[[], Rows] | None:
        norms_LM2SP, _ = self._of_update(num_examples)
        if norms_LM2SP is None:
            return None
        num_entries = num_examples * self._equations.config.width
        names, times = list(self._places), self._times

        def rows() -> Rows:
            host = norms_LM2SP.cpu().numpy()
            # Neither squared nor scaled in a narrow dtype.
            rms_L2SP = np.hypot.reduce(host.astype(np.float64), axis=1) / np.sqrt(num_entries)
            rms_L2SP[:, 1] *= num_examples / float(loss_scale)
            return self._rows(step, names, times, rms_L2SP.astype(host.dtype))

        return rows

    def _look(self, name: str, x_BTI: Tensor, h_BTH: Tensor) -> None:
        autocast = _autocast(x_BTI.device.type)
        _hook(h_BTH, partial(self._on_gradient, name, x_BTI, autocast))

    def _on_gradient(
        self, name: str, x_BTI: Tensor, autocast: Callable[[], Any], above_BTH: Tensor
    ) -> None:
        config, cell = self._equations.config, self._places[name].cell
        plan = segments(x_BTI.shape[1], self._time_points, config.truncation)
        with torch.enable_grad(), autocast():
            run = list(in_segments(cell, x_BTI.requires_grad_(), plan))
        watched = [(segment.watched_t, states) for segment, _, states in run]
        states_PS = [(t, states) for t, states in watched if t is not None]
        wanted = [state for _, states in states_PS for state in states]
        above = torch.split(above_BTH.detach(), [segment.num_steps for segment in plan], 1)
        back = torch.autograd.grad([h for _, h, _ in run], wanted, above, allow_unused=True)
        state_BH = [_measurable(state[0]) for state in wanted]
        pairs = zip(state_BH, back, strict=True)
        back_BH = [torch.zeros_like(s) if g is None else _measurable(g[0]) for s, g in pairs]
        num_states = len(self._equations.states)
        for index, (t, _) in enumerate(states_PS):
            back_BH[index * num_states] = back_BH[index * num_states] + above_BTH[:, t]
        norms = metrics.row_norms(torch.stack([*state_BH, *back_BH]).flatten(1))
        self._keep(name, len(x_BTI), norms.view(2, -1, num_states).transpose(1, 2))

    def _rows(
        self, step: int, names: list[str], times: Sequence[int], rms_L2SP: NDArray[Any]
    ) -> Rows:
        states = self._equations.states
        keys = [
            (layer, f"{name}.{state}", t)
            for layer, name in enumerate(names, start=1)
            for state in states
            for t in times
        ]
        layers, labels, when = zip(*keys, strict=True)
        return Rows(
            self.table,
            {
                "step": [step] * len(keys),
                "layer": layers,
                "name": labels,
                "t": when,
                "delta_rms": Floats(rms_L2SP[:, 1].ravel()),
                "state_rms": Floats(rms_L2SP[:, 0].ravel()),
            },
        )


# ---------------------------------------------------------------- recurrence.csv


class GateMeter(_LayerMeter):
    """`recurrence.csv`: spectral radii, and the gates at the watched times, of every layer.

    The gates are computed once more from x_t and h_{t-1}. The measures of a pass are [2, G]: means
    of phi(u), and saturated shares (nan of an unbounded phi).
    """

    table = "recurrence"

    def __init__(
        self, places: Mapping[str, MeteredLayer], equations: Equations, time_points: int | None
    ) -> None:
        super().__init__(places, equations, time_points)
        self._weights: dict[str, Tensor] = {}

    def take(
        self,
        step: int,
        num_examples: int,
        loss_scale: Tensor | float,  # noqa: ARG002
    ) -> Callable[[], Rows] | None:
        weights = self._weights
        measures_LM2G, shares_M = self._of_update(num_examples)
        if measures_LM2G is None:
            return None

        def rows() -> Rows:
            host = measures_LM2G.cpu().numpy()
            measures_2LG = np.einsum("lmqg,m->qlg", host.astype(np.float64), shares_M)
            # Where a gate's mean is not finite, phi' of it says nothing of saturation.
            measures_2LG[1, ~np.isfinite(measures_2LG[0])] = np.nan
            radius_LG = torch.stack([self._radii(weights[name].cpu()) for name in self._places])
            return self._rows(step, radius_LG.numpy(), measures_2LG.astype(host.dtype))

        return rows

    def _look(self, name: str, x_BTI: Tensor, h_BTH: Tensor) -> None:
        cell, equations = self._places[name].cell, self._equations
        weight = cast(Tensor, cell.weight_hh_l0)
        # A copy, since eigenvalues are asked for after the update.
        self._weights[name] = weight.detach().clone()
        # Whatever the forward pass is made in, the gates are computed in the weights' dtype.
        with torch.no_grad(), torch.autocast(x_BTI.device.type, enabled=False):
            x_PBI = _at(self._times, x_BTI).to(weight.dtype)
            h_PBH = _before(self._times, h_BTH).to(weight.dtype)
            a, r = project(cell, "ih", x_PBI), project(cell, "hh", h_PBH)
            pairs = zip(equations.activations(cell), equations.gate_inputs(cell, a, r), strict=True)
            self._keep(name, len(x_BTI), torch.stack([_gate(phi, u) for phi, u in pairs], 1))

    def _radii(self, weight: Tensor) -> Tensor:
        """[G], of each gate's own matrix."""
        return spectral_radii(torch.stack(weight.chunk(len(self._equations.gates))))

    def _rows(self, step: int, radius_LG: NDArray[Any], measures_2LG: NDArray[Any]) -> Rows:
        keys = [
            (layer, f"{name}.{gate}", _is_bounded(phi))
            for layer, (name, place) in enumerate(self._places.items(), start=1)
            for gate, phi in zip(
                self._equations.gates, self._equations.activations(place.cell), strict=True
            )
        ]
        layers, labels, is_bounded = zip(*keys, strict=True)
        return Rows(
            self.table,
            {
                "step": [step] * len(keys),
                "layer": layers,
                "name": labels,
                "spectral_radius": Floats(radius_LG.ravel()),
                "gate_mean": Floats(measures_2LG[0].ravel()),
                "saturated_fraction": Floats(measures_2LG[1].ravel(), np.array(is_bounded)),
            },
        )

    def _forget(self) -> None:
        super()._forget()
        self._weights = {}


def _gate(phi: nn.Module, u: Tensor) -> Tensor:
    """[2]: mean of y = phi(u), and the saturated share, nan of an unbounded phi."""
    slope, y = slope_of(phi), phi(u)
    mean = y.mean()
    if slope is None or slope.peak is None:
        return torch.stack((mean, torch.full_like(mean, torch.nan)))
    size = slope.derivative(u) if slope.from_output is None else slope.from_output(y)
    return torch.stack((mean, size.lt_(SATURATED_SHARE * slope.peak).mean()))


def _is_bounded(phi: nn.Module) -> bool:
    slope = slope_of(phi)
    return slope is not None and slope.peak is not None


def _at(times: Sequence[int], x_BTI: Tensor) -> Tensor:
    """[P, B, I]."""
    return torch.stack([x_BTI[:, t] for t in times])


def _before(times: Sequence[int], h_BTH: Tensor) -> Tensor:
    """h a step before each of the times [P, B, H]: before the first it is 0."""
    zeros_BH = torch.zeros_like(h_BTH[:, 0])
    return torch.stack([h_BTH[:, t - 1] if t else zeros_BH for t in times])


def _measurable(x: Tensor) -> Tensor:
    """Returns a tensor that can be measured: half precision becomes float32."""
    return x.detach() if x.dtype in (torch.float32, torch.float64) else x.detach().float()


def _autocast(device: str) -> Callable[[], Any]:
    """Returns what makes a region with the autocast of the present forward pass."""
    is_on, dtype = torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)
    return lambda: torch.autocast(device, dtype=dtype, enabled=is_on)


def _hook(x: Tensor, hook: Callable[[Tensor], None]) -> None:
    x.register_hook(hook)  # type: ignore[no-untyped-call]
