"""Blocks of a user's model are recognised, and their streams have the true signal.

The truth is the root mean square of N dL/d(block output), in float64, from hooks of the test's own.

Holds: probe/blocks.py
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from reference import measured_rows
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from users_rows import Row

from vgexp import Probe, diagnose
from vgexp.probe.unseen import NO_ACTIVATION

pytestmark = pytest.mark.usefixtures("seeded")


def streams_of(
    model: nn.Module,
    forward: Callable[[], Tensor],
    *,
    layers: str | None = None,
    steps: int = 2,
) -> tuple[list[Row], Probe]:
    """The rows of step 0. At each step every stream has the true signal of its block's output."""
    model.double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    modules = dict(model.named_modules())
    grads: dict[str, list[Tensor]] = {}

    def keep(name: str) -> Callable[..., None]:
        def on_output(_module: nn.Module, _args: Any, output: Any) -> None:
            z = output if isinstance(output, Tensor) else output[0]
            if z.requires_grad:
                z.register_hook(lambda grad: grads.setdefault(name, []).append(grad))

        return on_output

    for name, module in modules.items():
        module.register_forward_hook(keep(name))
    true: list[dict[str, float]] = []
    with Probe(model, optimizer, every=1, activations_every=1, layers=layers) as probe:
        for _ in range(steps):
            grads.clear()
            optimizer.zero_grad()
            forward().backward()
            optimizer.step()
            joined = {name: torch.cat([g.flatten() for g in seen]) for name, seen in grads.items()}
            true.append(
                {n: NUM_EXAMPLES * seen.square().mean().sqrt().item() for n, seen in joined.items()}
            )
    every = [rows_of(probe, step) for step in range(steps)]
    for rows, of_step in zip(every, true, strict=True):
        for row in rows:
            if row["kind"] == "stream":
                wanted = of_step.get(row["name"])
                assert row["delta_rms"] == (wanted and pytest.approx(wanted, rel=1e-10))
                assert (row["preact_std"] is None) == (row["name"] not in of_step)
                assert (row["weight_norm"], row["grad_norm"]) == (None, None)
    names = [[(row["name"], row["layer"]) for row in rows] for rows in every]
    assert all(other == names[0] for other in names)
    return every[0], probe


def rows_of(probe: Probe, step: int) -> list[Row]:
    """The rows of a step; None where a cell is empty."""
    frame = probe.to_frame()
    of_step = frame[frame["step"] == step].astype(object)
    return list(of_step.where(of_step.notna(), None).to_dict("records"))


NUM_EXAMPLES = 6


def path_of(rows: list[Row]) -> list[tuple[int, str]]:
    """The first row of each layer."""
    path: dict[int, str] = {}
    for row in rows:
        if row["layer"] is not None:
            path.setdefault(row["layer"], row["name"])
    return list(path.items())


def layers_of(rows: list[Row]) -> dict[str, int | None]:
    return {row["name"]: row["layer"] for row in rows}


class Scaled(nn.Module):
    """A pre-norm block with LayerScale, as ConvNeXt's and CaiT's."""

    def __init__(self, gamma: float, width: int = 32) -> None:
        super().__init__()
        self.n, self.act = nn.LayerNorm(width), nn.GELU()
        self.f1, self.f2 = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.g = nn.Parameter(gamma * torch.ones(1, width))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.g * self.f2(self.act(self.f1(self.n(x))))


def scaled_net(gamma: float, depth: int = 4) -> nn.Sequential:
    blocks = [Scaled(gamma) for _ in range(depth)]
    return nn.Sequential(nn.Linear(16, 32), *blocks, nn.LayerNorm(32), nn.Linear(32, 4))


def classify(model: nn.Module, *shape: int) -> Callable[[], Tensor]:
    x, y = torch.randn(NUM_EXAMPLES, *shape).double(), torch.arange(NUM_EXAMPLES) % 4
    return lambda: F.cross_entropy(model(x), y)


