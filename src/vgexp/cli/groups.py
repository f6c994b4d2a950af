"""Hydra's help page: its list of groups made to fit 80 columns, and our keys put in."""

from __future__ import annotations

import io
import re
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout

from vgexp.cli.error_blocks import WIDTH

KEYS = "(the keys)"
"""The line of Hydra's help template that stands for the page of keys."""

_GROUP = re.compile(r"[\w/]+: [^,:]+(, [^,:]+)+")


@contextmanager
def wrapped_groups() -> Iterator[None]:
    """What is printed within, with the lines of groups wrapped and `KEYS` filled in."""
    printed = io.StringIO()
    try:
        with redirect_stdout(printed):
            yield
    finally:
        print("\n".join(map(_wrapped, printed.getvalue().split("\n"))), end="")


def _wrapped(line: str) -> str:
    if line == KEYS:
        from vgexp.cli import keys

        return keys.page()
    if len(line) <= WIDTH or not _GROUP.fullmatch(line):
        return line
    return textwrap.fill(
        line, WIDTH, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
    )
