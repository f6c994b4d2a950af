"""What a run and a table of layers are told: the text, and what it is composed of.

Holds: diagnosis/diagnosis.py, diagnosis/__init__.py, diagnosis/phrases.py
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from layer_tables import EXPLODING, STEADY, VANISHING, layers_of, summary_of

import vgexp
from vgexp.diagnosis import (
    CAUSE_RULES,
    RULES,
    Evidence,
    Finding,
    Remedy,
    compose,
    conclude,
    diagnose,
    examine,
    partial_sentence,
    sentence,
    signal_of,
    start_sentence,
)
from vgexp.diagnosis.evidence import evidence_of_run
from vgexp.errors import QuestionError

RECORDED = Path(__file__).parents[1] / "recorded"
RUNS = sorted(
    path.parent.relative_to(RECORDED).as_posix()
    for path in RECORDED.rglob("summary.json")
    if (path.parent / "steps.csv").exists()
)
FRAMES = {
    "vanishing": VANISHING,
    "hidden": VANISHING.assign(grad_norm=1.0),
    "steady": STEADY.assign(grad_norm=1.0),
    "exploding": EXPLODING.assign(grad_norm=1.0),
    "nothing arrives": layers_of([0.0, 0.5, 1.0]),
    "not finite": layers_of([np.inf, 0.5, 1.0]),
    "an end without rows": layers_of([0.25, 0.5, 1.0]).iloc[1:],
    "one layer": layers_of([1.0]),
    "two steps": pd.concat([VANISHING.assign(grad_norm=1.0), STEADY.assign(step=20)]),
    "ends unmeasured": pd.concat([VANISHING, STEADY.assign(step=9, delta_rms=np.nan)]),
}
"""Tables of layers, as a run and a guest may both have them."""


def test_a_vanishing_run_is_told_with_its_numbers_and_the_hint_at_float64() -> None:
    layers = layers_of(1e-3 * 0.01 ** np.arange(19, -1.0, -1))
    text = sentence(summary_of(layers, [2.31, *[2.302] * 30]))
    assert "vanishes" in text
    assert "layer 1 gets 1e-38 of what layer 20 gets, a fitted factor of 0.01 a layer" in text
    assert "was 2.30 over the last 20 steps, which is what guessing gives (2.30)" in text
    assert "In 3 of 20 layers" in text
    assert "dtype=float64 shows the true value" in text


def test_a_run_that_learned_despite_its_signal_is_told_so() -> None:
    text = sentence(summary_of(VANISHING, [2.3] + [0.5] * 30))
    assert "vanishes" in text
    assert (
        "Even so it learned: the training loss went from 2.30 at the first step to 0.500 over"
        in text
    )


@pytest.mark.parametrize(
    ("kept", "words"),
    [
        (
            [1, 2, 3],
            "layer 1 was not measured and cannot be compared with layer 4; the fitted factor",
        ),
        (
            [0, 1, 4],
            "layer 4 was not measured and cannot be compared with layer 1; the fitted factor",
        ),
        (
            [1, 2],
            "layer 1 and layer 4 were not measured; the fitted factor of those measured is 0.5 a"
            " layer",
        ),
        ([1, 4], "layer 1 and layer 4 were not measured."),
    ],
)
def test_an_end_without_rows_is_told_with_what_the_measured_layers_show(
    kept: list[int], words: str
) -> None:
    layers = layers_of([0.125, 0.25, 0.5, 1.0]).iloc[kept]
    summary = summary_of(layers, [2.3] * 30, num_layers=4)
    assert f"The gradient at step 0: {words}" in sentence(summary)
    assert words.rstrip(".") in summary["cause"]
    assert summary["attenuation"] is None


def test_the_only_hidden_layer_without_rows_is_told() -> None:
    summary = summary_of(layers_of([1.0]).iloc[[1]], [2.3] * 30, num_layers=1)
    assert "step 0: layer 1 was not measured." in sentence(summary)


def test_a_run_that_was_cut_short_says_so() -> None:
    assert "interrupted" in sentence(summary_of(STEADY, [2.3], status="interrupted"))


def test_a_frame_alone_is_diagnosed_at_its_first_and_last_measured_step() -> None:
    weights_only = STEADY.assign(step=30, delta_rms=np.nan)
    diagnosis = diagnose(pd.concat([VANISHING, STEADY.assign(step=20), weights_only]))
    assert (diagnosis.first_step, diagnosis.last_step) == (0, 20)
    assert (diagnosis.first.signal, diagnosis.last.signal) == ("vanishing", "steady")
    assert "vanishes at step 0" in diagnosis.sentence
    assert "is steady at step 20" in diagnosis.sentence
    assert "\n  The gradient vanishes at step 0: layer 1 gets 1e-09 of" in str(diagnosis)


def test_a_frame_with_nothing_to_diagnose_is_a_question_gone_wrong() -> None:
    with pytest.raises(QuestionError, match="lacks the columns delta_rms"):
        diagnose(STEADY.drop(columns="delta_rms"))
    with pytest.raises(QuestionError, match="no row of the table has a backward signal"):
        diagnose(STEADY.assign(delta_rms=np.nan))
    with pytest.raises(QuestionError, match="lacks the column step"):
        diagnose(STEADY.drop(columns="step"))
    with pytest.raises(QuestionError, match="no row of the table has a backward signal"):
        diagnose(STEADY.assign(step=np.nan))
    with pytest.raises(QuestionError, match="has twice the columns delta_rms"):
        diagnose(STEADY.rename(columns={"act_std": "delta_rms"}))
    with pytest.raises(QuestionError, match=r"cells that are no numbers.*'lost'"):
        diagnose(STEADY.assign(delta_rms="lost"))


def test_a_frame_whose_numbers_are_text_is_diagnosed_as_the_numbers() -> None:
    frame = pd.concat([VANISHING, STEADY.assign(step=20)])
    as_text = frame.astype(dict.fromkeys(("step", "layer", "delta_rms"), "str"))
    diagnosis = diagnose(as_text)
    # As text, in which nan is nan: dataclasses compare it as a number from Python 3.13 on.
    assert repr(diagnosis) == repr(diagnose(frame))
    assert diagnosis.last_step == 20


def test_a_read_out_that_no_forward_pass_used_does_not_say_how_many_layers_there_are() -> None:
    unused = STEADY["kind"] == "readout"
    frame = STEADY.assign(layer=STEADY["layer"].astype("Int64").mask(unused))
    assert diagnose(frame).first.num_layers == diagnose(STEADY).first.num_layers


@pytest.mark.parametrize(
    ("norms", "words"),
    [
        ([2.0, 1.0, 4.0], "grad_norm of layer 1 is 0.5 of layer 3's"),
        ([12.0, 1.0, 4.0], "grad_norm of layer 1 is 3 times layer 3's"),
        # It falls by more than the root of what dL/dz falls by.
        ([1e-3, 1.0, 4.0], None),
        ([0.0, 1.0, 4.0], None),
        ([math.nan, 1.0, 4.0], None),
    ],
)
def test_it_is_said_where_gradients_of_weights_hide_a_lost_signal(
    norms: list[float], words: str | None
) -> None:
    rows = layers_of([1e-5, 1e-3, 1.0]).assign(grad_norm=[*norms, 1.0])
    said = sentence(summary_of(rows, [2.3] * 30))
    assert ("hide it" in said) == (words is not None)
    assert words is None or words in said
    ratio = norms[0] / norms[-1]
    assert signal_of(rows).weight_gradient_ratio == pytest.approx(ratio, nan_ok=True)
    assert math.isnan(signal_of(rows[rows["layer"] != 1], 3).weight_gradient_ratio)
    steady = layers_of([0.5, 0.7, 1.0]).assign(grad_norm=[*norms, 1.0])
    assert "hide it" not in sentence(summary_of(steady, [2.3] * 30))


# ---------------------------------------------------------------- one composer


EVERYTHING: dict[str, Any] = {
    "gradient": {
        "signal": "vanishing",
        "attenuation": 1e-6,
        "backward_factor_per_layer": 0.5,
        "num_layers": 21,
    },
    "hidden_by_weights": {"weight_gradient_ratio": 1.0},
    "gradient_last": {
        "signal_last": "steady",
        "attenuation_last": 1.0,
        "backward_factor_per_layer_last": 1.0,
        "num_layers_last": 21,
    },
    "prediction": {"predicted_backward_factor_per_layer": 0.5},
    "predicted_parts": {
        "branch_factor": 0.25,
        "carried_factor": 0.0,
        "mean_slope": 0.25,
        "weight_gain": 1.0,
    },
    "predicted_depth": {"predicted_signal_depth": 9.0},
    "phase": {"chi": 0.5},
    "through_time": {"backward_factor_per_time_step": 0.9},
    "fitted_variances": {"fitted_variance_min": 0.9, "fitted_variance_max": 1.2},
    "jacobian": {"jacobian_bound_log10": 2.0},
    "paths": {"path_length": 4.25, "num_branches": 9.0},
    "shattering": {"gradient_correlation": 0.1, "gradient_correlation_deepest": 0.6},
    "loss": {
        "verdict": "stalled",
        "loss_first": 2.5,
        "loss_last_mean_20": 2.0,
        "loss_best_mean_20": 1.9,
        "constant_loss": 2.0,
    },
    "curvature": {"sharpness_last": 7.0},
    "underflow": {"underflow": 3, "dtype": "float32"},
    "unfinished": {"status": "interrupted"},
}
"""Rule -> the metrics that it needs beside those of the rules before it."""


def test_sentences_stand_in_the_order_of_the_rules() -> None:
    metrics = {name: value for part in EVERYTHING.values() for name, value in part.items()}
    evidence = Evidence(metrics, dtype="float32", last_step=20)
    findings = examine(evidence)
    assert [finding.id for finding in findings] == list(EVERYTHING)
    text = compose(findings)
    places = [text.index(finding.sentence) for finding in findings]
    assert places == sorted(places)


def test_a_remedy_follows_its_finding_and_a_scope_is_said_once() -> None:
    remedies = (Remedy("Do this.", "It helps."), Remedy("Or that.", "It helps too."))
    findings = [
        Finding("a", "One.", remedies=remedies),
        Finding("b", "Two.", scope="On the first seed:"),
        Finding("c", "Three.", scope="On the first seed:"),
        Finding("d", "Four."),
        Finding("e", "Five.", scope="On the first seed:"),
    ]
    assert compose(findings) == (
        "One. Do this. Or that. On the first seed: Two. Three. Four. On the first seed: Five."
    )
    assert compose([]) == ""


@pytest.mark.parametrize("run", RUNS)
def test_a_guest_is_told_of_a_recorded_table_what_the_run_was_told(run: str) -> None:
    done = vgexp.load(RECORDED / run)
    require_alike(done.layers, done.summary)


@pytest.mark.parametrize("name", FRAMES)
def test_a_guest_is_told_of_a_table_what_a_run_is_told(name: str) -> None:
    require_alike(FRAMES[name], summary_of(FRAMES[name], [2.3] * 30))


def require_alike(layers: pd.DataFrame, summary: dict[str, Any]) -> None:
    """Checks that whatever a guest's table tells is what a run with that table is told."""
    guest = diagnose(layers)
    of_run = {each.id: each for each in examine(evidence_of_run(summary, {"layers": layers}))}
    assert "gradient" in guest.checked
    described = [each for each in guest.findings if each.id in RULES]
    assert {name: of_run.get(name) for name in guest.checked if name in RULES} == {
        name: next((each for each in described if each.id == name), None)
        for name in guest.checked
        if name in RULES
    }
    for finding in described:
        assert finding.sentence in sentence(summary, {"layers": layers})


