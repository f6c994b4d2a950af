"""Error blocks: plain text on stderr, at most 80 columns, one for each error."""

from __future__ import annotations

import os
import re
import shlex
import sys
import textwrap
import traceback
from contextlib import suppress
from pathlib import Path

from vgexp import files, folders
from vgexp.cli import notice
from vgexp.cli.interrupts import headline
from vgexp.config import targets
from vgexp.errors import LostError, QuestionError, printable
from vgexp.resuming import is_open
from vgexp.sweep import plan

WIDTH = 80
_MOST_LINE = 2**20
"""Bytes of the line of a table's columns."""
FULL_ERROR = "HYDRA_FULL_ERROR"
_OF_CODE = (
    TypeError,
    ValueError,
    LookupError,
    AttributeError,
    NameError,
    ArithmeticError,
    AssertionError,
    NotImplementedError,
)
_SURROUNDINGS = re.compile(r"memory|alloc|cuda|cudnn|cublas|nccl|device|thread", re.IGNORECASE)
"""What a `RuntimeError` of torch speaks of that another time or machine may have more of."""
_COMMAND = re.compile(r"(^|(?<!usage): )vgexp ")
"""A command to be copied, which a usage is not."""


def full_error() -> bool:
    """Whether the user asked for tracebacks. Ask before Hydra runs: the door sets the variable."""
    return os.environ.get(FULL_ERROR) == "1"


def block(headline: str, *lines: str) -> str:
    """`headline` after `error: `, each further line indented below it, all wrapped.

    A line with a command, or with a path longer than the width, stays whole, to be copied.
    """
    parts = [_wrap(headline, "error: ", "       ")]
    parts += [_wrap(line, "  ", "    ") for line in lines if line.strip()]
    return "\n".join(parts)


def show(text: str) -> None:
    """Writes a block to stderr, after whatever stdout still holds.

    Where nobody can read it (the terminal was closed), the exit code alone tells.
    """
    notice.take_back()
    # A closed pipe must not hide the error.
    with suppress(OSError):
        sys.stdout.flush()
    with suppress(OSError):
        print(text, file=sys.stderr, flush=True)


def question(error: QuestionError, *, full: bool = False) -> int:
    """Shows what was wrong with the question. Returns exit code 2."""
    if full:
        traceback.print_exception(error)
    show(block(*str(error).splitlines()))
    return 2


def failure(
    error: BaseException,
    *,
    log: Path | None = None,
    full: bool = False,
    folder: Path | None = None,
) -> int:
    """Shows that the work failed, why, where the traceback is, and what was saved before.

    Where nothing was recorded, going on would begin anew and fail in the same way: it is not
    offered.

    Returns exit code 1.
    """
    if full:
        traceback.print_exception(error)
    where = f"traceback: {log}" if log else f"{FULL_ERROR}=1 shows the traceback"
    if full or isinstance(error, LostError):
        where = ""
    left = _left(folder, recurs=_recurs(error)) if _has_rows(folder) else []
    show(block("the work failed", *describe(error).splitlines(), where, *left))
    return 1


def interruption(error: KeyboardInterrupt, folder: Path | None) -> None:
    """Shows that the work was cut short, and what of it was saved where."""
    show(block(headline(error), *_left(folder)))


def _recurs(error: BaseException) -> bool:
    """Whether the same code would certainly fail in the same way again, at the same step."""
    if isinstance(error, OSError | LostError):
        return False
    if type(error) is RuntimeError:
        return _SURROUNDINGS.search(str(error)) is None
    return isinstance(error, _OF_CODE)


def _left(folder: Path | None, *, recurs: bool = False) -> list[str]:
    """What is saved in a run's or a sweep's folder, and how to go on from there.

    Args:
        recurs: whether going on as it is would fail again.
    """
    saved = _files(folder)
    if folder is not None and not saved and any(folder.glob("*/steps.csv")):
        saved = ["the folders of its jobs"]
    is_planned = folder is not None and files.exists(folder / plan.FILE)
    none = "no job has begun" if is_planned else "nothing was recorded yet"
    lines = [f"saved in {folder}: {', '.join(saved)}" if saved else none]
    if folder is not None and _has_ended(folder):
        again = shlex.join(["vgexp", "show", str(folder), "--figures"])
        return [*lines, "the run has ended; not every figure was drawn", f"draw them: {again}"]
    marks = (folders.CONFIG, plan.FILE)
    if folder is not None and any((folder / name).exists() for name in marks):
        if not recurs:
            lines.append(f"go on: {resuming(folder)}")
        elif _names_code(folder):
            lines.append(f"once your code is mended, go on: {resuming(folder)}")
    return lines


def _has_ended(folder: Path) -> bool:
    """Whether it is a run's, which has nothing to go on with."""
    return (folder / folders.CONFIG).exists() and not is_open(folder)


def _has_rows(folder: Path | None) -> bool:
    """Whether a step was recorded, or of a run that does not train any row."""
    if folder is None:
        return False
    steps = folder / "steps.csv"
    with suppress(OSError):
        return any(map(_has_row, [steps] if files.exists(steps) else folder.glob("*.csv")))
    return False


def _has_row(table: Path) -> bool:
    # A link, or a line without end, is no row of ours.
    with suppress(QuestionError), files.open_to_read(table) as lines:
        return lines.readline(_MOST_LINE).endswith(b"\n") and bool(lines.read(1))
    return False


def _files(folder: Path | None) -> list[str]:
    if folder is None or not folder.is_dir():
        return []
    recorded = (path.name for path in folder.iterdir() if path.suffix in (".csv", ".json"))
    return sorted(name for name in recorded if name != plan.FILE)


def resuming(folder: Path) -> str:
    """The command that goes on with a run or a sweep, to be pasted."""
    words = ["vgexp", "resume", str(folder)]
    return shlex.join([*words, "--trust"] if _names_code(folder) else words)


def _names_code(folder: Path) -> bool:
    """Whether going on would execute code of the user's own; False where that cannot be read."""
    with suppress(Exception):
        known = plan.read(folder)
        if known is not None:
            return any(targets(entry.config) for entry in known.entries)
        from vgexp import tables

        return bool(targets(tables.read_config(folder)))
    return False


def describe(error: BaseException) -> str:
    """The message; with the type's name where the error is not one of ours or the system's."""
    kind = type(error)
    if str(error) and (kind.__module__.startswith("vgexp.") or isinstance(error, OSError)):
        return str(error)
    return f"{kind.__name__}: {error}" if str(error) else kind.__name__


def _wrap(text: str, first: str, rest: str) -> str:
    text = printable(text.strip())
    if _COMMAND.search(text) or max(map(len, text.split()), default=0) > WIDTH - len(rest):
        return f"{first}{text}"
    return textwrap.fill(
        text,
        WIDTH,
        initial_indent=first,
        subsequent_indent=rest,
        break_long_words=False,
        break_on_hyphens=False,
    )
