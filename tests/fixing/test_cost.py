"""The cost of a run: counted work, in steps of the sick run.

Holds: fixing/cost.py, training/work.py
"""

from __future__ import annotations

import pytest
from small_runs import CONFIG
from trainers import changed

from vgexp.assembly import assemble
from vgexp.config import AdamConfig, Config, LstmConfig
from vgexp.fixing import cost
from vgexp.fixing.change import Change
from vgexp.fixing.cost import Cost, Costs
from vgexp.training import Trainer
from vgexp.training.work import count_work

FULL = 100


def change_of(word: str, config: Config) -> Change:
    return Change((word,), config, (1.0,))


def test_the_count_of_an_update_is_the_same_each_time_and_grows_with_the_network() -> None:
    first, again = (count_work(assemble(CONFIG).state) for _ in range(2))
    assert first == again
    deep = count_work(assemble(changed(CONFIG, model={"depth": 6})).state)
    wide = count_work(assemble(changed(CONFIG, model={"width": 64})).state)
    assert first.calls < deep.calls
    assert wide.calls == first.calls
    assert wide.size > first.size


def test_a_product_counts_its_multiplications() -> None:
    import torch

    from vgexp.training.work import PRODUCTS_PER_CALL, _num_products

    a, b = torch.ones(3, 5), torch.ones(5, 7)
    ops = torch.ops.aten
    assert _num_products(ops.mm.default, (a, b), [a @ b]) == 3 * 5 * 7
    assert _num_products(ops.addmm.default, (b[0], a, b), [a @ b]) == 3 * 5 * 7
    x, kernel = torch.ones(2, 4, 8, 8), torch.ones(6, 4, 3, 3)
    z = torch.conv2d(x, kernel)
    assert _num_products(ops.convolution.default, (x, kernel), [z]) == z.numel() * 4 * 9
    made = _num_products(ops.convolution_backward.default, (z, x, kernel), [x, kernel])
    assert made == 2 * z.numel() * 4 * 9
    assert _num_products(ops.relu.default, (x,), [x]) == 0
    assert PRODUCTS_PER_CALL > 0


def test_a_whole_sick_run_costs_as_many_steps_as_it_has() -> None:
    costs = Costs(CONFIG, assemble, FULL)
    assert costs.of_sick.of(FULL) == pytest.approx(FULL)
    assert costs.of_sick.start > 0  # evaluations, whatever the length
    assert costs.of_sick.step < 1


def test_what_changes_numbers_alone_is_not_counted_again() -> None:
    built: list[Config] = []

    def build(config: Config) -> Trainer:
        built.append(config)
        return assemble(config)

    costs = Costs(CONFIG, build, FULL)
    slow = change_of("optimizer.lr=0.001", changed(CONFIG, optimizer={"lr": 0.001}))
    assert costs.of(slow) == costs.of_sick
    assert costs.ratio(slow) == 1
    adam = change_of("optimizer=adam", changed(CONFIG, optimizer=AdamConfig(lr=0.001)))
    assert costs.ratio(adam) > 1
    assert costs.of(adam) == costs.of(adam)
    assert built == [CONFIG, adam.config]


def test_what_cannot_be_built_counts_as_the_sick_one() -> None:
    costs = Costs(CONFIG, assemble, FULL)
    assert costs.of(change_of("model=lstm", changed(CONFIG, model=LstmConfig()))) == costs.of_sick


def test_without_a_view_of_kernels_every_step_costs_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("vgexp.training.work._Counter.__torch_dispatch__", _count_nothing)
    costs = Costs(CONFIG, assemble, FULL)
    wide = change_of("model.width=64", changed(CONFIG, model={"width": 64}))
    assert costs.of_sick == costs.of(wide) == Cost()
    assert cost.Cost(2.0, 3.0).of(4) == 11


def _count_nothing(_: object, func: object, __: object, args: object = (), kwargs: object = None):  # type: ignore[no-untyped-def]
    return func(*args, **(kwargs or {}))  # type: ignore[operator, misc]