@pytest.mark.parametrize("gamma", [1e-6, 1.0])
def test_a_net_with_layer_scale_is_steady_since_its_streams_are(gamma: float) -> None:
    model = scaled_net(gamma)
    rows, probe = streams_of(model, classify(model, 16))
    assert path_of(rows) == [
        (1, "0.weight"),
        *[(layer, f"{layer - 1}") for layer in range(2, 6)],
        (6, "6.weight"),
    ]
    layers = layers_of(rows)
    for block in range(1, 5):
        inside = [layers[f"{block}.{name}"] for name in ("g", "f1.weight", "f2.weight")]
        assert inside == [block + 1] * 3
    by_layer = [row["name"] for row in rows if row["layer"] == 2]
    assert by_layer == ["1", "1.f1.weight", "1.f2.weight", "1.g"]
    said = diagnose(probe.to_frame()).sentence
    assert "is steady at step 0" in said
    deltas = [row["delta_rms"] for row in rows if row["kind"] == "stream"]
    gains = [row["backward_gain"] for row in rows if row["kind"] == "stream"]
    assert gains[:-1] == pytest.approx([a / b for a, b in itertools.pairwise(deltas)], rel=1e-12)


class Basic(nn.Module):
    """A residual block of convolutions that may change the shape."""

    def __init__(self, inputs: int, outputs: int, *, in_place: bool, down_first: bool) -> None:
        super().__init__()
        stride = 1 if inputs == outputs else 2
        if inputs != outputs and down_first:
            self.down = nn.Conv2d(inputs, outputs, 1, stride)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1)
        self.relu = nn.ReLU(inplace=in_place)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1)
        if inputs != outputs and not down_first:
            self.down = nn.Conv2d(inputs, outputs, 1, stride)
        self.down_first = down_first

    def forward(self, x: Tensor) -> Tensor:
        if not hasattr(self, "down"):
            out = self.conv2(self.relu(self.conv1(x)))
            out += x
        elif self.down_first:
            beside = self.down(x)
            out = self.conv2(self.relu(self.conv1(x))) + beside
        else:
            out = self.conv2(self.relu(self.conv1(x)))
            out = out + self.down(x)
        return self.relu(out)


@pytest.mark.parametrize("in_place", [True, False])
@pytest.mark.parametrize("down_first", [True, False])
def test_blocks_of_a_residual_net_are_found_with_those_that_change_the_shape(
    in_place: bool, down_first: bool
) -> None:
    def basic(inputs: int, outputs: int) -> nn.Module:
        return Basic(inputs, outputs, in_place=in_place, down_first=down_first)

    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, 1, 1),
        nn.ReLU(inplace=in_place),
        nn.Sequential(basic(4, 4), basic(4, 4)),
        nn.Sequential(basic(4, 8), basic(8, 8)),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 4),
    )
    rows, _ = streams_of(model, classify(model, 3, 8, 8))
    names = ["2.0", "2.1", "3.0", "3.1"]
    assert path_of(rows) == [
        (1, "0.weight"),
        *enumerate(names, start=2),
        (6, "6.weight"),
    ]
    assert layers_of(rows)["3.0.down.weight"] == 4


