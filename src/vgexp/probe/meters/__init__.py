"""Meters of narrow tables for models that use torch's own recurrent nets and attention."""

from vgexp.probe.meters.attention import TorchAttentionMeter
from vgexp.probe.meters.recurrence import TorchTimeMeter

__all__ = ["TorchAttentionMeter", "TorchTimeMeter"]
