"""All pages by their id, and by their other names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import SequenceMatcher

from vgexp.diagnosis.causes import list_groups
from vgexp.errors import QuestionError, nearest, unknown
from vgexp.explain.pages import (
    activations,
    causes_of_code,
    causes_of_depth,
    causes_of_numbers,
    causes_of_start,
    causes_of_steps,
    causes_of_units,
    clipping,
    glossary,
    initialisations,
    norms_and_skips,
    notes,
    optimizers,
    questions_of_cures,
    questions_of_depth,
    time_and_attention,
)
from vgexp.explain.topic import Topic

_MODULES = (
    questions_of_cures,
    questions_of_depth,
    causes_of_code,
    causes_of_start,
    causes_of_depth,
    causes_of_units,
    causes_of_steps,
    causes_of_numbers,
    notes,
    activations,
    initialisations,
    norms_and_skips,
    time_and_attention,
    clipping,
    optimizers,
    glossary,
)


def _by_id() -> Mapping[str, Topic]:
    found: dict[str, Topic] = {}
    for module in _MODULES:
        for topic in module.PAGES:
            assert topic.id not in found, topic.id
            found[topic.id] = topic
    return found


TOPICS = _by_id()
"""Id -> page."""

_NAMES: Mapping[str, str] = {
    **{name: topic.id for topic in TOPICS.values() for name in topic.also},
    **{id: id for id in TOPICS},
}
"""Every name that a page is found by -> its id."""

_NEAR = 0.8
"""How alike a name must be to what was typed to be told as the nearest, from 0 to 1."""
_CAUSES = tuple(group for group, _ in list_groups())

GROUPS: Mapping[str, tuple[Topic, ...]] = {
    group: tuple(topic for topic in TOPICS.values() if topic.group == group)
    for group in dict.fromkeys(topic.group for topic in TOPICS.values())
}
"""Group -> its pages, in the order in which they are listed: questions, causes, cures, words."""


def is_cause(topic: Topic) -> bool:
    """Whether a page is of a cause that `vgexp diagnose` may name."""
    return topic.group in _CAUSES


def list_names() -> list[str]:
    """Every name that `find_topic` knows, in order of the alphabet."""
    return sorted(_NAMES)


def find_topic(name: str, beside: Iterable[str] = ()) -> Topic:
    """Finds a page by its id or another of its names, in any spelling of case and hyphens.

    Args:
        beside: names of other things that may have been meant.

    Raises:
        QuestionError: there is none; with the nearest.
    """
    spelled = name.strip().casefold().replace("-", "_").replace(" ", "_")
    if spelled not in _NAMES:
        others = {other: [id] for other, id in _NAMES.items() if other not in TOPICS}
        names = [*TOPICS, *beside]
        error = unknown("topic", name, names, others)
        near = nearest(name, [*names, *others])
        if near is None or SequenceMatcher(None, near, spelled).ratio() >= _NEAR:
            raise error
        # One word looks like another by chance where so many are known.
        raise QuestionError("\n".join(str(error).splitlines()[:-1]))
    return TOPICS[_NAMES[spelled]]
