"""The comment that every preset opens with."""

from __future__ import annotations

import re
from pathlib import Path

LONGEST_SENTENCE = 61


def require_opening(path: Path, command: str, seeds: str) -> None:
    """The package, the command (a pattern), a sentence, what was measured (over how many seeds, a
    pattern); then the values."""
    package, typed, sentence, *rest = path.read_text(encoding="utf-8").splitlines()
    measured = [line for line in rest if line.startswith("#")]
    assert package == "# @package _global_"
    assert re.fullmatch(rf"# {command}", typed)
    assert re.fullmatch(r"# \S.*\.", sentence)
    assert len(sentence) <= len("# ") + LONGEST_SENTENCE
    assert re.match(rf"# {seeds} seeds\b", measured[0])
    assert sum(len(re.findall(r"\d+\.?\d*", line)) for line in measured) >= 4, "figures"
    assert rest[: len(measured)] == measured, "values follow the opening comment"
