"""What Jacobians, paths and shattering say of a start: figures of the summary, and words.

Holds: diagnosis/start_tables.py, diagnosis/at_start.py
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from small_runs import CONFIG
from trainers import changed

from vgexp import runs
from vgexp.assembly import assemble
from vgexp.config import SignalConfig
from vgexp.diagnosis import Evidence, examine, start_sentence
from vgexp.diagnosis.start_tables import start_table_metrics
from vgexp.quantities import JACOBIAN, PATHS, SHATTERING


def sentences(summary: dict[str, Any]) -> list[str]:
    return [finding.sentence for finding in examine(Evidence(summary))]


def empty(columns: Any) -> pd.DataFrame:
    return pd.DataFrame(columns=[column.name for column in columns])


def test_figures_of_a_linear_residual_net_are_those_of_its_matrices(tmp_path: Path) -> None:
    config = changed(
        CONFIG,
        model={"depth": 3, "width": 6, "skip": "residual", "activation": "linear"},
        dtype="float64",
        signal=SignalConfig(seeds=2, jacobian=True, paths=True, shattering=True),
    )
    done = runs.signal(config, tmp_path / "run")
    model = assemble(config).state.model
    first, *rest = [p.detach() for n, p in model.named_parameters() if n.endswith("linear.weight")]
    whole, bound = first, torch.linalg.matrix_norm(first, 2)
    for weight in rest:
        whole = whole + weight @ whole
        bound = bound * torch.linalg.matrix_norm(weight + torch.eye(6, dtype=weight.dtype), 2)
    values = torch.linalg.svdvals(whole)
    assert done.summary["jacobian_largest_log10"] == pytest.approx(math.log10(values[0]))
    assert done.summary["jacobian_smallest_log10"] == pytest.approx(math.log10(values[-1]))
    assert done.summary["jacobian_bound_log10"] == pytest.approx(math.log10(bound))
    assert done.summary["lyapunov_largest"] == pytest.approx(math.log(values[0]) / 3)
    weights = values**2 / (values**2).sum()
    entropy = float(-(weights * weights.log()).sum())
    assert done.summary["jacobian_effective_rank"] == pytest.approx(math.exp(entropy))
    shares = done.table("paths")["share"]
    assert done.summary["num_branches"] == 2
    assert done.summary["path_length"] == pytest.approx(shares[1] + 2 * shares[2])
    # The gradient of a linear net is the same everywhere.
    assert done.summary["gradient_correlation"] == pytest.approx(1)
    assert done.summary["gradient_correlation_deepest"] == pytest.approx(1)


def test_only_tables_that_are_there_have_figures_and_one_without_rows_has_none_that_are_known() -> (
    None
):
    assert start_table_metrics({}) == {}
    tables = {
        "jacobian": empty(JACOBIAN), "paths": empty(PATHS), "shattering": empty(SHATTERING),
    }  # fmt: skip
    figures = start_table_metrics(tables, 4)
    assert len(figures) == 9
    assert all(math.isnan(value) for value in figures.values())
    assert sentences(dict.fromkeys(figures)) == []
    assert sentences({}) == []


def test_behind_the_last_slope_a_cosine_of_1_tells_nothing() -> None:
    rows = [(layer, "data", 1.0, cosine) for layer, cosine in enumerate((0.2, 0.7, 1.0, 1.0))]
    table = pd.DataFrame(rows, columns=["layer", "inputs", "distance", "correlation"])
    found = start_table_metrics({"shattering": table})
    assert found == {"gradient_correlation": 0.2, "gradient_correlation_deepest": 0.7}
    same = start_table_metrics({"shattering": table.assign(correlation=1.0)})
    assert same == {"gradient_correlation": 1.0, "gradient_correlation_deepest": 1.0}


def test_the_read_out_is_left_out_of_the_product() -> None:
    names = [column.name for column in JACOBIAN]
    table = pd.DataFrame([[0, n, "w", *[float(n)] * (len(names) - 3)] for n in (1, 2, 3)])
    table.columns = pd.Index(names)
    assert start_table_metrics({"jacobian": table}, 2)["lyapunov_largest"] == 2
    assert start_table_metrics({"jacobian": table})["lyapunov_largest"] == 3


def test_words_hold_numbers_that_no_float_holds() -> None:
    summary: dict[str, Any] = {
        "num_layers": 400,
        "jacobian_largest_log10": -341.5,
        "jacobian_bound_log10": 2.0,
        "jacobian_smallest_log10": None,
        "jacobian_effective_rank": 1.0,
        "path_length": 4.25,
        "num_branches": 9.0,
        "gradient_correlation": 0.1,
        "gradient_correlation_deepest": 0.6,
    }
    assert sentences(summary) == [
        "From the first layer's input to layer 400 the Jacobian's largest singular value is"
        " 3.2e-342 (the product of the layers' own: 1e+02), its smallest 0; its effective rank is"
        " 1.",
        "The gradient of the first layer comes through 4.2 of 9 branches on average; a path taken"
        " at random passes 4.5.",
        "The gradients of the outputs at two examples have a cosine of 0.1 with respect to the"
        " input of the first layer and of 0.6 with respect to the output of the deepest.",
    ]
    bound = {"jacobian_largest_log10": None, "jacobian_bound_log10": 2.5}
    assert sentences(bound) == ["The product of the layers' largest singular values is 3.2e+02."]
    (alone,) = sentences({**bound, "jacobian_largest_log10": 1.0, "num_layers": 3})
    assert alone.endswith("value is 10 (the product of the layers' own: 3.2e+02).")
    start = {"signal": "steady", "attenuation": 1.0, "backward_factor_per_layer": 1.0}
    words = start_sentence({**start, "num_layers": 2, "layers_left_out": 0, **summary})
    assert words.endswith(" ".join(sentences(summary)))
