"""Tab completion: `eval "$(vgexp -sc install=bash)"`.

Verbs and folders are completed here, overrides by Hydra.
"""

from __future__ import annotations

import os
import re
import sys
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from io import StringIO
from pathlib import Path

from vgexp.cli import explain, hydra_entry, listing
from vgexp.cli.actions import WORKS
from vgexp.cli.command_flags import parse_flags
from vgexp.cli.job import Job
from vgexp.cli.verbs import VERBS
from vgexp.errors import QuestionError, unknown
from vgexp.quantities import TABLES

_SHELLS = ("bash", "zsh", "fish")
_SEPARATORS: Mapping[str, str] = {"bash": " ", "zsh": " ", "fish": "\n"}
_EXPERIMENT = re.compile(r"(\+{0,2}experiment=)")


def main(argv: Sequence[str]) -> int:
    """Handles `-sc install=SHELL`, `-sc uninstall=SHELL` and `-sc query=SHELL`, a shell's own."""
    command, _, shell = (argv[1] if len(argv) > 1 else "").partition("=")
    if command not in ("install", "uninstall", "query"):
        raise unknown("completion command", command, ("install", "uninstall", "query"))
    if shell not in _SHELLS:
        raise unknown("shell", shell, _SHELLS)
    if command != "query":
        _hydra([f"{command}={shell}"])
        return 0
    # A half-typed line is no error: it has no candidates.
    with suppress(Exception):
        found = candidates(os.environ.get("COMP_LINE", ""))
        print(_SEPARATORS[shell].join(found))
    return 0


def candidates(line: str) -> list[str]:
    """Lists the completions of the last word of a line, which begins with the program's name."""
    words = line.split()
    last = "" if line.endswith(" ") or not words else words.pop()
    if not words:
        return []
    if len(words) == 1:
        return [verb for verb in VERBS if verb.startswith(last)]
    if words[1] == "list":
        names = {2: listing.KINDS, 3: TABLES if words[2:] == ["metrics"] else ()}
        return [name for name in names.get(len(words), ()) if name.startswith(last)]
    if words[1] == "explain" and len(words) == 2:
        return [name for name in explain.list_topics() if name.startswith(last)]
    takes_folders = words[1] in VERBS and VERBS[words[1]].takes_folders
    found = _overrides(words[1], words[2:], last) if words[1] in WORKS else []
    return [*found, *(_folders(last) if takes_folders and "=" not in last else [])]


def _folders(start: str) -> list[str]:
    """Lists folders whose path begins with a text; hidden ones only if their name is begun."""
    above, _, name = start.rpartition("/")
    place = Path(f"{above}/" if above or start.startswith("/") else ".").expanduser()
    try:
        names = sorted(path.name for path in place.iterdir() if path.is_dir())
    except OSError:
        return []
    prefix = start.removesuffix(name)
    is_hidden = name.startswith(".")
    return [
        f"{prefix}{each}/"
        for each in names
        if each.startswith(name) and each.startswith(".") == is_hidden
    ]


def _overrides(verb: str, words: Sequence[str], last: str) -> list[str]:
    """Asks Hydra for the completions of the last word of a line."""
    try:
        args = parse_flags(words)
    except QuestionError:
        return []
    # Hydra composes what stands before the last word, and knows one spelling of `experiment`.
    before = hydra_entry.spell_words(args, args.overrides)
    line = " ".join(["vgexp", *before, last])
    with _environment(COMP_LINE=line), redirect_stdout(StringIO()) as answer:
        _hydra(["query=bash"], args, verb)
    found = answer.getvalue().split()
    named = _EXPERIMENT.match(last)
    if named:  # Hydra does not look into folders of presets
        found += [f"{named[1]}{name}" for name, _ in listing.list_experiments()]
    # Without the sign that a group of presets within it makes Hydra leave out.
    found = [f"{word}=" if word.lstrip("+") == "experiment" else word for word in found]
    return [word for word in dict.fromkeys(found) if word.startswith(last)]


def _hydra(command: Sequence[str], given: Namespace | None = None, verb: str = "train") -> None:
    args = parse_flags(["-sc", *command])
    if given is not None:
        args.config_path, args.config_dir = given.config_path, given.config_dir
        args.config_name = given.config_name
    hydra_entry.compose_and_call(args, Job(verb, "", []))


@contextmanager
def _environment(**variables: str) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
        sys.stdout.flush()
