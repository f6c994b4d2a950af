"""Tables as plain text that fits the console: a cell is cut only where no person would read it.

A table too wide is split into several, each led by the key column; a cell too wide for a whole
line is folded over several lines. Names are text, never markup. A file may hold text without end:
what is shown of one is bounded, and so is the time that it takes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby, takewhile, zip_longest

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from vgexp import errors

_GAP = "  "
_SMALLEST_WIDTH = 8
MOST_OF_CELL = 200
"""Characters of a cell, a heading or a value that are shown."""
MOST_OF_REASON = 1_000
"""Of what a file says in sentences, such as why a run failed."""
MOST_OF_TEXT = 4_000
"""Of a diagnosis: the sentences of all rules."""
MOST_OF_LINE = 20_000
"""Of a line or a paragraph, whatever it is made of: more than a path has, or a list of runs."""
LEFT_OUT = "..."
# Headers are not folded to less than this.
_HEADER_WIDTH = 10
# Where a header or a long cell may be broken: after these.
_PIECES = re.compile(r"[^ _,/.=-]*[ _,/.=-]|[^ _,/.=-]+")
NOT_FINITE = "not finite"
"""A number that is known to be nan or infinite, but not which."""
_NUMBER = re.compile(rf"[-+]?(\d.*|nan|inf|{NOT_FINITE})?")


@dataclass(frozen=True)
class Column:
    """A column of texts; neighbours with the same `group` stay together, below its name."""

    header: str
    cells: Sequence[str]
    group: str = ""


def number(value: float, digits: int = 3) -> str:
    """Writes a number in few digits: `0.16`, `2.1e-16`, `nan`, `inf`."""
    return f"{value:.{digits}g}"


def printable(text: str, console: Console) -> str:
    """Escapes everything that a terminal would obey or the encoding lacks."""
    plain = errors.printable(text).encode(console.encoding, "backslashreplace")
    return plain.decode(console.encoding)


def shorten(text: str, most: int = MOST_OF_CELL) -> str:
    """Cuts a long text, with dots for what was left out."""
    return text if len(text) <= most else text[: most - len(LEFT_OUT)] + LEFT_OUT


def cut_to_width(text: str, width: int) -> str:
    """Cuts a text after the last character that fits into the width."""
    ends = accumulate(map(cell_len, text))
    return text[: sum(1 for _ in takewhile(lambda end: end <= width, ends))]


def show_line(console: Console, text: str, style: str = "") -> None:
    """Prints one line without wrapping it, so that a path in it can be copied."""
    shown = printable(shorten(text, MOST_OF_LINE), console)
    console.print(Text(shown, style=style), soft_wrap=True)


def show_words(console: Console, text: str, indent: str = "") -> None:
    """Prints sentences, wrapped at the console's width; further lines after `indent`."""
    whole = Text(printable(shorten(text, MOST_OF_LINE), console))
    first, *rest = whole.wrap(console, max(_SMALLEST_WIDTH, console.width - len(indent)))
    for line in (first, *(Text(indent) + line for line in rest)):
        line.rstrip()
        console.print(line)


