"""The log of a run, which is written to a regular file only and follows no link."""

from __future__ import annotations

import io
import logging
from typing import cast, final

from vgexp.files import open_regular


@final
class RegularFileHandler(logging.FileHandler):
    """Appends to a regular file, and makes it where there is none."""

    def _open(self) -> io.TextIOWrapper:
        # Of a text mode `open` gives nothing else; what it is told to open with hides that.
        return cast(
            io.TextIOWrapper,
            open(
                self.baseFilename,
                self.mode,
                encoding=self.encoding,
                errors=self.errors,
                opener=open_regular,
            ),
        )