def test_a_guest_is_told_that_the_gradients_of_weights_hide_a_lost_signal() -> None:
    diagnosis = diagnose(VANISHING.assign(grad_norm=1.0))
    ids = [finding.id for finding in diagnosis.findings]
    assert ids == ["saturating_activation", "gradient", "hidden_by_weights"]
    words = "The weights' own gradients hide it: grad_norm of layer 1 is 1 of"
    assert words in diagnosis.sentence
    cause, *described = diagnosis.findings
    assert diagnosis.sentence == f"{cause.sentence} {compose(described)}"


def test_a_diagnosis_says_what_was_checked_and_what_was_not() -> None:
    diagnosis = diagnose(VANISHING.assign(grad_norm=1.0))
    described = (
        *("gradient", "hidden_by_weights", "gradient_last"),
        *("dying_units", "saturating_units", "no_gradient", "not_finite"),
    )
    assert tuple(name for name in diagnosis.checked if name in RULES) == described
    assert {*diagnosis.checked, *diagnosis.unchecked} == {*RULES, *CAUSE_RULES}
    assert diagnosis.unchecked["graph_cut"] == "needs wiring.csv"
    assert diagnosis.unchecked["underflow"] == "the dtype or the number of examples is not known"
    assert diagnosis.unchecked["curvature"] == "needs sharpness_last"
    assert diagnose(VANISHING).unchecked["hidden_by_weights"] == "needs weight_gradient_ratio"


