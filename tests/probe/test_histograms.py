"""`histograms.csv` against its definition in exact fractions and against numpy's histogram, on
tensors that hooks of the tests' own took.

Holds: probe/histograms.py, probe/cadence.py, probe/stacks.py
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from small_models import MODELS
from torch import Tensor, nn
from trainers import BASE, NEVER, Table, assert_same, changed, collected, tables_of

import vgexp
from vgexp.assembly import assemble
from vgexp.config import (
    OutputConfig,
    ProbeConfig,
    SgdConfig,
)
from vgexp.errors import QuestionError
from vgexp.models import Network
from vgexp.probe import Probe, histograms, stacks
from vgexp.quantities import HISTOGRAMS
from vgexp.training import Trainer

Owner = tuple[int, str, str]
"""Step, name, quantity."""
Bins = dict[tuple[float, float], float]
"""(lower, upper) -> share."""
MOST = 64
COLUMNS = [column.name for column in HISTOGRAMS]


# ---------------------------------------------------------------- the definition, in fractions


def width_exponent(entries: NDArray[Any]) -> int:
    """The smallest k of which 64 bins are enough, none narrower than floats lie at the peak."""
    finite = entries[np.isfinite(entries)]
    info = np.finfo(entries.dtype)
    normal = math.frexp(float(info.tiny))[1] - 1
    peak = float(np.abs(finite).max())
    # Floats from 2^e to 2^(e+1) lie 2^(e - nmant) apart.
    k = max(normal, math.frexp(peak)[1] - 1 - info.nmant) if peak else normal
    lowest, highest = Fraction(float(finite.min())), Fraction(float(finite.max()))
    while highest // Fraction(2) ** k - lowest // Fraction(2) ** k + 1 > MOST:
        k += 1
    return k


def edge(multiple: int, k: int) -> float:
    try:
        return float(multiple * Fraction(2) ** k)
    except OverflowError:
        return math.copysign(math.inf, multiple)


def by_definition(entries: NDArray[Any]) -> Bins:
    finite = entries[np.isfinite(entries)]
    if finite.size == 0:
        return {}
    k = width_exponent(entries)
    width = Fraction(2) ** k
    counts = Counter(Fraction(float(x)) // width for x in finite)
    return {(edge(m, k), edge(m + 1, k)): counts[m] / entries.size for m in sorted(counts)}


def by_numpy(entries: NDArray[Any]) -> Bins:
    """numpy's last bin has both its edges, so there is one more, which stays empty."""
    width = 2.0 ** width_exponent(entries)
    finite = entries[np.isfinite(entries)].astype(np.float64)
    first, last = math.floor(finite.min() / width), math.floor(finite.max() / width)
    edges = np.arange(first, last + 3) * width
    counts, _ = np.histogram(finite, edges)
    assert counts[-1] == 0
    pairs = zip(edges[:-1].tolist(), edges[1:].tolist(), counts.tolist(), strict=True)
    return {(lower, upper): count / entries.size for lower, upper, count in pairs if count}


def bins_of(table: Table) -> dict[Owner, Bins]:
    """By owner, in the order of the rows; the bins of each ascend and are disjoint."""
    found: dict[Owner, Bins] = defaultdict(dict)
    last: Owner | None = None
    for step, _, name, quantity, lower, upper, share in zip(
        *(table[column] for column in COLUMNS), strict=True
    ):
        owner = (step, name, quantity)
        bins = found[owner]
        assert owner == last or not bins, "the rows of an owner stand together"
        assert share > 0
        assert lower < upper
        assert not lower < 0 < upper, "0 is an edge"
        assert not bins or lower >= list(bins)[-1][1]
        bins[float(lower), float(upper)] = float(share)
        assert len(bins) <= MOST
        last = owner
    return dict(found)


# ---------------------------------------------------------------- any entries whatever


class Times(nn.Module):
    """x times a weight, entry by entry: z is x to the last bit, whatever the batch."""

    def __init__(self, width: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1, width, dtype=dtype))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight


