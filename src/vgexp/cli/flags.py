"""Hydra's parser of flags, on every Python.

From Python 3.14 on argparse formats the help of a flag as the flag is added. Hydra 1.3 has one help
that becomes text only when it is shown (`LazyCompletionHelp`), which argparse then refuses: "badly
formed help string". Hydra shows it without argparse, so nothing is lost where it is not checked.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from hydra._internal.utils import get_args_parser

_CHECK = "_check_help"


def make_parser() -> argparse.ArgumentParser:
    """The parser of Hydra's own flags and of overrides."""
    with lazy_help():
        parser: argparse.ArgumentParser = get_args_parser()
    return parser


@contextmanager
def lazy_help() -> Iterator[None]:
    """Within, argparse takes a help that is no text; what is one is checked as ever."""
    container: type = argparse._ActionsContainer
    check = getattr(container, _CHECK, None)
    if check is None:  # before Python 3.14
        yield
        return

    def check_text(self: Any, action: argparse.Action) -> None:
        if isinstance(action.help, str):
            check(self, action)

    setattr(container, _CHECK, check_text)
    try:
        yield
    finally:
        setattr(container, _CHECK, check)
