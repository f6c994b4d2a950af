"""Sequences: two tasks of memory, images read over time, text.

Holds: config/sequences.py, data/sequences.py, data/text.py, training/facts.py
"""

from __future__ import annotations

import itertools
import math
import re
import sys
from collections import Counter
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from vgexp import data
from vgexp.assembly import assemble
from vgexp.cli.main import main
from vgexp.config import (
    AddingConfig,
    Config,
    CopyConfig,
    DigitsConfig,
    GruConfig,
    RowsConfig,
    TextConfig,
)
from vgexp.data import Dataset, text
from vgexp.errors import QuestionError
from vgexp.losses import LOSSES, RIGHT_WITHIN

# ---------------------------------------------------------------- adding


@pytest.mark.parametrize("seq_len", [2, 3, 9, 50])
def test_the_target_of_adding_is_the_sum_of_the_values_marked_in_each_half(seq_len: int) -> None:
    found = data.read(AddingConfig(num_examples=300, seq_len=seq_len), 5)
    assert found.loss == "mse"
    half = seq_len // 2
    places = set()
    for example, (target,) in zip(found.inputs.tolist(), found.targets.tolist(), strict=True):
        marked = [t for t, (_, marker) in enumerate(example) if marker]
        assert {marker for _, marker in example} <= {0.0, 1.0}
        assert len(marked) == 2
        assert marked[0] < half <= marked[1]
        places.update(marked)
        assert target == pytest.approx(sum(example[t][0] for t in marked), rel=1e-15)
        assert all(0 <= value < 1 for value, _ in example)
    assert places == set(range(seq_len))


def test_values_to_add_are_uniform_and_their_sum_s_mean_costs_a_sixth() -> None:
    found = data.read(AddingConfig(num_examples=20_000, seq_len=4), 0)
    values = found.inputs[..., 0]
    assert float(values.mean()) == pytest.approx(0.5, abs=5e-3)
    assert float(values.var()) == pytest.approx(1 / 12, abs=2e-3)
    constant = LOSSES[found.loss].constant(found.targets, 1)
    assert constant == pytest.approx(1 / 6, abs=5e-3)
    mean = found.targets.mean()
    assert constant == pytest.approx(float(((found.targets - mean) ** 2).mean()), rel=1e-12)


def test_values_and_markers_are_one_channel_so_that_markers_do_not_grow_with_time() -> None:
    config = AddingConfig(num_examples=400, seq_len=200)
    raw = data.read(config, 1)
    dataset = data.load(config, 1, torch.float64)
    levels = dataset.train.inputs[..., 1].unique()
    assert len(levels) == 2
    # One affine map for both features: a step of 1 in a value and in a marker are as long.
    step = float(levels[1] - levels[0])
    assert step == pytest.approx(1 / float(raw.inputs.std()), rel=0.02)
    assert step < 5 < math.sqrt(200 / 2)
    assert float(dataset.train.inputs.mean()) == pytest.approx(0, abs=1e-12)
    assert float(dataset.train.inputs.std(correction=0)) == pytest.approx(1, rel=1e-12)
    # Targets stay as they are: right is within 0.04 of the sum itself.
    assert float(dataset.train.targets.mean()) == pytest.approx(1, abs=0.1)
    hits = LOSSES["mse"].hits
    assert hits is not None
    near = dataset.train.targets + 0.9 * RIGHT_WITHIN
    assert int(hits(near, dataset.train.targets)) == len(dataset.train)
    assert int(hits(near + 0.2 * RIGHT_WITHIN, dataset.train.targets)) == 0


# ---------------------------------------------------------------- copy


@pytest.mark.parametrize(("delay", "copy_len", "num_symbols"), [(1, 1, 2), (7, 3, 5), (50, 10, 8)])
def test_symbols_come_back_after_the_delay(delay: int, copy_len: int, num_symbols: int) -> None:
    config = CopyConfig(num_examples=90, seq_len=delay, copy_len=copy_len, num_symbols=num_symbols)
    found = data.read(config, 2)
    blank, delimiter = num_symbols, num_symbols + 1
    seen = set()
    for example, target in zip(found.inputs.tolist(), found.targets.tolist(), strict=True):
        symbols = example[:copy_len]
        seen.update(symbols)
        assert example[copy_len:] == [blank] * (delay - 1) + [delimiter] + [blank] * copy_len
        assert target == [blank] * (delay + copy_len) + symbols
    assert seen == set(range(num_symbols))
    assert found.task.num_tokens == num_symbols + 2
    assert found.task.num_outputs == num_symbols + 1
    assert found.task.per_position


