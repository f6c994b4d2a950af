"""Checkpoints: all that a run needs to go on, on disk whole or not at all."""

from vgexp.checkpoints.likeness import require_like, size_of
from vgexp.checkpoints.pieces import UnusableError, digest
from vgexp.checkpoints.saved import FORMAT, NEWEST, PREVIOUS, Checkpoint, load, present, save

__all__ = [
    "FORMAT",
    "NEWEST",
    "PREVIOUS",
    "Checkpoint",
    "UnusableError",
    "digest",
    "load",
    "present",
    "require_like",
    "save",
    "size_of",
]
