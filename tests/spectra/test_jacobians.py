"""Singular values of layers and of their product: against autograd through the equations and numpy,
and where a product of floats has lost them, against factors whose product is known.

Axes: B examples, M outputs, N inputs.

Holds: spectra/jacobians.py, models/attention/blocks.py, models/conv_net.py, models/densenet.py,
models/mlp.py, models/stages.py, spectra/lanczos.py, spectra/products.py, spectra/tables.py
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from reference import Equations, snapshot, vectors
from reference_images import images
from torch import Tensor, nn

from vgexp import runs
from vgexp.config import (
    CnnConfig,
    Config,
    DensenetConfig,
    GruConfig,
    MlpConfig,
    ModelConfig,
    ResnetConfig,
    SignalConfig,
    TransformerConfig,
    VitConfig,
)
from vgexp.errors import QuestionError
from vgexp.models import Network, build
from vgexp.models.stages import Stage
from vgexp.norms import NORMS
from vgexp.quantities import JACOBIAN
from vgexp.records import Rows
from vgexp.skips import SKIPS
from vgexp.spectra import jacobians, require
from vgexp.spectra.frozen import freeze, run_stages
from vgexp.spectra.jacobians import jacobian, jacobian_rows
from vgexp.spectra.lanczos import log_largest_singular_value
from vgexp.spectra.products import Product, effective_rank, log_singular_values
from vgexp.tasks import Task

INPUTS, OUTPUTS, WIDTH, BATCH = 7, 3, 6, 5
VECTORS = vectors(INPUTS, OUTPUTS)
IMAGES = images(2, 5, 4, OUTPUTS)
EXAMPLE_NORMS = [name for name in NORMS if name not in ("instance", "batch")]


def randn(*shape: int, seed: int = 5) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


def drawn(config: ModelConfig, task: Task = VECTORS) -> tuple[Network, Tensor]:
    """A small network in float64 with every parameter off its start, and a batch."""
    model = build(config, task, torch.float64)
    assert isinstance(model, Network)
    generator = torch.Generator().manual_seed(11)
    for parameter in model.parameters():
        nn.init.normal_(parameter, 0.2, 0.5, generator=generator)
    if task.kind == "tokens":
        return model, torch.randint(task.num_tokens, (BATCH, *task.shape), generator=generator)
    return model, randn(BATCH, *task.shape)


def mlp(**values: Any) -> MlpConfig:
    return MlpConfig(
        **{"depth": 4, "width": WIDTH, "norm_groups": 2, "activation": "tanh", **values}
    )


def orthogonal(size: int, seed: int) -> Tensor:
    return torch.linalg.qr(randn(size, size, seed=seed)).Q


def product_of(factors: Sequence[Tensor]) -> Product:
    product = Product.of(factors[0])
    for factor in factors[1:]:
        product = product.then(factor)
    return product


def column(rows: Rows, name: str) -> NDArray[np.float64]:
    return np.array([math.nan if cell is None else cell for cell in rows.columns[name]])


# ---------------------------------------------------------------- products


def telescoping(values_LK: NDArray[np.float64], sizes: Sequence[int]) -> list[Tensor]:
    """Factors U_l diag(s_l) U_{l-1}^T, whose product has the singular values prod_l s_l."""
    frames = [orthogonal(size, seed) for seed, size in enumerate(sizes)]
    factors = []
    for values_K, before, after in zip(values_LK, frames[:-1], frames[1:], strict=True):
        k = len(values_K)
        middle = torch.from_numpy(values_K)
        factors.append(after[:, :k] @ torch.diag(middle) @ before[:, :k].T)
    return factors


@pytest.mark.parametrize("scale", [1.0, 1e-250, 1e250])
def test_the_tail_of_a_product_is_kept_where_a_product_of_floats_has_lost_it(scale: float) -> None:
    values_K = np.array([1.0, 0.9, 0.5, 1e-3, 1e-10])
    factors = telescoping(scale * np.tile(values_K, (20, 1)), [9, *[6, 8] * 10])
    logs = product_of(factors).log_singular_values()
    expected = 20 * (np.log(values_K) + math.log(scale))
    np.testing.assert_allclose(logs[:5].numpy(), expected, rtol=0, atol=1e-4)
    assert expected[4] - expected[0] < -200 * math.log(10) + 1e-6
    if scale == 1.0:
        explicit = torch.linalg.multi_dot(factors[::-1])
        assert torch.linalg.svdvals(explicit)[4] > 1e-100


@pytest.mark.parametrize("sizes", [[9, 7], [4, 6, 5], [7, 4, 9], [5, 5, 5, 5], [3, 8, 8, 6]])
def test_values_of_short_products_are_those_of_numpy(sizes: list[int]) -> None:
    pairs = itertools.pairwise(sizes)
    factors = [randn(after, before, seed=i) for i, (before, after) in enumerate(pairs)]
    explicit = np.eye(sizes[0])
    for factor in factors:
        explicit = factor.numpy() @ explicit
    expected = np.log(np.linalg.svd(explicit, compute_uv=False))
    inner = min(sizes)
    logs = product_of(factors).log_singular_values()
    assert len(logs) == len(expected)
    np.testing.assert_allclose(logs[:inner].numpy(), expected[:inner], rtol=0, atol=1e-11)
    assert (logs[inner:] == -math.inf).all()


@pytest.mark.parametrize("num_factors", [2, 10, 80])
def test_a_long_product_has_the_values_of_its_inverse_and_the_volume_of_its_factors(
    num_factors: int,
) -> None:
    factors = [randn(24, 24, seed=seed) for seed in range(num_factors)]
    logs = product_of(factors).log_singular_values()
    inverse = [torch.linalg.inv(factor) for factor in reversed(factors)]
    np.testing.assert_allclose(
        logs.numpy(), -product_of(inverse).log_singular_values().flip(0).numpy(), atol=1e-8
    )
    volume = sum(float(torch.linalg.slogdet(factor).logabsdet) for factor in factors)
    assert float(logs.sum()) == pytest.approx(volume, abs=1e-8)
    assert (logs.diff() <= 0).all()


def test_rank_that_a_factor_has_lost_is_not_made_up_by_rounding() -> None:
    factors = [randn(8, 8, seed=seed) for seed in range(30)]
    factors[3][:, :2] = 0
    factors[20][:, 2:4] = 0
    factors[21] = factors[21] @ torch.ones(8, 8, dtype=torch.float64)
    counts = [
        int((product_of(factors[: n + 1]).log_singular_values() > -math.inf).sum())
        for n in range(30)
    ]
    assert counts == [8] * 3 + [6] * 18 + [1] * 9


def test_columns_of_very_different_lengths_keep_their_small_values() -> None:
    lengths = torch.logspace(0, -240, 7, dtype=torch.float64)
    j = orthogonal(9, 3)[:, :7] * lengths[torch.randperm(7)]
    logs = log_singular_values(j)
    np.testing.assert_allclose(logs.numpy(), lengths.log().numpy(), rtol=1e-12, atol=1e-12)


def test_a_matrix_of_zeros_has_values_0() -> None:
    assert log_singular_values(torch.zeros(3, 5, dtype=torch.float64)).tolist() == [-math.inf] * 3
    product = Product.of(randn(4, 5)).then(torch.zeros(3, 4, dtype=torch.float64))
    product = product.then(randn(6, 3))
    assert product.log_singular_values().tolist() == [-math.inf] * 5


def test_effective_rank_is_the_entropy_of_squares() -> None:
    assert effective_rank(torch.full((6,), -700.0).double()) == pytest.approx(6)
    assert effective_rank(torch.tensor([0.0, -math.inf, -math.inf]).double()) == 1
    assert effective_rank(torch.tensor([-math.inf, -math.inf]).double()) == 0
    p = 0.8  # sigma = 2 and 1: squares 4 : 1
    expected = math.exp(-p * math.log(p) - (1 - p) * math.log(1 - p))
    assert effective_rank(torch.tensor([math.log(2), 0.0]).double()) == pytest.approx(expected)


# ---------------------------------------------------------------- stages

TOKENS = Task("tokens", (4,), OUTPUTS, 7, per_position=True)
SMALL: dict[str, Any] = {"depth": 2, "width": 8, "heads": 2, "mlp_ratio": 2}
MODELS: list[tuple[ModelConfig, Task]] = [
    *[
        (mlp(skip=skip, norm=norm, norm_position=position), VECTORS)
        for skip, norm, position in itertools.product(
            SKIPS, [*EXAMPLE_NORMS, "batch"], ("pre", "post")
        )
    ],
    (mlp(depth=1), VECTORS),
    *[
        (CnnConfig(depth=3, width=4, skip=skip, norm=norm), IMAGES)
        for skip, norm in (("none", "batch"), ("residual", "layer"), ("highway", "none"))
    ],
    *[
        (ResnetConfig(depth=8, width=4, skip=skip, preactivation=pre, norm=norm), IMAGES)
        for skip, pre, norm in itertools.product(
            ("residual", "none", "rezero"), (True, False), ("batch", "none")
        )
    ],
    (ResnetConfig(depth=11, width=4, bottleneck=True, shortcut="projection"), IMAGES),
    (ResnetConfig(depth=8, width=4, norm="none", init="fixup"), IMAGES),
    *[
        (DensenetConfig(depth=10, width=4, growth_rate=3, norm=norm, bottleneck=bottleneck), IMAGES)
        for norm, bottleneck in (("batch", True), ("none", True))
    ],
    (DensenetConfig(depth=7, width=4, growth_rate=3, norm="layer", compression=0.5), IMAGES),
    *[
        (TransformerConfig(**SMALL, norm_position=position, skip=skip), TOKENS)
        for position, skip in itertools.product(("pre", "post"), ("residual", "none"))
    ],
    (VitConfig(**SMALL, patch=2, dropout=0.3), images(1, 4, 6, OUTPUTS)),
]


@pytest.mark.parametrize(("config", "task"), MODELS)
def test_stages_make_the_outputs_and_forks_are_the_same_maps(
    config: ModelConfig, task: Task
) -> None:
    model, x = drawn(config, task)
    made = freeze(model, x)
    stages = made.stages()
    handed_on = run_stages(stages, x)
    torch.testing.assert_close(handed_on[-1], made(x), rtol=1e-12, atol=1e-12)
    for stage, before, after in zip(stages, handed_on[:-1], handed_on[1:], strict=True):
        through = before
        for fork in stage.forks:
            through = fork(through)
        if stage.forks:
            torch.testing.assert_close(through, after, rtol=1e-12, atol=1e-12)
    watched = {(watch.name, watch.layer) for watch in model.watches()}
    assert {(stage.name, stage.layer) for stage in stages} <= watched
    assert len(set(stages)) == len(stages) > 1


def test_a_frozen_model_is_the_model_on_its_batch_and_leaves_it_alone() -> None:
    model, x = drawn(mlp(norm="batch", dropout=0.0))
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    made = freeze(model, x)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
    torch.testing.assert_close(made(x), model(x))
    torch.testing.assert_close(made(x[:1]), made(x)[:1], rtol=1e-12, atol=1e-12)


# ---------------------------------------------------------------- Jacobians


def dense(output: Tensor, by: Tensor, example: int) -> NDArray[np.float64]:
    """d output / d by of one example, a row at a time."""
    rows = [
        torch.autograd.grad(unit, by, retain_graph=True)[0][example] for unit in output[example]
    ]
    return torch.stack(rows).numpy()


def log_values(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.log(np.linalg.svd(matrix, compute_uv=False))


def expected_columns(layers: list[Any], products: list[Any]) -> dict[str, NDArray[np.float64]]:
    """Of matrices [stage][example] of full rank."""

    def figure(matrices: list[Any], of: Any) -> NDArray[np.float64]:
        return np.array([np.mean([of(log_values(m)) for m in each]) for each in matrices])

    def rank(logs: NDArray[np.float64]) -> float:
        p = np.exp(2 * logs) / np.exp(2 * logs).sum()
        return float(np.exp(-(p * np.log(p)).sum()))

    count = np.arange(1, len(layers) + 1)
    return {
        "largest": np.exp(figure(layers, np.max)),
        "median": np.exp(figure(layers, np.median)),
        "smallest": np.exp(figure(layers, np.min)),
        "rank": figure(layers, len),
        "effective_rank": figure(layers, rank),
        "product_largest_log10": figure(products, np.max) / math.log(10),
        "product_median_log10": figure(products, np.median) / math.log(10),
        "product_smallest_log10": figure(products, np.min) / math.log(10),
        "product_bound_log10": np.cumsum(figure(layers, np.max)) / math.log(10),
        "product_rank": figure(products, len),
        "product_effective_rank": figure(products, rank),
        "lyapunov_largest": figure(products, np.max) / count,
        "lyapunov_mean": figure(products, np.mean) / count,
        "lyapunov_smallest": figure(products, np.min) / count,
    }


@pytest.mark.parametrize("position", ["pre", "post"])
@pytest.mark.parametrize("norm", EXAMPLE_NORMS)
@pytest.mark.parametrize("skip", [name for name in SKIPS if name != "dense"])
def test_every_column_of_a_perceptron_is_that_of_dense_jacobians_of_its_equations(
    skip: str, norm: str, position: str
) -> None:
    config = mlp(skip=skip, norm=norm, norm_position=position)
    model, x = drawn(config)
    x_leaf = x.requires_grad_()
    sites, out = Equations(config, snapshot(model))(x_leaf)
    zs = [x_leaf, *(site.z for site in sites if "gate" not in site.name)]
    assert zs[-1] is out
    examples = range(jacobians.EXAMPLES)
    layers = [[dense(z, before, e) for e in examples] for before, z in itertools.pairwise(zs)]
    products = [[dense(z, x_leaf, e) for e in examples] for z in zs[1:]]
    rows = jacobian_rows(freeze(model, x).stages(), x)
    # Where a norm takes directions away, numpy has rounding for values that are 0.
    is_singular = norm != "none" and (skip == "none" or position == "post")
    for name, expected in expected_columns(layers, products).items():
        if is_singular and not ("largest" in name or "bound" in name or "effective" in name):
            continue
        np.testing.assert_allclose(column(rows, name), expected, rtol=1e-7, atol=1e-9, err_msg=name)
    assert rows.columns["name"] == [s.name for s in sites if "gate" not in s.name]
    assert rows.columns["layer"] == [1, 2, 3, 4, 5]
    assert set(rows.columns) == {declared.name for declared in JACOBIAN}


@pytest.mark.parametrize("norm", ["layer", "rms", "group"])
def test_a_normed_layer_is_singular_by_as_many_directions_as_it_takes_away(norm: str) -> None:
    # eps leaves the direction of the vector itself, weakly, but not that of the mean.
    model, x = drawn(mlp(norm=norm))
    rows = jacobian_rows(freeze(model, x).stages(), x)
    lost = {"layer": 1, "group": 2, "rms": 0}[norm]
    assert column(rows, "rank").tolist() == [6, *[6 - lost] * 3, 3]


def test_batch_norm_is_the_scale_that_it_is_on_the_batch() -> None:
    model, x = drawn(mlp(norm="batch", depth=2))
    first, second = freeze(model, x).stages()[:2]
    z = first.run(x)
    p = snapshot(model)
    u = (z - z.mean(0)) / (z.var(0, correction=0) + 1e-5).sqrt()
    slope = 1 - torch.tanh(p["layers.0.norm.weight"] * u + p["layers.0.norm.bias"]) ** 2
    scale = p["layers.0.norm.weight"] / (z.var(0, correction=0) + 1e-5).sqrt()
    expected = p["layers.1.linear.weight"] * (slope * scale)[2]
    torch.testing.assert_close(jacobian(second.run, z[2:3]), expected)


def test_dense_layers_hand_on_all_that_later_ones_read() -> None:
    config = mlp(skip="dense", depth=3)
    model, x = drawn(config)
    x_leaf = x.requires_grad_()
    sites, out = Equations(config, snapshot(model))(x_leaf)
    handed_on = [
        sites[0].z,
        torch.cat((sites[0].h, sites[1].z), 1),
        torch.cat((sites[0].h, sites[1].h, sites[2].z), 1),
        out,
    ]
    rows = jacobian_rows(freeze(model, x).stages(), x)
    expected = [
        np.mean([log_values(dense(state, x_leaf, e)).max() for e in range(jacobians.EXAMPLES)])
        for state in handed_on
    ]
    measured = column(rows, "product_largest_log10") * math.log(10)
    np.testing.assert_allclose(measured, expected, rtol=1e-10)


@pytest.mark.parametrize(("config", "task"), [case for case in MODELS if case[1] is IMAGES])
def test_a_jacobian_of_images_is_autograds(config: ModelConfig, task: Task) -> None:
    model, x = drawn(config, task)
    stages = freeze(model, x).stages()
    for stage, z in zip(stages, run_stages(stages, x), strict=False):
        expected = torch.autograd.functional.jacobian(stage.run, z[1:2])
        numbers = torch.as_tensor(expected).reshape(-1, z[0].numel())
        torch.testing.assert_close(jacobian(stage.run, z[1:2]), numbers, rtol=1e-9, atol=1e-10)


def test_orthogonal_linear_nets_have_ones_alone_and_reach_their_bound() -> None:
    model, x = drawn(mlp(activation="linear", bias=False, depth=30))
    for index, layer in enumerate(model.layers):
        with torch.no_grad():
            layer.linear.weight.copy_(orthogonal(7, index)[:6, : layer.linear.in_features])
            if index:
                layer.linear.weight.copy_(orthogonal(6, index))
    rows = jacobian_rows(freeze(model, x).stages()[:-1], x)
    for name, value in {
        "largest": 1,
        "median": 1,
        "smallest": 1,
        "rank": 6,
        "effective_rank": 6,
        "product_largest_log10": 0,
        "product_smallest_log10": 0,
        "product_bound_log10": 0,
        "product_rank": 6,
        "product_effective_rank": 6,
        "lyapunov_mean": 0,
    }.items():
        np.testing.assert_allclose(column(rows, name), value, atol=1e-12, err_msg=name)


def test_lyapunov_exponents_of_gaussian_nets_are_newmans() -> None:
    # Newman 1986: of products of n x n matrices of variance 1/n the i-th exponent is the mean of
    # ln chi(n - i + 1) less ln(n) / 2. The figures end at the 16 x 7 of the first layer's inputs:
    # the mean of the first 7. A logarithm of chi has a variance of about 1 / (2 n).
    depth, width, num_inputs = 300, 16, 7
    model, x = drawn(mlp(activation="linear", bias=False, depth=depth, width=width))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for layer in model.layers:
            nn.init.normal_(layer.linear.weight, 0, width**-0.5, generator=generator)
    rows = jacobian_rows(freeze(model, x).stages()[:-1], x[:1])
    chi_squares = torch.arange(width, width - num_inputs, -1).double()
    exponents = (torch.digamma(chi_squares / 2) + math.log(2 / width)) / 2
    spread = math.sqrt(1 / (2 * width * depth))
    largest, mean = column(rows, "lyapunov_largest")[-1], column(rows, "lyapunov_mean")[-1]
    assert mean == pytest.approx(float(exponents.mean()), abs=4 * spread / math.sqrt(num_inputs))
    # What a finite product has of other directions: O(1 / L).
    assert largest == pytest.approx(float(exponents[0]), abs=4 * spread + 3 / depth)


def test_a_layer_whose_units_are_all_dead_ends_the_product() -> None:
    model, x = drawn(mlp(activation="relu", bias=True))
    with torch.no_grad():
        model.layers[1].linear.bias.fill_(-1e3)
    rows = jacobian_rows(freeze(model, x).stages(), x)
    assert column(rows, "rank")[2] == 0
    assert column(rows, "largest")[2] == 0
    assert column(rows, "product_largest_log10")[2:].tolist() == [-math.inf] * 3
    assert column(rows, "product_rank")[2:].tolist() == [0, 0, 0]
    assert column(rows, "product_effective_rank")[2:].tolist() == [0, 0, 0]


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_products_far_beyond_the_range_of_floats_are_measured(scale: float) -> None:
    model, x = drawn(mlp(activation="linear", bias=False, depth=40))
    with torch.no_grad():
        model.readout.weight.mul_(0)
        for layer in model.layers:
            layer.linear.weight.mul_(scale ** (1 if layer is not model.layers[0] else 0))
    plain, _ = drawn(mlp(activation="linear", bias=False, depth=40))
    rows, base = (jacobian_rows(freeze(m, x).stages()[:-1], x[:1] * 0) for m in (model, plain))
    shift = np.arange(40) * math.log10(scale)
    for name in ("product_largest_log10", "product_smallest_log10", "product_bound_log10"):
        np.testing.assert_allclose(column(rows, name), column(base, name) + shift, atol=1e-8)


def test_what_is_not_finite_is_nan_from_there_on() -> None:
    model, x = drawn(mlp())
    with torch.no_grad():
        model.layers[2].linear.weight[0, 0] = math.nan
    rows = jacobian_rows(freeze(model, x).stages(), x)
    for name in ("largest", "product_largest_log10", "product_effective_rank"):
        values = column(rows, name)
        assert np.isfinite(values[:2]).all()
        assert np.isnan(values[2:]).all()
    assert all(cell is not None for cell in rows.columns["product_rank"])


# ---------------------------------------------------------------- large layers


@pytest.mark.parametrize(("config", "task"), [case for case in MODELS if case[1] is not VECTORS])
def test_the_largest_value_of_a_layer_that_is_not_written_out_is_the_same(
    config: ModelConfig, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, x = drawn(config, task)
    stages: Sequence[Stage] = freeze(model, x).stages()
    if task.kind == "tokens":
        x, stages = run_stages(stages, x)[1], stages[1:]
    # That rows are means over examples is shown by the cheapest.
    x = x[: 2 if task.kind == "tokens" else 1]
    exact = jacobian_rows(stages, x)
    monkeypatch.setattr(jacobians, "ENTRIES", 0)
    large = jacobian_rows(stages, x)
    np.testing.assert_allclose(column(large, "largest"), column(exact, "largest"), rtol=1e-6)
    bound = column(exact, "product_bound_log10")
    np.testing.assert_allclose(column(large, "product_bound_log10"), bound, rtol=1e-6, atol=1e-6)
    for name in ("product_largest_log10", "lyapunov_largest"):
        wanted = column(exact, name)
        np.testing.assert_allclose(column(large, name), wanted, rtol=1e-6, atol=1e-6)
    for name in ("median", "smallest", "rank", "product_median_log10", "lyapunov_mean"):
        assert set(large.columns[name]) == {None}


def test_the_largest_value_of_a_large_random_matrix_is_found_within_a_hundredth() -> None:
    w = randn(800, 800) / math.sqrt(800)
    exact = float(torch.linalg.matrix_norm(w, 2))
    found = math.exp(log_largest_singular_value(lambda x: x @ w.T, randn(1, 800)))
    assert 0.99 * exact < found <= exact * (1 + 1e-9)


@pytest.mark.parametrize("scale", [0.0, 1e-200, 1e200])
def test_large_layers_of_any_scale_are_measured(scale: float) -> None:
    values = torch.tensor([5.0, 3.0, 1.0, 0.5]).double() * scale
    found = log_largest_singular_value(lambda x: x * values, randn(1, 4))
    assert found == pytest.approx(math.log(5 * scale) if scale else -math.inf)


# ---------------------------------------------------------------- through a run


def asked_of(folder: Path, **asked: Any) -> runs.Run:
    config = Config(
        model=MlpConfig(depth=3, width=8, skip="residual", norm="batch", dropout=0.2),
        signal=SignalConfig(seeds=2, **asked),
        seed=4,
    )
    return runs.signal(config, folder)


def test_the_tables_that_are_asked_for_are_there_and_layers_are_what_they_were(
    tmp_path: Path,
) -> None:
    plain = asked_of(tmp_path / "plain")
    whole = asked_of(tmp_path / "whole", jacobian=True, paths=True, shattering=True)
    assert (whole.folder / "layers.csv").read_bytes() == (plain.folder / "layers.csv").read_bytes()
    assert {path.name for path in whole.folder.iterdir()} - {
        path.name for path in plain.folder.iterdir()
    } == {"jacobian.csv", "paths.csv", "shattering.csv"}
    for name in ("jacobian", "paths", "shattering"):
        table = whole.table(name)
        assert set(table["seed"]) == {4}
        assert set(table["step"]) == {0}
        assert len(table.dropna()) == len(table)
    names = whole.table("jacobian")["name"].tolist()
    layers = whole.layers
    assert names == layers.loc[layers["seed"] == 4, "name"].tolist()


def test_what_is_measured_is_the_network_before_its_first_update(tmp_path: Path) -> None:
    done = asked_of(tmp_path / "run", jacobian=True)
    table = done.table("jacobian")
    layers = done.layers[done.layers["seed"] == 4].reset_index(drop=True)
    # The first and the last Jacobian: W, and W phi'(..), of which W has the larger norm.
    norm = layers["weight_norm"][0]
    assert table["largest"][0] < norm < table["largest"][0] * math.sqrt(8)
    assert table["rank"][0] == 8


@pytest.mark.parametrize(
    ("config", "task", "key", "match"),
    [
        (GruConfig(depth=1, width=4), Task("sequence", (4, 2), 3), "jacobian", "no chain"),
        (GruConfig(depth=1, width=4), Task("sequence", (4, 2), 3), "shattering", "no chain"),
        (mlp(), VECTORS, "paths", "adds no branch"),
        (mlp(skip="highway"), VECTORS, "paths", "adds no branch"),
        (mlp(skip="dense"), VECTORS, "paths", "adds no branch"),
    ],
)
def test_what_cannot_be_measured_is_a_question(
    config: ModelConfig, task: Task, key: str, match: str
) -> None:
    model = build(config, task, torch.float64)
    with pytest.raises(QuestionError, match=match) as caught:
        require(SignalConfig(**{key: True}), model, "name")
    assert f"signal.{key} is true" in str(caught.value)
    assert f"allowed: signal.{key}=false" in str(caught.value)
    require(SignalConfig(), model, "name")
