"""Configurations made in Python: what is no configuration is refused in words.

Holds: config/data.py, config/images.py, config/kinds.py, config/model.py, config/optimization.py,
config/ranges.py, config/run.py, config/sequences.py, config/tree.py
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import vgexp
from vgexp import config as configuration
from vgexp.config import CHOICES, Config, MlpConfig, ModelConfig, OutputConfig, SgdConfig
from vgexp.config.kinds import require_kinds
from vgexp.errors import QuestionError


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Config(model="mlp"), "model is 'mlp' (of type str)\nallowed: MlpConfig(...)"),
        (lambda: Config(model=ModelConfig()), "model is ModelConfig()"),
        (lambda: Config(model=MlpConfig), "(of type type)"),
        (lambda: Config(optimizer=MlpConfig()), "allowed: SgdConfig(...), MomentumConfig(...)"),
        (lambda: Config(train=3), "train is 3 (of type int)\nallowed: TrainConfig(...)"),
        (lambda: Config(seed="a"), "seed is 'a'\nallowed: a whole number, at least 0"),
        (lambda: Config(seed=True), "seed is True"),
        (lambda: Config(device=0), "device is 0\nallowed: text"),
        (lambda: Config(dtype="float8"), "dtype is 'float8'\nallowed: float32, float64, bfloat16"),
        (lambda: MlpConfig(depth=2.5), "model.depth is 2.5\nallowed: a whole number of at least 1"),
        (lambda: MlpConfig(depth="3"), "model.depth is '3'"),
        (lambda: MlpConfig(negative_slope=math.nan), "allowed: a finite number"),
        (lambda: Config(model=MlpConfig(activation=3)), "model.activation is 3\nallowed: text"),
        (lambda: Config(model=MlpConfig(bias=1)), "model.bias is 1\nallowed: true or false"),
        (lambda: Config(output=OutputConfig(quiet="no")), "output.quiet is 'no'"),
        (lambda: SgdConfig(lr=math.inf), "lr is inf\nallowed: a finite number of at least 0.0"),
        (lambda: SgdConfig(lr="0.1"), "optimizer.lr is '0.1'"),
    ],
)
def test_a_value_of_the_wrong_kind_is_refused_with_what_is_allowed(
    make: Callable[[], Any], said: str
) -> None:
    with pytest.raises(QuestionError) as caught:
        make()
    assert said in str(caught.value)
    assert "nearest" not in str(caught.value)


def test_what_was_changed_after_it_was_made_is_looked_at_again(tmp_path: Path) -> None:
    config = Config()
    config.model = "mlp"  # type: ignore[assignment]
    with pytest.raises(QuestionError, match="model is 'mlp'"):
        vgexp.run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_dictionary_is_no_configuration(tmp_path: Path) -> None:
    with pytest.raises(QuestionError, match=r"the configuration is \{'model': 1\}"):
        vgexp.run({"model": 1}, tmp_path / "run")  # type: ignore[arg-type]
    assert not (tmp_path / "run").exists()
    with pytest.raises(QuestionError, match=r"the configuration is \{'model': 1\}"):
        vgexp.run({"model": 1})  # type: ignore[arg-type]


@pytest.mark.parametrize("group", CHOICES)
def test_every_choice_passes_with_its_defaults(group: str) -> None:
    for cls in CHOICES[group].values():
        config = Config(**{group: cls()})
        configuration.require(config)
        values, choices = configuration.to_dict(config), configuration.choices(config)
        assert configuration.from_dict(values, choices) == config


def test_whole_numbers_are_numbers_and_null_stays_null() -> None:
    config = Config(model=MlpConfig(gain=1, negative_slope=None))
    configuration.require(config)
    model = configuration.to_dict(config)["model"]
    assert (model["gain"], model["negative_slope"]) == (1, None)


@dataclass
class Section:
    number: int = 1
    share: float | None = 0.5
    wanted: bool = False


def test_true_is_no_number_and_a_number_is_not_true() -> None:
    require_kinds(Section(number=2, share=1, wanted=True))
    for wrong, said in (
        (Section(number=True), "number is True\nallowed: a whole number"),
        (Section(share=True), "share is True\nallowed: a number, or null"),
        (Section(wanted=1), "wanted is 1\nallowed: true or false"),
    ):
        with pytest.raises(QuestionError) as refused:
            require_kinds(wrong, "a.")
        assert str(refused.value) == f"a.{said}"


def test_what_an_earlier_version_recorded_means_what_it_did_then() -> None:
    config = Config()
    values = configuration.to_dict(config)
    for name in ("histograms_every", "curvature_every"):
        del values["probe"][name]
    del values["signal"]
    then = configuration.from_dict(values, configuration.choices(config))
    assert then.probe.histograms_every == then.probe.curvature_every == 0
    assert "probe.histograms_every" not in configuration.deciding(then)
    assert "probe.histograms_every" in configuration.deciding(config)
    assert configuration.identity(then) != configuration.identity(config)
    # The hash of the default configuration before there were these keys.
    assert configuration.identity(then) == "65202c2650dc1e3c"


def test_a_class_derived_from_that_of_a_choice_is_not_this_choice() -> None:
    class Derived(MlpConfig):
        pass

    assert configuration.choice("model", MlpConfig()) == "mlp"
    with pytest.raises(QuestionError, match="unknown model configuration: 'Derived'"):
        configuration.choice("model", Derived())
