"""Gradient clipping, in place, between the backward pass and the optimizer step.

A rule compares norms with limits and multiplies by min(1, limit / norm). What is not finite (the
whole gradient for `norm`, `value` and `auto`, one tensor for `layer`, one row for `agc`) is left
as it is: inf * 0 would hide a divergence, and min(inf, limit) more so.

On CPU a rule looks at values and stops where nothing exceeds its limit. On CUDA, where looking
would wait for the device, every entry is multiplied, mostly by 1.

Axes: R tensors or rows, each with a norm of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import singledispatch
from typing import Any, final

import torch
from torch import Tensor, nn

from vgexp import metrics
from vgexp.config import (
    AgcClipConfig,
    AutoClipConfig,
    ClipConfig,
    LayerClipConfig,
    NoClipConfig,
    NormClipConfig,
    ValueClipConfig,
    unmade,
)
from vgexp.torch_internals import multiply_each, norm_each

HISTORY = 1000
"""Number of norms that `auto` remembers."""

AGC_EPSILON = 1e-3
"""A row of weights with a smaller norm is clipped as if its norm were this."""

_COARSE = 2.0**-100
"""A smaller factor is applied in two multiplications: float32 may not hold the factor itself."""

Rule = Callable[[list[Tensor], Tensor], Tensor]
"""Clips gradients in place, given their total norm; returns whether any changed, a 0-d bool."""


@dataclass(frozen=True)
class Clipped:
    """The result of clipping."""

    norm: Tensor
    """The total norm after clipping, measured again if anything changed; 0-d float64."""
    changed: Tensor
    """Whether any entry changed; 0-d bool."""


@final
class Clip:
    """A rule of clipping, with the norms that it remembers if it needs them."""

    def __init__(self, rule: Rule | None, history: _History | None = None) -> None:
        self._rule = rule
        self._history = history

    @property
    def is_none(self) -> bool:
        """Whether no gradient is ever changed."""
        return self._rule is None

    def __call__(self, parameters: Sequence[nn.Parameter], norm: Tensor) -> Clipped:
        """Clips `p.grad` of each parameter in place; `norm` is the total norm of these, 0-d."""
        if self._rule is None:
            return Clipped(norm, _unchanged(norm))
        with torch.no_grad():
            return self._clipped(self._rule, parameters, norm)

    @staticmethod
    def _clipped(rule: Rule, parameters: Sequence[nn.Parameter], norm: Tensor) -> Clipped:
        grads = [p.grad for p in parameters if p.grad is not None]
        changed = rule(grads, norm)
        if _host(changed):
            return Clipped(metrics.total_norm(grads) if changed else norm, changed)
        return Clipped(torch.where(changed, metrics.total_norm(grads), norm), changed)

    def state_dict(self) -> dict[str, Any]:
        """Returns the norms that the rule remembers; empty where it remembers none."""
        return self._history.state_dict() if self._history else {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores `state`."""
        if self._history:
            self._history.load_state_dict(state)


@singledispatch
def build(config: ClipConfig, matrices: Sequence[nn.Parameter]) -> Clip:  # noqa: ARG001
    """Builds the configured clip; `matrices` are all weight matrices but the read-out's."""
    raise unmade(config)


@build.register
def none(_config: NoClipConfig, _matrices: Sequence[nn.Parameter]) -> Clip:
    """Gradients are not clipped."""
    return Clip(None)


@build.register
def norm(config: NormClipConfig, _matrices: Sequence[nn.Parameter]) -> Clip:
    """The whole gradient is scaled by min(1, threshold / norm) (Pascanu et al. 2013)."""
    return Clip(lambda grads, norm: _scale_whole(grads, norm, config.threshold))


@build.register
def value(config: ValueClipConfig, _matrices: Sequence[nn.Parameter]) -> Clip:
    """Each entry is cut at plus and minus the threshold."""

    def rule(grads: list[Tensor], norm: Tensor) -> Tensor:
        if not grads or _surely_within(norm, config.threshold):
            return _unchanged(norm)
        dtype = grads[0].dtype
        limit = torch.full_like(norm, min(config.threshold, torch.finfo(dtype).max), dtype=dtype)
        limit.masked_fill_(~torch.isfinite(norm), torch.inf)
        changed = (_peak(grads) > limit).any()
        if not _host(changed):
            for grad in grads:
                grad.clamp_(-limit, limit)
        elif changed:
            for grad in grads:
                grad.clamp_(-config.threshold, config.threshold)
        return changed

    return Clip(rule)


@build.register
def layer(config: LayerClipConfig, _matrices: Sequence[nn.Parameter]) -> Clip:
    """Each parameter tensor, biases too, is scaled to a norm of at most the threshold."""

    def rule(grads: list[Tensor], norm: Tensor) -> Tensor:
        if not grads or _surely_within(norm, config.threshold):
            return _unchanged(norm)
        return _scale_each(grads, metrics.norms(grads), config.threshold)

    return Clip(rule)


@build.register
def agc(config: AgcClipConfig, matrices: Sequence[nn.Parameter]) -> Clip:
    """Each row is scaled to at most a share of its weights' norm (Brock et al. 2021, eq. 3).

    G_i <- G_i min(1, lambda max(|W_i|, 1e-3) / |G_i|), lambda the threshold, row i of dimension 0;
    the read-out and everything that is no weight matrix are left alone.
    """

    def rule(_grads: list[Tensor], norm: Tensor) -> Tensor:
        changed = _unchanged(norm)
        if _surely_within(norm, config.threshold * AGC_EPSILON):
            return changed
        for stack in _stacks(matrices):
            changed = changed | _scale_rows(stack, config.threshold)
        return changed

    return Clip(rule)


