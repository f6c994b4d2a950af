"""Meters of narrow tables for models that use torch's own recurrent nets and attention."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import nn

from vgexp.probe.hooks import Note
from vgexp.probe.meters.attention import TorchAttentionMeter
from vgexp.probe.meters.recurrence import TorchTimeMeter
from vgexp.probe.plan import PlanRow
from vgexp.probe.taps import Taps
from vgexp.watch import Meter


def meters_of(
    model: nn.Module, taps: Taps, rows: Sequence[PlanRow], note: Note, unseen: dict[str, str]
) -> Iterator[Meter]:
    """What measures the narrow tables of a model that has no meters of its own."""
    time = TorchTimeMeter(model, taps, rows, note, unseen.setdefault)
    if time.has_sites:
        yield time
    yield TorchAttentionMeter(model, taps, rows, unseen.setdefault)