def memoryless(dataset: Dataset, config: CopyConfig) -> Tensor:
    """Log-probabilities of one who sees the delimiter but remembers no symbol."""
    outputs = torch.full((*dataset.train.targets.shape, config.num_symbols + 1), -math.inf)
    recall = config.seq_len + config.copy_len
    outputs[:, :recall, config.num_symbols] = 0.0
    outputs[:, recall:, : config.num_symbols] = -math.log(config.num_symbols)
    return outputs


@pytest.mark.parametrize("delay", [5, 60])
def test_copying_without_memory_costs_what_the_papers_say(delay: int) -> None:
    config = CopyConfig(seq_len=delay, num_examples=8000)
    dataset = data.load(config, 0, torch.float64)
    loss = LOSSES[dataset.loss]
    expected = 10 * math.log(8) / (delay + 20)
    outputs = memoryless(dataset, config)
    assert float(loss.mean(outputs, dataset.train.targets)) == pytest.approx(expected, rel=1e-6)
    # The verdict's yardstick is that loss too, and not the entropy over all positions together,
    # which mere blanks would beat.
    constant = loss.constant(dataset.train.targets, dataset.task.num_outputs)
    assert constant == pytest.approx(expected, rel=2e-3)
    assert constant < expected
    assert loss.hits is not None
    accuracy = int(loss.hits(outputs, dataset.train.targets)) / dataset.train.targets.numel()
    assert accuracy == pytest.approx((delay + 10 + 10 / 8) / (delay + 20), abs=2e-3)


