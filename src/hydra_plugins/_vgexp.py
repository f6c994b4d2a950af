"""Hydra instantiates launchers and sweepers of this namespace only. The underscore keeps its search
for plugins out: these are put in for vgexp's own sweeps, and other programs never see them."""

from __future__ import annotations

from vgexp.cli import foreman


class Foreman(foreman.Foreman):
    """The launcher of every sweep; hands on to the one that was chosen."""


class Replay(foreman.Replay):
    """The sweeper of `vgexp resume`."""
