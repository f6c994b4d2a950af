"""The presets: each composes, runs, says what it shows, and differs from its pair in one thing.

Holds: cli/schema.py, configs/experiment
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from preset_opening import require_opening
from short_evaluations import evaluate_few

from vgexp import config as configuration
from vgexp import runs
from vgexp.cli import listing
from vgexp.cli.error_blocks import WIDTH
from vgexp.cli.main import main
from vgexp.config import AddingConfig, Config

SINGLE = (
    "sigmoid_deep",
    "tanh_deep",
    "relu_he",
    "relu_xavier",
    "small_init",
    "large_init",
    "exploding",
    "exploding_clipped",
    "dying_relu",
    "batchnorm_rescue",
    "layernorm_rescue",
    "residual_rescue",
    "highway_rescue",
    "dense_rescue",
    "pretraining_rescue",
    "lsuv",
    "selu",
    "thousand_layers",
    "post_ln_deep",
    "pre_ln_deep",
    "plain20",
    "plain110",
    "resnet20",
    "resnet110",
    "flat_signal_lost",
    "flat_landscape",
    "flat_step_too_large",
)
SWEEPS = {
    "adam_rescue": 14,
    "arsenal": 16,
    "covariate_shift": 2,
    "how_far_back": 16,
    "shallow_vs_deep": 15,
    "spectral_radius": 6,
    "forget_bias": 4,
}
"""Preset -> jobs of its grid."""

SEARCHES = ("deepest",)
"""Presets whose jobs a sampler chooses; `test_plugins` runs them."""
ALL = (*SINGLE, *SWEEPS, *SEARCHES)

PAIRS: dict[str, tuple[str, dict[str, Any]]] = {
    "relu_xavier": ("relu_he", {"model.init": "xavier_normal"}),
    "lsuv": ("relu_xavier", {"model.init": "lsuv"}),
    "layernorm_rescue": ("relu_xavier", {"model.norm": "layer"}),
    "small_init": ("tanh_deep", {"model.gain": 0.5}),
    "large_init": ("tanh_deep", {"model.gain": 3.0}),
    # Between equal widths, lecun_normal and xavier_normal are the same.
    "selu": ("tanh_deep", {"model.activation": "selu", "model.init": "lecun_normal"}),
    "exploding": ("relu_he", {"model.gain": 1.5}),
    "exploding_clipped": ("exploding", {"clip": "norm", "clip.threshold": 1.0}),
    "batchnorm_rescue": ("sigmoid_deep", {"model.norm": "batch"}),
    "residual_rescue": ("sigmoid_deep", {"model.skip": "residual"}),
    "pre_ln_deep": ("post_ln_deep", {"model.norm_position": "pre"}),
    "highway_rescue": ("sigmoid_deep", {"model.skip": "highway"}),
    "dense_rescue": ("sigmoid_deep", {"model.skip": "dense"}),
    "plain110": ("plain20", {"model.depth": 110}),
    "resnet20": ("plain20", {"model.skip": "residual"}),
    "resnet110": ("plain110", {"model.skip": "residual"}),
    "pretraining_rescue": ("sigmoid_deep", {"train.pretrain_steps": 200}),
}
"""Preset -> the preset it is compared with, and all that differs."""

"""What `vgexp list experiments` has room for on one line."""

Compose = Callable[[str], list[Config]]


@pytest.fixture(scope="module")
def jobs_of(tmp_path_factory: pytest.TempPathFactory) -> Compose:
    """Configurations of every run that a preset asks for; none of them is run."""

    @cache
    def compose(name: str) -> list[Config]:
        made: list[Config] = []

        def begin(_: object, config: Config, folder: Path, *__: object) -> Any:
            made.append(config)
            return SimpleNamespace(folder=folder, summary={"status": "completed"})

        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(tmp_path_factory.mktemp(name))
            patch.setattr("vgexp.runs.making._begin", begin)
            assert main(["train", f"+experiment={name}", "output.quiet=true"]) == 0
        return made

    return compose


@pytest.fixture(autouse=True)
def _few_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    evaluate_few(monkeypatch)


def preset(name: str) -> Path:
    return listing.find_configs() / "experiment" / f"{name}.yaml"


def run(folder: Path, config: Config, *, steps: int, seed: int = 0) -> dict[str, Any]:
    """Runs a preset for a few steps on the CPU and returns its summary."""
    few = min(config.train.pretrain_steps, steps)
    train = dataclasses.replace(config.train, steps=steps, pretrain_steps=few, eval_every=0)
    output = dataclasses.replace(config.output, quiet=True)
    data = config.data
    if isinstance(data, AddingConfig):
        data = dataclasses.replace(data, num_examples=200)
    if data.batch_size > 1000:
        # A Hessian of whole data sets takes seconds; presets measure their own.
        data = dataclasses.replace(data, batch_size=200)
    config = dataclasses.replace(config, train=train, output=output, data=data, seed=seed)
    config.device = "cpu"
    return runs.run(config, folder).summary


def test_the_presets_are_those_of_the_list() -> None:
    # Those of papers are in a folder of their own, and in `test_papers`.
    found = {path.stem for path in preset("any").parent.glob("*.yaml")}
    assert found == set(ALL)


@pytest.mark.parametrize("name", ALL)
def test_a_preset_opens_with_its_command_its_sentence_and_what_was_measured(name: str) -> None:
    require_opening(preset(name), rf"vgexp train (-m )?\+experiment={name}", "[3-9]")


def test_the_list_prints_every_presets_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "experiments"]) == 0
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= WIDTH
    words = " ".join(printed.split())
    for name in ALL:
        sentence = preset(name).read_text(encoding="utf-8").splitlines()[2]
        assert f"{name} {sentence.removeprefix('# ')}" in words


@pytest.mark.parametrize("name", PAIRS)
def test_a_disease_and_its_cure_differ_in_one_thing(name: str, jobs_of: Compose) -> None:
    base, expected = PAIRS[name]
    mine, other = (configuration.flatten(jobs_of(one)[0]) for one in (name, base))
    assert {key: value for key, value in mine.items() if other.get(key) != value} == expected
    assert other.keys() <= mine.keys()


@pytest.mark.parametrize("name", SINGLE)
def test_a_preset_runs_two_steps(name: str, jobs_of: Compose, tmp_path: Path) -> None:
    (config,) = jobs_of(name)
    summary = run(tmp_path / "run", config, steps=2)
    assert summary["status"] == ("diverged" if name == "exploding" else "completed")
    assert set(runs.load(tmp_path / "run").layers["step"]) == {0, 1}


@pytest.mark.parametrize("name", SWEEPS)
def test_a_sweep_composes_every_job_and_its_last_one_runs_two_steps(
    name: str, jobs_of: Compose, tmp_path: Path
) -> None:
    configs = jobs_of(name)
    assert len({configuration.identity(config) for config in configs}) == SWEEPS[name]
    assert len(configs) == SWEEPS[name]
    assert run(tmp_path / "run", configs[-1], steps=2)["steps"] == 2


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(
    ("name", "signal"),
    [("sigmoid_deep", "vanishing"), ("relu_he", "steady"), ("exploding", "exploding")],
)
def test_the_signal_at_the_start_is_what_the_preset_promises(
    name: str, signal: str, seed: int, jobs_of: Compose, tmp_path: Path
) -> None:
    (config,) = jobs_of(name)
    assert run(tmp_path / "run", config, steps=1, seed=seed)["signal"] == signal
