"""The families of attention against plain operations and against torch's own layer.

Holds: config/attention.py, models/attention/blocks.py, models/attention/embeddings.py,
models/attention/stack.py, models/attention/transformer.py, models/attention/vit.py
"""

from __future__ import annotations

import copy
import dataclasses
import itertools
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from reference_attention import Equations, rotated, sinusoids
from small_transformers import (
    BATCH,
    IMAGES,
    LABELLED,
    LENGTH,
    NUM_TOKENS,
    ONE_ANSWER,
    OUTPUTS,
    SAME,
    SMALL,
    STEPS,
    TOKENS,
    drawn,
    inputs,
)
from torch import Tensor, nn

from vgexp import inits
from vgexp.config import ModelConfig, TransformerConfig, VitConfig
from vgexp.errors import QuestionError
from vgexp.inits import INITS
from vgexp.models import Network, build, rehearsal
from vgexp.models.attention.blocks import TransformerBlock
from vgexp.models.attention.embeddings import POSITIONS, Rotary
from vgexp.models.memory import need
from vgexp.norms import NORMS
from vgexp.seeds import generator
from vgexp.skips import SKIPS
from vgexp.tasks import Task

NORM_NAMES = ("layer", "rms", "none")
SKIP_NAMES = ("residual", "scaled_residual", "rezero", "none")

CASES: list[tuple[type[Any], dict[str, Any], Task]] = [
    *[
        (TransformerConfig, {"skip": skip, "norm": norm, "norm_position": position}, TOKENS)
        for skip, norm, position in itertools.product(SKIP_NAMES, NORM_NAMES, ("pre", "post"))
    ],
    *[(TransformerConfig, {"positions": positions}, TOKENS) for positions in POSITIONS],
    *[(TransformerConfig, {"positions": positions}, STEPS) for positions in POSITIONS],
    (TransformerConfig, {"depth": 1}, ONE_ANSWER),
    (TransformerConfig, {"bias": False, "mlp_ratio": 1}, LABELLED),
    (TransformerConfig, {"tied": True}, SAME),
    (TransformerConfig, {"tied": True, "bias": False, "norm_position": "post"}, SAME),
    (VitConfig, {"patch": 2}, IMAGES),
    (VitConfig, {"patch": 2, "pool": "mean", "norm_position": "post"}, IMAGES),
    (VitConfig, {"patch": 1, "pool": "mean", "bias": False, "norm": "rms"}, IMAGES),
]


def std(x: Tensor) -> float:
    return float(x.detach().std())


def weighed(outputs: Tensor) -> Tensor:
    """A scalar in which every output counts differently."""
    weights = torch.randn(
        outputs.shape, generator=torch.Generator().manual_seed(5), dtype=outputs.dtype
    )
    return (outputs * weights).sum()


# ---------------------------------------------------------------- forward and backward


@pytest.mark.parametrize(("cls", "values", "task"), CASES)
def test_outputs_and_all_gradients_are_those_of_plain_operations(
    cls: type[Any], values: dict[str, Any], task: Task
) -> None:
    config, model = drawn(cls, values, task)
    x = inputs(task)
    p = {name: q.detach().clone().requires_grad_() for name, q in model.named_parameters()}
    outputs, expected = model(x), Equations(config, task, p)(x).output
    torch.testing.assert_close(outputs, expected, rtol=1e-10, atol=1e-11)
    gradients = torch.autograd.grad(weighed(outputs), list(model.parameters()))
    wanted = torch.autograd.grad(weighed(expected), list(p.values()))
    for name, gradient, want in zip(p, gradients, wanted, strict=True):
        torch.testing.assert_close(
            gradient, want, rtol=1e-8, atol=1e-9, msg=lambda text, name=name: f"{name}: {text}"
        )


@pytest.mark.parametrize("per_position", [True, False])
def test_answers_are_given_at_each_position_or_once(per_position: bool) -> None:
    task = Task("tokens", (LENGTH,), OUTPUTS, NUM_TOKENS, per_position=per_position)
    _, model = drawn(TransformerConfig, {}, task)
    shape = (BATCH, LENGTH, OUTPUTS) if per_position else (BATCH, OUTPUTS)
    assert model(inputs(task)).shape == shape


