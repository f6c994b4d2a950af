"""Prints errors as blocks: plain text on stderr, at most 80 columns wide, one block an error."""

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
from vgexp.sweep import plan, plan_file

WIDTH = 80
_MOST_LINE = 2**20
"""The most bytes of a table's header."""
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
"""Words in a `RuntimeError` of torch that name what another machine may have more of."""
_COMMAND = re.compile(r"(^|(?<!usage): )vgexp ")
"""A command that the user may copy; a line of usage is none."""


def wants_tracebacks() -> bool:
    """Whether the user asked for tracebacks. Call it before `hydra_entry` sets the variable."""
    return os.environ.get(FULL_ERROR) == "1"


def format_block(headline: str, *lines: str) -> str:
    """Formats a block: `error: ` and the headline, then the other lines, indented and wrapped.

    A line with a command, or with a path longer than the width, is not wrapped, so that it can be
    copied.
    """
    parts = [_wrap(headline, "error: ", "       ")]
    parts += [_wrap(line, "  ", "    ") for line in lines if line.strip()]
    return "\n".join(parts)


def show(text: str) -> None:
    """Writes a block to stderr, after the buffered output of stdout.

    Where it cannot be written (the terminal was closed), only the exit code tells of the error.
    """
    notice.take_back()
    # A closed pipe must not hide the error.
    with suppress(OSError):
        sys.stdout.flush()
    with suppress(OSError):
        print(text, file=sys.stderr, flush=True)


def show_question(error: QuestionError, *, full: bool = False) -> int:
    """Shows a mistake of the user. Returns exit code 2."""
    if full:
        traceback.print_exception(error)
    show(format_block(*str(error).splitlines()))
    return 2


def show_failure(
    error: BaseException,
    *,
    log: Path | None = None,
    full: bool = False,
    folder: Path | None = None,
) -> int:
    """Shows that the work failed, why, where the traceback is, and what was saved. Returns 1.

    Where nothing was recorded, `vgexp resume` would begin anew and fail in the same way, so it is
    not suggested.
    """
    if full:
        traceback.print_exception(error)
    where = f"traceback: {log}" if log else f"{FULL_ERROR}=1 shows the traceback"
    if full or isinstance(error, LostError):
        where = ""
    left = _left(folder, recurs=_recurs(error)) if _has_rows(folder) else []
    show(format_block("the work failed", *describe(error).splitlines(), where, *left))
    return 1


def show_interruption(
    error: KeyboardInterrupt, folder: Path | None, again: str | None = None
) -> None:
    """Shows that the work was interrupted, what was saved, and in which folder.

    Args:
        again: what is typed to go on; None: as the folder says.
    """
    lines = _left(folder) if again is None else [f"what has ended is kept; go on: {again}"]
    show(format_block(headline(error), *lines))


def _recurs(error: BaseException) -> bool:
    """Whether the same code would certainly fail again at the same step."""
    if isinstance(error, OSError | LostError):
        return False
    if type(error) is RuntimeError:
        return _SURROUNDINGS.search(str(error)) is None
    return isinstance(error, _OF_CODE)


def _left(folder: Path | None, *, recurs: bool = False) -> list[str]:
    """Says what is saved in the folder of a run or sweep, and which command continues it.

    Args:
        recurs: whether it would fail again if it were continued as it is.
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
            lines.append(f"go on: {format_resume(folder)}")
        elif _names_code(folder):
            lines.append(f"after you mend your code, go on: {format_resume(folder)}")
    return lines


def _has_ended(folder: Path) -> bool:
    """Whether the folder is that of a run that has ended."""
    return (folder / folders.CONFIG).exists() and not is_open(folder)


def _has_rows(folder: Path | None) -> bool:
    """Whether a training run recorded a step, or another run any row."""
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


def format_resume(folder: Path) -> str:
    """Formats the command that continues a run or a sweep."""
    words = ["vgexp", "resume", str(folder)]
    return shlex.join([*words, "--trust"] if _names_code(folder) else words)


def _names_code(folder: Path) -> bool:
    """Whether continuing would execute the user's code; False where this cannot be read."""
    with suppress(Exception):
        known = plan_file.read(folder)
        if known is not None:
            return any(targets(entry.config) for entry in known.entries)
        from vgexp import tables

        return bool(targets(tables.read_config(folder)))
    return False


def describe(error: BaseException) -> str:
    """The message of an error; with its type, unless it is vgexp's or the operating system's."""
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
