"""What is known of a run, and of a network in somebody's own loop.

Holds: diagnosis/evidence.py
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from layer_tables import STEADY, VANISHING, layers_of, summary_of
from trainers import changed

import vgexp
from vgexp.diagnosis import Evidence
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
