"""Predictions beside measurements: theory's columns on the rows of step 0."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from vgexp.config import Config
from vgexp.errors import QuestionError, reason
from vgexp.records import PREDICTED, Rows

if TYPE_CHECKING:
    from vgexp.assembly.expectation import Expectation
    from vgexp.training import Trainer

_log = logging.getLogger("vgexp")


def expected(config: Config, trainer: Trainer) -> Expectation:
    """What theory expects of step 0; where it fails it expects nothing, and training goes on."""
    from vgexp.assembly.expectation import Expectation, expectation

    if trainer.state.step:
        return Expectation()
    try:
        return expectation(config, trainer)
    except QuestionError:
        raise
    except Exception as error:
        _log.exception("theory failed")
        return Expectation(note=f"theory failed: {reason(error)}")


def beside(rows: Rows, expectation: Expectation) -> Rows:
    """The rows with what is expected of those of step 0; others as they are."""
    steps = rows.columns.get("step", ())
    if rows.table != "layers" or not expectation.columns or 0 not in steps:
        return rows
    names = rows.columns["name"]
    at_start = [
        expectation.columns.get(name, {}) if step == 0 else {}
        for step, name in zip(steps, names, strict=True)
    ]
    columns = {c.name: [cells.get(c.name) for cells in at_start] for c in PREDICTED}
    return Rows(rows.table, {**rows.columns, **columns})
