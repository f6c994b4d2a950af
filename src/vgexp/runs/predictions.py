"""Adds theory's columns to the rows of step 0."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from vgexp.config import Config
from vgexp.errors import QuestionError, reason
from vgexp.quantities import PREDICTED, PREDICTED_IN_TIME, PREDICTION
from vgexp.records import Rows

if TYPE_CHECKING:
    from vgexp.theory import Forecast
    from vgexp.training import Trainer

_log = logging.getLogger("vgexp")


def predict_start(config: Config, trainer: Trainer, *, with_critical: bool = False) -> Forecast:
    """Predicts step 0 by theory; if theory fails, nothing is predicted and training goes on."""
    from vgexp.assembly.forecasts import forecast_first_step
    from vgexp.theory import Forecast

    if trainer.state.step:
        return Forecast()
    try:
        return forecast_first_step(config, trainer, with_critical=with_critical)
    except QuestionError:
        raise
    except Exception as error:
        _log.exception("theory failed")
        return Forecast(reason=f"theory failed: {reason(error)}")


def add_predictions(rows: Rows, forecast: Forecast) -> Rows:
    """Adds the predicted columns to rows that hold step 0; other rows stay as they are."""
    put = _COLUMNS.get(rows.table)
    if put is None or 0 not in rows.columns.get("step", ()):
        return rows
    columns = put(rows, forecast)
    return Rows(rows.table, {**rows.columns, **columns}) if columns else rows


def _layer_columns(rows: Rows, forecast: Forecast) -> Mapping[str, Sequence[Any]]:
    if not forecast.rows:
        return {}
    at_start = [
        forecast.rows.get(name) if step == 0 else None
        for step, name in zip(rows.columns["step"], rows.columns["name"], strict=True)
    ]
    return {
        c.name: [getattr(row, c.name.removeprefix(PREDICTION), None) for row in at_start]
        for c in PREDICTED
    }


def _time_columns(rows: Rows, forecast: Forecast) -> Mapping[str, Sequence[Any]]:
    if not forecast.times:
        return {}
    keys = zip(*(rows.columns[name] for name in ("step", "name", "t")), strict=True)
    found = [
        forecast.times[name][t] if step == 0 and name in forecast.times else None
        for step, name, t in keys
    ]
    return {column.name: found for column in PREDICTED_IN_TIME}


_COLUMNS: Mapping[str, Callable[[Rows, Forecast], Mapping[str, Sequence[Any]]]] = {
    "layers": _layer_columns,
    "time": _time_columns,
}
"""Table -> what makes its predicted columns."""