def test_a_weight_beside_the_path_has_no_number() -> None:
    beside = VANISHING.iloc[[0]].assign(layer=pd.NA, name="beside", delta_rms=np.nan)
    frame = pd.concat([beside, VANISHING]).astype({"layer": "Int64"}).assign(update_ratio=2.0)
    summary = {**summary_of(VANISHING, [2.3] * 2), "verdict": "stalled"}
    found = conclude(evidence_of_run(summary, {"layers": frame}))
    assert "beside" not in found.depths
    assert found.layer == "beside"


def test_a_cause_is_not_described_once_more() -> None:
    frame = pd.concat([VANISHING, VANISHING.assign(step=1)]).assign(dead_fraction=0.0)
    frame.loc[(frame["step"] == 1) & (frame["layer"] == 1), "dead_fraction"] = 0.95
    found = {each.id for each in diagnose(frame).findings}
    assert "dying_units" in found
    evidence = evidence_of_run(
        {**summary_of(frame, [2.3] * 2), "verdict": "stalled"}, {"layers": frame}
    )
    found = {each.id for each in conclude(evidence).findings}
    assert "dead_units" in found
    assert "dying_units" not in found


def test_a_run_without_metrics_is_told_what_its_layers_and_its_ending_tell() -> None:
    ending = {"status": "failed", "reason": "no memory"}
    ended = "The run did not reach its end: failed: no memory."
    told = compose(each for each in diagnose(VANISHING).findings if each.kind == "note")
    assert partial_sentence(ending, VANISHING) == f"{told} {ended}"
    assert partial_sentence(ending, None) == ended
    assert partial_sentence(ending, VANISHING.assign(delta_rms=np.nan)) == ended
    assert partial_sentence({}, VANISHING) == told
    assert partial_sentence({}, None) == ""


