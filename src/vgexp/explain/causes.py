"""Pages of causes take their group and their definition from the table of causes."""

from __future__ import annotations

from typing import Any

from vgexp.diagnosis.causes import CAUSES
from vgexp.diagnosis.phrases import capitalise
from vgexp.explain.topic import Topic


def cause(id: str, **parts: Any) -> Topic:
    """Makes the page of a cause.

    Args:
        parts: the other fields of `Topic`.
    """
    known = CAUSES[id]
    title = capitalise(known.summary)
    return Topic(id=id, group=known.group, title=title, **parts)
