"""A run whose divergence is looked for late, as on CUDA."""

from __future__ import annotations

from trainers import Table, collected

from vgexp.assembly import assemble
from vgexp.config import Config
from vgexp.training import Trainer


def trained(config: Config, *, deferred: bool) -> tuple[Trainer, dict[str, Table]]:
    """A run as on CPU, or as on CUDA."""
    trainer = assemble(config, is_deferred=deferred)
    return trainer, collected(trainer.rows())
