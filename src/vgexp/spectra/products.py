"""Computes singular values of long products of matrices, without losing small ones to large ones.

A product of floats in the usual form keeps what is above 1e-16 of its largest singular value. Here
it is kept as P = Q D T: Q with orthonormal columns, D diagonal as logarithms in falling order, T
well conditioned. One more factor is taken in by a QR decomposition of (J Q) D, whose column scales
it keeps apart: accumulation by Gram-Schmidt (Benettin 1980; Geist 1990), sorted as for chains in
quantum Monte Carlo (Loh 1992; Tomas 2012). What D T has for singular values is found by QR
decompositions of its transposes (Mathias & Stewart 1993), which couple values less the farther
apart they are, and then by SVDs of windows of near ones.

However long the product, values are right to about 1e-8 of themselves as long as each factor alone
is: a direction that one factor shrinks by 1e-8 beside its others is known to 1e-8. Below a factor's
own rounding (`RANK` times its rows, of a column's length) values are 0: a factor that is singular,
as one with dead units is, takes them away for good.

Axes: M rows of a factor, N rows of the last, K columns, R rank.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from vgexp import metrics

RANK = 2.0**-50
"""Share of a column's length, a row, below which the column lies in the span of the others."""
_GOOD = 100.0
"""Largest entry of T."""
_HUGE = 500.0
"""A logarithm whose exp, times an entry of R, is still a float; of orders that are no good."""
_DIRECT = math.log(1e4)
"""Largest over smallest of D, in logarithms, up to which one SVD is as good."""
_SWEEPS = 3
"""QR decompositions of transposes: what couples values of ratio r is then r^(2 * 3)."""
_CORE = math.log(1e4)
"""Ratio of the values that are taken of a window."""
_MARGIN = math.log(1e3)
"""Ratio of those that are added at either end: 1e-18 is neglected, 1e-7 the smallest taken."""


@dataclass(frozen=True)
class Product:
    """J_l ... J_1 = Q D T Z, in float64; Z, an orthonormal rotation of the input, is not kept."""

    q_NR: Tensor
    log_d_R: Tensor
    t_RK: Tensor
    num_inputs: int

    @classmethod
    def of(cls, j_MN: Tensor) -> Product:
        """Makes a product of one factor."""
        no_scales_N = torch.zeros(j_MN.shape[1], dtype=torch.float64)
        q_MR, log_d_R, t_RN = _factored(j_MN, no_scales_N)
        return cls(q_MR, log_d_R, torch.linalg.qr(t_RN.T).R.T, j_MN.shape[1])

    def then(self, j_MN: Tensor) -> Product:
        """Multiplies by a further matrix from the left: J P."""
        q_MR, log_d_R, t_RK = _factored(j_MN @ self.q_NR, self.log_d_R)
        return Product(q_MR, log_d_R, t_RK @ self.t_RK, self.num_inputs)

    def log_singular_values(self) -> Tensor:
        """ln of all min(N, inputs) singular values in falling order; -inf: 0."""
        num_values = min(len(self.q_NR), self.num_inputs)
        return _padded(_log_values(self.t_RK.T, self.log_d_R), num_values)


def log_singular_values(j_MN: Tensor) -> Tensor:
    """ln of the min(M, N) singular values of one matrix in falling order; -inf: 0.

    Columns of very different lengths, such as those of W diag(phi'), keep their small values.
    """
    length_N = metrics.row_norms(j_MN.T)
    unit_MN = torch.where(length_N > 0, j_MN / length_N, 0.0)
    return _padded(_log_values(unit_MN, length_N.log()), min(j_MN.shape))


def effective_rank(log_values_K: Tensor) -> float:
    """exp of the entropy of sigma_i^2 / sum sigma^2: 1 where one dominates, K where all agree.

    As Roy & Vetterli (2007), who take sigma_i itself; squares are shares of a gradient's mean
    square. 0 where all are 0.
    """
    if not torch.isfinite(log_values_K[:1]).all():
        return 0.0 if len(log_values_K) == 0 or log_values_K[0] == -math.inf else math.nan
    p_K = torch.softmax(2 * log_values_K, 0)
    return float(torch.special.entr(p_K).sum().exp())


