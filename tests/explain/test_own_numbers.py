"""The numbers of a run in the formulas of a page: those of its summary and tables, none other.

Holds: explain/pages/laws.py, explain/own.py, explain/pages/slopes.py
"""

from __future__ import annotations

import math
import re
import statistics
from pathlib import Path

import pytest
from small_runs import CONFIG, DIVERGING
from trainers import changed

import vgexp
from vgexp.activations import ACTIVATIONS
from vgexp.cli.main import main
from vgexp.config import (
    AdamConfig,
    AddingConfig,
    Config,
    NormClipConfig,
    OutputConfig,
    RnnConfig,
    SgdConfig,
    TrainConfig,
)
from vgexp.explain import TOPICS, Line
from vgexp.explain.own import Own
from vgexp.explain.page import WIDTH, lay_out
from vgexp.explain.pages.laws import PEAKS
from vgexp.past import PastRun

RUNS: dict[str, Config] = {
    "sigmoid": changed(
        CONFIG,
        model={"activation": "sigmoid", "depth": 5, "init": "xavier_normal"},
        optimizer=SgdConfig(lr=0.1),
        clip=NormClipConfig(threshold=0.05),
        probe={"every": 10, "activations_every": 10},
    ),
    "diverging": DIVERGING,
    "recurrent": Config(
        model=RnnConfig(width=8),
        data=AddingConfig(num_examples=64, seq_len=12, batch_size=16),
        optimizer=AdamConfig(),
        train=TrainConfig(steps=3, eval_every=0),
        output=OutputConfig(quiet=True),
    ),
}

