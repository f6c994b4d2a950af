"""`histograms.csv`: how the entries of z and h are distributed, in bins that are merged exactly.

The bins of a tensor have the width 2^k and the edges m 2^k, m an integer. k is the smallest for
which the finite entries lie in at most `MOST_BINS` neighbouring bins, but no bin is narrower than
the spacing of floats at the largest magnitude, or than the smallest normal number. So 0 is always
an edge, and every edge is a float. Since two bins of one width are one of the next, micro-batches,
each with a k of its own, add up to the very counts of all their entries together.

Axes: G tensors of one stack, N entries of one, B bins; P tensors of all passes; O owners, a row of
`layers.csv` and a quantity each; C columns of what `counts` makes; R rows of the table.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vgexp.probe import stacks
from vgexp.probe.block import Labels
from vgexp.probe.moments import GroupNumbers, StackMeasure
from vgexp.records import Floats, Rows

MOST_BINS = 64
"""The most bins of an owner's entries."""
QUANTITIES: Mapping[str, str] = {"z": "preact", "h": "act"}
"""Quantity -> its name in this table."""

_MOST_BINS_LOG2 = 6
_DOUBLE_FRACTION_BITS, _DOUBLE_BIAS = 52, 1023
_Integers = NDArray[np.int64]

# ------------------------------------------------------------ counting, where the tensors are