@pytest.mark.parametrize("norms_first", [True, False])
@pytest.mark.parametrize("causal", [True, False])
def test_a_block_is_torchs_own_layer_with_the_same_weights(norms_first: bool, causal: bool) -> None:
    width, heads, hidden = 12, 3, 24
    position = "pre" if norms_first else "post"
    config = TransformerConfig(**SMALL, activation="gelu", norm_position=position)
    block = TransformerBlock(config, None, causal=causal).double()
    theirs = nn.TransformerEncoderLayer(
        width, heads, hidden, 0.0, F.gelu, batch_first=True, norm_first=norms_first
    ).double()
    with torch.no_grad():
        for parameter in block.parameters():
            nn.init.normal_(parameter, 0.1, 0.5, generator=torch.Generator().manual_seed(1))
    ours = dict(block.state_dict())
    stacked = [f"attention.{part}" for part in ("query", "key", "value")]
    same = {
        "self_attn.out_proj": "attention.output",
        "linear1": "mlp.hidden",
        "linear2": "mlp.output",
        "norm1": "attention_norm",
        "norm2": "mlp_norm",
    }
    state = {f"{t}.{v}": ours[f"{o}.{v}"] for t, o in same.items() for v in ("weight", "bias")}
    for kind in ("weight", "bias"):
        state[f"self_attn.in_proj_{kind}"] = torch.cat([ours[f"{s}.{kind}"] for s in stacked])
    theirs.load_state_dict(state)
    x = torch.randn(BATCH, LENGTH, width, dtype=torch.float64)
    mask = nn.Transformer.generate_square_subsequent_mask(LENGTH, dtype=torch.float64)
    y, wanted = block(x), theirs(x, src_mask=mask if causal else None)
    torch.testing.assert_close(y, wanted, rtol=1e-10, atol=1e-12)
    weighed(y).backward()
    weighed(wanted).backward()
    for ours_name, theirs_name in ((o, t) for t, o in same.items()):
        torch.testing.assert_close(
            block.get_submodule(ours_name).weight.grad,
            theirs.get_submodule(theirs_name).weight.grad,
        )
    joined = torch.cat([block.get_submodule(name).weight.grad for name in stacked])
    torch.testing.assert_close(joined, theirs.self_attn.in_proj_weight.grad)


@pytest.mark.parametrize("task", [TOKENS, LABELLED])
@pytest.mark.parametrize("positions", POSITIONS)
def test_an_answer_depends_on_its_own_and_earlier_positions_and_on_each(
    positions: str, task: Task
) -> None:
    _, model = drawn(TransformerConfig, {"positions": positions}, task)
    x = inputs(task)
    before = model(x)
    for t in range(LENGTH):
        changed = x.clone()
        changed[:, t] = (x[:, t] + 1) % NUM_TOKENS if task.kind == "tokens" else x[:, t] + 1
        differs = (model(changed) - before).abs().amax((0, 2))
        assert torch.equal(differs[:t], torch.zeros(t, dtype=torch.float64))
        assert (differs[t:] > 1e-6).all()


def test_every_patch_of_an_image_reaches_the_class_token() -> None:
    _, model = drawn(VitConfig, {"patch": 2, "depth": 1}, IMAGES)
    x = inputs(IMAGES).requires_grad_()
    (reached,) = torch.autograd.grad(weighed(model(x)), x)
    assert (reached.abs() > 0).all()


# ---------------------------------------------------------------- positions


def test_rotary_turns_pairs_of_units_by_the_angles_of_its_definition() -> None:
    x = torch.randn(2, 3, 5, 8, dtype=torch.float64)
    turned = Rotary(5, 8)(x)
    torch.testing.assert_close(turned, rotated(x.flatten(0, 1)).unflatten(0, (2, 3)))
    torch.testing.assert_close(turned.norm(dim=3), x.norm(dim=3))


