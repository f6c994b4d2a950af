"""Activations computed again in the backward pass: equal tables, less memory.

Holds: models/network.py
"""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from trainers import BASE, assert_same, changed, collected, tables_of

import vgexp
from vgexp.assembly import assemble
from vgexp.config import AdamConfig, Config, OutputConfig, RunConfig
from vgexp.models.network import run_blocks
from vgexp.norms import NORMS
from vgexp.skips import SKIPS

DEEP = changed(BASE, model={"depth": 7, "width": 8, "norm_groups": 2}, train={"steps": 6})


def recomputing(config: Config) -> Config:
    return changed(config, train={"checkpoint_activations": True})


KINDS = [
    *[(skip, "batch", "pre") for skip in SKIPS],
    *[("residual", norm, "post") for norm in NORMS if norm != "instance"],
]


@pytest.mark.parametrize(("skip", "norm", "position"), KINDS)
def test_tables_are_the_same_cell_for_cell(skip: str, norm: str, position: str) -> None:
    model = {"skip": skip, "norm": norm, "norm_position": position, "dropout": 0.2}
    config = changed(DEEP, model=model, train={"accumulate": 2, "steps": 3})
    assert_same(tables_of(config), tables_of(recomputing(config)))


def test_files_are_the_same_byte_for_byte_and_so_after_a_resumption(tmp_path: Path) -> None:
    config = changed(
        DEEP,
        model={"norm": "batch", "dropout": 0.2, "skip": "highway"},
        optimizer=AdamConfig(),
        train={"steps": 30},
        run=RunConfig(checkpoint_every=10),
        output=OutputConfig(quiet=True),
    )
    vgexp.run(config, tmp_path / "kept")
    vgexp.run(recomputing(config), tmp_path / "again")
    for name in ("layers.csv", "steps.csv", "evals.csv", "histograms.csv"):
        one, other = (tmp_path / folder / name for folder in ("kept", "again"))
        assert one.read_bytes() == other.read_bytes(), name


@pytest.mark.parametrize("depth", [1, 2, 7])
def test_running_statistics_move_once_a_step(depth: int) -> None:
    config = changed(DEEP, model={"norm": "batch", "depth": depth}, train={"steps": 5})
    buffers = []
    for each in (config, recomputing(config)):
        trainer = assemble(each)
        own = dict(trainer.state.model.named_buffers())
        list(trainer.rows())
        buffers.append(dict(trainer.state.model.named_buffers()))
        assert all(buffers[-1][name] is own[name] for name in own), "the model has its own back"
    assert int(buffers[1]["layers.0.norm.num_batches_tracked"]) == 5
    for name in buffers[0]:
        assert torch.equal(buffers[0][name], buffers[1][name]), name


def test_masks_are_drawn_once_a_step() -> None:
    config = changed(DEEP, model={"dropout": 0.5}, train={"steps": 5})
    states = []
    for each in (config, recomputing(config)):
        trainer = assemble(each)
        list(trainer.rows())
        states.append(trainer.state.stream.state_dict()[0])
    assert torch.equal(states[0], states[1])


def test_blocks_that_are_no_modules_keep_their_statistics_too() -> None:
    norm = nn.BatchNorm1d(3, dtype=torch.float64)
    x = torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    twice = [lambda h: norm(h).tanh(), lambda h: 2 * h]
    run_blocks(twice, x.clone().requires_grad_(), True).sum().backward()
    assert int(norm.num_batches_tracked) == 1
    torch.testing.assert_close(norm.running_mean, 0.1 * x.mean(0))
    assert not torch.nn.modules.module._global_forward_pre_hooks


def test_an_error_in_the_repeated_pass_gives_the_statistics_back() -> None:
    norm, calls = nn.BatchNorm1d(3), []
    own = norm.running_mean

    def fail_the_second_time(h: Tensor) -> Tensor:
        calls.append(1)
        if len(calls) == 2:
            raise MemoryError("out of memory")
        return h.exp()

    x = torch.zeros(5, 3, requires_grad=True)
    h = run_blocks([norm, fail_the_second_time, torch.exp, torch.exp], x, True)
    with pytest.raises(MemoryError):
        h.sum().backward()
    assert norm.running_mean is own
    assert not torch.nn.modules.module._global_forward_pre_hooks


def kept_numbers(config: Config) -> int:
    """Numbers that a forward pass keeps for the backward pass, parameters left out."""
    trainer = assemble(config)
    model, (x, _) = trainer.state.model, trainer.state.batches.next()
    own = {p.data_ptr() for p in model.parameters()}
    kept: dict[int, Tensor] = {}

    def keep(t: Tensor) -> Tensor:
        if t.data_ptr() not in own:
            kept[t.data_ptr()] = t
        return t

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        model(x)
    return sum(t.numel() for t in kept.values())


def test_what_a_forward_pass_keeps_grows_as_the_root_of_the_depth() -> None:
    depths = (8, 32, 128, 512)
    kept, again = [], []
    for depth in depths:
        config = changed(DEEP, model={"depth": depth})
        kept.append(kept_numbers(config))
        again.append(kept_numbers(recomputing(config)))
    for numbers, power in ((kept, 1.0), (again, 0.5)):
        for i in range(3):
            grown = math.log(numbers[i + 1] / numbers[i]) / math.log(4)
            assert grown == pytest.approx(power, abs=0.1), numbers
    # 1,024 modules in 32 segments, of which the inputs are kept, and what the read-out keeps.
    assert again[3] <= 34 * 16 * 8


def test_evaluation_computes_nothing_again() -> None:
    trainer = assemble(recomputing(changed(DEEP, train={"steps": 1})))
    calls: list[int] = []
    trainer.state.model.layers[0].linear.register_forward_hook(  # type: ignore[union-attr,index]
        lambda *_: calls.append(torch.is_grad_enabled())
    )
    collected(trainer.rows())
    assert calls.count(True) == 2, "once forward, once backward"
    assert calls.count(False) == 5, "train and val before and after, test at the end"
