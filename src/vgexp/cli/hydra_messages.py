"""Translates Hydra's messages that name no key into errors that say what is allowed."""

from __future__ import annotations

import re

from vgexp.config import CHOICES
from vgexp.errors import QuestionError

_SEVERAL = r"\1 is several values\nallowed: one value, or a sweep over them: vgexp train -m ..."
_CHOSEN_ALREADY = (
    r"\1 is chosen already\nallowed: \1=CHOICE, without +; in a preset's defaults list:"
    r" - override /\1: CHOICE"
)
_ANSWERS = (
    (r"^Ambiguous value for argument '(.*)'", _SEVERAL),
    (r"^Sweep parameters '(.*)' requires --multirun", _SEVERAL),
    (
        r"An item is already at '([^']*)'",
        r"\1 is a key already\nallowed: \1=VALUE, without +",
    ),
    (r"Multiple values for ([\w/]+)\.", _CHOSEN_ALREADY),
    (r"([\w/]+) appears more than once in the final defaults list", _CHOSEN_ALREADY),
    (
        r"^Could not override '([^']+)'\.\s*Did you mean to override ([\w/]+)\?",
        r"there is no \1 to override\nnearest: \2",
    ),
    (
        r"Config group override must be a string or a list\. Got (\w+)",
        r"a group is given a value of type \1\nallowed: the name of one of its choices, such as"
        r" model=mlp",
    ),
    (
        r"In '(experiment/[^']+)': [\s\S]*Merge error: str is not a subclass of \w+. value: (\w+)",
        r"\1.yaml gives a group the value \2, where the group's own keys stand\n"
        r"allowed: the choice in its defaults list, as in - override /model: \2",
    ),
    (
        r"In '(\w+)/\w+': [\s\S]*is not a subclass of",
        r"\1 is several choices at once\nallowed: one of them",
    ),
)
"""Pattern of a message -> the text of the error; the first group is what was asked."""


def about_message(message: str) -> QuestionError:
    """The error for a message that names no key; with the message itself where it is unknown."""
    for pattern, answer in _ANSWERS:
        found = re.search(pattern, message)
        if found:
            allowed = CHOICES.get(found[1], ())
            choices = f"\nchoices: {', '.join(allowed)}" if allowed else ""
            return QuestionError(found.expand(answer) + choices)
    return QuestionError("\n".join(line for line in message.splitlines() if line.strip()))
