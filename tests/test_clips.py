"""The references work on numpy arrays in float64, row by row and entry by entry.

Holds: clips.py
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from vgexp import clips, metrics
from vgexp.clips import Clip, Clipped
from vgexp.config import (
    CHOICES,
    AgcClipConfig,
    AutoClipConfig,
    ClipConfig,
    LayerClipConfig,
    NoClipConfig,
    NormClipConfig,
    ValueClipConfig,
)

Array = np.ndarray[Any, np.dtype[np.float64]]
Arrays = list[Array]


def hypot(array: Array) -> float:
    """L2 norm by Python's own routine, which scales."""
    return math.hypot(*array.ravel().tolist())


def total(arrays: Arrays) -> float:
    return math.hypot(*map(hypot, arrays))


def shrink(array: Array, norm: float, limit: float) -> Array:
    return array / norm * limit if norm > limit else array


def reference_none(grads: Arrays, _weights: Arrays, _threshold: float) -> Arrays:
    return grads


def reference_norm(grads: Arrays, _weights: Arrays, threshold: float) -> Arrays:
    return [shrink(g, total(grads), threshold) for g in grads]


def reference_value(grads: Arrays, _weights: Arrays, threshold: float) -> Arrays:
    return [np.maximum(np.minimum(g, threshold), -threshold) for g in grads]


def reference_layer(grads: Arrays, _weights: Arrays, threshold: float) -> Arrays:
    return [shrink(g, hypot(g), threshold) for g in grads]


def reference_agc(grads: Arrays, weights: Arrays, threshold: float) -> Arrays:
    clipped = list(grads)
    for i in AGC_ON:
        rows = zip(grads[i], weights[i], strict=True)
        clipped[i] = np.stack(
            [shrink(g, hypot(g), threshold * max(hypot(w), 1e-3)) for g, w in rows]
        )
    return clipped


def reference_auto(grads: Arrays, _weights: Arrays, threshold: float) -> Arrays:
    """The first call: the history is this norm alone, and so is its percentile."""
    return reference_norm(grads, [], np.percentile([total(grads)], threshold).item())


SHAPES = [(5, 3), (5,), (4, 5), (4,), (6, 2, 3, 3), (7, 4), (7,), (2, 7), (2,)]
AGC_ON = [0, 2, 4, 5]
"""Weight matrices and a kernel; (2, 7) is the read-out."""

REFERENCES: dict[str, tuple[ClipConfig, Callable[[Arrays, Arrays, float], Arrays]]] = {
    "none": (NoClipConfig(), reference_none),
    "norm": (NormClipConfig(1.3), reference_norm),
    "value": (ValueClipConfig(0.7), reference_value),
    "layer": (LayerClipConfig(2.1), reference_layer),
    "agc": (AgcClipConfig(0.5), reference_agc),
    "auto": (AutoClipConfig(10.0), reference_auto),
}


