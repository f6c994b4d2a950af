"""The verbs, each of which loads its modules when it is called."""

from __future__ import annotations

TYPE_CHECKING = False  # typing's own takes a while to load, in which Ctrl-C cannot be caught
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def _train(argv: list[str]) -> int:
    return _enter("train", argv)


def _signal(argv: list[str]) -> int:
    return _enter("signal", argv)


def _enter(verb: str, argv: list[str]) -> int:
    from vgexp.cli import notice

    with notice.show_starting(argv):
        from vgexp.cli import hydra_entry

        return hydra_entry.enter(verb, argv)


def _compare(argv: list[str]) -> int:
    from vgexp.cli import compare
    from vgexp.cli.arguments import Parser

    parser = Parser(prog="vgexp compare", description="One row a run: what differs, what came out.")
    compare.add_arguments(parser)
    return compare.main(parser.parse_intermixed_args(argv))


def _show(argv: list[str]) -> int:
    from vgexp.cli import show
    from vgexp.cli.arguments import Parser

    parser = Parser(
        prog="vgexp show",
        description="A run in the terminal: layer-by-step heat map, curves, verdict, metrics.",
    )
    show.add_arguments(parser)
    return show.main(parser.parse_args(argv))


def _resume(argv: list[str]) -> int:
    from vgexp.cli import notice, resume
    from vgexp.cli.arguments import Parser

    parser = Parser(
        prog="vgexp resume",
        description="Continues a run or a sweep that was cut short. Its results stay the same.",
    )
    resume.add_arguments(parser)
    args = parser.parse_intermixed_args(argv)
    with notice.show_starting([]):
        return resume.main(args)


def _list(argv: list[str]) -> int:
    from vgexp.cli import listing

    return listing.main(argv)


VERBS: Mapping[str, Callable[[list[str]], int]] = {
    "train": _train,
    "signal": _signal,
    "compare": _compare,
    "show": _show,
    "resume": _resume,
    "list": _list,
}
