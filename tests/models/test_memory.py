"""The count of parameters against models that were built, and the refusal of what will not fit.

Holds: models/memory.py, machine.py
"""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from reference import vectors
from torch import Tensor

from vgexp import machine
from vgexp.activations import ACTIVATIONS
from vgexp.assembly import assemble
from vgexp.config import AdamConfig, Config, MlpConfig, MomentumConfig, SgdConfig, TrainConfig
from vgexp.errors import QuestionError
from vgexp.machine import available_bytes
from vgexp.models import build
from vgexp.models.memory import Need, need, num_parameters, require
from vgexp.norms import NORMS
from vgexp.skips import SKIPS

NORM_NAMES = [name for name in NORMS if name != "instance"]
CPU = torch.device("cpu")


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("depth", [1, 2, 5])
@pytest.mark.parametrize("skip", SKIPS)
def test_the_count_is_that_of_the_built_model(skip: str, depth: int, bias: bool) -> None:
    for norm, position in itertools.product(NORM_NAMES, ("pre", "post")):
        config = MlpConfig(
            depth=depth, width=6, skip=skip, norm=norm, norm_position=position, norm_groups=3
        )
        config.bias = bias
        model = build(config, vectors(7, 4), torch.float32)
        assert num_parameters(config, 7, 4) == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_an_activations_own_parameters_count(activation: str) -> None:
    config = MlpConfig(depth=3, width=6, activation=activation)
    model = build(config, vectors(7, 4), torch.float32)
    assert num_parameters(config, 7, 4) == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("skip", SKIPS)
def test_the_kept_activations_are_about_what_autograd_keeps(skip: str) -> None:
    for norm, depth in itertools.product(("none", "layer"), (1, 3, 12)):
        config = MlpConfig(depth=depth, width=32, skip=skip, norm=norm, activation="tanh")
        model = build(config, vectors(7, 4), torch.float32)
        for parameter in model.parameters():
            torch.nn.init.zeros_(parameter)
        kept: dict[int, Tensor] = {}
        own = {parameter.data_ptr() for parameter in model.parameters()}

        def keep(x: Tensor, kept: dict[int, Tensor] = kept, own: set[int] = own) -> Tensor:
            if x.untyped_storage().data_ptr() not in own:
                kept[x.untyped_storage().data_ptr()] = x
            return x

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
            output = model(torch.ones(16, 7))
        held = sum(x.numel() for x in kept.values()) + output.numel()
        estimate = need(config, vectors(7, 4), 16).num_activations
        # tanh keeps its output only, a gate several: right to a factor.
        assert held / 2.5 < estimate < held * 3, (norm, depth, held, estimate)


def test_bytes_are_parameters_gradients_states_and_activations() -> None:
    assert Need(100, 7).num_bytes(torch.float32, 2) == 4 * (100 + 100 + 200 + 7)
    assert Need(100, 7).num_bytes(torch.float64, 0) == 8 * (100 + 100 + 7)


@pytest.mark.parametrize("skip", SKIPS)
def test_a_model_of_any_size_is_counted(skip: str) -> None:
    config = MlpConfig(depth=10**9, width=10**6, skip=skip, norm="layer", activation="prelu")
    assert num_parameters(config, 64, 10) > 10**20
    assert need(config, vectors(64, 10), 64).num_activations > 10**16


def test_what_will_not_fit_is_refused_with_its_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "available_bytes", lambda _device: 3 * 2**30)
    config = MlpConfig(depth=2, width=20_000)
    asked = need(config, vectors(64, 10), 64)
    with pytest.raises(QuestionError) as caught:
        require(asked, torch.float32, CPU, 2)
    message = str(caught.value)
    assert f"{20_000 * (64 + 20_000 + 10) + 2 * 20_000 + 10:,} parameters" in message
    assert f"{asked.num_bytes(torch.float32, 2):,} bytes" in message
    assert f"{3 * 2**30:,} bytes (3.0 GiB) available on cpu" in message


def test_what_fits_passes_to_the_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    limits: dict[str, Any] = {"bytes": 4 * (4 * 100 + 7)}
    monkeypatch.setattr(machine, "available_bytes", lambda _device: limits["bytes"])
    require(Need(100, 7), torch.float32, CPU, 2)
    limits["bytes"] -= 1
    with pytest.raises(QuestionError):
        require(Need(100, 7), torch.float32, CPU, 2)
    require(Need(100, 7), torch.float32, CPU, 1)
    limits["bytes"] = None
    require(Need(10**30, 7), torch.float32, CPU, 2)


