"""`train.checkpoint_activations` on convolutional nets: the same tables for less memory.

Holds: models/conv_net.py, models/densenet.py, models/network.py
"""

from __future__ import annotations

import math
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from reference_images import images
from torch import Tensor, nn

from vgexp import runs
from vgexp.config import (
    CnnConfig,
    Config,
    DensenetConfig,
    ModelConfig,
    OutputConfig,
    ProbeConfig,
    ResnetConfig,
    TrainConfig,
)
from vgexp.models import Network, build

MODELS = [
    CnnConfig(depth=5, width=3, norm="batch", dropout=0.2),
    CnnConfig(depth=5, width=3, norm="batch", skip="highway", activation="prelu"),
    ResnetConfig(depth=14, width=2, dropout=0.2),
    ResnetConfig(depth=20, width=2, preactivation=True, bottleneck=True, shortcut="projection"),
    DensenetConfig(depth=16, width=4, growth_rate=2, bottleneck=True, dropout=0.2),
]


@pytest.mark.parametrize("model", MODELS, ids=lambda model: type(model).__name__)
def test_tables_are_equal_byte_for_byte_and_statistics_move_once(
    model: ModelConfig, tmp_path: Path
) -> None:
    written: list[dict[str, bytes]] = []
    for recomputes in (False, True):
        config = Config(
            model=model,
            train=TrainConfig(
                steps=3, accumulate=2, eval_every=0, checkpoint_activations=recomputes
            ),
            probe=ProbeConfig(every=2, activations_every=2),
            output=OutputConfig(quiet=True),
            device="cpu",
        )
        folder = tmp_path / str(recomputes)
        runs.run(config, folder)
        tables = (path for path in folder.glob("*.csv") if path.stem != "timing")
        written.append({path.name: path.read_bytes() for path in tables})
    # Evaluations use the running statistics.
    assert set(written[0]) >= {"layers.csv", "steps.csv", "evals.csv"}
    assert written[0] == written[1]


@pytest.mark.parametrize("model", MODELS, ids=lambda model: type(model).__name__)
def test_running_statistics_move_once_in_a_pass_and_go_on_moving(model: ModelConfig) -> None:
    net = build(model, images(1, 8, 8, 4), torch.float64)
    x = torch.randn(5, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for parameter in net.parameters():
        nn.init.constant_(parameter, 0.1)
    net.recomputes = True
    for passes in (1, 2):
        net(x).sum().backward()
        moved = {name: int(v) for name, v in net.named_buffers() if name.endswith("tracked")}
        assert moved
        assert set(moved.values()) == {passes}


def most_alive(net: Network, x: Tensor) -> int:
    """The most outputs of convolutions that exist at once in a forward and a backward pass."""
    alive: list[weakref.ref[Tensor]] = []
    most = 0

    def count(*_: Any) -> None:
        nonlocal most
        alive[:] = [ref for ref in alive if ref() is not None]
        most = max(most, len(alive))

    def see(_module: nn.Module, _args: Any, output: Tensor) -> None:
        alive.append(weakref.ref(output))
        count()

    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(see)
    net(x).sum().backward()
    return most


@pytest.mark.parametrize("recomputes", [False, True])
def test_memory_grows_with_the_root_of_the_depth_instead_of_the_depth(recomputes: bool) -> None:
    found = {}
    for depth in (6 * 6 + 2, 6 * 24 + 2):
        net = build(ResnetConfig(depth=depth, width=1), images(1, 4, 4, 2), torch.float32)
        for parameter in net.parameters():
            nn.init.constant_(parameter, 0.1)
        net.recomputes = recomputes
        found[depth] = most_alive(net, torch.ones(2, 1, 4, 4))
    shallow, deep = found.values()
    if recomputes:
        assert deep / shallow < 2.6
        assert deep < 4 * math.sqrt(146)
    else:
        assert (shallow, deep) == (37, 145)
