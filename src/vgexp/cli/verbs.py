"""The verbs: what each takes, what the help page says of it, and what runs it.

A verb that takes arguments is a module of its name beside this one, with `DESCRIPTION`,
`add_arguments(parser)` and `main(args)`, and an entry here.
"""

from __future__ import annotations

TYPE_CHECKING = False  # typing's own takes a while to load, in which Ctrl-C cannot be caught
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class Verb:
    """A verb, which loads its modules when it is run."""

    def __init__(self, takes: str, purpose: str, run: Callable[[str, list[str]], int]) -> None:
        self.takes = takes
        """What follows it on the command line, as the help page shows it."""
        self.purpose = purpose
        """A line of the help page."""
        self.run = run
        """From its name and the words after it to an exit code."""

    @property
    def takes_folders(self) -> bool:
        """Whether folders of runs complete its command line."""
        return "RUN" in self.takes


def _take_overrides(verb: str, argv: list[str]) -> int:
    from vgexp.cli import notice

    with notice.show_starting(argv):
        from vgexp.cli import hydra_entry

        return hydra_entry.enter(verb, argv)


def _take_run_or_overrides(verb: str, argv: list[str]) -> int:
    from vgexp.cli import notice

    with notice.show_starting(argv):
        from vgexp.cli import fix, hydra_entry

        return hydra_entry.enter(verb, fix.rewrite(argv))


def _take_arguments(verb: str, argv: list[str]) -> int:
    from importlib import import_module

    from vgexp.cli.arguments import Parser

    module = import_module(f"vgexp.cli.{verb}")
    parser = Parser(prog=f"vgexp {verb}", description=module.DESCRIPTION)
    module.add_arguments(parser)
    return int(module.main(parser.parse_intermixed_args(argv)))


def _take_kind(_: str, argv: list[str]) -> int:
    from vgexp.cli import listing

    return listing.main(argv)


VERBS: Mapping[str, Verb] = {
    "train": Verb(
        "[overrides]", "build the model, train it, write one run folder", _take_overrides
    ),
    "signal": Verb(
        "[overrides]", "signal propagation at initialisation, no training", _take_overrides
    ),
    "compare": Verb(
        "RUN_OR_SWEEP...", "one row a run: what differs, what came out", _take_arguments
    ),
    "show": Verb("RUN", "heat map, curves and verdict in the terminal", _take_arguments),
    "diagnose": Verb(
        "RUN_OR_SWEEP...", "health, one root cause, evidence, remedies", _take_arguments
    ),
    "fix": Verb(
        "[overrides] | RUN",
        "the smallest override that cures, with its proof",
        _take_run_or_overrides,
    ),
    "explain": Verb(
        "[TOPIC [RUN]]", "a page on a cause, a cure, a word, a question", _take_arguments
    ),
    "resume": Verb("RUN_OR_SWEEP", "go on with what was cut short", _take_arguments),
    "list": Verb("[KIND]", "experiments, activations, inits, metrics, ...", _take_kind),
}
