"""`attention.csv` of anybody's model, against an explicit softmax in float64.

Holds: probe/meters/attention.py
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vgexp.probe import Probe
from vgexp.probe.meters import attention

B, T, HEADS, D = 3, 6, 2, 4
E = HEADS * D


def measured(net: nn.Module, x: Tensor, **more: Any) -> tuple[pd.DataFrame, Probe]:
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    with Probe(net, optimizer, **more) as probe:
        net(x).square().mean().backward()
        optimizer.step()
    return probe.to_frame("attention"), probe


def explicit(logits_BHTS: Tensor, added: Tensor | None = None) -> list[tuple[float, float, float]]:
    """Of each head: mean entropy, its share of the largest, largest logit that is looked at."""
    added = torch.zeros(1, dtype=logits_BHTS.dtype) if added is None else added
    added = added.expand(logits_BHTS.shape)
    p = torch.softmax(logits_BHTS + added, 3)
    sees = added > -1e30
    entropy = -torch.where(sees & (p > 0), p * p.clamp(min=1e-300).log(), 0.0).sum(3)
    counts = sees.sum(3)
    is_query = counts > 0
    found = []
    for head in range(logits_BHTS.shape[1]):
        own = entropy[:, head][is_query[:, head]]
        most = counts[is_query].double().log().mean()
        largest = logits_BHTS[:, head][sees[:, head]].abs().max()
        found.append((float(own.mean()), float(own.mean() / most), float(largest)))
    return found


def assert_as_explicit(
    frame: pd.DataFrame, wanted: list[tuple[float, float, float]], rtol: float = 1e-10
) -> None:
    assert list(frame["head"]) == list(range(len(wanted)))
    columns = ("entropy", "entropy_fraction", "logit_max")
    for row, cells in zip(frame[list(columns)].itertuples(index=False), wanted, strict=True):
        assert all(math.isclose(a, b, rel_tol=rtol) for a, b in zip(row, cells, strict=True))


class Attend(nn.Module):
    """A block's attention, which calls torch's function."""

    def __init__(self, kv_heads: int = HEADS, **given: Any) -> None:
        super().__init__()
        self.kv_heads, self.given = kv_heads, given
        self.q, self.kv = nn.Linear(E, E), nn.Linear(E, 2 * kv_heads * D)
        self.back = nn.Linear(E, E)

    def parts(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q = self.q(x).unflatten(2, (HEADS, D)).transpose(1, 2)
        k, v = self.kv(x).unflatten(2, (2 * self.kv_heads, D)).transpose(1, 2).chunk(2, 1)
        return q, k, v

    def forward(self, x: Tensor) -> Tensor:
        y = F.scaled_dot_product_attention(*self.parts(x), **self.given)
        return self.back(y.transpose(1, 2).flatten(2))


class Net(nn.Module):
    def __init__(self, *blocks: nn.Module) -> None:
        super().__init__()
        self.embed = nn.Linear(E, E)
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        for block in self.blocks:
            x = x + block(x)
        return x


SEES = torch.tensor([[s <= t or s == 4 for s in range(T)] for t in range(T)])
HIDES_ALL = SEES & (torch.arange(T) != 2)[:, None]
BIAS = torch.linspace(-1, 1, T * T, dtype=torch.float64).view(T, T)
LOWEST = torch.zeros(T, T, dtype=torch.float64).masked_fill(~SEES, torch.finfo(torch.float64).min)


def as_added(mask: Tensor) -> Tensor:
    return torch.zeros(mask.shape, dtype=torch.float64).masked_fill(~mask, -math.inf)


@pytest.mark.parametrize(
    ("given", "added"),
    [
        ({}, None),
        ({"scale": 0.7}, None),
        ({"is_causal": True}, as_added(torch.ones(T, T, dtype=torch.bool).tril())),
        ({"attn_mask": SEES}, as_added(SEES)),
        ({"attn_mask": HIDES_ALL}, as_added(HIDES_ALL)),
        ({"attn_mask": BIAS}, BIAS),
        ({"attn_mask": LOWEST}, LOWEST),
    ],
    ids=["plain", "scale", "causal", "mask", "hidden", "bias", "lowest"],
)
def test_every_head_has_the_entropy_and_the_logits_of_an_explicit_softmax(
    given: dict[str, Any], added: Tensor | None
) -> None:
    torch.manual_seed(0)
    net = Net(Attend(**given)).double()
    x = torch.randn(B, T, E, dtype=torch.float64)
    with torch.no_grad():
        q, k, _ = net.blocks[0].parts(net.embed(x))
    wanted = explicit(q @ k.transpose(2, 3) * given.get("scale", D**-0.5), added)
    frame, _ = measured(net, x)
    if given.get("attn_mask") is HIDES_ALL:
        # The function gives nan where a query sees no key, or 0; the meter leaves it out.
        assert len(wanted) == HEADS
    assert_as_explicit(frame, wanted)
    assert set(frame["name"]) == {"blocks.0"}
    assert set(frame["layer"]) == {2}


def test_queries_that_share_keys_are_heads_of_their_own() -> None:
    torch.manual_seed(0)
    net = Net(Attend(kv_heads=1, enable_gqa=True)).double()
    x = torch.randn(B, T, E, dtype=torch.float64)
    with torch.no_grad():
        q, k, _ = net.blocks[0].parts(net.embed(x))
    frame, _ = measured(net, x)
    assert_as_explicit(frame, explicit(q @ k.transpose(2, 3) / D**0.5))


class Multi(nn.Module):
    """`nn.MultiheadAttention` in a block."""

    def __init__(self, call: dict[str, Any], **made: Any) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(E, HEADS, batch_first=True, **made)
        self.given = call

    def forward(self, x: Tensor) -> Tensor:
        y, _ = self.attention(x, x, x, **self.given)
        return y


PADDING = torch.tensor([[False] * 4 + [True] * 2, [False] * T, [False] * 5 + [True]])


@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize(
    ("call", "made"),
    [
        ({}, {}),
        ({}, {"kdim": E, "vdim": E, "bias": False}),
        ({"attn_mask": ~SEES}, {}),
        ({"attn_mask": BIAS}, {}),
        ({"key_padding_mask": PADDING, "attn_mask": ~SEES}, {}),
    ],
    ids=["plain", "no_bias", "mask", "bias", "padding"],
)
def test_multihead_attention_is_seen_whether_or_not_it_gives_its_weights(
    call: dict[str, Any], made: dict[str, Any], need_weights: bool
) -> None:
    torch.manual_seed(0)
    net = Net(Multi(call | {"need_weights": need_weights}, **made)).double()
    own = net.blocks[0].attention
    x = torch.randn(B, T, E, dtype=torch.float64)
    with torch.no_grad():
        given = net.embed(x)
        weight, bias = own.in_proj_weight, own.in_proj_bias
        zeros = torch.zeros(3 * E, dtype=torch.float64)
        q, k, _ = F.linear(given, weight, zeros if bias is None else bias).chunk(3, 2)
        q, k = (part.unflatten(2, (HEADS, D)).transpose(1, 2) for part in (q, k))
        _, weights = own(given, given, given, **call, average_attn_weights=False)
    added = torch.zeros(B, 1, T, T, dtype=torch.float64)
    if "attn_mask" in call:
        added = added + (BIAS if call["attn_mask"] is BIAS else as_added(SEES))
    if "key_padding_mask" in call:
        added = added + as_added(~PADDING)[:, None, None]
    logits = q @ k.transpose(2, 3) / D**0.5
    torch.testing.assert_close(torch.softmax(logits + added, 3), weights)
    frame, probe = measured(net, x)
    assert_as_explicit(frame, explicit(logits, added))
    assert set(frame["name"]) == {"blocks.0.attention"}
    assert "attention" in probe.tables


def test_added_keys_are_looked_at_too() -> None:
    torch.manual_seed(0)
    net = Net(Multi({"attn_mask": ~SEES}, add_bias_kv=True, add_zero_attn=True)).double()
    own = net.blocks[0].attention
    x = torch.randn(B, T, E, dtype=torch.float64)
    with torch.no_grad():
        given = net.embed(x)
        _, p = own(given, given, given, attn_mask=~SEES, average_attn_weights=False)
    entropy = -(p * p.clamp(min=1e-300).log()).sum(3).mean((0, 2))
    frame, _ = measured(net, x)
    assert list(frame["entropy"]) == pytest.approx(entropy.tolist(), rel=1e-10)


def test_of_a_long_sequence_equally_spaced_queries_are_measured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.manual_seed(0)
    net = Net(Attend(is_causal=True)).double()
    x = torch.randn(B, T, E, dtype=torch.float64)
    monkeypatch.setattr(attention, "LEAST_QUERIES", 1)
    monkeypatch.setattr(attention, "MOST_ENTRIES", B * HEADS * T * 3)
    with torch.no_grad():
        q, k, _ = net.blocks[0].parts(net.embed(x))
    asked = [1, 3, 5]
    added = as_added(torch.ones(T, T, dtype=torch.bool).tril())
    frame, _ = measured(net, x)
    wanted = explicit((q @ k.transpose(2, 3) / D**0.5)[:, :, asked], added[asked])
    assert_as_explicit(frame, wanted)
    # And where one query of each example is too much, in the first examples.
    monkeypatch.setattr(attention, "MOST_ENTRIES", 2 * HEADS * T)
    torch.manual_seed(0)
    frame, _ = measured(Net(Attend(is_causal=True)).double(), x)
    wanted = explicit((q @ k.transpose(2, 3) / D**0.5)[:2, :, [5]], added[[5]])
    assert_as_explicit(frame, wanted)


@pytest.mark.parametrize(
    ("most_entries", "num_examples", "asked"),
    [(B * HEADS * T * 3, B, [1, 3, 5]), (2 * HEADS * T, 2, [5])],
)
@pytest.mark.parametrize("mask", [~SEES, BIAS, BIAS.expand(B * HEADS, T, T) * 2])
def test_of_a_long_sequence_multihead_attention_measures_the_same_queries(
    monkeypatch: pytest.MonkeyPatch,
    most_entries: int,
    num_examples: int,
    asked: list[int],
    mask: Tensor,
) -> None:
    torch.manual_seed(0)
    padding = PADDING if mask.dtype is torch.bool else as_added(~PADDING)
    call = {"attn_mask": mask, "key_padding_mask": padding}
    net = Net(Multi(call)).double()
    x = torch.randn(B, T, E, dtype=torch.float64)
    frame, _ = measured(net, x, every=1)
    monkeypatch.setattr(attention, "LEAST_QUERIES", 1)
    monkeypatch.setattr(attention, "MOST_ENTRIES", most_entries)
    torch.manual_seed(0)
    net = Net(Multi(call)).double()
    own = net.blocks[0].attention
    with torch.no_grad():
        given = net.embed(x)
        q, k, _ = F.linear(given, own.in_proj_weight, own.in_proj_bias).chunk(3, 2)
    q, k = (part.unflatten(2, (HEADS, D)).transpose(1, 2) for part in (q, k))
    added = as_added(~mask) if mask.dtype is torch.bool else mask
    added = added.view(-1, HEADS, T, T) if added.ndim == 3 else added[None, None]
    added = (added + as_added(~PADDING)[:, None, None]).expand(B, HEADS, T, T)
    logits = q @ k.transpose(2, 3) / D**0.5
    fewer, _ = measured(net, x, every=1)
    wanted = explicit(logits[:num_examples, :, asked], added[:num_examples, :, asked])
    assert_as_explicit(fewer, wanted)
    assert not np.allclose(fewer["entropy"], frame["entropy"])


def test_micro_batches_add_up_and_passes_without_a_gradient_do_not_count() -> None:
    torch.manual_seed(0)
    x = torch.randn(4, T, E, dtype=torch.float64)
    net = Net(Attend(), Attend()).double()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.0)
    frames = []
    for parts in ([x], x.split(1)):
        with Probe(net, optimizer) as probe:
            net(x + 1)
            for part in parts:
                (net(part).square().mean() / len(parts)).backward()
            optimizer.step()
            optimizer.zero_grad()
        frames.append(probe.to_frame("attention"))
    assert list(frames[0]["name"]) == ["blocks.0"] * 2 + ["blocks.1"] * 2
    pd.testing.assert_frame_equal(*frames, rtol=1e-10)


@pytest.mark.parametrize("reentrant", [False, True])
def test_a_checkpointed_call_is_measured_once(reentrant: bool) -> None:
    class Checkpointed(Net):
        def forward(self, x: Tensor) -> Tensor:
            return torch.utils.checkpoint.checkpoint(super().forward, x, use_reentrant=reentrant)

    frames = []
    for made in (Net, Checkpointed):
        torch.manual_seed(0)
        net = made(Attend()).double()
        x = torch.randn(B, T, E, dtype=torch.float64, requires_grad=True)
        frames.append(measured(net, x)[0])
    pd.testing.assert_frame_equal(*frames)


def test_what_is_not_seen_is_listed() -> None:
    torch.manual_seed(0)
    net = Net(Multi({}), Multi({})).eval()
    net.blocks[1].requires_grad_(False)
    frame, probe = measured(net, torch.randn(B, T, E))
    assert set(frame["name"]) == {"blocks.0.attention"}
    assert f"blocks.1.attention: {attention.NOT_CALLED}" in probe.unseen


def test_a_model_without_attention_is_looked_at_for_one_update() -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    num_hooks = []
    with Probe(net, optimizer, every=1, activations_every=1) as probe:
        for _ in range(2):
            num_hooks.append(len(net[1]._forward_pre_hooks))
            net(torch.ones(1, 2)).sum().backward()
            optimizer.step()
    assert num_hooks[1] < num_hooks[0]
    assert "attention" not in probe.tables
    assert not any("attention" in line for line in probe.unseen)


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.TransformerEncoderLayer(E, HEADS, 16, dropout=0.1, batch_first=True),
        lambda: Net(Attend(is_causal=True, dropout_p=0.1), Attend(dropout_p=0.2)),
    ],
    ids=["torch", "own"],
)
def test_training_is_the_same_to_the_bit(make: Callable[[], nn.Module]) -> None:
    def trained(measures: bool) -> list[Tensor]:
        torch.manual_seed(0)
        net = make()
        optimizer = torch.optim.Adam(net.parameters())
        probe = Probe(net, optimizer, every=1, activations_every=1)
        if measures:
            probe.__enter__()
        for _ in range(3):
            optimizer.zero_grad()
            net(torch.randn(B, T, E)).square().sum().backward()
            optimizer.step()
        if measures:
            probe.__exit__(None, None, None)
            assert set(probe.to_frame("attention")["step"]) == {0, 1, 2}
            assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())
        return [*net.parameters(), torch.get_rng_state()]

    pairs = zip(trained(True), trained(False), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)
