"""Writes docs/explain.md: every page of `vgexp explain`, as the terminal shows it without a run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from vgexp.explain import GROUPS, Topic
from vgexp.explain.page import lay_out

_OF_FIGURES: Mapping[str, str] = {
    "at_start": "gallery/start_at_start.png",
    "attention_entropy": "gallery/transformer_attention_entropy.png",
    "backward_signal": "gallery/sigmoid_backward_signal.png",
    "curvature": "gallery/large_step_curvature.png",
    "distributions": "gallery/sigmoid_distributions.png",
    "gradient_map": "gallery/exploding_gradient_map.png",
    "gradient_norms": "gallery/clipped_gradient_norms.png",
    "jacobian": "gallery/directions_jacobian.png",
    "overview": "gallery/sigmoid_overview.png",
    "shares": "gallery/dying_shares.png",
    "through_time": "gallery/rnn_through_time.png",
    "update_ratios": "gallery/sigmoid_update_ratios.png",
}
"""Figure -> the picture of it in the gallery, of the run that its head names."""
_CURES = "gallery/disease_and_cures.png"
_OF_TOPICS: Mapping[str, str] = {
    **dict.fromkeys(("what_fixes", "which_cure", "three_cures", "residual"), _CURES),
    **dict.fromkeys(("lstm", "gru"), "gallery/lstm_through_time.png"),
    "underflow": "gallery/underflow_gradient_map.png",
    "does_depth_hurt": "gallery/depth_loss.png",
    "rate_too_large": "papers/cohen_2021.png",
    "sharpness": "papers/cohen_2021.png",
    "dead_at_start": "papers/lu_2019.png",
    "batchnorm_depth": "papers/yang_2019.png",
    "recurrence_exploding": "papers/pascanu_2013.png",
    "he": "papers/he_2015.png",
    "xavier": "papers/glorot_2010.png",
    "lsuv": "papers/mishkin_2016.png",
    "orthogonal": "papers/saxe_2014.png",
    "selu": "papers/klambauer_2017.png",
    "pre_norm": "papers/xiong_2020.png",
    "no_warmup": "papers/xiong_2020.png",
    "chi": "papers/schoenholz_2017.png",
}
"""Page -> the picture that shows it better than that of its figure."""

PAGE = Path(__file__).parents[1] / "docs" / "explain.md"
_HEAD = """\
# Causes, cures, words, questions

What `vgexp explain TOPIC` prints; with a run behind it, `vgexp explain TOPIC RUN` puts that run's
numbers into the formulas and the bars, and draws its figure. Pictures here are of the runs that the
page behind each link names. Sums are computed, measured numbers were measured by the commands above
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
        if section.heading == "Figure":
            parts += list(_picture(topic))
    return "".join(parts)


def _picture(topic: Topic) -> Iterator[str]:
    """A link to a picture of the repository that shows the page, where there is one."""
    place = _OF_TOPICS.get(topic.id, _OF_FIGURES.get(topic.figure))
    if place is not None:
        page = "gallery.md" if place.startswith("gallery/") else "papers.md"
        yield f"\n![{topic.id}]({place})\n\nThe run behind it: [{page}]({page})\n"


def _escape(text: str) -> str:
    """Keeps Markdown from reading formulas as its own signs."""
    for sign in ("\\", "*", "_", "<", "[", "]", "|", "^", "~"):
        text = text.replace(sign, f"\\{sign}")
    return text


if __name__ == "__main__":
    PAGE.write_text(make_page(), encoding="utf-8")
