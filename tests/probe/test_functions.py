"""Calls of functions within a model are seen, and training is left as it was.

Holds: probe/functions.py
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from vgexp import torch_internals
from vgexp.probe.functions import COMPILED, FunctionCall, FunctionWatcher


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.norm = nn.LayerNorm(4)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(self.linear(x)))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = Block(), Block()
        self.within: Callable[[Tensor], Any] = lambda _: None

    def forward(self, x: Tensor) -> Tensor:
        y = self.second(self.first(x))
        self.within(y)
        return torch.tanh(y)


class Notes(dict[str, str]):
    def __call__(self, _row: int | None, reason: str) -> None:
        self[reason] = reason


@pytest.fixture
def net() -> Net:
    torch.manual_seed(0)
    return Net()


def watcher_of(
    net: nn.Module, functions: tuple[Any, ...] = (F.relu, torch.tanh)
) -> tuple[FunctionWatcher, list[tuple[Any, nn.Module]], Notes]:
    notes, seen = Notes(), []
    watcher = FunctionWatcher(net, notes)

    def see(call: FunctionCall) -> Callable[[Any], None]:
        given = call.args[0].clone()

        def after(result: Tensor) -> None:
            assert torch.equal(result, call.function(given))
            seen.append((call.function, call.module))

        return after

    watcher.watch(functions, see)
    return watcher, seen, notes


def hooks_of(net: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in net.modules())


def modes() -> list[TorchFunctionMode]:
    return torch.overrides._get_current_function_mode_stack()


def test_calls_are_seen_with_the_module_that_made_them(net: Net) -> None:
    watcher, seen, _ = watcher_of(net)
    watcher.arm()
    net(torch.ones(2, 4))
    assert seen == [(F.relu, net.first), (F.relu, net.second), (torch.tanh, net)]
    net.second(torch.ones(2, 4))
    assert seen[3:] == [(F.relu, net.second)]
    assert modes() == []
    watcher.disarm()
    net(torch.ones(2, 4))
    assert len(seen) == 4
    assert hooks_of(net) == 0


def test_two_users_share_a_watcher(net: Net) -> None:
    watcher, seen, notes = watcher_of(net, (F.relu,))
    others: list[nn.Module] = []

    def fail(call: FunctionCall) -> None:
        others.append(call.module)
        raise ValueError("no")

    watcher.watch([F.relu], fail)
    watcher.arm()
    net(torch.ones(2, 4))
    assert [module for _, module in seen] == others == [net.first, net.second]
    assert list(notes) == ["measuring a function raised ValueError: no"]


def test_neither_passes_without_gradients_nor_repeated_calls_are_seen(net: Net) -> None:
    watcher, seen, _ = watcher_of(net)
    watcher.arm()
    with torch.no_grad():
        net(torch.ones(2, 4))
    assert seen == []
    x = torch.ones(2, 4)
    y = torch.utils.checkpoint.checkpoint(net.first, x, use_reentrant=False)
    assert len(seen) == 1
    y.sum().backward()
    assert len(seen) == 1


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_nothing_stays_after_an_error(net: Net, error: type[BaseException]) -> None:
    watcher, seen, _ = watcher_of(net)
    watcher.arm()

    def fail(_: Tensor) -> None:
        raise error

    net.within = fail
    with pytest.raises(error):
        net(torch.ones(2, 4))
    assert seen == [(F.relu, net.first), (F.relu, net.second)]
    if error is KeyboardInterrupt:
        watcher.disarm()
    assert modes() == []


def test_a_pass_after_an_interrupt_is_seen(net: Net) -> None:
    watcher, seen, _ = watcher_of(net)
    watcher.arm()

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    handle = net.second.register_forward_pre_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        net(torch.ones(2, 4))
    handle.remove()
    seen.clear()
    net(torch.ones(2, 4))
    assert seen == [(F.relu, net.first), (F.relu, net.second), (torch.tanh, net)]
    assert modes() == []


class Doubling(TorchFunctionMode):
    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None):  # type: ignore[no-untyped-def]
        return function(*args, **(kwargs or {}))


def test_a_mode_that_the_forward_pass_leaves_on_stays_on(net: Net) -> None:
    watcher, _, _ = watcher_of(net)
    watcher.arm()
    left = Doubling()
    net.within = lambda _: left.__enter__()
    net(torch.ones(2, 4))
    assert modes() == [left]
    left.__exit__(None, None, None)


def test_without_torchs_stack_the_mode_is_left_all_the_same(
    net: Net, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch_internals, "_POP_MODE", None)
    watcher, seen, _ = watcher_of(net)
    watcher.arm()
    net(torch.ones(2, 4))
    watcher.disarm()
    assert len(seen) == 3
    assert modes() == []


def test_a_compiled_model_is_left_alone(net: Net) -> None:
    net.second.compile(backend="eager")
    watcher, _, notes = watcher_of(net)
    watcher.arm()
    assert hooks_of(net) == 0
    assert list(notes) == [COMPILED]


@pytest.mark.parametrize("trains", [True, False])
def test_attention_takes_the_path_that_it_takes_without_a_watcher(trains: bool) -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
    layer.requires_grad_(trains).train(trains)
    head = nn.Linear(8, 2)
    net = nn.Sequential(layer, head)
    seen: list[nn.Module] = []
    watcher = FunctionWatcher(net, Notes())
    watcher.watch([F.multi_head_attention_forward], lambda call: seen.append(call.module))
    x = torch.randn(2, 5, 8)
    before = net(x)
    watcher.arm()
    after = net(x)
    assert torch.equal(before, after)
    assert seen == ([layer.self_attn] if trains else [])
