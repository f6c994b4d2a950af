"""The columns of `layers.csv` once more, from INTERFACE.md: equations written out, dL/dz by
autograd with respect to each z of the summed loss, moments and shares in numpy, all in float64.

Axes: B examples, W units.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vgexp.config import MlpConfig
from vgexp.probe import Probe
from vgexp.quantities import LAYERS
from vgexp.tasks import Task

Numbers = dict[str, float | None]
"""Column -> value, None where it is not defined."""
Batches = Sequence[tuple[Tensor, Tensor]]
"""The micro-batches of one update: inputs and classes."""


def vectors(num_features: int, num_outputs: int) -> Task:
    """The task of naming the class of a vector."""
    return Task("vector", (num_features,), num_outputs)


EPS = 1e-5
SELU = (1.6732632423543772848170429916717, 1.0507009873554804934193349852946)

# ---------------------------------------------------------------- activations and norms


def _where_above(u: Tensor, above: Tensor, below: Tensor) -> Tensor:
    return torch.where(u > 0, above, below)


def _elu(u: Tensor, alpha: float) -> Tensor:
    return _where_above(u, u, alpha * (torch.exp(torch.minimum(u, u * 0)) - 1))


PHI: Mapping[str, Callable[[Tensor, Any], Tensor]] = {
    "linear": lambda u, _a: u * 1,
    "sigmoid": lambda u, _a: 1 / (1 + torch.exp(-u)),
    "tanh": lambda u, _a: 1 - 2 / (torch.exp(2 * u) + 1),
    "relu": lambda u, _a: _where_above(u, u, u * 0),
    "leaky_relu": lambda u, a: _where_above(u, u, a * u),
    "prelu": lambda u, a: _where_above(u, u, a * u),
    "elu": lambda u, _a: _elu(u, 1.0),
    "selu": lambda u, _a: SELU[1] * _elu(u, SELU[0]),
    "gelu": lambda u, _a: u * (1 + torch.erf(u / math.sqrt(2))) / 2,
    "silu": lambda u, _a: u / (1 + torch.exp(-u)),
    "softplus": lambda u, _a: torch.log(1 + torch.exp(u)),
    "hardtanh": lambda u, _a: torch.where(u > 1, u * 0 + 1, torch.where(u < -1, u * 0 - 1, u)),
}
"""phi(u, slope below 0)."""


def slope_at(name: str, u: Tensor, a: Any) -> np.ndarray:
    """|phi'(u)| by autograd through the formula."""
    u = u.detach().clone().requires_grad_()
    (slope,) = torch.autograd.grad(PHI[name](u, a).sum(), u)
    return np.abs(slope.numpy())


@functools.cache
def largest_slope(name: str) -> float | None:
    """The largest |phi'| on a fine grid where phi is bounded, else None."""
    ends = PHI[name](torch.tensor([-200.0, 200.0], dtype=torch.float64), 0.25)
    if ends.abs().max() > 10:
        return None
    return float(slope_at(name, torch.linspace(-5, 5, 10_001, dtype=torch.float64), 0.25).max())


def _standardised(x: Tensor, axis: int) -> Tensor:
    centred = x - x.mean(axis, keepdim=True)
    return centred / ((centred**2).mean(axis, keepdim=True) + EPS).sqrt()


NORMALISED: Mapping[str, Callable[[Tensor, int], Tensor]] = {
    "none": lambda x, _groups: x,
    "batch": lambda x, _groups: _standardised(x, 0),
    "layer": lambda x, _groups: _standardised(x, 1),
    "group": lambda x, groups: torch.cat([_standardised(v, 1) for v in x.chunk(groups, 1)], 1),
    "rms": lambda x, _groups: x / ((x**2).mean(1, keepdim=True) + EPS).sqrt(),
}
REFUSED_NORMS = {"instance"}
"""No perceptron has these."""

# ---------------------------------------------------------------- the perceptron


@dataclass
class Site:
    """What one micro-batch shows at one weight; u, h and phi are None at the read-out."""

    name: str
    layer: int
    kind: str
    z: Tensor
    u: Tensor | None = None
    h: Tensor | None = None
    phi: str | None = None
    below: Any = None
    """phi's slope below 0."""