def test_a_summary_without_metrics_has_no_sentence() -> None:
    with pytest.raises(QuestionError, match="the summary lacks signal, verdict\nallowed"):
        sentence({"status": "failed", "reason": "no memory"})


def test_a_summary_that_lacks_some_metrics_tells_the_rest() -> None:
    whole = summary_of(VANISHING, [2.3] * 30)
    without = {name: value for name, value in whole.items() if not name.startswith("loss")}
    assert sentence(without) == sentence(whole).split(" It did not learn")[0]


@pytest.mark.parametrize("name", [*summary_of(VANISHING.assign(grad_norm=1.0), [2.3] * 30)])
@pytest.mark.parametrize("value", [None, "absent"])
def test_any_metric_may_be_missing_from_a_summary(name: str, value: str | None) -> None:
    summary = summary_of(VANISHING.assign(grad_norm=1.0), [2.3] * 30)
    summary |= {"sharpness_last": 7.0, "underflow": 3, name: None}
    if value == "absent":
        del summary[name]
    if name in ("status", "signal", "verdict") and value == "absent":
        with pytest.raises(QuestionError, match=f"the summary lacks {name}"):
            sentence(summary)
    else:
        assert sentence(summary).endswith(".")


def test_a_trained_run_does_not_repeat_what_theory_said_of_its_start() -> None:
    summary = {**summary_of(STEADY, [2.3]), "predicted_backward_factor_per_time_step": 0.5}
    assert "Theory" not in sentence(summary)
    assert "Theory says 0.5 a step." in start_sentence(summary)
