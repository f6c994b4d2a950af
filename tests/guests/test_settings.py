"""Settings of a probe are refused before there is a model: by their names and by their values.

Holds: probe/settings.py
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from vgexp.errors import QuestionError
from vgexp.guests.probe import Probe, require_settings

REFUSED: list[tuple[dict[str, Any], str]] = [
    (
        {"evry": 3},
        r"unknown setting of Probe: 'evry'\nallowed: activations_every.*\nnearest: every",
    ),
    ({"metric": {}}, r"unknown setting of Probe: 'metric'\nallowed: .*\nnearest: metrics"),
    ({"every": 0}, "every is 0\nallowed: an integer of at least 1"),
    ({"histograms_every": -1}, "histograms_every is -1\nallowed: an integer of at least 0"),
    ({"layers": "("}, r"probe.layers is '\('\nallowed: a regular expression"),
    ({"layers": 3}, "layers is 3\nallowed: a regular expression as text, or None"),
    ({"loss_reduction": "men"}, "unknown loss_reduction: 'men'\nallowed: mean, sum\nnearest: mean"),
    ({"scaler": 2.0}, "scaler is of type float\nallowed: a torch.amp.GradScaler"),
    ({"constant_loss": float("nan")}, "constant_loss is nan\nallowed: a finite number"),
    ({"constant_loss": "ln 10"}, "constant_loss is 'ln 10'\nallowed: a finite number"),
    (
        {"constant_los": 2.3},
        "unknown setting of Probe: 'constant_los'\nallowed: .*\nnearest: const",
    ),
    ({"metrics": {"k": 3}}, r"metrics\['k'\] is of type int\nallowed: a function"),
]


@pytest.mark.parametrize(("settings", "words"), REFUSED)
def test_a_setting_is_refused_with_and_without_a_model(
    settings: dict[str, Any], words: str
) -> None:
    with pytest.raises(QuestionError, match=words):
        require_settings(settings)
    model = nn.Linear(3, 2)
    with pytest.raises(QuestionError, match=words):
        Probe(model, torch.optim.SGD(model.parameters(), lr=0.1), **settings)


@pytest.mark.parametrize(
    ("folder", "words"), [(3, "3"), ("", "''"), (True, "True"), (b"a", "b'a'")]
)
def test_what_names_no_folder_is_refused(folder: Any, words: str) -> None:
    model = nn.Linear(3, 2)
    with pytest.raises(QuestionError, match=f"folder is {words}\nallowed: the path of a folder"):
        Probe(model, torch.optim.SGD(model.parameters(), lr=0.1), folder=folder)


def test_settings_that_a_probe_takes_are_not_refused() -> None:
    require_settings({})
    require_settings({"every": 1, "examples": 4, "metrics": {"size": torch.norm}, "layers": "a|b"})
    require_settings({"constant_loss": 2})


@pytest.mark.parametrize("package", ["lightning", "transformers"])
def test_a_callback_refuses_them_when_it_is_made_and_both_have_probe_and_probes(
    package: str,
) -> None:
    pytest.importorskip("lightning.pytorch" if package == "lightning" else package)
    from importlib import import_module

    made = import_module(f"vgexp.integrations.{package}").ProbeCallback
    with pytest.raises(QuestionError, match="nearest: activations_every"):
        made(activation_every=3)
    with pytest.raises(QuestionError, match="folder is 3"):
        made(folder=3)
    callback = made(activations_every=3)
    assert callback.probe is None
    assert callback.probes == []