class Equations:
    """INTERFACE.md, "The perceptron, exactly"."""

    def __init__(self, config: MlpConfig, parameters: Mapping[str, Tensor]) -> None:
        self.config, self.p = config, parameters

    def __call__(self, x: Tensor) -> tuple[list[Site], Tensor]:
        """Sites in forward order, and the outputs."""
        config, p = self.config, self.p
        sites: list[Site] = []
        hs: list[Tensor] = []
        normed_sum = config.skip not in ("none", "dense") and config.norm_position == "post"
        z = x
        for layer in range(1, config.depth + 1):
            name = f"layers.{layer - 1}"
            reads = x if layer == 1 else torch.cat(hs, 1) if config.skip == "dense" else hs[-1]
            branch = self.affine(f"{name}.linear", reads)
            gate: Site | None = None
            match config.skip if layer > 1 else "none":
                case "none" | "dense":
                    z = branch
                case "residual":
                    z = z + branch
                case "scaled_residual":
                    z = z + branch / math.sqrt(config.depth)
                case "rezero":
                    z = z + p[f"{name}.skip.alpha"] * branch
                case "highway":
                    read = self.affine(f"{name}.skip.gate", hs[-1])
                    t = 1 / (1 + torch.exp(-read))
                    weight = f"{name}.skip.gate.weight"
                    gate = Site(weight, layer, "linear", read, read, t, "sigmoid")
                    z = t * branch + (1 - t) * z
                case other:
                    raise AssertionError(f"no equation for skip {other}")
            if normed_sum and layer > 1:
                z = self.norm(name, z)
            u = self.norm(name, z) if config.norm_position == "pre" else z
            h = self.phi(name, u)
            if config.norm_position == "post" and not normed_sum:
                h = self.norm(name, h)
            weight, below = f"{name}.linear.weight", self.below(name)
            sites.append(Site(weight, layer, "linear", z, u, h, config.activation, below))
            sites += [] if gate is None else [gate]
            hs.append(h)
        out = self.affine("readout", hs[-1])
        return [*sites, Site("readout.weight", config.depth + 1, "readout", out)], out

    def affine(self, name: str, v: Tensor) -> Tensor:
        return v @ self.p[f"{name}.weight"].T + self.p.get(f"{name}.bias", 0.0)

    def norm(self, name: str, v: Tensor) -> Tensor:
        if self.config.norm == "none":
            return v
        y = NORMALISED[self.config.norm](v, self.config.norm_groups)
        return y * self.p[f"{name}.norm.weight"] + self.p.get(f"{name}.norm.bias", 0.0)

    def below(self, name: str) -> Any:
        if self.config.activation == "prelu":
            return self.p[f"{name}.activation.weight"]
        slope = self.config.negative_slope
        return 0.01 if slope is None else slope

    def phi(self, name: str, u: Tensor) -> Tensor:
        return PHI[self.config.activation](u, self.below(name))


# ---------------------------------------------------------------- the columns


def summed_loss(out: Tensor, classes: Tensor) -> Tensor:
    """Sum over examples of -ln softmax(out)[class]."""
    picked = out[torch.arange(len(classes)), classes]
    return (torch.logsumexp(out, 1) - picked).sum()


def snapshot(model: torch.nn.Module) -> dict[str, Tensor]:
    """Every parameter's value now, in float64."""
    return {name: p.detach().double().clone() for name, p in model.named_parameters()}


def std(values: np.ndarray) -> float:
    """Population standard deviation, through numbers near 1."""
    return rms(values - values.mean())


def rms(values: np.ndarray) -> float:
    """Root mean square, through numbers near 1."""
    peak = np.abs(values).max()
    return float(peak * np.sqrt(np.mean((values / peak) ** 2))) if peak > 0 else 0.0


def flat(tensors: Sequence[Tensor]) -> np.ndarray:
    return np.concatenate([t.detach().double().numpy().ravel() for t in tensors])


