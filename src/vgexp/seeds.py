"""Named generators: each use of randomness draws from its own stream, seeded from one number."""

from __future__ import annotations

import hashlib

import torch


def generator(seed: int, name: str) -> torch.Generator:
    """A CPU generator for one named use (`init`, `order`, `data`, `split`), independent of others.

    The stream depends on `seed` and `name` only: drawing more from one leaves the others alone.
    """
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8]) >> 1)
