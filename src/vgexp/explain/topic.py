"""What a page of `vgexp explain` is made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from vgexp.explain.sums import evaluate

if TYPE_CHECKING:
    from vgexp.explain.own import Own


class Line(NamedTuple):
    """A line of numbers: `formula = value`, and what it is."""

    formula: str
    value: float | None
    """None: the formula is letters."""
    words: str = ""


def law(formula: str, words: str = "") -> Line:
    """A formula in letters."""
    return Line(formula, None, words)


def sum_of(formula: str, words: str = "") -> Line:
    """A formula in numbers, with what it comes to."""
    return Line(formula, evaluate(formula), words)


class Cure(NamedTuple):
    """What to type, and why it helps."""

    override: str
    """Words behind `vgexp train`, a blank between them; empty where no override does it."""
    why: str
    code: str = ""
    """The same in PyTorch."""
    on: str = ""
    """The preset that the override is put behind when it is tried."""


class Measured(NamedTuple):
    """What was measured with vgexp, and the command that repeats it."""

    command: str
    """All words behind `vgexp`."""
    result: str


class Question(NamedTuple):
    """A question of the quiz; the first of its answers is the right one."""

    ask: str
    answers: tuple[str, ...]
    because: str


@dataclass(frozen=True, kw_only=True)
class Topic:
    """One page: a cause, a cure, a word or a question."""

    id: str
    group: str
    title: str
    words: str
    """Plain sentences; a blank line separates paragraphs."""
    image: str = ""
    """One comparison with something that everybody knows."""
    lines: tuple[Line, ...] = ()
    """The formula in letters, and with numbers of an example."""
    table: tuple[str, ...] = ()
    """A table as it is printed; its first line says what it is of."""
    own: Callable[[Own], list[Line]] | None = None
    """The formula with the numbers of a run; those that the run lacks are left out."""
    figure: str = ""
    """The name of the figure that shows it, `vgexp list figures`."""
    chart: tuple[str, *tuple[tuple[str, str], ...]] | None = None
    """What was measured, as bars: a title, then labels with numbers that stand on the page; None:
    the bars are of the powers among `lines`."""
    plot: bool = False
    """Whether the backward signal against depth shows it, drawn in the terminal."""
    cures: tuple[Cure, ...] = ()
    measured: tuple[Measured, ...] = ()
    paper: str = ""
    also: tuple[str, ...] = ()
    """Other names of the page."""
    see: tuple[str, ...] = ()
    """Ids of pages to read next."""
    quiz: tuple[Question, ...] = ()