def test_rotary_scores_depend_on_the_distance_of_positions_only() -> None:
    q_D, k_D = torch.randn(2, 6, dtype=torch.float64)
    rotary = Rotary(9, 6)
    q, k = (rotary(x.expand(1, 1, 9, 6))[0, 0] for x in (q_D, k_D))
    scores = q @ k.T
    for distance in range(-8, 9):
        along = scores.diagonal(distance)
        torch.testing.assert_close(along, along[0].expand(len(along)))
    assert len({round(float(scores.diagonal(d)[0]), 9) for d in range(-8, 9)}) == 17


@pytest.mark.parametrize("width", [6, 7])
def test_sinusoids_are_those_of_the_paper(width: int) -> None:
    config = TransformerConfig(depth=1, width=width, heads=1, positions="sinusoidal")
    model = build(config, TOKENS, torch.float64)
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    torch.testing.assert_close(
        model.embedding(inputs(TOKENS)), sinusoids(LENGTH, width).expand(BATCH, -1, -1)
    )


def test_without_positions_earlier_tokens_can_change_places() -> None:
    # In one layer: what a second one reads depends on the order, through the mask.
    _, model = drawn(TransformerConfig, {"positions": "none", "depth": 1}, ONE_ANSWER)
    x = inputs(ONE_ANSWER)
    swapped = x[:, [2, 0, 1, 3, 4, 5]]
    torch.testing.assert_close(model(x), model(swapped))
    for positions in ("learned", "rotary", "sinusoidal"):
        _, other = drawn(TransformerConfig, {"positions": positions, "depth": 1}, ONE_ANSWER)
        assert (other(x) - other(swapped)).abs().max() > 1e-3


# ---------------------------------------------------------------- a law


def last_gradient(position: str, depth: int, seed: int) -> float:
    """Norm of dL/dW of the last perceptron's second weight, at the start."""
    task = Task("image", (1, 8, 8), 10)
    config = VitConfig(depth=depth, width=32, patch=2, norm_position=position)
    model = build(config, task, torch.float32)
    made = torch.Generator().manual_seed(seed)
    x = torch.randn(8, *task.shape, generator=made)
    inits.initialise(model, config, generator(seed, "init"), x)
    F.cross_entropy(model(x), torch.randint(10, (8,), generator=made)).backward()
    return float(model.blocks[-1].mlp.output.weight.grad.norm())


@pytest.mark.parametrize(
    ("position", "low", "high"), [("pre", -0.65, -0.35), ("post", -0.15, 0.25)]
)
def test_the_last_gradient_falls_as_one_over_the_root_of_depth_only_where_norms_come_first(
    position: str, low: float, high: float
) -> None:
    """Xiong 2020, theorem 1: O(W sqrt(ln W)) with post, O(W sqrt(ln W / L)) with pre."""
    shallow, deep = (
        math.exp(sum(math.log(last_gradient(position, depth, seed)) for seed in range(4)) / 4)
        for depth in (5, 30)
    )
    assert low < math.log(deep / shallow) / math.log(30 / 5) < high


# ---------------------------------------------------------------- dropout


@pytest.mark.parametrize(("cls", "task"), [(TransformerConfig, TOKENS), (VitConfig, IMAGES)])
def test_dropout_falls_on_the_embedded_input_and_on_each_branch(cls: type[Any], task: Task) -> None:
    values = {} if cls is TransformerConfig else {"patch": 2}
    _, plain = drawn(cls, values, task)
    _, dropping = drawn(cls, {**values, "dropout": 0.5}, task)
    x = inputs(task)
    calls: list[Tensor] = []
    for module in dropping.modules():
        if isinstance(module, nn.Dropout):
            module.register_forward_hook(lambda _module, args, _output: calls.append(args[0]))
    assert not torch.equal(dropping(x), plain(x))
    assert len(calls) == 1 + 2 * SMALL["depth"]
    assert torch.equal(calls[0], plain.embedding(x))
    torch.testing.assert_close(dropping.eval()(x), plain(x), rtol=0, atol=0)


# ---------------------------------------------------------------- building and drawing


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("cls", "values", "task"), CASES)
def test_building_draws_no_random_number_and_has_one_dtype(
    cls: type[Any], values: dict[str, Any], task: Task, dtype: torch.dtype
) -> None:
    before = torch.get_rng_state()
    model = build(cls(**{**SMALL, **values}), task, dtype)
    assert torch.equal(torch.get_rng_state(), before)
    assert {x.dtype for x in (*model.parameters(), *model.buffers())} == {dtype}


