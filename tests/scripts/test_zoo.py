"""The zoo of configurations: each states its truth, fits the schema, and together they cover it.

Holds: configs/zoo, scripts/zoo/presets.py
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from zoo import presets

from vgexp.cli.main import main
from vgexp.config import CHOICES, TrainConfig
from vgexp.diagnosis import CAUSES

PRESETS = presets.read_presets()
LEAST = 40
"""Configurations of each health."""
OF_FILES = {"mnist", "fashion_mnist", "cifar10"}
"""Data sets that have to be downloaded."""


@cache
def content(name: str) -> dict[str, Any]:
    text = (presets.FOLDER / f"{name}.yaml").read_text(encoding="utf-8")
    loaded: dict[str, Any] = yaml.load(text, yaml.CSafeLoader)
    return loaded


@cache
def chosen(name: str) -> dict[str, str]:
    words = {"model": "mlp", "data": "digits", "optimizer": "sgd"}
    words |= {"scheduler": "constant", "clip": "none"}
    for entry in content(name).get("defaults", []):
        if entry != "_self_":
            ((group, choice),) = entry.items()
            words[group.removeprefix("override /")] = choice
    return words


def test_there_are_enough_of_each_health_and_both_halves_have_both() -> None:
    for is_sick in (True, False):
        found = [each.half for each in PRESETS.values() if each.is_sick is is_sick]
        assert len(found) >= LEAST
        assert min(found.count(half) for half in presets.HALVES) >= LEAST / 2 - 1


def test_every_family_optimizer_and_data_set_without_files_is_in_it() -> None:
    for group, left_out in (("model", {"custom"}), ("optimizer", set()), ("data", OF_FILES)):
        found = {chosen(name)[group] for name in PRESETS}
        assert found | left_out | {"custom"} >= set(CHOICES[group])


def test_each_cause_of_one_half_is_in_the_other_too() -> None:
    sick = [each for each in PRESETS.values() if each.is_sick]
    tune, held = ({each.truth[0] for each in sick if each.half == half} for half in presets.HALVES)
    assert tune == held


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_states_known_causes_and_fits_the_schema(name: str) -> None:
    assert all(CAUSES[cause].group != "notes" for cause in PRESETS[name].truth)
    for group, choice in chosen(name).items():
        CHOICES[group][choice](**content(name).get(group, {}))
    TrainConfig(**content(name)["train"])
    lines = (presets.FOLDER / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    assert lines[:2] == ["# @package _global_", f"# vgexp train +zoo={name}"]
    assert re.fullmatch(r"# [A-Z\d].+\.", lines[2])


def test_the_command_of_a_preset_composes_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "+zoo=throttled_cnn", "--cfg", "job", "-p", "clip"]) == 0
    assert "threshold: 1.0e-07" in capsys.readouterr().out


@pytest.mark.parametrize(
    "head",
    [
        "# half: tune",
        "# half: other\n# truth: healthy",
        "# half: tune\n# truth: sick",
        "# half: held\n# truth: sick no_update",
        "# half: held\n# truth: healthy\n# cure: clip=norm",
    ],
)
def test_a_head_that_leaves_the_truth_open_is_refused(head: str, tmp_path: Path) -> None:
    path = tmp_path / "some.yaml"
    path.write_text(head + "\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"some\.yaml"):
        presets.read_preset(path)
