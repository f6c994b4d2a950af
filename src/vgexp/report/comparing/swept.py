"""Finds the keys in which runs differ, and sorts their values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vgexp.errors import QuestionError, impossible, unknown
from vgexp.report.comparing.headings import config_text
from vgexp.report.comparing.runs import ComparedRun, differing_keys

NOT_SET = "not set"
"""The value of a key that a run's configuration does not have."""

MOST_PANELS = 12


def find_key(runs: Sequence[ComparedRun], word: str, asked_by: str) -> str:
    """Finds the key that a word names: dotted, or its last part where that is unique.

    Args:
        asked_by: the option, for the error's words.

    Raises:
        QuestionError: no run has such a key, or several keys are called so.
    """
    every = {key for run in runs for key in run.asked}
    if word in every:
        return word
    swept = differing_keys(runs)
    for keys in (swept, sorted(every)):
        found = [key for key in keys if key.rpartition(".")[2] == word]
        if len(found) == 1:
            return found[0]
        if found:
            raise impossible(asked_by, word, f"one of {', '.join(found)}")
    dotted = {key.rpartition(".")[2]: [key] for key in swept or sorted(every)}
    raise unknown(f"key of {asked_by}", word, swept or every, elsewhere=dotted)


def texts_of(runs: Sequence[ComparedRun], key: str) -> list[str]:
    """Lists the values of a key as they are typed: numbers ascending, others as they appear.

    A missing one comes last.
    """
    found: dict[str, Any] = {text_of(run, key): run.asked.get(key) for run in runs}
    missing = [found.pop(NOT_SET, None)] if NOT_SET in found else []
    if all(map(is_number, found.values())):
        found = dict(sorted(found.items(), key=lambda item: item[1]))
    return [*found, *([NOT_SET] if missing else [])]


def text_of(run: ComparedRun, key: str) -> str:
    """Returns a run's value of a key as it is typed."""
    text = config_text(run, key)
    return NOT_SET if text is None else text


def is_numeric(runs: Sequence[ComparedRun], key: str) -> bool:
    """Whether all values of a key are numbers."""
    return all(is_number(run.asked[key]) for run in runs if key in run.asked)


def is_number(value: Any) -> bool:
    """Whether a value has a place on an axis of numbers."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def split_runs(
    runs: Sequence[ComparedRun], keys: Sequence[str]
) -> dict[tuple[str, ...], list[ComparedRun]]:
    """Splits runs by their values of some keys, in the order of the values.

    Raises:
        QuestionError: more than `MOST_PANELS`.
    """
    order = [{text: place for place, text in enumerate(texts_of(runs, key))} for key in keys]
    found: dict[tuple[str, ...], list[ComparedRun]] = {}
    for run in runs:
        found.setdefault(tuple(text_of(run, key) for key in keys), []).append(run)
    if len(found) > MOST_PANELS:
        varying = ", ".join(f"{key} ({len(texts_of(runs, key))} values)" for key in keys)
        raise QuestionError(
            f"a figure of {len(found)} panels was asked for: beside what is drawn vary {varying}\n"
            f"allowed: at most {MOST_PANELS} panels"
        )
    return dict(
        sorted(
            found.items(),
            key=lambda item: [places[text] for places, text in zip(order, item[0], strict=True)],
        )
    )


def columns_of(num_panels: int) -> int:
    """Returns how many panels stand side by side."""
    return 2 if num_panels == 4 else min(3, num_panels)