@pytest.mark.parametrize(("cls", "values", "task"), CASES)
def test_every_weight_is_watched_once_and_every_number_is_drawn(
    cls: type[Any], values: dict[str, Any], task: Task
) -> None:
    model = build(cls(**{**SMALL, **values}), task, torch.float64)
    for parameter in model.parameters():
        nn.init.constant_(parameter, math.nan)
    for module in model.modules():
        if isinstance(module, nn.LayerNorm | nn.RMSNorm):
            module.reset_parameters()
    watched = {w.name: w.weight for w in model.watches() if w.weight is not None}
    own = dict(model.named_parameters())
    tables = {"embedding.positions.table", "embedding.class_token"}
    assert set(watched) == {name for name, p in own.items() if p.ndim > 1} - tables
    assert all(watched[name] is own[name] for name in watched)
    config = cls(**{**SMALL, **values})
    inits.initialise(model, config, generator(0, "init"), inputs(task))
    undrawn = [name for name, p in own.items() if not torch.isfinite(p).all()]
    assert undrawn == [name for name in own if name.endswith("alpha")]


@torch.no_grad()
def started(config: Any, task: Task, dtype: torch.dtype = torch.float64) -> Network:
    model = build(config, task, dtype)
    inits.initialise(model, config, generator(4, "init"), inputs(task).to(dtype))
    return model


FITTED = ("lsuv", "fixup", "zero_last")
"""Inits that change what they drew."""


@pytest.mark.parametrize("init", [name for name in INITS if name not in FITTED])
def test_queries_keys_and_values_are_drawn_each_as_a_matrix_of_its_own(init: str) -> None:
    config = TransformerConfig(depth=1, width=64, heads=2, mlp_ratio=3, init=init, gain=0.5)
    model = started(config, STEPS)
    alone = {}
    for name in ("query", "key", "value"):
        weight = model.get_parameter(f"blocks.0.attention.{name}.weight")
        wanted = torch.empty(64, 64, dtype=torch.float64)
        INITS[init].draw(wanted, 0.5, generator(9, name))
        assert std(weight) == pytest.approx(std(wanted), rel=0.05)
        alone[name] = weight
    assert not torch.equal(alone["query"], alone["key"])
    wide = torch.empty(192, 64, dtype=torch.float64)
    INITS[init].draw(wide, 0.5, generator(9, "hidden"))
    hidden = model.get_parameter("blocks.0.mlp.hidden.weight")
    assert std(hidden) == pytest.approx(std(wide), rel=0.05)


@pytest.mark.parametrize("init", ["xavier_normal", "orthogonal", "he_uniform", "normal"])
@pytest.mark.parametrize("gain", [1.0, 3.0])
def test_look_ups_start_with_the_gain_as_standard_deviation_whatever_the_init(
    init: str, gain: float
) -> None:
    task = Task("tokens", (200,), 100, 100, per_position=True)
    config = TransformerConfig(depth=1, width=100, heads=2, init=init, gain=gain, tied=True)
    model = started(config, task)
    every_token = torch.arange(100).repeat(2)[None]
    embedded = model.embedding.read(every_token)
    assert std(embedded) == pytest.approx(gain, rel=0.03)
    assert std(model.embedding.positions.table) == pytest.approx(gain, rel=0.03)
    # A tied read-out of a normed stream then gives logits of that size.
    assert model.readout.weight is model.embedding.read.weight
    assert std(model.readout.weight) == pytest.approx(gain / 10, rel=0.03)
    vit = started(VitConfig(depth=1, width=100, init=init, gain=gain, patch=1), IMAGES)
    assert std(vit.embedding.class_token) == pytest.approx(gain, rel=0.2)


