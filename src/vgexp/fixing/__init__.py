"""`vgexp fix`: the smallest override that cures a sick configuration, with its proof."""

from vgexp.fixing.process import Cure, fix

__all__ = ["Cure", "fix"]
