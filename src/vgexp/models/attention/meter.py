"""`attention.csv`: the entropy of each head's weights, and the size of its logits.

Axes: B examples, H heads, T query positions, S key positions, D units of a head, Q quantities.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from vgexp.models.attention.blocks import Attend
from vgexp.records import Floats, Rows
from vgexp.torch_internals import backward_task

CHUNK_ENTRIES = 2**22
"""Number of attention weights that are in memory at once."""


@dataclass(frozen=True)
class MeteredHeads:
    """The heads of a layer, as the meter knows them."""

    name: str
    """Name of the attention module in the model."""
    layer: int
    attend: Attend


@dataclass
class _Seen:
    """What the passes of a step showed of the heads of one layer."""

    examples: int = 0
    ceiling: float = 0.0
    """The mean over query positions of the largest entropy they can have, in nats."""
    sums: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    """Of each pass: [H] entropies, summed over examples and averaged over query positions; [H]
    the largest logit's magnitude."""


class AttentionMeter:
    """Measures every head of a model at the steps at which it is armed.

    The weights softmax(q k^T / sqrt(D)) are computed once more, a few examples of one layer at a
    time, as the pass goes by. A pass without gradients does not count, and one that is repeated
    within a backward pass has been seen.
    """

    table = "attention"

    def __init__(self, sites: Sequence[MeteredHeads]) -> None:
        self._sites = sites
        self._seen = [_Seen() for _ in sites]
        self._hooks: list[Any] = []

    def arm(self) -> None:
        """Sets the hooks if they are not set, and forgets passes that no step has ended."""
        self._forget()
        if not self._hooks:
            for number, site in enumerate(self._sites):
                see = partial(self._see, number)
                self._hooks.append(site.attend.register_forward_hook(see))

    def disarm(self) -> None:
        """Removes every hook, and forgets all passes."""
        for handle in self._hooks:
            handle.remove()
        self._hooks.clear()
        self._forget()

    def take(
        self,
        step: int,
        num_examples: float,  # noqa: ARG002
        loss_scale: Tensor | float,  # noqa: ARG002
    ) -> Callable[[], Rows] | None:
        """Ends the step, and returns what makes its rows; None where no pass was seen."""
        seen = [(site, one) for site, one in zip(self._sites, self._seen, strict=True) if one.sums]
        self._forget()
        return partial(_rows, step, seen) if seen else None

    def _forget(self) -> None:
        self._seen = [_Seen() for _ in self._sites]

    @torch.no_grad()
    def _see(self, number: int, attend: Attend, given: tuple[Tensor, ...], read: Tensor) -> None:
        # `no_grad` is the hook's own: whether the pass records gradients shows in its output.
        if not read.requires_grad or backward_task() != -1:
            return
        q_BHTD, k_BHSD, _ = given
        seen = self._seen[number]
        seen.examples += len(q_BHTD)
        seen.ceiling = ceiling(q_BHTD.shape[2], causal=attend.causal)
        # Of half precision the logits are measured in float32, whatever autocast says.
        with torch.autocast(q_BHTD.device.type, enabled=False):
            seen.sums.append(_measured(_real(q_BHTD), _real(k_BHSD), causal=attend.causal))


def ceiling(num_positions: int, *, causal: bool) -> float:
    """Returns the mean over query positions of ln n, n the number of positions that each sees."""
    if not causal:
        return math.log(num_positions)
    return math.lgamma(num_positions + 1) / num_positions


def _measured(q_BHTD: Tensor, k_BHSD: Tensor, *, causal: bool) -> tuple[Tensor, Tensor]:
    """[H] sums over examples of the mean entropy, [H] largest magnitudes of a logit."""
    parts = [_of_chunk(q, k, causal=causal) for q, k in _chunks(q_BHTD, k_BHSD)]
    entropy, largest = zip(*parts, strict=True)
    return torch.stack(entropy).sum(0), torch.stack(largest).amax(0)


def _chunks(q_BHTD: Tensor, k_BHSD: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    _, num_heads, num_positions, _ = q_BHTD.shape
    size = max(1, CHUNK_ENTRIES // (num_heads * num_positions * k_BHSD.shape[2]))
    return zip(torch.split(q_BHTD, size), torch.split(k_BHSD, size), strict=True)


def _of_chunk(q_BHTD: Tensor, k_BHSD: Tensor, *, causal: bool) -> tuple[Tensor, Tensor]:
    logits_BHTS = (q_BHTD / math.sqrt(q_BHTD.shape[3])) @ k_BHSD.transpose(2, 3)
    if causal:
        # What is not seen is no logit of the head: it must not be its largest.
        hidden_TS = torch.ones_like(logits_BHTS[0, 0], dtype=torch.bool).triu_(1)
        largest_H = logits_BHTS.masked_fill(hidden_TS, 0.0).abs_().amax((0, 2, 3))
        logits_BHTS.masked_fill_(hidden_TS, -math.inf)
    else:
        largest_H = logits_BHTS.abs().amax((0, 2, 3))
    # entr(p) = -p ln p is 0 at p = 0.
    entropy_BHTS = torch.special.entr(torch.softmax(logits_BHTS, 3))
    return entropy_BHTS.sum(3).mean(2).sum(0), largest_H


def _real(x: Tensor) -> Tensor:
    return x.detach() if x.dtype is torch.float64 else x.detach().float()


def _rows(step: int, seen: Sequence[tuple[MeteredHeads, _Seen]]) -> Rows:
    """Returns one row for each head, by layer; waits for the device."""
    entropy_SH = torch.stack(
        [torch.stack([e for e, _ in one.sums]).sum(0) / one.examples for _, one in seen]
    )
    largest_SH = torch.stack([torch.stack([g for _, g in one.sums]).amax(0) for _, one in seen])
    entropy, largest = torch.stack((entropy_SH, largest_SH)).cpu().numpy()
    heads = range(entropy.shape[1])
    most = seen[0][1].ceiling
    columns: dict[str, Sequence[Any]] = {
        "step": [step] * entropy.size,
        "layer": [site.layer for site, _ in seen for _ in heads],
        "name": [site.name for site, _ in seen for _ in heads],
        "head": [head for _ in seen for head in heads],
        "entropy": Floats(entropy.ravel()),
        "logit_max": Floats(largest.ravel()),
    }
    if most > 0:
        share = (entropy.astype("float64") / most).astype(entropy.dtype)
        columns["entropy_fraction"] = Floats(share.ravel())
    return Rows("attention", columns)
