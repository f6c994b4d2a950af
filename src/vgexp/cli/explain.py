"""`vgexp explain`: a page on a cause, a cure, a word or a question; and a quiz."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from vgexp.errors import QuestionError, reason

if TYPE_CHECKING:
    from rich.console import Console

    from vgexp.explain import Asked, Topic
    from vgexp.explain.own import Own

DESCRIPTION = (
    "A page on a cause, a cure, a word or a question, with a run's own numbers in its formulas. "
    "Without a topic: lists them. `glossary` has all words, `quiz` asks ten questions."
)

QUIZ, GLOSSARY = "quiz", "glossary"
OTHERS = (QUIZ, GLOSSARY, "questions")
"""Words beside topics: the quiz, and groups that are shown whole."""
_LEFT = "q"
"""The key that ends a quiz."""
_NUM_ASKED = 10
_NO_CAUSE = "no cause found"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the verb's arguments."""
    parser.add_argument("topic", metavar="TOPIC", nargs="?", help="`vgexp explain` lists them")
    parser.add_argument(
        "path", metavar="RUN", nargs="?", help="a run folder, or a folder above one run"
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        help="with RUN: the picture that is drawn, .png, .svg or .pdf (default: RUN/figures)",
    )
    parser.add_argument(
        "--seed", type=int, metavar="N", help="quiz: draws the same questions (default: random)"
    )


def main(args: argparse.Namespace) -> int:
    """Prints a page, the list or the quiz. Returns the exit code."""
    from vgexp.cli.screen import Screen
    from vgexp.explain.page import WIDTH

    console = Screen()
    console.width = min(console.width, WIDTH)
    if args.seed is not None and args.topic != QUIZ:
        raise QuestionError(f"--seed is of the quiz\nallowed: vgexp explain {QUIZ} --seed N")
    if args.topic in (None, *OTHERS) and args.path is not None:
        raise QuestionError(f"{args.topic} takes no run\nallowed: vgexp explain TOPIC RUN")
    if args.output is not None and (args.path is None or args.topic in OTHERS):
        raise QuestionError(
            "-o is of the picture of a run\nallowed: vgexp explain TOPIC RUN -o FILE"
        )
    if args.topic is None:
        _show_list(console)
    elif args.topic == QUIZ:
        _hold_quiz(console, args.seed)
    elif args.topic in OTHERS:
        _show_group(console, args.topic)
    else:
        _show_page(console, _find(args.topic), args.path, args.output)
    return 0


def list_topics() -> list[str]:
    """Lists all that can stand behind `vgexp explain`."""
    from vgexp.explain import list_names

    return sorted({*list_names(), *OTHERS})


def _find(name: str) -> Topic:
    from vgexp.explain import find_topic

    try:
        return find_topic(name, OTHERS)
    except QuestionError as error:
        # More names than anybody reads.
        told, _, *near = str(error).splitlines()
        text = "\n".join([told, "allowed: what vgexp explain lists", *near])
        raise QuestionError(text) from None


# ---------------------------------------------------------------- a page


def _show_page(console: Console, topic: Topic, path: str | None, output: str | None) -> None:
    from rich.text import Text

    from vgexp.explain.page import lay_out, wrap
    from vgexp.report.terminal.layout import show_line

    own = None if path is None else _own_of(path, topic)
    drawn = "" if own is None else _draw(topic, own, output)
    group = _NO_CAUSE if topic.group == "none" else topic.group
    console.print(Text(f"{topic.id} ({group})", style="bold"), soft_wrap=True)
    for line in wrap(topic.title, ""):
        show_line(console, line, "italic")
    if own is not None and (said := _say_other_cause(topic, own)):
        for line in wrap(said, ""):
            show_line(console, line)
    for section in lay_out(topic, own, drawn):
        console.print()
        if section.heading:
            show_line(console, section.heading, "bold")
        for line in section.lines:
            show_line(console, line)
        if own is not None and section.heading.startswith("With the numbers"):
            _show_plot(console, topic, own)


def _draw(topic: Topic, own: Own, output: str | None) -> str:
    """Draws the topic's figure of a run; returns its file, or why there is none.

    Raises:
        QuestionError: an output that was asked for cannot be drawn or written.
    """
    if not topic.figure:
        if output is not None:
            raise QuestionError(f"{topic.id} has no figure\nallowed: without -o")
        return ""
    from vgexp.explain.page import NOT_DRAWN
    from vgexp.report import figures
    from vgexp.report.figures import style

    folder = own.run.folder
    try:
        name, figure = figures.draw_instead(folder, topic.figure)
        if output is not None:
            return str(style.write(figure, Path(output)))
        return str(figures.write_beside(folder, name, figure))
    except (QuestionError, OSError) as error:
        if output is not None:
            raise
        return f"{NOT_DRAWN}: {reason(error)}"


def _own_of(path: str, topic: Topic) -> Own:
    from vgexp.cli.one_run import find_one_run
    from vgexp.explain.own import Own
    from vgexp.past import PastRun

    return Own(PastRun(find_one_run(path, "vgexp", "explain", topic.id), is_strict=False))


