"""Initialisations: how a weight W of shape [fan_out, fan_in, ...] is drawn."""

from vgexp.inits.choices import INITS
from vgexp.inits.drawing import initialise
from vgexp.inits.fits import LSUV_TOLERANCE, LSUV_TRIES
from vgexp.inits.init import Branch, Draw, Init, InitConfig, Watched

__all__ = [
    "INITS",
    "LSUV_TOLERANCE",
    "LSUV_TRIES",
    "Branch",
    "Draw",
    "Init",
    "InitConfig",
    "Watched",
    "initialise",
]
