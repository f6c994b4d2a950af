"""Normalisations against numpy.

Holds: norms.py
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from vgexp.config import MlpConfig
from vgexp.errors import QuestionError
from vgexp.norms import NORMS

Array = NDArray[np.float64]
EPS = 1e-5


@dataclass
class Groups:
    norm_groups: int


def standardised(x: Array, *axes: int) -> Array:
    centred = x - x.mean(axes, keepdims=True)
    return centred / np.sqrt((centred**2).mean(axes, keepdims=True) + EPS)


# The normalisation of [B, W] with three groups; None: there is none, or it is refused.
REFERENCES: dict[str, Callable[[Array], Array] | None] = {
    "none": None,
    "instance": None,
    "batch": lambda x: standardised(x, 0),
    "layer": lambda x: standardised(x, 1),
    "group": lambda x: np.concatenate([standardised(p, 1) for p in np.split(x, 3, axis=1)], 1),
    "rms": lambda x: x / np.sqrt((x**2).mean(1, keepdims=True) + EPS),
}


@pytest.mark.parametrize("scale", [1e-30, 1e-3, 1.0, 1e30])
@pytest.mark.parametrize("name", NORMS)
def test_a_norm_computes_its_formula(name: str, scale: float) -> None:
    reference = REFERENCES[name]
    if reference is None:
        return
    x = np.random.default_rng(1).normal(0.7, 2.0, (5, 12)) * np.linspace(1, 3, 12) * scale
    module = NORMS[name](12, Groups(3))
    assert module is not None
    y = module.double()(torch.from_numpy(x))
    np.testing.assert_allclose(y.detach().numpy(), reference(x), rtol=1e-9, atol=0)


# The normalisation of [B, C, P..] with three groups over the axes of positions P.
OF_POSITIONS: dict[str, Callable[[Array, tuple[int, ...]], Array] | None] = {
    "none": None,
    "batch": lambda x, p: standardised(x, 0, *p),
    "layer": lambda x, p: standardised(x, 1, *p),
    "instance": lambda x, p: standardised(x, *p),
    "group": lambda x, p: np.concatenate(
        [standardised(part, 1, *p) for part in np.split(x, 3, axis=1)], 1
    ),
    "rms": lambda x, p: x / np.sqrt((x**2).mean((1, *p), keepdims=True) + EPS),
}


@pytest.mark.parametrize("scale", [1e-30, 1e-3, 1.0, 1e30])
@pytest.mark.parametrize("shape", [(4, 5), (7,)])
@pytest.mark.parametrize("name", NORMS)
def test_a_norm_of_positions_computes_its_formula_with_a_scale_and_shift_a_channel(
    name: str, shape: tuple[int, ...], scale: float
) -> None:
    reference = OF_POSITIONS[name]
    module = NORMS[name](12, Groups(3), len(shape))
    if reference is None:
        assert module is None
        return
    assert module is not None
    rng, ones = np.random.default_rng(1), (1,) * len(shape)
    x = rng.normal(0.7, 2.0, (5, 12, *shape)) * np.linspace(1, 3, 12).reshape(12, *ones) * scale
    own = dict(module.double().named_parameters())
    assert {value.shape for value in own.values()} == {(12,)}
    for name_, start in (("weight", 1.0), ("bias", 0.0)):
        assert all(value == start for value in own.get(name_, torch.full((1,), start)).tolist())
    y = module(torch.from_numpy(x)).detach().numpy()
    axes = tuple(range(2, 2 + len(shape)))
    np.testing.assert_allclose(y, reference(x, axes), rtol=1e-8, atol=0)
    with torch.no_grad():
        own["weight"].copy_(torch.linspace(2, 3, 12))
    y = module(torch.from_numpy(x)).detach().numpy()
    scaled = reference(x, axes) * np.linspace(2, 3, 12).reshape(12, *ones)
    np.testing.assert_allclose(y, scaled, rtol=1e-6, atol=0)


def test_on_images_group_norm_may_have_a_group_a_channel_and_is_then_instance_norm() -> None:
    x = torch.randn(4, 6, 3, 5, generator=torch.Generator().manual_seed(0))
    group, instance = NORMS["group"](6, Groups(6), 2), NORMS["instance"](6, Groups(6), 2)
    assert group is not None
    assert instance is not None
    torch.testing.assert_close(group(x), instance(x))
    torch.testing.assert_close(group(x), torch.nn.functional.instance_norm(x))


def test_groups_that_do_not_divide_the_channels_of_images_are_refused() -> None:
    with pytest.raises(QuestionError) as caught:
        NORMS["group"](12, Groups(8), 2)
    assert str(caught.value) == (
        "model.norm_groups is 8 and a layer has 12 channels\n"
        "allowed: divisors of the channels\nnearest: 4, 6, 12"
    )


def test_none_builds_nothing() -> None:
    assert NORMS["none"](12, MlpConfig()) is None


def test_instance_norm_is_refused_with_its_reason() -> None:
    with pytest.raises(QuestionError, match="over no positions gives 0") as caught:
        NORMS["instance"](12, MlpConfig())
    assert "allowed: none, batch, layer, group, rms\n" in str(caught.value)


@pytest.mark.parametrize(
    ("width", "groups", "nearest"),
    [(60, 8, "5, 6, 10"), (64, 48, "8, 16, 32"), (7, 2, "1"), (8, 8, "1, 2, 4"), (1, 1, "(none)")],
)
def test_groups_that_do_not_divide_the_width_are_refused(
    width: int, groups: int, nearest: str
) -> None:
    with pytest.raises(QuestionError) as caught:
        NORMS["group"](width, Groups(groups))
    message = str(caught.value)
    assert f"norm_groups is {groups} and model.width is {width}" in message
    assert message.endswith(f"nearest: {nearest}")


def test_group_norm_of_one_group_is_layer_norm() -> None:
    x = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    group, layer = NORMS["group"](6, Groups(1)), NORMS["layer"](6, Groups(1))
    assert group is not None
    assert layer is not None
    torch.testing.assert_close(group(x), layer(x))


def test_every_norm_has_a_reference_and_a_summary() -> None:
    assert set(REFERENCES) == set(OF_POSITIONS) == set(NORMS)
    assert all(0 < len(NORMS.summary(name)) < 90 for name in NORMS)


@pytest.mark.parametrize("name", NORMS)
def test_a_norm_of_units_normalises_each_vector_alone(name: str) -> None:
    make, reference = NORMS[name].of_units, REFERENCES[name]
    assert (make is not None) == (name in ("none", "layer", "rms"))
    module = None if make is None else make(12)
    if module is None:
        return
    assert reference is not None
    x = np.random.default_rng(4).normal(0.7, 2.0, (2, 5, 12))
    y = module.double()(torch.from_numpy(x)).detach().numpy()
    expected = np.stack([reference(vectors) for vectors in x])
    np.testing.assert_allclose(y, expected, rtol=1e-9, atol=0)


@pytest.mark.parametrize("groups", [3, 6])
@pytest.mark.parametrize("name", NORMS)
def test_a_norm_says_whether_each_channel_of_an_image_is_normalised_alone(
    name: str, groups: int
) -> None:
    entry = NORMS[name]
    module = entry(6, Groups(groups), 2)
    assert entry.is_identity == (module is None)
    if module is None:
        assert not entry.is_per_channel(6, Groups(groups))
        return
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 6, 3, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    # What one number of the output depends on: its example and channel alone, or more.
    (gradient,) = torch.autograd.grad(module.double()(x)[0, 0, 0, 0], x)
    is_felt = gradient.flatten(2).abs().amax(2) > 1e-12
    assert entry.is_per_channel(6, Groups(groups)) == (int(is_felt.sum()) == 1)
