"""Shows the result of a run in the terminal: its layers, the diagnosis, its files."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rich.console import Console

from vgexp.diagnosis import sentence
from vgexp.past import PastRun
from vgexp.quantities import READOUT, column_of
from vgexp.report.grid import grid_of
from vgexp.report.terminal.cause import show_cause
from vgexp.report.terminal.layout import Column, number, show_line, show_table, show_words

MOST_ROWS = 12
_SHOWN = ("delta_rms", "grad_norm", "backward_gain", "saturated_fraction", "dead_fraction")
_DEFINED_EVERYWHERE = ("delta_rms", "grad_norm")
_DIGITS = 2


def show_closing(
    console: Console,
    folder: Path,
    summary: Mapping[str, Any],
    layers: pd.DataFrame,
    files: Iterable[Path | str],
) -> None:
    """Prints the layers at the first and the last step, the diagnosis, the cause, and the files
    written.

    A block without a value of its own has that of its weights (`grid.path_of`). At most
    `MOST_ROWS` layers are shown, evenly spaced, the first, the last hidden one and the read-out
    among them. A column that was never measured is left out, and so is a fraction that is 0 in
    every row shown. Other tables are read where the diagnosis asks for them.
    """
    if layers["layer"].notna().any():
        _show_layers(console, layers, is_diverged=summary["verdict"] == "diverged")
        console.print()
    run = PastRun(folder, is_strict=False)
    show_words(console, sentence(summary, run.tables({"layers": layers}), run.config))
    console.print()
    show_line(console, f"Verdict: {summary['verdict'] or 'none'}", "bold")
    show_cause(console, run, summary)
    show_files(console, folder, files)


def show_files(console: Console, folder: Path, files: Iterable[Path | str]) -> None:
    """Prints the folder's path and the names of its files."""
    show_line(console, f"Written to {folder}")
    names = [str(_within(Path(file), folder)) for file in files]
    if names:
        show_words(console, f"  {', '.join(names)}", indent="  ")


def _show_layers(console: Console, layers: pd.DataFrame, is_diverged: bool) -> None:
    steps = sorted({int(layers["step"].min()), int(layers["step"].max())})
    ends = layers[layers["step"].isin(steps)]
    grids = {name: grid_of(ends, name, every_step=True) for name in _SHOWN}
    labels = grids[_SHOWN[0]].labels
    shown = choose_rows(len(labels), has_readout=READOUT in labels)
    columns = []
    for name, grid in grids.items():
        texts = [[_cell(value) for value in column] for column in grid.values_LS[shown].T]
        if is_diverged and name in _DEFINED_EVERYWHERE:
            # Every cell of a run's last step was measured: what is not a number became so.
            texts[-1] = [text or "nan" for text in texts[-1]]
        elif not _says_something(name, grid.values_LS[shown]):
            continue
        columns += [
            Column(f"step\n{step}", text, group=name)
            for step, text in zip(grid.steps, texts, strict=True)
        ]
    show_table(console, Column("layer", [labels[row] for row in shown]), columns)


def choose_rows(num_rows: int, has_readout: bool) -> list[int]:
    """Chooses at most `MOST_ROWS` rows, evenly spaced over the hidden layers."""
    num_hidden = num_rows - has_readout
    num_shown = min(num_hidden, MOST_ROWS - has_readout)
    hidden = np.linspace(0, num_hidden - 1, num_shown).round()
    return [int(position) for position in hidden] + [num_rows - 1] * has_readout


def _says_something(name: str, values: NDArray[np.float64]) -> bool:
    is_share = column_of("layers", name).scale == "share"
    return bool((values > 0).any() if is_share else (~np.isnan(values)).any())


def _cell(value: float) -> str:
    return "" if math.isnan(value) else number(value, _DIGITS)


def _within(file: Path, folder: Path) -> Path:
    return file.relative_to(folder) if file.is_relative_to(folder) else file
