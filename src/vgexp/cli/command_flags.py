"""Hydra's flags and the overrides, as they are typed behind a verb."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence

from vgexp.cli import hydra_internals, overrides
from vgexp.cli.hydra_errors import unknown_flag
from vgexp.errors import QuestionError


def parse_flags(argv: Sequence[str]) -> argparse.Namespace:
    """Parses Hydra's flags and the overrides, in any order.

    Raises:
        QuestionError: an unknown flag, one without its value, or spaces around a `=`.
    """
    parser = hydra_internals.make_parser()
    parser.exit_on_error = False
    # Or `--experiment` would be taken for the beginning of a flag of Hydra's.
    parser.allow_abbrev = False
    try:
        args, rest = parser.parse_known_args(list(argv))
    except argparse.ArgumentError as error:
        raise QuestionError(f"{error.argument_name}: {error.message}") from None
    strange = [token for token in rest if token.startswith("-")]
    if strange:
        raise unknown_flag(strange[0], argv, _known_flags(parser))
    if args.experimental_rerun is not None:
        raise QuestionError(
            "--experimental-rerun is not supported\n"
            "allowed: vgexp train --config-dir RUN --config-name config"
        )
    args.overrides = [*args.overrides, *rest]
    overrides.require_joined(args.overrides)
    return args


def _known_flags(parser: argparse.ArgumentParser) -> list[str]:
    named = re.findall(r"--[a-z-]+", parser.format_usage())
    return [flag for flag in named if flag != "--experimental-rerun"]