@pytest.mark.parametrize("init", ["xavier_normal", "he_normal", "lecun_uniform", "orthogonal"])
def test_the_patch_kernel_is_drawn_as_the_matrix_that_it_is(init: str) -> None:
    model = started(VitConfig(width=96, depth=1, patch=2, init=init), IMAGES)
    wanted = torch.empty(96, 8, dtype=torch.float64)
    INITS[init].draw(wanted, 1.0, generator(1, "patch"))
    weight = model.embedding.read.weight
    assert std(weight) == pytest.approx(std(wanted), rel=0.08)


@pytest.mark.parametrize(("cls", "values", "task"), CASES[::5])
def test_one_seed_is_one_network_in_every_dtype(
    cls: type[Any], values: dict[str, Any], task: Task
) -> None:
    config = cls(**{**SMALL, **values})
    double, single = started(config, task), started(config, task, torch.float32)
    for p, q in zip(double.parameters(), single.parameters(), strict=True):
        assert torch.equal(p.float(), q)


def test_lsuv_brings_each_weights_output_to_variance_one() -> None:
    config = TransformerConfig(**SMALL, init="lsuv")
    model, x = build(config, TOKENS, torch.float64), inputs(TOKENS, batch=64)
    inits.initialise(model, config, generator(0, "init"), x)
    stds: dict[str, float] = {}
    for watch in model.watches():
        if watch.weight is not None:
            name = watch.name.removesuffix(".weight")
            model.get_submodule(name).register_forward_hook(
                lambda _m, _a, output, name=name: stds.__setitem__(name, std(output))
            )
    model(x)
    assert len(stds) == 1 + 6 * SMALL["depth"] + 1
    assert all(value == pytest.approx(1, abs=0.06) for value in stds.values()), stds


@pytest.mark.parametrize("init", ["zero_last", "fixup"])
def test_each_block_starts_as_its_stream_where_its_halves_start_at_zero(init: str) -> None:
    config = TransformerConfig(**SMALL, init=init, skip="residual")
    model = started(config, TOKENS)
    x = inputs(TOKENS)
    stream = model.embedding(x)
    for block in model.blocks:
        assert torch.equal(block(stream), stream)
    drawn_he = started(dataclasses.replace(config, init="he_normal"), TOKENS)
    for name in ("attention.value", "mlp.hidden"):
        ours, he = (m.get_parameter(f"blocks.1.{name}.weight") for m in (model, drawn_he))
        # Four branches of two weights: L^(-1/2).
        torch.testing.assert_close(ours, he * (0.5 if init == "fixup" else 1.0))
    assert (model(x) == 0).all() == (init == "fixup")


@pytest.mark.parametrize("skip", ["none", "rezero"])
def test_without_a_stream_that_goes_on_beside_it_no_half_starts_at_zero(skip: str) -> None:
    with pytest.raises(QuestionError, match="without residual branches"):
        started(TransformerConfig(**SMALL, init="zero_last", skip=skip), TOKENS)


def test_a_copy_computes_with_its_own_modules() -> None:
    for values in ({"positions": "rotary"}, {"tied": True}):
        _, model = drawn(TransformerConfig, values, SAME)
        x, twin = inputs(SAME), copy.deepcopy(model)
        torch.testing.assert_close(twin(x), model(x))
        nn.init.zeros_(twin.watches()[0].weight)
        assert not torch.equal(twin(x), model(x))
        used = {watch.preact for watch in twin.watches()} | {watch.act for watch in twin.watches()}
        assert used - {None} <= set(twin.modules())


# ---------------------------------------------------------------- counts and memory


@pytest.mark.parametrize("pool", ["class", "mean"])
def test_a_vision_transformer_has_the_parameters_of_its_closed_form(pool: str) -> None:
    depth, width, ratio, patch = 3, 20, 3, 2
    config = VitConfig(depth=depth, width=width, heads=5, mlp_ratio=ratio, patch=patch, pool=pool)
    model = build(config, IMAGES, torch.float32)
    channels, rows, columns = IMAGES.shape
    positions = rows * columns // patch**2 + (pool == "class")
    embedding = width * (channels * patch**2 + 1) + positions * width + width * (pool == "class")
    block = 4 * (width + 1) * width + (2 * ratio * width + ratio + 1) * width + 4 * width
    expected = embedding + depth * block + 2 * width + (width + 1) * OUTPUTS
    assert sum(p.numel() for p in model.parameters()) == expected
    assert need(config, IMAGES, 8).num_parameters == expected


