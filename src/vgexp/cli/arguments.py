"""Parses the command lines of verbs without overrides, and raises errors as `QuestionError`."""

from __future__ import annotations

import argparse
import re
from typing import Any, NoReturn

from vgexp.errors import QuestionError, unknown

_UNKNOWN = re.compile(r"unrecognized arguments: (?:.* )?(--?[a-z][\w-]*)")


class Parser(argparse.ArgumentParser):
    """An argparse parser that raises `QuestionError` for a wrong command line instead of exiting.

    Flags must be written in full, since the beginning of one may be the beginning of another.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(allow_abbrev=False, **kwargs)

    def error(self, message: str) -> NoReturn:
        usage = " ".join(self.format_usage().split())
        flag = _UNKNOWN.match(message)
        if flag:
            question = unknown("flag", flag[1], self._option_string_actions)
            raise QuestionError(f"{question}\n{usage}")
        raise QuestionError(f"{message}\n{usage}")
