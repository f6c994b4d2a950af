"""Batches: every epoch has each example at most once, in an order that a state brings back.

Holds: data/batches.py
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from vgexp.data import Split
from vgexp.data.batches import Batches, full
from vgexp.errors import QuestionError
from vgexp.seeds import generator


def make_split(num_examples: int) -> Split:
    targets = torch.arange(num_examples)
    return Split(torch.stack([targets * 10.0, targets + 0.5], dim=1), targets)


def stream(num_examples: int = 11, batch_size: int = 3, seed: int = 0) -> Batches:
    return Batches(make_split(num_examples), batch_size, generator(seed, "order"))


def take(batches: Batches, num_batches: int) -> list[list[int]]:
    return [batches.next()[1].tolist() for _ in range(num_batches)]


def test_inputs_and_targets_of_a_batch_belong_together() -> None:
    batches = stream()
    for _ in range(7):
        x, y = batches.next()
        assert x.shape == (3, 2)
        assert torch.equal(x, torch.stack([y * 10.0, y + 0.5], dim=1))


def test_an_epoch_shows_each_example_at_most_once_and_drops_the_partial_batch() -> None:
    batches = stream()
    assert batches.per_epoch == 3
    for _ in range(5):
        shown = [i for batch in take(batches, 3) for i in batch]
        assert len(shown) == len(set(shown)) == 9


def test_every_epoch_has_another_order_and_over_epochs_none_is_left_out() -> None:
    batches = stream()
    epochs = [take(batches, 3) for _ in range(30)]
    assert len({str(epoch) for epoch in epochs}) == 30
    assert {i for epoch in epochs for batch in epoch for i in batch} == set(range(11))


def test_the_order_is_the_generator_s_permutation() -> None:
    expected = torch.randperm(11, generator=generator(5, "order")).tolist()
    assert take(stream(seed=5), 3) == [expected[:3], expected[3:6], expected[6:9]]


def test_epoch_counts_those_complete_before_the_next_batch() -> None:
    batches = stream()
    epochs = []
    for _ in range(7):
        epochs.append(batches.epoch)
        batches.next()
    assert epochs == [0, 0, 0, 1, 1, 1, 2]


def test_a_batch_of_the_whole_split_is_one_epoch() -> None:
    batches = stream(batch_size=11)
    assert batches.per_epoch == 1
    assert sorted(take(batches, 1)[0]) == list(range(11))
    assert batches.epoch == 1


def test_too_few_examples_for_a_batch_are_an_error_that_names_both_numbers() -> None:
    with pytest.raises(QuestionError, match=r"data\.batch_size is 12\n.*11.*training examples"):
        stream(batch_size=12)


@pytest.mark.parametrize("stop", range(8))
def test_a_loaded_stream_goes_on_with_the_same_batches(stop: int) -> None:
    whole = take(stream(), stop + 10)
    first = stream()
    before = take(first, stop)
    state = first.state_dict()
    take(first, 5)
    second = stream(seed=9)
    second.load_state_dict(state)
    assert second.epoch == stop // 3
    assert before + take(second, 10) == whole


@pytest.mark.parametrize("num_before", [0, 1, 3, 4])
def test_a_look_at_the_next_batch_changes_none(num_before: int) -> None:
    looked_at, other = stream(), stream()
    take(looked_at, num_before)
    ((seen, _),) = looked_at.peek(1)
    ((again, _),) = looked_at.peek(1)
    following = take(looked_at, 8)
    assert take(other, num_before + 8)[num_before:] == following
    assert torch.equal(seen, again)
    third = stream()
    take(third, num_before)
    assert torch.equal(third.next()[0], seen)


def test_a_stream_can_be_loaded_into_twice_and_in_the_middle_of_an_epoch() -> None:
    batches = stream()
    take(batches, 4)
    state = batches.state_dict()
    once = take(batches, 7)
    batches.load_state_dict(state)
    assert take(batches, 7) == once
    batches.load_state_dict(state)
    assert take(batches, 7) == once


def test_the_global_generator_is_left_alone() -> None:
    before = torch.get_rng_state()
    take(stream(), 9)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(("batch_size", "sizes"), [(4, [4, 4, 3]), (11, [11]), (50, [11])])
def test_a_full_pass_is_in_order_and_drops_nothing(batch_size: int, sizes: list[int]) -> None:
    split = make_split(11)
    passed: list[tuple[Tensor, Tensor]] = list(full(split, batch_size))
    assert [len(y) for _, y in passed] == sizes
    assert torch.equal(torch.cat([x for x, _ in passed]), split.inputs)
    assert torch.equal(torch.cat([y for _, y in passed]), split.targets)


def test_a_full_pass_over_an_empty_split_has_no_batch() -> None:
    assert list(full(make_split(0), 4)) == []
