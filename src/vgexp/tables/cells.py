"""Reads tables cell by cell as text, and says what is wrong with a broken one."""

from __future__ import annotations

import csv
from collections.abc import Collection, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from vgexp import files
from vgexp.errors import unknown
from vgexp.quantities import TABLES, lacking_columns
from vgexp.tables.files import MOST_LINE, broken, readable


@dataclass(frozen=True)
class Cells:
    """The cells of a table by column, and the text of a last line that was cut."""

    columns: dict[str, list[str]]
    half_line: str | None
    absent: list[str]
    """The columns among these that the file does not have."""


def cells_of(path: Path, table: str, columns: Collection[str] | None) -> Cells:
    """Reads the cells of the named columns, or of all.

    A column that `quantities` declares and the file does not have comes last, its cells empty.

    Raises:
        QuestionError: a file that is missing or broken, or a column that nobody knows.
    """
    half: list[str] = []
    rows = rows_of(path, table, half)
    header = next(rows)
    declared = [column.name for column in TABLES[table]]
    wanted = {*header, *declared} if columns is None else columns
    for name in wanted:
        if name not in header and name not in declared:
            raise unknown(f"column of {path}", name, header)
    places = {name: header.index(name) for name in header if name in wanted}
    cells: dict[str, list[str]] = {name: [] for name in places}
    num_rows = 0
    for row in rows:
        num_rows += 1
        for name, place in places.items():
            cells[name].append(row[place])
    absent = [name for name in declared if name in wanted and name not in header]
    cells |= {name: [""] * num_rows for name in absent}
    return Cells(cells, half[0] if half else None, absent)


def rows_of(path: Path, table: str, half: list[str]) -> Iterator[list[str]]:
    """Reads the header, then the cells row by row; puts a last line that was cut into `half`."""
    # Closed here, where a table turns out broken: a suspended reader would hold its file.
    with closing(_whole_lines(path, half)) as lines:
        reader = csv.reader(lines)
        try:
            header = next(reader, None)
            if header is None:
                raise broken(path, f"ends within its header: {half[0]!r}" if half else "is empty")
            missing = lacking_columns(table, header)
            if missing:
                raise broken(
                    path, f"lacks the columns {', '.join(missing)}\nit is another table, or damaged"
                )
            yield header
            for number, row in enumerate(reader, start=2):
                if len(row) != len(header):
                    raise broken(path, f"has {len(row)} cells in line {number}, not {len(header)}")
                yield row
        except csv.Error as error:
            raise broken(path, f"is not a table: {error}") from None


def _whole_lines(path: Path, half: list[str]) -> Generator[str]:
    with readable(path), files.open_text(path, newline="\n") as file:
        while line := file.readline(MOST_LINE):
            if line.endswith("\n"):
                yield line
            elif len(line) == MOST_LINE:
                raise broken(path, f"has a line of more than {MOST_LINE:,} characters")
            else:
                half.append(line)
