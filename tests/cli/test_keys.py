"""Every key with its default and its meaning, on the screen and in the README.

Holds: cli/keys.py, config/meanings.py
"""

from __future__ import annotations

import dataclasses
import itertools
import re
from pathlib import Path

import pytest

from vgexp.cli import keys
from vgexp.config import CHOICES, Config, sections
from vgexp.config.meanings import meanings

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
CLASSES = [cls for classes in sections().values() for cls in classes.values()]


@pytest.mark.parametrize("cls", [*CLASSES, Config])
def test_every_field_that_is_a_value_has_a_meaning(cls: type) -> None:
    said = meanings(cls)
    without = [name for name, text in said.items() if not text]
    assert [name for name in without if name not in sections()] == []
    assert all("\n" not in text for text in said.values())


def test_a_choice_that_redefines_a_key_has_its_own_meaning_and_inherits_the_others() -> None:
    clips = CHOICES["clip"]
    inherited = "The norm, or for `value` the entry, above which a gradient is clipped."
    assert meanings(clips["norm"])["threshold"] == inherited
    assert meanings(clips["agc"])["threshold"].startswith("lambda: the largest ratio")
    assert meanings(CHOICES["optimizer"]["adam"])["weight_decay"].startswith("L2 penalty")


@dataclasses.dataclass
class Elsewhere:
    field: int = 3
    """Not one of ours."""


def test_a_class_from_elsewhere_has_no_meanings() -> None:
    assert meanings(Elsewhere) == {"field": ""}


def test_the_page_has_every_key_of_every_choice_with_its_default() -> None:
    shown = keys.format_page()
    assert max(map(len, shown.splitlines())) <= 80
    lines = {}
    for group, classes in sections().items():
        for choice, cls in classes.items():
            for field in dataclasses.fields(cls):
                name = f"{group}.{field.name}" if group else field.name
                also = {"output.sinks": ["csv"], "train.stop_on": [], "fix.keep": []}
                default = also.get(name, field.default)
                lines[(name, choice)] = f"{name}={keys.format_value(default)}"
    starts = [line.split(" ")[0] for line in shown.splitlines() if line[:1].strip()]
    assert set(starts) == {*lines.values(), "seed=0", "device=auto", "dtype=float32"}
    words = " ".join(shown.split())
    for said in (
        "optimizer.lr=0.001 Learning rate where the factor of the schedule is 1. (rmsprop, adam",
        "optimizer.momentum=0.9 Share of the last update that the next one keeps. (momentum)",
        "train.steps=null Number of optimizer steps; null: 500",
        "clip.threshold=1.0 The norm, or for `value` the entry, above which",
        "seed=0 Seed of every random number.",
    ):
        assert said in words


def test_keys_of_one_name_stand_together() -> None:
    names = [key.name for key in keys.list_keys()]
    runs = [name for name, _ in itertools.groupby(names)]
    assert len(runs) == len(set(names))


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "null"),
        (True, "true"),
        (1 / 3, "0.333"),
        (1e-3, "0.001"),
        (2, "2"),
        (["a", "b.c"], "[a,b.c]"),
    ],
)
def test_a_default_is_shown_as_it_is_typed(value: object, shown: str) -> None:
    assert keys.format_value(value) == shown


def test_the_readme_names_every_choice_and_every_key_in_the_row_of_its_group() -> None:
    section = README[README.index("## Configuration") : README.index("Exit codes: 0 done")]
    rows = dict.fromkeys([*sections(), "root"], "")
    for group, row in re.findall(r"^\| `?(\w+)`?[^|]* \| (.*) \|$", section, re.MULTILINE):
        rows[group] = rows.get(group, "") + row
    for group, classes in sections().items():
        words = re.findall(r"`(\w+)`", rows[group])
        fields = {field.name for cls in classes.values() for field in dataclasses.fields(cls)}
        assert set(words) - {"epochs"} == (fields | set(classes) - {""}) - {"epochs"}, group
    assert re.findall(r"`(\w+)`", rows["root"]) == ["seed", "device", "dtype"]
    assert "# @package _global_" in section
