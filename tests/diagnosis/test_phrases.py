"""Numbers in words.

Holds: diagnosis/phrases.py
"""

from __future__ import annotations

import pytest

from vgexp.diagnosis.phrases import format_factor, format_loss, format_ratio, place_layers


@pytest.mark.parametrize(
    ("factor", "words"),
    [
        (0.8994, "0.9"),
        (0.9006, "0.901"),
        (0.904, "0.904"),
        (1.0, "1"),
        (1.094, "1.09"),
        (1.1051, "1.1"),
        (0.2412, "0.24"),
        (9.8765, "9.9"),
        (0.0, "0"),
    ],
)
def test_a_factor_has_a_third_digit_from_nine_to_eleven_tenths(factor: float, words: str) -> None:
    assert format_factor(factor) == words


@pytest.mark.parametrize(
    ("ratio", "words"),
    [(0.5, "0.5 of"), (1.0, "1 of"), (1.5, "1.5 times"), (1234.5, "1.2e+03 times")],
)
def test_a_ratio_above_one_is_so_many_times(ratio: float, words: str) -> None:
    assert format_ratio(ratio) == words


@pytest.mark.parametrize(
    ("loss", "words"),
    [(2.3, "2.30"), (100.0, "100"), (0.5, "0.500"), (0.0, "0.00"), (None, "none")],
)
def test_a_loss_has_three_digits(loss: float | None, words: str) -> None:
    assert format_loss(loss) == words


def test_layers_stand_behind_their_numbers() -> None:
    depths = {"a": 1, "b": 2, "c": 3, "e": 5}
    assert place_layers(["a"], depths) == "layer 1 (a)"
    assert place_layers(["a", "b", "c"], depths) == "layers 1 to 3 (a to c)"
    assert place_layers(["a", "e"], depths) == "layers 1 and 5 (a and e)"
    assert place_layers(["a", "head"], depths) == "a and head"
