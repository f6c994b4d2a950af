"""Data sets of every choice: examples and answers, splits, scale, and what the seed decides.

Holds: data/__init__.py, data/digits.py, data/examples.py, data/generated.py, data/rows.py,
data/scale.py
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from pathlib import Path

import image_files
import numpy as np
import pytest
import torch
from torch import Tensor

from vgexp import data
from vgexp.config import (
    CHOICES,
    AddingConfig,
    Cifar10Config,
    CopyConfig,
    DataConfig,
    DigitsConfig,
    FashionMnistConfig,
    GaussianConfig,
    MnistConfig,
    RowsConfig,
    SpiralsConfig,
    TextConfig,
)
from vgexp.data import Dataset, Split, digits
from vgexp.data.examples import Examples
from vgexp.errors import QuestionError
from vgexp.losses import LOSSES
from vgexp.seeds import generator
from vgexp.tasks import KINDS, Task

CLASSES: dict[str, DataConfig] = {
    "digits": DigitsConfig(),
    "gaussian": GaussianConfig(num_examples=211, features=5, num_classes=4),
    "spirals": SpiralsConfig(num_examples=211),
}
"""Examples that are classified, one mean and standard deviation for all numbers of an input."""
SMALL: dict[str, DataConfig] = {
    **CLASSES,
    "mnist": MnistConfig(),
    "fashion_mnist": FashionMnistConfig(),
    "cifar10": Cifar10Config(),
    "adding": AddingConfig(num_examples=211, seq_len=9),
    "copy": CopyConfig(num_examples=211, seq_len=6, copy_len=3, num_symbols=4),
    "rows": RowsConfig(),
    "text": TextConfig(num_examples=211, seq_len=11),
}
SIZES = {"digits": (1797, 64, 10), "gaussian": (211, 5, 4), "spirals": (211, 2, 3)}
"""Examples, inputs, classes."""


@pytest.fixture(autouse=True)
def _files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    image_files.write_all(tmp_path / "data", 60, monkeypatch)


def splits(dataset: Dataset) -> list[Split]:
    return [dataset.train, dataset.val, dataset.test]


def raw(name: str, seed: int = 3) -> tuple[Tensor, Tensor]:
    found = data.read(SMALL[name], seed)
    return found.inputs.flatten(1), found.targets


def test_every_choice_of_the_configuration_has_data() -> None:
    assert set(CHOICES["data"]) == {*SMALL, "custom"}
    assert all(CHOICES["data"].summary(name) for name in CHOICES["data"])


@pytest.mark.parametrize("name", SMALL)
def test_examples_are_of_the_kind_and_the_form_that_are_said(name: str) -> None:
    config = SMALL[name]
    dataset = data.load(config, 3, torch.float32)
    task = dataset.task
    assert task.kind == config.gives
    assert task.kind in KINDS
    for split in splits(dataset):
        assert split.inputs.shape == (len(split), *task.shape)
        asked = task.shape[:1] if task.per_position else ()
        values = (task.num_outputs,) if split.targets.is_floating_point() else ()
        assert split.targets.shape == (len(split), *asked, *values)
        if task.kind == "tokens":
            assert 0 <= int(split.inputs.min()) <= int(split.inputs.max()) < task.num_tokens


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", CLASSES)
def test_shapes_types_and_names_are_as_declared(name: str, dtype: torch.dtype) -> None:
    dataset = data.load(SMALL[name], 3, dtype)
    num_examples, num_inputs, num_classes = SIZES[name]
    held = round(0.15 * num_examples)
    assert [len(s) for s in splits(dataset)] == [num_examples - 2 * held, held, held]
    assert (dataset.name, dataset.task.num_features, dataset.task.num_outputs) == (
        name,
        num_inputs,
        num_classes,
    )
    for split in splits(dataset):
        assert split.inputs.shape == (len(split), *dataset.task.shape)
        assert split.inputs.dtype == dtype
        assert split.targets.dtype == torch.int64
        assert 0 <= int(split.targets.min()) <= int(split.targets.max()) < num_classes


@pytest.mark.parametrize("name", CLASSES)
def test_splits_are_disjoint_and_cover_every_example(name: str) -> None:
    inputs, targets = raw(name)
    loaded = splits(data.load(SMALL[name], 3, torch.float64).flattened())
    rows = torch.cat([s.inputs for s in loaded])
    labels = torch.cat([s.targets for s in loaded])
    slope = float(inputs.std() / rows.std())
    restored = (slope * (rows - rows.mean()) + inputs.mean()).numpy().round(9) + 0.0
    examples = zip(restored.tolist(), labels.tolist(), strict=True)
    originals = zip((inputs.numpy().round(9) + 0.0).tolist(), targets.tolist(), strict=True)
    assert sorted(examples) == sorted(originals)


@pytest.mark.parametrize("name", CLASSES)
def test_one_mean_and_one_std_of_the_training_split_standardise_all(name: str) -> None:
    inputs, _ = raw(name)
    dataset = data.load(SMALL[name], 3, torch.float64).flattened()
    # Splits before standardising: the generator's own permutation, validation, test, train.
    order = torch.randperm(len(inputs), generator=generator(3, "split")).tolist()
    held = len(dataset.val)
    rows = {"val": order[:held], "test": order[held : 2 * held], "train": order[2 * held :]}
    raw_train = inputs.numpy()[rows["train"]]
    for which, split in zip(("train", "val", "test"), splits(dataset), strict=True):
        expected = (inputs.numpy()[rows[which]] - raw_train.mean()) / raw_train.std()
        np.testing.assert_allclose(split.inputs.numpy(), expected, rtol=0, atol=1e-12)
    assert float(dataset.train.inputs.mean()) == pytest.approx(0, abs=1e-12)


def test_the_digits_are_scikit_learn_s() -> None:
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    inputs, targets = raw("digits")
    np.testing.assert_array_equal(inputs.numpy(), pixels)
    np.testing.assert_array_equal(targets.numpy(), labels)


@pytest.mark.parametrize("bundled", [None, "no file", "other file"])
def test_the_digits_come_through_scikit_learn_where_its_file_is_not_as_expected(
    bundled: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class Package:
        origin = str(tmp_path / "__init__.py")

    expected = raw("digits")
    if bundled == "other file":
        (tmp_path / "datasets" / "data").mkdir(parents=True)
        np.savetxt(tmp_path / "datasets" / "data" / "digits.csv.gz", np.ones((3, 2)), delimiter=",")
    monkeypatch.setattr(digits, "find_spec", lambda _name: Package if bundled else None)
    for one, other in zip(raw("digits"), expected, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("name", SMALL)
def test_the_seed_decides_values_and_splits_and_the_dtype_only_rounds(name: str) -> None:
    one, again, other = (data.load(SMALL[name], seed, torch.float64) for seed in (3, 3, 4))
    single = data.load(SMALL[name], 3, torch.float32)
    for a, b, c in zip(splits(one), splits(again), splits(single), strict=True):
        assert torch.equal(a.inputs, b.inputs)
        assert torch.equal(a.targets, b.targets)
        rounded = a.inputs.float() if a.inputs.is_floating_point() else a.inputs
        assert torch.equal(rounded, c.inputs)
        assert a.inputs.dtype == b.inputs.dtype
        assert c.inputs.dtype == (torch.float32 if one.task.kind != "tokens" else torch.int64)
    assert not torch.equal(one.train.targets, other.train.targets)


@pytest.mark.parametrize("name", SMALL)
def test_loading_leaves_the_global_generator_alone(name: str) -> None:
    before = torch.get_rng_state()
    data.load(SMALL[name], 0, torch.float32)
    assert torch.equal(torch.get_rng_state(), before)


def test_without_a_validation_share_everything_is_training() -> None:
    dataset = data.load(SpiralsConfig(val_fraction=0.0, num_examples=30), 0, torch.float32)
    assert [len(s) for s in splits(dataset)] == [30, 0, 0]
    assert dataset.val.inputs.shape == (0, 2)


def test_a_validation_share_that_leaves_nothing_to_train_on_is_an_error() -> None:
    with pytest.raises(QuestionError, match=r"data\.val_fraction is 0\.49"):
        data.load(SpiralsConfig(val_fraction=0.49, num_examples=2), 0, torch.float32)


@pytest.mark.parametrize("value", [0.1, 0.0, -1e300])
def test_constant_inputs_are_divided_by_one(value: float, monkeypatch: pytest.MonkeyPatch) -> None:
    constant = torch.full((7, 3), value, dtype=torch.float64)
    found = Examples(constant, torch.zeros(7, dtype=torch.int64), Task("vector", (3,), 2))
    monkeypatch.setattr(data, "read", lambda *_: found)
    dataset = data.load(GaussianConfig(), 0, torch.float64)
    assert float(dataset.train.inputs.abs().max()) <= 1e-15 * abs(value)


def test_each_channel_of_an_image_has_a_mean_and_a_deviation_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scale = torch.tensor([1.0, 50.0, 0.01], dtype=torch.float64).reshape(3, 1, 1)
    images = torch.randn(40, 3, 2, 5, generator=generator(0, "data"), dtype=torch.float64) * scale
    task = Task("image", (3, 2, 5), 2)
    found = Examples(images + 7 * scale, torch.arange(40) % 2, task)
    monkeypatch.setattr(data, "read", lambda *_: found)
    train = data.load(GaussianConfig(), 0, torch.float64).train.inputs.numpy()
    np.testing.assert_allclose(train.mean((0, 2, 3)), 0, atol=1e-12)
    np.testing.assert_allclose(train.std((0, 2, 3)), 1, rtol=1e-12)


def test_a_test_split_of_a_set_s_own_is_not_split_off_and_scaled_by_the_training_split(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    inputs = torch.arange(20, dtype=torch.float64)[:, None]
    own = (torch.tensor([[100.0], [200.0]], dtype=torch.float64), torch.tensor([1, 0]))
    found = Examples(inputs, torch.arange(20) % 2, Task("vector", (1,), 2), test=own)
    monkeypatch.setattr(data, "read", lambda *_: found)
    loaded = data.load(GaussianConfig(val_fraction=0.25), 0, torch.float64)
    assert [len(split) for split in splits(loaded)] == [15, 5, 2]
    # The generator's own permutation: five are held out.
    order = torch.randperm(20, generator=generator(0, "split"))
    train = inputs.numpy()[order[5:].numpy()]
    expected = (own[0].numpy() - train.mean()) / train.std()
    np.testing.assert_allclose(loaded.test.inputs.numpy(), expected, rtol=1e-12)
    assert loaded.test.targets.tolist() == [1, 0]


def test_tokens_stay_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = torch.arange(60).reshape(20, 3) % 7
    task = Task("tokens", (3,), 7, num_tokens=7, per_position=True)
    monkeypatch.setattr(data, "read", lambda *_: Examples(tokens, tokens, task))
    loaded = data.load(GaussianConfig(), 0, torch.float64)
    rows = torch.cat([split.inputs for split in splits(loaded)])
    assert rows.dtype == torch.int64
    assert sorted(map(tuple, rows.tolist())) == sorted(map(tuple, tokens.tolist()))


def test_values_to_be_answered_have_the_dtype_of_the_network(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    inputs = torch.randn(20, 3, generator=generator(0, "data"), dtype=torch.float64)
    found = Examples(inputs, inputs[:, :2], Task("vector", (3,), 2), "mse")
    monkeypatch.setattr(data, "read", lambda *_: found)
    loaded = data.load(GaussianConfig(), 0, torch.float32)
    assert loaded.loss == "mse"
    assert {split.targets.dtype for split in splits(loaded)} == {torch.float32}


def test_gaussian_inputs_are_standard_normal_and_labels_uniform() -> None:
    found = data.read(GaussianConfig(num_examples=20_000), 0)
    inputs, targets = found.inputs, found.targets
    moments = [float((inputs**k).mean()) for k in (1, 2, 3, 4)]
    assert moments == pytest.approx([0, 1, 0, 3], abs=0.02)
    counts = Counter(targets.tolist())
    chi_squared = sum((counts[c] - 2000) ** 2 / 2000 for c in range(10))
    assert chi_squared < 28  # 0.1 % of draws lie above, 9 degrees of freedom


def test_spirals_lie_on_their_arms_up_to_the_noise() -> None:
    found = data.read(SpiralsConfig(num_examples=999, num_classes=3), 0)
    inputs, targets = found.inputs, found.targets
    assert Counter(targets.tolist()) == {0: 333, 1: 333, 2: 333}
    for (x, y), label in itertools.islice(zip(inputs.tolist(), targets.tolist(), strict=True), 200):
        nearest = min(
            math.dist((x, y), (r * math.cos(a), r * math.sin(a)))
            for r in np.linspace(0, 1, 400)
            for a in [2 * math.pi * (r + label / 3)]
        )
        assert nearest < 5 * 0.02


@pytest.mark.parametrize("name", CLASSES)
def test_the_constant_loss_is_the_least_cross_entropy_of_a_constant_prediction(name: str) -> None:
    dataset = data.load(SMALL[name], 3, torch.float32)
    counts = Counter(dataset.train.targets.tolist())
    n = len(dataset.train)
    entropy = -math.fsum(c / n * math.log(c / n) for c in counts.values())
    constant = LOSSES[dataset.loss].constant(dataset.train.targets, dataset.task.num_outputs)
    assert constant == pytest.approx(entropy, rel=1e-12)
    logits = torch.log(torch.tensor([counts[c] / n for c in range(dataset.task.num_outputs)]))
    best = torch.nn.functional.cross_entropy(logits.expand(n, -1), dataset.train.targets)
    assert constant == pytest.approx(float(best), rel=1e-5)


def test_a_class_without_examples_does_not_spoil_the_constant_loss() -> None:
    constant = LOSSES["cross_entropy"].constant(torch.tensor([0, 0, 2, 2]), 5)
    assert constant == pytest.approx(math.log(2))