def measured(passes: Sequence[Tensor], model: nn.Module | None = None) -> dict[Owner, Bins]:
    """What the probe has of one update."""
    if model is None:
        model = Times(passes[0].shape[-1], passes[0].dtype)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Probe(model, optimizer, histograms_every=1) as probe:
        for x in passes:
            model(x).abs().sum().backward()
        optimizer.step()
    frame = probe.to_frame("histograms")
    assert list(frame.columns) == COLUMNS
    return bins_of({name: frame[name].tolist() for name in COLUMNS})


def rows_of_entries(entries: NDArray[Any], num_passes: int) -> Bins:
    passes = [torch.from_numpy(part.reshape(-1, 1)) for part in np.array_split(entries, num_passes)]
    return measured(passes).get((0, "weight", "preact"), {})


any_entries = st.sampled_from([np.float32, np.float64]).flatmap(
    lambda dtype: st.one_of(
        arrays(dtype, st.integers(1, 40)),
        arrays(dtype, st.integers(1, 40), elements=st.floats(-1, 1, width=16)),
        arrays(dtype, st.integers(1, 40), elements=st.integers(-70, 70)),
    )
)


@settings(max_examples=80, deadline=None)
@given(any_entries, st.integers(1, 4))
def test_any_entries_in_any_micro_batches_lie_in_the_bins_of_the_definition(
    entries: NDArray[Any], num_passes: int
) -> None:
    found = rows_of_entries(entries, min(num_passes, len(entries)))
    assert found == by_definition(entries)
    assert sum(found.values()) == pytest.approx(np.isfinite(entries).mean(), abs=1e-12)


def ends(dtype: Any) -> dict[str, list[float]]:
    info = np.finfo(dtype)
    big, normal, least = float(info.max), float(info.tiny), float(info.smallest_subnormal)
    return {
        "zeros of both signs": [0.0, -0.0, 0.0],
        "equal": [0.3] * 5,
        "equal, negative": [-0.3] * 5,
        "one": [7.0],
        "the largest numbers": [big, -big, 0.0],
        "the largest number": [big],
        "the lowest number, and what is below it": [-big, -math.inf],
        "the smallest numbers": [least, -least, 3 * least],
        "normal and not": [normal, -least, normal * 40],
        "tiny beside huge": [-least, least, big / 3],
        "tiny below huge": [-big / 3, -least, least],
        "64 bins": [*range(64)],
        "65 bins": [*range(65)],
        "just below an edge": [0.0, float(np.nextafter(dtype(64), dtype(0)))],
        "on an edge": [0.0, 1.0, 32.0, 64.0],
        "both sides": [-32.0, float(np.nextafter(dtype(32), dtype(0)))],
        "both sides, and one more": [-32.0, 32.0],
        "far from 0": [1e6, 1e6 + 1, 1e6 + 2],
        "neighbours": [1.0, float(np.nextafter(dtype(1), dtype(2)))],
        "not finite": [math.nan, math.inf, -math.inf, 1.0, 2.0],
        "nothing finite": [math.nan, math.inf, -math.inf],
    }


@pytest.mark.parametrize("num_passes", [1, 2, 3])
@pytest.mark.parametrize("case", ends(np.float32))
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_at_the_ends_of_a_dtype_the_bins_are_those_of_the_definition(
    dtype: Any, case: str, num_passes: int
) -> None:
    entries = np.array(ends(dtype)[case], dtype)
    found = rows_of_entries(entries, min(num_passes, len(entries)))
    assert found == by_definition(entries)
    assert bool(found) == (case != "nothing finite")


@pytest.mark.parametrize("scale", [1e-40, 1e-30, 1e-10, 1.0, 1e10, 1e30, 1e38])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_bell_has_a_few_dozen_bins_at_every_scale(dtype: Any, scale: float) -> None:
    bell = np.random.default_rng(0).standard_normal(2000).clip(-3, 3)
    entries = (bell * scale).astype(dtype)
    found = rows_of_entries(entries, 3)
    assert found == by_definition(entries)
    if scale > np.finfo(dtype).tiny * 100:
        assert 32 <= len(found) <= 64


