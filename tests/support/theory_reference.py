"""What networks show at initialisation, by hooks of the tests' own."""

from __future__ import annotations

import functools
import math

from torch import Tensor, nn

from vgexp.models.network import Network


def kept_preacts(model: Network) -> dict[str, Tensor]:
    """Weight -> its z of the next forward pass, with the gradient of the next backward pass."""
    seen: dict[str, Tensor] = {}
    for watch in model.watches():
        if watch.preact is not None:
            watch.preact.register_forward_hook(functools.partial(_keep, seen, watch.name))
    return seen


def log_signals(seen: dict[str, Tensor], factor: float) -> dict[str, tuple[float, float]]:
    """Weight -> ln of the deviation of z, and of the rms of `factor` dL/dz."""
    found = {}
    for name, z in seen.items():
        assert z.grad is not None
        std, rms = z.detach().std(correction=0), (factor * z.grad).square().mean().sqrt()
        found[name] = math.log(std), math.log(rms)
    return found


def _keep(seen: dict[str, Tensor], name: str, _module: nn.Module, _args: object, z: Tensor) -> None:
    z.retain_grad()
    seen[name] = z
