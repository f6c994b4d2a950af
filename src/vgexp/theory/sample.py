"""Describes examples for theory: their lengths, their likeness, and the loss's gradient at the
read-out.

Axes: B examples, F features, A groups of examples of about one length, C outputs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

FEWEST_GROUPS, MOST_GROUPS = 8, 16
NUM_DRAWS = 64
"""Draws of the outputs of a batch over which the loss's gradient is averaged."""
_AT_ONCE = 16
"""Draws whose gradients one backward pass takes."""
_STEP = 0.1

MeanLoss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Sample:
    """The examples of an update, and what is minimised: `losses.Loss.mean`."""

    inputs: Tensor
    """[B, ...], flattened to features."""
    targets: Tensor
    loss: MeanLoss
    is_mean: bool = False
    """Whether the loss is the mean of each target's own, so that it may be asked of many draws of
    the outputs as if they were one batch."""

    @property
    def x_BF(self) -> Tensor:
        """The inputs in float64, on the CPU."""
        return self.inputs.detach().flatten(1).to("cpu", torch.float64)


@dataclass(frozen=True)
class Lengths:
    """Examples in groups of about equal length and, but for one example, of equal size.

    Means over groups are taken as if the sizes were equal.
    """

    group_B: Tensor
    """Each example's group."""
    share_A: Tensor
    """Each group's share of the examples."""
    square_A: Tensor
    """|x|^2, the mean of a group."""
    covariance: float
    """x . x', the mean over pairs of different examples; of one example |x|^2."""
    cosine: float = 0.0
    """Root mean square cosine of pairs of different examples; 0 of one example."""

    @property
    def num_examples(self) -> int:
        """B."""
        return len(self.group_B)


def lengths(x_BF: Tensor) -> Lengths:
    """Computes the lengths of examples and how alike they are."""
    num = len(x_BF)
    square_B = x_BF.square().sum(1)
    num_groups = _num_groups(num)
    group_B = torch.empty(num, dtype=torch.int64)
    group_B[square_B.argsort(stable=True)] = torch.arange(num) * num_groups // num
    counts_A = torch.bincount(group_B, minlength=num_groups).double()
    square_A = torch.zeros_like(counts_A).index_add(0, group_B, square_B) / counts_A
    total = float(square_B.sum())
    covariance = (
        total if num == 1 else (float(x_BF.sum(0).square().sum()) - total) / (num - 1) / num
    )
    return Lengths(group_B, counts_A / num, square_A, covariance, _cosine(x_BF))


def _cosine(x_BF: Tensor) -> float:
    num = len(x_BF)
    if num < 2:
        return 0.0
    unit_BF = torch.nn.functional.normalize(x_BF, dim=1)
    squares = float((unit_BF @ unit_BF.T).square().sum()) - num
    return math.sqrt(max(squares, 0.0) / (num * (num - 1)))


def _num_groups(num: int) -> int:
    """As many groups of equal size as there can be; about equal where those are fewer than 8."""
    exact = max(count for count in range(1, MOST_GROUPS + 1) if num % count == 0)
    return max(exact, min(num, FEWEST_GROUPS))


@dataclass(frozen=True)
class OutputGradient:
    """N dL/dz at the read-out over initialisations."""

    square_A: Tensor
    """Mean square over outputs, of each group of examples."""
    square_R: Tensor
    """The batch's mean square in each draw, over the mean of all."""
    log_slope: float
    """d ln(mean square) / d ln(variance of the outputs)."""
    alike: float
    """Mean square cosine between different examples."""
    together: float
    """Correlation between different examples, with its sign."""
    aligned_A: Tensor
    """Mean square of z . dL/dz of each group, beyond what vectors in no relation would have."""
    aligned_R: Tensor
    """The batch's mean square of z . dL/dz in each draw, over the mean of all."""

    def log_moments(self, share: float) -> tuple[float, float]:
        """Mean and variance over draws of the logarithm of the batch's mean square, of mean 1,
        where to each draw's `share` times what its z . dL/dz brings is added."""
        log_R = self.square_R.log() + torch.log1p(share * self.aligned_R) - math.log1p(share)
        known = log_R.isfinite()
        if int(known.sum()) < 2:
            return math.nan, math.nan
        return float(log_R[known].mean()), float(log_R[known].var(correction=1))


def by_group(values_B: Tensor, groups: Lengths) -> Tensor:
    """Computes the mean of each group of values [B]."""
    total_A = torch.zeros_like(groups.share_A).index_add(0, groups.group_B, values_B)
    return total_A / (groups.share_A * groups.num_examples)