def _say_other_cause(topic: Topic, own: Own) -> str:
    """That a run has not the cause that the page is about; empty where it has, or nobody knows."""
    from vgexp.explain.topics import is_cause
    from vgexp.past.diagnosing import diagnose_run

    if not is_cause(topic):
        return ""
    try:
        found = diagnose_run(own.run)
    except (QuestionError, KeyError, TypeError, ValueError):  # said by `vgexp diagnose`
        return ""
    if found.health == "healthy":
        return "This run is healthy: it has not this cause."
    if topic.id in (each.id for each in found.findings):
        return "" if topic.id in (found.cause, *found.rivals) else _say_cause(found.cause)
    return _say_cause(found.cause)


def _say_cause(cause: str | None) -> str:
    return f"This run's cause is {cause}." if cause else "No cause was found in this run."


def _show_plot(console: Console, topic: Topic, own: Own) -> None:
    from vgexp.report.terminal.curve import show_plot
    from vgexp.report.terminal.signals import against_depth, against_time

    plot = None
    if topic.figure == "through_time":
        time = own.run.table("time", ("step", "layer", "name", "t", "delta_rms"))
        plot = None if time is None else against_time(time)
    elif topic.plot:
        signal = own.run.layers(("delta_rms",)).get("delta_rms")
        plot = None if signal is None else against_depth(signal)
    if plot is not None and plot.scale is not None:
        console.print()
        show_plot(console, plot)


# ---------------------------------------------------------------- lists


def _show_list(console: Console) -> None:
    from vgexp.explain import GROUPS
    from vgexp.report.terminal.layout import show_line, show_words

    for group, topics in GROUPS.items():
        name = _NO_CAUSE if group == "none" else group
        show_line(console, name, "bold")
        show_words(console, f"  {', '.join(topic.id for topic in topics)}", "  ")
    console.print()
    show_words(console, "vgexp explain TOPIC: a page; with a run folder behind it, its numbers.")
    show_words(
        console, "vgexp explain glossary, questions, quiz: all words, all questions, a quiz."
    )


def _show_group(console: Console, group: str) -> None:
    from vgexp.explain import GROUPS
    from vgexp.explain.page import wrap
    from vgexp.report.terminal.layout import show_line

    for topic in GROUPS[group]:
        show_line(console, topic.id, "bold")
        for line in wrap(topic.title if group != GLOSSARY else _definition(topic)):
            show_line(console, line)


def _definition(topic: Topic) -> str:
    from vgexp.diagnosis.phrases import capitalise

    stop = "" if topic.title.endswith(".") else "."
    return f"{capitalise(topic.title)}{stop} {topic.words.split(chr(10))[0]}"


# ---------------------------------------------------------------- the quiz


def _hold_quiz(console: Console, seed: int | None) -> None:
    from vgexp.explain import draw_questions
    from vgexp.report.terminal.layout import show_line, show_words

    if seed is None:
        import secrets

        seed = secrets.randbelow(1000)
    questions = draw_questions(seed, _NUM_ASKED)
    is_asked = sys.stdin.isatty() and sys.stdout.isatty()
    missed: list[Topic] = []
    num_asked = 0
    for number, asked in enumerate(questions, 1):
        _show_question(console, number, asked)
        if is_asked:
            key = _read_key(asked)
            if key == _LEFT:
                break
            num_asked += 1
            if key != asked.right:
                missed.append(asked.topic)
            show_line(console, "   right" if key == asked.right else "   no", "bold")
        for line in _answer(asked):
            show_line(console, line)
        console.print()
    if is_asked and num_asked:
        show_line(console, f"{num_asked - len(missed)} of {num_asked} right", "bold")
        if missed:
            ids = ", ".join(dict.fromkeys(topic.id for topic in missed))
            show_words(console, f"Read on (vgexp explain TOPIC): {ids}")
    show_words(console, f"The same questions again: vgexp explain {QUIZ} --seed {seed}")


def _show_question(console: Console, number: int, asked: Asked) -> None:
    from vgexp.explain.quiz import LETTERS
    from vgexp.report.terminal.layout import show_words

    show_words(console, f"{number}. {asked.question.ask}", "   ")
    for letter, answer in zip(LETTERS, asked.answers, strict=False):
        show_words(console, f"   {letter}  {answer}", "      ")


def _answer(asked: Asked) -> Iterator[str]:
    from vgexp.explain.page import wrap

    text = f"{asked.right}: {asked.question.because} (vgexp explain {asked.topic.id})"
    yield from wrap(text, "   ")


def _read_key(asked: Asked) -> str:
    """Waits for the key of an answer, or of leaving; others do nothing."""
    from vgexp.explain.quiz import LETTERS

    allowed = f"{LETTERS[: len(asked.answers)]}{_LEFT}"
    print(f"   {', '.join(allowed[:-1])} ({_LEFT}: leave) ", end="", flush=True)
    while True:
        key = _read_one()
        if key in ("", "\x04"):  # the terminal was closed, or Ctrl-D
            key = _LEFT
        if key.lower() in allowed:
            print(key.lower(), flush=True)
            return key.lower()


def _read_one() -> str:
    """Reads one key without Enter; where a terminal cannot do that, the first letter of a line."""
    try:
        import termios
        import tty

        number = sys.stdin.fileno()
        before = termios.tcgetattr(number)
    except (ImportError, OSError, ValueError):
        return sys.stdin.readline()[:1]
    try:
        tty.setcbreak(number)  # Ctrl-C still interrupts
        return sys.stdin.read(1)
    finally:
        termios.tcsetattr(number, termios.TCSADRAIN, before)
