"""Named generators, and torch's own, which are lent to a run and given back.

Holds: seeds.py
"""

from __future__ import annotations

import hashlib
import itertools
import random
from contextlib import suppress

import numpy as np
import pytest
import torch
from torch import Tensor
from trainers import BASE, changed

from vgexp.assembly import assemble
from vgexp.probe import Probe
from vgexp.seeds import GlobalStream, generator, without_draws

CPU = torch.device("cpu")
DROPPING = changed(BASE, model={"dropout": 0.3})


def numbers(of: torch.Generator) -> list[float]:
    return torch.rand(4, generator=of).tolist()


def test_a_stream_depends_on_its_seed_and_its_name() -> None:
    pairs = list(itertools.product([0, 1, 2**63 - 1], ["init", "order", "dropout", "noise"]))
    streams = {pair: tuple(numbers(generator(*pair))) for pair in pairs}
    assert len(set(streams.values())) == len(pairs)
    random.shuffle(pairs)
    assert all(tuple(numbers(generator(*pair))) == streams[pair] for pair in pairs)


def test_a_stream_is_that_of_the_hash_of_seed_and_name() -> None:
    digest = hashlib.sha256(b"5/init").digest()
    seed = sum(byte << 8 * (7 - i) for i, byte in enumerate(digest[:8])) // 2
    assert numbers(generator(5, "init")) == numbers(torch.Generator().manual_seed(seed))


def test_the_global_generator_is_lent_and_given_back_as_it_was() -> None:
    torch.manual_seed(3)
    expected = torch.rand(6).tolist()
    torch.manual_seed(3)
    stream = GlobalStream(0, "dropout", CPU)
    got = torch.rand(2).tolist()
    lent = []
    for _ in range(2):
        stream.begin()
        stream.begin()
        lent += torch.rand(2).tolist()
        stream.end()
        stream.end()
        got += torch.rand(2).tolist()
    assert got == expected
    assert lent == torch.rand(4, generator=generator(0, "dropout")).tolist()


@pytest.mark.parametrize("is_lent", [False, True])
def test_a_stream_goes_on_from_a_state(is_lent: bool) -> None:
    one, other = (GlobalStream(seed, "dropout", CPU) for seed in (0, 1))
    one.begin()
    torch.rand(5)
    state = one.state_dict()
    expected = torch.rand(3).tolist()
    one.end()
    if is_lent:
        other.begin()
    other.load_state_dict(state)
    other.begin()
    assert torch.rand(3).tolist() == expected
    other.end()


@pytest.fixture
def outside() -> Tensor:
    """The state of the user's generator."""
    torch.manual_seed(11)
    torch.rand(3)
    return torch.get_rng_state()


def test_a_run_gives_the_generator_back(outside: Tensor) -> None:
    list(assemble(DROPPING).rows())
    assert torch.equal(torch.get_rng_state(), outside)


@pytest.mark.parametrize("error", [MemoryError, KeyboardInterrupt])
def test_a_run_that_fails_gives_the_generator_back(
    error: type[BaseException], outside: Tensor
) -> None:
    trainer = assemble(DROPPING)

    def fail(*_: object) -> None:
        raise error

    trainer.state.optimizer.register_step_pre_hook(fail)
    with pytest.raises(error):
        list(trainer.rows())
    assert torch.equal(torch.get_rng_state(), outside)


def test_a_probe_that_cannot_begin_gives_the_generator_back(
    outside: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = assemble(DROPPING)

    def fail(_: Probe) -> None:
        raise MemoryError

    monkeypatch.setattr(Probe, "__enter__", fail)
    with pytest.raises(MemoryError):
        list(trainer.rows())
    assert torch.equal(torch.get_rng_state(), outside)


@pytest.mark.parametrize("closes", [True, False])
def test_rows_that_nobody_asks_for_any_more_give_the_generator_back(
    closes: bool, outside: Tensor
) -> None:
    rows = assemble(changed(DROPPING, train={"eval_every": 2})).rows()
    for _ in range(4):
        next(rows)
    assert not torch.equal(torch.get_rng_state(), outside), "it is lent"
    if closes:
        rows.close()  # type: ignore[attr-defined]
    del rows
    assert torch.equal(torch.get_rng_state(), outside)


def test_two_runs_one_after_another_have_the_masks_of_each_alone() -> None:
    def losses(seed: int) -> list[float]:
        rows = assemble(changed(DROPPING, seed=seed)).rows()
        return [x for each in rows if each.table == "steps" for x in each.columns["loss"]]

    alone = losses(1)
    losses(0)
    torch.rand(1)
    assert losses(1) == alone


def test_what_is_drawn_meanwhile_is_drawn_again_afterwards() -> None:
    def draw() -> tuple[float, float, float]:
        return random.random(), np.random.rand(), float(torch.rand(()))  # noqa: NPY002

    with without_draws():
        expected = [draw() for _ in range(2)]
    assert [draw() for _ in range(2)] == expected
    with suppress(MemoryError), without_draws():
        expected = [draw() for _ in range(2)]
        raise MemoryError
    assert [draw() for _ in range(2)] == expected


def test_a_stream_is_lent_within_a_block_alone(outside: Tensor) -> None:
    stream = GlobalStream(0, "dropout", torch.device("cpu"))
    with stream.lend():
        first = torch.rand(3)
    assert torch.equal(torch.get_rng_state(), outside)
    with suppress(MemoryError), stream.lend():
        second = torch.rand(3)
        raise MemoryError
    assert torch.equal(torch.get_rng_state(), outside)
    both = torch.rand(6, generator=generator(0, "dropout"))
    assert torch.equal(torch.cat([first, second]), both)
