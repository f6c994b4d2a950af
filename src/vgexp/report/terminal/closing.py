"""Shows the result of a run in the terminal: its layers, the diagnosis, its files."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console

from vgexp.diagnosis import main_path, sentence
from vgexp.quantities import column_of
from vgexp.report.grid import of_blocks
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
    """Prints the layers at the first and the last step, the diagnosis, and the files written.

    A block's gradient norm is over all its weights. At most `MOST_ROWS` layers are shown, evenly
    spaced, the first, the last hidden one and the read-out among them. A column that was never
    measured is left out, and so is a fraction that is 0 in every row shown.
    """
    if len(layers):
        _show_layers(console, layers, is_diverged=summary["verdict"] == "diverged")
        console.print()
    show_words(console, sentence(summary))
    console.print()
    show_line(console, f"Verdict: {summary['verdict'] or 'none'}", "bold")
    show_files(console, folder, files)


def show_files(console: Console, folder: Path, files: Iterable[Path | str]) -> None:
    """Prints the folder's path and the names of its files."""
    show_line(console, f"Written to {folder}")
    names = [str(_within(Path(file), folder)) for file in files]
    if names:
        show_words(console, f"  {', '.join(names)}", indent="  ")


def _show_layers(console: Console, layers: pd.DataFrame, is_diverged: bool) -> None:
    steps = sorted({int(layers["step"].min()), int(layers["step"].max())})
    tables = [_path_with_readout(layers[layers["step"] == step]) for step in steps]
    order = tables[0].index
    shown = order[choose_rows(len(order), has_readout="readout" in order)]
    columns = []
    for name in _SHOWN:
        values = [table[name].reindex(shown) for table in tables]
        if is_diverged and name in _DEFINED_EVERYWHERE:
            # Every cell of a run's last step was measured: what is not a number became so.
            values[-1] = values[-1].astype("object").where(values[-1].notna(), "nan")
        elif not any(_says_something(name, part) for part in values):
            continue
        columns += [
            Column(f"step\n{step}", [_cell(value) for value in part], group=name)
            for step, part in zip(steps, values, strict=True)
        ]
    show_table(console, Column("layer", [str(label) for label in shown]), columns)


def _path_with_readout(layers_at_step: pd.DataFrame) -> pd.DataFrame:
    """Selects the main path and the read-out, indexed by their labels."""
    readout = layers_at_step[layers_at_step["kind"] == "readout"].head(1)
    path = main_path(layers_at_step)
    labels = [str(number) for number in path["layer"]] + ["readout"] * len(readout)
    if (path["kind"] == "stream").any():
        blocks = of_blocks(layers_at_step.dropna(subset="layer"), "grad_norm")
        own = pd.MultiIndex.from_frame(path[["layer", "step"]])
        path["grad_norm"] = path["grad_norm"].where(
            path["kind"] != "stream", blocks.reindex(own).to_numpy()
        )
    return pd.concat([path, readout]).set_axis(pd.Index(labels), axis=0)


def choose_rows(num_rows: int, has_readout: bool) -> list[int]:
    """Chooses at most `MOST_ROWS` rows, evenly spaced over the hidden layers."""
    num_hidden = num_rows - has_readout
    num_shown = min(num_hidden, MOST_ROWS - has_readout)
    hidden = np.linspace(0, num_hidden - 1, num_shown).round()
    return [int(position) for position in hidden] + [num_rows - 1] * has_readout


def _says_something(name: str, values: pd.Series) -> bool:
    is_share = column_of("layers", name).scale == "share"
    return bool((values > 0).any() if is_share else values.notna().any())


def _cell(value: Any) -> str:
    if isinstance(value, str):
        return value
    return "" if math.isnan(value) else number(value, _DIGITS)


def _within(file: Path, folder: Path) -> Path:
    return file.relative_to(folder) if file.is_relative_to(folder) else file
