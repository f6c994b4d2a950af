"""What the probe learns of a user's model on its first measured pass: the read-out, which weights
stand side by side, which lie on branches, and which have no place on the path.

Axes: B examples, T positions, D units.

Holds: probe/calls.py, probe/discovery.py, probe/graph.py, probe/layout.py, probe/numbering.py,
probe/placing.py, probe/plan.py, probe/readouts.py
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from reference import measured_rows
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from torch.utils.checkpoint import checkpoint
from users_rows import Row, numbers, reasons

from vgexp import Probe, diagnose
from vgexp.probe.graph import maker_of

pytestmark = pytest.mark.usefixtures("seeded")


def learnt(
    model: nn.Module,
    forward: Callable[[], Tensor],
    *,
    layers: str | None = None,
    steps: int = 1,
) -> tuple[list[Row], Probe]:
    """The rows of the last step, and the probe. `forward` makes the loss."""
    model.double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with Probe(model, optimizer, every=1, activations_every=1, layers=layers) as probe:
        for _ in range(steps):
            optimizer.zero_grad()
            forward().backward()
            optimizer.step()
        frame = probe.to_frame()
    return measured_rows_of(frame), probe


def measured_rows_of(frame: Any) -> list[Row]:
    last = frame[frame["step"] == frame["step"].max()]
    none = last.astype(object).where(last.notna(), None)
    return list(none.to_dict("records"))


def readouts(rows: list[Row]) -> list[str]:
    return [row["name"] for row in rows if row["kind"] == "readout"]


# ---------------------------------------------------------------- read-outs


class Sixteen(nn.Module):
    """Two hidden layers, a mean over 200 positions, and a head with small weights."""

    def __init__(self, end: Callable[[Tensor, Tensor], Any], outputs: int = 1) -> None:
        super().__init__()
        self.a, self.b, self.h = nn.Linear(16, 16), nn.Linear(16, 16), nn.Linear(16, outputs)
        nn.init.normal_(self.h.weight, std=0.02)
        self.end = end
        self.log_softmax = nn.LogSoftmax(-1)

    def forward(self, x_BTD: Tensor) -> Any:
        features = torch.tanh(self.b(torch.tanh(self.a(x_BTD)))).mean(1)
        return self.end(self.h(features), features)


@dataclass
class Answer:
    loss: Tensor
    logits: Tensor


class Holder:
    """An object of no known kind."""

    def __init__(self, logits: Tensor) -> None:
        self.logits = logits


ENDS: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "plain": lambda z, _: z,
    "squeeze": lambda z, _: z.squeeze(-1),
    "view": lambda z, _: z.view(-1),
    "transposed": lambda z, _: z.transpose(0, 1),
    "sigmoid": lambda z, _: torch.sigmoid(z),
    "log_softmax": lambda z, _: F.log_softmax(z, 0),
    "float": lambda z, _: z.float(),
    "double": lambda z, _: z.float().double(),
    "scaled": lambda z, _: 3 * z + 1,
    "in place": lambda z, _: z.mul_(2),
    "loss first": lambda z, _: (z.square().mean(), z),
    "features first": lambda z, features: (features, z),
    "features last": lambda z, features: {"logits": z, "hidden": [features]},
    "dictionary": lambda z, _: {"loss": z.square().mean(), "logits": z},
    "dataclass": lambda z, _: Answer(z.square().mean(), z),
    "namespace": lambda z, _: SimpleNamespace(extra="text", logits=z),
    "object": lambda z, _: ("first", {"inner": Holder(z)}),
    "distribution": lambda z, _: torch.distributions.Normal(z, 1.0),
}


def logits_of(value: Any) -> Tensor:
    """The last tensor of an output."""
    if isinstance(value, Tensor):
        return value
    if isinstance(value, dict):
        value = value.get("logits", value.get("inner"))
    elif isinstance(value, tuple):
        value = value[-1]
    else:
        value = value.loc if isinstance(value, torch.distributions.Normal) else value.logits
    return logits_of(value)


@pytest.mark.parametrize("end", ENDS)
def test_the_read_out_is_found_behind_whatever_makes_the_output_of_it(end: str) -> None:
    model = Sixteen(ENDS[end]).double()
    x, y = torch.randn(8, 200, 16).double(), torch.randn(8).double()
    rows, probe = learnt(model, lambda: F.mse_loss(logits_of(model(x)).reshape(-1).double(), y))
    assert numbers(rows) == {"a.weight": 1, "b.weight": 2, "h.weight": 3}
    assert readouts(rows) == ["h.weight"]
    assert "is steady" in diagnose(probe.to_frame()).sentence


def test_a_module_of_log_softmax_at_the_end_leaves_the_read_out_where_it_is() -> None:
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3), nn.LogSoftmax(-1))
    x = torch.randn(6, 4).double()
    rows, _ = learnt(model, lambda: F.nll_loss(model(x), torch.arange(6) % 3))
    assert readouts(rows) == ["2.weight"]


def test_a_convolution_can_be_the_read_out() -> None:
    model = nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.ReLU(), nn.Conv2d(3, 1, 3, padding=1))
    x = torch.randn(2, 1, 5, 5).double()
    rows, _ = learnt(model, lambda: (model(x).sigmoid() - x).square().mean())
    assert [(row["layer"], row["kind"]) for row in rows] == [(1, "conv"), (2, "readout")]


def test_encoder_and_decoder_that_are_called_by_the_loop_end_in_a_read_out() -> None:
    model = nn.ModuleList(
        [nn.Sequential(nn.Linear(4, 3), nn.Tanh()), nn.Sequential(nn.Linear(3, 4))]
    )
    x = torch.randn(6, 4).double()
    rows, _ = learnt(model, lambda: (model[1](model[0](x)) - x).square().mean())
    assert numbers(rows) == {"0.0.weight": 1, "1.0.weight": 2}
    assert readouts(rows) == ["1.0.weight"]


class Heads(nn.Module):
    """A trunk with two heads, of which one has a hidden layer of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk, self.policy = nn.Linear(4, 6), nn.Linear(6, 3)
        self.hidden, self.value = nn.Linear(6, 5), nn.Linear(5, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = torch.tanh(self.trunk(x))
        return self.policy(h), self.value(torch.tanh(self.hidden(h)))


def test_each_of_several_heads_is_a_read_out_and_they_share_the_last_number() -> None:
    model = Heads()
    x = torch.randn(6, 4).double()
    rows, _ = learnt(model, lambda: sum(out.square().mean() for out in model(x)))
    assert readouts(rows) == ["policy.weight", "value.weight"]
    assert numbers(rows) == {
        "trunk.weight": 1,
        "hidden.weight": 2,
        "policy.weight": 3,
        "value.weight": 3,
    }


class FunctionalHead(nn.Module):
    """The output is a product with the matrix of another module, which no module computes."""

    def __init__(self, *, reads_embedding: bool) -> None:
        super().__init__()
        self.embedding, self.a, self.b = nn.Embedding(9, 4), nn.Linear(4, 4), nn.Linear(4, 4)
        self.reads_embedding = reads_embedding

    def forward(self, tokens_BT: Tensor) -> Tensor:
        h = torch.tanh(self.b(torch.tanh(self.a(self.embedding(tokens_BT)))))
        return F.linear(h, self.embedding.weight if self.reads_embedding else self.a.weight)


@pytest.mark.parametrize("reads_embedding", [True, False])
def test_a_function_with_the_matrix_of_another_module_is_the_read_out(
    reads_embedding: bool,
) -> None:
    model = FunctionalHead(reads_embedding=reads_embedding)
    tokens = torch.arange(12).reshape(3, 4) % 4
    rows, _ = learnt(model, lambda: F.cross_entropy(model(tokens).flatten(0, 1), tokens.flatten()))
    tied = ["embedding.weight.T" if reads_embedding else "a.weight.T"]
    assert readouts(rows) == tied
    expected = {"embedding.weight": 1, "a.weight": 2, "b.weight": 3, **dict.fromkeys(tied, 4)}
    assert numbers(rows) == expected


@pytest.mark.parametrize("use_reentrant", [True, False])
def test_the_read_out_of_a_checkpointed_model_is_found(use_reentrant: bool) -> None:
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 5), nn.Tanh(), nn.Linear(5, 3))
    x = torch.randn(6, 4).double().requires_grad_()
    rows, _ = learnt(
        model, lambda: checkpoint(model, x, use_reentrant=use_reentrant).square().mean()
    )
    assert numbers(rows) == {"0.weight": 1, "2.weight": 2, "4.weight": 3}
    assert readouts(rows) == ["4.weight"]


