"""The largest slopes of activations, as pages name them."""

from __future__ import annotations

from collections.abc import Mapping

PEAKS: Mapping[str, float] = {"sigmoid": 0.25, "tanh": 1.0, "hardtanh": 1.0, "relu": 1.0}
"""Activation -> the largest |phi'|."""
