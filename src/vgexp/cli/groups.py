"""Hydra's list of groups and their choices, a line each however many, made to fit 80 columns."""

from __future__ import annotations

import io
import re
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout

from vgexp.cli.blocks import WIDTH

_GROUP = re.compile(r"[\w/]+: [^,:]+(, [^,:]+)+")


@contextmanager
def wrapped_groups() -> Iterator[None]:
    """What is printed within, with the lines of groups wrapped."""
    printed = io.StringIO()
    try:
        with redirect_stdout(printed):
            yield
    finally:
        print("\n".join(map(_wrapped, printed.getvalue().split("\n"))), end="")


def _wrapped(line: str) -> str:
    if len(line) <= WIDTH or not _GROUP.fullmatch(line):
        return line
    return textwrap.fill(
        line, WIDTH, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
    )