class PostNorm(nn.Module):
    """As BERT's layer: the attention's part is a module that carries too, the rest is not."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.attention = PostNormAttention(width)
        self.intermediate, self.output = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> tuple[Tensor, None]:
        h = self.attention(x)
        return self.norm(h + self.output(F.gelu(self.intermediate(h)))), None


class PostNormAttention(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(width, width) for _ in range(4))
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        z = F.scaled_dot_product_attention(self.q(x), self.k(x), self.v(x))
        return self.norm(x + self.o(z))


class Encoder(nn.Module):
    """Calls its blocks by keyword, and takes the first of what they return."""

    def __init__(self, blocks: list[nn.Module], use_reentrant: bool | None = None) -> None:
        super().__init__()
        self.blocks, self.use_reentrant = nn.ModuleList(blocks), use_reentrant

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            if self.use_reentrant is None:
                out = block(x=x)
            else:
                out = checkpoint(block, x, use_reentrant=self.use_reentrant)
            x = out if isinstance(out, Tensor) else out[0]
        return x


class Classifier(nn.Module):
    def __init__(self, encoder: nn.Module, width: int = 8) -> None:
        super().__init__()
        self.stem, self.encoder, self.head = nn.Linear(5, width), encoder, nn.Linear(width, 4)

    def forward(self, x_BTD: Tensor) -> Tensor:
        return self.head(self.encoder(self.stem(x_BTD)).mean(1))


@pytest.mark.parametrize("use_reentrant", [None, True, False])
def test_a_post_norm_layer_is_one_block_with_and_without_checkpoints(
    use_reentrant: bool | None,
) -> None:
    model = Classifier(Encoder([PostNorm() for _ in range(3)], use_reentrant))
    rows, probe = streams_of(model, classify(model, 7, 5))
    assert path_of(rows) == [
        (1, "stem.weight"),
        *[(index + 2, f"encoder.blocks.{index}") for index in range(3)],
        (5, "head.weight"),
    ]
    assert [row["kind"] for row in rows][-1] == "readout"
    assert all(row["layer"] is not None for row in rows)
    # Functions between the weights are no activation of theirs; nothing else is missing.
    assert all(NO_ACTIVATION in line for line in probe.unseen)


def test_a_checkpointed_net_has_the_rows_of_the_one_without() -> None:
    kept = []
    for use_reentrant in (None, True, False):
        torch.manual_seed(1)
        model = Classifier(Encoder([PostNorm() for _ in range(3)], use_reentrant))
        rows, _ = streams_of(model, classify(model, 7, 5))
        kept.append([(row["layer"], row["name"], row["delta_rms"]) for row in rows])
    assert kept[1] == kept[0]
    assert kept[2] == kept[0]


class OneSublayer(nn.Module):
    """x + f(norm(x))."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.norm, self.f = nn.LayerNorm(width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.tanh(self.f(self.norm(x)))


class TwoSublayers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = OneSublayer(), OneSublayer()

    def forward(self, x: Tensor) -> Tensor:
        return self.two(self.one(x))


class Wrapped(nn.Module):
    """A wrapper that adds no shortcut of its own, or one."""

    def __init__(self, has_shortcut: bool) -> None:
        super().__init__()
        self.inner, self.has_shortcut = OneSublayer(), has_shortcut

    def forward(self, x: Tensor) -> Tensor:
        out = self.inner(x)
        return x + 0.1 * out if self.has_shortcut else out


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (TwoSublayers, ["0.one", "0.two", "1.one", "1.two"]),
        (lambda: Wrapped(has_shortcut=False), ["0.inner", "1.inner"]),
        (lambda: Wrapped(has_shortcut=True), ["0", "1"]),
    ],
    ids=["sublayers", "wrapper", "wrapper with a shortcut"],
)
def test_a_module_that_only_holds_blocks_is_none(
    make: Callable[[], nn.Module], names: list[str]
) -> None:
    model = Classifier(Encoder([make(), make()]))
    rows, _ = streams_of(model, classify(model, 7, 5))
    expected = [f"encoder.blocks.{name}" for name in names]
    assert [row["name"] for row in rows if row["kind"] == "stream"] == expected
    assert [layer for layer, _ in path_of(rows)] == list(range(1, len(names) + 3))


def test_the_encoder_of_torch_has_a_stream_for_each_layer() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, 0.0, batch_first=True)
    model = Classifier(nn.TransformerEncoder(layer, 3, nn.LayerNorm(8)))
    rows, probe = streams_of(model, classify(model, 7, 5))
    assert path_of(rows) == [
        (1, "stem.weight"),
        *[(index + 2, f"encoder.layers.{index}") for index in range(3)],
        (5, "head.weight"),
    ]
    layers = layers_of(rows)
    for index in range(3):
        inside = f"encoder.layers.{index}"
        for name in ("self_attn.in_proj_weight", "self_attn.out_proj.weight", "linear1.weight"):
            assert layers[f"{inside}.{name}"] == index + 2
    assert "layer 1 gets" in diagnose(probe.to_frame()).sentence


