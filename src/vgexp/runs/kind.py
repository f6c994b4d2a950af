"""The kinds of runs: what training and a look at the start do differently."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vgexp.config import Config
from vgexp.runs.past import Run
from vgexp.runs.start import Display

if TYPE_CHECKING:
    from vgexp.training import Trainer

Say = Callable[[str], None]
"""Is told, in words, from where a run goes on."""


@dataclass(frozen=True)
class Kind:
    """A kind of run; `runs.making` does all that the kinds have in common."""

    verb: str
    """The command that makes it, which `config.yaml` names too."""
    resolve: Callable[[Config], Config]
    """Settles what the configuration leaves open, before it is recorded."""
    build: Callable[[Config], Trainer]
    """Builds all that the run needs; refuses what cannot be measured."""
    hold_signals: Callable[[Trainer], AbstractContextManager[None]]
    """Handles Ctrl-C, SIGTERM and SIGHUP during the work."""
    make: Callable[[Path, Config, Trainer, Display], Run]
    """Does the work in a folder that holds the configuration alone, and writes the summary."""
    go_on: Callable[[Run, Display, Say], Run]
    """Brings to its end the work that was cut short in a folder."""
