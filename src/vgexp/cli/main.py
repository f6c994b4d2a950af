"""The program's entry: dispatches verbs and returns exit codes.

Modules are imported within functions, so that `vgexp --help` is fast, and Ctrl-C is caught while
modules are loaded too.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

_HELP = """\
vgexp: why deep networks stop learning, seen layer by layer

usage: vgexp VERB ...

verbs
{verbs}

first steps
  vgexp train +experiment=sigmoid_deep
  vgexp train -m model.depth=5,10,20 model.activation=sigmoid,relu
  vgexp compare outputs/train/mlp
  vgexp train --help        every key, its default and meaning
  eval "$(vgexp -sc install=bash)"    tab completion (zsh: the same, fish:
                            vgexp -sc install=fish | source)

exit codes
  0 done (so is a diverged or stopped run)    1 the work failed
  2 the question was wrong                    3 diagnose found a sickness,
                                                fix no cure
  130 interrupted, 143 terminated, 129 hung up (terminal closed)

options
  -h, --help    this page; after a verb, the verb's own
  --version     the version
"""


def entry() -> int:
    """Runs the command line of the process; the console script calls it."""
    return main(sys.argv[1:])


def main(argv: Sequence[str]) -> int:
    """Runs one command line (without the program's name) and returns its exit code."""
    try:
        return _run(list(argv))
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr)
        return 130


def _run(argv: list[str]) -> int:
    from vgexp.cli import error_blocks
    from vgexp.cli.interrupts import exit_code, headline, raise_on_signals
    from vgexp.errors import QuestionError

    full = error_blocks.wants_tracebacks()
    try:
        with raise_on_signals():
            code = _dispatch(argv)
            sys.stdout.flush()
            return code
    except QuestionError as error:
        return error_blocks.show_question(error, full=full)
    except KeyboardInterrupt as error:
        if argv[:1] in (["train"], ["signal"], ["fix"]):
            error_blocks.show_interruption(error, None)
        else:
            # There was nothing to record.
            error_blocks.show(error_blocks.format_block(headline(error)))
        return exit_code(error)
    except SystemExit as leaving:
        # argparse, after --help.
        return leaving.code if isinstance(leaving.code, int) else 0
    except BrokenPipeError:
        # The reader (`head`) has left; nor may the interpreter's last flush complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0
    except Exception as error:
        return error_blocks.show_failure(error, full=full)


def _dispatch(argv: list[str]) -> int:
    verb = argv[0] if argv else "--help"
    if verb in ("-h", "--help", "help"):
        print(_HELP.format(verbs=_list_verbs()), end="")
        return 0
    if verb == "--version":
        from vgexp import __version__

        print(f"vgexp {__version__}")
        return 0
    if verb in ("-sc", "--shell-completion"):
        from vgexp.cli import completion

        return completion.main(argv)
    from vgexp.cli.verbs import VERBS

    if verb not in VERBS:
        from vgexp.errors import QuestionError, unknown

        if "=" in verb and not verb.startswith("-"):
            raise QuestionError(
                f"{verb!r} is no verb\nallowed: {', '.join(VERBS)}\nnearest: vgexp train {verb}"
            )
        kind = "option" if verb.startswith("-") else "verb"
        raise unknown(kind, verb, [*VERBS, "--help", "--version"] if kind == "option" else VERBS)
    return VERBS[verb].run(verb, argv[1:])


def _list_verbs() -> str:
    from vgexp.cli.verbs import VERBS

    width = max(len(f"{name} {verb.takes}") for name, verb in VERBS.items()) + 3
    lines = (f"  {f'{name} {verb.takes}':<{width}}{verb.purpose}" for name, verb in VERBS.items())
    return "\n".join(lines)
