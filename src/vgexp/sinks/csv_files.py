"""CSV files that grow row by row: constant memory, whole lines only, nothing recorded is lost."""

from __future__ import annotations

import csv
import io
import os
from pathlib import Path
from typing import Any, final

from vgexp.records import TABLES, Rows


@final
class CsvFiles:
    """Appends rows to `<table>.csv`; each batch of rows is one write of whole lines.

    A write that fails half-way (a full disk, an interrupt) is cut back to the last whole line, so
    that what was recorded before stays readable.
    """

    def __init__(self, folder: Path) -> None:
        self._files: dict[str, _File] = {}
        try:
            for table in TABLES:
                self._files[table] = _File(folder / f"{table}.csv", table)
        except BaseException:
            self.close()
            raise

    def __call__(self, rows: Rows) -> None:
        names = [column.name for column in TABLES[rows.table]]
        columns = [rows.columns.get(name) for name in names]
        empty = [""] * len(rows)
        cells = [empty if values is None else _texts(values) for values in columns]
        self._files[rows.table].append(zip(*cells, strict=True))

    def close(self) -> None:
        for file in self._files.values():
            file.close()


def _texts(values: Any) -> list[str]:
    """Shortest text that reads back in the value's own dtype; empty for None."""
    return ["" if value is None else str(value) for value in values]


class _File:
    """One table; its header is written when it is made, and it must not exist before."""

    def __init__(self, path: Path, table: str) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND
        self._descriptor = os.open(path, flags, 0o644)
        self._path = path
        self._size = 0
        self.append([[column.name for column in TABLES[table]]])

    def append(self, lines: Any) -> None:
        buffer = io.StringIO()
        csv.writer(buffer, lineterminator="\n").writerows(lines)
        data = buffer.getvalue().encode()
        try:
            written = 0
            while written < len(data):
                written += os.write(self._descriptor, data[written:])
        except BaseException as error:
            os.ftruncate(self._descriptor, self._size)
            if isinstance(error, OSError):
                raise OSError(error.errno, error.strerror, str(self._path)) from error
            raise
        self._size += len(data)

    def close(self) -> None:
        os.close(self._descriptor)