def counts(x_GN: Tensor) -> Tensor:
    """Counts entries in bins: [G, C] integers k, the first bin's m, and B counts from there.

    x is in the bin of m where m 2^k <= x < (m + 1) 2^k; what is not finite is in none. Where
    nothing is finite every count is 0. It waits for no device, and a sum of integers is the same
    in any order.
    """
    chunks = torch.split(x_GN, max(1, stacks.most_entries(x_GN) // len(x_GN)), 1)
    lowest_G, highest_G = _finite_range(chunks)
    k_G, first_G = _lattice(lowest_G, highest_G, x_GN.dtype)
    width_G1 = _power_of_two(k_G).to(x_GN.dtype)[:, None]
    first_G1 = first_G.to(x_GN.dtype)[:, None]
    # The bin after the last is for what is not finite.
    counts_GB = torch.zeros(len(x_GN), MOST_BINS + 1, dtype=torch.int64, device=x_GN.device)
    one = torch.ones((), dtype=torch.int64, device=x_GN.device)
    for chunk in chunks:
        # Exact; the floor of a product with 2^-k is not: of small negative numbers that is -0.
        bin_GN = torch.div(chunk, width_G1, rounding_mode="floor").sub_(first_G1)
        # A quotient of what is not finite is nan, since its remainder is.
        bin_GN = bin_GN.nan_to_num_(MOST_BINS, MOST_BINS, MOST_BINS).long()
        counts_GB.scatter_add_(1, bin_GN, one.expand_as(bin_GN))
    return torch.cat((k_G[:, None], first_G.long()[:, None], counts_GB[:, :MOST_BINS]), 1)


def _counting(quantity: str) -> StackMeasure:
    return lambda x, _slope, _first: {_name(quantity): (counts(x.flatten(1)),)}


def _name(quantity: str) -> str:
    return f"counts of {quantity}"


REDUCTIONS: Mapping[str, StackMeasure] = {
    "z": _counting("z"),
    "h": _counting("h"),
    "hy": _counting("h"),
}
"""Role -> the measurement of a stack that is made at a step with histograms."""


def _finite_range(chunks: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """[G] the smallest and the largest finite entry, in float64; 0 where there is none."""
    inf = torch.inf
    lowest_G = torch.stack([x.nan_to_num(inf, inf, inf).amin(1) for x in chunks]).amin(0)
    highest_G = torch.stack([x.nan_to_num(-inf, -inf, -inf).amax(1) for x in chunks]).amax(0)
    has_any_G = lowest_G <= highest_G
    lowest_G, highest_G = (torch.where(has_any_G, x, 0.0) for x in (lowest_G, highest_G))
    return lowest_G.double(), highest_G.double()


def _lattice(lowest_G: Tensor, highest_G: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """[G] k, and [G] m of the lowest entry's bin, a float64."""
    info = torch.finfo(dtype)
    normal, digits = math.frexp(info.tiny)[1] - 1, 2 - math.frexp(info.eps)[1]
    peak_G = torch.maximum(lowest_G.abs(), highest_G.abs())
    finest_G = (_exponent(peak_G, normal) - digits).clamp(min=normal)
    # By halves, since the range may exceed the largest float.
    exponent_G = _exponent(highest_G / 2 - lowest_G / 2, normal) + 1
    # A range from 2^(e-1) to 2^e has more than B bins of width 2^(e-7), at most 65 of the next, and
    # at most 33 of the one after. All three are tried: the range was rounded.
    tried_G = exponent_G - _MOST_BINS_LOG2 - 1
    tried_3G = torch.stack([tried_G, tried_G + 1, tried_G + 2]).maximum(finest_G)
    width_3G = _power_of_two(tried_3G)
    num_bins_3G = _floor(highest_G, width_3G) - _floor(lowest_G, width_3G) + 1
    k_G = (tried_G + (num_bins_3G > MOST_BINS).sum(0)).maximum(finest_G)
    return k_G, _floor(lowest_G, _power_of_two(k_G))


def _exponent(x: Tensor, at_zero: int) -> Tensor:
    """The integer e for which 2^(e-1) <= x < 2^e."""
    return torch.where(x > 0, x.frexp().exponent.long(), at_zero)


def _power_of_two(exponent: Tensor) -> Tensor:
    """In float64, made of its bits: `exp2` may be rounded, `ldexp` leave float32's range."""
    return ((exponent + _DOUBLE_BIAS) << _DOUBLE_FRACTION_BITS).view(torch.float64)


def _floor(x: Tensor, width: Tensor) -> Tensor:
    return torch.div(x, width, rounding_mode="floor")


# ------------------------------------------------------------ rows, on the host


@dataclass(frozen=True)
class Histograms:
    """The counts of the passes of a step, still on the device."""

    parts: Mapping[str, Sequence[GroupNumbers]]
    """By quantity, of which those of `counts` are taken."""
    lost: frozenset[tuple[str, int]]
    """(quantity, row) of which something was not seen; such have no rows."""

    def rows(self, step: int, labels: Labels) -> Rows:
        """Makes the table's rows in forward order, by quantity and bin; waits for the device."""
        owner_P, entries_P, tables = self._tensors(labels)
        counts_PC = np.zeros((0, 2 + MOST_BINS), dtype=np.int64)
        if tables:
            counts_PC = torch.cat(tables).cpu().numpy()
        is_wanted_P = owner_P >= 0
        owners_O, owner_P = np.unique(owner_P[is_wanted_P], return_inverse=True)
        entries_O = np.zeros(len(owners_O), dtype=np.int64)
        np.add.at(entries_O, owner_P, entries_P[is_wanted_P])
        k_O, first_O, counts_OB = _merged(owner_P, len(owners_O), counts_PC[is_wanted_P])
        owner_R, bin_R = counts_OB.nonzero()
        lower_R, upper_R = _edges(first_O[owner_R] + bin_R, k_O[owner_R])
        row_R, quantity_R = np.divmod(owners_O[owner_R], len(QUANTITIES))
        names = list(QUANTITIES.values())
        columns: dict[str, Sequence[Any]] = {
            "step": [step] * len(owner_R),
            "layer": [labels.layers[row] for row in row_R],
            "name": [labels.names[row] for row in row_R],
            "quantity": [names[quantity] for quantity in quantity_R],
            "lower": Floats(lower_R),
            "upper": Floats(upper_R),
            "share": Floats(counts_OB[owner_R, bin_R] / entries_O[owner_R]),
        }
        return Rows("histograms", columns)

    def _tensors(self, labels: Labels) -> tuple[_Integers, _Integers, list[Tensor]]:
        """[P] owners in the order of rows (-1: not wanted), [P] entries, and counts."""
        place = {row: index for index, row in enumerate(labels.order)}
        owners: list[int] = []
        entries: list[int] = []
        tables: list[Tensor] = []
        for number, quantity in enumerate(QUANTITIES):
            for part in self.parts.get(_name(quantity), ()):
                for row in part.rows:
                    is_wanted = row in place and (quantity, row) not in self.lost
                    owners.append(len(QUANTITIES) * place[row] + number if is_wanted else -1)
                entries += [part.num_entries] * len(part.rows)
                tables += part.values
        return np.array(owners, dtype=np.int64), np.array(entries, dtype=np.int64), tables


def _merged(
    owner_P: _Integers, num_owners: int, counts_PC: _Integers
) -> tuple[_Integers, _Integers, _Integers]:
    """[O] k, [O] the first bin's m, [O, B] the counts of each owner's tensors together."""
    has_any_P = counts_PC[:, 2:].any(1)
    owner_P, counts_PC = owner_P[has_any_P], counts_PC[has_any_P]
    k_P, first_P, counts_PB = counts_PC[:, 0], counts_PC[:, 1], counts_PC[:, 2:]
    bins_B = np.arange(MOST_BINS)
    last_P = first_P + np.where(counts_PB > 0, bins_B, 0).max(1, initial=0)
    k_O = np.full(num_owners, np.iinfo(np.int64).min)
    np.maximum.at(k_O, owner_P, k_P)
    while True:
        # A shift is the floor of the quotient, of negative numbers as well; in C it has to be
        # below 64.
        shift_P = np.minimum(k_O[owner_P] - k_P, 63)
        first_O, last_O = np.full((2, num_owners), [[2**62], [-(2**62)]])
        np.minimum.at(first_O, owner_P, first_P >> shift_P)
        np.maximum.at(last_O, owner_P, last_P >> shift_P)
        is_too_wide_O = last_O - first_O >= MOST_BINS
        if not is_too_wide_O.any():
            break
        k_O += is_too_wide_O
    part_N, bin_N = counts_PB.nonzero()
    owner_N = owner_P[part_N]
    m_N = (first_P[part_N] + bin_N) >> shift_P[part_N]
    counts_OB = np.zeros((num_owners, MOST_BINS), dtype=np.int64)
    np.add.at(counts_OB, (owner_N, m_N - first_O[owner_N]), counts_PB[part_N, bin_N])
    return k_O, first_O, counts_OB


def _edges(m_R: _Integers, k_R: _Integers) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The bins' edges; inf where one exceeds the largest float64."""
    exponent_R = k_R.astype(np.int32)
    with np.errstate(over="ignore"):
        lower_R, upper_R = (np.ldexp(m.astype(np.float64), exponent_R) for m in (m_R, m_R + 1))
    return lower_R, upper_R
