"""What axes call columns of `layers.csv` whose own name does not say enough."""

from __future__ import annotations

from collections.abc import Mapping

AXIS_NAMES: Mapping[str, str] = {
    "delta_rms": "delta_rms: rms of N dL/dz",
    "preact_std": "standard deviation of z",
    "grad_norm": "gradient norm (L2)",
    "update_ratio": "|change of W| / |W|",
}
"""Column -> its name beside an axis; of others the column's own."""
