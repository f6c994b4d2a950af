"""`jacobian.csv`: singular values of each layer's Jacobian, and of the product from the input on.

The Jacobian of a layer is that of what it hands on (z, or a block's path) by what it reads of the
one before; the first one's by the input, the read-out's that of the output. A layer of up to
`ENTRIES` entries is written out and its values are exact; of a larger one, and from there on of the
product, the largest alone is found, from below, by `lanczos`.

Axes: E examples, M what a layer hands on, N what it reads, K singular values, L layers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vgexp.models.stages import Map, Stage
from vgexp.records import Floats, Rows
from vgexp.spectra.frozen import run_stages
from vgexp.spectra.lanczos import log_largest_singular_value
from vgexp.spectra.products import Product, effective_rank, log_singular_values

EXAMPLES = 4
"""Examples of the batch, its first; 1 where it would take long: a layer or a product is larger."""
_LARGE_LAYER, _LARGE_PRODUCT = 512, 256
"""Numbers of singular values up to which it is not."""
ENTRIES = 2**21
"""Entries of a Jacobian that is written out."""
_LN_10 = math.log(10)


@dataclass(frozen=True)
class Spectrum:
    """Statistics of one matrix's singular values, logarithms natural; None: not measured."""

    log_largest: float | None = None
    log_median: float | None = None
    log_smallest: float | None = None
    log_mean: float | None = None
    """Mean of ln sigma over those above 0."""
    rank: float | None = None
    effective_rank: float | None = None

    @classmethod
    def of(cls, log_values_K: Tensor) -> Spectrum:
        """Computes the statistics of all values in falling order; -inf stands for 0."""
        above_0 = log_values_K[log_values_K > -math.inf]
        return cls(
            float(log_values_K[0]),
            float(np.median(log_values_K.numpy())) if len(above_0) else -math.inf,
            float(log_values_K[-1]),
            float(above_0.mean()) if len(above_0) else -math.inf,
            float(len(above_0)),
            effective_rank(log_values_K),
        )


_NOT_FINITE = Spectrum(*[math.nan] * len(fields(Spectrum)))


def jacobian_rows(stages: Sequence[Stage], x_E: Tensor) -> Rows:
    """Makes the table of a model whose examples do not mix; `x_E` are its inputs.

    A measure is a mean over examples: of logarithms, so that singular values are geometric means.
    Where numbers are not finite it is nan.
    """
    handed_on = run_stages(stages, x_E[:EXAMPLES])
    sizes = [state[0].numel() for state in handed_on]
    largest = max(min(pair) for pair in pairwise(sizes))
    if largest > _LARGE_LAYER or min(sizes[0], largest) > _LARGE_PRODUCT:
        handed_on = [state[:1] for state in handed_on]
    found = []
    for example in zip(*handed_on, strict=True):
        found.append(list(_of_example(stages, [state[None] for state in example])))
    layers = [[layer for layer, _ in each] for each in found]
    products = [[product for _, product in each] for each in found]
    return _rows(stages, _means(layers), _means(products))


def jacobian(run: Map, x_1N: Tensor) -> Tensor:
    """Computes the Jacobian [M, N] of one example, with a copy of it for each output."""
    with torch.no_grad():
        num_outputs = run(x_1N).numel()
    x_MN = x_1N.detach().expand(num_outputs, *x_1N.shape[1:]).clone().requires_grad_()
    with torch.enable_grad():
        y_MM = run(x_MN).flatten(1)
        (j_MN,) = torch.autograd.grad(y_MM, x_MN, torch.eye(num_outputs, dtype=x_1N.dtype))
    return j_MN.flatten(1)


def _of_example(
    stages: Sequence[Stage], handed_on: Sequence[Tensor]
) -> list[tuple[Spectrum, Spectrum]]:
    """Of each layer, and of the product up to it."""
    found: list[tuple[Spectrum, Spectrum]] = []
    product: Product | None = None
    is_written_out, is_finite = True, True
    for count, stage in enumerate(stages, 1):
        x_1N, y_1M = handed_on[count - 1 : count + 1]
        if x_1N.numel() * y_1M.numel() > ENTRIES:
            layer, is_written_out = _largest(stage.run, x_1N), False
        else:
            j_MN = jacobian(stage.run, x_1N)
            if not j_MN.isfinite().all():
                layer, is_finite = _NOT_FINITE, False
            else:
                layer = Spectrum.of(log_singular_values(j_MN))
            if is_finite and is_written_out:
                product = Product.of(j_MN) if product is None else product.then(j_MN)
        if not is_finite:
            whole = _NOT_FINITE
        elif product is not None and is_written_out:
            whole = Spectrum.of(product.log_singular_values())
        else:
            whole = _largest(partial(_through, stages[:count]), handed_on[0])
        found.append((layer, whole))
    return found


def _largest(run: Map, x_1N: Tensor) -> Spectrum:
    return Spectrum(log_largest=log_largest_singular_value(run, x_1N))


def _through(stages: Sequence[Stage], x_1N: Tensor) -> Tensor:
    for stage in stages:
        x_1N = stage.run(x_1N)
    return x_1N


def _rows(stages: Sequence[Stage], layers: _Measures, products: _Measures) -> Rows:
    count_L = np.arange(1, len(stages) + 1)
    bound_L = layers["log_largest"].values.cumsum()
    columns: dict[str, Sequence[object]] = {
        "step": [0] * len(stages),
        "layer": [stage.layer for stage in stages],
        "name": [stage.name for stage in stages],
        "product_bound_log10": Floats(bound_L / _LN_10, layers["log_largest"].present),
    }
    for measure in ("largest", "median", "smallest"):
        columns[measure] = _scaled(layers[f"log_{measure}"], np.exp)
        in_decades = _scaled(products[f"log_{measure}"], lambda logs_L: logs_L / _LN_10)
        columns[f"product_{measure}_log10"] = in_decades
    for measure in ("rank", "effective_rank"):
        columns[measure] = layers[measure]
        columns[f"product_{measure}"] = products[measure]
    for measure in ("largest", "mean", "smallest"):
        per_layer = _scaled(products[f"log_{measure}"], lambda logs_L: logs_L / count_L)
        columns[f"lyapunov_{measure}"] = per_layer
    return Rows("jacobian", columns)


_Measures = Mapping[str, Floats]
"""Measure of `Spectrum` -> its mean over examples, a layer each."""


def _means(spectra_EL: Sequence[Sequence[Spectrum]]) -> _Measures:
    means = {}
    for measure in fields(Spectrum):
        values_EL = [[getattr(one, measure.name) for one in layers] for layers in spectra_EL]
        present_L = [None not in examples for examples in zip(*values_EL, strict=True)]
        mean_L = np.array(values_EL, dtype=np.float64).mean(0)
        means[measure.name] = Floats(mean_L, np.array(present_L))
    return means


def _scaled(cells: Floats, function: Callable[[NDArray[Any]], NDArray[Any]]) -> Floats:
    return Floats(function(cells.values), cells.present)
