"""Lays a page out as sections of lines, for the terminal and for docs alike."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vgexp.config import CHOICES
from vgexp.diagnosis.commands import command_with
from vgexp.explain.bars import bars_of_page, draw
from vgexp.explain.sums import show
from vgexp.explain.topic import Cure, Line, Measured, Topic

if TYPE_CHECKING:
    from vgexp.explain.own import Own

WIDTH = 80
INDENT = "  "
NOT_DRAWN = "not drawn"
"""What is said instead of the file of a figure begins with this."""
_WIDEST_LEFT = 42
"""Columns that formulas get beside their words; longer ones have their words below them."""


_WORDS = re.compile(r"(?:--\S+ )?(?:'[^']*'|\S)+")
"""A word of a command, quotes and all; an option with its value."""


@dataclass(frozen=True)
class Section:
    """A heading and what stands below it."""

    heading: str
    lines: tuple[str, ...]
    is_plain: bool = False
    """Whether the lines are sentences; else columns and blanks count."""


def lay_out(topic: Topic, own: Own | None = None, drawn: str = "") -> list[Section]:
    """Makes the sections of a page that have something to say.

    Args:
        own: the run whose numbers stand in the formulas.
        drawn: the file into which the figure of this run was drawn, or why it was not.
    """
    sections = [
        Section("", tuple(_paragraphs(topic.words)), is_plain=True),
        Section("Image", tuple(wrap(topic.image)), is_plain=True),
        Section("Formula", tuple(_lines(topic.lines))),
        Section(
            topic.table[0] if topic.table else "", tuple(f"  {row}" for row in topic.table[1:])
        ),
    ]
    if own is not None:
        sections.append(Section(f"With the numbers of {own.run.folder}", tuple(_own(topic, own))))
    sections += [
        Section("Measured", tuple(_measured(topic.measured))),
        Section("Figure", tuple(_figure(topic, own, drawn))),
        Section("What to type", tuple(_cures(topic.cures, own))),
        Section("Paper", tuple(wrap(topic.paper)), is_plain=True),
        Section("Read on", tuple(wrap(", ".join(topic.see))), is_plain=True),
    ]
    return [section for section in sections if section.lines]


def wrap(text: str, indent: str = INDENT) -> list[str]:
    """Wraps a paragraph at `WIDTH`; a word without a blank stays whole."""
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=indent,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def format_lines(lines: Sequence[Line]) -> list[str]:
    """Writes `formula = value` with its words in a second column, or below a long formula."""
    lefts = [
        line.formula if line.value is None else f"{line.formula} = {show(line.value)}"
        for line in lines
    ]
    beside = [
        len(left)
        for left, line in zip(lefts, lines, strict=True)
        if line.words and len(left) <= _WIDEST_LEFT
    ]
    column = len(INDENT) + max(beside, default=0) + len(INDENT)
    written: list[str] = []
    for left, line in zip(lefts, lines, strict=True):
        words = wrap(line.words, " " * column) if line.words else []
        first = f"{INDENT}{left}"
        if words and len(left) <= _WIDEST_LEFT:
            first = f"{first:<{column}}{words.pop(0).strip()}"
        elif words:
            words = wrap(line.words, INDENT * 3)
        written += [first, *words]
    return written


def format_command(words: str, indent: str = INDENT) -> list[str]:
    """Writes a command that can be copied: a long one goes on after a backslash."""
    lines, line = [], indent
    for word in _WORDS.findall(words):
        if line.strip() and len(line) + len(word) + 3 > WIDTH:
            lines.append(f"{line} \\")
            line = indent + INDENT
        line += word if not line.strip() else f" {word}"
    return [*lines, line]


def _paragraphs(text: str) -> Iterator[str]:
    for number, paragraph in enumerate(text.split("\n\n")):
        if number:
            yield ""
        yield from wrap(paragraph, "")


def _lines(lines: Sequence[Line]) -> Iterator[str]:
    yield from format_lines(lines)


def _own(topic: Topic, own: Own) -> Iterator[str]:
    lines = [] if topic.own is None else topic.own(own)
    yield from _lines(lines)
    if not lines:
        yield from wrap("It has none of the numbers of this page.")
    said = [f"{name} {own.word(name)}" for name in ("verdict", "signal") if own.word(name)]
    if said:
        yield f"{INDENT}{', '.join(said)}"


def _measured(measured: Sequence[Measured]) -> Iterator[str]:
    for each in measured:
        is_other = each.command.startswith("python ")
        yield from format_command(each.command if is_other else f"vgexp {each.command}")
        yield from wrap(each.result, INDENT * 2)


def _figure(topic: Topic, own: Own | None, drawn: str) -> Iterator[str]:
    """Bars of the run's numbers, or of those of the page, and the picture to open."""
    found = bars_of_page(topic)
    if own is not None and topic.figure:
        from vgexp.explain.own_bars import bars_of_run  # pandas, which other pages do without

        of_run = bars_of_run(topic.figure, own)
        found = found if of_run is None else [of_run]
        if of_run is None and found:
            yield from wrap("The run has no numbers for it; these are of the page:")
    for bars in found:
        yield from draw(bars)
    if own is None and topic.figure:
        yield f"{INDENT}{topic.figure}, drawn of a run of yours as a picture to open:"
        yield from format_command(f"vgexp explain {topic.id} RUN", INDENT * 2)
    elif drawn.startswith(NOT_DRAWN):
        yield from wrap(f"{topic.figure} is {drawn}")
    elif drawn:
        yield f"{INDENT}The picture to open:"
        yield f"{INDENT * 2}{drawn}"


def _cures(cures: Sequence[Cure], own: Own | None) -> Iterator[str]:
    tried = [cure for cure in cures if cure.override]
    yield from format_lines([Line(cure.override, None, cure.why) for cure in tried])
    for cure in cures:
        if not cure.override:
            yield from wrap(cure.why)
        if cure.code:
            yield from _code(cure.code)
    if not tried:
        return
    first = tried[0]
    command = command_with(["vgexp", "train", *first.on.split()], first.override)
    if own is not None and _fits(own, first.override):
        again = ["vgexp", "train", "--config-dir", str(own.run.folder), "--config-name", "config"]
        # The run has data of its own.
        words = [word for word in first.override.split() if not word.startswith("data=")]
        command = command_with(again, " ".join(words))
    yield from wrap("as a whole:")
    yield from format_command(command, INDENT * 2)


def _code(code: str) -> Iterator[str]:
    """A line of code; a remark that makes it too long stands below it."""
    line = f"{INDENT * 2}{code}"
    if len(line) <= WIDTH:
        yield line
        return
    line, _, remark = line.partition("  # ")
    yield line
    yield from wrap(f"# {remark}", INDENT * 2)


def _fits(own: Own, override: str) -> bool:
    """Whether an override is possible behind a run: another family has to read the same data."""
    config = own.run.config
    named = [word.partition("=")[2] for word in override.split() if word.startswith("model=")]
    return config is not None and all(
        CHOICES["model"][name].reads == config.model.reads for name in named
    )
