"""Bars of numbers: their scale, which are left out, and that a page's own stand on it.

Holds: explain/bars.py, explain/own_bars.py
"""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from small_runs import CONFIG
from trainers import changed

import vgexp
from vgexp.config import AddingConfig, RnnConfig
from vgexp.explain import TOPICS
from vgexp.explain.bars import Bars, bars_of_numbers, bars_of_page, draw
from vgexp.explain.own import Own
from vgexp.explain.own_bars import bars_of_run
from vgexp.explain.page import WIDTH, lay_out
from vgexp.past import PastRun
from vgexp.report.figures import FIGURES, OVERVIEW

CHARTS = [id for id, topic in TOPICS.items() if topic.chart is not None]


def marks_of(bars: Bars) -> list[int]:
    return [line.count("#") for line in [*draw(bars)][1:]]


def test_bars_are_as_long_as_numbers_or_as_their_logarithms() -> None:
    linear = Bars("t", (("a", 1.0, "1"), ("b", 2.0, "2")))
    assert [*draw(linear)] == ["  t", f"  a  1  {'#' * 20}", f"  b  2  {'#' * 40}"]
    powers = Bars("t", tuple((f"{n}", 10.0**-n, f"1e-{n}") for n in range(5)))
    assert next(iter(draw(powers))) == "  t, log scale"
    assert marks_of(powers) == [40, 30, 21, 11, 1]


def test_what_has_no_place_on_the_scale_has_no_bar() -> None:
    rows = (("a", 0.0, "0"), ("b", math.nan, "nan"), ("c", -1.0, "-1"), ("d", 3.0, "3"))
    assert marks_of(Bars("t", rows)) == [0, 0, 0, 40]
    assert marks_of(Bars("t", rows[:3])) == [0, 0, 0]


def test_of_many_numbers_some_are_left_out_but_never_the_ends() -> None:
    bars = bars_of_numbers("t", {f"layer {n}": float(n) for n in range(1, 101)})
    assert bars is not None
    assert len(bars.rows) == 10
    assert [bars.rows[place][0] for place in (0, -1)] == ["layer 1", "layer 100"]
    assert bars_of_numbers("t", {}) is None


def test_a_power_is_drawn_layer_by_layer() -> None:
    (bars,) = bars_of_page(TOPICS["attenuation"])
    assert bars.title.endswith("0.24 a layer")
    assert bars.rows[0][0] == "layer 1"
    assert bars.rows[0][1] == pytest.approx(0.24**19)
    assert bars.rows[-1] == ("layer 20", 1.0, "1")


@pytest.mark.parametrize("id", CHARTS)
def test_the_bars_of_a_page_are_numbers_that_stand_on_it(id: str) -> None:
    topic = TOPICS[id]
    assert topic.chart is not None
    without = lay_out(topic)
    said = " ".join(
        line.strip() for part in without if part.heading != "Figure" for line in part.lines
    ) + " ".join(topic.table)
    for _, shown in topic.chart[1:]:
        assert shown.split(" to ")[0] in said, shown
        assert shown.split(" to ")[-1] in said, shown
    (bars,) = bars_of_page(topic)
    assert all(length > 0 for length in marks_of(bars))
    assert all(len(line) <= WIDTH for line in draw(bars))


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Own:
    folder = tmp_path_factory.mktemp("runs") / "own"
    probe = {"every": 10, "activations_every": 10, "curvature_every": 20}
    vgexp.run(changed(CONFIG, probe=probe), folder)
    return Own(PastRun(folder, is_strict=False))


def test_every_figure_of_a_training_run_has_bars_of_its_own_numbers(own: Own) -> None:
    for figure in (*FIGURES, OVERVIEW):
        bars = bars_of_run(figure, own)
        is_there = figure not in ("through_time", "attention_entropy", "time_at_start")
        is_there &= figure not in ("paths", "shattering")
        assert (bars is not None) == is_there, figure
        if bars is not None:
            assert all(len(line) <= WIDTH for line in draw(bars))
    signal = bars_of_run("backward_signal", own)
    assert signal is not None
    assert [value for _, value, _ in signal.rows] == [*own.layers("delta_rms").values()]
    assert {topic.figure for topic in TOPICS.values()} - {""} <= {*FIGURES, OVERVIEW}


def test_of_a_recurrent_net_the_bars_are_of_times(tmp_path: Path) -> None:
    config = changed(
        CONFIG,
        model=RnnConfig(width=4),
        data=AddingConfig(num_examples=40, seq_len=6, batch_size=8),
        train={"steps": 2},
    )
    vgexp.run(config, tmp_path / "rnn")
    bars = bars_of_run("through_time", Own(PastRun(tmp_path / "rnn", is_strict=False)))
    assert bars is not None
    assert bars.rows[0][0].startswith("t ")
    assert len(bars.rows) > 1
