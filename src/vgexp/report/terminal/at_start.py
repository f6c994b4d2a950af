"""Shows the result of `vgexp signal` in the terminal: layers over seeds, and theory."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console

from vgexp.diagnosis import main_path, start_sentence
from vgexp.diagnosis.at_start import average_geometrically
from vgexp.quantities import PREDICTION, READOUT
from vgexp.report.terminal.closing import choose_rows, show_files
from vgexp.report.terminal.layout import Column, number, show_line, show_table, show_words

_SHOWN = ("preact_std", "delta_rms", "backward_gain")
_DIGITS = 2


def show_closing(
    console: Console,
    folder: Path,
    summary: Mapping[str, Any],
    layers: pd.DataFrame,
    files: Iterable[Path | str],
) -> None:
    """Prints the result, and the files written."""
    show_result(console, summary, layers)
    show_files(console, folder, files)


def show_result(console: Console, summary: Mapping[str, Any], layers: pd.DataFrame) -> None:
    """Prints geometric means over seeds at step 0, and the diagnosis.

    `*/` is the geometric standard deviation over seeds of `delta_rms`.
    """
    if len(layers):
        _show_layers(console, layers)
        console.print()
    show_words(console, start_sentence(summary))
    console.print()
    show_line(console, f"Signal: {summary['signal']}", "bold")


def means_over_seeds(layers: pd.DataFrame, column: str) -> pd.DataFrame:
    """Averages a column over seeds: `mean` and `log_std` for each main-path layer and the read-out.

    They are those of the logarithms, as `average_geometrically` computes them.
    """
    groups: dict[Any, Sequence[float]] = {}
    readouts = layers[layers["kind"] == READOUT].drop_duplicates(["seed", "name"])
    paths = [main_path(rows) for _, rows in layers.groupby("seed")]
    for layer, rows in pd.concat(paths).groupby("layer", sort=True):
        groups[str(layer)] = rows[column].tolist()
    if len(readouts):
        first = readouts["name"].iloc[0]
        groups[READOUT] = readouts.loc[readouts["name"] == first, column].tolist()
    return geometric_means(groups)


def geometric_means(groups: Mapping[Any, Sequence[float]]) -> pd.DataFrame:
    """Averages each group's values: `mean` and `log_std`, by its key."""
    cells = {key: average_geometrically(values) for key, values in groups.items()}
    return pd.DataFrame.from_dict(cells, orient="index", columns=["mean", "log_std"])


def _show_layers(console: Console, layers: pd.DataFrame) -> None:
    columns: list[Column] = []
    order: list[str] = []
    num_seeds = layers["seed"].nunique()
    for name in _SHOWN:
        measured = means_over_seeds(layers, name)
        order = [str(label) for label in measured.index]
        shown = choose_rows(len(order), has_readout=READOUT in order)
        cells = measured.iloc[shown]
        columns.append(Column("measured", list(map(_cell, cells["mean"])), group=name))
        if name == "delta_rms" and num_seeds > 1:
            spread = cells["log_std"].map(_factor)
            columns.append(Column("*/", spread.tolist(), group=name))
        predicted = f"{PREDICTION}{name}"
        if predicted in layers.columns and layers[predicted].notna().any():
            values = means_over_seeds(layers, predicted)["mean"].iloc[shown]
            columns.append(Column("theory", list(map(_cell, values)), group=name))
    labels = [order[place] for place in choose_rows(len(order), has_readout=READOUT in order)]
    show_table(console, Column("layer", labels), columns)


def _cell(value: float) -> str:
    return "" if pd.isna(value) else number(value, _DIGITS)


def _factor(log_std: float) -> str:
    return "" if pd.isna(log_std) else number(math.exp(log_std), 3)