def test_micro_batches_of_very_different_scales_are_one_batch() -> None:
    rng = np.random.default_rng(1)
    scales = (1e-30, 1.0, 1e30, 0.0)
    parts = [(rng.standard_normal(50) * s).astype(np.float32) for s in scales]
    together = np.concatenate(parts)
    apart = measured([torch.from_numpy(part.reshape(-1, 5)) for part in parts])
    assert apart == measured([torch.from_numpy(together.reshape(-1, 5))])
    assert apart[0, "weight", "preact"] == by_definition(together)


def test_a_tensor_larger_than_a_stack_is_counted_in_pieces(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    entries = np.random.default_rng(2).standard_normal(1001).astype(np.float32)
    whole = rows_of_entries(entries, 1)
    monkeypatch.setattr(stacks, "HOST_ENTRIES", 16)
    assert rows_of_entries(entries, 1) == whole == by_definition(entries)


def test_half_precision_is_measured_in_float32_and_complex_numbers_by_magnitude() -> None:
    for dtype in (torch.bfloat16, torch.float16):
        x = torch.linspace(-3, 5, 70).reshape(-1, 2).to(dtype)
        found = measured([x])[0, "weight", "preact"]
        assert found == by_definition(x.float().flatten().numpy())
    x = torch.complex(torch.linspace(-3, 5, 70), torch.linspace(2, 1, 70)).reshape(-1, 2)
    assert measured([x])[0, "weight", "preact"] == by_definition(x.abs().flatten().numpy())


def test_a_pass_without_entries_has_no_bins() -> None:
    some = torch.linspace(0, 1, 8).reshape(4, 2)
    assert measured([torch.zeros(0, 2), some]) == measured([some])


def test_a_weight_used_twice_has_the_entries_of_both_uses() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.times = Times(4, torch.float32)

        def forward(self, x: Tensor) -> Tensor:
            return self.times(1000 * self.times(x))

    x = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    found = measured([x], Twice())
    both = np.concatenate([x.numpy().ravel(), (1000 * x).numpy().ravel()])
    assert found == {(0, "times.weight", "preact"): by_definition(both)}


def test_a_z_of_which_one_pass_was_overwritten_before_it_was_measured_has_no_bins() -> None:
    class Overwriting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 3)
            self.at = 0, 0

        def forward(self, x: Tensor) -> Tensor:
            z = self.first(x)
            if self.at == (1, 1):
                z.mul_(2)
            return self.second(z)

    model = Overwriting()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Probe(model, optimizer, activations_every=1, histograms_every=1) as probe:
        for step in range(3):
            for number in range(2):
                model.at = step, number
                model(torch.randn(4, 3)).sum().backward()
            optimizer.step()
    frame, layers = probe.to_frame("histograms"), probe.to_frame()
    has_bins = {(step, name) for step, name in zip(frame["step"], frame["name"], strict=True)}
    told = layers[layers["preact_mean"].notna()]
    assert has_bins == set(zip(told["step"], told["name"], strict=True))
    assert (1, "first.weight") not in has_bins
    assert len(has_bins) == 5


# ---------------------------------------------------------------- models


class Captured:
    """z and h of each watch, taken by hooks of our own from the passes that record gradients."""

    def __init__(self, trainer: Trainer) -> None:
        self.entries: dict[Owner, list[NDArray[Any]]] = defaultdict(list)
        self._trainer = trainer
        assert isinstance(trainer.state.model, Network)
        for watch in trainer.state.model.watches():
            if watch.reads_z:
                self._take(watch.activation, watch.name, "preact", read=True)
            elif watch.preact is not None:
                self._take(watch.preact, watch.name, "preact")
            if watch.act is not None:
                self._take(watch.act, watch.name, "act")

    def _take(self, module: Any, name: str, quantity: str, *, read: bool = False) -> None:
        def hook(_: nn.Module, given: tuple[Any, ...], output: Any) -> None:
            x = given[0] if read else output
            x = x[0] if isinstance(x, tuple) else x
            in_backward = torch._C._current_graph_task_id() != -1
            if self._trainer.state.model.training and not in_backward:
                x = x.detach()
                x = x if x.dtype is torch.float64 else x.float()
                owner = (self._trainer.state.step, name, quantity)
                self.entries[owner].append(x.clone().numpy().ravel())

        module.register_forward_hook(hook)


def every(cadence: int, activations: int = 20) -> ProbeConfig:
    return ProbeConfig(activations_every=activations, histograms_every=cadence)