@pytest.fixture(params=["host", "device"], autouse=True)
def road(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each test runs on the code for CPU and, on the CPU, on the code for CUDA."""
    if request.param == "device":
        monkeypatch.setattr(clips, "_host", lambda _x: False)
        monkeypatch.setattr(metrics, "_host", lambda _x: False)
    return str(request.param)


def network(dtype: torch.dtype, scale: float = 1.0, seed: int = 0) -> list[nn.Parameter]:
    source = torch.Generator().manual_seed(seed)
    parameters = []
    for i, shape in enumerate(SHAPES):
        p = nn.Parameter(torch.randn(shape, generator=source, dtype=torch.float64).to(dtype))
        grad = (i + 1) * torch.randn(shape, generator=source, dtype=torch.float64)
        p.grad = (grad * scale).to(dtype)
        parameters.append(p)
    return parameters


def grads_of(parameters: Sequence[nn.Parameter]) -> list[Tensor]:
    return [p.grad for p in parameters if p.grad is not None]


def arrays(tensors: Sequence[Tensor]) -> Arrays:
    return [x.detach().double().numpy().copy() for x in tensors]


def build(config: ClipConfig, parameters: list[nn.Parameter]) -> Clip:
    return clips.build(config, [parameters[i] for i in AGC_ON])


def apply(clip: Clip, parameters: list[nn.Parameter]) -> Clipped:
    return clip(parameters, metrics.total_norm(grads_of(parameters)))


def threshold_of(config: ClipConfig) -> float:
    return float(getattr(config, "threshold", math.nan))


SCALES = [1e-37, 1e-30, 1e-8, 0.05, 1.0, 1e8, 1e30, 1e37]


@pytest.mark.parametrize("relative", [False, True], ids=["threshold 1", "threshold at scale"])
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", CHOICES["clip"])
def test_clipped_gradients_equal_the_reference(
    name: str, dtype: torch.dtype, scale: float, relative: bool
) -> None:
    config, reference = REFERENCES[name]
    if relative and name not in ("none", "auto"):
        config = type(config)(threshold_of(config) * scale)  # type: ignore[call-arg]
    parameters = network(dtype, scale)
    before, weights = arrays(grads_of(parameters)), arrays(parameters)
    expected = reference(before, weights, threshold_of(config))
    clipped = apply(build(config, parameters), parameters)
    after = arrays(grads_of(parameters))

    precision = 1e-6 if dtype is torch.float32 else 1e-13
    floor = torch.finfo(dtype).tiny * torch.finfo(dtype).eps
    for one, other in zip(after, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=precision, atol=floor)
    assert clipped.norm.dtype == torch.float64
    assert clipped.norm.shape == clipped.changed.shape == ()
    assert clipped.changed.dtype == torch.bool
    assert float(clipped.norm) == pytest.approx(total(after), rel=precision)
    changed = any((a != b).any() for a, b in zip(after, before, strict=True))
    assert bool(clipped.changed) == changed
    for one, other in zip(arrays(parameters), weights, strict=True):
        np.testing.assert_array_equal(one, other)


def test_every_choice_of_the_configuration_has_a_clip() -> None:
    assert set(CHOICES["clip"]) == set(REFERENCES)
    assert all(CHOICES["clip"].summary(name) for name in CHOICES["clip"])


def test_norm_and_value_agree_with_torch_s_own_in_float64() -> None:
    owns: list[tuple[ClipConfig, Callable[[list[nn.Parameter], float], object]]] = [
        (NormClipConfig(1.3), nn.utils.clip_grad_norm_),
        (ValueClipConfig(0.7), nn.utils.clip_grad_value_),
    ]
    for config, own in owns:
        ours, theirs = network(torch.float64), network(torch.float64)
        apply(build(config, ours), ours)
        own(theirs, threshold_of(config))
        for one, other in zip(grads_of(ours), grads_of(theirs), strict=True):
            # torch divides by norm + 1e-6.
            torch.testing.assert_close(one, other, rtol=1e-6, atol=0)


@pytest.mark.parametrize("name", ["none", "norm", "value", "layer", "agc"])
def test_what_is_within_the_limit_is_left_bit_for_bit(name: str) -> None:
    config = REFERENCES[name][0]
    if name != "none":
        config = type(config)(1e6)  # type: ignore[call-arg]
    parameters = network(torch.float32)
    before = [g.clone() for g in grads_of(parameters)]
    norm = metrics.total_norm(before)
    clipped = build(config, parameters)(parameters, norm)
    assert not clipped.changed
    assert torch.equal(clipped.norm, norm)
    assert all(map(torch.equal, grads_of(parameters), before))


@pytest.mark.parametrize("name", CHOICES["clip"])
def test_zeros_stay_zeros(name: str) -> None:
    parameters = network(torch.float32, 0.0)
    clipped = apply(build(REFERENCES[name][0], parameters), parameters)
    assert not clipped.changed
    assert clipped.norm == 0
    assert all(not g.any() for g in grads_of(parameters))


@pytest.mark.parametrize("name", CHOICES["clip"])
def test_a_zero_row_and_a_zero_tensor_stay_zeros_beside_clipped_ones(name: str) -> None:
    parameters = network(torch.float32, 1e4)
    grads = grads_of(parameters)
    grads[0][1] = 0
    grads[1].zero_()
    apply(build(REFERENCES[name][0], parameters), parameters)
    assert not grads[0][1].any()
    assert not grads[1].any()
    assert all(bool(g.isfinite().all()) for g in grads)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", CHOICES["clip"])
def test_a_non_finite_entry_stays_and_no_entry_is_zeroed(name: str, bad: float) -> None:
    parameters = network(torch.float32, 1e4)
    grads = grads_of(parameters)
    grads[2][1, 1] = bad
    clipped = apply(build(REFERENCES[name][0], parameters), parameters)
    assert not clipped.norm.isfinite()
    assert str(float(grads[2][1, 1])) == str(bad)
    assert sum(int((~g.isfinite()).sum()) for g in grads) == 1
    assert all(bool(g.all()) for g in grads)


def test_a_norm_above_float32_is_clipped() -> None:
    for config in (NormClipConfig(1e-3), LayerClipConfig(1e-3), AgcClipConfig(1e-3)):
        weight = nn.Parameter(torch.ones(2, 200))
        weight.grad = torch.full((2, 200), 3e38)
        clipped = clips.build(config, [weight])([weight], metrics.total_norm([weight.grad]))
        agc = isinstance(config, AgcClipConfig)
        expected = 1e-3 * 200**0.5 * 2**0.5 if agc else 1e-3
        assert float(clipped.norm) == pytest.approx(expected, rel=1e-6)
        assert weight.grad.flatten().tolist() == pytest.approx([expected / 20] * 400, rel=1e-6)


def test_a_limit_a_rounding_below_the_norm_changes_nothing_and_says_so() -> None:
    for name in ("norm", "layer", "value"):
        weight = nn.Parameter(torch.ones(1))
        weight.grad = torch.tensor([0.1])
        assert float(weight.grad) > 0.1
        clip = clips.build(type(REFERENCES[name][0])(0.1), [])  # type: ignore[call-arg]
        clipped = clip([weight], metrics.total_norm([weight.grad]))
        assert not clipped.changed
        assert float(weight.grad) == float(torch.tensor(0.1))


def test_layer_clips_biases_by_their_own_norm_and_small_tensors_not_at_all() -> None:
    weight, bias = nn.Parameter(torch.zeros(2, 2)), nn.Parameter(torch.zeros(2))
    weight.grad, bias.grad = torch.full((2, 2), 0.1), torch.tensor([3.0, 4.0])
    norm = metrics.total_norm([weight.grad, bias.grad])
    clipped = clips.build(LayerClipConfig(1.0), [])([weight, bias], norm)
    assert bias.grad.tolist() == pytest.approx([0.6, 0.8])
    assert torch.equal(weight.grad, torch.full((2, 2), 0.1))
    assert clipped.changed
    assert float(clipped.norm) == pytest.approx(math.sqrt(1 + 0.04))


def test_agc_treats_zero_weights_as_rows_of_norm_a_thousandth() -> None:
    weight = nn.Parameter(torch.zeros(2, 3))
    weight.grad = torch.tensor([[3.0, 0.0, 4.0], [1e-6, 0.0, 0.0]])
    clips.build(AgcClipConfig(0.01), [weight])([weight], metrics.total_norm([weight.grad]))
    assert weight.grad[0].tolist() == pytest.approx([0.6e-5, 0.0, 0.8e-5])
    assert weight.grad[1, 0] == torch.tensor(1e-6)


def test_agc_skips_a_matrix_without_a_gradient_and_stacks_large_ones_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(metrics, "SMALL_TENSOR", 16)
    parameters = network(torch.float64, 1e3)
    parameters[2].grad = None
    with_grad = [p for p in parameters if p.grad is not None]
    before, weights = arrays(grads_of(with_grad)), arrays(with_grad)
    apply_to = build(AgcClipConfig(0.5), parameters)
    apply_to(with_grad, metrics.total_norm(grads_of(with_grad)))
    after = arrays(grads_of(with_grad))
    for position, i in enumerate(j for j in range(len(SHAPES)) if j != 2):
        rows = zip(before[position], weights[position], strict=True)
        expected = before[position]
        if i in AGC_ON:
            expected = np.stack([shrink(g, hypot(g), 0.5 * max(hypot(w), 1e-3)) for g, w in rows])
        np.testing.assert_allclose(after[position], expected, rtol=1e-13)


def scalar_steps(clip: Clip, norms: Sequence[float]) -> Iterator[float]:
    """The norm after clipping of one-entry gradients of these norms."""
    weight = nn.Parameter(torch.zeros(1, dtype=torch.float64))
    for norm in norms:
        weight.grad = torch.tensor([norm], dtype=torch.float64)
        yield float(clip([weight], metrics.total_norm([weight.grad])).norm)


@pytest.mark.parametrize("percentile", [37.5, 100.0])
def test_auto_clips_to_the_percentile_of_the_last_thousand_finite_norms(percentile: float) -> None:
    norms = np.random.default_rng(0).lognormal(0, 8, 1300).tolist()
    norms[5], norms[700] = math.inf, math.nan
    clip = clips.build(AutoClipConfig(percentile), [])
    seen: list[float] = []
    for norm, after in zip(norms, scalar_steps(clip, norms), strict=True):
        if not math.isfinite(norm):
            assert str(after) == str(norm)
            continue
        seen = [*seen, norm][-1000:]
        if len(seen) % 100 < 3 or len(seen) == 1000:
            assert after == pytest.approx(min(norm, np.percentile(seen, percentile)), rel=1e-12)


@pytest.mark.parametrize("stop", [0, 7, 1100])
def test_a_loaded_auto_clip_goes_on_as_if_never_stopped(stop: int) -> None:
    norms = np.random.default_rng(1).lognormal(0, 2, stop + 30).tolist()
    whole = list(scalar_steps(clips.build(AutoClipConfig(), []), norms))
    first = clips.build(AutoClipConfig(), [])
    before = list(scalar_steps(first, norms[:stop]))
    state = first.state_dict()
    list(scalar_steps(first, [1e9] * 5))
    second = clips.build(AutoClipConfig(), [])
    second.load_state_dict(state)
    assert before + list(scalar_steps(second, norms[stop:])) == whole


@pytest.mark.parametrize("name", CHOICES["clip"])
def test_a_clip_s_state_loads_into_another_one(name: str) -> None:
    parameters = network(torch.float32)
    clip = build(REFERENCES[name][0], parameters)
    apply(clip, parameters)
    build(REFERENCES[name][0], parameters).load_state_dict(clip.state_dict())
    assert bool(clip.state_dict()) == (name == "auto")


@pytest.mark.parametrize("name", CHOICES["clip"])
def test_a_network_without_gradients_is_left_alone(name: str) -> None:
    clipped = clips.build(REFERENCES[name][0], [])([], metrics.total_norm([]))
    assert clipped.norm == 0
    assert not clipped.changed