def show_table(console: Console, key: Column, columns: Sequence[Column]) -> None:
    """Prints the columns beside `key`, in as many tables as the console's width needs."""
    width = console.width
    key_block = _Block(console, [key], max(_SMALLEST_WIDTH, width // 2))
    room = max(_SMALLEST_WIDTH, width - key_block.width - len(_GAP))
    blocks = [
        _Block(console, part, room)
        for name, members in groupby(columns, key=lambda column: column.group)
        for part in ([list(members)] if name else [[column] for column in members])
    ]
    for index, row in enumerate(_pack(blocks, room) or [[]]):
        if index:
            console.print()
        _show_blocks(console, [key_block, *row])


class _Block:
    """Columns that stay together, as lines of equal width: a header, and cells row by row."""

    def __init__(self, console: Console, columns: Sequence[Column], room: int) -> None:
        self.group = _cell(columns[0].group, console)
        limit = room if len(columns) == 1 else max(_SMALLEST_WIDTH, room // len(columns) - 2)
        texts = [[_cell(cell, console) for cell in column.cells] for column in columns]
        cells = [[_fold(text, limit) for text in column] for column in texts]
        titles = [_cell(column.header, console) for column in columns]
        headers = [
            _fold(header, _header_width(header, folded, limit))
            for header, folded in zip(titles, cells, strict=True)
        ]
        self._widths = [
            max(map(cell_len, (line for part in (head, *folded) for line in part)), default=0)
            for head, folded in zip(headers, cells, strict=True)
        ]
        self._right = [all(map(_NUMBER.fullmatch, column)) for column in texts]
        self.width = max(sum(self._widths) + len(_GAP) * (len(columns) - 1), cell_len(self.group))
        self.header = self._lines(headers)
        self.rows = [self._lines(row) for row in zip(*cells, strict=True)]

    def _lines(self, row: Sequence[Sequence[str]]) -> list[str]:
        return [
            _pad(_GAP.join(map(_pad, parts, self._widths, self._right)), self.width, right=True)
            for parts in zip_longest(*row, fillvalue="")
        ]


def _show_blocks(console: Console, blocks: Sequence[_Block]) -> None:
    height = max(len(block.header) for block in blocks)
    if any(block.group for block in blocks):
        _show_row(console, blocks, [[block.group] for block in blocks], "bold")
    headers = [[""] * (height - len(block.header)) + block.header for block in blocks]
    _show_row(console, blocks, headers, "bold")
    _show_row(console, blocks, [["-" * block.width] for block in blocks], "dim")
    for row in zip(*(block.rows for block in blocks), strict=True):
        _show_row(console, blocks, row, "")


def _show_row(
    console: Console, blocks: Sequence[_Block], parts: Sequence[Sequence[str]], style: str
) -> None:
    for line in zip_longest(*parts, fillvalue=""):
        texts = [_pad(text, block.width) for text, block in zip(line, blocks, strict=True)]
        console.print(Text(_GAP.join(texts).rstrip(), style=style), soft_wrap=True)


def _pack(blocks: Sequence[_Block], room: int) -> list[list[_Block]]:
    rows: list[list[_Block]] = []
    left = -1
    for block in blocks:
        if block.width > left:
            rows.append([])
            left = room
        rows[-1].append(block)
        left -= block.width + len(_GAP)
    return rows


def _header_width(header: str, cells: Sequence[Sequence[str]], limit: int) -> int:
    """Returns the least width for the cells, the header's longest piece and `_HEADER_WIDTH`."""
    widest_cell = max((cell_len(line) for lines in cells for line in lines), default=0)
    widest_piece = max((cell_len(piece) for piece in _pieces(header)), default=0)
    return min(limit, max(widest_cell, widest_piece, _HEADER_WIDTH))


def _fold(text: str, limit: int) -> list[str]:
    lines = []
    for paragraph in text.split("\n"):
        line = ""
        for piece in _pieces(paragraph):
            if line and cell_len(line) + cell_len(piece.rstrip()) > limit:
                lines.append(line.rstrip())
                line = ""
            *full, piece = _cut(piece, limit)
            lines += full
            line += piece
        lines.append(line.rstrip())
    return lines


def _pieces(text: str) -> list[str]:
    return _PIECES.findall(text.replace("\n", " "))


def _cut(piece: str, limit: int) -> Iterator[str]:
    while cell_len(piece.rstrip()) > limit:
        end = max(1, len(cut_to_width(piece, limit)))
        yield piece[:end]
        piece = piece[end:]
    yield piece


def _cell(text: str, console: Console) -> str:
    # Cut again: an escape is longer than its character.
    return shorten(printable(shorten(text), console))


def _pad(text: str, width: int, right: bool = False) -> str:
    blanks = " " * (width - cell_len(text))
    return blanks + text if right else text + blanks
