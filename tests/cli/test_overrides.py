"""What is typed, before Hydra reads it: what it would pass over is refused.

Holds: cli/overrides.py
"""

from __future__ import annotations

import pytest

from vgexp.cli import overrides
from vgexp.errors import QuestionError


def refusal(words: list[str], *, is_sweep: bool) -> str | None:
    """Why the words are refused; None where they are left to Hydra."""
    try:
        overrides.require_possible(words, is_sweep=is_sweep)
    except QuestionError as error:
        return str(error)
    return None


@pytest.mark.parametrize(
    ("words", "is_sweep", "said"),
    [
        (
            ["hydra.run.dir=a/b"],
            True,
            "hydra.run.dir is not where a sweep goes\nallowed: hydra.sweep.dir=a/b",
        ),
        (
            ["seed=3", "hydra.sweep.dir='a b'"],
            False,
            "hydra.sweep.dir is not where a single run goes\nallowed: hydra.run.dir='a b'",
        ),
        (["model=5"], False, "unknown model: '5'\nallowed: "),
        (["+model=true"], True, "unknown model: 'true'"),
        (["optimizer=null"], False, "unknown optimizer: 'null'\nallowed: adam"),
        (["optimizer=[adam,sgd]"], False, "optimizer is several choices at once: [adam,sgd]"),
        (["experiment=5"], False, "experiment is 5\nallowed: a name: vgexp list experiments"),
    ],
)
def test_what_hydra_would_pass_over_or_name_in_its_own_words_is_refused(
    words: list[str], is_sweep: bool, said: str
) -> None:
    assert said in (refusal(words, is_sweep=is_sweep) or "")


@pytest.mark.parametrize("is_sweep", [False, True])
@pytest.mark.parametrize(
    "words",
    [
        [],
        ["hydra.run.dir=a", "hydra.sweep.dir=b"],
        ["model=mlp", "clip='norm'", "~scheduler", "optimizer=[adam]"],
        ["optimizer=adam,sgd", "model=choice(mlp)"],
        ["experiment=[sigmoid_deep,lsuv]"],
        ["hydra/launcher=basic", "model.depth=3"],
        ["model=[mlp"],
    ],
)
def test_what_can_be_is_left_to_hydra(words: list[str], is_sweep: bool) -> None:
    assert refusal(words, is_sweep=is_sweep) is None


def test_each_kind_of_command_keeps_its_own_folder() -> None:
    for own, is_sweep in (("run", False), ("sweep", True)):
        assert refusal([f"hydra.{own}.dir=a"], is_sweep=is_sweep) is None
        assert refusal([f"hydra.{own}.dir=a"], is_sweep=not is_sweep) is not None
