"""The probe as users import it: it measures in their loop, diagnoses, and writes run folders."""

from vgexp.guests.probe import Probe

__all__ = ["Probe"]
