"""N, the factor of delta_rms, is that of the call, however the model is called.

Holds: probe/examples.py, probe/micro_batches.py
"""

from __future__ import annotations

from collections import UserDict, namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from reference import measured_rows
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_sequence

from vgexp import Probe
from vgexp.errors import QuestionError
from vgexp.probe.examples import Examples


class Reads(nn.Module):
    """A linear layer over whatever `of` makes of the call."""

    def __init__(self, of: Callable[..., Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(4, 3)
        self.of = of

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        return self.linear(self.of(*args, **kwargs))


def factor(
    model: nn.Module, *args: Any, examples: Any = None, repeats: int = 1, **kwargs: Any
) -> tuple[int, list[str]]:
    """N as it is in `delta_rms`, and what `unseen` says of N."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    deltas = []
    for reduction in ("mean", "sum"):
        with Probe(model, optimizer, loss_reduction=reduction, examples=examples) as probe:
            for _ in range(repeats):
                out = model(*args, **kwargs)
                (out[0] if isinstance(out, tuple) else out).square().sum().backward()
            optimizer.step()
            optimizer.zero_grad()
        deltas.append(measured_rows(probe)[-1]["delta_rms"])
    return round(deltas[0] / deltas[1]), [line for line in probe.unseen if line.startswith("N:")]


@dataclass
class Graph:
    """As a batch of a graph library: x of all nodes, and how many graphs there are."""

    x: Tensor
    num_graphs: int | None = None


class Holder:
    def __init__(self, **held: Any) -> None:
        vars(self).update(held)


Pair = namedtuple("Pair", ["mask", "pixel_values"])
X = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))


def images(*sizes: int) -> list[Tensor]:
    return [torch.ones(3, size, 4) for size in sizes]


def stacked(given: list[Tensor]) -> Tensor:
    return torch.stack([x.mean((0, 1)) for x in given])


CASES: dict[str, tuple[Callable[..., Tensor], tuple[Any, ...], dict[str, Any], int]] = {
    "a tensor": (lambda x: x, (X,), {}, 6),
    "a dictionary": (lambda b: b["x"], ({"x": X},), {}, 6),
    "a UserDict": (lambda b: b["input_ids"], (UserDict(input_ids=X),), {}, 6),
    "keywords": (lambda **k: k["x"], (), {"x": X}, 6),
    "positions first": (
        lambda **k: k["input_ids"],
        (),
        {"position_ids": torch.arange(9)[None], "input_ids": X},
        6,
    ),
    "unnamed positions first": (lambda _, x: x, (torch.zeros(1, 9), X), {}, 6),
    "a time first": (lambda _, x: x, (torch.tensor(0.5), X), {}, 6),
    "images of one size": (stacked, (images(8, 8),), {}, 2),
    "images of many sizes": (stacked, (images(8, 5, 7),), {}, 3),
    "images and targets": (
        lambda x, _: stacked(x),
        (images(8, 8), [{"boxes": torch.ones(5, 4)}] * 2),
        {},
        2,
    ),
    "sequences of many lengths": (
        lambda xs: torch.stack([x.mean(0) for x in xs]),
        ([torch.ones(2, 4), torch.ones(5, 4)],),
        {},
        2,
    ),
    "several inputs": (lambda xs: xs[0] + xs[1], ([X, X],), {}, 6),
    "a batch of graphs": (lambda g: g.x, (Graph(X, 2),), {}, 2),
    "a graph": (lambda g: g.x, (Graph(X),), {}, 6),
    "an object": (lambda o: o.tensors, (Holder(tensors=X, mask=X[:1]),), {}, 6),
    "a named tuple": (lambda p: p.pixel_values, (Pair(torch.ones(9, 9), X),), {}, 6),
    "texts": (lambda texts: torch.ones(len(texts), 4), (["a", "b", "c"],), {}, 3),
    "most agree": (lambda _, b, c: b + c, (torch.ones(5, 5), X, X), {}, 6),
}


@pytest.mark.parametrize("case", CASES)
def test_n_of_common_calls_is_right_by_itself(case: str) -> None:
    of, args, kwargs, wanted = CASES[case]
    examples, told = factor(Reads(of), *args, **kwargs)
    assert examples == wanted
    assert len(told) == (case == "most agree")


def test_nested_tensors_are_as_many_examples_as_they_are_tensors() -> None:
    nested = torch.nested.nested_tensor([torch.ones(2, 4), torch.ones(3, 4)], layout=torch.jagged)
    of = Reads(lambda n: torch.stack([x.mean(0) for x in n.unbind()]))
    assert factor(of, nested) == (2, [])


@pytest.mark.parametrize("cls", [nn.LSTM, nn.GRU, nn.RNN])
def test_a_packed_sequence_has_as_many_examples_as_sequences(cls: type[nn.RNNBase]) -> None:
    class Packed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn, self.head = cls(4, 5), nn.Linear(5, 3)

        def forward(self, x: Any) -> Tensor:
            return self.head(self.rnn(x)[0].data)

    given = pack_sequence([torch.ones(5, 4), torch.ones(3, 4), torch.ones(2, 4)])
    assert factor(Packed(), given) == (3, [])


def test_a_recurrent_net_of_which_the_last_state_alone_is_read_is_measured() -> None:
    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn, self.head = nn.LSTM(4, 5), nn.Linear(5, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.rnn(x)[1][0][-1])

    # Nothing comes back through the output, whose hook gets None.
    examples, told = factor(Last(), torch.randn(5, 8, 4))
    assert (examples, len(told)) == (8, 1)


class OverTime(nn.Module):
    def __init__(self, batch_first: bool, turns: bool = False) -> None:
        super().__init__()
        self.embed = nn.Linear(4, 8)
        self.rnn = nn.LSTM(8, 8, batch_first=batch_first)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=batch_first)
        self.head = nn.Linear(8, 3)
        self.turns = turns

    def forward(self, x: Tensor) -> Tensor:
        h = self.embed(x.transpose(0, 1) if self.turns else x)
        h, _ = self.rnn(h)
        return self.head(h + self.attention(h, h, h, need_weights=False)[0])


def test_the_input_of_a_recurrent_net_is_time_first_where_the_net_reads_it_so() -> None:
    x = torch.randn(5, 8, 4)
    examples, told = factor(OverTime(batch_first=False), x)
    assert examples == 8
    assert told == [
        "N: taken as 8, dim 1 of the model's input [5, 8, 4], since a module that reads it has"
        " batch_first=False; if that is not so, pass examples="
    ]
    assert factor(OverTime(batch_first=True), x) == (5, [])
    assert factor(OverTime(batch_first=False, turns=True), x) == (5, [])
    assert factor(OverTime(batch_first=False), x, examples=5) == (5, [])
    assert factor(OverTime(batch_first=False), x, repeats=2)[0] == 16


def test_the_user_may_say_it_as_a_number_or_as_a_function_of_the_call() -> None:
    model = Reads(lambda x, **_: x)
    assert factor(model, X, examples=2) == (2, [])
    assert factor(model, X, examples=lambda x, **_: 2 * len(x)) == (12, [])
    assert factor(model, X, examples=lambda _, scale: scale, scale=7) == (7, [])
    assert factor(model, X, examples=2, repeats=3) == (6, [])
    assert factor(model, X, examples=lambda x: torch.tensor(len(x)), repeats=2) == (12, [])


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda x: x.nothing, "examples= raised AttributeError"),
        (lambda _: 0, "examples= returned 0, allowed: at least 1"),
        (lambda _: "6", "examples= raised TypeError"),
        (lambda _: 2.5, "examples= raised TypeError"),
    ],
)
def test_a_function_that_fails_is_told_and_training_goes_on(
    function: Callable[..., Any], words: str
) -> None:
    examples, told = factor(Reads(lambda x: x), X, examples=function)
    assert examples == 6
    assert len(told) == 1
    assert words in told[0]


@pytest.mark.parametrize("value", [0, -1, 2.0, "2", True, [2]])
def test_what_is_no_number_of_examples_is_refused(value: Any) -> None:
    model = nn.Linear(4, 3)
    with pytest.raises(QuestionError, match="examples"):
        Probe(model, torch.optim.SGD(model.parameters(), lr=0.1), examples=value)


def test_a_guess_says_what_it_is_from() -> None:
    _, told = factor(Reads(lambda _, b: b), torch.ones(5, 5), X)
    assert told == [
        "N: guessed as 5 from dim 0 of input 0 [5, 5], but others have 6; pass examples="
    ]
    examples, told = factor(Reads(lambda n: torch.ones(n, 4)), 7)
    assert examples == 1
    assert told == ["N: no tensor was found in the model's arguments: taken as 1; pass examples="]


def test_where_only_submodules_are_called_n_is_that_of_the_first() -> None:
    model = nn.ModuleDict({"a": nn.Linear(4, 4), "b": nn.Linear(4, 3)})
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    deltas = {}
    for name, given in (("none", None), ("number", 2), ("function", len)):
        with Probe(model, optimizer, examples=given) as probe:
            model["b"](model["a"](X)).sum().backward()
            optimizer.step()
        deltas[name] = measured_rows(probe)[1]["delta_rms"]
        told = any("the model itself is not called" in line for line in probe.unseen)
        assert told == (name == "function")
    assert deltas["none"] == deltas["function"] == 3 * deltas["number"]


def test_names_of_arguments_are_those_of_the_forward_pass() -> None:
    class Named(nn.Module):
        def forward(self, src_mask: Tensor, x: Tensor, y: Tensor) -> Tensor:
            return x + y + src_mask.sum()

    told: list[str] = []
    examples = Examples(Named(), None, told.append)
    assert examples.of_call((torch.ones(9, 9), X, X), {}) == 6
    assert examples.of_call((torch.ones(9, 9),), {"x": X, "y": X}) == 6
    assert told == []
