"""What tests of run folders share: small configurations, and a misfortune during a run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from trainers import changed

from vgexp import sinks
from vgexp.config import (
    Config,
    GaussianConfig,
    MlpConfig,
    OutputConfig,
    SgdConfig,
    TrainConfig,
)
from vgexp.records import Rows

CONFIG = Config(
    model=MlpConfig(depth=3, width=8, activation="tanh"),
    data=GaussianConfig(num_examples=160, features=6, num_classes=3, batch_size=16),
    train=TrainConfig(steps=30, eval_every=10),
    output=OutputConfig(quiet=True),
)

DIVERGING = changed(
    CONFIG, model={"activation": "linear", "init": "he_normal"}, optimizer=SgdConfig(lr=2.0)
)


def summary_of(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "summary.json").read_text()))


class Misfortune:
    """A sink that makes something happen when the rows of a step arrive."""

    def __init__(self, step: int, happens: Callable[[], None]) -> None:
        self._step, self._happens, self._done = step, happens, False

    def __call__(self, rows: Rows) -> None:
        if rows.table == "steps" and rows.columns["step"][-1] >= self._step and not self._done:
            self._done = True
            self._happens()

    def close(self) -> None:
        pass


def strike(monkeypatch: pytest.MonkeyPatch, step: int, happens: Callable[[], None]) -> None:
    """Lets it happen while rows are being written, between the CSV files and what follows."""
    registry = sinks.Registry(
        "sink", {**dict(sinks.SINKS.items()), "misfortune": lambda _: Misfortune(step, happens)}
    )
    monkeypatch.setattr(sinks, "SINKS", registry)