def _factored(b_MK: Tensor, log_d_K: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Q [M, R], log D [R] and T [R, K] of B diag(exp log_d); T has no entry far above 1."""
    length_K = metrics.row_norms(b_MK.T)
    unit_MK = b_MK / torch.where(length_K > 0, length_K, 1.0)
    log_size_K = log_d_K + length_K.log()
    order_K = torch.argsort(log_size_K, descending=True, stable=True)
    order_K = order_K[log_size_K[order_K] > -math.inf]
    for improved in (_as_it_is, _dependent_last, _pivoted):
        order_K = improved(unit_MK, log_size_K, order_K)
        q_MR, log_d_R, upper_RK, is_right = _in_order(unit_MK[:, order_K], log_size_K[order_K])
        if is_right:
            break
    t_RK = b_MK.new_zeros(len(log_d_R), b_MK.shape[1])
    t_RK[:, order_K] = upper_RK
    return q_MR, log_d_R, t_RK


def _as_it_is(_unit_MK: Tensor, _log_size_K: Tensor, order_K: Tensor) -> Tensor:
    """By length."""
    return order_K


def _dependent_last(unit_MK: Tensor, _log_size_K: Tensor, order_K: Tensor) -> Tensor:
    """With those last that lie in the span of the ones before, and would make rows of noise."""
    remaining = torch.linalg.qr(unit_MK[:, order_K], mode="r").R.diagonal().abs()
    is_new_K = torch.zeros(len(order_K), dtype=torch.bool)
    is_new_K[: len(remaining)] = remaining > RANK * len(unit_MK)
    return torch.cat((order_K[is_new_K], order_K[~is_new_K]))


def _in_order(unit_MK: Tensor, log_size_K: Tensor) -> tuple[Tensor, Tensor, Tensor, bool]:
    """Q, log D and T, upper triangular, of columns in their order; and whether it is a good one:

    dependent columns come last, and no entry of T is large.
    """
    q, r = torch.linalg.qr(unit_MK)
    is_new = r.diagonal().abs() > RANK * len(unit_MK)
    rank = int(is_new.to(torch.int64).cumprod(0).sum())
    pivot_R, log_size_R = r.diagonal()[:rank], log_size_K[:rank]
    share_RK = torch.exp((log_size_K[None, :] - log_size_R[:, None]).clamp(max=_HUGE))
    upper_RK = r[:rank] / pivot_R[:, None] * share_RK
    noise = r[rank:].abs().amax() if rank < len(r) else 0.0
    is_right = bool(noise <= RANK * len(unit_MK)) and bool((upper_RK.abs() < _GOOD).all())
    return q[:, :rank] * pivot_R.sign(), pivot_R.abs().log() + log_size_R, upper_RK, is_right


def _pivoted(unit_MK: Tensor, log_size_K: Tensor, order_K: Tensor) -> Tensor:
    """The order in which each column is the longest of what the ones before have left."""
    left_MK = unit_MK[:, order_K]
    log_left_K = log_size_K[order_K]
    places: list[int] = []
    rest_K = torch.ones(len(order_K), dtype=torch.bool)
    for _ in range(min(left_MK.shape)):
        length_K = left_MK.square().sum(0).sqrt()
        is_new_K = rest_K & (length_K > RANK * len(left_MK))
        if not is_new_K.any():
            break
        place = int(torch.where(is_new_K, log_left_K + length_K.log(), -math.inf).argmax())
        q_M = left_MK[:, place] / length_K[place]
        left_MK.addr_(q_M, q_M @ left_MK, alpha=-1)
        places.append(place)
        rest_K[place] = False
    behind = torch.nonzero(rest_K).flatten()
    return order_K[torch.cat((torch.tensor(places, dtype=torch.int64), behind))]


def _log_values(b_MK: Tensor, log_d_K: Tensor) -> Tensor:
    """ln of the singular values above 0 of B diag(exp log_d), in falling order."""
    _, log_d_R, t_RK = _factored(b_MK, log_d_K)
    if len(log_d_R) == 0:
        return log_d_R
    if log_d_R.max() - log_d_R.min() < _DIRECT:
        return _of_block(log_d_R, t_RK)
    for _ in range(_SWEEPS):
        _, log_d_R, t_RK = _factored(t_RK.T, log_d_R)
    # T is upper triangular but for the order of its columns.
    order_R = t_RK.ne(0).flip(0).to(torch.uint8).argmax(0)
    order_R = torch.argsort(order_R, descending=True, stable=True)
    return _by_windows(log_d_R, t_RK[:, order_R])


def _by_windows(log_d_R: Tensor, upper_RR: Tensor) -> Tensor:
    """As `_of_block`, a window at a time: each with neighbours, which are then left out."""
    falling = log_d_R.cummin(0).values.tolist()
    parts, start = [], 0
    while start < len(falling):
        end = _first(falling, start, falling[start] - _CORE)
        low = _first(falling, 0, falling[start] + _MARGIN)
        high = _first(falling, end - 1, falling[end - 1] - _MARGIN)
        values = _of_block(log_d_R[low:high], upper_RR[low:high, low:high])
        parts.append(values[start - low : end - low])
        start = end
    return torch.cat(parts)


def _first(falling: list[float], start: int, below: float) -> int:
    """The first index from `start` on whose value is below; else the length."""
    places = (i for i in range(start, len(falling)) if falling[i] < below)
    return next(places, len(falling))


def _of_block(log_d_R: Tensor, t_RK: Tensor) -> Tensor:
    scale = log_d_R.max()
    values_R = torch.linalg.svdvals(torch.exp(log_d_R - scale)[:, None] * t_RK)
    log_values_R: Tensor = values_R.log() + scale
    return log_values_R


def _padded(log_values_R: Tensor, num_values: int) -> Tensor:
    zeros = log_values_R.new_full((num_values - len(log_values_R),), -math.inf)
    return torch.cat((log_values_R, zeros))
