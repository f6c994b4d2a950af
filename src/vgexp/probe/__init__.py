"""The probe, which measures each layer of any `nn.Module` while it trains."""

from vgexp.probe.probe import Probe

__all__ = ["Probe"]
