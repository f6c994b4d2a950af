"""Describes an activation for theory: phi and phi' in float64, their kinks, and their means.

Every mean is over u ~ N(0, q), or (u, v) jointly Gaussian. Axes as in `quadrature`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor, nn

from vgexp.activations import ACTIVATIONS
from vgexp.theory.quadrature import FINE, FINER, Resolution, line, plane

Values = Callable[[Tensor], Tensor]

_ODD_SHAPE = (2, 3, 2)


@dataclass(frozen=True)
class Function:
    """phi, phi' and the places where they are not smooth."""

    name: str
    value: Values
    slope: Values
    kinks: tuple[float, ...] = ()
    resolution: Resolution = FINE
    """How fine the quadrature of means is: finer where kinks are not known."""
    is_homogeneous: bool = False
    """Whether phi(s u) = s phi(u) for every s > 0."""

    def mean(self, f: Values, q_A: Tensor) -> Tensor:
        """E f(u), u ~ N(0, q), of an f that bends only where phi does; [A] of variances [A]."""
        nodes = line(q_A, self.kinks, self.resolution)
        return nodes.mean(f(nodes.u_AN))

    def mean_product(self, f: Values, g: Values, q: tuple[float, float], c: float) -> float:
        """E f(u) g(v) at variances q and correlation c."""
        nodes = plane(q, c, self.kinks, self.resolution)
        return float(nodes.mean(f(nodes.u_N), g(nodes.v_NM)))

    def square(self, q_A: Tensor) -> Tensor:
        """E phi(u)^2."""
        return self.mean(lambda u: self.value(u).square(), q_A)

    def slope_square(self, q_A: Tensor) -> Tensor:
        """E phi'(u)^2."""
        return self.mean(lambda u: self.slope(u).square(), q_A)

    def error(self, q: float) -> float:
        """The larger relative difference of E phi^2 and E phi'^2 between two resolutions."""
        q_1 = torch.tensor([q], dtype=torch.float64)
        found = []
        for f in (self.value, self.slope):
            means = []
            for resolution in (FINE, FINER):
                nodes = line(q_1, self.kinks, resolution)
                means.append(float(nodes.mean(f(nodes.u_AN).square())))
            largest = max(map(abs, means))
            found.append(abs(means[0] - means[1]) / largest if largest else 0.0)
        return max(found)


def no_function(activation: str) -> str:
    """Says why `function` gives None for an activation."""
    return f"{activation} mixes units or examples: no theory of it"


def function(name: str, negative_slope: float | None = None) -> Function | None:
    """Makes the function of an activation by name; None if it is not elementwise.

    Raises:
        QuestionError: there is none of that name.
    """
    return _find(name, negative_slope) if name in ACTIVATIONS else _make(name, negative_slope)


@lru_cache(maxsize=32)
def _find(name: str, negative_slope: float | None) -> Function | None:
    return _make(name, negative_slope)


@torch.no_grad()
def _make(name: str, negative_slope: float | None) -> Function | None:
    entry = ACTIVATIONS[name]
    module = entry.build(negative_slope).double().eval()
    if not _is_elementwise(module):
        return None

    @torch.no_grad()
    def value(u: Tensor) -> Tensor:
        # One column, since a prelu with a slope a channel reads channels on axis 1.
        return module(u.reshape(-1, 1)).reshape(u.shape)  # type: ignore[no-any-return]

    def slope(u: Tensor) -> Tensor:
        return entry.derivative(module, u.reshape(-1, 1)).detach().reshape(u.shape)

    if entry.kinks is None:
        return Function(name, value, slope, (), FINER)
    return Function(name, value, slope, entry.kinks, FINE, _is_homogeneous(value))


def _is_homogeneous(value: Values) -> bool:
    """Whether phi(s u) = s phi(u), tried at scales from 1e-6 to 1e6; 0 counts."""
    u = torch.tensor([-2.0, -0.3, 0.3, 2.0], dtype=torch.float64)
    scales = (1e-6, 1e-2, 3.0, 1e6)
    return all(torch.allclose(value(s * u), s * value(u), 1e-13, 0.0) for s in scales)


def _is_elementwise(module: nn.Module) -> bool:
    """Whether each number's image depends on that number alone, tried on a few."""
    u = torch.linspace(-2.0, 2.5, 12, dtype=torch.float64)
    together = module(u.reshape(_ODD_SHAPE)).flatten()
    alone = torch.cat([module(one.reshape(1, 1)).flatten() for one in u])
    return torch.equal(together, alone) or torch.allclose(together, alone, 1e-12, 1e-14)