def output_gradient(
    sample: Sample, groups: Lengths, q_A: Tensor, correlation: float, num_outputs: int
) -> OutputGradient:
    """Of outputs N(0, q), independent of the targets, correlated between examples.

    Outputs of that distribution are drawn from a generator of its own, always the same, and the
    loss is asked for its gradient: exact where outputs are small (softmax: 1/C less the target),
    else good to half a percent.
    """
    unit = _unit(groups.num_examples, correlation, num_outputs, NUM_DRAWS)
    q_B1 = q_A[groups.group_B][:, None]
    delta = _gradients(sample, unit * q_B1.sqrt())
    mean_square = delta.square().mean(-1)
    square_A = by_group(mean_square.mean(0), groups)
    ends = [
        _gradients(sample, unit * (q_B1 * math.exp(step)).sqrt()).square().mean()
        for step in (-_STEP, _STEP)
    ]
    outputs = unit * q_B1.sqrt()
    dots_RB = (outputs * delta).sum(-1).square()
    beyond_B = dots_RB.mean(0) - q_B1[:, 0] * num_outputs * mean_square.mean(0)
    total = mean_square.mean(1)
    known = bool((total > 0).all()) and all(float(end) > 0 for end in ends)
    return OutputGradient(
        square_A,
        total / total.mean().clamp(min=1e-300),
        float((ends[1] / ends[0]).log()) / (2 * _STEP) if known else math.nan,
        _alike(delta),
        _together(delta),
        by_group(beyond_B, groups).clamp(min=0),
        dots_RB.mean(1) / dots_RB.mean().clamp(min=1e-300),
    )


def log_squares(
    sample: Sample,
    groups: Lengths,
    q_A: Tensor,
    correlation: float,
    num_outputs: int,
    moved: Sequence[float],
) -> list[float]:
    """ln of the mean square of N dL/dz at outputs whose ln variance is so far from that of q, over
    that at q itself; to a percent."""
    unit = _unit(len(groups.group_B), correlation, num_outputs, NUM_DRAWS // 4)
    q_B1 = q_A[groups.group_B][:, None]
    squares = [
        float(_gradients(sample, unit * (q_B1 * math.exp(by)).sqrt()).square().mean())
        for by in (0.0, *moved)
    ]
    return [
        math.log(square / squares[0]) if square > 0 < squares[0] else math.nan
        for square in squares[1:]
    ]


def _unit(num_examples: int, correlation: float, num_outputs: int, num_draws: int) -> Tensor:
    """Outputs of variance 1, from a generator of their own, always the same."""
    generator = torch.Generator().manual_seed(0)
    shape = num_draws, num_examples, num_outputs
    own, shared = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2))
    c = min(max(correlation, 0.0), 1.0)
    return math.sqrt(c) * shared[:, :1] + math.sqrt(1 - c) * own


def _gradients(sample: Sample, outputs: Tensor) -> Tensor:
    """N dL/dz for each draw of a batch's outputs."""
    targets = sample.targets.detach().cpu()
    if targets.is_floating_point():
        targets = targets.double()
    found = []
    for first in range(0, len(outputs), _AT_ONCE):
        with torch.enable_grad():
            z_RBC = outputs[first : first + _AT_ONCE].clone().requires_grad_()
            # Each draw's own gradient is that of the sum: one backward pass costs less than many.
            (gradient_RBC,) = torch.autograd.grad(_total(sample, z_RBC, targets), z_RBC)
        found.append(gradient_RBC * outputs.shape[1])
    return torch.cat(found)


def _total(sample: Sample, z_RBC: Tensor, targets: Tensor) -> Tensor:
    """The sum of the losses of draws."""
    if not sample.is_mean:
        return torch.stack([sample.loss(z_BC, targets) for z_BC in z_RBC.unbind()]).sum()
    num_draws = len(z_RBC)
    of_all = targets.expand(num_draws, *targets.shape).flatten(0, 1)
    return num_draws * sample.loss(z_RBC.flatten(0, 1), of_all)


def _alike(delta: Tensor) -> float:
    """Sum of squared dot products over the sum of products of squared lengths, without i = j."""
    if delta.shape[1] < 2:
        return 1.0
    gram = delta @ delta.transpose(1, 2)
    length = gram.diagonal(dim1=1, dim2=2)
    dots = gram.square().sum((1, 2)) - length.square().sum(1)
    sizes = length.sum(1).square() - length.square().sum(1)
    total = float(sizes.sum())
    return float(dots.sum()) / total if total > 0 else 0.0


def _together(delta: Tensor) -> float:
    """Sum of dot products over that of squared lengths, without i = j, as if all were as long."""
    num = delta.shape[1]
    lengths = float(delta.square().sum())
    if num < 2 or not lengths > 0:
        return 0.0
    return (float(delta.sum(1).square().sum()) / lengths - 1) / (num - 1)
