"""All initialisations by name."""

from __future__ import annotations

from vgexp import user_code
from vgexp.inits.draws import (
    delta_orthogonal,
    delta_std,
    he_std,
    lecun_std,
    normal,
    orthogonal,
    orthonormal,
    orthonormal_std,
    torch_std,
    uniform,
    unit_std,
    xavier_std,
)
from vgexp.inits.fits import fit_variances, fix_up, zero_last
from vgexp.inits.init import Init
from vgexp.registry import Registry


def _from_user_code(path: str) -> Init:
    return Init(path, user_code.init(path))


INITS: Registry[Init] = Registry(
    "init",
    {
        "xavier_normal": Init(
            "N(0, 2/(fan_in + fan_out)) (Glorot & Bengio 2010)",
            normal(xavier_std),
            std=xavier_std,
        ),
        "xavier_uniform": Init(
            "uniform of variance 2/(fan_in + fan_out) (Glorot & Bengio 2010)",
            uniform(xavier_std),
            std=xavier_std,
        ),
        "he_normal": Init("N(0, 2/fan_in) (He 2015)", normal(he_std), std=he_std),
        "he_uniform": Init("uniform of variance 2/fan_in (He 2015)", uniform(he_std), std=he_std),
        "lecun_normal": Init("N(0, 1/fan_in) (LeCun 1998)", normal(lecun_std), std=lecun_std),
        "lecun_uniform": Init(
            "uniform of variance 1/fan_in (LeCun 1998)", uniform(lecun_std), std=lecun_std
        ),
        "orthogonal": Init(
            "orthonormal rows or columns (Saxe 2014)",
            orthogonal,
            std=orthonormal_std,
            is_isometric=True,
        ),
        "delta_orthogonal": Init(
            "orthogonal at a kernel's centre, 0 elsewhere (Xiao 2018)",
            delta_orthogonal,
            std=delta_std,
            is_isometric=True,
        ),
        "lsuv": Init(
            "orthonormal, then each output scaled to variance 1 on a batch (Mishkin & Matas 2016)",
            orthonormal,
            fit=fit_variances,
            std=orthonormal_std,
            is_isometric=True,
            scales_outputs=True,
        ),
        "fixup": Init(
            "he_normal by depth, residual branches and read-out from 0, no norm (Zhang 2019)",
            normal(he_std),
            fit=fix_up,
            std=he_std,
            adds_scalars=True,
        ),
        "zero_last": Init(
            "he_normal, and each residual branch starts at 0 (Goyal 2017)",
            normal(he_std),
            fit=zero_last,
            std=he_std,
        ),
        "normal": Init("N(0, gain^2), whatever the fans", normal(unit_std), std=unit_std),
        "uniform": Init(
            "U[-1/sqrt(fan_in), 1/sqrt(fan_in)], biases 0", uniform(torch_std), std=torch_std
        ),
        "torch_default": Init(
            "as nn.Linear does: weights and biases U[-1/sqrt(fan_in), 1/sqrt(fan_in)]",
            uniform(torch_std),
            draws_biases=True,
            std=torch_std,
        ),
    },
    _from_user_code,
)
"""Name -> initialisation."""