class Positional(nn.Module):
    """An encoder that has a convolution of positions before its blocks, as Wav2Vec2's."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(8, 8, 3, padding=1)
        self.blocks = nn.ModuleList([OneSublayer() for _ in range(3)])

    def forward(self, x: Tensor) -> Tensor:
        x = x + torch.tanh(self.conv(x.transpose(1, 2)).transpose(1, 2))
        for block in self.blocks:
            x = block(x)
        return x


def test_a_weight_before_the_blocks_of_an_encoder_does_not_make_one_block_of_it() -> None:
    model = Classifier(Positional())
    rows, _ = streams_of(model, classify(model, 7, 5))
    names = [f"encoder.blocks.{index}" for index in range(3)]
    assert [row["name"] for row in rows if row["kind"] == "stream"] == names
    # The shortcut that leads round it is the encoder's own.
    assert layers_of(rows)["encoder.conv.weight"] is None


class FreeInside(nn.Module):
    """An attention block with a table of biases, whose projections are used as functions."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(7, 7))
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.unused = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = F.linear(x, self.qkv.weight, self.qkv.bias).chunk(3, -1)
        z = (q @ k.transpose(1, 2) + self.table).softmax(-1) @ v
        return x + F.linear(z, self.proj.weight, self.proj.bias)


def test_what_a_block_uses_without_calling_it_has_the_blocks_number() -> None:
    model = Classifier(Encoder([FreeInside(), FreeInside()]))
    rows, _ = streams_of(model, classify(model, 7, 5))
    assert path_of(rows) == [
        (1, "stem.weight"),
        (2, "encoder.blocks.0"),
        (3, "encoder.blocks.1"),
        (4, "head.weight"),
    ]
    for index in range(2):
        inside = {
            row["name"].rpartition("blocks.")[2]: row["layer"]
            for row in rows
            if f"blocks.{index}." in row["name"]
        }
        assert inside == {
            f"{index}.table": index + 2,
            f"{index}.qkv.weight": index + 2,
            f"{index}.proj.weight": index + 2,
            f"{index}.unused.weight": None,
        }


def test_a_block_that_is_called_again_has_one_row_over_all_calls() -> None:
    block = OneSublayer()

    class Repeated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block = block

        def forward(self, x: Tensor) -> Tensor:
            for _ in range(3):
                x = self.block(x)
            return x

    model = Classifier(Repeated())
    rows, probe = streams_of(model, classify(model, 7, 5))
    assert path_of(rows) == [(1, "stem.weight"), (2, "encoder.block"), (3, "head.weight")]
    (line,) = [line for line in probe.unseen if "used 3 times" in line]
    assert line.startswith("encoder.block.f.weight, encoder.block: ")