SUM = re.compile(r"(?:[\d.*/^() +-]|e[+-]\d|sqrt|ln)+")
"""A formula of numbers alone."""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Runs that differ in what they have: names -> folders."""
    above = tmp_path_factory.mktemp("runs")
    for name, config in RUNS.items():
        vgexp.run(config, above / name)
    words = ["signal.seeds=2", "model.depth=3", "model.width=8", "output.quiet=true"]
    assert main(["signal", *words, f"hydra.run.dir={above / 'signal'}"]) == 0
    (above / "empty").mkdir()
    (above / "empty" / "summary.json").write_text('{"status": "failed"}')
    return {path.name: path for path in above.iterdir()}


def own_of(folder: Path) -> Own:
    return Own(PastRun(folder, is_strict=False))


def lines_of(id: str, folder: Path) -> list[Line]:
    laws = TOPICS[id].own
    assert laws is not None
    return laws(own_of(folder))


def value_of(lines: list[Line], formula: str, words: str = "") -> float:
    (value,) = {line.value for line in lines if line.formula == formula and words in line.words}
    assert value is not None
    return value


@pytest.mark.parametrize("run", [*RUNS, "signal", "empty"])
def test_what_pages_call_by_a_summary_metrics_name_is_that_metric(
    run: str, folders: dict[str, Path]
) -> None:
    summary = PastRun(folders[run]).summary
    seen = set()
    for id, topic in TOPICS.items():
        for line in lines_of(id, folders[run]) if topic.own else ():
            if line.formula in summary:
                seen.add(line.formula)
                assert line.value == summary[line.formula], (id, line)
    assert len(seen) >= (0 if run == "empty" else 2), seen


@pytest.mark.parametrize("run", [*RUNS, "signal", "empty"])
def test_sums_are_right_and_lines_fit_the_terminal_on_every_page(
    run: str, folders: dict[str, Path]
) -> None:
    own, functions = own_of(folders[run]), {"sqrt": math.sqrt, "ln": math.log}
    for id, topic in TOPICS.items():
        for line in topic.own(own) if topic.own else ():
            if SUM.fullmatch(line.formula):
                python = line.formula.replace("^", "**")
                expected = eval(python, {"__builtins__": {}}, functions)
                assert line.value == pytest.approx(expected, rel=1e-12), (id, line)
        for section in lay_out(topic, own):
            for text in section.lines:
                assert len(text.replace(str(folders[run]), "RUN")) <= WIDTH, text


def test_the_bound_stands_beside_the_attenuation_of_the_run(folders: dict[str, Path]) -> None:
    lines = lines_of("saturating_activation", folders["sigmoid"])
    frame = vgexp.load(folders["sigmoid"])
    middle = frame.layers.query("step == 0 and layer == 3").iloc[0]
    gain = middle["weight_norm"] / math.sqrt(8)
    (bound,) = (line.value for line in lines if line.formula.endswith("* 0.25)^4"))
    assert bound == pytest.approx((gain * 0.25) ** 4, rel=1e-3)
    fitted = frame.summary["backward_factor_per_layer"]
    (power,) = (line.value for line in lines if line.words.startswith("from layer 5"))
    assert power == pytest.approx(fitted**4, rel=1e-3)
    assert value_of(lines, "attenuation") == frame.summary["attenuation"] < bound


def test_chi_is_gain_and_slope_and_its_root_the_measured_factor(folders: dict[str, Path]) -> None:
    lines = lines_of("chi", folders["sigmoid"])
    gained, slope, chi = (line.value for line in lines[:3])
    assert gained is not None
    assert slope is not None
    assert chi is not None
    assert gained * slope == pytest.approx(chi, rel=1e-3)
    measured = value_of(lines, "backward_gain")
    assert math.sqrt(chi) == pytest.approx(measured, rel=1e-3)
    assert slope < 1 / 16  # the most for a sigmoid


def test_the_update_by_formula_is_the_update_that_was_measured(folders: dict[str, Path]) -> None:
    lines = lines_of("update_ratio", folders["sigmoid"])
    for layer in (1, 5):
        (made,) = (x for x in lines if x.words.startswith(f"lr |g| / |W|, layer {layer},"))
        measured = value_of(lines, "update_ratio", f"layer {layer},")
        assert made.value == pytest.approx(measured, rel=0.01)


def test_clipping_shows_the_threshold_beside_the_norms(folders: dict[str, Path]) -> None:
    lines, steps = lines_of("clip_norm", folders["sigmoid"]), vgexp.load(folders["sigmoid"]).steps
    norms = steps["grad_norm"].tolist()
    assert value_of(lines, "clip.threshold") == 0.05
    assert value_of(lines, "median grad_norm") == pytest.approx(statistics.median(norms))
    assert value_of(lines, "largest grad_norm") == max(norms)
    left = statistics.median(min(1.0, 0.05 / norm) for norm in norms)
    assert value_of(lines, "clipped / grad_norm") == pytest.approx(left, rel=1e-5)


def test_the_readout_of_a_guessing_softmax_has_the_signal_that_theory_says(
    folders: dict[str, Path],
) -> None:
    lines = lines_of("logits", folders["sigmoid"])
    (expected,) = (line.value for line in lines if line.formula == "sqrt(3 - 1) / 3")
    assert value_of(lines, "delta_rms") == pytest.approx(expected, rel=0.15)


def test_time_is_multiplied_over_the_sequence(folders: dict[str, Path]) -> None:
    lines = lines_of("recurrence_vanishing", folders["recurrent"])
    (power,) = (line.value for line in lines if line.formula.endswith("^11"))
    factor = value_of(lines, "backward_factor_per_time_step")
    assert power == pytest.approx(factor**11, rel=1e-3)


def test_adams_first_update_is_that_of_the_largest_entry(folders: dict[str, Path]) -> None:
    lines = lines_of("adam", folders["recurrent"])
    largest = value_of(lines, "grad_max")
    (update,) = (line.value for line in lines if line.words.startswith("the first update"))
    assert update == pytest.approx(largest / (largest + 1e-8), rel=1e-3)


def test_wiring_counts_parameters(folders: dict[str, Path]) -> None:
    lines = lines_of("frozen", folders["sigmoid"])
    assert value_of(lines, "parameters") == value_of(lines, "requires_grad") == 12
    assert value_of(lines, "in_optimizer") == 12


def test_of_several_seeds_the_first_counts(folders: dict[str, Path]) -> None:
    own, frame = own_of(folders["signal"]), vgexp.load(folders["signal"]).layers
    first = frame[(frame["seed"] == 0) & (frame["kind"] != "readout")]
    assert list(own.layers("delta_rms").values()) == first["delta_rms"].tolist()


def test_a_run_without_tables_has_no_numbers_and_a_page_says_so(folders: dict[str, Path]) -> None:
    own = own_of(folders["empty"])
    assert own.layers("delta_rms") == {}
    assert (own.steps("loss"), own.wiring("updated"), own.choice("clip")) == ([], [], None)
    (section,) = (x for x in lay_out(TOPICS["delta"], own) if x.heading.startswith("With"))
    assert section.lines == ("  It has none of the numbers of this page.",)


def test_a_damaged_table_is_as_one_that_is_not_there(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "summary.json").write_bytes((folders["sigmoid"] / "summary.json").read_bytes())
    (tmp_path / "layers.csv").write_text("no,table\n1\n")
    own = own_of(tmp_path)
    assert own.layers("delta_rms") == {}
    assert own.number("attenuation") is not None


@pytest.mark.parametrize("name", PEAKS)
def test_the_largest_slope_of_an_activation_is_known(name: str) -> None:
    import torch

    phi = ACTIVATIONS[name].build(None)
    u = torch.linspace(-3, 3, 6001, dtype=torch.float64, requires_grad=True)
    (slopes,) = torch.autograd.grad(phi(u).sum(), u)
    assert float(slopes.abs().max()) == pytest.approx(PEAKS[name], rel=1e-6)


def test_a_run_without_settings_has_what_its_tables_have(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    for name in ("summary.json", "layers.csv", "steps.csv"):
        (tmp_path / name).write_bytes((folders["sigmoid"] / name).read_bytes())
    lines = lines_of("saturating_activation", tmp_path)
    assert lines[0].formula == "backward_factor_per_layer"
    assert {line.formula for line in lines_of("clip_norm", tmp_path)} == {
        "median grad_norm",
        "largest grad_norm",
        "clip_fraction",
    }