# ---------------------------------------------------------------- side by side, on branches


class Inline(nn.Module):
    """Residuals that no module's output carries."""

    def __init__(self, gamma: float) -> None:
        super().__init__()
        self.stem, self.head = nn.Linear(4, 6), nn.Linear(6, 3)
        self.f = nn.ModuleList([nn.Linear(6, 6) for _ in range(3)])
        self.gamma = nn.Parameter(gamma * torch.ones(3, 6))

    def forward(self, x: Tensor) -> Tensor:
        h = self.stem(x)
        for i, f in enumerate(self.f):
            h = h + self.gamma[i] * torch.tanh(f(h))
        return self.head(h)


def test_weights_that_a_shortcut_leads_round_have_no_number_and_are_listed() -> None:
    model = Inline(1e-6)
    x = torch.randn(6, 4).double()
    rows, probe = learnt(model, lambda: model(x).square().mean())
    on_branches = [f"f.{i}.weight" for i in range(3)]
    assert numbers(rows) == {
        "stem.weight": 1,
        "head.weight": 2,
        **dict.fromkeys(["gamma", *on_branches]),
    }
    for name in on_branches:
        assert "on a branch: a shortcut leads round" in reasons(probe)[name]
        assert "no module's output carries the sum" in reasons(probe)[name]
    diagnosis = diagnose(probe.to_frame())
    assert diagnosis.first.signal is None
    assert "no path of layers can be told" in diagnosis.sentence
    assert "vanish" not in diagnosis.sentence
    assert "explode" not in diagnosis.sentence


