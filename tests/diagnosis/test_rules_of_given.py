"""Rules about what a loss is given, by autograd's graph and by its arguments.

Holds: diagnosis/rules/losses.py, diagnosis/rules/probabilities.py, diagnosis/rules/not_finite.py,
diagnosis/rules/depth.py, diagnosis/rules/dtypes.py, diagnosis/outcome.py
"""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest
from layer_tables import steps_of
from test_cause_rules import NAN, layers, loss, of, of_graph, said, wiring

from vgexp.diagnosis import CAUSE_RULES, Finding
from vgexp.diagnosis.evidence import Evidence
from vgexp.diagnosis.outcome import constant_loss


def found(cause: str, evidence: Evidence) -> Finding | None:
    return CAUSE_RULES[cause](evidence)


# ---------------------------------------------------------------- targets


@pytest.mark.parametrize(
    ("least", "most", "is_found"),
    [(-1, 1, True), (1, 2, True), (0, 1, False), (-0.2, 1.2, False), (NAN, NAN, False)],
)
def test_targets_of_a_binary_cross_entropy_are_shares(
    least: float, most: float, is_found: bool
) -> None:
    answer = found("output_range", of(loss=of_graph(share_min=least, share_max=most)))
    assert (answer is not None and answer.is_fact is True) == is_found


@pytest.mark.parametrize(("low", "most", "is_known"), [(-1, 1, False), (0, 1, True)])
def test_no_guess_is_the_best_of_targets_that_are_no_shares(
    low: float, most: float, is_known: bool
) -> None:
    table = loss("64", "64", "float32", "BCEWithLogitsLoss")
    table.loc[1, ["min", "max", "mean"]] = low, most, 0.2
    assert (constant_loss(of(loss=table)) is not None) == is_known


@pytest.mark.parametrize(
    ("output", "target", "both", "is_found"),
    [
        ("8x1x4x5", "8x4x5", "8x8x4x5", True),
        ("8x1x4x5", "8x1x4x5", "8x8x4x5", True),
        ("8x4x5", "8x1x4x5", "8x8x4x5", True),
        # A loss function makes an axis itself to compare all pairs.
        ("8x3", "8x3", "8x8x3", False),
        ("8x1x4", "5x4", "8x5x4", False),
    ],
)
def test_an_axis_of_1_that_takes_the_batch_is_no_choice(
    output: str, target: str, both: str, is_found: bool
) -> None:
    table = said("broadcast_to", both, output, target, "float32")
    assert (found("target_shape", of(loss=table)) is not None) == is_found


# ---------------------------------------------------------------- outputs


@pytest.mark.parametrize(
    ("reads", "is_found"),
    [("NllLossBackward0", True), ("NllLoss2DBackward0", True), ("LogSoftmaxBackward0", False)],
)
def test_what_weights_give_is_no_logarithm(reads: str, is_found: bool) -> None:
    assert (found("output_range", of(loss=of_graph(reads_scores=reads))) is not None) == is_found


@pytest.mark.parametrize(("reads", "is_found"), [(None, True), ("LogSoftmaxBackward0", False)])
def test_a_softmax_that_reads_what_weights_give_is_the_only_one(
    reads: str | None, is_found: bool
) -> None:
    calls = [loss("8x32x5", "32x10", name="mine", step=s, min=-1.8, max=-1.4) for s in (0, 20)]
    table = pd.concat(calls, ignore_index=True)
    table["reads_scores"] = pd.Series([None, None, reads] * 2, dtype="object")
    weak = layers(deltas=(0.01, 0.01, 0.01))
    weak.loc[weak["kind"] == "readout", "delta_rms"] = 0.05
    assert (found("double_softmax", of(loss=table, layers=weak)) is not None) == is_found


@pytest.mark.parametrize(
    ("made_by", "dead", "last", "is_found"),
    [
        ("ReluBackward0", 0.3, 2.0, True),
        # One that learned well has no need of the classes.
        ("ReluBackward0", 0.3, 0.1, False),
        ("ReluBackward0", 0.0, 2.0, False),
        ("AddmmBackward0", 0.3, 2.0, False),
    ],
)
def test_scores_of_classes_that_a_relu_keeps_at_0_get_nothing_back(
    made_by: str, dead: float, last: float, is_found: bool
) -> None:
    rows = layers()
    rows["dead_fraction"] = rows["kind"].eq("readout").map({True: dead, False: NAN})
    table = loss(min=0.0, made_by=made_by)
    steps = steps_of([2.3] * 40 + [last] * 80, grad_norm=1.0)
    answer = found("output_range", of(loss=table, layers=rows, steps=steps))
    assert (answer is not None) == is_found


@pytest.mark.parametrize(
    ("std", "first", "trained", "is_found"),
    [(21.0, 34.0, 1, True), (1.0, 2.8, 1, False), (21.0, 34.0, [0, 1, 1, 1], False)],
)
def test_first_outputs_may_be_too_large_where_the_signal_is_steady(
    std: float, first: float, trained: Any, is_found: bool
) -> None:
    table = loss(std=std).assign(mean=[0.0, 4.5, first])
    evidence = of(loss=table, layers=layers(), wiring=wiring(requires_grad=trained))
    answer = found("weights_large", evidence)
    assert (answer is not None) == is_found


# ---------------------------------------------------------------- losses that are not finite


def bad(functions: str | None, target: dict[str, Any], **output: Any) -> Evidence:
    """A loss that is not finite at step 3, with such functions in its graph."""
    table = loss(name="mine", step=3, **output)
    for column, value in target.items():
        table.loc[1, column] = value
    table["functions"] = pd.Series([None, None, functions], dtype="object")
    table["not_finite"] = [0.0, 0.0, 1.0]
    return of(loss=table, steps=steps_of([2.3] * 3 + [NAN], grad_norm=1.0))


IGNORED = {"min": -100.0, "max": -100.0}
NUMBERS = {"dtype": "float32", "shape": "64x10", "min": 0.0, "max": 1.0}


@pytest.mark.parametrize(
    ("evidence", "code"),
    [
        (bad("CtcLossBackward0 LogSoftmaxBackward0", {}), "zero_infinity=True"),
        (bad("NllLossBackward0 LogSoftmaxBackward0", IGNORED), "clamp_min(1)"),
        (bad(None, IGNORED), "clamp_min(1)"),
        # Of another ignore_index, PyTorch's own loss has to be known.
        (bad("NllLossBackward0", {"min": 0.0, "max": 0.0}), "clamp_min(1)"),
        (bad(None, {"min": 0.0, "max": 0.0}), "torch.log(p.clamp_min"),
        (bad("MseLossBackward0", NUMBERS, max=1e20), "y_train.std()"),
        (bad("MseLossBackward0", NUMBERS, max=1e10), "torch.log(p.clamp_min"),
        (bad("MseLossBackward0", NUMBERS, max=300.0, dtype="float16"), "y_train.std()"),
        (bad("LogBackward0", {}), "torch.log(p.clamp_min"),
    ],
)
def test_the_remedy_of_a_loss_that_is_not_finite_is_that_of_its_kind(
    evidence: Evidence, code: str
) -> None:
    answer = found("nan_from_loss", evidence)
    assert answer is not None
    assert code in str(answer.remedies[0].code)
