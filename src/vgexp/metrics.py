"""Numbers read off tensors: norms that neither under- nor overflow before the dtype does, moments,
shares. Each works on the rows of a stack, so that a network's layers are measured together.

Axes: R rows (one a tensor), N entries of a row.

Squares of float32 fit into float64; those of float64 need entries that are scaled. On CPU a plain
reduction is tried first, and only the rows where it left the safe range are done again in one of
these ways. On CUDA, where looking at a value would wait for the device, all rows are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import cast

import torch
from torch import Tensor

from vgexp.torch_internals import flatten, norm_each

SMALL_TENSOR = 16_384
"""Tensors of fewer entries are copied into one stack: an operation's overhead outweighs a copy."""


_LONG, _PIECE = 2**16, 2**10
"""A row with more entries than `_LONG` is measured in pieces of `_PIECE`. A plain norm of float32
entries adds their squares in float32, and a sum outgrows what is added to it: the norm of 10^8
drawn entries is 1 % too small, that of 2^16 entries is right to 1e-6 if they are drawn and to 3e-4
if they are equal. In pieces, both are right to 1e-6."""

_UP, _UP_FROM_ZERO = 2.0**64, 2.0**100
# Bring small squares into float32's range.


def row_norms(x_RN: Tensor) -> Tensor:
    """L2 norm of each row, in x's dtype; inf only where the norm itself exceeds the dtype.

    A row with a nan gives nan, one with an inf gives inf.
    """
    if not _host(x_RN):
        return _wide_row_norms(x_RN).to(x_RN.dtype)
    norm_R = _norms(x_RN)
    plain_R = norm_R.tolist()
    unsafe = _outside(plain_R, _lower(x_RN.shape[1], x_RN.dtype))
    if len(unsafe) == len(plain_R) > 0:
        return _norms_again(x_RN, plain_R)
    if unsafe:
        rows = _together(unsafe)
        norm_R[rows] = _norms_again(x_RN[rows], [plain_R[i] for i in unsafe])
    return norm_R


def row_peaks_and_norms(size_RN: Tensor) -> tuple[Tensor, Tensor]:
    """The largest entry and the L2 norm of each row of magnitudes, none of them negative.

    A row may be multiplied in place by a power of two.
    """
    peak_R = size_RN.amax(1)
    if len(size_RN) == 1 and size_RN.dtype is torch.float32 and _host(size_RN):
        # The peak tells that squares would be lost, so that plain ones need not be tried.
        bound = math.sqrt(size_RN.shape[1]) * float(peak_R)
        if 0 < bound < _lower(size_RN.shape[1], torch.float32):
            return peak_R, row_norms(size_RN.mul_(_UP)).div_(_UP)
    return peak_R, row_norms(size_RN)


def row_rms(x_RN: Tensor) -> Tensor:
    """Root mean square of each row; nan for rows without entries."""
    return row_norms(x_RN) / math.sqrt(x_RN.shape[1])