def expected_rows(
    config: MlpConfig,
    before: Mapping[str, Tensor],
    after: Mapping[str, Tensor],
    batches: Batches,
    clipped: Callable[[dict[str, Tensor]], dict[str, Tensor]] = lambda grads: grads,
    torch_grads: Mapping[str, Tensor] | None = None,
) -> list[dict[str, Any]]:
    """The rows of one update, but for `step`; `clipped` is what clipping makes of all gradients.

    Zeros are counted in `torch_grads` where these are given: which entries of a gradient that is 0
    but for rounding come out as 0 depends on the order of summation.
    """
    p = {name: value.clone().requires_grad_() for name, value in before.items()}
    forwards = [Equations(config, p)(x.double()) for x, _ in batches]
    total = sum(
        (summed_loss(out, y) for (_, out), (_, y) in zip(forwards, batches, strict=True)),
        torch.zeros((), dtype=torch.float64),
    )
    num_examples = sum(len(y) for _, y in batches)
    zs = [site.z for sites, _ in forwards for site in sites]
    deltas = torch.autograd.grad(total, zs, retain_graph=True)
    delta_of = dict(zip(map(id, zs), deltas, strict=True))
    grads = dict(zip(p, torch.autograd.grad(total / num_examples, list(p.values())), strict=True))
    seen_by_optimizer = clipped(grads)
    rows = []
    for sites in zip(*(sites for sites, _ in forwards), strict=True):
        name = sites[0].name
        row: dict[str, Any] = {"layer": sites[0].layer, "name": name, "kind": sites[0].kind}
        row |= weight_numbers(before[name], after[name], grads[name], seen_by_optimizer[name])
        if torch_grads is not None:
            zeros = (value == 0 for value in flat([torch_grads[name]]))
            row["grad_zero_fraction"] = sum(zeros) / torch_grads[name].numel()
        row |= activation_numbers(sites)
        row["delta_rms"] = rms(flat([delta_of[id(site.z)] for site in sites]))
        rows.append(row)
    main = {row["layer"]: row["delta_rms"] for row in rows if "gate" not in row["name"]}
    for row in rows:
        following = main.get(row["layer"] + 1)
        row["backward_gain"] = row["delta_rms"] / following if following else None
    return rows


def weight_numbers(before: Tensor, after: Tensor, grad: Tensor, clipped: Tensor) -> Numbers:
    w, g = flat([before]), flat([grad])
    return {
        "weight_norm": math.hypot(*w),
        "grad_norm": math.hypot(*g),
        "grad_max": max(abs(v) for v in g),
        "grad_zero_fraction": sum(v == 0 for v in g) / len(g),
        "grad_norm_clipped": math.hypot(*flat([clipped])),
        "update_ratio": math.hypot(*(flat([after]) - w)) / math.hypot(*w),
    }


ACT_COLUMNS = (
    *("act_mean", "act_std", "act_max", "act_outlier_fraction"),
    *("saturated_fraction", "dead_fraction"),
)


def act_numbers(h: np.ndarray) -> Numbers:
    size = np.abs(h)
    return {
        "act_mean": float(h.mean()),
        "act_std": std(h),
        "act_max": float(size.max()),
        "act_outlier_fraction": float((size >= 6).mean()),
    }


def activation_numbers(sites: Sequence[Site]) -> Numbers:
    z = flat([site.z for site in sites])
    numbers: Numbers = {"preact_mean": float(z.mean()), "preact_std": std(z)}
    numbers |= dict.fromkeys(ACT_COLUMNS)
    hs = [site.h for site in sites if site.h is not None]
    if not hs:
        return numbers
    h, phi = flat(hs), sites[0].phi
    assert phi is not None
    slopes_BW = np.concatenate([slope_at(phi, s.u, s.below) for s in sites if s.u is not None])
    peak = largest_slope(phi)
    numbers |= act_numbers(h)
    numbers["dead_fraction"] = float((slopes_BW == 0).all(0).mean())
    if peak is not None:
        numbers["saturated_fraction"] = float((slopes_BW < 0.05 * peak).mean())
    return numbers


# ---------------------------------------------------------------- what the probe says


def measured_rows(probe: Probe) -> list[dict[str, Any]]:
    """All rows since the last call, one dictionary each; None where a cell is empty."""
    rows = []
    for block in (each for each in probe.drain() if each.table == "layers"):
        for i in range(len(block)):
            row = dict.fromkeys(column.name for column in LAYERS)
            rows.append(row | {name: values[i] for name, values in block.columns.items()})
    return rows


def close(value: Any, wanted: float | None, rtol: float, atol: float = 0.0) -> bool:
    """Equal within tolerances; an empty cell equals only an empty cell."""
    if value is None or wanted is None:
        return value is None and wanted is None
    return bool(abs(float(value) - wanted) <= atol + rtol * abs(wanted))


def differences(
    row: Mapping[str, Any], wanted: Mapping[str, Any], rtol: float, atol: float = 0.0
) -> list[str]:
    """What of `wanted` the row does not say, in words."""
    wrong = []
    for column, value in wanted.items():
        given = row.get(column)
        is_text = isinstance(value, str)
        if given != value if is_text else not close(given, value, rtol, atol):
            wrong.append(f"{wanted.get('name')} {column}: {given}, not {value}")
    return wrong
