"""Writes docs/explain.md: every page of `vgexp explain`, as the terminal shows it without a run."""

from __future__ import annotations

from pathlib import Path

from vgexp.explain import GROUPS, Topic
from vgexp.explain.page import lay_out

PAGE = Path(__file__).parents[1] / "docs" / "explain.md"
_HEAD = """\
# Causes, cures, words, questions

What `vgexp explain TOPIC` prints; with a run behind it, `vgexp explain TOPIC RUN` puts that run's
numbers into the formulas. Sums are computed, measured numbers were measured by the commands above
them (validation accuracy on digits unless another is named). This file is made by
`python scripts/explain_page.py` from `src/vgexp/explain/pages`.
"""


def make_page() -> str:
    """Makes the whole file."""
    parts = [_HEAD]
    for group, topics in GROUPS.items():
        links = ", ".join(f"[{topic.id}](#{topic.id})" for topic in topics)
        parts.append(f"- {_name(group)}: {links}\n")
    for group, topics in GROUPS.items():
        parts.append(f"\n## {_name(group).capitalize()}\n")
        parts += [_format(topic) for topic in topics]
    return "".join(parts)


def _name(group: str) -> str:
    return "no cause found" if group == "none" else group


def _format(topic: Topic) -> str:
    parts = [f'\n<a id="{topic.id}"></a>\n### {topic.id}\n\n**{_escape(topic.title)}**\n']
    for section in lay_out(topic):
        if section.is_plain:
            text = "\n".join(line.strip() for line in section.lines)
            heading = f"{section.heading}: " if section.heading else ""
            parts.append(f"\n{heading}{_escape(text)}\n")
        else:
            lines = "\n".join(line.removeprefix("  ") for line in section.lines)
            parts.append(f"\n{section.heading}:\n\n```text\n{lines}\n```\n")
    return "".join(parts)


def _escape(text: str) -> str:
    """Keeps Markdown from reading formulas as its own signs."""
    for sign in ("\\", "*", "_", "<", "[", "]", "|", "^", "~"):
        text = text.replace(sign, f"\\{sign}")
    return text


if __name__ == "__main__":
    PAGE.write_text(make_page(), encoding="utf-8")
