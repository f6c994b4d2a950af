"""What is known of a run, and of a network in somebody's own loop.

Holds: diagnosis/evidence.py, diagnosis/cells.py
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from layer_tables import STEADY, VANISHING, layers_of, steps_of, summary_of
from trainers import changed

import vgexp
from vgexp.diagnosis import Evidence, conclude, evidence_of_tables
from vgexp.diagnosis.evidence import evidence_of_layers, evidence_of_run

RECORDED = Path(__file__).parents[1] / "recorded"


def test_a_table_without_rows_is_no_evidence() -> None:
    assert Evidence({}, tables={"layers": VANISHING.head(0)}).lacks("layers.csv")
    assert not Evidence({}, tables={"layers": VANISHING}).lacks("layers.csv")


def test_a_run_knows_the_steps_and_the_layers_of_the_tables_at_hand() -> None:
    tables = {"layers": pd.concat([VANISHING, STEADY.assign(step=20)])}
    summary = summary_of(tables["layers"], [2.3] * 30)
    evidence = evidence_of_run(summary, tables)
    assert (evidence.first_step, evidence.last_step) == (0, 20)
    assert evidence.names_of(1, 10, 99) == ("layers.0", "layers.9")
    assert evidence.dtype == "float32"
    assert evidence_of_run(summary).last_step is None
    assert evidence_of_run(summary).names_of(1) == ()


def test_a_run_with_a_configuration_knows_the_examples_of_an_update() -> None:
    done = vgexp.load(RECORDED / "run")
    assert done.config.data.batch_size == 8
    config = changed(done.config, train={"accumulate": 3})
    assert evidence_of_run(done.summary, config=config).num_examples == 24
    assert evidence_of_run(done.summary).num_examples is None


def test_lost_numbers_are_counted_for_a_guest_whose_dtype_and_examples_are_known() -> None:
    layers = layers_of([1e-40, 1e-37, 1.0])
    for known, num_below in (
        ({"dtype": "float32", "num_examples": 1}, 1),
        ({"dtype": "float32", "num_examples": 64}, 2),
        ({"dtype": "float64", "num_examples": 64}, 0),
    ):
        assert evidence_of_layers(layers, **known).metrics["underflow"] == num_below  # type: ignore[arg-type]
    assert evidence_of_layers(layers, dtype="float32").lacks("underflow")
    assert evidence_of_layers(layers, num_examples=64).lacks("underflow")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("attenuation", "small"),
        ("constant_loss", "2.3"),
        ("loss_first", True),
        ("steps", 120.5),
        ("underflow", "none"),
        ("num_layers", "ten"),
        ("compared", ["first", "last"]),
        ("signal", "abc"),
        ("verdict", 3),
        ("unseen", "the loss"),
        ("cause", 1.0),
        ("nonfinite_maker", "forward"),
    ],
)
def test_a_metric_of_the_wrong_type_was_not_measured(name: str, value: Any) -> None:
    summary = summary_of(VANISHING, [2.3] * 120)
    tables = {"layers": VANISHING, "steps": steps_of([2.3] * 120)}
    evidence = evidence_of_run({**summary, name: value}, tables)
    if name not in ("nonfinite_maker", "unseen"):
        assert evidence.metrics.get(name) != value
    told = conclude(evidence)
    assert not evidence.raised
    assert told.health in ("sick", "undecided")


def test_cells_that_are_no_numbers_were_not_measured() -> None:
    text = VANISHING.assign(grad_norm="much", dead_fraction="few")
    assert evidence_of_layers(text, dtype="float32", num_examples=64).metrics["underflow"] == 0
    assert conclude(evidence_of_tables({"layers": text})).first is not None
    assert conclude(evidence_of_run(summary_of(VANISHING, [2.3]), {"layers": text})).first


def test_empty_cells_of_whole_numbers_break_no_rule() -> None:
    empty = pd.array([None, 16], dtype="Int64")
    names = ["layers.0.bias", "layers.1.bias"]
    parameters = pd.DataFrame({"step": 0, "name": names, "kind": "bias", "entries": empty})
    times = {"name": "rnn.h", "t": pd.array([None, None], dtype="Int64"), "delta_rms": 0.1}
    recurrence = pd.DataFrame({"step": 0, "layer": 1, "name": ["rnn"], "spectral_radius": 0.3})
    tables = {
        "layers": VANISHING,
        "parameters": parameters,
        "time": pd.DataFrame({"step": 0, "layer": 1, **times}),
        "recurrence": recurrence,
    }
    metrics = {**summary_of(VANISHING, [2.3] * 120), "time_attenuation": 1.0}
    for evidence in (evidence_of_run(metrics, tables), evidence_of_tables(tables)):
        conclude(evidence)
        assert not evidence.raised