class Dropping(nn.Module):
    """Leaves out blocks at some steps."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([PostNorm() for _ in range(5)])
        self.left_out: set[int] = set()

    def forward(self, x: Tensor) -> Tensor:
        for index, block in enumerate(self.blocks):
            if index not in self.left_out:
                x = block(x)[0]
        return x


@pytest.mark.parametrize("left_out", [{0}, {1, 2}, {2}, {4}, {0, 1, 3, 4}])
def test_blocks_that_the_first_pass_leaves_out_have_their_place_from_the_start(
    left_out: set[int],
) -> None:
    dropping = Dropping()
    model = Classifier(dropping)
    loss = classify(model, 7, 5)
    steps = iter([left_out, {0, 1, 2, 3, 4} - left_out, set()])

    def forward() -> Tensor:
        dropping.left_out = next(steps)
        return loss()

    rows, probe = streams_of(model, forward, steps=3)
    names = [f"encoder.blocks.{index}" for index in range(5)]
    assert [name for _, name in path_of(rows)] == ["stem.weight", *names, "head.weight"]
    assert [layer for layer, _ in path_of(rows)] == list(range(1, 8))
    measured = [[row["delta_rms"] for row in rows_of(probe, step)] for step in range(3)]
    assert None in measured[0]
    assert None not in measured[2]


def test_an_excitation_within_a_chain_is_carried_past_and_counts_once() -> None:
    class Excite(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.down, self.up = nn.Linear(8, 2), nn.Linear(2, 8)

        def forward(self, x: Tensor) -> Tensor:
            return x * torch.sigmoid(self.up(torch.relu(self.down(x.mean(1, keepdim=True)))))

    chain = nn.Sequential(nn.Linear(8, 8), Excite(), nn.Tanh(), nn.Linear(8, 8))
    model = Classifier(chain)
    rows, _ = streams_of(model, classify(model, 7, 5))
    assert [name for _, name in path_of(rows)] == [
        "stem.weight",
        "encoder.0.weight",
        "encoder.1",
        "encoder.3.weight",
        "head.weight",
    ]


def test_a_chain_has_no_streams() -> None:
    model = Classifier(nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh()))
    rows, _ = streams_of(model, classify(model, 7, 5))
    assert [row["kind"] for row in rows] == ["linear", "linear", "linear", "readout"]


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        (r"^2$|^3$", ["2", "3"]),
        (r"^2", ["2", "2.f1.weight", "2.f2.weight", "2.g"]),
        (r"f1", [f"{index}.f1.weight" for index in range(1, 5)]),
    ],
)
def test_a_pattern_chooses_streams_by_name_and_gains_are_measured_all_the_same(
    pattern: str, names: list[str]
) -> None:
    model = scaled_net(1.0)
    kept = {name: value.double().clone() for name, value in model.state_dict().items()}
    loss = classify(model, 16)
    whole, _ = streams_of(model.double(), loss)
    model.load_state_dict(kept)
    rows, _ = streams_of(model, loss, layers=pattern)
    assert [row["name"] for row in rows] == names
    wanted = {row["name"]: (row["layer"], row["backward_gain"]) for row in whole}
    for row in rows:
        layer, gain = wanted[row["name"]]
        assert row["layer"] == layer
        assert row["backward_gain"] == (gain and pytest.approx(gain, rel=1e-10))


@pytest.mark.parametrize("accumulate", [1, 3])
def test_streams_are_measured_over_micro_batches(accumulate: int) -> None:
    model = scaled_net(1.0).double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    x, y = torch.randn(6, 16).double(), torch.arange(6) % 4
    grads: list[Tensor] = []
    model[2].register_forward_hook(lambda _m, _a, z: z.register_hook(grads.append) and None)
    with Probe(model, optimizer, every=1, activations_every=1) as probe:
        for _ in range(3):
            grads.clear()
            optimizer.zero_grad()
            for part, of_part in zip(x.chunk(accumulate), y.chunk(accumulate), strict=True):
                (F.cross_entropy(model(part), of_part) / accumulate).backward()
            optimizer.step()
            row = next(row for row in measured_rows(probe) if row["name"] == "2")
            true = 6 * torch.cat(grads).square().mean().sqrt().item()
            assert row["delta_rms"] == pytest.approx(true, rel=1e-10)


def test_a_decoder_that_is_fed_with_vectors_does_not_vanish() -> None:
    """Its head reads the last of 64 positions: what that costs is not the blocks' doing."""

    class Fed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.ModuleList([PostNorm() for _ in range(4)])
            self.head = nn.Linear(8, 4)

        def forward(self, x_BTD: Tensor) -> Tensor:
            for block in self.blocks:
                x_BTD = block(x_BTD)[0]
            return self.head(x_BTD[:, -1])

    model = Fed()
    rows, probe = streams_of(model, classify(model, 64, 8))
    # The first block's input has no gradient, so that only its class tells that it is one.
    assert [name for _, name in path_of(rows)] == [
        *[f"blocks.{i}" for i in range(4)],
        "head.weight",
    ]
    assert "is steady at step 0" in diagnose(probe.to_frame()).sentence


def test_zeroed_last_weights_of_branches_leave_the_streams_as_they_are() -> None:
    model = scaled_net(1.0)
    for index in range(1, 5):
        nn.init.zeros_(model[index].f2.weight)
    rows, probe = streams_of(model, classify(model, 16), steps=1)
    assert layers_of(rows)["1"] == 2
    deltas = [row["delta_rms"] for row in rows if row["kind"] == "stream"]
    assert deltas == pytest.approx([deltas[0]] * 4, rel=1e-10)
    assert "is steady" in diagnose(probe.to_frame()).sentence


def test_a_zeroed_read_out_is_told_as_what_it_is() -> None:
    model = scaled_net(1.0)
    nn.init.zeros_(model[-1].weight)
    _, probe = streams_of(model, classify(model, 16))
    diagnosis = diagnose(probe.to_frame())
    assert diagnosis.first.signal is None
    assert "the read-out's weight is 0, so nothing is sent back at this step" in diagnosis.sentence
    assert "vanish" not in diagnosis.sentence
