"""Meters of narrow tables for any model: recurrences, torch's own or by hand, and attention."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import nn

from vgexp.probe.hooks import Note
from vgexp.probe.meters.attention import TorchAttentionMeter
from vgexp.probe.meters.recurrence import TorchTimeMeter
from vgexp.probe.meters.uses import UsesMeter
from vgexp.probe.plan import PlanRow
from vgexp.probe.taps import Taps
from vgexp.watch import Meter


def meters_of(
    model: nn.Module,
    taps: Taps,
    rows: Sequence[PlanRow],
    note: Note,
    unseen: dict[str, str],
    *,
    is_bare: bool,
) -> Iterator[Meter]:
    """What measures the narrow tables of a model that has no meters of its own.

    Args:
        is_bare: whether the tables have to be known before the first update: recurrences that are
            written by hand are found in it, and are not looked for then.
    """
    time = TorchTimeMeter(model, taps, rows, note, unseen.setdefault)
    if time.has_sites:
        yield time
    if not is_bare:
        yield UsesMeter(model, taps, rows, note, unseen.setdefault)
    yield TorchAttentionMeter(model, taps, rows, unseen.setdefault)
