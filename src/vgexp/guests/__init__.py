"""The probe as users import it: it measures in their loop, diagnoses, and writes run folders.

And the check, which tries one update before there is a loop.
"""

from vgexp.guests.check import check
from vgexp.guests.probe import Probe

__all__ = ["Probe", "check"]