@pytest.mark.parametrize("name", MODELS)
def test_bins_of_every_family_are_those_of_numpy_on_what_passed_by(name: str) -> None:
    config = changed(
        MODELS[name], train={"steps": 3, "accumulate": 2, "eval_every": 0}, probe=every(1)
    )
    trainer = assemble(config)
    captured = Captured(trainer)
    tables = collected(trainer.rows())
    found = bins_of(tables["histograms"])
    assert len(captured.entries) >= 3 * 3
    assert found.keys() == captured.entries.keys()
    for owner, entries in captured.entries.items():
        assert found[owner] == by_numpy(np.concatenate(entries)), owner


@pytest.mark.parametrize("name", ["relu, residual, batch", "resnet", "transformer"])
def test_rows_are_in_the_forward_order_of_layers_csv(name: str) -> None:
    tables = tables_of(changed(MODELS[name], train={"steps": 2}, probe=every(1, 1)))
    layers, histograms = tables["layers"], tables["histograms"]
    rows = [
        (step, layer, weight, quantity)
        for step, layer, weight, mean, act in zip(
            *(layers[c] for c in ("step", "layer", "name", "preact_mean", "act_mean")), strict=True
        )
        for quantity, value in (("preact", mean), ("act", act))
        if value is not None
    ]
    assert list(dict.fromkeys(zip(*(histograms[c] for c in COLUMNS[:4]), strict=True))) == rows


def test_moments_of_the_bins_are_those_of_layers_csv_within_a_bins_width() -> None:
    tables = tables_of(changed(BASE, train={"steps": 1}, probe=every(1)))
    found = bins_of(tables["histograms"])
    layers = tables["layers"]
    for column, quantity in (("preact", "preact"), ("act", "act")):
        for name, mean, std in zip(
            *(layers[c] for c in ("name", f"{column}_mean", f"{column}_std")), strict=True
        ):
            if mean is None:
                assert (0, name, quantity) not in found
                continue
            bins = found[0, name, quantity]
            width = min(upper - lower for lower, upper in bins)
            about = sum(share * (lower + upper) / 2 for (lower, upper), share in bins.items())
            second = sum(share * ((a + b) / 2 - about) ** 2 for (a, b), share in bins.items())
            assert abs(about - mean) <= width / 2
            assert abs(math.sqrt(second) - std) <= width


# ---------------------------------------------------------------- when


@pytest.mark.parametrize(
    ("cadence", "steps"), [(0, []), (1, [*range(7)]), (3, [0, 3, 6]), (4, [0, 4, 6]), (99, [0, 6])]
)
@pytest.mark.parametrize("activations", [1, 2, NEVER])
def test_steps_are_the_multiples_and_the_last_and_other_tables_stay(
    cadence: int, steps: list[int], activations: int
) -> None:
    config = changed(
        BASE,
        model={"norm": "batch", "dropout": 0.1},
        train={"steps": 7},
        probe=every(cadence, activations),
    )
    tables = tables_of(config)
    assert sorted(set(tables["histograms"]["step"])) == steps
    without = tables_of(changed(config, probe={"histograms_every": 0}))
    assert without["histograms"]["step"] == []
    for each in (tables, without):
        each.pop("histograms")
    assert_same(tables, without)


def test_nothing_is_counted_at_other_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    count, steps = histograms.counts, []
    trainer = assemble(changed(BASE, train={"steps": 7}, probe=every(3, 1)))

    def counting(x: Tensor) -> Tensor:
        steps.append(trainer.state.step)
        return count(x)

    monkeypatch.setattr(histograms, "counts", counting)
    collected(trainer.rows())
    assert set(steps) == {0, 3, 6}


def test_only_wanted_weights_have_rows() -> None:
    tables = tables_of(changed(BASE, probe=ProbeConfig(layers=r"layers\.1\.")))
    assert set(tables["histograms"]["name"]) == {"layers.1.linear.weight"}
    assert set(tables["histograms"]["layer"]) == {2}


