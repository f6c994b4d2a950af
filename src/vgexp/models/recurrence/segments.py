"""Segments of time, which end where the state is measured or gradients are cut off."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor, nn

from vgexp.models.recurrence.cells import States, run_cell


@dataclass(frozen=True)
class Segment:
    """The steps that a cell takes in one call."""

    num_steps: int
    watched_t: int | None
    """The time of its last state, if that is measured."""
    is_cut: bool
    """Whether gradients stop at its end."""


@lru_cache(maxsize=64)
def segments(
    num_steps: int, time_points: int | None, truncation: int | None
) -> tuple[Segment, ...]:
    """Divides T steps into segments that end where a state is measured or gradients stop.

    P points are watched, t = k T / P - 1 for k = 1..P, rounded down: at most T of them, None all,
    0 none. The state is cut off after every `truncation` steps, but for the last.
    """
    points = num_steps if time_points is None else min(time_points, num_steps)
    watched = {k * num_steps // points for k in range(1, points + 1)}
    cuts = set(range(truncation, num_steps, truncation)) if truncation else set()
    found, start = [], 0
    for end in sorted(watched | cuts | {num_steps}):
        watched_t = end - 1 if end in watched else None
        found.append(Segment(end - start, watched_t, end in cuts))
        start = end
    return tuple(found)


def in_segments(
    cell: nn.Module, x_BTI: Tensor, plan: Sequence[Segment]
) -> Iterator[tuple[Segment, Tensor, States]]:
    """Calls a cell once for each segment: h of its steps [B, S, H], its last states [1, B, H].

    A cut hands the next segment the states as constants.
    """
    states: States = ()
    sizes = [segment.num_steps for segment in plan]
    # One split, whose gradient is one concatenation; none where there is nothing to split.
    parts = (x_BTI,) if len(plan) == 1 else torch.split(x_BTI, sizes, 1)
    for x_BSI, segment in zip(parts, plan, strict=True):
        h_BSH, states = run_cell(cell, x_BSI, states)
        yield segment, h_BSH, states
        if segment.is_cut:
            states = tuple(state.detach() for state in states)
