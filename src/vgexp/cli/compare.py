"""`vgexp compare`: shows runs side by side, in the terminal, as CSV and as a figure."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from vgexp.errors import QuestionError, impossible, unknown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vgexp.report.comparing.runs import ComparedRun
    from vgexp.report.comparing.sheet import Comparison

DESCRIPTION = "One row a run: what differs, what came out."

_LAYERS_WITHOUT_METRIC = ""
# Word of --heatmap -> what it says.
_MAP_WORDS = {"x": "x", "y": "y", "color": "color", "colour": "color"}


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
        help="one more column: a summary metric (`vgexp list summary`); or a column of "
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
    _add_figure(parser)


def main(args: argparse.Namespace) -> int:
    """Prints the comparison that the arguments ask for. Returns the exit code."""
    from vgexp.cli.screen import Screen
    from vgexp.report.comparing import sheet
    from vgexp.report.comparing.runs import load_runs
    from vgexp.report.terminal import layout

    console = Screen()
    paths, args.layers = _paths_and_metric(args.paths, args.layers)
    paths, words = _paths_and_words(paths, args.heatmap)
    _require_sense(args)
    runs = load_runs(paths)
    # Before anything is printed, since a figure that cannot be drawn is an error of the user.
    figure = _draw(runs, args, words) if args.plot else None
    table = sheet.add_sentences(_table(runs, args), _problems_of_sweeps(paths, runs))
    sheet.show(console, table)
    if args.csv:
        sheet.write_csv(table, args.csv)
    written = {"table": args.csv, "figure": figure}
    lines = [f"{what}: {file}" for what, file in written.items() if file]
    for number, line in enumerate(lines):
        layout.show_line(console, line if number else f"\n{line}")
    return 0


def _add_figure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--plot",
        type=Path,
        metavar="FILE",
        help="draw it, too (.png, .svg or .pdf): over steps the training loss or --metric (any "
        "column of steps.csv, val_loss, val_accuracy, a column of layers.csv); with --layers over "
        "depth",
    )
    parser.add_argument(
        "--panels", metavar="KEY", help="of --plot: a panel for each value of this key"
    )
    parser.add_argument(
        "--heatmap",
        nargs="*",
        metavar="WORD",
        help="of --plot: a sweep as a map; x=KEY y=KEY (default: the two that vary) "
        "color=METRIC (default: --metric, or attenuation)",
    )


def _require_sense(args: argparse.Namespace) -> None:
    """Refuses options that exclude each other."""
    of_figure = {"--heatmap": args.heatmap is not None, "--panels": args.panels is not None}
    given = [name for name, is_given in of_figure.items() if is_given]
    if given and args.plot is None:
        raise QuestionError(f"{given[0]} is about a figure\nallowed: {given[0]} with --plot FILE")
    if args.heatmap is not None and (args.panels is not None or args.layers is not None):
        other = "--panels" if args.panels is not None else "--layers"
        raise QuestionError(
            f"--heatmap and {other} exclude each other\n"
            "allowed: one of them; of a map, keys that vary beside x and y are panels by themselves"
        )
    if args.plot is not None:
        from vgexp.report.figures.style import FORMATS

        kind = args.plot.suffix.lower().removeprefix(".")
        if kind not in FORMATS:
            raise unknown(f"figure format of {args.plot}", kind, FORMATS)


def _table(runs: Sequence[ComparedRun], args: argparse.Namespace) -> Comparison:
    from vgexp.report.comparing import comparison

    if args.layers is not None:
        metric = args.layers or args.metric or comparison.DEFAULT_LAYER_METRIC
        return comparison.compare_layers(runs, metric, args.step, args.seeds)
    metric = args.metric
    if metric and args.plot and args.heatmap is None:
        # A column of another table has a place in the figure only.
        metric = metric.removeprefix("layers.")
        metric = metric if comparison.is_metric(runs, metric) else None
    return comparison.compare_runs(runs, metric, args.step, args.seeds)


def _problems_of_sweeps(paths: Sequence[str], runs: Sequence[ComparedRun]) -> list[str]:
    from vgexp.past import problems_of_sweeps

    return problems_of_sweeps(paths, [run.folder for run in runs])


def _draw(runs: Sequence[ComparedRun], args: argparse.Namespace, words: dict[str, str]) -> Path:
    """Draws the figure that the arguments ask for. Returns its file."""
    from vgexp.report.comparing import charts, comparison, sweep_grid
    from vgexp.report.figures import comparing, style, sweep_maps

    if args.heatmap is not None:
        color = words.get("color", args.metric)
        grid = sweep_grid.sweep_grid(runs, words.get("x"), words.get("y"), color, args.step)
        figure = sweep_maps.draw(grid)
    elif args.layers is None:
        figure = comparing.draw(charts.over_steps(runs, args.metric, args.seeds, args.panels))
    else:
        metric = args.layers or args.metric or comparison.DEFAULT_LAYER_METRIC
        chart = charts.over_depth(runs, metric, args.step, args.seeds, args.panels)
        figure = comparing.draw(chart)
    return style.write(figure, args.plot)


def _paths_and_metric(paths: list[str], layers: str | None) -> tuple[list[str], str | None]:
    """Undoes `--layers RUN`, which argparse reads as a metric."""
    if layers and Path(layers).exists():
        return [layers, *paths], _LAYERS_WITHOUT_METRIC
    return paths, layers


def _paths_and_words(
    paths: list[str], heatmap: list[str] | None
) -> tuple[list[str], dict[str, str]]:
    """Undoes `--heatmap x=KEY RUN`: argparse takes paths after the words for words."""
    if heatmap is None:
        return paths, {}
    words, found = {}, []
    for word in [*paths, *heatmap]:
        name, is_word, value = word.partition("=")
        if is_word and name in _MAP_WORDS:
            if not value:
                raise impossible(f"{name} of --heatmap", value, f"{name}=NAME")
            words[_MAP_WORDS[name]] = value
        elif is_word and not Path(word).exists():
            raise unknown("word of --heatmap", name, ("x", "y", "color"))
        else:
            found.append(word)
    return found, words
