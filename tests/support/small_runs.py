"""What tests of run folders share: small configurations, and a misfortune during a run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from trainers import changed

import vgexp
from vgexp.config import (
    Config,
    GaussianConfig,
    MlpConfig,
    OutputConfig,
    SgdConfig,
    TrainConfig,
)
from vgexp.records import Rows
from vgexp.sinks.csv_files import CsvFiles
from vgexp.training import step

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


def strike(monkeypatch: pytest.MonkeyPatch, at_step: int, happens: Callable[[], None]) -> None:
    """Lets it happen once, when rows of a step or of later ones have been written to their file."""
    write, is_done = CsvFiles.__call__, False

    def strike_after(files: CsvFiles, rows: Rows) -> None:
        nonlocal is_done
        write(files, rows)
        if rows.table == "steps" and rows.columns["step"][-1] >= at_step and not is_done:
            is_done = True
            happens()

    monkeypatch.setattr(CsvFiles, "__call__", strike_after)


def require_same_bytes_after_a_cut(
    config: Config, folder: Path, num_steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Checks that a run that fails after some steps, and is resumed, has the tables of a whole one.

    They are in `folder`: `cut` and `whole`.
    """
    vgexp.run(config, folder / "whole")
    take_step, taken = step.take_step, []

    def torn(state: Any) -> None:
        taken.append(1)
        if len(taken) == num_steps + 1:
            raise RuntimeError("the node is gone")
        take_step(state)

    with monkeypatch.context() as patch:
        patch.setattr(step, "take_step", torn)
        with pytest.raises(RuntimeError, match="the node is gone"):
            vgexp.run(config, folder / "cut")
    vgexp.resume(folder / "cut")
    for name in ("layers.csv", "steps.csv", "evals.csv"):
        mine, other = (folder / run / name for run in ("cut", "whole"))
        assert mine.read_bytes() == other.read_bytes(), name
