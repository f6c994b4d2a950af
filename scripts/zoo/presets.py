"""The configurations of the zoo, with the truth that each file states.

A file of `configs/zoo` begins with comments: what it is, `half:` (`tune` or `held`), `truth:`
(`healthy`, or `sick` and the causes that are right), and of a sick one `cure:`, the one change that
makes it learn. They were written with the configuration, before any rule had judged it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "configs" / "zoo"
HEALTHY = "healthy"
HALVES = ("tune", "held")
SETS = (*HALVES, "fresh", "reports", "faults", "forums")
"""The halves, and four sets of loops that were written after the rules had been set by the first
half: the second and the last after public reports and questions, the third after published
catalogues of faults."""

_STATED = re.compile(r"^# (half|truth|cure): (.+)$", re.MULTILINE)


@dataclass(frozen=True)
class Preset:
    """A configuration whose health is known."""

    name: str
    half: str
    truth: tuple[str, ...]
    """The causes that are right; none: it is healthy."""
    cure: tuple[str, ...]
    """Overrides of the cured twin; none of a healthy one."""

    @property
    def is_sick(self) -> bool:
        return bool(self.truth)


def read_preset(path: Path) -> Preset:
    """Reads the truth from the head of a file.

    Raises:
        ValueError: the head lacks a line, or says what it cannot.
    """
    stated = dict(_STATED.findall(path.read_text(encoding="utf-8")))
    words, cure = stated.get("truth", "").split(), tuple(stated.get("cure", "").split())
    is_sick = words[:1] == ["sick"]
    if stated.get("half") not in HALVES or not (is_sick or words == [HEALTHY]):
        raise ValueError(f"{path}: the head needs `half: tune|held`, `truth: healthy|sick CAUSE`")
    if is_sick != bool(words[1:]) or is_sick != bool(cure):
        raise ValueError(f"{path}: a sick configuration needs a cause and a `cure:`")
    return Preset(path.stem, stated["half"], tuple(words[1:]) if is_sick else (), cure)


def read_presets() -> dict[str, Preset]:
    """All of them, by name."""
    return {path.stem: read_preset(path) for path in sorted(FOLDER.glob("*.yaml"))}
