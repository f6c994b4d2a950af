"""Checkpoints: all that a run needs to continue, written to the disk whole or not at all."""

from vgexp.checkpoints.likeness import require_like, size_of
from vgexp.checkpoints.pieces import UnusableError, digest
from vgexp.checkpoints.saved import FORMAT, NEWEST, PREVIOUS, Checkpoint, list_present, load, save

__all__ = [
    "FORMAT",
    "NEWEST",
    "PREVIOUS",
    "Checkpoint",
    "UnusableError",
    "digest",
    "list_present",
    "load",
    "require_like",
    "save",
    "size_of",
]
