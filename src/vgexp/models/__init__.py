"""Models: each module registers the families that it makes with `families.make`."""

from vgexp.models.families import build, make
from vgexp.models.mlp import Mlp
from vgexp.models.network import Network
from vgexp.models.recurrence import RECURRENT_INITS, Recurrent
from vgexp.registry import import_modules

__all__ = ["RECURRENT_INITS", "Mlp", "Network", "Recurrent", "build", "make"]

import_modules(__name__, __path__)
