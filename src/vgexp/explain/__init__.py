"""Pages for a student: causes, cures, words, questions; and a quiz over them.

Nothing here loads pandas: `own.Own` is imported where there is a run.
"""

from vgexp.explain.quiz import Asked, draw_questions
from vgexp.explain.topic import Cure, Line, Measured, Question, Topic
from vgexp.explain.topics import GROUPS, TOPICS, find_topic, list_names

__all__ = [
    "GROUPS",
    "TOPICS",
    "Asked",
    "Cure",
    "Line",
    "Measured",
    "Question",
    "Topic",
    "draw_questions",
    "find_topic",
    "list_names",
]
