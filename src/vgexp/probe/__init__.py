"""The probe: per-layer measurement of anyone's `nn.Module` while it trains."""

from vgexp.probe.probe import Probe

__all__ = ["Probe"]