def test_a_constant_answer_at_positions_is_the_best_of_each_position() -> None:
    targets = torch.tensor([[0, 2, 1], [0, 1, 1], [0, 2, 2], [0, 1, 1]])
    by_hand = []
    for column in zip(*targets.tolist(), strict=True):
        shares = [Fraction(n, 4) for n in Counter(column).values()]
        by_hand.append(-math.fsum(float(p) * math.log(p) for p in shares))
    constant = LOSSES["cross_entropy"].constant(targets, 5)
    assert constant == pytest.approx(math.fsum(by_hand) / 3, rel=1e-14)
    # No constant logits are better, whatever they are.
    logits = torch.zeros(3, 5, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([logits], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = LOSSES["cross_entropy"].mean(logits.expand(4, 3, 5), targets)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    assert constant - 1e-9 <= closure().item() < constant + 1e-3
    values = torch.tensor([[[1.0], [0.0]], [[3.0], [4.0]]])
    assert LOSSES["mse"].constant(values, 1) == pytest.approx((1 + 4) / 2)


# ---------------------------------------------------------------- rows


@pytest.mark.parametrize(
    ("reading", "shape"), [("row", (8, 8)), ("pixel", (64, 1))], ids=["row", "pixel"]
)
def test_digits_read_over_time_are_the_digits(reading: str, shape: tuple[int, int]) -> None:
    over_time = data.load(RowsConfig(reading=reading), 3, torch.float64)
    images = data.load(DigitsConfig(), 3, torch.float64)
    assert over_time.task.shape == shape
    assert not over_time.task.per_position
    for one, other in (
        (over_time.train, images.train),
        (over_time.val, images.val),
        (over_time.test, images.test),
    ):
        assert torch.equal(one.inputs.flatten(1), other.inputs.flatten(1))
        assert torch.equal(one.targets, other.targets)
        if reading == "row":
            assert one.inputs[2, 3].tolist() == other.inputs[2, 0, 3].tolist()


# ---------------------------------------------------------------- text

WORDS = "The quick brown fox jumps over the lazy dog.\n" * 9


def written(folder: Path, content: str | bytes) -> str:
    path = folder / "some.txt"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(path)


def read_back(dataset: Dataset, split: str, vocabulary: str) -> list[str]:
    """Pieces of text: all that a split reads, and the last character that it is asked for."""
    part = getattr(dataset, split)
    assert torch.equal(part.inputs[:, 1:], part.targets[:, :-1])
    tokens = torch.cat([part.inputs, part.targets[:, -1:]], dim=1).tolist()
    return ["".join(vocabulary[token] for token in piece) for piece in tokens]


def test_a_text_is_cut_into_three_stretches_that_share_nothing(tmp_path: Path) -> None:
    content = "".join(chr(33 + i // 90) + chr(33 + i % 90) for i in range(300))
    config = TextConfig(path=written(tmp_path, content), seq_len=7, val_fraction=0.2)
    dataset = data.load(config, 3, torch.float32)
    pieces = [content[i : i + 8] for i in range(0, 600, 8)]
    vocabulary = "".join(sorted(set("".join(pieces[:45]))))
    unseen = "\0"
    known = set(vocabulary)
    expected = {"train": pieces[:45], "val": pieces[45:60], "test": pieces[60:75]}
    for split, those in expected.items():
        shown = ["".join(c if c in known else unseen for c in piece) for piece in those]
        assert sorted(read_back(dataset, split, vocabulary + unseen)) == sorted(shown)
    assert dataset.task.num_tokens == dataset.task.num_outputs == len(vocabulary) + 1


def test_characters_that_training_never_saw_are_one_token(tmp_path: Path) -> None:
    """Those that stand before, between and after the known ones in Unicode's order."""
    content = "bd" * 40 + "bace€" * 8
    config = TextConfig(path=written(tmp_path, content), seq_len=3, val_fraction=0.3)
    dataset = data.load(config, 0, torch.float32)
    assert sorted({*dataset.train.inputs.unique().tolist()}) == [0, 1]
    assert dataset.task.num_tokens == 3
    assert set(dataset.test.targets.unique().tolist()) == {0, 2}
    shown = [re.sub("[ace€]", "?", content[i : i + 4]) for i in range(84, 120, 4)]
    assert sorted(read_back(dataset, "test", "bd?")) == sorted(shown)


def test_without_a_path_the_text_is_python_s_own_help(monkeypatch: pytest.MonkeyPatch) -> None:
    from pydoc_data.topics import topics

    config = TextConfig(seq_len=64)
    dataset = data.load(config, 0, torch.float32)
    whole = "\n".join(topics[name] for name in sorted(topics))
    pieces = [whole[i : i + 65] for i in range(0, len(whole) - 64, 65)]
    held = round(0.15 * len(pieces))
    training = pieces[: len(pieces) - 2 * held]
    vocabulary = "".join(sorted(set("".join(training))))
    assert sorted(read_back(dataset, "train", vocabulary)) == sorted(training)
    assert len(whole) > 300_000
    assert 90 < len(vocabulary) < 200
    constant = LOSSES["cross_entropy"].constant(dataset.train.targets, dataset.task.num_outputs)
    counts = Counter("".join(training))
    total = sum(counts.values())
    entropy = -math.fsum(n / total * math.log(n / total) for n in counts.values())
    # Of 5,000 pieces: each position's shares are some 100 / (2 * 5,000) nats too well fitted.
    assert entropy - 0.03 < constant < entropy
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    with pytest.raises(QuestionError, match=r"data\.path is null: this Python comes without"):
        data.load(config, 0, torch.float32)


def test_so_many_pieces_are_those_of_the_text_s_beginning(tmp_path: Path) -> None:
    config = TextConfig(path=written(tmp_path, WORDS), seq_len=4, num_examples=11, val_fraction=0.2)
    dataset = data.load(config, 0, torch.float32)
    assert [len(s) for s in (dataset.train, dataset.val, dataset.test)] == [7, 2, 2]
    vocabulary = "".join(sorted(set(WORDS[:35])))
    assert sorted(read_back(dataset, "train", vocabulary)) == sorted(
        WORDS[i : i + 5] for i in range(0, 35, 5)
    )


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("\ufeffab\r\ncd\rab\ncd", ["ab\n", "ab\n", "cd\n", "cd"]),
        ("no mark here", ["no mark here"]),
    ],
)
def test_marks_and_ends_of_lines_are_read_as_python_reads_text(
    content: str, said: list[str], tmp_path: Path
) -> None:
    config = TextConfig(path=written(tmp_path, content), seq_len=1, val_fraction=0.0)
    dataset = data.load(config, 0, torch.float32)
    characters = Counter(itertools.chain.from_iterable(said))
    assert dataset.task.num_tokens == len(characters) + 1


BAD_TEXTS: dict[str, tuple[bytes | None, str]] = {
    "missing": (None, "no such file or directory"),
    "empty": (b"", "it has 0 characters, and a piece of data.seq_len=64 takes 65"),
    "short": (b"short", "it has 5 characters"),
    "bytes": (b"Latin-1: \xe9\xe8" * 50, "it is not UTF-8: invalid continuation byte at byte 9"),
}


@pytest.mark.parametrize("kind", BAD_TEXTS)
def test_a_text_that_cannot_be_used_is_said_in_one_block(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    content, said = BAD_TEXTS[kind]
    monkeypatch.chdir(tmp_path)
    if content is not None:
        written(tmp_path, content)
    path = "some.txt"
    with pytest.raises(QuestionError) as caught:
        text.read(TextConfig(path=path), 0)
    first, allowed = str(caught.value).splitlines()
    assert first.startswith(f"data.path is '{path}': ")
    assert said in first
    assert allowed.startswith("allowed: ")
    assert main(["train", "data=text", f"data.path={path}"]) == 2
    shown = capsys.readouterr().err
    assert "Traceback" not in shown
    assert shown.startswith("error: ")


@pytest.mark.parametrize("path", [".", "", "a\0b"])
def test_what_is_no_file_is_no_text(path: str) -> None:
    with pytest.raises(QuestionError, match=r"that is no file|that cannot be a name"):
        text.read(TextConfig(path=path), 0)


def test_a_share_that_leaves_no_piece_to_train_on_is_an_error(tmp_path: Path) -> None:
    config = TextConfig(path=written(tmp_path, "abcdefgh"), seq_len=3, val_fraction=0.49)
    with pytest.raises(QuestionError, match=r"data\.val_fraction is 0\.49"):
        text.read(config, 0)


# ---------------------------------------------------------------- with a model


@pytest.mark.parametrize("choice", ["adding", "rows"])
def test_a_perceptron_reads_a_sequence_all_at_once(choice: str, tmp_path: Path) -> None:
    words = ["train.steps=3", "model.depth=2", "model.width=8", f"hydra.run.dir={tmp_path}/run"]
    assert main(["train", f"data={choice}", *words]) == 0
    rows = (tmp_path / "run" / "evals.csv").read_text().splitlines()
    assert [row.split(",")[2] for row in rows[1:]][-1] == "test"


def test_a_perceptron_does_not_read_tokens(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "data=copy", "model=mlp"]) == 2
    shown = " ".join(capsys.readouterr().err.split())
    assert "the data are tokens of 70" in shown
    assert "adding" in shown.split("allowed:")[1]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: AddingConfig(seq_len=1), "data.seq_len is 1"),
        (lambda: CopyConfig(seq_len=0), "data.seq_len is 0"),
        (lambda: CopyConfig(num_symbols=1), "data.num_symbols is 1"),
        (lambda: CopyConfig(copy_len=0), "data.copy_len is 0"),
        (lambda: RowsConfig(reading="rows"), "unknown data.reading: 'rows'"),
        (lambda: TextConfig(seq_len=0), "data.seq_len is 0"),
        (lambda: TextConfig(num_examples=1), "data.num_examples is 1"),
    ],
)
def test_ranges_are_checked_where_a_value_enters(make: object, said: str) -> None:
    assert callable(make)
    with pytest.raises(QuestionError) as caught:
        make()
    assert said in str(caught.value)


@pytest.mark.parametrize(("config", "by_position"), [(CopyConfig, True), (TextConfig, False)])
def test_the_constant_guess_is_one_for_all_unless_positions_tell(
    config: Any, by_position: bool
) -> None:
    made = Config(model=GruConfig(width=3), data=config(num_examples=60, seq_len=12, batch_size=4))
    trainer = assemble(made)
    targets = data.load(made.data, 0, torch.float32).train.targets
    columns = [targets[:, t].tolist() for t in range(targets.shape[1])]
    groups = columns if by_position else [[c for column in columns for c in column]]
    entropies = [
        -sum(n / len(group) * math.log(n / len(group)) for n in Counter(group).values())
        for group in groups
    ]
    assert trainer.facts.constant_loss == pytest.approx(sum(entropies) / len(entropies), rel=1e-12)