class InlineExcitation(nn.Module):
    """A squeeze-and-excite gate that the model's own forward pass computes."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.down, self.up, self.b = (nn.Linear(6, 6) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.a(x))
        return self.b(h * torch.sigmoid(self.up(torch.relu(self.down(h.mean(1, keepdim=True))))))


def test_weights_of_a_gate_are_off_the_path() -> None:
    model = InlineExcitation()
    x = torch.randn(3, 5, 6).double()
    rows, _ = learnt(model, lambda: model(x).square().mean())
    assert numbers(rows) == {
        "a.weight": 1,
        "b.weight": 2,
        "down.weight": None,
        "up.weight": None,
    }


class Dense(nn.Module):
    """Each layer reads all that came before, joined."""

    def __init__(self) -> None:
        super().__init__()
        self.f = nn.ModuleList([nn.Linear(4 * (i + 1), 4) for i in range(3)])
        self.out = nn.Linear(16, 2)

    def forward(self, x: Tensor) -> Tensor:
        seen = [x]
        for f in self.f:
            seen.append(torch.tanh(f(torch.cat(seen, -1))))
        return self.out(torch.cat(seen, -1))


def test_densely_connected_layers_are_one_after_another() -> None:
    model = Dense()
    x = torch.randn(6, 4).double().requires_grad_()
    rows, _ = learnt(model, lambda: model(x).square().mean())
    assert numbers(rows) == {
        "f.0.weight": 1,
        "f.1.weight": 2,
        "f.2.weight": 3,
        "out.weight": 4,
    }


class Shortcut(nn.Module):
    """A linear shortcut that is called after the branch, or before it."""

    def __init__(self, is_first: bool) -> None:
        super().__init__()
        self.stem, self.head = nn.Linear(4, 6), nn.Linear(5, 3)
        self.one, self.two, self.down = nn.Linear(6, 5), nn.Linear(5, 5), nn.Linear(6, 5)
        self.is_first = is_first

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.stem(x))
        if self.is_first:
            beside = self.down(h)
            return self.head(self.two(torch.tanh(self.one(h))) + beside)
        return self.head(self.two(torch.tanh(self.one(h))) + self.down(h))


@pytest.mark.parametrize("is_first", [True, False])
def test_what_reads_the_same_stands_side_by_side_whenever_it_is_called(is_first: bool) -> None:
    model = Shortcut(is_first)
    x = torch.randn(6, 4).double()
    rows, _ = learnt(model, lambda: model(x).square().mean())
    assert numbers(rows) == {
        "stem.weight": 1,
        "one.weight": 2,
        "down.weight": 2,
        "two.weight": 3,
        "head.weight": 4,
    }


class Columns(nn.Module):
    """An embedding for each of several columns."""

    def __init__(self) -> None:
        super().__init__()
        self.columns = nn.ModuleList([nn.Embedding(5, 3) for _ in range(4)])
        self.hidden, self.out = nn.Linear(12, 4), nn.Linear(4, 2)

    def forward(self, x_BC: Tensor) -> Tensor:
        h = torch.cat([e(x) for e, x in zip(self.columns, x_BC.unbind(1), strict=True)], -1)
        return self.out(torch.tanh(self.hidden(h)))


def test_embeddings_of_several_columns_are_layer_1_together() -> None:
    model = Columns()
    x = torch.arange(24).reshape(6, 4) % 5
    rows, _ = learnt(model, lambda: model(x).square().mean())
    layers = [row["layer"] for row in rows]
    assert layers == [1, 1, 1, 1, 2, 3]


class Adversaries(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.generator = nn.Sequential(nn.Linear(3, 6), nn.ReLU(), nn.Linear(6, 4))
        self.critic = nn.Sequential(
            nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 1)
        )


@pytest.mark.parametrize("is_detached", [True, False])
def test_what_reads_a_detached_output_comes_after_it(is_detached: bool) -> None:
    model = Adversaries().double()
    x = torch.randn(6, 3).double()

    def loss() -> Tensor:
        made = model.generator(x)
        return model.critic(made.detach() if is_detached else made).square().mean()

    rows, probe = learnt(model, loss)
    assert [row["layer"] for row in rows] == [1, 2, 3, 4, 5]
    assert readouts(rows) == ["critic.4.weight"]
    said = diagnose(probe.to_frame()).sentence
    if is_detached:
        assert "layer 3 gets" in said
        assert "what layer 4 gets (layers 1 to 2 have none)" in said
    else:
        assert "layer 1 gets" in said


# ---------------------------------------------------------------- frozen, adapted


@pytest.mark.parametrize("num_frozen", [1, 2])
def test_frozen_first_layers_keep_their_numbers_and_the_others_are_compared(
    num_frozen: int,
) -> None:
    model = nn.Sequential(
        *[module for _ in range(4) for module in (nn.Linear(6, 6), nn.Tanh())], nn.Linear(6, 3)
    )
    for index in range(num_frozen):
        model[2 * index].requires_grad_(False)
    x = torch.randn(9, 6).double()
    rows, probe = learnt(model, lambda: model(x).square().mean())
    assert [row["layer"] for row in rows] == [1, 2, 3, 4, 5]
    deltas = [row["delta_rms"] for row in rows]
    said = diagnose(probe.to_frame()).sentence
    assert f"layer {num_frozen + 1} gets" in said
    assert ("layer 1 has none" if num_frozen == 1 else "layers 1 to 2 have none") in said
    found = diagnose(probe.to_frame()).first
    assert found.attenuation == pytest.approx(deltas[num_frozen] / deltas[3], rel=1e-12)


class Adapted(nn.Module):
    """A frozen layer with a trained correction of low rank, which is 0 at the start."""

    def __init__(self) -> None:
        super().__init__()
        self.base = nn.Linear(6, 6).requires_grad_(False)
        self.down, self.up = nn.Linear(6, 2, bias=False), nn.Linear(2, 6, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + self.up(self.down(x))


def test_frozen_weights_with_adapters_are_the_main_path() -> None:
    model = nn.Sequential(
        nn.Linear(6, 6).requires_grad_(False),
        *[module for _ in range(3) for module in (Adapted(), nn.Tanh())],
        nn.Linear(6, 3),
    )
    x = torch.randn(9, 6).double()
    rows, probe = learnt(model, lambda: model(x).square().mean())
    by_name = {row["name"]: row for row in rows}
    assert [by_name[f"{i}.base.weight"]["layer"] for i in (1, 3, 5)] == [2, 4, 6]
    assert by_name["3.base.weight"]["delta_rms"] == by_name["3.up.weight"]["delta_rms"] > 0
    assert by_name["3.base.weight"]["grad_norm"] is None
    assert by_name["1.base.weight"]["delta_rms"] is None
    assert by_name["1.down.weight"]["delta_rms"] == 0
    diagnosis = diagnose(probe.to_frame())
    assert diagnosis.first.signal == "steady"
    assert "what layer 7 gets (layers 1 to 2 have none)" in diagnosis.sentence


# ---------------------------------------------------------------- free parameters


class WithPosition(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.l = nn.ModuleList([nn.Linear(16, 16) for _ in range(3)])
        self.head, self.pos = nn.Linear(16, 4), nn.Parameter(torch.zeros(1, 16))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.pos
        for layer in self.l:
            x = torch.tanh(layer(x))
        return self.head(x)


def test_a_free_parameter_of_the_model_takes_no_number() -> None:
    model = WithPosition()
    x = torch.randn(6, 16).double()
    rows, probe = learnt(model, lambda: model(x).square().mean())
    assert numbers(rows) == {
        "pos": None,
        "l.0.weight": 1,
        "l.1.weight": 2,
        "l.2.weight": 3,
        "head.weight": 4,
    }
    assert all(row["backward_gain"] is not None for row in rows[:3])
    assert "layer 1 gets" in diagnose(probe.to_frame()).sentence


def test_a_leaf_whose_weight_a_function_uses_keeps_its_number() -> None:
    class TwoWeights(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.v, self.w = nn.Parameter(torch.randn(5, 4)), nn.Parameter(torch.randn(5, 4))

        def forward(self, x: Tensor) -> Tensor:
            return F.linear(x, self.v) * torch.sigmoid(F.linear(x, self.w))

    model = nn.Sequential(nn.Linear(4, 4), TwoWeights(), nn.Linear(5, 2))
    x = torch.randn(6, 4).double()
    rows, _ = learnt(model, lambda: model(x).square().mean())
    assert numbers(rows) == {"0.weight": 1, "1.v": 2, "1.w": 2, "2.weight": 3}


# ---------------------------------------------------------------- weights made of others


PARAMETRIZED: dict[str, Callable[[nn.Linear], nn.Module]] = {
    "weight_norm": parametrizations.weight_norm,
    "spectral_norm": parametrizations.spectral_norm,
    "orthogonal": parametrizations.orthogonal,
}


@pytest.mark.parametrize("kind", PARAMETRIZED)
def test_a_linear_whose_weight_is_computed_has_z(kind: str) -> None:
    made = PARAMETRIZED[kind]
    model = nn.Sequential(
        made(nn.Linear(5, 5)), nn.Tanh(), made(nn.Linear(5, 5)), nn.Tanh(), nn.Linear(5, 3)
    ).double()
    x = torch.randn(6, 5).double()
    zs: list[Tensor] = []
    for index in (0, 2, 4):
        model[index].register_forward_hook(lambda _m, _a, z: z.retain_grad() or zs.append(z))
    rows, probe = learnt(model, lambda: model(x).square().mean())
    shown = [row for row in rows if row["delta_rms"] is not None]
    true = [6 * z.grad.square().mean().sqrt().item() for z in zs]
    assert [row["layer"] for row in shown] == [1, 2, 3]
    assert [row["delta_rms"] for row in shown] == pytest.approx(true, rel=1e-10)
    if kind == "weight_norm":
        names = [row["name"].rpartition(".")[2] for row in rows]
        assert names == ["original1", "original0", "original1", "original0", "weight"]
        assert "a part of what a weight is computed from" in reasons(probe)[rows[1]["name"]]
    assert "layer 1 gets" in diagnose(probe.to_frame()).sentence


def test_a_linear_with_a_submodule_without_weights_has_z() -> None:
    class Rounded(nn.Linear):
        def __init__(self, *sizes: int) -> None:
            super().__init__(*sizes)
            self.fake = nn.Identity()

        def forward(self, x: Tensor) -> Tensor:
            return F.linear(x, self.fake(self.weight), self.bias)

    model = nn.Sequential(Rounded(4, 4), nn.Tanh(), Rounded(4, 2))
    x = torch.randn(6, 4).double()
    rows, probe = learnt(model, lambda: model(x).square().mean())
    assert [row["kind"] for row in rows] == ["linear", "readout"]
    assert all(row["delta_rms"] is not None for row in rows)
    assert probe.unseen == []


# ---------------------------------------------------------------- tied


@pytest.mark.parametrize("is_embedding_first", [True, False])
def test_vectors_and_logits_of_a_tied_matrix_are_told_apart(is_embedding_first: bool) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            if is_embedding_first:
                self.wte = nn.Embedding(50, 4)
            self.mid, self.lm_head = nn.Linear(4, 4), nn.Linear(4, 50, bias=False)
            if not is_embedding_first:
                self.wte = nn.Embedding(50, 4)
            self.lm_head.weight = self.wte.weight

        def forward(self, tokens: Tensor) -> Tensor:
            return self.lm_head(torch.tanh(self.mid(self.wte(tokens))))

    model = Tied().double()
    tokens = torch.arange(12).reshape(3, 4)
    seen: list[Tensor] = []
    model.wte.register_forward_hook(lambda _m, _a, z: z.retain_grad() or seen.append(z))
    rows, _ = learnt(model, lambda: F.cross_entropy(model(tokens).flatten(0, 1), tokens.flatten()))
    assert [(row["layer"], row["name"], row["kind"]) for row in rows] == [
        (1, "wte.weight", "linear"),
        (2, "mid.weight", "linear"),
        (3, "lm_head.weight", "readout"),
    ]
    true = 3 * seen[0].grad.square().mean().sqrt().item()
    assert rows[0]["delta_rms"] == pytest.approx(true, rel=1e-10)
    with_weights = 0 if is_embedding_first else 2
    for index in (0, 2):
        is_empty = [rows[index][c] is None for c in ("weight_norm", "grad_norm", "update_ratio")]
        assert is_empty == [index != with_weights] * 3


# ---------------------------------------------------------------- training is left alone


def test_training_is_bit_identical_and_no_hook_is_left() -> None:
    def losses(is_probed: bool) -> tuple[list[float], Tensor, int]:
        with torch.random.fork_rng():
            torch.manual_seed(3)
            layer = nn.TransformerEncoderLayer(8, 2, 16, 0.1, batch_first=True)
            model = nn.Sequential(nn.Linear(4, 8), nn.TransformerEncoder(layer, 2), nn.Linear(8, 2))
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
            x = torch.randn(3, 5, 4)
            probe = Probe(model, optimizer, every=1, activations_every=2)
            made = []
            for step in range(4):
                if step == 0 and is_probed:
                    probe.__enter__()
                optimizer.zero_grad()
                loss = model(x).square().mean()
                loss.backward()
                optimizer.step()
                made.append(loss.item())
            if is_probed:
                probe.__exit__(None, None, None)
                assert len(measured_rows(probe)) > 0
            hooks = sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())
            return made, torch.get_rng_state(), hooks

    (plain, state, none), (probed, state_probed, left) = losses(False), losses(True)
    assert probed == plain
    assert torch.equal(state, state_probed)
    assert (none, left) == (0, 0)


@pytest.mark.parametrize(
    ("function", "maker"),
    [
        (lambda x: x.sigmoid().squeeze(-1), "SigmoidBackward0"),
        (lambda x: x.softmax(1).half().reshape(-1)[3:], "SoftmaxBackward0"),
        (lambda x: x.tanh() * 2, "MulBackward0"),
        (lambda x: x.T, None),
        (lambda x: x.tanh().detach(), None),
    ],
)
def test_what_made_a_tensor_is_seen_through_views_and_casts(
    function: Callable[[Tensor], Tensor], maker: str | None
) -> None:
    assert maker_of(function(torch.zeros(4, 1, requires_grad=True))) == maker


@pytest.mark.parametrize(("norm_first", "position"), [(False, "post"), (True, "pre")])
def test_where_norms_stand_is_read_off_what_made_the_blocks_outputs(
    norm_first: bool, position: str
) -> None:
    layers = [
        nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, norm_first=norm_first)
        for _ in range(2)
    ]
    net = nn.Sequential(nn.Linear(4, 8), *layers, nn.Linear(8, 3))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    with Probe(net, optimizer) as probe:
        net(torch.randn(2, 5, 4)).square().mean().backward()
        optimizer.step()
    assert probe.gather({}).settings["model.norm_position"] == position


def test_without_attention_nobody_asks_where_norms_stand() -> None:
    net = nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.Linear(8, 3))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    with Probe(net, optimizer) as probe:
        net(torch.randn(2, 5, 4)).square().mean().backward()
        optimizer.step()
    assert "model.norm_position" not in probe.gather({}).settings