@pytest.mark.parametrize(("cls", "values", "task"), CASES[::4])
def test_memory_is_told_before_anything_is_allocated(
    cls: type[Any], values: dict[str, Any], task: Task
) -> None:
    config, model = drawn(cls, values, task, torch.float32)
    needed = need(config, task, 16)
    assert needed.num_parameters == sum(p.numel() for p in model.parameters())
    assert needed.num_activations == pytest.approx(rehearsal.count_kept(model, task, 16), rel=0.1)


@pytest.mark.parametrize("depth", [1, 5])
@pytest.mark.parametrize("skip", ["residual", "rezero"])
def test_the_memory_of_any_depth_is_told_from_two(skip: str, depth: int) -> None:
    config = VitConfig(**{**SMALL, "depth": depth}, skip=skip, patch=2, norm_position="post")
    assert need(config, IMAGES, 16) == rehearsal.rehearse(config, IMAGES, 16)
    assert need(VitConfig(depth=10**9, patch=2), IMAGES, 16).num_parameters > 10**13


def test_long_sequences_do_not_count_every_weight_of_attention() -> None:
    length = 2048
    task = Task("tokens", (length,), 5, 5, per_position=True)
    config = TransformerConfig(depth=1, width=16, heads=4)
    assert need(config, task, 8).num_activations < 8 * 4 * length**2 / 4


# ---------------------------------------------------------------- questions


@pytest.mark.parametrize(
    ("cls", "values", "match"),
    [
        (TransformerConfig, {"heads": 5}, "1, 2, 3, 4, 6, 12\nnearest: 4"),
        (TransformerConfig, {"heads": 0}, "model.heads is 0"),
        (TransformerConfig, {"mlp_ratio": 0}, "model.mlp_ratio is 0"),
        (TransformerConfig, {"positions": "rotory"}, "nearest: rotary"),
        (TransformerConfig, {"heads": 4, "positions": "rotary"}, "a head has 3 units"),
        (TransformerConfig, {"tied": True}, "7 tokens with 3 outputs"),
        (TransformerConfig, {"activation": "rleu"}, "nearest: relu"),
        (VitConfig, {"patch": 0}, "model.patch is 0"),
        (VitConfig, {"patch": 3}, "4 x 6\nallowed: .*: 1, 2\nnearest: 2"),
        (VitConfig, {"pool": "clas"}, "nearest: class"),
    ],
)
def test_a_wrong_name_or_value_is_a_question(
    cls: type[Any], values: dict[str, Any], match: str
) -> None:
    task = IMAGES if cls is VitConfig else TOKENS
    with pytest.raises(QuestionError, match=match):
        drawn(cls, values, task)


@pytest.mark.parametrize("skip", [name for name in SKIPS if name not in SKIP_NAMES])
def test_skips_that_a_block_does_not_have_are_refused(skip: str) -> None:
    with pytest.raises(QuestionError, match=f"'{skip}'.*\n.*\nallowed: .*\nnearest: residual"):
        drawn(VitConfig, {"skip": skip, "patch": 2}, IMAGES)


@pytest.mark.parametrize("norm", [name for name in NORMS if name not in NORM_NAMES])
def test_norms_that_mix_examples_or_positions_are_refused(norm: str) -> None:
    with pytest.raises(QuestionError, match=f"'{norm}'.*\n.*\nallowed: .*\nnearest: layer"):
        drawn(TransformerConfig, {"norm": norm}, TOKENS)


@pytest.mark.parametrize(
    ("config", "task", "match"),
    [
        (TransformerConfig(), IMAGES, "reads tokens or sequence; the data are images"),
        (TransformerConfig(tied=True), STEPS, "reason: the read-out's weight"),
        (VitConfig(), STEPS, "reads image; the data are sequences"),
        (VitConfig(), TOKENS, "reads image; the data are tokens"),
    ],
)
def test_data_that_a_family_cannot_read_are_refused(
    config: ModelConfig, task: Task, match: str
) -> None:
    with pytest.raises(QuestionError, match=match):
        build(config, task, torch.float32)
