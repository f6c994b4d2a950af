"""Summary metrics: each is declared in one place, with the name and kind it has on disk.

Holds: quantities/initialisation.py, quantities/signal_metrics.py, quantities/summary.py,
quantities/training_metrics.py
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import vgexp
from vgexp import folders, runs
from vgexp.cli import main
from vgexp.config import Config, MlpConfig, OutputConfig, SignalConfig, TrainConfig
from vgexp.errors import QuestionError
from vgexp.quantities import NUMBERS, SUMMARY, require_number

KINDS: dict[str, type] = {"int": int, "float": float, "text": str}


@pytest.fixture(scope="module")
def summary(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Of a real run that then failed, and of its start, so that every key is there."""
    folder = tmp_path_factory.mktemp("figures") / "run"
    config = Config(
        model=MlpConfig(depth=3, init="lsuv"),
        train=TrainConfig(steps=22),
        output=OutputConfig(quiet=True),
    )
    vgexp.run(config, folder)
    runs.write_failure(folder, config, RuntimeError("no memory"))
    config.signal = SignalConfig(seeds=2, jacobian=True, paths=True, shattering=True)
    config.model = MlpConfig(depth=3, width=6, skip="residual")
    start = runs.signal(config, folder.parent / "signal").summary
    return {**start, **folders.summary_of(folder)}


def test_every_scalar_of_a_real_summary_has_a_definition_and_every_definition_a_scalar(
    summary: dict[str, Any],
) -> None:
    scalars = {key for key, value in summary.items() if not isinstance(value, dict | list)}
    assert scalars == set(SUMMARY)


def test_a_metric_is_of_the_kind_that_its_definition_says(summary: dict[str, Any]) -> None:
    for metric in SUMMARY.values():
        value = summary[metric.name]
        assert value is None or type(value) is KINDS[metric.kind], metric.name


def test_a_search_can_go_by_every_number_and_by_nothing_else(summary: dict[str, Any]) -> None:
    numbers = {key for key, value in summary.items() if isinstance(value, int | float)}
    assert numbers <= set(NUMBERS)
    for name in NUMBERS:
        require_number(name)
    with pytest.raises(QuestionError, match=r"'los_last'\nallowed: .*\nnearest: loss_last"):
        require_number("los_last")
    with pytest.raises(QuestionError, match="a number: 'verdict'"):
        require_number("verdict")
    require_number(Config().run.objective)


def test_names_of_metrics_are_there_without_what_makes_them() -> None:
    code = (
        "import sys; from vgexp.quantities import NUMBERS; assert 'loss_last' in NUMBERS; "
        "sys.exit(bool({'torch', 'pandas', 'numpy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("first", ["diagnose", "sentence", "verdict_of"])
def test_what_is_imported_when_asked_for_is_the_same_in_any_order(first: str) -> None:
    code = (
        f"from vgexp.diagnosis import {first}; from vgexp.diagnosis import sentence, diagnose; "
        "assert callable(sentence) and callable(diagnose)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_summary_metrics_are_listed_a_line_each(
    summary: dict[str, Any], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main.main(["list", "summary"]) == 0
    listed = capsys.readouterr().out
    assert "\nattenuation " in listed
    assert "\ngradient_map " not in listed
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    assert main.main(["compare", str(tmp_path), "--metric", "atenuation"]) == 2
    assert "vgexp list summary" in capsys.readouterr().err


def test_figures_are_pictures_and_their_list_says_where_numbers_are(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main.main(["list", "figures"]) == 0
    listed = capsys.readouterr().out
    assert listed.startswith("gradient_map ")
    assert "attenuation " not in listed
    assert listed.splitlines()[-1] == "the numbers of summary.json: vgexp list summary"
    assert main.main(["list", "pictures"]) == 0
    assert capsys.readouterr().out == listed, "as they were called before"
