"""Columns of the user's own, of gradients, weights, z and h.

Holds: probe/own_metrics.py
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from vgexp.errors import QuestionError
from vgexp.probe import Probe
from vgexp.quantities import LAYERS


def kurtosis(x: Tensor) -> Tensor:
    """Fourth moment over the second's square."""
    apart = x - x.mean()
    return apart.pow(4).mean() / apart.square().mean().square()


def _train(metrics: Any) -> tuple[Probe, list[dict[str, Any]]]:
    """Two updates; of each what the metrics should be given, in float64."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 2))
    model.double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    seen = []
    with Probe(model, optimizer, every=1, activations_every=1, metrics=metrics) as probe:
        for _ in range(2):
            optimizer.zero_grad()
            x = torch.randn(3, 4, dtype=torch.float64)
            model(x).square().mean().backward()
            kept: dict[str, Any] = {}
            kept["weight"] = [model[i].weight.detach().clone() for i in (0, 2, 4)]
            kept["gradient"] = [model[i].weight.grad.clone() for i in (0, 2, 4)]
            probe.before_clip()
            nn.utils.clip_grad_norm_(model.parameters(), 0.01)
            optimizer.step()
            seen.append(kept)
    return probe, seen


@pytest.mark.parametrize("of", ["gradient", "weight"])
def test_metrics_of_weights_and_of_gradients_before_clipping(of: str) -> None:
    probe, seen = _train({"kurtosis": (of, kurtosis), "rows": (of, lambda w: w.shape[0])})
    frame = probe.to_frame()
    assert [*frame.columns] == [
        *(column.name for column in LAYERS if not column.is_predicted),
        "kurtosis",
        "rows",
    ]
    wanted = [float(kurtosis(x)) for kept in seen for x in kept[of]]
    np.testing.assert_allclose(frame["kurtosis"], wanted, rtol=1e-12)
    assert frame["rows"].tolist() == [6, 6, 2] * 2


def test_a_function_alone_is_of_the_gradient() -> None:
    named, plain = _train({"k": ("gradient", kurtosis)})[0], _train({"k": kurtosis})[0]
    assert named.to_frame().equals(plain.to_frame())
    assert plain.to_frame()["k"].notna().all()


def test_metrics_of_z_and_h_are_means_over_micro_batches_by_their_entries() -> None:
    metrics = {"k_z": ("preact", kurtosis), "k_h": ("act", kurtosis)}
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2)).double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    updates = []
    with Probe(model, optimizer, every=1, activations_every=1, metrics=metrics) as probe:
        for _ in range(2):
            optimizer.zero_grad()
            batches = [torch.randn(size, 4, dtype=torch.float64) for size in (3, 5)]
            updates.append((batches, [p.detach().clone() for p in model.parameters()]))
            for x in batches:
                model(x).square().mean().backward()
            optimizer.step()
    frame = probe.to_frame()
    for step, (batches, (w1, b1, w2, b2)) in enumerate(updates):
        z1 = [functional.linear(x, w1, b1) for x in batches]
        h1 = [z.tanh() for z in z1]
        z2 = [functional.linear(h, w2, b2) for h in h1]
        rows = frame[frame["step"] == step].set_index("name")
        for (name, column), tensors in {
            ("0.weight", "k_z"): z1,
            ("0.weight", "k_h"): h1,
            ("2.weight", "k_z"): z2,
        }.items():
            total = sum(x.numel() for x in tensors)
            wanted = sum(kurtosis(x).item() * x.numel() for x in tensors) / total
            assert rows[column][name] == pytest.approx(wanted, rel=1e-12)
        assert np.isnan(rows["k_h"]["2.weight"])


def test_an_error_in_a_metric_is_noted_and_training_goes_on() -> None:
    def broken(_: Tensor) -> float:
        raise RuntimeError("no such luck")

    metrics = {"bad": broken, "shape": lambda g: g, "bad_z": ("preact", broken), "k": kurtosis}
    probe, seen = _train(metrics)
    frame = probe.to_frame()
    assert frame[["bad", "shape", "bad_z"]].isna().all(axis=None)
    assert frame["k"].notna().all()
    assert frame["grad_norm"].notna().all()
    assert sorted(line for line in probe.unseen if line.startswith("metrics")) == [
        "metrics['bad'], metrics['bad_z']: it raised RuntimeError: no such luck",
        "metrics['shape']: it raised ValueError: it returned a tensor of shape [6, 4]",
    ]
    assert len(seen) == 2


@pytest.mark.parametrize(
    ("metrics", "words"),
    [
        ([kurtosis], "metrics is of type list\nallowed: a dictionary of names"),
        ({"a b": kurtosis}, "metrics: 'a b' is no name of a column\nallowed: letters, digits"),
        ({"lambda": kurtosis}, "metrics: 'lambda' is no name of a column"),
        ({"grad_norm": kurtosis}, "table of layers has a column grad_norm already\nallowed: anoth"),
        ({"seed": kurtosis}, "table of layers has a column seed already"),
        ({"predicted_delta_rms": kurtosis}, "has a column predicted_delta_rms already"),
        ({"k": 3}, r"metrics\['k'\] is of type int\nallowed: a function of a weight's gradient"),
        ({"k": ("preakt", kurtosis)}, r"unknown what .*'preakt'\nallowed: .*\nnearest: preact"),
    ],
)
def test_what_cannot_be_a_metric_is_refused(metrics: Any, words: str) -> None:
    model = nn.Linear(2, 2)
    with pytest.raises(QuestionError, match=words):
        Probe(model, torch.optim.SGD(model.parameters(), lr=0.1), metrics=metrics)
