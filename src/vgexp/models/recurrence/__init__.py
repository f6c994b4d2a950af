"""Recurrent networks: stacked layers of torch's fused cells or of the same equations unrolled."""

from vgexp.models.recurrence.draws import RECURRENT_INITS
from vgexp.models.recurrence.network import Recurrent

__all__ = ["RECURRENT_INITS", "Recurrent"]
