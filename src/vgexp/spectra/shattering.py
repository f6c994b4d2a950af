"""`shattering.csv`: how alike gradients are at two inputs, against their distance (Balduzzi 2017).

The gradient of the outputs (their first `OUTPUTS`, all in one vector, so that none is preferred and
nothing is drawn) by what a layer hands on; alike is the cosine of two. Deep plain nets have
gradients that look like white noise along a line of inputs; one layer's look like a random walk,
deep residual nets' like something between.

Two sets of inputs. `line` is the paper's one-dimensional setting in the space that the net reads:
x(s) = c + s u, s from -2 to 2, c the batch's first example and u what is left of another that is
orthogonal to c, of rms 1. What W_1 c adds has the part of the paper's first biases: without, a net
of rectifiers is linear on a ray from 0. Inputs of one feature lie on x(s) = c + s. `data` are pairs
of different examples of the batch.

Axes: P points, L layers, D a layer's entries.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from vgexp.models.stages import Stage
from vgexp.records import Floats, Rows

OUTPUTS = 16
POINTS = 256
SPACING = 1 / 64
LAGS = (1, 2, 4, 8, 16, 32, 64, 128)
"""Distances on the line, in numbers of points."""
EXAMPLES = 32
"""How many examples of the batch make pairs: its first."""


def shattering_rows(stages: Sequence[Stage], x_E: Tensor, origin: str = "input") -> Rows:
    """Makes the table, of the input and all layers but the last, whose gradient is constant."""
    names = [origin, *(stage.name for stage in stages[:-1])]
    layers = [stages[0].layer - 1, *(stage.layer for stage in stages[:-1])]
    rows: list[tuple[str, float, Tensor]] = []
    line_P = line(x_E)
    if line_P is not None:
        cosine_LPP = cosines(stages, line_P)
        for lag in LAGS:
            at_lag_LP = cosine_LPP.diagonal(lag, dim1=1, dim2=2)
            rows.append(("line", lag * SPACING, at_lag_LP.nanmean(1)))
    if len(x_E) > 1:
        some_E = x_E[:EXAMPLES]
        first, second = torch.triu_indices(len(some_E), len(some_E), 1)
        apart_E = (some_E[first] - some_E[second]).flatten(1).square().mean(1).sqrt()
        pairs_L = cosines(stages, some_E)[:, first, second].nanmean(1)
        rows.append(("data", float(apart_E.mean()), pairs_L))
    return _table(names, layers, rows)


def line(x_E: Tensor) -> Tensor | None:
    """The points [P, ...]; None where the examples span no plane. Of one feature it is its axis."""
    c_D, *others = x_E.flatten(1)
    s_P = (torch.arange(POINTS, dtype=torch.float64) - POINTS // 2) * SPACING
    if len(c_D) == 1:
        axis_PD: Tensor = c_D + s_P[:, None]
        return axis_PD.view(POINTS, *x_E.shape[1:])
    for other_D in others:
        u_D = other_D - c_D * ((c_D @ other_D) / (c_D @ c_D).clamp(min=1e-300))
        rms = u_D.square().mean().sqrt()
        if rms > 1e-8 * other_D.square().mean().sqrt():
            points_PD: Tensor = c_D + s_P[:, None] * (u_D / rms)
            return points_PD.view(POINTS, *x_E.shape[1:])
    return None


def cosines(stages: Sequence[Stage], x_P: Tensor) -> Tensor:
    """[L, P, P]: of the gradients at two points; nan where one of them is 0.

    L are the input and what each stage but the last hands on.
    """
    with torch.enable_grad():
        handed_on = [x_P.detach().requires_grad_()]
        for stage in stages:
            handed_on.append(stage.run(handed_on[-1]))
        out_PO = handed_on.pop().flatten(1)[:, :OUTPUTS]
    num_outputs = out_PO.shape[1]
    gram_LPP = torch.zeros(len(handed_on), len(x_P), len(x_P), dtype=torch.float64)
    scales: list[Tensor] = []
    for output in range(num_outputs):
        keep = output < num_outputs - 1
        g_LPD = torch.autograd.grad(out_PO[:, output].sum(), handed_on, retain_graph=keep)
        flat = [g_PD.flatten(1) for g_PD in g_LPD]
        if not scales:
            # Squares of 1e-200 would be 0.
            peaks = [g_PD.abs().max() for g_PD in flat]
            scales = [torch.where(peak > 0, peak, 1.0) for peak in peaks]
        for gram_PP, g_PD, scale in zip(gram_LPP, flat, scales, strict=True):
            gram_PP.addmm_(g_PD / scale, (g_PD / scale).T)
    length_LP = gram_LPP.diagonal(dim1=1, dim2=2).sqrt()
    return gram_LPP / length_LP[:, :, None] / length_LP[:, None, :]


def _table(names: list[str], layers: list[int], rows: list[tuple[str, float, Tensor]]) -> Rows:
    none = np.empty(0)
    correlation = np.concatenate([none, *(values_L.numpy() for _, _, values_L in rows)])
    return Rows(
        "shattering",
        {
            "step": [0] * len(correlation),
            "layer": layers * len(rows),
            "name": names * len(rows),
            "inputs": np.repeat([kind for kind, _, _ in rows], len(names)).tolist(),
            "distance": Floats(np.repeat([distance for _, distance, _ in rows], len(names))),
            "correlation": Floats(correlation, ~np.isnan(correlation)),
        },
    )
