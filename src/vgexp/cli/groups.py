"""Formats Hydra's help page: wraps its list of groups to 80 columns, and adds vgexp's keys."""

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

_ZOO = "zoo: "
"""The group whose names are counted: there are too many for a page of help."""


@contextmanager
def wrap_groups() -> Iterator[None]:
    """Within, wraps printed lines of groups, and replaces `KEYS` by the page of keys."""
    printed = io.StringIO()
    try:
        with redirect_stdout(printed):
            yield
    finally:
        print("\n".join(map(_wrap, printed.getvalue().split("\n"))), end="")


def _wrap(line: str) -> str:
    if line == KEYS:
        from vgexp.cli import keys

        return keys.format_page()
    if line.startswith(_ZOO) and _GROUP.fullmatch(line):
        num_names = line.count(",") + 1
        return f"{_ZOO}{num_names} configurations of known health: vgexp list zoo"
    if len(line) <= WIDTH or not _GROUP.fullmatch(line):
        return line
    return textwrap.fill(
        line, WIDTH, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
    )
