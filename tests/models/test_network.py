"""What every model of ours is: blocks that are computed again, streams, meters, memory.

Holds: models/network.py, watch.py
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vgexp import models
from vgexp.config import ModelConfig
from vgexp.inits import initialise
from vgexp.models import memory, rehearsal
from vgexp.models.network import Network, linear, run_blocks
from vgexp.probe import Probe
from vgexp.records import Rows
from vgexp.seeds import generator
from vgexp.tasks import Task
from vgexp.watch import Meter, Watch

WIDTH = 5


class Means:
    """A meter of the blocks' mean outputs."""

    table = "evals"

    def __init__(self, blocks: nn.ModuleList) -> None:
        self._blocks = blocks
        self._hooks: list[Any] = []
        self._seen: list[Tensor] = []
        self.arms = 0

    def arm(self) -> None:
        if not self._hooks:
            self.arms += 1
            see = lambda _m, _a, output: self._seen.append(output.detach().mean())  # noqa: E731
            self._hooks = [block.register_forward_hook(see) for block in self._blocks]

    def disarm(self) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks, self._seen = [], []

    def take(
        self, step: int, num_examples: int, loss_scale: Tensor | float
    ) -> Callable[[], Rows] | None:
        assert (num_examples, loss_scale) == (6, 1.0)
        seen, self._seen = self._seen, []
        return lambda: Rows("evals", {"step": [step] * len(seen), "loss": [float(x) for x in seen]})


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = linear(WIDTH, WIDTH, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.tanh(self.inner(x))


class Streams(Network):
    """Two residual blocks, whose outputs are no weight's own z."""

    def __init__(self, num_outputs: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block() for _ in range(2))
        self.readout = linear(WIDTH, num_outputs, bias=True)
        self.means = Means(self.blocks)

    def forward(self, x: Tensor) -> Tensor:
        return self.readout(run_blocks(list(self.blocks), x, self.recomputes))

    def watches(self) -> list[Watch]:
        found = []
        for k, block in enumerate(self.blocks):
            name, weight = f"blocks.{k}", block.inner.weight
            found.append(Watch(name, None, k + 1, "stream", preact=block))
            inner = Watch(f"{name}.inner.weight", weight, k + 1, "linear", preact=block.inner)
            found.append(inner)
        return [*found, Watch("readout.weight", self.readout.weight, 3, "readout", self.readout)]

    def meters(self) -> list[Meter]:
        return [self.means]

    def special_draws(self) -> Mapping[str, Any]:
        return {
            "blocks.0.inner.weight": lambda weight, gain, _generator: weight.fill_(gain / 7),
            "blocks.1.inner.bias": lambda bias, _gain, _generator: bias.fill_(0.5),
        }


class InitConfig:
    init = "he_normal"
    gain = 2.0
    bias_std = 0.0


@pytest.fixture
def model() -> Streams:
    made = Streams(3).double()
    initialise(made, InitConfig(), generator(0, "init"), torch.zeros(2, WIDTH))
    return made


def trained(model: Streams) -> tuple[Probe, list[Tensor], list[Tensor]]:
    """Two steps of which the first is measured; the streams of the first and dL/d of them."""
    generator_ = generator(1, "data")
    x = torch.randn(6, WIDTH, generator=generator_, dtype=torch.float64)
    y = torch.randint(3, (6,), generator=generator_)
    streams: list[Tensor] = []
    h = x
    for block in model.blocks:
        h = h + torch.tanh(F.linear(h, block.inner.weight, block.inner.bias))
        streams.append(h)
    loss = F.cross_entropy(F.linear(h, model.readout.weight, model.readout.bias), y)
    gradients = list(torch.autograd.grad(loss, streams))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    probe = Probe(
        model,
        optimizer,
        every=2,
        activations_every=2,
        watches=model.watches(),
        meters=model.meters(),
    )
    with probe:
        for _ in range(2):
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
    return probe, [stream.detach() for stream in streams], gradients


def test_a_stream_has_the_columns_of_z_and_is_what_gains_are_measured_by(model: Streams) -> None:
    probe, streams, gradients = trained(model)
    frame = probe.to_frame().set_index("name")
    assert list(frame["layer"]) == [1, 1, 2, 2, 3]
    deltas = [float((6 * g).square().mean().sqrt()) for g in gradients]
    for k in range(2):
        row = frame.loc[f"blocks.{k}"]
        assert row["kind"] == "stream"
        assert row["preact_mean"] == pytest.approx(float(streams[k].mean()), rel=1e-12)
        assert row["preact_std"] == pytest.approx(float(streams[k].std(correction=0)), rel=1e-12)
        assert row["delta_rms"] == pytest.approx(deltas[k], rel=1e-12)
        assert row[["weight_norm", "grad_norm", "update_ratio", "act_mean"]].isna().all()
    gains = frame["backward_gain"]
    assert gains["blocks.0"] == pytest.approx(deltas[0] / deltas[1], rel=1e-12)
    inner = frame.loc["blocks.0.inner.weight", "delta_rms"]
    assert gains["blocks.0.inner.weight"] == pytest.approx(inner / deltas[1], rel=1e-12)


def test_a_meter_sees_the_measured_steps_only_and_leaves_nothing_behind(model: Streams) -> None:
    probe, streams, _ = trained(model)
    rows = [rows for rows in probe.drain() if rows.table == "evals"]
    assert [list(each.columns["step"]) for each in rows] == [[0, 0]]
    expected = [float(x.mean()) for x in streams]
    assert rows[0].columns["loss"] == pytest.approx(expected, rel=1e-12)
    assert model.means.arms == 2, "the third step would have been measured"
    assert not any(block._forward_hooks for block in model.blocks)


def test_a_frame_is_of_the_layers_only(model: Streams) -> None:
    probe, _, _ = trained(model)
    assert set(probe.to_frame()["step"]) == {0}
    assert len(probe.to_frame()) == 5


def test_what_a_model_draws_in_its_own_way_is_drawn_so(model: Streams) -> None:
    first, second = model.blocks[0].inner, model.blocks[1].inner
    assert torch.equal(first.weight, torch.full_like(first.weight, 2 / 7))
    assert torch.equal(second.bias, torch.full_like(second.bias, 0.5))
    assert not second.weight.eq(second.weight[0, 0]).all()
    assert not first.bias.any()


@pytest.mark.parametrize("num_blocks", [1, 4, 10, 36])
def test_blocks_that_are_computed_again_keep_as_much_as_a_root_of_their_number(
    num_blocks: int,
) -> None:
    blocks = nn.ModuleList(Block() for _ in range(num_blocks)).double()
    for parameter in blocks.parameters():
        nn.init.constant_(parameter, 0.01)
    x = torch.ones(2, WIDTH, dtype=torch.float64, requires_grad=True)
    kept: list[list[Tensor]] = [[], []]
    results = []
    for recomputes in (False, True):

        def keep(saved: Tensor, into: list[Tensor] = kept[recomputes]) -> Tensor:
            into.append(saved)
            return saved

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda saved: saved):
            output = run_blocks(list(blocks), x, recomputes)
        # Of different memory: torch 2.8 keeps an empty tensor beside each input.
        forward_only = len({saved.data_ptr() for saved in kept[recomputes] if saved.numel()})
        (gradient,) = torch.autograd.grad(output.sum(), x)
        results.append((output, gradient, forward_only))
    (output, gradient, plain), (output_again, gradient_again, few) = results
    assert torch.equal(output, output_again)
    assert torch.equal(gradient, gradient_again)
    assert plain >= num_blocks
    assert few <= -(-num_blocks // max(1, int(num_blocks**0.5)))


def test_the_memory_of_a_family_is_known_by_a_rehearsal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rehearsal, "make", lambda _config, task: Streams(task.num_outputs))
    needed = memory.need(ModelConfig(), Task("vector", (WIDTH,), 3), 10)
    model = Streams(3)
    assert needed.num_parameters == sum(p.numel() for p in model.parameters())
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    kept = {}

    def keep(x: Tensor) -> Tensor:
        if x.data_ptr() not in {p.data_ptr() for p in model.parameters()}:
            kept[x.data_ptr()] = x
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        model(torch.zeros(10, WIDTH))
    assert needed.num_activations == sum(x.numel() for x in kept.values())


def test_every_family_is_a_network() -> None:
    assert issubclass(models.Mlp, Network)


def test_no_two_classes_of_models_have_one_name() -> None:
    folder = Path(models.__file__).parent
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in sorted(folder.rglob("*.py"))]
    names = [n.name for tree in trees for n in ast.walk(tree) if isinstance(n, ast.ClassDef)]
    assert len(names) > 30
    assert len(names) == len(set(names))
