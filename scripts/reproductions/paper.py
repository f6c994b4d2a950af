"""What a reproduction is made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure


@dataclass(frozen=True)
class Claim:
    """A row of the table: a statement of the paper, what theory says of it, what was measured."""

    statement: str
    paper: str
    """With figure, table or equation of the paper."""
    theory: str
    """Empty where there is no theory of it here."""
    measured: str
    """Numbers computed from the runs' tables, never typed."""


@dataclass(frozen=True)
class Paper:
    """A paper, and the runs that its claims are held against."""

    name: str
    """`saxe_2014`: of its files and presets."""
    citation: str
    """Authors, title, year."""
    question: str
    """What is reproduced, in one or two sentences; and what differs from the paper's setting."""
    commands: Mapping[str, str]
    """Folder -> the words of its command after `vgexp`, without a folder."""
    claims: Callable[[Path], Sequence[Claim]]
    """From the folder that holds the runs' folders."""
    draw: Callable[[Path], Figure]
    """Its one figure."""
    verdict: Callable[[Path], str]
    """Where paper, theory and measurement differ, and why; from the runs."""
