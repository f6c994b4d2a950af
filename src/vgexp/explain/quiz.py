"""Draws the questions of a quiz: equal seeds draw the same questions, with answers in one order."""

from __future__ import annotations

import random
from dataclasses import dataclass

from vgexp.explain.topic import Question, Topic
from vgexp.explain.topics import TOPICS

LETTERS = "abcd"


@dataclass(frozen=True)
class Asked:
    """A question with its answers in the order in which they are shown."""

    topic: Topic
    question: Question
    answers: tuple[str, ...]

    @property
    def right(self) -> str:
        """The letter of the right answer."""
        return LETTERS[self.answers.index(self.question.answers[0])]


def draw_questions(seed: int, many: int) -> list[Asked]:
    """Draws questions without repetition; from all pages, or fewer if there are not so many."""
    drawn = random.Random(seed)
    every = [(topic, question) for topic in TOPICS.values() for question in topic.quiz]
    chosen = drawn.sample(every, min(many, len(every)))
    return [
        Asked(topic, question, tuple(drawn.sample(question.answers, len(question.answers))))
        for topic, question in chosen
    ]
