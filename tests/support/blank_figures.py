"""Figures of runs with nothing on them, for tests of their files alone: drawing takes longest."""

from __future__ import annotations

import dataclasses

import pytest
from matplotlib.figure import Figure

from vgexp.report.figures import of_run


def leave_blank(monkeypatch: pytest.MonkeyPatch, *, with_overview: bool = True) -> None:
    """Has a run's figures be blank pages. Which there are is decided as ever, from its tables."""

    def make(*_: object, **__: object) -> Figure:
        return Figure()

    blank = {name: dataclasses.replace(f, make=make) for name, f in of_run.FIGURES.items()}
    monkeypatch.setattr(of_run, "FIGURES", blank)
    if with_overview:
        monkeypatch.setattr(of_run, "overview_of_run", make)
