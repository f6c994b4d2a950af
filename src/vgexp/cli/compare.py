"""`vgexp compare`: runs side by side in the terminal and as CSV."""

from __future__ import annotations

import argparse
from pathlib import Path

SUMMARY = "one row a run: what differs in the configuration, what came out"

_LAYERS_WITHOUT_METRIC = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the verb's arguments."""
    parser.add_argument(
        "paths",
        nargs="*",
        metavar="RUN_OR_SWEEP",
        help="run folders, sweep folders, or folders above them",
    )
    parser.add_argument(
        "--layers",
        nargs="?",
        const=_LAYERS_WITHOUT_METRIC,
        metavar="METRIC",
        help="a row a layer, a column a run: this column of layers.csv (default delta_rms)",
    )
    parser.add_argument(
        "--metric",
        metavar="METRIC",
        help="one more column: a figure of summary.json (`vgexp list figures`); or a column of "
        "layers.csv (`vgexp list metrics`), shown at the first and the last hidden layer",
    )
    parser.add_argument(
        "--step",
        default="first",
        metavar="STEP",
        help="step of a column of layers.csv: a number, or each run's `first` (default) or `last` "
        "measured one",
    )
    parser.add_argument(
        "--seeds",
        action="store_true",
        help="fold runs equal but for the seed into mean and standard deviation; geometric ones "
        "for factors, gains and gradient sizes, which spread log-normally",
    )
    parser.add_argument(
        "--csv", type=Path, metavar="FILE", help="write what is shown, with every digit"
    )


def main(args: argparse.Namespace) -> int:
    """Prints the comparison that was asked for; 0 when done."""
    from vgexp.cli.screen import Screen
    from vgexp.report import comparison, sheet
    from vgexp.report.runs import load_runs

    console = Screen()
    paths, layers = _paths_and_metric(args.paths, args.layers)
    runs = load_runs(paths)
    if layers is None:
        table = comparison.compare_runs(runs, args.metric, args.step, args.seeds)
    else:
        metric = layers or args.metric or comparison.DEFAULT_LAYER_METRIC
        table = comparison.compare_layers(runs, metric, args.step, args.seeds)
    sheet.show(console, table)
    if args.csv:
        sheet.write_csv(table, args.csv)
    return 0


def _paths_and_metric(paths: list[str], layers: str | None) -> tuple[list[str], str | None]:
    """Undoes `--layers RUN`, which argparse reads as a metric."""
    if layers and Path(layers).exists():
        return [layers, *paths], _LAYERS_WITHOUT_METRIC
    return paths, layers