@build.register
def auto(config: AutoClipConfig, _matrices: Sequence[nn.Parameter]) -> Clip:
    """The norm threshold is a percentile of the norms seen so far (Seetharaman et al. 2020).

    Of the last 1,000 finite total norms before clipping, this one included, by linear
    interpolation. Where that percentile is 0, the gradient becomes 0.
    """
    history = _History(config.threshold)
    return Clip(lambda grads, norm: _scale_whole(grads, norm, history.limit(norm)), history)


@final
class _History:
    """A ring of the last finite norms, kept on their device so that nothing waits for it."""

    def __init__(self, percentile: float) -> None:
        self._share = percentile / 100
        self._ring = torch.full((HISTORY,), torch.nan, dtype=torch.float64)
        self._count = torch.zeros((), dtype=torch.int64)

    def limit(self, norm: Tensor) -> Tensor:
        """Appends `norm` if it is finite, and returns the percentile of all remembered norms."""
        if self._ring.device != norm.device:
            self._ring = metrics.to_device(self._ring, norm.device)
            self._count = metrics.to_device(self._count, norm.device)
        finite = torch.isfinite(norm)
        slot = (self._count % HISTORY).reshape(1)
        entry = torch.where(finite, norm, self._ring[slot])
        self._ring.index_copy_(0, slot, entry)
        self._count += finite
        return torch.nanquantile(self._ring, self._share)

    def state_dict(self) -> dict[str, Any]:
        return {"ring": self._ring.cpu().clone(), "count": int(self._count)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._ring, self._count = state["ring"].clone(), torch.tensor(state["count"])


def _host(x: Tensor) -> bool:
    """Whether a value can be read without waiting for a device."""
    return x.device.type == "cpu"


def _surely_within(norm: Tensor, limit: float | Tensor) -> bool:
    """Whether it is known, without waiting for a device, that nothing exceeds `limit`."""
    return _host(norm) and bool(norm <= limit)


def _unchanged(norm: Tensor) -> Tensor:
    return norm.new_zeros((), dtype=torch.bool)


def _scale_whole(grads: list[Tensor], norm: Tensor, limit: float | Tensor) -> Tensor:
    if not grads or _surely_within(norm, limit):
        return _unchanged(norm)
    return _scale_each(grads, norm.expand(len(grads)), limit)


def _scale_each(grads: list[Tensor], norm_R: Tensor, limit: float | Tensor) -> Tensor:
    """Scales tensor r by min(1, limit / norm_R[r]); returns whether any changed."""
    coarse_R, fine_R = _factors(norm_R, limit, grads[0].dtype)
    changed = (coarse_R != 1).any()
    _multiply(grads, coarse_R)
    _multiply(grads, fine_R)
    return changed


def _multiply(tensors: list[Tensor], factor_R: Tensor) -> None:
    if not _host(factor_R):
        multiply_each(tensors, factor_R.unbind())
    elif bool((factor_R != 1).any()):
        multiply_each(tensors, factor_R.tolist())


def _factors(norm_R: Tensor, limit: float | Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Returns min(1, limit / norm) as two factors in `dtype`, both exactly 1 where nothing changes.

    1 where the norm is 0 or not finite. The second is 1 unless the factor is below 2^-100.
    """
    over_R = (norm_R > limit) & torch.isfinite(norm_R)
    factor_R = torch.where(over_R, limit / norm_R, 1.0)
    coarse_R = factor_R.clamp(min=_COARSE)
    return coarse_R.to(dtype), (factor_R / coarse_R).to(dtype)


def _peak(tensors: list[Tensor]) -> Tensor:
    """Returns magnitudes among which is the largest of all entries; nan where an entry is nan."""
    if sum(x.numel() for x in tensors) <= metrics.SMALL_TENSOR * len(tensors):
        return torch.cat([x.flatten() for x in tensors]).abs().amax(0, keepdim=True)
    return torch.stack(norm_each(tensors, torch.inf))


def _stacks(matrices: Sequence[nn.Parameter]) -> list[list[tuple[Tensor, Tensor]]]:
    """(W, dL/dW) of those that have one; small ones with rows of one length together."""
    stacks: dict[tuple[int, int], list[tuple[Tensor, Tensor]]] = {}
    for i, p in enumerate(matrices):
        if p.grad is not None:
            alone = i if p.numel() > metrics.SMALL_TENSOR else -1
            stacks.setdefault((p[0].numel(), alone), []).append((p, p.grad))
    return list(stacks.values())


def _scale_rows(stack: Sequence[tuple[Tensor, Tensor]], share: float) -> Tensor:
    """Scales rows by `agc`'s rule; returns whether any changed."""
    # In float64 neither a row's norm nor a square leaves the range.
    grad_R = metrics.row_norms(torch.cat([grad.flatten(1) for _, grad in stack]).double())
    weight_R = metrics.row_norms(torch.cat([weight.flatten(1) for weight, _ in stack]).double())
    limit_R = share * weight_R.clamp(min=AGC_EPSILON)
    coarse_R, fine_R = _factors(grad_R, limit_R, stack[0][1].dtype)
    changed = (coarse_R != 1).any()
    if _host(changed) and not changed:
        return changed
    for factor_R in (coarse_R, fine_R):
        parts = factor_R.split_with_sizes([len(grad) for _, grad in stack])
        for (_, grad), part_R in zip(stack, parts, strict=True):
            grad.mul_(part_R.reshape(-1, *[1] * (grad.ndim - 1)))
    return changed
