"""Names layers on an axis: the first, the read-out, and round numbers between."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator

from vgexp.quantities import READOUT

_MOST_TICKS = 12
_NEAR_ACROSS, _NEAR_DOWN = 0.12, 0.04
"""Names nearer to that of an end than this share of the axis would touch it."""


def layers_across(axes: Axes, numbers: np.ndarray, names: Sequence[str]) -> None:
    """Makes x the axis of layers: from the first to the last, each where its number is."""
    pad = max(0.5, 0.02 * float(numbers[-1] - numbers[0]))
    axes.set_xlim(numbers[0] - pad, numbers[-1] + pad)
    axes.set_xlabel("layer")
    _name(axes.xaxis, numbers, names, _NEAR_ACROSS)


def layers_down(axes: Axes, names: Sequence[str]) -> None:
    """Names the layers of rows 0, 1, ... on y."""
    axes.set_ylabel("layer")
    _name(axes.yaxis, np.arange(len(names)), names, _NEAR_DOWN)


def layer_name(name: str) -> str:
    """Returns what a figure calls a row of a grid."""
    return "read-out" if name == READOUT else name


def choose_evenly(num_items: int, most: int) -> np.ndarray:
    """Chooses about `most` places of `num_items`, evenly, the first and the last among them."""
    return np.unique(
        np.linspace(0, max(0, num_items - 1), min(num_items, most)).round().astype(int)
    )


def _name(axis: Any, places: np.ndarray, names: Sequence[str], near: float) -> None:
    chosen = _choose_named(places, names, near)
    axis.set_major_locator(FixedLocator(places[chosen].tolist()))
    axis.set_ticklabels([layer_name(names[index]) for index in chosen])


def _choose_named(places: np.ndarray, names: Sequence[str], near: float) -> list[int]:
    """Indices of the layers that are named."""
    last = len(names) - 1
    extent = float(places[-1] - places[0])
    every = _round_step(len(names))
    between = [
        index for index, name in enumerate(names) if name.isdecimal() and int(name) % every == 0
    ]
    gap = 0.7 * every if every > 1 else 0.0
    free = [
        index
        for index in between
        if places[index] - places[0] > gap
        and places[last] - places[index] > max(gap, near * extent)
    ]
    return sorted({0, *free, last})


def _round_step(num_layers: int) -> int:
    """1 of a shallow net, else the first of 5, 10, 20, 50, ... that leaves few enough ticks."""
    if num_layers <= _MOST_TICKS:
        return 1
    step, larger = 5, itertools.cycle((2.0, 2.0, 2.5))
    while num_layers / step > _MOST_TICKS:
        step = int(step * next(larger))
    return step
