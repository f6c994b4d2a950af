"""Command lines that are not Hydra's, with argparse's complaints as questions."""

from __future__ import annotations

import argparse
from typing import NoReturn

from vgexp.errors import QuestionError


class Parser(argparse.ArgumentParser):
    """argparse, but a wrong command line raises `QuestionError` instead of leaving the process."""

    def error(self, message: str) -> NoReturn:
        raise QuestionError(f"{message}\nusage: {self.format_usage().removeprefix('usage: ')}")