def test_a_run_that_diverges_has_its_last_step_and_shares_of_what_is_finite() -> None:
    config = changed(BASE, model={"activation": "relu"}, optimizer=SgdConfig(lr=1e200))
    trainer = assemble(changed(config, probe=every(NEVER), train={"steps": 50}))
    captured = Captured(trainer)
    tables = collected(trainer.rows())
    assert trainer.divergence is not None
    step = tables["steps"]["step"][-1]
    assert 0 < step < 49
    found = bins_of(tables["histograms"])
    assert {owner[0] for owner in found} == {0, step}
    lost = 0
    for owner, passes in captured.entries.items():
        if owner[0] in (0, step):
            # Of the step of divergence two passes went by, the second of them measured.
            finite = np.isfinite(passes[-1])
            lost += not finite.all()
            assert sum(found.get(owner, {}).values()) == pytest.approx(finite.mean(), abs=1e-12)
    assert lost > 0


def test_a_run_has_the_table_where_it_is_asked_for(tmp_path: Path) -> None:
    config = changed(BASE, train={"steps": 3}, output=OutputConfig(quiet=True))
    run = vgexp.run(config, tmp_path / "with")
    frame = run.histograms
    assert list(frame.columns) == COLUMNS
    assert [str(kind) for kind in frame.dtypes] == [
        *("int64", "int64", "object", "object", "float64", "float64", "float64")
    ]
    read = bins_of({name: frame[name].tolist() for name in COLUMNS})
    assert read == bins_of(tables_of(config)["histograms"])
    assert {step for step, _, _ in read} == {0, 2}
    without = vgexp.run(changed(config, probe=every(0)), tmp_path / "without")
    assert not (without.folder / "histograms.csv").exists()
    with pytest.raises(QuestionError, match="histograms"):
        _ = without.histograms


# ---------------------------------------------------------------- a guest


def trained_by_hand(histograms_every: int | None) -> tuple[list[float], Probe | None]:
    torch.manual_seed(3)
    model = nn.Sequential(
        nn.Conv2d(2, 3, 3), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(48, 5), nn.Tanh()
    ).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x = torch.randn(6, 2, 6, 6)
    losses = []

    def steps() -> None:
        for _ in range(5):
            optimizer.zero_grad()
            loss = (model(x) - 1).square().mean()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())

    if histograms_every is None:
        steps()
        return losses, None
    with Probe(model, optimizer, activations_every=3, histograms_every=histograms_every) as probe:
        steps()
    return losses, probe


def test_a_guests_losses_are_the_same_bits_and_its_frame_has_the_table() -> None:
    losses, _ = trained_by_hand(None)
    again, probe = trained_by_hand(2)
    assert losses == again
    assert probe is not None
    layers = probe.to_frame()
    assert sorted(set(layers["step"])) == [0, 3], "as without histograms"
    frame = probe.to_frame("histograms")
    assert sorted(set(frame["step"])) == [0, 2, 4]
    assert set(zip(frame["layer"], frame["name"], frame["quantity"], strict=True)) == {
        (layer, name, quantity)
        for layer, name in ((1, "0.weight"), (2, "3.weight"))
        for quantity in ("preact", "act")
    }
    assert frame.equals(probe.to_frame("histograms"))
    zeros = frame.query("name == '0.weight' and quantity == 'act'").groupby("step").first()
    assert (zeros["lower"] == 0).all(), "relu is nowhere negative"
    assert probe.unseen == []


def test_a_guest_without_histograms_is_told_how_to_have_them() -> None:
    _, probe = trained_by_hand(0)
    assert probe is not None
    with pytest.raises(QuestionError, match=r"histograms_every is 0\nallowed: an integer of at"):
        probe.to_frame("histograms")
    with pytest.raises(
        QuestionError,
        match=r"table: 'layer'\nallowed: layers, parameters, steps, wiring\nnearest",
    ):
        probe.to_frame("layer")


@pytest.mark.parametrize("value", [-1, 2.5, None, "2"])
def test_an_impossible_cadence_is_refused(value: Any) -> None:
    model = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(QuestionError, match="histograms_every is"):
        Probe(model, optimizer, histograms_every=value)


def test_a_negative_key_is_refused() -> None:
    with pytest.raises(QuestionError, match=r"probe.histograms_every is -1"):
        ProbeConfig(histograms_every=-1)