def row_moments(x_RN: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and population standard deviation (divisor N) of each row, by two passes.

    nan for rows without entries. The mean's own rounding, at most an ulp or so of it, enters the
    deviation: a row of equal entries may give that instead of 0.
    """
    mean_R = x_RN.mean(1)
    if x_RN.shape[1] == 0:
        return mean_R, mean_R.clone()
    if not _host(x_RN):
        return _device_row_moments(x_RN)
    deviation_RN = x_RN - mean_R[:, None]
    std_R = _norms(deviation_RN) / math.sqrt(x_RN.shape[1])
    lower = _lower(x_RN.shape[1], x_RN.dtype) / math.sqrt(x_RN.shape[1])
    unsafe = _outside(std_R.tolist(), lower)
    if unsafe:
        rows = _together(unsafe)
        mean_R[rows], std_R[rows] = _wide_row_moments(x_RN[rows])
    return mean_R, std_R


def row_outliers(x_RN: Tensor, bound: float) -> tuple[Tensor, Tensor]:
    """The largest magnitude of each row, and the share of entries of magnitude `bound` or more.

    Both are nan for rows with a nan. The share is in x's dtype.
    """
    # Without |x|, which would be a copy.
    peak_R = torch.maximum(x_RN.amax(1), x_RN.amin(1).neg_())
    if not _host(x_RN):
        return peak_R, _shares_from(x_RN, bound, peak_R)
    share_R = torch.zeros_like(peak_R)
    rows = [i for i, peak in enumerate(peak_R.tolist()) if not peak < bound]
    if rows:
        share_R[rows] = _shares_from(x_RN[_together(rows)], bound, peak_R[rows])
    return peak_R, share_R


def _shares_from(x_RN: Tensor, bound: float, peak_R: Tensor) -> Tensor:
    # In place: a comparison that makes booleans is twice as slow.
    return torch.where(peak_R.isnan(), peak_R, x_RN.abs().ge_(bound).mean(1))


def norms(tensors: Sequence[Tensor]) -> Tensor:
    """L2 norm of each tensor, as one float64 vector: a float32 tensor's can exceed float32."""
    if not tensors:
        return torch.zeros(0, dtype=torch.float64)
    if not _host(tensors[0]):
        return _device_norms(tensors)
    norm_R = torch.cat([row_norms(x.reshape(1, -1)).double() for x in tensors])
    for i in torch.isinf(norm_R).nonzero().flatten().tolist():
        norm_R[i] = total_norm([tensors[i]])
    return norm_R


def total_norm(tensors: Sequence[Tensor]) -> Tensor:
    """L2 norm over all entries of all tensors, a 0-d float64: the norm of float32 tensors can
    exceed float32. 0 for no tensors; nan or inf only where an entry is (or float64 overflows).
    """
    if not tensors:
        return torch.zeros((), dtype=torch.float64)
    if not _host(tensors[0]):
        return _device_total_norm(tensors)
    num_entries = sum(map(Tensor.numel, tensors))
    if num_entries <= SMALL_TENSOR * len(tensors):
        # Many small tensors: one copy and one reduction are faster than a reduction a tensor.
        flat = flatten(list(tensors))
        norm: Tensor = _norms(flat[None])[0].double()
        parts, lower = [flat], _lower(num_entries, flat.dtype)
    else:
        parts = _few_parts(tensors)
        norm = _norm_of_all(parts)
        lower = max(_lower(num_entries, dtype) for dtype in {x.dtype for x in parts})
    if lower <= float(norm) < math.inf:
        return norm
    each = [_scaled_row_norms(x.reshape(1, -1), torch.float64) for x in parts]
    return _scaled_row_norms(torch.cat(each).reshape(1, -1))[0]


def _few_parts(tensors: Sequence[Tensor]) -> list[Tensor]:
    """The same entries with the small tensors of one dtype (biases, mostly) copied into one."""
    dtype = tensors[0].dtype
    small = [x for x in tensors if x.numel() <= SMALL_TENSOR and x.dtype == dtype]
    flat = [flatten(small)] if small else []
    return flat + [x for x in tensors if x.numel() > SMALL_TENSOR or x.dtype != dtype]


def to_device(x: Tensor, device: torch.device) -> Tensor:
    """`x` on the device; from pinned memory, since a plain copy to CUDA waits for the device."""
    return x.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else x.to(device)


def _host(x: Tensor) -> bool:
    """Whether looking at a value is free."""
    return x.is_cpu


def is_safe(norm: float, num_entries: int, dtype: torch.dtype) -> bool:
    """Whether a norm by plain squares is right: none that counts left the range of the dtype."""
    return _lower(num_entries, dtype) <= norm < math.inf


def _outside(norm_R: list[float], lower: float) -> list[int]:
    """Rows whose norm is not in the range where plain squares are right."""
    return [i for i, norm in enumerate(norm_R) if not lower <= norm < math.inf]


def _together(indices: list[int]) -> list[int] | slice:
    """Ascending indices as a slice where they are consecutive, which copies no row.

    In a net whose gradient vanishes the small rows are those of the first layers.
    """
    first, last = indices[0], indices[-1]
    return slice(first, last + 1) if last - first + 1 == len(indices) else indices


@lru_cache(maxsize=1024)
def _lower(num_entries: int, dtype: torch.dtype) -> float:
    """The norm below which squares that fell under the normal range may be missing from the sum."""
    return math.sqrt(num_entries * torch.finfo(dtype).tiny)


def _scale(x_RN: Tensor) -> Tensor:
    """A power of two near each row's largest magnitude; 1 where that is 0 or not finite.

    Half of the magnitude's power, so that it stays finite at the largest numbers of a dtype.
    """
    peak_R = x_RN.abs().amax(1)
    # Exact. torch.ldexp makes the power in float32 in torch 2.6, which float64's powers overflow.
    power_R = peak_R / (2 * torch.frexp(peak_R).mantissa)
    return torch.where(torch.isfinite(peak_R) & (peak_R > 0), power_R, 1.0)


def _scaled_row_norms(x_RN: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    if x_RN.shape[1] == 0:
        return x_RN.new_zeros(x_RN.shape[0], dtype=dtype)
    scale_R = _scale(x_RN)
    norm_R: Tensor = torch.linalg.vector_norm(x_RN / scale_R[:, None], dim=1)
    return norm_R.to(dtype) * scale_R.to(dtype) if dtype else norm_R * scale_R


def _norms_again(x_RN: Tensor, plain_R: list[float]) -> Tensor:
    """The norms of rows whose plain ones are not in the range where plain squares are right.

    Float32 entries need one multiplication where they are small: if a square was not 0, an entry
    exceeded 2^-75, and 2^64 brings the norm into the range; if all were, no entry reached 2^-74,
    and 2^100 makes the least of them 2^-49, and the squares of 2^70 of the largest no overflow.
    """
    if x_RN.dtype is not torch.float32 or not all(plain < 1 for plain in plain_R):
        return _wide_row_norms(x_RN).to(x_RN.dtype)
    up_R = [_UP if plain > 0 else _UP_FROM_ZERO for plain in plain_R]
    if len(set(up_R)) == 1:
        return _norms(x_RN * up_R[0]).div_(up_R[0])
    up = torch.tensor(up_R)
    return _norms(x_RN * up[:, None]).div_(up)


def _norms(x_RN: Tensor) -> Tensor:
    """The norms of rows by plain squares, long rows piece by piece."""
    num_entries = x_RN.shape[1]
    if num_entries <= _LONG or x_RN.dtype is torch.float64:
        return cast(Tensor, torch.linalg.vector_norm(x_RN, dim=1))
    norm_R = torch.linalg.vector_norm(piece_norms(x_RN), dim=1, dtype=torch.double)
    return cast(Tensor, norm_R.to(x_RN.dtype))


def piece_norms(x_RN: Tensor) -> Tensor:
    """[R, K]: the norms of the pieces of rows, the last of which may be shorter."""
    num_rows, num_entries = x_RN.shape
    num_pieces = num_entries // _PIECE
    whole = num_pieces * _PIECE
    if whole == num_entries:
        pieces: Tensor = torch.linalg.vector_norm(x_RN.view(num_rows, num_pieces, _PIECE), dim=2)
        return pieces
    pieces_RK = torch.linalg.vector_norm(
        x_RN[:, :whole].reshape(num_rows, num_pieces, _PIECE), dim=2
    )
    rest_R1 = torch.linalg.vector_norm(x_RN[:, whole:], dim=1, keepdim=True)
    return torch.cat([pieces_RK, rest_R1], 1)


def _norm_of_all(tensors: Sequence[Tensor]) -> Tensor:
    """The norm of all entries by plain squares, long tensors piece by piece; 0-d, float64."""
    long = [x for x in tensors if x.numel() > _LONG and x.dtype is not torch.float64]
    short = [x for x in tensors if x.numel() <= _LONG or x.dtype is torch.float64]
    norms = [piece_norms(x.reshape(1, -1))[0] for x in long]
    if short:
        norms.append(torch.stack(norm_each(short)))
    return cast(Tensor, torch.linalg.vector_norm(torch.cat(norms), dtype=torch.double))


def _wide_row_norms(x_RN: Tensor) -> Tensor:
    """[R], float64: no square leaves the range."""
    if x_RN.dtype is torch.float64:
        return _scaled_row_norms(x_RN)
    return cast(Tensor, torch.linalg.vector_norm(x_RN, dim=1, dtype=torch.float64))


def _wide_row_moments(x_RN: Tensor) -> tuple[Tensor, Tensor]:
    """The moments by two passes, as `row_moments` takes them, and no square leaves the range."""
    scale_R = _scale(x_RN) if x_RN.dtype is torch.float64 else None
    wide_RN = x_RN.double() if scale_R is None else x_RN / scale_R[:, None]
    mean_R = wide_RN.mean(1)
    std_R = row_rms(wide_RN - mean_R[:, None])
    if scale_R is not None:
        mean_R, std_R = mean_R * scale_R, std_R * scale_R
    return mean_R.to(x_RN.dtype), std_R.to(x_RN.dtype)


def _device_norms(tensors: Sequence[Tensor]) -> Tensor:
    if any(x.dtype is torch.float64 for x in tensors):
        each = [_scaled_row_norms(x.reshape(1, -1), torch.float64) for x in tensors]
        return torch.cat(each)
    return torch.stack(norm_each(list(tensors), 2, torch.float64))


def _device_total_norm(tensors: Sequence[Tensor]) -> Tensor:
    if any(x.dtype is torch.float64 for x in tensors):
        flat = torch.cat([x.reshape(-1).double() for x in tensors])
        return _scaled_row_norms(flat[None])[0]
    return cast(Tensor, torch.linalg.vector_norm(_device_norms(tensors)))


def _device_row_moments(x_RN: Tensor) -> tuple[Tensor, Tensor]:
    if x_RN.dtype is not torch.float64:
        var_R, mean_R = torch.var_mean(x_RN.double(), 1, correction=0)
        return mean_R.to(x_RN.dtype), var_R.sqrt().to(x_RN.dtype)
    scale_R = _scale(x_RN)
    var_R, mean_R = torch.var_mean(x_RN / scale_R[:, None], 1, correction=0)
    return mean_R * scale_R, var_R.sqrt() * scale_R
