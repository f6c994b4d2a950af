"""Meters of narrow tables for models that do not say what they are made of."""

from vgexp.probe.guests.attention import GuestAttentionMeter
from vgexp.probe.guests.recurrence import GuestTimeMeter

__all__ = ["GuestAttentionMeter", "GuestTimeMeter"]