def test_a_run_is_refused_by_what_its_own_optimizer_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    config = Config(model=MlpConfig(depth=2, width=50))
    needed = need(config.model, vectors(64, 10), config.data.batch_size)
    between = needed.num_bytes(torch.float32, 1)
    monkeypatch.setattr(machine, "available_bytes", lambda _device: between)
    for optimizer, num_states in ((SgdConfig(), 0), (MomentumConfig(), 1), (AdamConfig(), 2)):
        changed = dataclasses.replace(config, optimizer=optimizer)
        if num_states <= 1:
            assemble(changed)
            continue
        with pytest.raises(QuestionError, match=f"{needed.num_bytes(torch.float32, 2):,} bytes"):
            assemble(changed)


def test_what_is_computed_again_need_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    config = Config(model=MlpConfig(depth=400, width=4))
    needed = need(config.model, vectors(64, 10), config.data.batch_size)
    # Of 400 layers, 20 segments' inputs and the 20 layers of one: a tenth.
    again = Need(needed.num_parameters, -(-needed.num_activations // 10))
    assert needed.recomputing(400) == again
    assert Need(5, 77).recomputing(1) == Need(5, 77)
    monkeypatch.setattr(
        machine, "available_bytes", lambda _device: again.num_bytes(torch.float32, 0)
    )
    with pytest.raises(QuestionError, match="checkpoint_activations=true"):
        assemble(config)
    assemble(dataclasses.replace(config, train=TrainConfig(checkpoint_activations=True)))


def test_available_memory_is_this_machines_and_unknown_elsewhere(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    found = available_bytes(CPU)
    assert found is not None
    assert 2**26 < found < 2**50
    assert available_bytes(torch.device("meta")) is None
    monkeypatch.setattr(machine, "OWN_CGROUPS", tmp_path / "absent")
    fake = tmp_path / "meminfo"
    fake.write_text("MemTotal:  99 kB\nMemAvailable:   12 kB\n")
    monkeypatch.setattr(machine, "MEMINFO", fake)
    assert available_bytes(CPU) == 12 * 1024
    monkeypatch.setattr(machine, "MEMINFO", tmp_path / "absent")
    without = available_bytes(CPU)
    assert without is not None
    assert without > 2**26


@pytest.mark.parametrize(
    ("own", "files", "expected"),
    [
        ("0::/\n", {"memory.max": "5000\n"}, 5000),
        ("0::/\n", {"memory.max": "max\n"}, 12_288),
        ("0::/\n", {}, 12_288),
        ("0::/a/b\n", {"a/b/memory.max": "max\n", "a/memory.max": "7000\n"}, 7000),
        ("0::/a/b\n", {"a/b/memory.max": "6000\n", "a/memory.max": "7000\n"}, 6000),
        ("0::/a\n", {"b/memory.max": "1\n", "a/memory.max": "99999\n"}, 12_288),
        ("4:memory:/a\n0::/\n", {"memory/a/memory.limit_in_bytes": "8000\n"}, 8000),
        ("4:cpu,memory:/gone\n", {"memory/memory.limit_in_bytes": "9000\n"}, 9000),
        ("4:memory:/\n", {"memory/memory.limit_in_bytes": f"{2**63 - 4096}\n"}, 12_288),
        ("3:cpu:/a\n", {"memory/a/memory.limit_in_bytes": "1\n"}, 12_288),
    ],
)
def test_the_least_of_free_memory_and_the_control_groups_limits_counts(
    own: str, files: dict[str, str], expected: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "meminfo").write_text("MemAvailable:   12 kB\n")
    (tmp_path / "own").write_text(own)
    for name, text in files.items():
        (tmp_path / "groups" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "groups" / name).write_text(text)
    monkeypatch.setattr(machine, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(machine, "OWN_CGROUPS", tmp_path / "own")
    monkeypatch.setattr(machine, "CGROUPS", tmp_path / "groups")
    assert available_bytes(CPU) == expected


def test_a_gpu_has_all_of_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _device: (3, 80 * 2**30))
    assert available_bytes(torch.device("cuda:1")) == 80 * 2**30
