"""Plots loss and accuracy over steps, with evaluations, and clipping below."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from vgexp.report.terminal.curve import Plot, Points, place_of
from vgexp.report.terminal.inks import Ink, Inks
from vgexp.report.terminal.scale import Scale, linear_scale, log_scale

_TRAIN: Ink = ("o", "#e69f00")
_EVALUATION: Ink = ("x", "#56b4e9")
_ACCURACY_HEIGHT = 7
# Cells of a column of many steps: with a gap between them ranges are told from one another.
_COLUMN = 2
# From here on a loss is drawn by its logarithm.
_LOG_FROM = 100
_SPLITS = {"val": "validation", "train": "training split"}
_FLAGS = ("clipped", "skipped")


def of_loss(
    steps: pd.DataFrame,
    evals: pd.DataFrame,
    width: int,
    inks: Inks,
    constant_loss: float | None = None,
) -> Plot | None:
    """Plots the training loss, the validation loss and that of guessing; None: none was recorded.

    Without a validation split it is the training split's. Below stand the shares of clipped and
    skipped steps.
    """
    if not len(steps):
        return None
    footers = _footers(steps, evals, width, inks)
    return _plot(steps, evals, "loss", width, footers, constant_loss)


def of_accuracy(steps: pd.DataFrame, evals: pd.DataFrame, width: int) -> Plot | None:
    """Plots the accuracy likewise; None where it is not defined."""
    measured = steps.dropna(subset="accuracy")
    return _plot(measured, evals, "accuracy", width, (), None) if len(measured) else None


def _plot(
    steps: pd.DataFrame,
    evals: pd.DataFrame,
    name: str,
    width: int,
    footers: Sequence[tuple[str, Sequence[Ink]]],
    level: float | None,
) -> Plot:
    first, last = _ends(steps, evals)
    training = _training(steps, name, first, last, width)
    points, ys = [training], [steps[name].to_numpy("float64")]
    split = next((split for split in _SPLITS if (evals["split"] == split).any()), None)
    if split is not None:
        of_split = evals[evals["split"] == split]
        x, y = (of_split[column].to_numpy("float64") for column in ("step", name))
        points.append(Points(_SPLITS[split], x, y, _EVALUATION))
        ys.append(y)
    if level is not None:
        ys.append(np.array([level]))
    return Plot(
        title=f"{name} over steps".capitalize(),
        x_name="step",
        points=points,
        scale=_scale(name, np.concatenate(ys)),
        first=first,
        last=last,
        height=_ACCURACY_HEIGHT if name == "accuracy" else Plot.height,
        level=None if level is None else ("guessing gives", level),
        footers=footers,
    )


def _ends(steps: pd.DataFrame, evals: pd.DataFrame) -> tuple[float, float]:
    # By numpy, since pandas 2 warns where one of the two is empty.
    every = np.concatenate([steps["step"], evals.loc[evals["split"].isin(_SPLITS), "step"]])
    return float(every.min()), float(every.max())


def _training(steps: pd.DataFrame, name: str, first: float, last: float, width: int) -> Points:
    """Takes the median of the steps in each column, and their range; nan if any is."""
    x, y = steps["step"].to_numpy("float64"), steps[name].to_numpy("float64")
    places = place_of(x, first, last, width)
    if (pd.Series(places).groupby(places).size() > 1).any():
        places = places // _COLUMN
    groups = pd.DataFrame({"x": x, "y": y}).groupby(places)
    middle = groups["y"].median().to_numpy()
    is_bad = pd.Series(~np.isfinite(y)).groupby(places).any().to_numpy()
    is_many = bool((groups.size() > 1).any())
    return Points(
        "training (median and range)" if is_many else "training",
        # Whose cell is the column's first: columns are as far from one another.
        groups["x"].min().to_numpy(),
        np.where(is_bad, np.nan, middle),
        _TRAIN,
        groups["y"].min().to_numpy() if is_many else None,
        groups["y"].max().to_numpy() if is_many else None,
    )


def _scale(name: str, values: NDArray[np.float64]) -> Scale | None:
    finite = values[np.isfinite(values)]
    if name == "accuracy":
        return _accuracy_scale(finite)
    if finite.size and finite.min() > 0 and finite.max() > _LOG_FROM * finite.min():
        return log_scale(finite)
    return linear_scale(finite)


def _accuracy_scale(finite: NDArray[np.float64]) -> Scale | None:
    """Makes a scale over the values, to the next tenth; 0 to 1 for what is no share."""
    if not finite.size:
        return None
    # Less a little: 0.3 is more than three tenths to a computer.
    low, high = np.floor(finite.min() * 10 + 1e-9), np.ceil(finite.max() * 10 - 1e-9)
    low, high = max(0.0, min(low, 9.0)), min(10.0, max(high, low + 1.0, 1.0))
    return Scale(low / 10, high / 10, is_log=False)


def _footers(
    steps: pd.DataFrame, evals: pd.DataFrame, width: int, inks: Inks
) -> list[tuple[str, list[Ink]]]:
    """Draws the share of clipped, or skipped, steps of each column as a bar.

    A line without any bar is left out.
    """
    first, last = _ends(steps, evals)
    places = place_of(steps["step"].to_numpy("float64"), first, last, width)
    lines = []
    for name in _FLAGS:
        flags = (steps[name] == 1).fillna(False).to_numpy(bool)
        if not flags.any():
            continue
        shares = pd.Series(flags.astype("float64")).groupby(places).mean()
        line: list[Ink] = [(" ", "")] * width
        for place, share in zip(shares.index.to_numpy("int64"), shares, strict=True):
            if share > 0:
                level = min(len(inks.bars) - 1, int(share * len(inks.bars)))
                line[place] = (inks.bars[level], "")
        lines.append((name, line))
    return lines
