"""Shows a comparison in the terminal, and writes it to CSV."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from vgexp.errors import QuestionError, printable
from vgexp.report.comparing.spread import Spread
from vgexp.report.terminal.layout import Column, number, show_line, show_table, show_words

# Of a sentence's second and further lines where sentences stand below one another.
_INDENT = "  "


@dataclass(frozen=True)
class Shown:
    """A column of a comparison: a title, and a value for each row (None: empty)."""

    title: str
    values: Sequence[Any]
    heading: str = ""
    """What the terminal calls it where the title is too long; `Comparison.key` spells it out."""
    written: Sequence[Any] | None = None
    """What the CSV holds where the terminal says it in other words."""


@dataclass(frozen=True)
class Comparison:
    """A table as it is shown and as it is written to CSV; the first column names the rows."""

    columns: Sequence[Shown]
    legend: Sequence[str] = ()
    """Sentences below the table: what its signs mean."""
    names: Sequence[str] = ()
    """Lines below the table: the runs behind its numbers."""
    key: Sequence[str] = ()
    """Sentences above the table: what its headings stand for."""
    endings: Sequence[str] = ()
    """Sentences below the table: how runs ended that did not complete, and why, and
    what is missing."""
    csv_only: Sequence[Shown] = ()
    """Further columns of the CSV: what the terminal says in sentences."""


def show(console: Console, comparison: Comparison) -> None:
    """Prints a comparison, in several tables where it is wider than the console."""
    sign = "+/-" if console.options.ascii_only else "±"
    key, *columns = [
        Column(column.heading or column.title, [_short(value, sign) for value in column.values])
        for column in comparison.columns
    ]
    for sentence in comparison.key:
        show_words(console, sentence, indent=_INDENT)
    if comparison.key:
        console.print()
    show_table(console, key, columns)
    if comparison.endings:
        console.print()
    for sentence in comparison.endings:
        show_words(console, sentence, indent=_INDENT)
    if comparison.legend or comparison.names:
        console.print()
    for sentence in comparison.legend:
        show_words(console, sentence.replace("±", sign))
    for line in comparison.names:
        show_line(console, line)


def add_sentences(comparison: Comparison, sentences: Sequence[str]) -> Comparison:
    """Returns the comparison with further sentences below the table."""
    return replace(comparison, endings=[*comparison.endings, *sentences])


def write_csv(comparison: Comparison, path: Path) -> None:
    """Writes what is shown, with every digit and whole names; a spread as three columns.

    Control characters are escapes: Python's `csv` leaves a bare carriage return without quotes.
    """
    shown = [*comparison.columns, *comparison.csv_only]
    columns = [part for column in shown for part in _csv_columns(column)]
    try:
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow([printable(column.title) for column in columns])
            writer.writerows(
                zip(
                    *([printable(_full(v)) for v in column.values] for column in columns),
                    strict=True,
                )
            )
    except OSError as error:
        raise QuestionError(f"cannot write {path}: {error.strerror}") from None


def spread_legend(columns: Sequence[Shown]) -> list[str]:
    """Explains the signs in cells that average several seeds."""
    spreads = [v for column in columns for v in column.values if isinstance(v, Spread)]
    lines = []
    if any(not spread.is_geometric for spread in spreads):
        lines.append("a ± b: mean and standard deviation over seeds")
    if any(spread.is_geometric for spread in spreads):
        lines.append("a */ b: geometric mean and geometric standard deviation over seeds")
    if any(0 < spread.num_values < spread.num_seeds for spread in spreads):
        lines.append("(n of m): only n of m seeds have a value that counts")
    return lines


def _short(value: Any, sign: str) -> str:
    if not isinstance(value, Spread):
        return number(value) if isinstance(value, float) else _full(value)
    if value.centre is None:
        return ""
    text = number(value.centre)
    if value.spread is not None:
        geometric, plain = f" */ {number(value.spread)}", f" {sign} {number(value.spread, 2)}"
        text += geometric if value.is_geometric else plain
    if value.num_values < value.num_seeds:
        text += f" ({value.num_values} of {value.num_seeds})"
    return text


def _full(value: Any) -> str:
    if value is None:
        return ""
    return repr(float(value)) if isinstance(value, float) else str(value)


def _csv_columns(column: Shown) -> list[Shown]:
    title = column.title.replace("\n", ", ")
    values = column.values if column.written is None else column.written
    if not any(isinstance(value, Spread) for value in values):
        return [Shown(title, values)]
    kind = "geometric_" if any(value.is_geometric for value in values) else ""
    return [
        Shown(f"{title}_{kind}mean", [value.centre for value in values]),
        Shown(f"{title}_{kind}std", [value.spread for value in values]),
        Shown(f"{title}_n", [value.num_values for value in values]),
    ]
