"""Builds a trainer from a configuration."""

from vgexp.assembly.whole import assemble, device_of

__all__ = ["assemble", "device_of"]
