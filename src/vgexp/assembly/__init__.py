"""From a configuration to a trainer."""

from vgexp.assembly.whole import assemble, device_of

__all__ = ["assemble", "device_of"]
