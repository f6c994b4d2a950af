"""Gradients by length of path, against every path alone and closed forms; gradients at nearby
inputs, against autograd, counted rectifiers and linear nets.

Axes: B examples, K lengths, P points.

Holds: spectra/paths.py, spectra/frozen.py, spectra/shattering.py, spectra/tables.py
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from reference import vectors
from reference_images import images
from torch import Tensor, nn

from vgexp.config import (
    MlpConfig,
    ModelConfig,
    ResnetConfig,
    SignalConfig,
    TransformerConfig,
    VitConfig,
)
from vgexp.losses import build as build_loss
from vgexp.models import Mlp, Network, build
from vgexp.quantities import PATHS, SHATTERING
from vgexp.records import Rows
from vgexp.spectra import shattering
from vgexp.spectra.frozen import freeze, run_stages
from vgexp.spectra.paths import binomial_weight, gradients_by_length, path_rows
from vgexp.spectra.shattering import cosines, line, shattering_rows
from vgexp.spectra.tables import rows_of
from vgexp.tasks import Task

INPUTS, OUTPUTS, WIDTH, BATCH = 7, 3, 6, 5
VECTORS = vectors(INPUTS, OUTPUTS)
IMAGES = images(2, 5, 4, OUTPUTS)
STEPS = Task("sequence", (4, 5), OUTPUTS)


def drawn(config: ModelConfig, task: Task = VECTORS) -> tuple[Network, Tensor]:
    """A small network in float64 with every parameter off its start, frozen, and a batch."""
    model = build(config, task, torch.float64)
    assert isinstance(model, Network)
    generator = torch.Generator().manual_seed(11)
    for parameter in model.parameters():
        nn.init.normal_(parameter, 0.2, 0.5, generator=generator)
    x = torch.randn(BATCH, *task.shape, dtype=torch.float64, generator=generator)
    return freeze(model, x), x


def perceptron(**values: Any) -> tuple[Mlp, Tensor]:
    given = {"depth": 5, "width": WIDTH, "activation": "tanh", "skip": "residual", **values}
    model, x = drawn(MlpConfig(**given))
    assert isinstance(model, Mlp)
    return model, x


def cross_entropy(out: Tensor) -> Tensor:
    return -torch.log_softmax(out, 1)[:, 1].sum()


def column(rows: Rows, name: str) -> NDArray[np.float64]:
    return np.array([math.nan if cell is None else cell for cell in rows.columns[name]])


# ---------------------------------------------------------------- paths

ADDING: list[tuple[ModelConfig, Task]] = [
    *[
        (MlpConfig(depth=4, width=6, activation="tanh", skip=skip, norm=norm, norm_position=p), v)
        for skip, norm, p, v in itertools.product(
            ("residual", "scaled_residual", "rezero"),
            ("none", "batch", "layer"),
            ("pre", "post"),
            (VECTORS,),
        )
    ],
    *[
        (ResnetConfig(depth=8, width=4, preactivation=pre, norm=norm, shortcut=cut), IMAGES)
        for pre, norm, cut in (
            (True, "none", "pad"),
            (False, "batch", "projection"),
            (False, "none", "pad"),
        )
    ],
    (TransformerConfig(depth=2, width=8, heads=2), STEPS),
    (TransformerConfig(depth=2, width=8, heads=2, norm_position="post"), STEPS),
    (VitConfig(depth=2, width=8, heads=2, patch=2), images(2, 4, 6, OUTPUTS)),
]


@pytest.mark.parametrize(("config", "task"), ADDING)
def test_the_sum_over_lengths_is_the_whole_gradient(config: ModelConfig, task: Task) -> None:
    model, x = drawn(config, task)
    first, *rest = model.stages()
    start = run_stages([first], x)[1].requires_grad_()
    by_length = gradients_by_length(rest, start.detach(), cross_entropy)
    out = start
    for stage in rest:
        out = stage.run(out)
    (whole,) = torch.autograd.grad(cross_entropy(out), start)
    torch.testing.assert_close(by_length.sum(0), whole, rtol=1e-9, atol=1e-12)
    assert len(by_length) == 1 + sum(len(stage.forks) for stage in rest) >= 4
    share = column(path_rows(model.stages(), x, "input", cross_entropy), "share")
    assert share.sum() == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("skip", ["residual", "scaled_residual"])
def test_each_coefficient_is_the_sum_over_its_paths_one_by_one(skip: str) -> None:
    model, x = perceptron(depth=4, skip=skip, norm="layer")
    stages = model.stages()
    zs = run_stages(stages, x)
    out = zs[-1].clone().requires_grad_()
    (top,) = torch.autograd.grad(cross_entropy(out), out)

    def back(run: Any, z: Tensor, g: Tensor) -> Tensor:
        z = z.clone().requires_grad_()
        return torch.autograd.grad(run(z), z, g)[0]

    def branch(stage: Any, z: Tensor) -> Tensor:
        return stage.run(z) - z

    below_readout = back(stages[-1].run, zs[-2], top)
    expected = torch.zeros(4, BATCH, WIDTH, dtype=torch.float64)
    for passes in itertools.product((False, True), repeat=3):
        g = below_readout
        for through, stage, z in reversed(list(zip(passes, stages[1:-1], zs[1:-2], strict=True))):
            g = back(lambda v, stage=stage: branch(stage, v), z, g) if through else g
        expected[sum(passes)] += g
    found = gradients_by_length(stages[1:], zs[1], cross_entropy)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
    rows = path_rows(stages, x, "input", cross_entropy)
    rms = expected.square().mean((1, 2)).sqrt()
    np.testing.assert_allclose(column(rows, "delta_rms"), rms.numpy(), rtol=1e-9)
    whole = expected.sum(0)
    share = (expected * whole).sum((1, 2)) / whole.square().sum()
    np.testing.assert_allclose(column(rows, "share"), share.numpy(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("scale", [1.0, 0.25, -0.5])
@pytest.mark.parametrize("loss_scale", [1.0, 1e-200, 1e200])
def test_branches_that_scale_their_input_carry_binomial_shares(
    scale: float, loss_scale: float
) -> None:
    model, x = perceptron(depth=9, activation="linear", bias=False)
    with torch.no_grad():
        for layer in list(model.layers)[1:]:
            layer.linear.weight.copy_(scale * torch.eye(WIDTH))
    rows = path_rows(model.stages(), x, "input", lambda out: loss_scale * cross_entropy(out))
    expected = [math.comb(8, k) * scale**k / (1 + scale) ** 8 for k in range(9)]
    np.testing.assert_allclose(column(rows, "share"), expected, rtol=1e-10)
    binomial = column(rows, "binomial")
    if scale == 1:
        np.testing.assert_allclose(column(rows, "share"), binomial, rtol=1e-10)
    assert binomial.tolist() == [math.comb(8, k) / 256 for k in range(9)]
    assert rows.columns["length"] == list(range(9))
    assert set(rows.columns["name"]) == {"layers.0.linear.weight"}
    assert set(rows.columns) == {declared.name for declared in PATHS}


def test_rezero_begins_with_the_path_through_no_branch_alone() -> None:
    model, x = perceptron(skip="rezero")
    with torch.no_grad():
        for layer in list(model.layers)[1:]:
            layer.skip.alpha.zero_()
    share = column(path_rows(model.stages(), x, "input", cross_entropy), "share")
    assert share.tolist() == [1, 0, 0, 0, 0]


def test_the_mean_square_of_random_branches_is_binomial_with_chi() -> None:
    # He weights double the mean square that rectifiers halve: chi is 1, and the lengths' mean
    # squares are to each other as their numbers of paths. Of 8 forks at width 400; a share
    # fluctuates by about sqrt(8 / 400).
    model, x = perceptron(depth=9, width=400, activation="relu", bias=False)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for layer in model.layers:
            nn.init.normal_(layer.linear.weight, 0, math.sqrt(2 / 400), generator=generator)
        nn.init.normal_(model.readout.weight, 0, 0.05, generator=generator)
    rows = path_rows(model.stages(), x, "input", lambda out: out.sum())
    square = column(rows, "delta_rms") ** 2
    binomial = column(rows, "binomial")
    weighted = (square / square.sum())[1:8] / binomial[1:8]
    np.testing.assert_allclose(weighted, 1, atol=0.35)
    mean_length = (square / square.sum()) @ np.arange(9)
    assert mean_length == pytest.approx(4, abs=0.35)


def test_a_gradient_of_zero_has_no_shares() -> None:
    model, x = perceptron()
    rows = path_rows(model.stages(), x, "input", lambda out: (out * 0).sum())
    assert list(rows.columns["share"]) == [None] * 5
    assert list(rows.columns["delta_rms"]) == [0] * 5


def test_the_number_of_paths_of_a_thousand_branches_is_told() -> None:
    weights = [binomial_weight(1000, k) for k in range(1001)]
    assert sum(weights) == pytest.approx(1)
    assert weights[500] == pytest.approx(1 / math.sqrt(500 * math.pi), rel=1e-3)
    assert weights[0] == 2.0**-1000


# ---------------------------------------------------------------- shattering


def test_cosines_are_those_of_the_outputs_jacobians() -> None:
    model, x = perceptron(depth=3, norm="batch")
    stages = model.stages()
    found = cosines(stages, x)
    zs = run_stages(stages, x)[:-1]
    for layer, z in enumerate(zs):

        def rest(v: Tensor, layer: int = layer) -> Tensor:
            for stage in stages[layer:]:
                v = stage.run(v)
            return v

        flat = [
            torch.as_tensor(torch.autograd.functional.jacobian(rest, z[e : e + 1])).flatten()
            for e in range(BATCH)
        ]
        unit = torch.stack([j / j.norm() for j in flat])
        torch.testing.assert_close(found[layer], unit @ unit.T, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("skip", ["none", "residual", "dense"])
@pytest.mark.parametrize("scale", [1.0, 1e-45, 1e45])
def test_gradients_of_a_linear_net_are_the_same_everywhere(skip: str, scale: float) -> None:
    model, x = perceptron(activation="linear", skip=skip)
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(scale)
    rows = shattering_rows(model.stages(), x)
    np.testing.assert_allclose(column(rows, "correlation"), 1, rtol=1e-9)


def test_behind_one_layer_of_rectifiers_the_cosine_counts_those_active_at_both() -> None:
    model, x = perceptron(depth=1, width=40, activation="relu", skip="none")
    with torch.no_grad():
        model.readout.weight.copy_(torch.ones(OUTPUTS, 40))
    z = run_stages(model.stages(), x)[1]
    active = (z > 0).double()
    both = active @ active.T
    count = active.sum(1)
    expected = both / (count[:, None] * count[None, :]).sqrt()
    torch.testing.assert_close(cosines(model.stages(), x)[1], expected, rtol=1e-12, atol=1e-12)
    assert both.min() < both.max()


def test_the_line_has_the_distances_that_it_says_and_misses_the_origin() -> None:
    _, x = perceptron()
    points = line(x)
    assert points is not None
    apart = (points[1:] - points[:-1]).square().mean(1).sqrt()
    np.testing.assert_allclose(apart.numpy(), shattering.SPACING, rtol=1e-9)
    middle = points[shattering.POINTS // 2]
    torch.testing.assert_close(middle, x[0])
    torch.testing.assert_close((points - middle) @ middle, torch.zeros(len(points)).double())
    assert (points[-1] - points[0]).square().mean().sqrt() == pytest.approx(255 / 64)


def test_of_one_feature_the_line_is_its_axis() -> None:
    points_PD = line(torch.tensor([[0.25], [3.0]], dtype=torch.float64))
    assert points_PD is not None
    assert points_PD.shape[1] == 1
    assert float(points_PD.mean()) == pytest.approx(0.25, abs=shattering.SPACING)
    steps = points_PD.diff(dim=0)
    torch.testing.assert_close(steps, torch.full_like(steps, shattering.SPACING))


def test_rows_are_means_over_pairs_at_their_distance() -> None:
    model, x = perceptron(depth=2)
    rows = shattering_rows(model.stages(), x)
    points = line(x)
    assert points is not None
    along, among = cosines(model.stages(), points), cosines(model.stages(), x)
    correlation = column(rows, "correlation").reshape(-1, 3)
    distance = column(rows, "distance").reshape(-1, 3)
    for index, lag in enumerate(shattering.LAGS):
        mean = torch.stack([along[:, i, i + lag] for i in range(len(points) - lag)]).mean(0)
        np.testing.assert_allclose(correlation[index], mean.numpy(), rtol=1e-12)
        assert set(distance[index]) == {lag / 64}
    pairs = list(itertools.combinations(range(BATCH), 2))
    mean = torch.stack([among[:, i, j] for i, j in pairs]).mean(0)
    np.testing.assert_allclose(correlation[-1], mean.numpy(), rtol=1e-12)
    apart = np.mean([float((x[i] - x[j]).square().mean().sqrt()) for i, j in pairs])
    np.testing.assert_allclose(distance[-1], apart)
    assert rows.columns["inputs"] == ["line"] * 24 + ["data"] * 3
    assert rows.columns["layer"] == [0, 1, 2] * 9
    names = ["input", "layers.0.linear.weight", "layers.1.linear.weight"]
    assert rows.columns["name"] == names * 9
    assert set(rows.columns) == {declared.name for declared in SHATTERING}


def expected_of_wide_rectifiers(x: Tensor, depth: int, *, residual: bool) -> NDArray[np.float64]:
    """Cosines of d output / d z_1 of He nets of infinite width: each rectifier keeps the share
    1 - angle / pi of a product of gradients, and turns a cosine c of signals into the arc-cosine
    kernel of order 1 (Cho & Saul 2009); a residual layer is half itself, half the identity."""
    unit = (x / x.norm(dim=1, keepdim=True)).numpy()
    c = np.clip(unit @ unit.T, -1, 1)
    gradient = np.ones_like(c)
    for layer in range(depth):
        kept = 1 - np.arccos(c) / math.pi
        kernel = np.clip((np.sqrt(1 - c**2) + math.pi * kept * c) / math.pi, -1, 1)
        adds = residual and layer < depth - 1
        gradient *= (1 + kept) / 2 if adds else kept
        c = (c + kernel) / 2 if adds else kernel
    return gradient


@pytest.mark.parametrize("skip", ["none", "residual"])
def test_gradients_of_rectifiers_shatter_with_depth_as_at_infinite_width(skip: str) -> None:
    # A cosine of 3 x 400 numbers fluctuates by some hundredths; one by the 7 inputs far more.
    near = {}
    for depth in (2, 12):
        model, x = perceptron(depth=depth, width=400, activation="relu", skip=skip, bias=False)
        generator = torch.Generator().manual_seed(2)
        with torch.no_grad():
            for weight in model.parameters():
                nn.init.normal_(weight, 0, math.sqrt(2 / weight.shape[1]), generator=generator)
        points = line(x)
        assert points is not None
        expected = expected_of_wide_rectifiers(points, depth, residual=skip == "residual")
        found = cosines(model.stages(), points)[1].numpy()
        for lag in (8, 32, 128):
            near[depth, lag] = np.diagonal(found, lag).mean()
            wanted = np.diagonal(expected, lag).mean()
            assert near[depth, lag] == pytest.approx(wanted, abs=0.06)
    for lag in (8, 32, 128):
        assert near[12, lag] < near[2, lag] - 0.02


def test_where_a_gradient_is_zero_there_is_no_correlation() -> None:
    model, x = perceptron(depth=2, activation="relu", skip="none")
    with torch.no_grad():
        model.layers[1].linear.bias.fill_(-1e6)
    rows = shattering_rows(model.stages(), x)
    cells = np.array(list(rows.columns["correlation"]), dtype=object).reshape(-1, 3)
    assert set(cells.ravel()) == {None}


@pytest.mark.parametrize(("num_examples", "num_rows"), [(1, 0), (2, 27)])
def test_few_examples_give_what_they_can(num_examples: int, num_rows: int) -> None:
    model, x = perceptron(depth=2)
    assert len(shattering_rows(model.stages(), x[:num_examples])) == num_rows
    same = x[:1].repeat(4, 1)
    assert line(same) is None


def test_every_loss_of_ours_is_differentiated_as_the_sum_over_examples() -> None:
    model, x = perceptron()
    y = torch.tensor([0, 2, 1, 1, 0])
    loss = build_loss("cross_entropy", 0.0, has_classes=True)
    (rows,) = rows_of(SignalConfig(paths=True), model, loss, (x, y))
    picked = path_rows(
        model.stages(), x, "input", lambda out: -torch.log_softmax(out, 1)[range(5), y].sum()
    )
    np.testing.assert_allclose(column(rows, "delta_rms"), column(picked, "delta_rms"))
